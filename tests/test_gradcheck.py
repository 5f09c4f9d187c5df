"""Tests of the tester: every kind of mistake is planted once and must be caught, with the right guess at its cause; and
what is right must never be called wrong, whatever the seed.
"""

import numpy as np
import pytest

import minidl.autograd as autograd
from minidl.core.device import CPU
from minidl.core.errors import ArgumentError, GradcheckError
from minidl.core.gradcheck import check
from minidl.core.op import OPS, needs_grad, op
from minidl.core.tensor import Tensor


def normal(*shape):
    return np.random.default_rng([sum(shape), len(shape)]).standard_normal(shape)


@pytest.fixture(autouse=True)
def registry():
    """Ops defined in a test leave the registry with it."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def unary(forward, gradient, **how):
    """An op y = forward(x) whose backward is gradient(grad_y, x) on Tensors."""

    @op("x", name="mine", **how)
    def mine(x):
        """For one test."""
        y = forward(x.array)

        def backward(grad_y):
            return gradient(grad_y, x)

        return y, backward

    return mine


def constant(array):
    return Tensor(np.asarray(array, np.float64))


def square(x):
    return x * x


@op("x w", name="matmul_with_bug")
def _product(x, w):
    """x @ w with w's own gradient."""
    need_x, need_w = needs_grad(x, w)

    def backward(grad_y):
        return (grad_y @ w) if need_x else None, (x.permute(1, 0) @ grad_y) if need_w else None

    return x.array @ w.array, backward


def _shift(g):
    return constant(np.roll(g.array, 1, axis=1))


def _masked(g, keep, factor=3.0):
    return g * constant(np.where(keep, 1.0, factor))


def _last(shape, factor=3.0):
    mask = np.ones(shape)
    mask[..., -1] = factor
    return constant(mask)


X = normal(3, 4)
S = normal(4, 4)

MISTAKES = {
    "scaled by 1.01": (unary(np.tanh, lambda g, x: g * (1 - square(x.tanh())) * 1.01), X, "off by the factor 1.01"),
    "scaled by 1.001": (unary(np.tanh, lambda g, x: g * (1 - square(x.tanh())) * 1.001), X, "off by the factor 1.001"),
    "half": (unary(np.square, lambda g, x: g * x), X, "off by the factor 0.5"),
    "mean for sum": (unary(np.sum, lambda g, x: (g * (1 / 12)).expand(3, 4)),
                     X, "off by the factor 1/12, 12 = the size of x: mean for sum?"),
    "sum for mean": (unary(np.mean, lambda g, x: g.expand(3, 4)), X, "off by the factor 12 = the size of x: a mean's 1/12 is missing?"),
    "axis for mean": (unary(lambda x: x.mean(0), lambda g, x: g.expand(3, 4)),
                      X, "off by the factor 3 = the size of axis 0 of x: a mean's 1/3 is missing?"),
    "sign": (unary(lambda x: 2.0 - x, lambda g, x: g), X, "sign slip"),
    "transposed product": (_product, (normal(3, 4), S), "transposed: the whole Jacobian is"),
    "transposed result": (unary(lambda x: x * np.arange(16.0).reshape(4, 4),
                                lambda g, x: (g * constant(np.arange(16.0).reshape(4, 4))).permute(1, 0)), S, "transposed: axes 0 and 1"),
    "zero": (unary(np.tanh, lambda g, x: g * 0), X, "zero everywhere: a detached term?"),
    "None": (unary(np.tanh, lambda g, x: None), X, "zero everywhere: a detached term?"),
    "negative half": (unary(lambda x: x * x, lambda g, x: _masked(g * x * 2, x.array > 0)), X, "wrong only where x < 0"),
    "positive half": (unary(lambda x: x * x, lambda g, x: _masked(g * x * 2, x.array < 0)), X, "wrong only where x > 0"),
    "last index": (unary(lambda x: x * 2, lambda g, x: g * 2 * _last((3, 4))), X, "wrong only at the last index of axis 1 of x"),
    "shifted": (unary(lambda x: x * np.arange(1.0, 5), lambda g, x: _shift(g * constant(np.arange(1.0, 5)))),
                X, "shifted by one along axis 1"),
    "flipped": (unary(lambda x: x * np.arange(1.0, 5), lambda g, x: constant((g.array * np.arange(1.0, 5))[:, ::-1])),
                X, "flipped along axis 1"),
    "broadcast": (unary(lambda x: np.broadcast_to(x, (3, 4)) * 2.0, lambda g, x: g[:1] * 2),
                  normal(1, 4), "missing sum over the broadcast axis 0"),
    "diagonal": (unary(lambda x: np.exp(x) / np.exp(x).sum(),
                       lambda g, x: g * constant(_softmax(x.array)) * (1 - constant(_softmax(x.array)))),
                 normal(5), "only the diagonal"),
    "nan": (unary(np.tanh, lambda g, x: g * constant(np.where(np.arange(12).reshape(3, 4) == 5, np.nan, 1.0))), X, "not finite at x[1, 1]"),
    "float32 backward": (unary(np.tanh, lambda g, x: constant((g.array * (1 - np.tanh(x.array) ** 2)).astype(np.float32))),
                         X, "computes in float32"),
}

