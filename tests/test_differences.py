"""The differences that docs/differences.md names are there: its code is run, and what it says without code is asserted here."""

import re
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl import nn
from minidl.core.errors import GraphError, MinidlError

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "differences.md").read_text(encoding="utf-8")


def test_the_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    names = {}
    for block in blocks:
        exec(compile(block, "docs/differences.md", "exec"), names)


def test_writing_where_the_graph_would_have_to_know():
    x = minidl.ones(2, requires_grad=True) * 1
    for write in (lambda: x.add_(1), lambda: x.copy_(minidl.zeros(2)), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(GraphError):
            write()


def test_inplace_changes_nothing():
    x = minidl.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x).tolist() == [0, 2] and F.relu(x, inplace=True).tolist() == [0, 2]
    F.dropout(x, inplace=True)
    assert x.tolist() == [-1, 2]


def test_layout():
    x = minidl.zeros(2, 3, 4, 5)
    assert x.permute(3, 1, 0, 2).is_contiguous() and x.contiguous() is x and not hasattr(x, "stride")
    assert x.permute(3, 1, 0, 2).view(-1).shape == (120,) and x.numpy().flags.c_contiguous


def test_values():
    for divide in (lambda: minidl.tensor([3]) // 0, lambda: minidl.tensor([3]) % minidl.tensor([0])):
        with pytest.raises(ValueError, match="integers cannot be divided by 0"):
            divide()
    assert np.isinf((minidl.tensor([3.0]) / 0).item())
    assert not hasattr(minidl, "bfloat16") and not hasattr(minidl, "complex64") and not hasattr(minidl, "set_default_dtype")


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.binary_cross_entropy,
                                  F.binary_cross_entropy_with_logits])
def test_losses_do_not_broadcast(loss):
    with pytest.raises(ValueError, match="must have one shape"):
        loss(minidl.zeros(4, 1), minidl.zeros(4))


def test_relu_and_nan_are_told():
    """minidl's side; the other side too, where PyTorch is installed."""
    assert "lets no gradient through" in PAGE.replace("\n", " ") and "detect_anomaly()" in PAGE
    x = minidl.tensor([float("nan"), 1.0], requires_grad=True)
    F.relu(x).backward(minidl.tensor([5.0, 6.0]))
    assert x.grad.tolist() == [0, 6]
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    torch.relu(x).backward(torch.tensor([5.0, 6.0]))
    assert x.grad.tolist() == [5, 6]


def test_class_weights_are_constants():
    w = minidl.ones(3, requires_grad=True)
    labels = minidl.tensor([0, 1])
    for call in (lambda: F.cross_entropy(minidl.zeros(2, 3), labels, w), lambda: F.nll_loss(minidl.zeros(2, 3), labels, w),
                 lambda: F.binary_cross_entropy_with_logits(minidl.zeros(2, 3), minidl.zeros(2, 3), pos_weight=w)):
        with pytest.raises(ValueError, match="constant|does not require grad"):
            call()


def test_the_slope_towards_a_certain_target_is_finite():
    target = minidl.tensor([0.5, 0.5], requires_grad=True)
    F.binary_cross_entropy(minidl.tensor([0.0, 1.0]), target, reduction="sum").backward()
    assert target.grad.tolist() == [100, -100]


def test_every_graph_is_walked_once():
    y = (minidl.ones(2, requires_grad=True) + 1).sum()
    y.backward()
    with pytest.raises(GraphError, match="already walked"):
        y.backward()


def test_loading_is_all_or_nothing():
    layer = nn.Linear(2, 3)
    before = layer.bias.tolist()
    with pytest.raises(MinidlError):
        layer.load_state_dict({"weight": np.zeros((3, 5)), "bias": np.ones(3)})
    assert layer.bias.tolist() == before


def test_dropping_nothing_is_no_copy():
    x = minidl.ones(3)
    assert F.dropout(x, 0.0) is x and F.dropout(x, 0.5, False) is x
