"""Losses against PyTorch: values, gradients and second order over random shapes, targets, weights and reductions."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

from tests.parity.both import check_line
from tests.parity.test_conv_parity import memory_order, pick, rng_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's remark about kl_div's mean
DRAWS = 80
REDUCTIONS = ("mean", "sum", "none")


def draw_scores(rng):
    """(scores, shape of the labels): (N, C), (N, C, ...) or (C)."""
    C, positions = int(rng.integers(1, 6)), tuple(int(n) for n in rng.integers(1, 4, int(rng.integers(0, 3))))
    if rng.random() < 0.1:
        return rng.standard_normal(C), ()
    N = int(rng.integers(1, 5))
    return memory_order(rng, rng.standard_normal((N, C, *positions)) * 3), (N, *positions)


def draw_labels(rng, x, shape, ignored):
    """Class numbers, some of them the one that is ignored."""
    C = x.shape[1 if x.ndim > 1 else 0]
    labels = rng.integers(0, C, shape)
    if ignored is not None:
        labels = np.where(rng.random(shape) < 0.3, ignored, labels)
    return np.asarray(labels)


def test_cross_entropy_of_labels():
    for k in range(2 * DRAWS):
        rng = rng_of("labels", k)
        x, shape = draw_scores(rng)
        C, ignored = x.shape[1 if x.ndim > 1 else 0], pick(rng, None, -100, -1, 0)
        labels = draw_labels(rng, x, shape, ignored)
        how = {"i": -100 if ignored is None else ignored, "r": pick(rng, *REDUCTIONS), "s": float(pick(rng, 0.0, 0.0, 0.1, 0.7, 1.0))}
        if (labels == how["i"]).all():
            continue  # a mean of nothing is tested below
        w = rng.uniform(0.1, 2, C) if rng.random() < 0.5 else None
        check_line(f"F.cross_entropy(x, t, {'w' if w is None else 'w.detach()'}, ignore_index=i, reduction=r, label_smoothing=s)",
                   {"x": x, "t": labels, "w": w, **how})
        check_line(f"F.nll_loss(x, t, {'w' if w is None else 'w.detach()'}, ignore_index=i, reduction=r)",
                   {"x": x, "t": labels, "w": w, "i": how["i"], "r": how["r"]})


def test_cross_entropy_of_shares():
    for k in range(DRAWS):
        rng = rng_of("shares", k)
        x, _ = draw_scores(rng)
        w = rng.uniform(0.1, 2, x.shape[1 if x.ndim > 1 else 0]) if rng.random() < 0.5 else None
        check_line(f"F.cross_entropy(x, t, {'w' if w is None else 'w.detach()'}, reduction=r, label_smoothing=s)",
                   {"x": x, "t": rng.uniform(0, 1, x.shape), "w": w, "r": pick(rng, *REDUCTIONS), "s": float(pick(rng, 0.0, 0.1, 0.5))})


@pytest.mark.parametrize("code", ["F.cross_entropy(x, t, ignore_index=1, reduction=r)", "F.nll_loss(x, t, ignore_index=1, reduction=r)"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_label_ignored(code, reduction):
    check_line(code, {"x": rng_of("none").standard_normal((3, 4)), "t": np.array([1, 1, 1]), "r": reduction}, orders=0)


@pytest.mark.parametrize("size", [1e4, 1e5])
@pytest.mark.parametrize("code", ["F.cross_entropy(x, t)", "F.cross_entropy(x, t, label_smoothing=0.1)",
                                  "F.binary_cross_entropy_with_logits(x, y)",
                                  "F.binary_cross_entropy_with_logits(x, y, pos_weight=p.detach())"])
def test_large_scores(code, size):
    rng = rng_of(code)
    values = {"x": rng.standard_normal((4, 3)) * size, "t": rng.integers(0, 3, 4), "y": rng.uniform(0, 1, (4, 3)),
              "p": rng.uniform(0.5, 2, 3)}
    check_line(code, {name: v for name, v in values.items() if name + ")" in code or name + "," in code or name + "." in code}, orders=1)


DISTANCES = ["F.mse_loss(x, y, reduction=r)", "F.l1_loss(x, y, reduction=r)", "F.smooth_l1_loss(x, y, reduction=r, beta=a)",
             "F.huber_loss(x, y, reduction=r, delta=a)", "F.smooth_l1_loss(x, y, reduction=r, beta=0.0)"]


@pytest.mark.parametrize("code", DISTANCES)
def test_distances(code):
    for k in range(DRAWS // 2):
        rng = rng_of(code, k)
        shape = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(0, 5))))
        values = {"x": memory_order(rng, rng.standard_normal(shape)) if shape else np.array(0.3),
                  "y": np.asarray(rng.standard_normal(shape)), "r": pick(rng, *REDUCTIONS), "a": float(rng.uniform(0.1, 2))}
        check_line(code, {name: v for name, v in values.items() if name != "a" or "=a" in code})


@pytest.mark.parametrize("code", DISTANCES[1:4])
def test_equal_values(code):
    """Where prediction and target are equal the slope is 0."""
    values = {"x": np.array([0.0, 1.0, 2.5]), "y": np.array([0.0, 1.0, 2.0]), "r": "sum", "a": 1.0}
    check_line(code, {name: v for name, v in values.items() if name != "a" or "=a" in code})


@pytest.mark.parametrize("code", ["F.binary_cross_entropy(x, y, w, reduction=r)",
                                  "F.binary_cross_entropy_with_logits(z, y, w, reduction=r)",
                                  "F.binary_cross_entropy_with_logits(z, y, w, reduction=r, pos_weight=p)"])
def test_yes_or_no(code):
    for k in range(DRAWS // 2):
        rng = rng_of(code, k)
        shape = (int(rng.integers(1, 5)), *(int(n) for n in rng.integers(1, 5, int(rng.integers(0, 4)))))
        narrow = (shape[-1],) if rng.random() < 0.5 else shape
        values = {"x": memory_order(rng, rng.uniform(0.1, 0.9, shape)), "z": rng.standard_normal(shape) * 4, "y": rng.uniform(0, 1, shape),
                  "w": rng.uniform(0.5, 2, narrow) if rng.random() < 0.5 else None, "p": rng.uniform(0.5, 3, narrow),
                  "r": pick(rng, *REDUCTIONS)}
        line = code.replace(" w,", " w.detach(),") if values["w"] is not None else code
        used = [n for n in values if n in "wyr" or (n == "p" and "=p" in code) or (n == ("x" if "y(x" in code else "z"))]
        check_line(line.replace("=p)", "=p.detach())"), {name: values[name] for name in used})


def test_certain_mistakes_cost_one_hundred():
    check_line("F.binary_cross_entropy(x, y.detach(), reduction='none')",
               {"x": np.array([0.0, 1.0, 0.0, 1.0, 1e-50]), "y": np.array([0.0, 1, 1, 0, 1])},
               orders=1, tolerance=1e-8)  # PyTorch's 10⁻¹² is a float32


def test_divergence():
    for k in range(DRAWS):
        rng = rng_of("kl", k)
        shape = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(1, 5))))
        log_target = bool(rng.random() < 0.5)
        target = rng.standard_normal(shape) if log_target else rng.uniform(0.05, 1, shape)
        check_line("F.kl_div(x, y, reduction=r, log_target=l)",
                   {"x": memory_order(rng, rng.standard_normal(shape)), "y": target, "r": pick(rng, *REDUCTIONS, "batchmean"),
                    "l": log_target})
    check_line("F.kl_div(x, y, reduction='sum')", {"x": np.array([-1.0, -2.0, -0.5]), "y": np.array([0.0, 1, 0])}, orders=0)


def test_cosine_embedding():
    for k in range(20):
        rng = rng_of("cosine", k)
        shape = (4, 3) if k % 4 else (3,)
        check_line("F.cosine_embedding_loss(x, y, t, m, reduction=r)",
                   {"x": rng.standard_normal(shape), "y": rng.standard_normal(shape), "t": np.asarray(rng.choice([-1, 1], shape[:-1])),
                    "m": 0.2, "r": pick(rng, *REDUCTIONS)})
