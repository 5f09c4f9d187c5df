"""Pooling against PyTorch: outputs, positions, gradients and second order over random settings, with ties, infinities and NaN."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

from tests.parity.both import check_line
from tests.parity.test_conv_parity import memory_order, number, per_axis, pick, rng_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's own remarks about these calls
DRAWS = 120


def draw_image(rng, axes, least, batch=(0, 3)):
    """Normal numbers, or small integers with many ties; in any memory order; sometimes a single image."""
    lead = () if rng.random() < 0.15 else (int(rng.integers(*batch)),)
    shape = (*lead, int(rng.integers(1, 4)), *(max(1, n) + int(rng.integers(0, 6)) for n in least))
    numbers = rng.integers(-2, 3, shape).astype(float) if rng.random() < 0.4 else rng.standard_normal(shape)
    return memory_order(rng, numbers)


def draw_pool(rng, axes, dilated):
    kernel = number(rng, 1, 4, axes)
    k = per_axis(kernel, axes)
    padding = tuple(int(rng.integers(0, n // 2 + 1)) for n in k) if axes > 1 or rng.random() < 0.5 else int(rng.integers(0, k[0] // 2 + 1))
    stride = pick(rng, None, number(rng, 1, 4, axes), number(rng, 1, 4, axes))
    dilation = number(rng, 1, 3, axes) if dilated else 1
    # d·(k − 1) + 1 pixels, so that no dilated window steps over the image
    pads, steps = per_axis(padding, axes), per_axis(dilation, axes)
    least = [d * (n - 1) + 1 - (0 if dilated else 2 * p) for n, p, d in zip(k, pads, steps, strict=True)]
    return draw_image(rng, axes, least), {"k": kernel, "s": stride, "p": padding, "d": dilation, "c": bool(rng.random() < 0.5)}


@pytest.mark.parametrize("axes", [1, 2])
def test_max_pool(axes):
    for k in range(DRAWS):
        rng = rng_of("max", axes, k)
        x, how = draw_pool(rng, axes, dilated=rng.random() < 0.4)
        check_line(f"F.max_pool{axes}d(x, k, s, p, d, c, True)" if k % 2 else
                   f"F.max_pool{axes}d(x, kernel_size=k, stride=s, padding=p, dilation=d, ceil_mode=c)", {"x": x, **how})


@pytest.mark.parametrize("axes", [1, 2])
def test_avg_pool(axes):
    for k in range(DRAWS):
        rng = rng_of("avg", axes, k)
        x, how = draw_pool(rng, axes, dilated=False)
        del how["d"]
        how["i"] = bool(rng.random() < 0.5)
        code = f"F.avg_pool{axes}d(x, k, s, p, c, i)"
        if axes == 2 and rng.random() < 0.3:
            how["m"] = int(rng.integers(1, 9))
            code = "F.avg_pool2d(x, k, s, p, c, i, divisor_override=m)"
        check_line(code, {"x": x, **how})


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("axes", [1, 2])
def test_adaptive_pool(axes, kind):
    for k in range(DRAWS):
        rng = rng_of("adaptive", axes, kind, k)
        x = draw_image(rng, axes, [1] * axes, batch=(1, 3) if axes == 1 else (0, 3))
        size = number(rng, 1, 9, axes)
        if isinstance(size, tuple) and rng.random() < 0.4:
            size = (None, size[1]) if rng.random() < 0.5 else (size[0], None)
        check_line(f"F.adaptive_{kind}_pool{axes}d(x, n{', return_indices=True' if kind == 'max' and k % 2 else ''})", {"x": x, "n": size})


@pytest.mark.parametrize("code", [
    "F.max_pool2d(x, 2, return_indices=True)", "F.max_pool2d(x, 3, 2, 1, return_indices=True)",
    "F.adaptive_max_pool2d(x, (3, 2), return_indices=True)", "F.max_pool2d(x, 2, 1, 1, 2, return_indices=True)"])
def test_nan_and_infinity(code):
    for k in range(20):
        rng = rng_of(code, k)
        x = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], (2, 3, 6, 5), p=[0.2, 0.1, 0.4, 0.2, 0.1])
        check_line(code, {"x": x})
        check_line(code, {"x": np.full((1, 2, 6, 5), -np.inf)})


@pytest.mark.parametrize("code", [
    "F.avg_pool2d(x, 2)", "F.adaptive_avg_pool2d(x, (3, 2))", "F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)"])
def test_infinity_in_an_average_stays_in_its_windows(code):
    x = np.arange(60.0).reshape(1, 2, 6, 5)
    x[0, 1, 2, 3], x[0, 0, 5, 4] = np.inf, np.nan
    check_line(code, {"x": x}, orders=1)


def test_integers():
    x = rng_of("integers").integers(-9, 9, (2, 3, 6, 5))
    check_line("F.max_pool2d(x, 3, 2, 1, return_indices=True)", {"x": x})
