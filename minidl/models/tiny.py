"""A network small enough to step through: two hidden layers, the second beside a skip, three classes of points."""

import numpy as np

from minidl.core.tensor import Tensor
from minidl.ops import cross_entropy, matmul, relu, tanh


class TinyNet:
    """Points in the plane -> scores for three classes. `h` goes two ways, so its gradient comes from two."""

    def __init__(self, seed=0, hidden=6):
        rng = np.random.default_rng(seed)

        def normal(fan_in, *shape):
            return Tensor((rng.standard_normal(shape) / np.sqrt(fan_in)).astype("float32"), requires_grad=True)

        self.w1, self.b1 = normal(2, 2, hidden), normal(2, hidden)
        self.w2, self.b2 = normal(hidden, hidden, hidden), normal(hidden, hidden)
        self.w3, self.b3 = normal(hidden, hidden, 3), normal(hidden, 3)

    def named_parameters(self):
        """(name, parameter) of every parameter."""
        return list(vars(self).items())

    def __call__(self, x):
        h = relu(matmul(x, self.w1) + self.b1)     # (N, hidden)
        bend = tanh(matmul(h, self.w2) + self.b2)
        s = h + bend                               # the skip: h itself, and what the second layer makes of it
        return matmul(s, self.w3) + self.b3        # (N, 3)

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
