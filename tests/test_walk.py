"""The walk: order, freeing, ownership of gradients, hooks, retain_grad, several outputs, and what happens on errors."""

import gc
import threading
import weakref

import numpy as np
import pytest

import minidl
from minidl.core import graph
from minidl.core import op as registry
from minidl.core.errors import GraphError
from minidl.core.graph import backward_steps
from minidl.core.op import op


def leaf(*shape, seed=0, dtype=np.float64):
    return minidl.Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), True)


def ones(*shape):
    return minidl.Tensor(np.ones(shape))


@pytest.fixture
def scratch_ops():
    """Ops defined inside a test leave the registry when it ends."""
    before = dict(registry.OPS)
    yield
    registry.OPS.clear()
    registry.OPS.update(before)


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- order --------------------------------------------------------------------------------------------------------

def test_nodes_run_newest_first_and_once():
    x = leaf(3)
    a = x * x
    b = a.tanh()
    c = a + b          # a is reached along two paths: it must run after b, once
    steps = list(backward_steps([c], [ones(3)]))
    assert [s.node.op.name for s in steps] == ["add", "tanh", "mul"]
    t = np.tanh(x.array ** 2)
    np.testing.assert_allclose(x.grad.array, 2 * x.array * (1 + 1 - t * t), rtol=1e-12)


def test_sums_tell_every_contribution():
    x = leaf(3)
    a = x * x
    c = (a.tanh() + a) + a
    steps = list(backward_steps([c], [ones(3)], keep_sums=True))
    into_a = [s.sums[k] for s in steps for k, edge in enumerate(s.edges) if edge is a.edge]
    assert [before is None for before, _ in into_a] == [True, False, False]
    np.testing.assert_array_equal(into_a[0][1].array, 1)
    np.testing.assert_array_equal(into_a[1][0].array, 1)
    np.testing.assert_array_equal(into_a[1][1].array, 2)
    np.testing.assert_array_equal(into_a[2][0].array, 2)
    np.testing.assert_allclose(into_a[2][1].array, steps[-1].grads_in[0].array)


def test_hundred_thousand_ops_need_no_recursion():
    h, one = leaf(2), minidl.Tensor(np.full(2, 1e-9))
    x = h
    for _ in range(100_000):
        h = h + one
    h.backward(ones(2))
    np.testing.assert_array_equal(x.grad.array, 1)


def test_dropping_a_deep_graph_without_walking_it_is_safe():
    h = leaf(2)
    for _ in range(100_000):
        h = h * h
    del h
    assert (leaf(2) * 1.0).requires_grad


# --- freeing ------------------------------------------------------------------------------------------------------

def test_second_walk_says_so_and_retain_graph_allows_it():
    x = leaf(3)
    y = (x * x).tanh()
    y.backward(ones(3), retain_graph=True)
    first = x.grad.array.copy()
    y.backward(ones(3))
    np.testing.assert_allclose(x.grad.array, 2 * first)
    with pytest.raises(GraphError, match="already walked and freed"):
        y.backward(ones(3))


def test_walking_into_a_freed_part_says_so():
    x = leaf(3)
    shared = x * x
    shared.tanh().backward(ones(3))
    with pytest.raises(GraphError, match="freed"):
        (shared + x).backward(ones(3))


def test_graph_memory_goes_without_the_collector(no_collector):
    x = leaf(3)
    y = x * x
    z = y.tanh() + y
    nodes = [weakref.ref(t.edge[0]) for t in (y, z)]
    array = weakref.ref(y.array)
    z.backward(ones(3))
    del y, z
    assert [n() for n in nodes] == [None, None]
    assert array() is None


def test_an_unwalked_graph_goes_without_the_collector(no_collector):
    x = leaf(3)
    z = (x * x).tanh()
    node = weakref.ref(z.edge[0])
    del z
    assert node() is None


def test_create_graph_leaves_no_cycle(no_collector):
    x = leaf(3)
    y = (x * x).tanh()
    node = weakref.ref(y.edge[0])
    (grad,) = minidl.autograd.grad(y, x, ones(3), create_graph=True)
    (second,) = minidl.autograd.grad(grad, x, ones(3))
    del y, grad, second
    assert node() is None


def test_activations_that_no_formula_names_die_at_once(no_collector):
    x = leaf(3)
    h = x + x
    array = weakref.ref(h.array)
    out = h + x        # neither add names h's values
    del h
    assert array() is None
    out.backward(ones(3))
    np.testing.assert_array_equal(x.grad.array, 3)


# --- ownership ----------------------------------------------------------------------------------------------------

def test_two_leaves_never_share_a_gradient():
    a, b = leaf(3), leaf(3)
    (a + b).backward(ones(3))
    assert not np.shares_memory(a.grad.array, b.grad.array)
    a.grad.array += 5
    np.testing.assert_array_equal(b.grad.array, 1)


