"""Normalisation against PyTorch: outputs, gradients, second order, and running statistics over several steps, on random settings."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

import torch

import minidl
from tests.parity.both import check_line
from tests.parity.test_conv_parity import memory_order, pick, rng_of

DRAWS = 60


def draw_shape(rng, channels=(1, 7), positions=(0, 3), batch=(1, 5)):
    """(N, C, ...) with up to two axes of positions."""
    return (int(rng.integers(*batch)), int(rng.integers(*channels)), *(int(n) for n in rng.integers(1, 6, int(rng.integers(*positions)))))


def draw_values(rng, shape):
    """Normal numbers with a mean and a spread of their own, in any memory order."""
    return memory_order(rng, rng.standard_normal(shape) * rng.uniform(0.5, 3) + rng.normal())


def draw_affine(rng, shape):
    """Weight and bias: both, one, none."""
    return {name: rng.standard_normal(shape) if rng.random() < 0.7 else None for name in "wb"}


def orders_of(affine):
    """PyTorch's second derivative raises where only one of the two is given; ours is compared with differences in test_every_op.py."""
    return 2 if (affine["w"] is None) == (affine["b"] is None) else 1


def test_batch_norm_in_training():
    for k in range(DRAWS):
        rng = rng_of("train", k)
        shape = draw_shape(rng, positions=(0, 4))
        if int(np.prod(shape)) == shape[1]:
            shape = (2, *shape[1:])
        eps, affine = float(pick(rng, 1e-5, 1e-3, 0.5)), draw_affine(rng, shape[1])
        check_line("F.batch_norm(x, None, None, w, b, True, eps=e)" if k % 2 else
                   "F.batch_norm(x, running_mean=None, running_var=None, weight=w, bias=b, training=True, momentum=0.2, eps=e)",
                   {"x": draw_values(rng, shape), **affine, "e": eps}, orders_of(affine))


def test_batch_norm_in_evaluation():
    for k in range(DRAWS):
        rng = rng_of("eval", k)
        shape = draw_shape(rng, batch=(0, 4), positions=(0, 4))
        affine = draw_affine(rng, shape[1])
        check_line("F.batch_norm(x, m.detach(), v.detach(), w, b, False, 0.1, e)",
                   {"x": draw_values(rng, shape), "m": rng.standard_normal(shape[1]), "v": rng.uniform(0.1, 3, shape[1]),
                    **affine, "e": float(pick(rng, 1e-5, 1e-3))}, orders_of(affine))


def test_the_three_that_look_at_one_sample():
    for k in range(DRAWS):
        rng = rng_of("rows", k)
        groups, each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        shape = (int(rng.integers(1, 4)), groups * each, *(int(n) for n in rng.integers(2, 5, int(rng.integers(1, 3)))))
        x, per_channel = draw_values(rng, shape), draw_affine(rng, shape[1])
        orders = orders_of(per_channel) if per_channel["w"] is not None or per_channel["b"] is None else 0  # a bias alone: PyTorch raises
        check_line("F.group_norm(x, g, w, b, 1e-3)", {"x": x, "g": groups, **per_channel}, orders)
        check_line("F.instance_norm(x, weight=w, bias=b, eps=1e-3)", {"x": x, **per_channel}, orders)
        last = shape[int(rng.integers(1, len(shape))):]
        affine = draw_affine(rng, last)
        check_line("F.layer_norm(x, s, w, b)", {"x": x, "s": pick(rng, last, list(last)), **affine}, orders_of(affine))
        check_line("F.rms_norm(x, s, w)", {"x": x, "s": last, "w": affine["w"]})
        check_line("F.rms_norm(x, s, eps=0.1)", {"x": x, "s": last})


def test_group_norm_without_positions():
    check_line("F.group_norm(x, 2, w, b)", {"x": rng_of("gn").standard_normal((3, 6)), "w": np.arange(1.0, 7), "b": np.arange(6.0)})


