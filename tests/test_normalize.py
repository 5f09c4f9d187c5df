"""Normalisation: loops and vectorised steps agree, large means, fused forms, what is kept, running averages, and what is refused."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl import nn, ops
from minidl.backend.counters import COUNTS
from minidl.backend.layout import is_stored_right, stored
from minidl.core.errors import ArgumentError, DTypeError, GraphError, ShapeError
from minidl.core.gradcheck import check
from minidl.core.guard import saved_arrays

QUICK = settings(max_examples=50)
t = minidl.zeros


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@st.composite
def inputs(draw):
    """(x, seed): (N, C, ...) with 0 to 2 axes of positions, in any memory order."""
    seed = draw(st.integers(0, 999))
    shape = (draw(st.integers(0, 3)), draw(st.sampled_from((1, 2, 4, 6))), *draw(st.lists(st.integers(1, 3), max_size=2)))
    order = draw(st.permutations(range(len(shape))))
    x = np.ascontiguousarray(random(*shape, seed=seed).transpose(order)).transpose(np.argsort(order))
    return x[..., ::draw(st.sampled_from((1, -1)))], seed


def everything(function, x, weight, bias):
    """Output and gradients as arrays, with random cotangents."""
    tensors = [minidl.Tensor(a, True) for a in (x, weight, bias)]
    y = function(*tensors)
    u = minidl.Tensor(random(*y.shape, seed=5))
    return [y.array, *(g.array for g in minidl.autograd.grad(y, tensors, u))]


def assert_both_agree(function, x, weight, bias):
    found = []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            found.append(everything(function, x, weight, bias))
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and (a.ndim != 4 or is_stored_right(a))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@QUICK
@given(inputs())
def test_the_loops_agree(drawn):
    x, seed = drawn
    C = x.shape[1]
    w, b = random(C, seed=seed + 1), random(C, seed=seed + 2)
    if x.size != C:
        assert_both_agree(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), x, w, b)
        assert_both_agree(lambda x, w, b: F.batch_norm(x, None, None, w, b, True, relu=True, add=x.detach()), x, w, b)
    assert_both_agree(lambda x, w, b: F.batch_norm(x, minidl.Tensor(b.array), minidl.Tensor(w.array**2), w, b, relu=True), x, w, b)
    if x.size and (C == 1 or x.size != C):
        for groups in (1, C):
            if x.size > groups:
                assert_both_agree(lambda x, w, b, g=groups: F.group_norm(x, g, w, b), x, w, b)
    last = x.shape[1:]
    assert_both_agree(lambda x, w, b: F.layer_norm(x, last, w, b), x, random(*last, seed=seed), random(*last, seed=seed + 3))


@pytest.mark.parametrize("function", [
    lambda x, w, b: F.batch_norm(x, None, None, w, b, True), lambda x, w, b: F.group_norm(x, 2, w, b),
    lambda x, w, b: F.instance_norm(x, weight=w, bias=b)])
def test_the_third_derivative(function):
    """Exact to any order: the gradient's gradient is made of ops that have gradients."""
    report = check(function, (random(2, 4, 3), random(4, seed=1), random(4, seed=2)), 3, probes=2)
    assert report.ok, report


def test_a_held_variance_is_noticed():
    """Two known libraries hold the variance constant in the second derivative; the check sees that."""
    x, w = random(5, 3), random(3, seed=1)

    def wrong(x, w):
        r = (x.detach().var(0, correction=0) + 1e-5).rsqrt()
        return (x - x.mean(0)) * r * w

    assert not check(wrong, (x, w), 1, probes=1, explain=False).ok
    assert check(lambda x, w: F.batch_norm(x, None, None, w, training=True), (x, w)).ok


# --- numbers far from 0 -------------------------------------------------------------------------------------------

NORMS = {"batch": lambda x: F.batch_norm(x, None, None, training=True), "instance": F.instance_norm,
         "group": lambda x: F.group_norm(x, 2), "layer": lambda x: F.layer_norm(x, x.shape[1:])}


