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
