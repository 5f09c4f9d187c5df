"""detect_anomaly(): a NaN planted at ten places is blamed on the right op each time; masks and pads are nobody's fault."""

import numpy as np
import pytest

import minidl
from minidl.core.anomaly import AnomalyError, detect_anomaly


def t(*values, grad=True):
    return minidl.tensor(np.array(values, dtype=np.float64)).requires_grad_(grad)


def blamed(function):
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        function()
    return caught.value


def log_of_zero():
    p = t(0.5, 0.0, 1.0)
    entropy = p.log() * p          # -inf at index 1, then 0 · -inf = NaN
    entropy.sum().backward()


def zero_by_zero():
    x = t(1.0, 0.0)
    (x / x.detach()).sum().backward()


def infinity_minus_infinity():
    x = t(1000.0, 1.0)
    e = x.exp()
    (e - e).sum()


def overflow_in_exp():
    x = t(1000.0, 1.0)
    e = x.exp()                    # inf
    (e / e.sum()).sum()            # inf / inf


def sqrt_of_negative():
    (t(4.0, -1.0).sqrt() * 2).sum()


def overflow_in_a_product():
    big = t(1e200, 1.0)
    y = big * 1e200                # inf
    (y * 0).sum()


def power():
    (t(-8.0, 2.0) ** (1 / 3)).sum()


def a_bad_weight():
    w = t(1.0, np.nan, 2.0)
    (w * t(1.0, 2.0, 3.0)).sum()


def a_bad_pixel():
    image = t(0.1, 0.2, np.nan, grad=False)
    (t(1.0, 2.0, 3.0) * image).sum()


def infinite_loss():
    p = t(0.0, 1.0)
    loss = -p.log().sum()
    loss.backward()


def slope_of_sqrt_at_zero():
    x = t(0.0, 1.0)
    (x.sqrt() * 0).sum().backward()


def inside_a_matmul():
    a = minidl.tensor(np.full((2, 2), 1e200)).requires_grad_()
    b = a @ a                      # inf
    (b - b).sum()


@pytest.mark.parametrize("function, op, index", [
    (log_of_zero, "log", (1,)), (zero_by_zero, "div", (1,)), (infinity_minus_infinity, "exp", (0,)), (overflow_in_exp, "exp", (0,)),
    (sqrt_of_negative, "sqrt", (1,)), (overflow_in_a_product, "mul", (0,)), (power, "pow", (0,)), (a_bad_weight, "a leaf", (1,)),
    (a_bad_pixel, "a leaf", (2,)), (infinite_loss, "log", (0,)), (slope_of_sqrt_at_zero, "sqrt", (0,)), (inside_a_matmul, "matmul", (0, 0)),
], ids=lambda v: getattr(v, "__name__", None))
def test_the_first_cause_is_blamed(function, op, index):
    error = blamed(function)
    assert (error.op, error.index) == (op, index), str(error)
    if error.site:
        assert error.site[0].endswith("test_anomaly.py")
        first, last = function.__code__.co_firstlineno, max(line for *_, line in function.__code__.co_lines() if line)
        assert first <= error.site[1] <= last


def test_the_message_shows_operands_and_growth():
    def grows():
        x = t(3.0, 2.0)
        y = x * 1000
        z = y * 10
        z.exp().log().sum().backward()

    text = str(blamed(grows))
    assert "exp made an infinity at index (0,)" in text and "30000 there" in text
    assert "values grew before: |max| 3 went into mul" in text


def test_masks_pads_and_constants_are_nobodys_fault():
    with detect_anomaly():
        scores = t(1.0, 2.0, 3.0)
        masked = minidl.where(minidl.tensor([True, True, False]), scores, float("-inf"))
        masked.exp().sum().backward()
        padded = minidl.nn.functional.pad(t(1.0, 2.0), (1, 1), value=float("-inf"))
        padded.max().backward()
        bias = minidl.tensor([0.0, float("-inf"), 0.0], dtype=minidl.float64)
        p = (t(1.0, 2.0, 3.0) + bias).exp()
        (p / p.sum()).sum().backward()
    assert np.isfinite(scores.grad.array).all()


def test_a_row_masked_away_completely_blames_the_op_that_made_the_nan():
    def all_masked():
        e = minidl.where(minidl.tensor([False, False]), t(1.0, 2.0), float("-inf"))
        (e - e.max()).exp().sum()

    assert blamed(all_masked).op == "sub"


def test_a_clean_run_changes_nothing():
    x = t(0.3, 0.7)

    def loss():
        x.grad = None
        y = (x * 2).tanh().sum()
        y.backward()
        return x.grad.array

    plain = loss()
    with detect_anomaly() as watch:
        watched = loss()
        assert watch.seen
    np.testing.assert_array_equal(plain, watched)
    assert not watch.seen


def test_a_bad_pixel_reaches_the_outputs_that_see_it_and_no_others():
    """Winograd would spread it over its tile, and the first bad output would be blamed at the wrong place."""
    x, w = minidl.randn(8, 64, 28, 28), minidl.randn(64, 64, 3, 3)
    x.array[0, 0, 9, 9] = np.inf
    with minidl.detect_anomaly():
        bad = ~np.isfinite(minidl.nn.functional.conv2d(x, w, padding=1).numpy())
    assert bad.sum() == 64 * 9 and bad[0, :, 8:11, 8:11].all()
    assert (~np.isfinite(minidl.nn.functional.conv2d(x, w, padding=1).numpy())).sum() > 64 * 9  # this is what it is for
