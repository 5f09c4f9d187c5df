"""Convolution, transposed convolution, unfold and fold against PyTorch: outputs, gradients and second order over random settings.

A call runs in both libraries from the same text, so names, argument order and keywords are compared too.
"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

from tests.parity.both import check_line

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's remark about 'same' with even kernels
DRAWS = 100


def rng_of(*key):
    return np.random.default_rng([ord(letter) for letter in "".join(map(str, key))])


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def number(rng, low, high, axes):
    """A setting as people write it: one number for all axes, or one for each."""
    values = tuple(int(v) for v in rng.integers(low, high + 1, axes))
    return values if axes > 1 and rng.random() < 0.6 else values[0]


def per_axis(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


def memory_order(rng, array):
    """The same numbers laid out in another order, or with gaps, or backwards."""
    order = rng.permutation(array.ndim)
    array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if rng.random() < 0.3:
        wide = np.repeat(array, 2, -1)
        return wide[..., ::2]
    return array[..., ::-1] if rng.random() < 0.3 else array


def draw_conv(rng, axes):
    """(x, w, b, settings) of a random convolution whose output is not empty."""
    groups = int(pick(rng, 1, 1, 2, 3))
    c, o = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    if rng.random() < 0.2:
        groups, c, o = 4, 4, 4 * int(rng.integers(1, 3))  # depthwise
    kernel = tuple(int(k) for k in rng.integers(1, 5, axes))
    stride, dilation, padding = number(rng, 1, 3, axes), number(rng, 1, 3, axes), number(rng, 0, 3, axes)
    if rng.random() < 0.25:
        padding = pick(rng, "same", "valid")
        stride = 1 if padding == "same" else stride
    least = [d * (k - 1) + 1 - 2 * (0 if isinstance(padding, str) else p)
             for k, d, p in zip(kernel, per_axis(dilation, axes), per_axis(padding, axes), strict=True)]
    size = [max(1, n) + int(rng.integers(0, 5)) for n in least]
    lead = () if rng.random() < 0.15 else (int(rng.integers(0, 4)),)
    x = memory_order(rng, rng.standard_normal((*lead, c, *size)))
    w = memory_order(rng, rng.standard_normal((o, c // groups, *kernel)))
    b = rng.standard_normal(o) if rng.random() < 0.6 else None
    return x, w, b, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@pytest.mark.parametrize("axes", [1, 2])
def test_conv(axes):
    for k in range(DRAWS):
        x, w, b, how = draw_conv(rng_of("conv", axes, k), axes)
        if k % 2:
            check_line(f"F.conv{axes}d(x, w, b, s, p, d, g)",
                       {"x": x, "w": w, "b": b, "s": how["stride"], "p": how["padding"], "d": how["dilation"], "g": how["groups"]})
        else:
            check_line(f"F.conv{axes}d(input=x, weight=w, bias=b, **how)", {"x": x, "w": w, "b": b, "how": how})


@pytest.mark.parametrize("axes", [1, 2])
def test_conv_transpose(axes):
    done = 0
    for k in range(2 * DRAWS):
        rng = rng_of("transpose", axes, k)
        groups = int(pick(rng, 1, 1, 2, 3))
        c, o, kernel = groups * int(rng.integers(1, 3)), int(rng.integers(1, 4)), tuple(int(n) for n in rng.integers(1, 5, axes))
        size = tuple(int(n) for n in rng.integers(1, 5, axes))
        stride, dilation, padding, extra = (number(rng, low, 3, axes) for low in (1, 1, 0, 0))
        s, d, p, e = (per_axis(v, axes) for v in (stride, dilation, padding, extra))
        if any(e[a] >= max(s[a], d[a]) or (size[a] - 1) * s[a] - 2 * p[a] + d[a] * (kernel[a] - 1) + e[a] + 1 < 1 for a in range(axes)):
            continue
        done += 1
        lead = () if rng.random() < 0.15 else (int(rng.integers(0, 3)),)
        x, w = memory_order(rng, rng.standard_normal((*lead, c, *size))), memory_order(rng, rng.standard_normal((c, o, *kernel)))
        b = rng.standard_normal(o * groups) if rng.random() < 0.6 else None
        check_line(f"F.conv_transpose{axes}d(x, w, b, s, p, e, g, d)",
                   {"x": x, "w": w, "b": b, "s": stride, "p": padding, "e": extra, "g": groups, "d": dilation})
    assert done > DRAWS // 2


def test_unfold_and_fold():
    for k in range(DRAWS):
        rng = rng_of("unfold", k)
        c, kernel = int(rng.integers(1, 4)), tuple(int(n) for n in rng.integers(1, 4, 2))
        dilation, padding, stride = number(rng, 1, 2, 2), number(rng, 0, 2, 2), number(rng, 1, 3, 2)
        d, p, s = (per_axis(v, 2) for v in (dilation, padding, stride))
        H, W = (max(1, d[a] * (kernel[a] - 1) + 1 - 2 * p[a]) + int(rng.integers(0, 4)) for a in (0, 1))
        columns = np.prod([(n + 2 * p[a] - d[a] * (kernel[a] - 1) - 1) // s[a] + 1 for a, n in enumerate((H, W))])
        lead = () if rng.random() < 0.2 else (int(rng.integers(0, 3)),)
        names = {"k": kernel, "d": dilation, "p": padding, "s": stride}
        check_line("F.unfold(x, k, d, p, s)", {"x": memory_order(rng, rng.standard_normal((*lead, c, H, W))), **names})
        rows = memory_order(rng, rng.standard_normal((*lead, c * kernel[0] * kernel[1], columns)))
        check_line("F.fold(x, size, k, d, p, s)", {"x": rows, "size": (H, W), **names})


def test_integers_and_float32():
    rng = rng_of("integers")
    x, w, b = (rng.integers(-4, 5, shape) for shape in ((2, 4, 6, 5), (6, 2, 3, 2), (6,)))
    check_line("F.conv2d(x, w, b, 2, 1, 1, 2)", {"x": x, "w": w, "b": b})
    check_line("F.conv2d(x, w, b, 2, 1, 1, 2)", {"x": x.astype("f"), "w": w.astype("f"), "b": b.astype("f")}, tolerance=1e-5)