def test_the_starting_gradient_is_not_taken():
    a, start = leaf(3), ones(3)
    (a + 0.0).backward(start)
    assert not np.shares_memory(a.grad.array, start.array)


def test_a_fresh_gradient_is_taken_without_a_copy(monkeypatch):
    from minidl import ops
    a, b = leaf(3), leaf(3)
    copies = []
    original = ops.clone
    monkeypatch.setattr(ops, "clone", lambda x: copies.append(1) or original(x))
    (a * b).backward(ones(3))
    assert copies == []


def test_paths_that_meet_are_added_in_place_where_nobody_sees_it(monkeypatch):
    added = []
    monkeypatch.setattr(graph, "_plus", lambda *args, plus=graph._plus: added.append(args) or plus(*args))
    x = minidl.ones(3, requires_grad=True)
    h = x * 2
    (h.exp() + h.sin() + h.tanh()).sum().backward()
    assert not added
    np.testing.assert_allclose(x.grad.numpy(), 2 * (np.exp(2) + np.cos(2) + 1 - np.tanh(2) ** 2), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 4)])
def test_a_gradient_that_somebody_holds_is_not_added_to(shape):
    """Held by a hook, by a step that was kept, as the same array for two inputs, or as a view of it."""
    x = minidl.ones(shape, requires_grad=True)
    h, held = x * 2, []

    def hold(grad):
        held.append((grad, grad.numpy().copy()))

    for path in (h * 3, h * 1, h + h, h.reshape(-1).reshape(shape)):
        path.register_hook(hold)
        h = h + path
    h.register_hook(hold)
    for step in backward_steps([h], [minidl.full(shape, 0.5)]):
        for grad in step.grads_out:
            if grad is not None:
                hold(grad)
    for grad, before in held:
        np.testing.assert_array_equal(grad.numpy(), before)
    np.testing.assert_array_equal(x.grad.numpy(), np.full(shape, 0.5 * (1 + 3 + 1 + 2 + 1) * 2, np.float32))


@pytest.mark.parametrize("view", [False, True])
def test_a_gradient_whose_memory_somebody_holds_is_not_added_to(view):
    held, x = [], minidl.ones(4, requires_grad=True)
    h = x * 2
    older, newer = h.exp(), h.reshape(2, 2) if view else h * 1
    newer.register_hook(lambda grad: held.append((grad.numpy(), grad.numpy().copy())))  # the array, not the tensor
    (older.reshape(2, 2) + newer * 3 if view else older + newer * 3).backward(minidl.ones((2, 2) if view else 4))
    for array, before in held:
        np.testing.assert_array_equal(array, before)


def test_a_read_only_gradient_is_not_added_to():
    """In storage order, held by nobody else, and yet: as when one number is broadcast to an array of one number."""
    array = np.zeros((1, 1), np.float32)
    array.flags.writeable = False
    grad = minidl.Tensor(array)
    del array
    assert not graph._is_alone(grad)


def test_a_broadcast_gradient_is_not_added_to():
    x = minidl.ones(2, 3, requires_grad=True)
    h = x * 2
    older = h.exp().sum()
    (older + h.sum()).backward()  # the sum's gradient, one number seen six times, arrives first
    np.testing.assert_allclose(x.grad.numpy(), np.full((2, 3), 2 * (np.exp(2) + 1)), rtol=1e-6)


def test_a_broadcast_gradient_becomes_memory_of_its_own():
    a = leaf(4, 3)
    a.sum().backward()
    assert a.grad.array.flags.writeable and a.grad.array.strides != (0, 0)
    a.sum().backward()
    np.testing.assert_array_equal(a.grad.array, 2)


def test_watching_a_walk_does_not_change_its_numbers():
    results = []
    for keep in (False, True):
        x = leaf(3)
        a = x * x
        root = a + a.tanh() + a + a
        kept = list(backward_steps([root], [ones(3)], keep_sums=keep))
        results.append(x.grad.array.copy())
        assert len(kept) == 5
    np.testing.assert_array_equal(*results)


def test_gradients_accumulate_into_the_same_tensor():
    x = leaf(3)
    (x * 2).backward(ones(3))
    held = x.grad
    (x * 3).backward(ones(3))
    assert x.grad is held
    np.testing.assert_array_equal(held.array, 5)


# --- errors in the middle -----------------------------------------------------------------------------------------

def test_an_exception_leaves_no_leaf_half_added(scratch_ops):
    @op("x")
    def explode(x):
        def backward(grad_y):
            raise RuntimeError("planted")
        return x.array.copy(), backward

    x, w = leaf(3), leaf(3, seed=1)
    y = explode(x * x) * w    # w's gradient is ready before explode runs
    with pytest.raises(RuntimeError, match="planted"):
        y.backward(ones(3))
    assert x.grad is None and w.grad is None
    assert minidl.is_grad_enabled()


