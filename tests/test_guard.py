"""The in-place guard: writes that would make a gradient wrong raise, writes that cannot do harm do not."""

import numpy as np
import pytest

import minidl
from minidl.core.errors import GraphError


def leaf(*values):
    return minidl.Tensor(np.array(values, dtype=np.float64), True)


def constant(*values):
    return minidl.Tensor(np.array(values, dtype=np.float64))


START = constant(1, 1, 1)


def test_overwriting_a_saved_value_raises_and_names_both_places():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x * data
    data.fill_(0)
    with pytest.raises(GraphError) as caught:
        y.backward(START)
    text = str(caught.value)
    assert text.startswith("mul.backward: a value it saved was overwritten before its backward ran.")
    assert "test_guard.py" in text and "by fill_" in text and x.grad is None


def test_a_write_through_a_view_is_seen():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x * data
    minidl.Tensor(data.array[1:]).zero_()
    with pytest.raises(GraphError, match="overwritten"):
        y.backward(START)


def test_a_saved_view_of_written_memory_is_seen():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x * minidl.Tensor(data.array[::-1])
    data.zero_()
    with pytest.raises(GraphError, match="overwritten"):
        y.backward(START)


def test_a_saved_output_is_guarded_too():
    x = leaf(1, 2, 3)
    y = x.tanh()
    with minidl.no_grad():
        y.mul_(2) if hasattr(y, "mul_") else y.copy_(y * 2)
    with pytest.raises(GraphError, match="tanh.backward"):
        y.backward(START)


def test_writing_what_no_formula_needs_is_fine():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x + data            # add saves neither
    data.fill_(0)
    y.backward(START)
    np.testing.assert_array_equal(x.grad.array, 1)


def test_writing_before_saving_and_after_walking_is_fine():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    data.fill_(2)
    (x * data).backward(START)
    data.fill_(0)
    np.testing.assert_array_equal(x.grad.array, 2)


def test_an_optimiser_step_is_fine_until_the_old_graph_is_walked():
    w, x = leaf(1, 2, 3), constant(4, 5, 6)
    old = w * w
    (w * x).backward(START)
    with minidl.no_grad():
        w -= 0.1 * w.grad
    with pytest.raises(GraphError, match="overwritten"):
        old.backward(START)


def test_dropped_memory_leaves_no_stamp_behind():
    from minidl.core import guard
    before = len(guard._writes)
    for _ in range(100):
        constant(1, 2, 3).fill_(0)
    assert len(guard._writes) <= before + 1


# --- debug(): locks, fingerprints, creep, conversions ---------------------------------------------------------------

def test_a_raw_write_fails_at_the_users_line():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    with minidl.debug():
        y = x * data
        with pytest.raises(ValueError, match="read-only"):
            data.array[0] = 5
        y.backward(START)
        data.array[0] = 5          # its backward has run
    with minidl.debug():
        y = x * data
        del y
        data.array[0] = 6          # its graph is gone
        kept = x * data
    data.array[0] = 7              # the mode is over
    assert kept.requires_grad


def test_a_channels_last_view_is_locked_too():
    image = minidl.zeros(2, 3, 4, 5)
    with minidl.debug():
        y = minidl.ones(2, 3, 4, 5, requires_grad=True) * image
        with pytest.raises(ValueError, match="read-only"):
            image.array[0, 0, 0, 0] = 5
        assert y.requires_grad


def test_an_older_view_is_caught_by_its_fingerprint():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    view = data.array[:]
    with minidl.debug():
        y = x * data
        view[0] = 9
        with pytest.raises(GraphError, match="behind minidl's back"):
            y.backward(START)


def test_minidls_own_writes_lift_the_lock_and_are_noticed():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    with minidl.debug():
        y = x * data
        data.fill_(0)
        with pytest.raises(GraphError, match="by fill_"):
            y.backward(START)


def test_two_nodes_share_a_lock():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    with minidl.debug():
        y, z = x * data, x * data
        y.backward(START)
        with pytest.raises(ValueError, match="read-only"):
            data.array[0] = 5
        z.backward(START)
        data.array[0] = 5


def test_float64_creep_is_listed_with_its_line():
    from minidl.core import op as registry
    from minidl.core.op import op
    try:
        @op("x", name="creeping")
        def creeping(x):
            return x.array * np.float64(2), lambda grad_y: grad_y * 2

        with minidl.debug() as d:
            creeping(minidl.ones(3)) * 1.0
            minidl.ones(3).double() * 1.0      # asked for
    finally:
        registry.OPS.pop("creeping", None)
    assert [op for op, _ in d.creeps] == ["creeping"]
    assert "test_guard.py" in d.creeps[0][1] and "creeping at" in str(d)


def test_replacing_data_counts_as_a_write():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x * data
    data.data = constant(0, 0, 0)
    with pytest.raises(GraphError, match="x.data = ..."):
        y.backward(START)


# --- in-place methods ------------------------------------------------------------------------------------------------

