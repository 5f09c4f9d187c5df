"""Inception v3: Rethinking the Inception Architecture for Computer Vision (Szegedy and others 2015).

Where can multiplications be saved without losing what the network can express? A 5×5 is two 3×3 (block A). An n×n is a 1×n
and an n×1: 7×7 becomes 1×7 and 7×1 on the 17×17 grid (block C). Halving the grid by pooling first loses information, by
convolving first costs four times as much, so do both side by side at stride 2 (blocks B and D). The widest blocks, E, fork
into 1×3 and 3×1. One auxiliary head is left, which the paper finds to act as a regulariser. Images are 299×299.
"""

from collections import namedtuple

from minidl import nn
from minidl.models.googlenet import BasicConv2d, as_trained, centred
from minidl.models.zoo import published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.ops import cat

RETHINKING = "Szegedy et al. 2015, Rethinking the Inception Architecture"
InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])


def row(inputs, outputs, length):
    """A 1×length convolution that keeps the size."""
    return BasicConv2d(inputs, outputs, (1, length), padding=(0, length // 2))


def column(inputs, outputs, length):
    """A length×1 convolution that keeps the size."""
    return BasicConv2d(inputs, outputs, (length, 1), padding=(length // 2, 0))


def average(x):
    """3×3 averages at stride 1; the zeros around the image count."""
    return F.avg_pool2d(x, 3, stride=1, padding=1)


class InceptionA(nn.Module):
    """35×35: 1×1 | 5×5 | two 3×3 | pooling."""

    def __init__(self, inputs, pool_features):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pool_features, 1)

    def forward(self, x):
        """x (N, inputs, 35, 35) -> (N, 224 + pool_features, 35, 35)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class InceptionB(nn.Module):
    """35×35 to 17×17: 3×3 at stride 2 | two 3×3, the second at stride 2 | max pooling."""

    def __init__(self, inputs):
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x):
        """x (N, inputs, 35, 35) -> (N, 480 + inputs, 17, 17)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class InceptionC(nn.Module):
    """17×17: 1×1 | 7×7 as 1×7 and 7×1 | two of these | pooling."""

    def __init__(self, inputs, channels_7x7):
        super().__init__()
        c7 = channels_7x7
        self.branch1x1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7_1 = BasicConv2d(inputs, c7, 1)
        self.branch7x7_2 = row(c7, c7, 7)
        self.branch7x7_3 = column(c7, 192, 7)
        self.branch7x7dbl_1 = BasicConv2d(inputs, c7, 1)
        self.branch7x7dbl_2 = column(c7, c7, 7)
        self.branch7x7dbl_3 = row(c7, c7, 7)
        self.branch7x7dbl_4 = column(c7, c7, 7)
        self.branch7x7dbl_5 = row(c7, 192, 7)
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x):
        """x (N, inputs, 17, 17) -> (N, 768, 17, 17)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class InceptionD(nn.Module):
    """17×17 to 8×8: 3×3 at stride 2 | 7×7, then 3×3 at stride 2 | max pooling."""

    def __init__(self, inputs):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = row(192, 192, 7)
        self.branch7x7x3_3 = column(192, 192, 7)
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x):
        """x (N, inputs, 17, 17) -> (N, 512 + inputs, 8, 8)."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return cat([three, seven, F.max_pool2d(x, 3, stride=2)], 1)


class InceptionE(nn.Module):
    """8×8: 1×1 | 3×3 as 1×3 beside 3×1 | 3×3 and the same fork | pooling."""

    def __init__(self, inputs):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = row(384, 384, 3)
        self.branch3x3_2b = column(384, 384, 3)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = row(384, 384, 3)
        self.branch3x3dbl_3b = column(384, 384, 3)
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x):
        """x (N, inputs, 8, 8) -> (N, 2048, 8, 8)."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return cat([self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three),
                    self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(average(x))], 1)


class InceptionAux(nn.Module):
    """The auxiliary head: 17×17 -> averages 5×5 -> 1×1 convolution -> 5×5 convolution -> 1×1 -> scores."""

    def __init__(self, inputs, num_classes):
        super().__init__()
        self.conv0 = BasicConv2d(inputs, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3)))
        return self.fc(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Inception3(nn.Module):
    """Stem, three A, B, four C, D, two E, global average, classifier; while training also what the head says.

    Shapes:    x (N, 3, 299, 299) -> 149² -> 147² -> 147² -> 73² -> 73² -> 71² -> 35² -> 17² -> 8² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, aux_logits=True, transform_input=False, dropout=0.5):
        super().__init__()
        self.aux_logits, self.transform_input = aux_logits, transform_input
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = InceptionA(192, 32), InceptionA(256, 64), InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = InceptionC(768, 128), InceptionC(768, 160)
        self.Mixed_6d, self.Mixed_6e = InceptionC(768, 160), InceptionC(768, 192)
        self.add_module("AuxLogits", InceptionAux(768, num_classes) if aux_logits else None)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b, self.Mixed_7c = InceptionE(1280), InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)

    def init_weights(self):
        """Normal, 0.1, within ±2; in the head's last convolution 0.01 and in its classifier 0.001. Norms: the identity."""
        stds = {self.AuxLogits.conv1.conv: 0.01, self.AuxLogits.fc: 0.001} if self.aux_logits else {}
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.trunc_normal_(module.weight, 0.0, stds.get(module, 0.1), -2, 2)
                if module.bias is not None:
                    init.layer_bias_(module.bias, module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, x):
        """Scores (N, num_classes); while training with the head an InceptionOutputs of two."""
        x = centred(x) if self.transform_input else x
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        aux = self.AuxLogits(x) if self.training and self.aux_logits else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        logits = self.fc(self.dropout(self.avgpool(x)).flatten(1))
        return logits if aux is None else InceptionOutputs(logits, aux)


@published((3, 299, 299), RETHINKING, "21.2 / 5.6", {"inception_v3_noaux": {"aux_logits": False}}, fit=as_trained("AuxLogits."))
def inception_v3(**settings):
    """Factorised convolutions, one auxiliary classifier."""
    return Inception3(**settings)