def test_wrong_gradients_of_a_users_op_are_named(scratch_ops):
    def make(result):
        @op("x weight", name="mine")
        def mine(x, weight):
            return x.array * 2, lambda grad_y: result(grad_y)
        return mine

    x, w = leaf(2, 3), leaf(2, 3)
    for result, text in [
        (lambda g: g, r"mine.backward: one gradient per tensor input, in order.\n    inputs: 2 \(x, weight\)\n    gradients returned: 1"),
        (lambda g: (g.sum(), None), r"mine.backward: grad_x must have the shape of x.\n    x: \(2, 3\)\n    grad_x: \(\)"),
        (lambda g: (None, g.transpose(0, 1)), r"grad_weight must have the shape of weight(.|\n)*transposed"),
        (lambda g: (g.array, None), r"grad_x must be a Tensor or None.\n    it is a ndarray"),
    ]:
        with pytest.raises(GraphError, match=text):
            make(result)(x, w).backward(ones(2, 3))


# --- hooks and retain_grad ----------------------------------------------------------------------------------------

def test_hooks_see_the_complete_gradient_and_may_replace_it():
    x = leaf(3)
    a = x * 2
    seen = []
    handle = a.register_hook(lambda g: seen.append(g.array.copy()))
    a.register_hook(lambda g: g * 10)
    (a + a).backward(ones(3))
    np.testing.assert_array_equal(seen, [[2, 2, 2]])
    np.testing.assert_array_equal(x.grad.array, 40)
    handle.remove()
    handle.remove()
    (x * 2 + a.detach()).backward(ones(3))
    assert len(seen) == 1


def test_a_leafs_hook_runs_once_on_the_total():
    x = leaf(3)
    x.register_hook(lambda g: g * 10)
    (x + x + x).backward(ones(3))
    np.testing.assert_array_equal(x.grad.array, 30)


def test_retain_grad_keeps_an_interior_gradient_without_keeping_the_tensor(no_collector):
    x = leaf(3)
    a, b = x * 2, x * 3
    a.retain_grad()
    b.retain_grad()
    y = a * b
    gone = weakref.ref(b)
    del b
    y.backward(ones(3))
    np.testing.assert_allclose(a.grad.array, 3 * x.array)
    assert gone() is None
    a.grad.array[...] = 0      # it is a's own
    assert x.grad.array.any()


# --- grad() -------------------------------------------------------------------------------------------------------

def test_grad_changes_no_leaf_and_runs_only_what_leads_there(scratch_ops):
    ran = []

    @op("x")
    def note(x):
        def backward(grad_y):
            ran.append(1)
            return grad_y
        return x.array.copy(), backward

    x, w = leaf(3), leaf(3, seed=1)
    y = x.tanh() * note(w)
    (g,) = minidl.autograd.grad(y, x, ones(3))
    assert ran == [] and x.grad is None and w.grad is None
    np.testing.assert_allclose(g.array, w.array * (1 - np.tanh(x.array) ** 2))


def test_grad_of_interior_tensors_and_unused_inputs():
    x, w = leaf(3), leaf(3)
    h = x * x
    y = h.tanh() + h
    gh, gx = minidl.autograd.grad(y, [h, x], ones(3), retain_graph=True)
    np.testing.assert_allclose(gx.array, gh.array * 2 * x.array)
    assert minidl.autograd.grad(y, [w], ones(3), retain_graph=True, allow_unused=True) == (None,)
    with pytest.raises(GraphError, match="no path leads"):
        minidl.autograd.grad(y, [w], ones(3))


def test_backward_into_chosen_inputs_only():
    x, w = leaf(3), leaf(3)
    (x * w).backward(ones(3), inputs=[x])
    np.testing.assert_array_equal(x.grad.array, w.array)
    assert w.grad is None


def test_grad_outputs_weigh_several_roots():
    x = leaf(3)
    a, b = x * 2, x * 3
    (g,) = minidl.autograd.grad([a, b], x, [ones(3), ones(3) * 10])
    np.testing.assert_array_equal(g.array, 32)
    h = x * 1
    (g,) = minidl.autograd.grad([h, h * 2], h, [ones(3), ones(3)])   # a root that is also an input
    np.testing.assert_array_equal(g.array, 3)


# --- several outputs, dtypes, threads -----------------------------------------------------------------------------

def test_several_outputs_arrive_together(scratch_ops):
    seen = []

    @op("x", non_differentiable=(2,))
    def both(x):
        def backward(grad_a, grad_b, grad_c):
            seen.append((grad_a is None, grad_b is None, grad_c is None))
            return (grad_a if grad_a is not None else 0) + (grad_b * 3 if grad_b is not None else 0)
        return (x.array * 1, x.array * 3, np.arange(3)), backward

    x = leaf(3)
    a, b, index = both(x)
    assert not index.requires_grad and a.requires_grad
    (a * b).backward(ones(3))
    np.testing.assert_allclose(x.grad.array, 6 * x.array)
    both(x)[1].backward(ones(3))
    assert seen == [(False, False, True), (True, False, True)]