def test_in_place_methods_write_and_refuse_what_they_must():
    x = constant(1, 4, 9)
    assert x.add_(1).mul_(2).sub_(constant(1, 1, 1), alpha=3).div_(2) is x
    np.testing.assert_array_equal(x.array, [0.5, 3.5, 8.5])
    np.testing.assert_array_equal(x.clamp_(1, 5).masked_fill_(x > 4, 0).array, [1, 3.5, 0])
    w = leaf(1, 2, 3)
    with pytest.raises(GraphError, match="add_: writing into a tensor is not recorded"):
        w.add_(1)
    with pytest.raises(GraphError, match="mul_: writing into a tensor is not recorded"):
        x.mul_(w)
    with minidl.no_grad():
        w.add_(constant(1, 1, 1), alpha=-0.5)
    np.testing.assert_array_equal(w.array, [0.5, 1.5, 2.5])
    with pytest.raises(TypeError, match="must fit into the tensor"):
        minidl.tensor([1, 2]).div_(2)


def test_in_place_methods_are_seen_by_the_guard():
    x, data = leaf(1, 2, 3), constant(4, 5, 6)
    y = x * data
    data.add_(1)
    with pytest.raises(GraphError, match="by add_"):
        y.backward(START)


# --- what is saved in unusual places -----------------------------------------------------------------------------------

def through_index():
    x, i = leaf(1, 2, 3), minidl.tensor([0, 1, 0])
    return x[i], i


def through_index_select():
    x, i = leaf(1, 2, 3), minidl.tensor([0, 1, 0])
    return minidl.index_select(x, 0, i), i


def through_index_add():
    x, i = leaf(1, 2, 3), minidl.tensor([0, 1, 0])
    return minidl.zeros(3, dtype=minidl.float64).index_add(0, i, x), i


def test_an_index_tensor_is_guarded():
    y, index = through_index()
    index.fill_(2)
    with pytest.raises(GraphError, match="overwritten"):
        y.backward(START)


@pytest.mark.parametrize("make", [through_index_select, through_index_add])
def test_an_index_tensor_that_was_copied_may_be_written(make):
    y, index = make()
    (x,) = [edge for edge in y.edge[0].edges if type(edge) is not tuple and edge is not None] or [y.edge[0].edges[1][0].edges[0]]
    index.fill_(2)
    y.backward(minidl.Tensor(np.array([1.0, 10.0, 100.0])))
    np.testing.assert_array_equal(x.grad.array, [101, 10, 0] if make is through_index_select else [1, 10, 1])


def test_an_index_array_is_copied():
    x, i = leaf(1, 2, 3), np.array([0, 1, 0])
    y = x[i]
    i[:] = 2
    y.backward(START)
    np.testing.assert_array_equal(x.grad.array, [2, 1, 0])


class Holder:
    pass


def in_an_object(x):
    s = Holder()
    s.x = x
    return lambda g: g * s.x * 2


def in_a_dict(x):
    d = {"x": [x]}
    return lambda g: g * d["x"][0] * 2


def in_a_nested_function(x):
    def h():
        return x
    return lambda g: g * h() * 2


def in_a_partial(x):
    import functools
    return functools.partial(lambda x, g: g * x * 2, x)


def in_a_default(x):
    return lambda g, x=x: g * x * 2


@pytest.mark.parametrize("save", [in_an_object, in_a_dict, in_a_nested_function, in_a_partial, in_a_default])
def test_values_saved_in_unusual_places_are_guarded(save):
    from minidl.core import op as registry
    from minidl.core.op import op
    try:
        @op("x", name="square_of_a_user")
        def square_of_a_user(x):
            return x.array ** 2, save(x)

        x = leaf(1, 2, 3)
        z = x * 1
        y = square_of_a_user(z)
        z.detach().fill_(100)
        with pytest.raises(GraphError, match="overwritten"):
            y.backward(START)
    finally:
        registry.OPS.pop("square_of_a_user", None)


def test_two_arrays_over_one_buffer_are_one_memory():
    b = bytearray(np.array([3.0, 4.0, 5.0]).tobytes())
    a, c = (minidl.Tensor(np.frombuffer(b)) for _ in range(2))
    x = leaf(1, 2, 3)
    y = x * a
    c.fill_(100)
    with pytest.raises(GraphError, match="overwritten"):
        y.backward(START)


def test_a_layer_that_rewrites_its_averages_is_named_by_the_line_that_called_it():
    layer = minidl.nn.BatchNorm1d(3)
    x = minidl.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), True)
    y = layer.eval()(x)  # saves the running mean, towards the weight
    layer.train()(x.detach())
    with pytest.raises(GraphError, match="overwritten") as caught:
        y.backward(minidl.ones(2, 3))
    written = next(line for line in str(caught.value).splitlines() if "written:" in line)
    assert "by batch_norm" in written and "test_guard.py" in written, written


def test_the_stamp_goes_with_its_memory():
    from minidl.core import guard
    data = constant(4, 5, 6)
    key = id(data.array)
    for _ in range(2):  # the second stamp keeps the first one's reference
        data.fill_(0)
    assert guard._writes[key].owner() is data.array
    del data
    assert key not in guard._writes


def test_taking_the_stamp_away_runs_no_python():
    """Where Python code runs, Ctrl-C may strike; in a weak reference's callback it would be printed and swallowed."""
    import sys

    from minidl.core import guard
    data = constant(4, 5, 6)
    data.fill_(0)
    key, calls, before = id(data.array), [], sys.getprofile()
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code.co_filename) if event == "call" else None)
    del data
    sys.setprofile(before)
    assert key not in guard._writes and guard.__file__ not in calls
