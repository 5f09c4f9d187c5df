"""LeNet-5: Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio, Haffner 1998).

The plan of every network in this folder: small filters that slide over the image and are the same everywhere, so that a
shifted digit gives a shifted answer; averaging in between, so that the exact place matters less and less; linear layers last.
The usual form connects everything with everything in the second convolution. variant="paper" is what was published: each of
its 16 maps looks at only some of the 6 before (which broke their symmetry, and saved work), averages have a trainable scale
and bias, tanh is stretched, and the output is the distance to a drawing of each digit. Exactly 60,000 parameters.
"""

import numpy as np

from minidl import nn
from minidl.core.create import tensor
from minidl.models.zoo import as_layers_start, one_of, published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.ops import cat, tanh

LECUN = "LeCun et al. 1998, Gradient-Based Learning"

# Table I of the paper: which of the 6 maps of S2 each map of C3 looks at
C3 = [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5), (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5),
      (0, 1, 4, 5), (0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)]

DIGITS = """
..###.. ...#... ..###.. .#####. ....#.. ####### ...###. ####### ..###.. ..###..
.#...#. ..##... .#...#. .....#. ...##.. #...... ..#.... ......# .#...#. .#...#.
#.....# .#.#... #.....# ....#.. ..#.#.. #...... .#..... .....#. #.....# #.....#
#.....# ...#... ......# ...#... ..#.#.. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# ..###.. .#..#.. #####.. #.###.. ....#.. .#...#. #.....#
#.....# ...#... .....#. .....#. .#..#.. .....#. ##...#. ....#.. ..###.. .#...##
#.....# ...#... ....#.. ......# #...#.. ......# #.....# ...#... .#...#. ..###.#
#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# ....#.. ......# #.....# ..#.... #.....# ......#
#.....# ...#... .#..... #.....# ....#.. #.....# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... .#...#. ....#.. .#...#. .#...#. .#..... .#...#. ....#..
..###.. .#####. ####### ..###.. ....#.. ..###.. ..###.. .#..... ..###.. .###...
"""


def drawings():
    """(10, 84): every digit as 12 × 7 pixels, +1 where there is ink and -1 where not."""
    rows = [line.split() for line in DIGITS.strip().splitlines()]                       # 12 lines of 10 pieces
    return np.array([[1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[digit]] for digit in range(10)], np.float32)


def squash(x):
    """The paper's tanh: ±1 come out where ±1 goes in, in the middle of the bend rather than at its ends."""
    return 1.7159 * tanh(x * (2 / 3))


class Subsample(nn.Module):
    """S2 and S4: the sum of 2×2 pixels, times a trained number, plus another, squashed. Two parameters a map."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(tensor([0.0] * channels)), nn.Parameter(tensor([0.0] * channels))
        self.reset_parameters()

    def reset_parameters(self):
        """As the paper starts every weight: uniform within ±2.4 / fan in."""
        init.uniform_(self.weight, -2.4 / 4, 2.4 / 4)
        init.zeros_(self.bias)

    def forward(self, x):
        """x (N, C, H, W) -> (N, C, H/2, W/2)."""
        sums = F.avg_pool2d(x, 2) * 4
        return squash(sums * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1))


class SparseConv(nn.Module):
    """C3: one small convolution per map, over the maps that Table I names."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(sources), 1, 5) for sources in C3)

    def forward(self, x):
        """x (N, 6, 14, 14) -> (N, 16, 10, 10)."""
        return cat([conv(x[:, list(sources)]) for conv, sources in zip(self.maps, C3, strict=True)], 1)


class Distances(nn.Module):
    """The output: minus the squared distance to each digit's drawing, so that the nearest is the largest. Nothing is trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer("drawings", tensor(drawings()))

    def forward(self, x):
        """x (N, 84) -> (N, 10)."""
        return -((x.unsqueeze(1) - self.drawings) ** 2).sum(2)


class LeNet5(nn.Module):
    """C1 conv, S2 average, C3 conv, S4 average, then linear layers of 120, 84 and num_classes.

    Shapes:    x (N, 1, 28, 28), padded to 32² -> C1 28² -> S2 14² -> C3 10² -> S4 5² -> 400 -> 120 -> 84 -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=10, *, variant="dense"):
        super().__init__()
        self.variant = one_of("LeNet5", "variant", variant, ("dense", "paper"))
        paper = variant == "paper"
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.pool1 = Subsample(6) if paper else nn.AvgPool2d(2)
        self.conv2 = SparseConv() if paper else nn.Conv2d(6, 16, 5)
        self.pool2 = Subsample(16) if paper else nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = Distances() if paper else nn.Linear(84, num_classes)

    def init_weights(self):
        """Dense: as layers start. Paper: uniform within ±2.4 / fan in."""
        as_layers_start(self)
        for module in self.modules() if self.variant == "paper" else ():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = 2.4 / init.fans(module.weight)[0]
                init.uniform_(module.weight, -bound, bound)
                init.zeros_(module.bias)

    def forward(self, x):
        """Scores (N, num_classes)."""
        bend = squash if self.variant == "paper" else tanh
        convolved = (lambda x: x) if self.variant == "paper" else tanh  # in the paper the averages bend, not the convolutions
        x = self.pool1(convolved(self.conv1(x)))
        x = self.pool2(convolved(self.conv2(x)))
        x = bend(self.fc2(bend(self.fc1(x.flatten(1)))))
        return self.fc3(x)


@published((1, 28, 28), LECUN, "0.95, MNIST", {"lenet5_paper": {"variant": "paper"}})
def lenet5(**settings):
    """Two convolutions, three linear layers."""
    return LeNet5(**settings)