for name in ("mine", "matmul_with_bug"):
    OPS.pop(name)  # wrong on purpose: not for the tests that go through the registry


def _softmax(x):
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_gradient_is_caught_and_named(mistake):
    fn, inputs, expected = MISTAKES[mistake]
    report = check(fn, inputs if isinstance(inputs, tuple) else (inputs,), order=1, names=["x", "w"])
    assert not report.ok
    bad = next(row for row in report.rows if not row.ok)
    assert bad.verdict == "wrong"
    assert expected in bad.guess, str(report)
    assert expected in str(report)
    if mistake not in ("float32 backward",):
        assert "worst entry: d y[" in str(report) or "worst entry: d y / d x[" in str(report)


def test_the_worst_entry_has_its_place_and_both_numbers():
    def gradient(g, x):
        factor = np.ones((3, 4))
        factor[1, 2] = 2
        return g * constant(factor)

    report = check(unary(np.positive, gradient), X, order=1)
    assert "worst entry: d y[1, 2] / d x[1, 2]: gradient 2, finite differences 1" in str(report)


def test_swapped_gradients_are_named():
    @op("x other", name="mine")
    def mine(x, other):
        """For one test."""
        def backward(grad_y):
            return grad_y * x, grad_y * other  # x and other the wrong way round

        return x.array * other.array, backward

    report = check(mine, (X, normal(4, 3).T), order=1)
    assert "the gradients of x and other are swapped" in str(report)


def test_only_the_wrong_argument_is_blamed():
    @op("x other", name="mine")
    def mine(x, other):
        """For one test."""
        def backward(grad_y):
            return grad_y * other, grad_y * x * 2

        return x.array * other.array, backward

    report = check(mine, (X, X + 1), order=1)
    assert [row.ok for row in report.rows] == [True, False]
    assert "off by the factor 2" in report.rows[1].guess


def test_a_shape_error_in_backward_is_a_finding():
    report = check(unary(lambda x: x.T, lambda g, x: g), X, order=1)
    assert not report.ok and "is it transposed?" in str(report)
    with pytest.raises(GradcheckError) as caught:
        report.raise_if_failed()
    assert caught.value.__cause__ is report.cause is not None


def test_a_detached_term_is_right_to_first_order_only():
    whole = unary(np.square, lambda g, x: g * Tensor(2 * x.array))
    report = check(whole, X, order=2)
    assert all(row.ok for row in report.rows if row.order == 1)
    assert "constant during the second derivative (right to first order)" in str(report)
    part = unary(lambda x: x**3, lambda g, x: g * 3 * x * x.detach())
    report = check(part, X, order=2)
    assert "off by the factor 0.5 (right to first order)" in str(report)


def test_a_wrong_third_derivative_is_found_at_order_three():
    @op("x", name="first")
    def first(x):
        """x^4."""
        def backward(grad_y):
            return grad_y * second(x)

        return x.array**4, backward

    @op("x", name="second")
    def second(x):
        """4 x^3, whose own backward is a constant."""
        def backward(grad_y):
            return grad_y * 12 * x * x.detach()

        return 4 * x.array**3, backward

    assert check(first, X, order=2).ok
    report = check(first, X, order=3)
    assert not report.ok and {row.order for row in report.rows if not row.ok} == {3}


# --- where a function is not smooth ---------------------------------------------------------------------------------

def absolute(wrong_at=None):
    def gradient(g, x):
        sign = np.sign(x.array)
        if wrong_at is not None:
            sign[wrong_at] *= 1.01
        return g * constant(sign)

    return unary(np.abs, gradient)


def test_a_kink_is_skipped_with_both_slopes():
    x = X.copy()
    x[0, 3] = x[2, 1] = 0
    report = check(absolute(), x, order=2)
    assert report.ok
    assert "x[0, 3]: kink, slope -1 on the left, +1 on the right" in report.rows[0].skipped
    assert len(report.rows[0].skipped) == 2


def test_a_wrong_gradient_beside_a_kink_is_caught():
    x = X.copy()
    x[0, 3] = 0
    report = check(absolute(wrong_at=(1, 1)), x, order=1)
    assert not report.ok and "d x[1, 1]" in str(report)


def test_a_wrong_gradient_cannot_pass_as_a_kink():
    report = check(unary(np.tanh, lambda g, x: g * (1 - square(x.tanh())) * constant(np.sign(X))), X, order=1)
    assert not report.ok and not report.skipped


