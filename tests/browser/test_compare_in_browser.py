"""The page's first screen, and what it puts side by side: training steps, other traces, other backends, what ran."""

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.core.tensor import Tensor
from minidl.nn import functional as F  # noqa: N812
from minidl.stepper import page, step
from minidl.stepper.ran import Launch, kernel_text

STRANGE = "</script><img src=x onerror=alert(1)>.zip"


class Net(nn.Module):
    """A convolution with a norm, and a head."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x):
        """Pictures -> scores."""
        return self.head(F.relu(self.bn(self.conv(x))).mean((2, 3)))


def trained(steps, seed=0):
    minidl.manual_seed(seed)
    net, x = Net(), minidl.randn(2, 3, 10, 10)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    with step(net) as trace:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(net(x), Tensor(np.array([1, 2]))).backward()
            optimizer.step()
    return trace


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The page of two training steps, beside another trace and on the plain loops."""
    trace = trained(2)
    trace.others = [(STRANGE, trained(2, seed=1))]
    text = kernel_text("batchnorm.cu", "norm_merge")
    trace.forwards[0].runs[0].launches = [Launch("batchnorm.cu", "norm_merge", (2, 1, 1), (256, 1, 1), text)]
    path = tmp_path_factory.mktemp("page") / "two.html"
    page.write(trace, path, diff=["reference"])
    return path


@pytest.mark.parametrize("size", [(1440, 900), (1280, 720)])
def test_the_first_screen_answers_three_questions(opened, two, size):
    p = opened(two, viewport=dict(zip(("width", "height"), size, strict=True)))
    assert "forward 1 of" in p.text("#where") and "step 1 of" in p.text("#where")         # where am I
    assert p.text("#effect").startswith("To the gradient: sends it back through the filter")  # what does it do to the gradient
    assert "→ grad_weight" in p.text("#effect")
    assert p.text("#next") == "next step j" and p.page.locator("#next").is_visible()      # which key moves on
    for what in ("#where", "#effect", "#next"):
        box = p.page.locator(what).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] < size[1] and box["height"] > 10
    p.press("f")
    assert "To the gradient: sends it back" in p.text("#effect") and "backward" in p.text("#where")


def test_the_tensor_pane_compares(opened, two):
    p = opened(two, "#step=14&tab=tensor")
    heads = [h.strip() for h in p.page.locator(".statistics thead th").all_inner_texts()]
    assert heads == ["value", "gradient", "step before", STRANGE]
    far = p.page.locator(".statistics .apart td").all_inner_texts()
    assert far[:2] == ["", ""] and 0 < float(far[2]) < 1 and float(far[3]) > float(far[2])
    p.page.locator(".statistics thead button").first.click()
    assert p.text("#panel h2").strip() == "conv" and p.page.locator(".statistics .apart").count() == 1  # it too is beside the other trace
    assert p.page.locator("#panel img").count() == 0


def test_the_check_pane_shows_other_backends_and_what_ran(opened, two):
    p = opened(two, "#step=1&tab=check")
    assert "reference" in p.text("#panel table") and "nearer to float64" in p.text("#panel table")
    p.page.locator("#panel summary", has_text="all ops").click()
    p.page.locator("#panel button", has_text="head").first.click()
    assert "head" in p.text("#where h1")
    p.press("3")
    assert "matmul" in p.text("#panel dl") and "array expressions" not in p.text("#panel")


def test_a_kernel_that_ran_shows_its_text(opened, two):
    p = opened(two, "#step=1&tab=source")
    assert "CUDA kernel batchnorm.cu: norm_merge grid 2×1×1, block 256×1×1" in p.text("#panel")
    assert "norm_merge(" in p.page.locator("#panel .code").last.inner_text() or "norm_merge(" in p.text("#panel")


def test_training_steps_are_groups_of_the_outline(opened, two):
    p = opened(two)
    assert [p.page.locator("#tree .row .name").nth(k).inner_text() for k in range(2)] == ["training step 1–2", "training step 1"]
