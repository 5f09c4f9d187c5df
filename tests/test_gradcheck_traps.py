"""Mistakes that hide from a gradient check, each caught; and right functions that look wrong to finite differences, each believed."""

import time

import numpy as np
import pytest

import minidl
from minidl import autograd
from minidl.core.errors import ArgumentError
from minidl.core.gradcheck import check
from minidl.core.op import OPS, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.nn import functional as F  # noqa: N812 - PyTorch's custom

X = np.random.default_rng(0).standard_normal((3, 4))
Y = np.random.default_rng(1).standard_normal((3, 4))
ZEROS_IN_X = np.where(np.arange(12).reshape(3, 4) % 5 == 0, 0.0, X)


@pytest.fixture(autouse=True)
def registry():
    """Ops defined in a test leave the registry with it."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def constant(array):
    return Tensor(np.asarray(array, np.float64))


def unary(forward, gradient):
    """An op y = forward(x) whose backward is gradient(grad_y, x)."""

    @op("x", name="mine")
    def mine(x):
        """For one test."""
        return forward(x.array), lambda grad_y: gradient(grad_y, x)

    OPS.pop("mine")
    return mine


def binary(gradients):
    """x * y whose backward is gradients(grad_y, x, y)."""

    @op("x other", name="mine")
    def mine(x, other):
        """For one test."""
        return x.array * other.array, gradients(x, other)

    OPS.pop("mine")
    return mine


def square(gradient):
    return unary(np.square, gradient)


def mixed_up(x, y):
    """Wrong where only one of them requires grad."""
    need_x, need_y = needs_grad(x, y)

    def backward(g):
        return (g * y if need_y else g) if need_x else None, g * x if need_y else None

    return backward


def forgets_itself(x, y):
    """Wrong for x * x."""
    def backward(g):
        return g * y, None if x is y else g * x

    return backward


def once_only():
    @op("x", name="mine")
    def mine(x):
        """The second walk through its graph is wrong."""
        calls = []

        def backward(g):
            calls.append(1)
            return g * 2 * x if len(calls) == 1 else g * 3 * x

        return x.array**2, backward

    OPS.pop("mine")
    return mine


def overwrites_its_output():
    @op("x", name="mine")
    def mine(x):
        """tanh, whose backward uses its output as scratch."""
        y = np.tanh(x.array)

        def backward(g):
            slope = 1 - y * y
            y[...] = 0
            return g * constant(slope)

        return y, backward

    OPS.pop("mine")
    return mine


WRONG = {
    "only one requires grad": (binary(mixed_up), (X, Y), "another gradient when only x requires grad"),
    "a detached second output": (lambda x: (x.sin(), Tensor(np.cos(x.array))), X,
                                 "output y[1] carries no gradient although it depends on x: detached?"),
    "the graph walked again": (once_only(), X, "retain_graph=True"),
    "its own output": (overwrites_its_output(), X, "the function's own output"),
    "zero for large gradients": (square(lambda g, x: g * 2 * x * constant(np.abs(g.array) < 20)), X, "not linear"),
    "zero for small gradients": (square(lambda g, x: g * 2 * x * constant(np.abs(g.array) > 1e-6)), X, "not linear"),
    "double for ones": (square(lambda g, x: g * 2 * x * (2 if (g.array == 1).all() else 1)), X, "the gradient of 1 + u is not the sum"),
    "gaps in grad_y": (square(lambda g, x: g * x * (2 if g.array.flags.c_contiguous else 1)), X, "gradient lies in memory with gaps"),
    "gaps in x": (square(lambda g, x: g * x * (2 if x.array.flags.c_contiguous else 1)), X, "inputs lie in memory with gaps"),
    "float32 alone": (square(lambda g, x: g * x * (2 if x.dtype == np.float64 else 1)), X, "the float32 gradient is not the float64 one"),
    "x is y": (binary(forgets_itself), (X, Y), "x and other as one tensor"),
    "77 at the kink of abs": (unary(np.abs, lambda g, x: g * constant(np.where(x.array == 0, 77.0, np.sign(x.array)))), ZEROS_IN_X,
                              "is not between the slopes on its two sides"),
    "reshape for transpose": (unary(lambda x: x.T * 2, lambda g, x: g.reshape(x.shape) * 2), X, "a reshape where axes 0 and 1"),
}


@pytest.mark.parametrize("trap", WRONG)
def test_a_hidden_mistake_is_caught(trap):
    fn, inputs, said = WRONG[trap]
    report = check(fn, inputs)
    assert not report.ok and said in str(report), str(report)


def f64(*numbers):
    return minidl.tensor(numbers, dtype=minidl.float64)


RIGHT = {
    "square at 0": (lambda x: x * x, np.zeros(3)),
    "cube at 0": (lambda x: x**3, np.zeros(3)),
    "gram at 0": (lambda x: (x @ x.T).sum(), np.zeros((3, 3))),
    "elu at its joint": (F.elu, f64(0, 1, -1)),
    "celu at its joint": (F.celu, f64(0, 1, -1)),
    "relu squared at its joint": (lambda x: x.relu() ** 2, f64(0, 1, -1)),
    "half a cube at its joint": (lambda x: minidl.where(x > 0, x**3, x * 0), f64(0, 1, -1)),
    "near the edge of the domain": (lambda x: (1 - x * x).sqrt(), f64(0.999999, 0.5)),
    "nearly nothing but the edge": (lambda x: (1 - x * x).sqrt(), f64(0.999999)),
    "softmax, saturated": (lambda x: x.softmax(0), f64(30, 0, -30)),
    "softmax, more so": (lambda x: x.softmax(0), f64(100, 0, -100)),
    "prod with two zeros": (lambda x: x.prod(), f64(0, 2, 0, 3)),
    "a fast sine": (lambda x: (1e6 * x).sin(), X),
    "cancelling numbers": (lambda x: (x + 1e8) - 1e8, X),
    "sqrt at 0": (lambda x: x.sqrt(), f64(0, 1)),
    "power at 0": (lambda x: x**0.5, f64(0, 1)),
    "x sqrt(x) at 0": (lambda x: x * x.sqrt(), f64(0, 1)),
    "var of equal elements": (lambda x: x.var(), f64(2, 2, 2)),
    "a sum that is always 1": (lambda x: x.softmax(1).sum(1), X),
}


@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_function_is_believed(case, seed):
    fn, x = RIGHT[case]
    report = check(fn, x, seed=seed)
    assert report.ok, str(report)


def test_first_order_is_enough_where_the_second_has_kinks():
    assert check(F.elu, np.zeros(3), order=1).ok and check(lambda x: x.relu() ** 2, np.zeros(3), order=1).ok
    assert check(lambda x: x.std(), f64(1e8, 1e8 + 1, 1e8 + 2), order=1).ok
    assert autograd.gradcheck(lambda x: x * x, Tensor(np.zeros(3)).requires_grad_())


@pytest.mark.parametrize("scale", [1e-300, 1e-160])
def test_what_underflows_is_not_passed(scale):
    report = check(lambda x: x * x, X * scale)
    assert [row.verdict for row in report.rows] == ["not checked"]
    assert check(lambda x: x * x, X * 1e-100).ok


def test_what_drowns_in_rounding_is_not_passed():
    report = check(lambda x: x.softmax(0)[:1], f64(100, 0, -100), order=1)
    assert report.rows[0].verdict == "not checked" and "drowns in rounding" in report.rows[0].reason, str(report)


def test_many_elements_take_seconds():
    x = np.random.default_rng(0).standard_normal(200_000)
    x[::50_000] = 0
    start = time.process_time()  # of this process: a machine with other work makes it no longer
    check(lambda x: x.relu(), x, order=1)
    report = check(unary(np.tanh, lambda g, x: g), x, order=1)
    assert time.process_time() - start < 30
    assert "the Jacobian is large" in str(report)


def test_the_order_must_be_a_number_from_1():
    for order in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="order is a whole number, 1 or more"):
            check(lambda x: x, X, order)
    with pytest.raises(ArgumentError, match=r"The inputs go into one tuple: check\(f, \(x, w\)\)"):
        check(lambda x, w: x * w, Tensor(X), Tensor(Y))


def test_columns_that_are_left_out_are_not_called_large():
    x = np.array([0.0, 1.0, 2.0])
    text = str(check(unary(np.abs, lambda g, x: g * constant(np.sign(x.array)) * 1.5), x, order=1))
    assert "1 of 3 columns are left out" in text and "is large" not in text


def test_a_message_with_several_lines_stands_once():
    def raises(g, x):
        raise ValueError("first line\nsecond line")

    text = str(check(square(raises), X))
    assert text.count("first line") == text.count("second line") == 1
    assert text.splitlines()[1].endswith("wrong: backward raised ValueError: first line")


def test_second_order_of_many_elements_is_explained_in_seconds():
    start = time.process_time()
    report = check(unary(lambda x: x**3, lambda g, x: g * 3 * x * x.detach()), np.random.default_rng(0).standard_normal((10, 12)))
    assert not report.ok and time.process_time() - start < 5


def test_pytorchs_other_keywords():
    x = Tensor(X).requires_grad_()
    assert autograd.gradcheck(lambda x: x.tanh(), x, fast_mode=True, check_grad_dtypes=True, masked=False, check_batched_grad=False)
    assert autograd.gradgradcheck(lambda x: x.tanh(), x, fast_mode=True, check_rev_over_rev=True)
    for name, said in (("check_batched_grad", "vmap"), ("check_forward_ad", "forward mode"), ("check_batched_forward_grad", "vmap"),
                       ("masked", "sparse")):
        with pytest.raises(ArgumentError, match=f"{name} cannot be checked: minidl has no {said}"):
            autograd.gradcheck(lambda x: x.tanh(), x, **{name: True})
    with pytest.raises(ArgumentError, match="nothing to check"):
        autograd.gradcheck(lambda x: x.tanh(), x, check_backward_ad=False)