def test_ties_name_each_other():
    x = np.array([[0.3, 1.5, 1.5], [0.2, -1.0, 0.7]])

    def gradient(g, x):
        top = x.array == x.array.max(1, keepdims=True)
        return g.unsqueeze(1).expand(2, 3) * constant(top / top.sum(1, keepdims=True))

    report = check(unary(lambda x: x.max(1), gradient), x, order=1)
    assert report.ok
    assert report.rows[0].skipped == ["x[0, 1]: tie with x[0, 2], slope 0 on the left, +1 on the right",
                                      "x[0, 2]: tie with x[0, 1], slope 0 on the left, +1 on the right"]


def test_a_jump_is_skipped():
    x = X.copy()
    x[1, 0] = 2.0
    report = check(unary(np.floor, lambda g, x: g * 0), x, order=1)
    assert report.ok
    assert report.skipped == ["x[1, 0]: jump, 1 on the left, 2 here, 2 on the right"]


def test_the_edge_of_a_domain_is_skipped():
    x = np.abs(X)
    x[0, 0] = 0.0

    def gradient(g, x):
        with np.errstate(divide="ignore"):
            return g * constant(np.where(x.array > 0, 0.5 / np.sqrt(x.array), 0.0))

    report = check(unary(np.sqrt, gradient), x, order=1)
    assert report.ok and report.skipped == ["x[0, 0]: edge of the domain, nan on the left"]


def test_nothing_but_kinks_is_not_a_pass():
    report = check(absolute(), np.zeros((2, 3)), order=1)
    assert not report.ok
    assert report.rows[0].verdict == "not checked" and len(report.skipped) == 6


def test_a_kink_near_the_point_does_not_disturb():
    x = X.copy()
    x[0, 0], x[1, 1], x[2, 2] = 1e-3, -1e-5, 1e-6
    report = check(absolute(), x, order=1)
    assert report.ok and not report.skipped


# --- what else can be wrong ------------------------------------------------------------------------------------------

def test_float32_inside_is_named():
    report = check(unary(lambda x: np.tanh(x.astype(np.float32)).astype(np.float64), lambda g, x: g * (1 - square(x.tanh()))), X, order=1)
    assert not report.ok and "something inside computes in float32" in str(report)
    report = check(unary(lambda x: np.tanh(x.astype(np.float32)), lambda g, x: g * (1 - square(x.tanh()))), X, order=1)
    assert not report.ok and "something inside computes in float32: mine returned float32" in str(report)


def test_an_unsteady_function_fails():
    rng = np.random.default_rng(0)
    report = check(lambda x: x * Tensor(rng.standard_normal((3, 4))), X)
    assert not report.ok and "not deterministic" in str(report)


def test_an_unsteady_backward_fails():
    rng = np.random.default_rng(0)
    report = check(unary(np.tanh, lambda g, x: g * constant(rng.standard_normal((3, 4)))), X)
    assert not report.ok and "two backward calls gave different gradients" in str(report)


def test_writing_into_an_input_fails():
    def forward(x):
        x *= 2
        return x.copy()

    report = check(unary(forward, lambda g, x: g * 2), X)
    assert not report.ok and "wrong: the function wrote into its input" in str(report)
    assert np.array_equal(X, normal(3, 4)), "the caller's array must not change"


def test_writing_in_backward_fails():
    def into_x(g, x):
        x.array[0] = 0
        return g

    def into_grad(g, x):
        g.array[0] = 0
        return g

    assert "backward wrote into x" in str(check(unary(np.positive, into_x), X))
    assert "backward wrote into the gradient it was given" in str(check(unary(np.positive, into_grad), X))


def test_another_gradient_with_create_graph_fails():
    def gradient(g, x):
        return g * (2.0 if autograd.is_grad_enabled() else 1.0)

    assert "create_graph=True is another" in str(check(unary(np.positive, gradient), X))


def test_a_function_that_is_not_finite_fails():
    x = X.copy()
    x[2, 3] = np.nan
    report = check(lambda x: x.tanh(), x)
    assert not report.ok and "not finite" in str(report)


def test_a_detached_result_fails():
    report = check(lambda x: Tensor(np.tanh(x.array)), X, order=1)
    assert not report.ok and "zero everywhere: a detached term?" in str(report)


def test_a_missing_gradient_of_one_output_fails():
    @op("x", name="mine")
    def mine(x):
        """Two outputs, of which backward forgets that only one may have a gradient."""
        def backward(grad_a, grad_b):
            return grad_a * 2 + grad_b if grad_a is not None else None

        return (x.array * 2, x.array * 1), backward

    report = check(mine, X, order=1)
    assert not report.ok and "when only y[0] has a gradient" in str(report)


# --- no false alarms -------------------------------------------------------------------------------------------------