def test_local_response_norm():
    for k in range(DRAWS // 2):
        rng = rng_of("lrn", k)
        x = draw_values(rng, (*draw_shape(rng)[:2], *rng.integers(1, 5, int(rng.integers(1, 3)))))
        check_line("F.local_response_norm(x, s, a, q, c)",
                   {"x": x, "s": int(rng.integers(1, 8)), "a": 0.3, "q": float(pick(rng, 0.75, 0.5, 1.0)), "c": float(rng.uniform(1, 2))})


def test_lengths():
    for k in range(DRAWS // 2):
        rng = rng_of("lengths", k)
        shape = (*draw_shape(rng)[:2], 4)
        x, y = draw_values(rng, shape), draw_values(rng, shape)
        check_line("F.normalize(x, p, d)", {"x": x, "p": float(pick(rng, 1.0, 2.0, 3.0)), "d": int(rng.integers(-3, 3))})
        check_line("F.cosine_similarity(x, y, d)", {"x": x, "y": y, "d": int(rng.integers(-3, 3))})
    check_line("F.normalize(x)", {"x": np.zeros((2, 3))}, orders=1)


# --- running statistics -------------------------------------------------------------------------------------------

def numbers(tensor):
    return tensor.detach().numpy()


def both_layers(make):
    """The same layer in both libraries, in float64, with the same random weights."""
    ours, theirs = make(minidl.nn), make(torch.nn).double()
    ours.to(minidl.float64)
    rng = np.random.default_rng(5)
    for name, p in theirs.named_parameters():
        value = rng.standard_normal(tuple(p.shape))
        p.data.copy_(torch.from_numpy(value))
        dict(ours.named_parameters())[name].data = minidl.Tensor(value)
    return ours, theirs


FLAGS = [(affine, track) for affine in (True, False) for track in (True, False)]
LAYERS = [(f"BatchNorm{d}d", momentum, *flags) for d in (1, 2) for momentum in (0.1, 0.7, None) for flags in FLAGS]
LAYERS += [(f"InstanceNorm{d}d", momentum, *flags) for d in (1, 2) for momentum in (0.1, 0.7) for flags in FLAGS]


@pytest.mark.parametrize("name, momentum, affine, track", LAYERS)
def test_running_statistics_over_several_steps(name, momentum, affine, track):
    """Training steps with batches of different sizes, evaluation in between; every buffer and gradient after each step."""
    ours, theirs = both_layers(lambda nn: getattr(nn, name)(3, momentum=momentum, affine=affine, track_running_stats=track))
    rng = np.random.default_rng(1)
    for step in range(6):
        for layer in (ours, theirs):
            layer.train(step != 3)
        shape = (int(rng.integers(2, 6)), 3, *((4, 2) if "2d" in name else (5,)))
        x, u = rng.standard_normal(shape) * 3 + 1, rng.standard_normal(shape)
        a, b = minidl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        y.backward(minidl.tensor(u))
        z.backward(torch.tensor(u))
        right_grads = {n: p.grad for n, p in theirs.named_parameters()}
        pairs = [(y.detach(), z), (a.grad, b.grad), *((p.grad, right_grads[n]) for n, p in ours.named_parameters())]
        assert list(ours.state_dict()) == list(theirs.state_dict())
        pairs += [(t, theirs.state_dict()[n]) for n, t in ours.state_dict().items()]
        for mine, right in pairs:
            np.testing.assert_allclose(mine.detach().numpy(), numbers(right), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [lambda nn: nn.BatchNorm2d(3), lambda nn: nn.BatchNorm1d(3)])
def test_an_empty_batch_changes_nothing(make):
    ours, theirs = both_layers(make)
    shape = (0, 3, 4, 5) if isinstance(theirs, torch.nn.BatchNorm2d) else (0, 3)
    assert tuple(ours(minidl.zeros(shape, dtype=minidl.float64)).shape) == tuple(theirs(torch.zeros(shape, dtype=torch.float64)).shape)
    for name, right in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name].numpy(), right.numpy())
