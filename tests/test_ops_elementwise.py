"""Elementwise ops: every subgradient stated once, edges of the domain, purity, ownership of gradients, messages."""

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError

INF, NAN = float("inf"), float("nan")


def slopes(function, *values):
    """The gradients of function at these numbers, one list per argument."""
    inputs = [minidl.tensor(v, dtype="float64", requires_grad=True) for v in values]
    found = grad(function(*inputs).sum(), inputs)
    return [g.tolist() for g in found] if len(found) > 1 else found[0].tolist()


@pytest.mark.parametrize("function, at, expected", [
    (minidl.relu, [-1, 0, 2], [0, 0, 1]),
    (minidl.abs, [-1, 0, 2], [-1, 0, 1]),
    (minidl.sign, [-1, 0, 2], [0, 0, 0]),
    (lambda x: x.clamp(-1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
    (lambda x: x.clamp(min=0), [-1, 0, 1], [0, 1, 1]),
    (lambda x: x.clamp(max=0), [-1, 0, 1], [1, 1, 0]),
    (minidl.sqrt, [0.0, 4.0], [INF, 0.25]),
    (minidl.log, [0.0, 4.0], [INF, 0.25]),
    (lambda x: x ** 0, [0.0, 2.0], [0, 0]),
    (lambda x: x ** 1, [0.0, 2.0], [1, 1]),
    (lambda x: x ** 2, [0.0, -2.0], [0, -4]),
    (lambda x: x ** 0.5, [0.0, 4.0], [INF, 0.25]),
    (lambda x: x ** 3, [-2.0], [12]),
    (lambda x: 0 ** x, [0.0, 2.0], [0, 0]),
    (lambda x: x % 2, [3.0, -3.0], [1, 1]),
])
def test_subgradients(function, at, expected):
    assert slopes(function, at) == expected


@pytest.mark.parametrize("function", [minidl.maximum, minidl.minimum])
def test_a_tie_is_shared_evenly(function):
    assert slopes(function, [1.0, 5.0], [1.0, 5.0]) == [[0.5, 0.5], [0.5, 0.5]]


def test_maximum_and_minimum_pick():
    assert slopes(minidl.maximum, [1.0, 5.0], [2.0, 3.0]) == [[0, 1], [1, 0]]
    assert slopes(minidl.minimum, [1.0, 5.0], [2.0, 3.0]) == [[1, 0], [0, 1]]
    assert slopes(lambda x: minidl.maximum(x, 0), [0.0, 2.0]) == [0.5, 1]


def test_powers_where_pytorch_has_no_nan():
    x, other = slopes(minidl.pow, [0.0, 0.0, 0.0, 2.0, -2.0], [0.0, 1.0, 2.0, 0.0, 2.0])
    assert x == [0, 1, 0, 0, -4]
    assert other[:4] == [0, 0, 0, np.log(2)]
    assert np.isnan(other[4])  # the logarithm of a negative base


def test_the_mixed_second_derivative_of_a_power_where_the_exponent_is_0():
    x, other = (minidl.tensor([v], dtype="float64", requires_grad=True) for v in (2.0, 0.0))
    first, = grad((x ** other).sum(), [x], create_graph=True)
    second, = grad(first.sum(), [other])
    assert second.tolist() == [0.5]  # x^(o − 1) · (1 + o log x) at o = 0


def test_where_does_not_let_nan_through():
    x = minidl.tensor([0.0, 4.0], requires_grad=True)
    minidl.where(x > 0, minidl.where(x > 0, x, 1.0).log(), 0.0).sum().backward()
    assert x.grad.tolist() == [0, 0.25]
    y = minidl.tensor([NAN, 1.0], requires_grad=True)
    minidl.where(minidl.tensor([False, True]), y, 2.0).sum().backward()
    assert y.grad.tolist() == [0, 1]
    z = minidl.tensor([-1.0, 4.0], requires_grad=True)
    minidl.where(z > 0, z, 0.0).sqrt().sum().backward()  # an infinite slope arrives where z was not chosen
    assert z.grad.tolist() == [0, 0.25]


def test_far_out():
    x = minidl.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])
    assert x.sigmoid().tolist() == [0, 0, 0.5, 1, 1]
    assert x.tanh().tolist() == [-1, -1, 0, 1, 1]
    assert x.exp().tolist()[-1] == INF
    assert minidl.tensor([0.0, -1.0]).log().tolist()[0] == -INF
    assert (minidl.tensor([1.0, -1.0]) / 0).tolist() == [INF, -INF]


def test_rounded_division():
    x, other = minidl.tensor([7, -7, 7, -7]), minidl.tensor([2, 2, -2, -2])
    assert (x // other).tolist() == [3, -4, -4, 3]
    assert x.div(other, rounding_mode="trunc").tolist() == [3, -3, -3, 3]
    assert (x % other).tolist() == [1, 1, -1, -1]
    assert x.float().div(other, rounding_mode="trunc").tolist() == [3, -3, -3, 3]
    assert (x / other).tolist() == [3.5, -3.5, -3.5, 3.5]
    assert not (minidl.ones(2, requires_grad=True) // 2).requires_grad


def test_alpha_reaches_value_and_gradient():
    assert minidl.add(minidl.tensor([1.0]), minidl.tensor([2.0]), alpha=3).tolist() == [7]
    assert slopes(lambda x, o: minidl.add(x, o, alpha=3), [1.0], [2.0]) == [[1], [3]]
    assert slopes(lambda x, o: minidl.sub(x, o, alpha=3), [1.0], [2.0]) == [[1], [-3]]
    assert minidl.sub(minidl.tensor([5]), 2, alpha=2).tolist() == [1]


@pytest.mark.parametrize("left, right", [((2, 3), (3,)), ((2, 1, 4), (3, 1)), ((), (2, 3)), ((2, 3, 4, 5), (3, 1, 1)), ((0, 3), (1, 3)),
                                         ((1,), (0,))])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "pow", "remainder"])