def test_right_gradients_pass_whatever_the_seed():
    x, w, row = normal(3, 4), normal(4, 2), normal(1, 4)
    cases = [
        (lambda x: x.tanh(), (x,)), (lambda x, w: (x * w).tanh() * x, (x, row)), (lambda x, w: (x @ w).tanh(), (x, w)),
        (lambda x: (x * x).sum(1), (x,)), (lambda x: x.permute(1, 0) - 3, (x,)), (absolute(), (x * 1e-3,)),
        (lambda x: x * 1e8 + 1, (x * 1e4,)),
        (unary(np.exp, lambda g, x: g * constant(np.exp(x.array))), (3 * x,)),
        (unary(lambda x: 1 / x, lambda g, x: g * constant(-1 / x.array**2)), (x,)),
    ]
    for seed in range(200):
        fn, inputs = cases[seed % len(cases)]
        report = check(fn, inputs, order=1, seed=seed, probes=2)
        assert report.ok and not report.skipped, f"seed {seed}\n{report}"


def test_a_small_error_is_caught_whatever_the_seed():
    fn, x, _ = MISTAKES["scaled by 1.001"]
    assert not any(check(fn, x, order=1, seed=seed, probes=1).ok for seed in range(20))


def test_scales_that_differ_by_powers_of_ten():
    x = np.array([1e-6, 1e-3, 1.0, 1e3])
    log = unary(np.log, lambda g, x: g * constant(1 / x.array))
    assert check(log, x, order=1).ok
    assert not check(unary(np.log, lambda g, x: g * constant(1.01 / x.array)), x, order=1).ok


def test_lists_numbers_and_integers_are_arguments_too():
    def fn(tensors, k, index):
        return tensors[0] * k + tensors[1] * Tensor(index.array.astype(np.float64))

    report = check(fn, ([Tensor(X), Tensor(X + 1)], 3, Tensor(np.arange(4))), order=2)
    assert report.ok and [row.argument for row in report.rows if row.order == 1] == ["tensors[0]", "tensors[1]"]


def test_no_elements_and_no_axes():
    assert check(lambda x: x.tanh(), np.zeros((0, 3))).ok
    assert check(lambda x: x.tanh(), np.array(0.3), order=3).ok


def test_the_curve_falls_and_rises():
    curve = check(lambda x: x.tanh(), X, order=1).curve("x")
    errors = [error for _, error in curve]
    best = int(np.argmin(errors))
    assert 4 < best < 30
    assert errors[0] > 1e3 * errors[best] and errors[-1] > 10 * errors[best]


def test_the_report_reads_as_a_table():
    text = str(check(lambda x: x.tanh(), X))
    assert text.splitlines()[0].split() == ["order", "argument", "error", "allowed", "probes", "verdict"]
    assert text.splitlines()[1].split()[:2] == ["1", "x"] and text.splitlines()[-1].split()[1] == "grad_y"


# --- PyTorch's names ---------------------------------------------------------------------------------------------------

def leaf(array):
    return Tensor(np.array(array)).requires_grad_()


def test_gradcheck_has_pytorchs_manners():
    assert autograd.gradcheck(lambda x: x.tanh(), (leaf(X),)) is True
    wrong, _, _ = MISTAKES["scaled by 1.01"]
    assert autograd.gradcheck(wrong, leaf(X), raise_exception=False) is False
    assert autograd.gradcheck(wrong, leaf(X), atol=0.1, rtol=0.1)
    assert autograd.gradcheck(lambda x: x.tanh(), leaf(X), eps=1e-3)
    with pytest.raises(GradcheckError, match=r"off by the factor 1\.01"):
        autograd.gradcheck(wrong, leaf(X))
    with pytest.raises(ArgumentError, match="at least one input must require grad"):
        autograd.gradcheck(lambda x: x.tanh(), Tensor(X))


def test_gradcheck_leaves_constants_alone():
    calls = []

    def fn(x, w):
        calls.append(w.requires_grad)
        return x * w

    assert autograd.gradcheck(fn, (leaf(X), Tensor(X)))
    assert not any(calls)


def test_gradgradcheck():
    assert autograd.gradgradcheck(lambda x, w: (x * w).tanh(), (leaf(X), leaf(X + 1)), gen_non_contig_grad_outputs=True)
    assert autograd.gradgradcheck(lambda x: x.tanh(), leaf(X), leaf(X))
    detached = unary(np.square, lambda g, x: g * Tensor(2 * x.array))
    assert autograd.gradcheck(detached, leaf(X))
    with pytest.raises(GradcheckError, match="constant during the second derivative"):
        autograd.gradgradcheck(detached, leaf(X))


def test_inputs_stay_where_they_are():
    x = leaf(X)
    check(lambda x: x.tanh(), x)
    assert x.grad is None and x.device == CPU and np.array_equal(x.array, X)
