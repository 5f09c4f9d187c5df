"""Padding, resizing, shuffles, embedding and linear layers against PyTorch over random settings, to second order."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

from tests.parity.both import check_line
from tests.parity.test_conv_parity import memory_order, pick, rng_of

DRAWS = 60


def draw_image(rng, axes=2, least=1):
    return memory_order(rng, rng.standard_normal((*rng.integers(1, 4, 2), *rng.integers(least, 9, axes))))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode):
    for k in range(DRAWS):
        rng = rng_of(mode, k)
        x = draw_image(rng, axes=int(rng.integers(1, 3)), least=4)
        pad = [int(n) for n in rng.integers(-1 if rng.random() < 0.3 else 0, 4, 2 * (x.ndim - 2))]
        if mode == "circular" and min(pad) < 0:
            pad = [min(n, 1) for n in pad]
        how = {"x": x, "p": pick(rng, pad, tuple(pad))}
        check_line("F.pad(x, p, mode='constant', value=1.5)" if mode == "constant" and k % 2 else f"F.pad(x, p, mode='{mode}')", how)


def test_pad_of_a_single_image():
    for mode in ("reflect", "replicate", "circular"):
        check_line(f"F.pad(x, (1, 2), mode='{mode}')", {"x": rng_of(mode).standard_normal((2, 5))})
        check_line(f"F.pad(x, (1, 2, 0, 1), mode='{mode}')", {"x": rng_of(mode).standard_normal((2, 3, 5))})


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "area"])
def test_interpolate(mode):
    for k in range(2 * DRAWS):
        rng = rng_of(mode, k)
        x = draw_image(rng, axes=1 if mode != "bilinear" and rng.random() < 0.2 else 2)
        n = x.ndim - 2
        corners = {"a": pick(rng, None, False, True)} if mode == "bilinear" else {"a": None}
        if rng.random() < 0.5:
            size = tuple(int(s) for s in rng.integers(1, 20, n))
            check_line("F.interpolate(x, s, mode=m, align_corners=a)", {"x": x, "s": pick(rng, size, size[0]), "m": mode, **corners})
        else:
            factor = tuple(float(max(f, 1.01 / s)) for f, s in zip(rng.uniform(0.2, 3.5, n), x.shape[2:], strict=True))
            factor = pick(rng, factor, max(factor), 2, 0.5 if min(x.shape[2:]) > 1 else 1.0)
            check_line("F.interpolate(x, scale_factor=f, mode=m, align_corners=a, recompute_scale_factor=r)",
                       {"x": x, "f": factor, "m": mode, "r": pick(rng, None, False, True), **corners})


def test_interpolate_sequences():
    for k in range(DRAWS // 2):
        rng = rng_of("linear", k)
        check_line("F.interpolate(x, s, mode='linear', align_corners=a)",
                   {"x": draw_image(rng, 1), "s": int(rng.integers(1, 15)), "a": bool(rng.random() < 0.5)})


# the first four come out differently when positions are computed in float64
@pytest.mark.parametrize("n, size", [(2, 82), (3, 123), (4, 98), (6, 74)] + [(n, size) for n in (7, 15, 28) for size in (5, 29, 57, 127)])
def test_nearest_reads_the_same_pixels(n, size):
    """PyTorch computes positions in float32: the rounding must be the same too."""
    check_line("F.interpolate(x, s, mode='nearest')", {"x": np.arange(float(n)).reshape(1, 1, 1, n), "s": (1, size)}, orders=0)
    check_line("F.interpolate(x, s, mode='nearest-exact')", {"x": np.arange(float(n)).reshape(1, 1, 1, n), "s": (1, size)}, orders=0)
    check_line("F.interpolate(x, scale_factor=(1.0, f))", {"x": np.arange(float(n)).reshape(1, 1, 1, n), "f": size / n + 0.013}, orders=0)


def test_float32_is_resized_in_float32():
    x = rng_of("f").standard_normal((1, 2, 13, 9)).astype("float32")
    for corners in (False, True):
        check_line("F.interpolate(x, (31, 17), mode='bilinear', align_corners=a)", {"x": x, "a": corners}, orders=1, tolerance=5e-7)


def test_shuffles():
    for k in range(DRAWS // 2):
        rng = rng_of("shuffle", k)
        r, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        lead = (2,) if k % 3 else ()
        check_line("F.pixel_shuffle(x, r)", {"x": rng.standard_normal((*lead, 2 * r * r, 3, 2)), "r": r})
        check_line("F.pixel_unshuffle(x, r)", {"x": rng.standard_normal((*lead, 2, 3 * r, 2 * r)), "r": r})
        check_line("torch.nn.ChannelShuffle(g)(x)", {"x": draw_image(rng)[:, [0] * 2 * groups] + np.arange(2.0 * groups).reshape(-1, 1, 1),
                                                      "g": groups}, orders=1)


def test_embedding():
    for k in range(DRAWS):
        rng = rng_of("embedding", k)
        rows = int(rng.integers(1, 6))
        index = rng.integers(0, rows, tuple(int(n) for n in rng.integers(1, 4, int(rng.integers(0, 4)))))
        check_line("F.embedding(i, w, p)", {"i": np.asarray(index), "w": memory_order(rng, rng.standard_normal((rows, 3))),
                                            "p": pick(rng, None, 0, -1)})


def test_linear_and_bilinear():
    for k in range(DRAWS // 2):
        rng = rng_of("linear", k)
        lead, bias = tuple(int(n) for n in rng.integers(0, 4, int(rng.integers(0, 4)))), rng.standard_normal(4) if k % 2 else None
        x, y = rng.standard_normal((*lead, 3)), rng.standard_normal((*lead, 2))
        check_line("F.linear(x, w, b)", {"x": memory_order(rng, x), "w": rng.standard_normal((4, 3)), "b": bias})
        if lead:
            check_line("F.bilinear(x, y, w, b)", {"x": x, "y": y, "w": rng.standard_normal((4, 3, 2)), "b": bias})