def test_a_gradient_arrives_in_the_dtype_of_its_tensor():
    a, b = leaf(3, dtype=np.float32), leaf(3, dtype=np.float64)
    y = a * b
    assert y.dtype == np.float64
    y.backward(ones(3))
    assert a.grad.dtype == np.float32 and b.grad.dtype == np.float64


def test_recording_is_per_thread():
    inside = []
    with minidl.no_grad():
        thread = threading.Thread(target=lambda: inside.append(minidl.is_grad_enabled()))
        thread.start()
        thread.join()
        assert not minidl.is_grad_enabled()
    assert inside == [True]


def test_abandoning_a_walk_changes_nothing():
    x = leaf(3)
    steps = backward_steps([(x * x).tanh()], [ones(3)])
    next(steps)
    steps.close()
    assert x.grad is None and minidl.is_grad_enabled()


def test_no_grad_forms():
    x = leaf(2)

    @minidl.no_grad()
    def f():
        return x * 2

    @minidl.no_grad
    def g():
        with minidl.enable_grad():
            return x * 2

    assert not f().requires_grad and g().requires_grad and (x * 2).requires_grad


def test_create_graph_records_also_inside_no_grad():
    x = leaf(3)
    y = (x * x) * x
    with minidl.no_grad():
        (g,) = minidl.autograd.grad(y, x, ones(3), create_graph=True)
        assert g.requires_grad
        (second,) = minidl.autograd.grad(g, x, ones(3))
    np.testing.assert_allclose(second.array, 6 * x.array)


def test_the_walks_own_sums_and_copies_are_not_ops_of_the_program():
    seen = []
    registry.OBSERVERS.append(lambda call: seen.append((call.op.name, call.inside is None)))
    try:
        for create_graph in (False, True):
            x, start = leaf(3), ones(3)
            y = x * x + x + x
            count = len([1 for _, program in seen if program])
            y.backward(start, create_graph=create_graph)
            assert len([1 for _, program in seen if program]) == count
    finally:
        registry.OBSERVERS.pop()


# --- the corners that breakers found -----------------------------------------------------------------------------------

def test_walks_of_several_threads_lose_nothing():
    import sys
    x = minidl.Tensor(np.zeros(100_000), True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=lambda: [(x * 1.0).sum().backward() for _ in range(25)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert x.grad.array.min() == x.grad.array.max() == 100


def test_an_input_named_twice_counts_once():
    x, y = leaf(3), leaf(3)
    minidl.autograd.backward((x * y).sum(), inputs=[x, x, y])
    np.testing.assert_array_equal(x.grad.array, y.array)


def test_grad_takes_only_what_fits():
    x = leaf(2)
    for wrong in (ones(3), 5, minidl.tensor([1, 2]), minidl.Tensor(np.ones(2, np.float32))):
        with pytest.raises(GraphError, match="a gradient is None or a Tensor of its tensor's shape and dtype"):
            x.grad = wrong
    x.grad = minidl.Tensor(np.broadcast_to(np.ones(1), 2))     # read-only
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.array, 3)


def test_hooks_return_gradients_or_nothing():
    for wrong in (3.0, ones(4), minidl.Tensor(np.ones(3, np.float32))):
        x = leaf(3)
        x.register_hook(lambda g, wrong=wrong: wrong)
        with pytest.raises(GraphError, match="a hook returns None or a gradient of the same shape and dtype"):
            (x * 2).sum().backward()
        assert x.grad is None


def test_no_grad_on_a_generator_holds_while_its_body_runs():
    @minidl.no_grad()
    def steps():
        got = yield minidl.is_grad_enabled()
        yield minidl.is_grad_enabled(), got

    running = steps()
    assert next(running) is False
    assert minidl.is_grad_enabled()
    assert running.send(5) == (False, 5)


def test_set_grad_enabled_forms():
    minidl.set_grad_enabled(False)
    assert not minidl.is_grad_enabled()
    minidl.set_grad_enabled(True)
    with minidl.set_grad_enabled(False):
        assert not minidl.is_grad_enabled()
    assert minidl.is_grad_enabled()

    @minidl.set_grad_enabled(False)
    def inside():
        return minidl.is_grad_enabled()

    assert minidl.is_grad_enabled() and inside() is False and minidl.is_grad_enabled()


def test_comparing_with_none():
    x = leaf(3)
    assert (x == None) is False and (x != None) is True  # noqa: E711 - on purpose
    assert None not in (x.sum(),)
