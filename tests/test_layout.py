"""Storage: 4-D results are channels-last, and a steady training step of a convolutional network converts nothing."""

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.backend.layout import is_stored_right
from minidl.core.op import OBSERVERS


class Block(nn.Module):
    """A residual block with everything a ResNet has: strides, a projection, batch norm, two ways to add and to rectify."""

    def __init__(self, channels, out, stride, fused):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu, self.fused = nn.ReLU(inplace=True), fused

    def forward(self, x):
        if self.fused:
            y = self.bn1(self.conv1(x), relu=True)
            return self.bn2(self.conv2(y), add=self.shortcut(x), relu=True)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


def network(fused):
    return nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                         Block(8, 8, 1, fused), Block(8, 16, 2, fused), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("fused", [False, True])
def test_a_steady_step_of_a_residual_network_converts_no_layout(fused):
    minidl.manual_seed(0)
    model = network(fused)
    optimizer = minidl.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x, labels = minidl.randn(4, 3, 33, 31), minidl.tensor([0, 1, 2, 3])
    stored_wrong = []

    def look(call):
        for y in call.outputs:
            if y.ndim == 4 and min(y.shape) > 1 and not is_stored_right(y.array):
                stored_wrong.append(call.op.name)

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    losses = [step(), step()]
    OBSERVERS.append(look)
    try:
        with minidl.debug() as d:
            losses.append(step())
    finally:
        OBSERVERS.remove(look)
    assert d.conversions == 0 and stored_wrong == [] and d.creeps == []
    assert losses[2] < losses[0]
    assert all(is_stored_right(p.grad.array) for p in model.parameters())


def test_the_counter_does_count():
    x = minidl.from_numpy(np.ascontiguousarray(np.ones((2, 3, 4, 5), np.float32)))
    with minidl.debug() as d:
        from minidl.backend.layout import stored
        stored(x.array)
    assert d.conversions == 1