def test_gradients_are_summed_over_broadcast_axes(name, left, right):
    x, other = minidl.rand(left, requires_grad=True), minidl.rand(right, requires_grad=True)
    y = getattr(minidl, name)(x + 1, other + 1)
    assert y.shape == np.broadcast_shapes(left, right)
    assert is_stored_right(y.array)
    y.sum().backward()
    assert x.grad.shape == left
    assert other.grad.shape == right
    assert is_stored_right(x.grad.array)
    assert is_stored_right(other.grad.array)


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: (a + b).clone(),
                                     lambda a, b: minidl.where(a < b, a, b)])
def test_gradients_do_not_share_memory(combine):
    a, b = minidl.ones(3, requires_grad=True), minidl.ones(3, requires_grad=True)
    combine(a, b).sum().backward()
    assert not np.shares_memory(a.grad.array, b.grad.array)
    a.grad.array[...] = 7
    assert 7 not in b.grad.tolist()


def test_truth_values():
    x, y = minidl.tensor([True, True, False]), minidl.tensor([True, False, False])
    assert (x & y).tolist() == [True, False, False]
    assert (x | y).tolist() == [True, True, False]
    assert (x ^ y).tolist() == [False, True, False]
    assert (~x).tolist() == [False, False, True]
    assert minidl.logical_and(minidl.tensor([1.5, 0.0]), minidl.tensor([2, 2])).tolist() == [True, False]
    assert minidl.logical_not(minidl.tensor([0, 3])).tolist() == [True, False]
    assert (minidl.tensor([6]) & 3).tolist() == [2]
    assert (~minidl.tensor([6])).tolist() == [-7]
    special = minidl.tensor([1.0, INF, -INF, NAN])
    assert special.isnan().tolist() == [False, False, False, True]
    assert special.isinf().tolist() == [False, True, True, False]
    assert special.isfinite().tolist() == [True, False, False, False]
    assert minidl.tensor([1, 2]).isnan().tolist() == [False, False]
    assert (special == special).tolist() == [True, True, True, False]
    assert not (minidl.ones(2, requires_grad=True) > 0).requires_grad


def test_conversion_goes_back():
    x = minidl.ones(2, dtype="float32", requires_grad=True)
    y = x.double()
    (y * y).sum().backward()
    assert x.grad.dtype == "float32"
    assert x.grad.tolist() == [2, 2]
    assert x.to("float32") is x
    assert not x.long().requires_grad


@pytest.mark.parametrize("call, text", [
    (lambda: minidl.ones(2, 3) + minidl.ones(2, 4), "add: the shapes do not broadcast: axis -1 has sizes 3 and 4."),
    (lambda: minidl.tensor([True]) - minidl.tensor([True]), "sub: booleans have no such arithmetic."),
    (lambda: -minidl.tensor([True]), "neg: booleans have no such arithmetic."),
    (lambda: minidl.tensor([1]) // 0, "div: integers cannot be divided by 0."),
    (lambda: minidl.tensor([1]) % 0, "remainder: integers cannot be divided by 0."),
    (lambda: minidl.tensor([2]) ** -1, "pow: integers have no negative powers."),
    (lambda: minidl.div(minidl.ones(2), 2, rounding_mode="up"), "div: 'up' is not a rounding mode."),
    (lambda: minidl.add(minidl.tensor([1]), minidl.tensor([1]), alpha=0.5), "add: alpha must be a whole number for integers."),
    (lambda: minidl.ones(2) & 1, "bitwise_and: only integers and booleans have bits to combine."),
    (lambda: minidl.bitwise_not(minidl.ones(2)), "bitwise_not: only integers and booleans have bits to combine."),
    (lambda: minidl.ones(2).clamp(), "clamp: min or max must be given."),
    (lambda: minidl.ones(2).clamp(minidl.zeros(2)), "clamp: a bound must be a number."),
    (lambda: minidl.where(minidl.ones(2), 1.0, 0.0), "where: condition must be a Tensor of booleans."),
    (lambda: minidl.add(1, 2), "add: one of the operands must be a Tensor."),
])
def test_messages(call, text):
    with pytest.raises(MinidlError) as caught:
        call()
    lines = str(caught.value).split("\n    ")
    assert lines[0] == text
    assert len(lines) >= 3  # the rule, a fact, the fix


def test_a_negative_base_has_no_slope_in_its_exponent():
    x = minidl.tensor([2.0, 3.0], requires_grad=True)
    ((-3.0) ** x).sum().backward()
    assert minidl.isnan(x.grad).all()
    x.grad = None
    (0.0 ** x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]