@pytest.mark.parametrize("name", NORMS)
def test_a_mean_of_a_thousand(name):
    """float32 with mean/std = 1000: as good as the input's own digits allow (half a step of 1000 is 3e-5)."""
    wide = (1000 + random(8, 4, 13, 11)).astype(np.float32).astype(np.float64)
    u = random(8, 4, 13, 11, seed=1)
    results = []
    for dtype in (np.float32, np.float64):
        x = minidl.Tensor(stored(wide.astype(dtype)), True)
        y = NORMS[name](x)
        results.append((y, *minidl.autograd.grad(y, [x], minidl.Tensor(stored(u.astype(dtype))))))
        assert y.dtype == dtype
    for a, b in zip(*results, strict=True):
        assert np.abs(a.array - b.array).max() <= 2e-4, name


def test_a_mean_of_many_values():
    """Adding up a million float32 one after the other would lose the third digit; the mean must not."""
    x = (10 + random(1, 2, 1000, 1000, dtype=np.float32)).astype(np.float32)
    running_mean, running_var = t(2), minidl.ones(2)
    F.batch_norm(minidl.Tensor(stored(x)), running_mean, running_var, training=True, momentum=1.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(running_mean.array, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(running_var.array, exact.var((0, 2, 3), ddof=1), rtol=1e-5)


def test_one_pass_would_fail():
    """What the test above guards against: Σx²/n − mean² in float32 has no digit left."""
    x = (1000 + random(10000)).astype(np.float32)
    assert abs(float((x * x).mean() - x.mean() ** 2) - 1) > 0.01


def test_a_constant_channel():
    """Variance 0: eps alone stands under the root, and nothing is infinite."""
    x = minidl.Tensor(np.full((4, 2), 3.0), True)
    y = F.batch_norm(x, None, None, training=True)
    y.backward(minidl.Tensor(random(4, 2)))
    assert not y.array.any() and np.isfinite(x.grad.array).all()


# --- fused forms, storage, memory ---------------------------------------------------------------------------------

def make_layer(training):
    layer = nn.BatchNorm2d(3)
    layer.weight.data, layer.bias.data = minidl.Tensor(random(3, dtype=np.float32)), minidl.Tensor(random(3, seed=1, dtype=np.float32))
    return layer.train(training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("adding", [True, False])
def test_fused_equals_separate(training, relu, adding):
    """BatchNorm2d(x, add, relu) gives the very bits of the separate ops, forward; the same numbers backward."""
    found = []
    for fuse in (True, False):
        layer = make_layer(training)
        x, add = (minidl.Tensor(random(4, 3, 5, 2, seed=k, dtype=np.float32), True) for k in (2, 3))
        names = []
        minidl.core.op.OBSERVERS.append(lambda call, names=names: names.append(call.op.name))
        with minidl.use_fusion(fuse):
            y = layer(x, add=add if adding else None, relu=relu)
        minidl.core.op.OBSERVERS.pop()
        y.backward(minidl.Tensor(random(4, 3, 5, 2, seed=4, dtype=np.float32)))
        expected = [f"batch_norm_{'train' if training else 'eval'}", *([] if fuse else ["add"] * adding + ["relu"] * relu)]
        assert names == expected
        found.append([y.array, layer.running_mean.array, layer.running_var.array, x.grad.array, layer.weight.grad.array,
                      layer.bias.grad.array, *([add.grad.array] if adding else [])])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=str(number))


def test_use_fusion_is_restored():
    with pytest.raises(ZeroDivisionError), minidl.use_fusion(False):
        raise ZeroDivisionError
    assert minidl.core.config.STATE.fusion


@pytest.mark.parametrize("function", [
    lambda x: F.batch_norm(x, None, None, training=True, relu=True, add=x), lambda x: F.batch_norm(x, t(4), minidl.ones(4)),
    lambda x: F.group_norm(x, 2), F.instance_norm, lambda x: F.layer_norm(x, x.shape[1:]), lambda x: F.local_response_norm(x, 3)])
def test_images_stay_channels_last(function):
    x = minidl.Tensor(stored(random(3, 4, 5, 2, dtype=np.float32)), True)
    u = minidl.Tensor(stored(random(3, 4, 5, 2, dtype=np.float32)))
    COUNTS.clear()
    y = function(x)
    y.backward(u)
    assert is_stored_right(y.array) and is_stored_right(x.grad.array)
    assert not COUNTS["layout conversion"]


def kept(y):
    """The bytes that the newest op of y keeps, each piece of memory once."""
    node = y.grad_fn
    return sum(a.nbytes for a in {id(a): a for a in saved_arrays(node)}.values())


def test_what_is_kept():
    """x, the weight, two numbers per channel; with relu also y. No copy of the normalised values."""
    x, w, b = (minidl.Tensor(a, True) for a in (random(8, 3, 6, 5), random(3), random(3)))
    small = 3 * 3 * 8
    assert kept(F.batch_norm(x, None, None, w, b, True)) == x.nbytes + small
    y = F.batch_norm(x, None, None, w, b, True, relu=True)
    assert kept(y) == 2 * x.nbytes + small
    assert any(a is y.array for a in saved_arrays(y.grad_fn)), "relu's output is kept once, and it is y itself"
    assert kept(F.batch_norm(x.detach(), None, None, w.detach(), b, True)) <= small
    assert kept(F.batch_norm(x, t(3, dtype=minidl.float64), minidl.ones(3, dtype=minidl.float64), w.detach(), b.detach())) <= small


def test_memory_goes_with_the_graph():
    x = minidl.Tensor(random(4, 3, 5, 5), True)
    y = F.batch_norm(x, None, None, training=True, relu=True)
    watch = weakref.ref(y.array)
    gc.disable()
    try:
        del y
        assert watch() is None
    finally:
        gc.enable()


# --- running averages ---------------------------------------------------------------------------------------------

def test_running_averages():
    """The mean of the batch, and the variance divided by n − 1; in place, so that whoever holds the buffer sees it."""
    x = random(4, 3, 5)
    mean, var = minidl.Tensor(np.full(3, 2.0)), minidl.Tensor(np.full(3, 3.0))
    arrays = mean.array, var.array
    F.batch_norm(minidl.Tensor(x, True), mean, var, training=True, momentum=0.25)
    assert (mean.array, var.array) == arrays or mean.array is arrays[0] and var.array is arrays[1]
    np.testing.assert_allclose(mean.array, 0.75 * 2 + 0.25 * x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(var.array, 0.75 * 3 + 0.25 * x.var((0, 2), ddof=1), rtol=1e-12)


def test_the_guard_sees_the_update():
    """eval() saves the running mean for its gradient; a training step in between changes it, and backward says so."""
    layer = nn.BatchNorm1d(3)
    x = minidl.Tensor(random(4, 3, dtype=np.float32), True)
    y = layer.eval()(x)
    layer.train()(x)
    with pytest.raises(GraphError, match="overwritten before its backward ran"):
        y.sum().backward()


def test_cumulative_average():
    """momentum=None weighs all batches alike."""
    layer, batches = nn.BatchNorm1d(2, momentum=None), [random(5, 2, seed=k, dtype=np.float32) for k in range(4)]
    for x in batches:
        layer(minidl.Tensor(x))
    np.testing.assert_allclose(layer.running_mean.array, np.mean([x.mean(0) for x in batches], 0), rtol=1e-5, atol=1e-6)
    assert layer.num_batches_tracked.item() == 4


def test_an_evaluated_layer_learns_nothing_about_its_batch():
    layer = make_layer(False)
    before = {k: v.array.copy() for k, v in layer.state_dict().items()}
    layer(minidl.Tensor(random(2, 3, 4, 4, dtype=np.float32)))
    for k, v in layer.state_dict().items():
        np.testing.assert_array_equal(v.array, before[k])


def test_half_precision():
    """float16 computes in float32: squares of 300 would be infinite."""
    x = minidl.Tensor((300 * random(64, 2)).astype(np.float16), True)
    y = F.batch_norm(x, None, None, training=True)
    assert y.dtype == np.float16 and abs(float(y.array.astype(float).std()) - 1) < 0.01
    y.backward(minidl.Tensor(random(64, 2).astype(np.float16)))
    assert x.grad.dtype == np.float16 and np.isfinite(x.grad.array).all()


def test_neighbour_sum():
    x = minidl.arange(5.0).reshape(1, 5, 1)
    assert ops.neighbour_sum(x, 1, 0).flatten().tolist() == [0, 1, 3, 5, 7]
    assert ops.neighbour_sum(x, 0, 9).flatten().tolist() == [10, 10, 9, 7, 4]
    assert ops.neighbour_sum(x, -1, 1).flatten().tolist() == [1, 2, 3, 4, 0]


ERRORS = [
    (lambda: F.batch_norm(t(1, 3), None, None, training=True), ShapeError, """\
batch_norm: while training, every channel needs more than one value.
    x: (1, 3), one value per channel: its variance is 0
    Use a larger batch, drop the last incomplete one (drop_last=True), or call eval()."""),
    (lambda: nn.BatchNorm2d(3)(t(1, 3, 1, 1)), ShapeError, """\
batch_norm: while training, every channel needs more than one value.
    x: (1, 3, 1, 1), one value per channel: its variance is 0
    Use a larger batch, drop the last incomplete one (drop_last=True), or call eval()."""),
    (lambda: nn.BatchNorm2d(3)(t(2, 5, 4, 3)), ShapeError, """\
batch_norm: axis C disagrees.
    x axis 1 says C = 5
    running_mean axis 0 says C = 3
    shapes: x (N, C, H, W) = (2, 5, 4, 3), running_mean (C) = (3,), running_var (C) = (3,)
    Did you mean x.permute(0, 3, 1, 2) (a channels-last image)?"""),
    (lambda: F.batch_norm(t(2, 3, 4, 4), None, None), ArgumentError, """\
batch_norm: without running averages there is nothing to normalise with.
    training=False
    running_mean: None, running_var: None
    Pass both, or training=True to use the mean and variance of this batch."""),
    (lambda: F.batch_norm(t(3), None, None, training=True), ShapeError, """\
batch_norm: x must have 2 to 5 axes, (N, C, ...).
    x: shape (3,)
    Did you mean x.unsqueeze(0) (a batch of one)?"""),
    (lambda: F.batch_norm(t(4, 3).long(), None, None, training=True), DTypeError, """\
batch_norm: only floating point numbers have a mean and a variance.
    x: shape (4, 3), int64
    Convert it first: x.float()."""),
    (lambda: F.batch_norm(t(4, 3), None, None, t(3, dtype=minidl.float64), training=True), DTypeError, """\
batch_norm: the tensors must have one element type.
    x: float32
    weight: float64
    Convert one of them, as in x.to(weight.dtype)."""),
    (lambda: F.batch_norm(t(4, 3, 2), None, None, training=True, add=t(4, 3, 1)), ShapeError, """\
batch_norm: add must have the shape and the dtype of x.
    x: (4, 3, 2), float32
    add: (4, 3, 1), float32
    Add other shapes afterwards, with +."""),
    (lambda: F.layer_norm(t(2, 3, 4), (3,)), ShapeError, """\
layer_norm: normalized_shape must be the last sizes of x.
    x: (2, 3, 4)
    normalized_shape: (3,)
    Did you mean (4,)?"""),
    (lambda: F.layer_norm(t(2, 3, 4), (4,), t(3)), ShapeError, """\
layer_norm: weight must have the shape normalized_shape.
    weight: (3,)
    normalized_shape: (4,)
    One number per normalised element."""),
    (lambda: F.rms_norm(t(2, 3).long(), 3), DTypeError, """\
rms_norm: only floating point numbers have a mean and a variance.
    x: shape (2, 3), int64
    Convert it first: x.float()."""),
    (lambda: F.group_norm(t(2, 6, 4), 4), ArgumentError, """\
group_norm: num_groups must divide the number of channels.
    x: (2, 6, 4), C = 6
    num_groups: int 4
    These would do: 1, 2, 3, 6."""),
    (lambda: F.group_norm(t(1, 3), 3), ShapeError, """\
group_norm: every group needs more than one value.
    x: (1, 3), num_groups = 3: one value per group, its variance is 0
    Use fewer groups."""),
    (lambda: F.instance_norm(t(2, 3, 1, 1)), ShapeError, """\
instance_norm: every channel needs more than one position.
    x: (2, 3, 1, 1), one value per channel of a sample: its variance is 0
    Use larger images, or batch_norm, which looks at the whole batch."""),
    (lambda: F.instance_norm(t(2, 3, 4), use_input_stats=False), ArgumentError, """\
instance_norm: without running averages there is nothing to normalise with.
    use_input_stats=False
    running_mean: None, running_var: None
    Pass both, or use_input_stats=True."""),
    (lambda: F.local_response_norm(t(2, 3), 2), ShapeError, """\
local_response_norm: x must be images or sequences, (N, C, ...).
    x: (2, 3)
    Did you mean x.unsqueeze(0) (a batch of one)?"""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
