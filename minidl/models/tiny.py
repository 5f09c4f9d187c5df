"""A network small enough to step through: two hidden layers, the second beside a skip, three classes of points.

TinyNet is written without nn, so that a stepper shows every op of it; below it a tiny perceptron and a tiny convolutional net.
"""

import numpy as np

from minidl import nn
from minidl.core.tensor import Tensor
from minidl.models.zoo import published
from minidl.ops import cross_entropy, relu, tanh


class TinyNet:
    """Points in the plane -> scores for three classes. `h` goes two ways, so its gradient comes from two."""

    def __init__(self, seed=0, hidden=6):
        rng = np.random.default_rng(seed)

        def parameter(scale, *shape):
            return Tensor((scale * rng.standard_normal(shape)).astype("float32"), requires_grad=True)

        self.w1, self.b1 = parameter(2**-0.5, 2, hidden), parameter(0.1, hidden)  # 1 / sqrt(fan in) keeps sizes as they are
        self.w2, self.b2 = parameter(hidden**-0.5, hidden, hidden), parameter(0.1, hidden)
        self.w3, self.b3 = parameter(hidden**-0.5, hidden, 3), parameter(0.1, 3)

    def named_parameters(self):
        """(name, parameter) of every parameter."""
        return list(vars(self).items())

    def __call__(self, x):
        h = relu(x @ self.w1 + self.b1)      # (N, hidden)
        bend = tanh(h @ self.w2 + self.b2)
        s = h + bend                         # the skip: two ways from h to s
        return s @ self.w3 + self.b3         # (N, 3)

    def loss(self, x, labels):
        """The mean cross-entropy of a batch."""
        scores = self(x)
        return cross_entropy(scores, labels)


def points(count=8, seed=0):
    """A batch of points in three arms of a spiral, and which arm each belongs to."""
    rng = np.random.default_rng([seed, 3])
    labels = np.arange(count) % 3
    radius = rng.uniform(0.3, 2.0, count)
    angle = 2 * radius + labels * 2 * np.pi / 3 + rng.normal(0, 0.1, count)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)   # (N, 2)
    return Tensor(x.astype("float32")), Tensor(labels)


@published((2,), "For first steps")
def tiny_mlp(inputs=2, hidden=16, num_classes=3):
    """A perceptron with two hidden layers, for points() above."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


@published((1, 28, 28), "For first steps")
def tiny_cnn(channels=1, num_classes=10):
    """Two convolutions and a global average: the smallest network that is already shaped like the large ones."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, num_classes))
