"""Inception v4: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning (Szegedy and others 2016).

Inception v3 was shaped by what could be split over machines. Free of that, v4 is regular: one stem with three forks, then 4
blocks A on 35×35, 7 blocks B on 17×17, 3 blocks C on 8×8, with a reduction between them, every block of a kind the same.
The paper's question is whether such networks need residual connections: they train faster with them and end about as well.
"""

from minidl import nn
from minidl.models.googlenet import BasicConv2d
from minidl.models.inception_v3 import column, row
from minidl.models.zoo import published, undrawn
from minidl.nn import init
from minidl.ops import cat

IMPACT = "Szegedy et al. 2016, Inception-v4"


def conv(inputs, outputs, kernel_size, stride=1, padding=0):
    """Convolution, batch norm, relu."""
    return BasicConv2d(inputs, outputs, kernel_size, stride=stride, padding=padding)


def pooled(inputs, outputs):
    """3×3 averages of what lies inside the image, then a 1×1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), conv(inputs, outputs, 1))


def halve():
    """Max pooling without padding."""
    return nn.MaxPool2d(3, stride=2)


class Branches(nn.Module):
    """Modules side by side, their outputs concatenated."""

    def __init__(self, *branches):
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, x):
        """The branches' outputs side by side."""
        return cat([branch(x) for branch in self.children()], 1)


class Fork(nn.Module):
    """1×3 beside 3×1 over the same input: what a 3×3 becomes on the smallest grid."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.across, self.down = row(inputs, outputs, 3), column(inputs, outputs, 3)

    def forward(self, x):
        """x (N, inputs, H, W) -> (N, 2·outputs, H, W)."""
        return cat([self.across(x), self.down(x)], 1)


def stem():
    """299×299×3 -> 35×35×384, halving three times by convolution and pooling side by side."""
    return [
        conv(3, 32, 3, stride=2), conv(32, 32, 3), conv(32, 64, 3, padding=1),
        Branches(halve(), conv(64, 96, 3, stride=2)),
        Branches(nn.Sequential(conv(160, 64, 1), conv(64, 96, 3)),
                 nn.Sequential(conv(160, 64, 1), row(64, 64, 7), column(64, 64, 7), conv(64, 96, 3))),
        Branches(conv(192, 192, 3, stride=2), halve()),
    ]


def block_a():
    """35×35×384: 1×1 | 3×3 | two 3×3 | averages."""
    return Branches(
        conv(384, 96, 1),
        nn.Sequential(conv(384, 64, 1), conv(64, 96, 3, padding=1)),
        nn.Sequential(conv(384, 64, 1), conv(64, 96, 3, padding=1), conv(96, 96, 3, padding=1)),
        pooled(384, 96))


def reduction_a():
    """35×35×384 -> 17×17×1024."""
    return Branches(
        conv(384, 384, 3, stride=2),
        nn.Sequential(conv(384, 192, 1), conv(192, 224, 3, padding=1), conv(224, 256, 3, stride=2)),
        halve())


def block_b():
    """17×17×1024: 1×1 | 7×7 as 1×7 and 7×1 | two of these | averages."""
    return Branches(
        conv(1024, 384, 1),
        nn.Sequential(conv(1024, 192, 1), row(192, 224, 7), column(224, 256, 7)),
        nn.Sequential(conv(1024, 192, 1), column(192, 192, 7), row(192, 224, 7), column(224, 224, 7), row(224, 256, 7)),
        pooled(1024, 128))


def reduction_b():
    """17×17×1024 -> 8×8×1536."""
    return Branches(
        nn.Sequential(conv(1024, 192, 1), conv(192, 192, 3, stride=2)),
        nn.Sequential(conv(1024, 256, 1), row(256, 256, 7), column(256, 320, 7), conv(320, 320, 3, stride=2)),
        halve())


def block_c():
    """8×8×1536: 1×1 | a fork | 3×1, 1×3 and a fork | averages."""
    return Branches(
        conv(1536, 256, 1),
        nn.Sequential(conv(1536, 384, 1), Fork(384, 256)),
        nn.Sequential(conv(1536, 384, 1), column(384, 448, 3), row(448, 512, 3), Fork(512, 256)),
        pooled(1536, 256))


class InceptionV4(nn.Module):
    """Stem, 4 A, reduction, 7 B, reduction, 3 C, global average, classifier.

    Shapes:    x (N, 3, 299, 299) -> 149² -> 147² -> 147² -> 73² -> 71² -> 35² -> 17² -> 8² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, dropout=0.2):
        super().__init__()
        self.features = nn.Sequential(
            *stem(), *(block_a() for _ in range(4)), reduction_a(), *(block_b() for _ in range(7)), reduction_b(),
            *(block_c() for _ in range(3)))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(1536, num_classes)

    def init_weights(self):
        """Convolutions normal with variance 2 / fan in; the rest as layers start."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = self.avgpool(self.features(x)).flatten(1)
        return self.last_linear(self.dropout(x))


@published((3, 299, 299), IMPACT, "20.0 / 5.0")
def inception_v4(**settings):
    """A regular Inception: 4 A, 7 B, 3 C."""
    return InceptionV4(**settings)
