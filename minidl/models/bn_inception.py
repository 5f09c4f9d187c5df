"""BN-Inception, Inception v2: Batch Normalization (Ioffe, Szegedy 2015): GoogLeNet again, trained in a fourteenth of the steps.

Every layer's input shifts while the layers below it learn, so each has to chase the others, with small learning rates and
careful starts. Normalising every channel over the batch takes that away: mean 0, variance 1, then a learnt scale and shift.
The network around it changes too: the 5×5 becomes two 3×3, some pools are averages, and two more blocks halve the image at
stride 2 by convolution and pooling side by side. The sizes are those of the weights that were published with it.
"""

from minidl import nn
from minidl.models.zoo import as_layers_start, published, undrawn
from minidl.nn import init
from minidl.ops import cat

IOFFE = "Ioffe, Szegedy 2015, Batch Normalization"

# 1×1, (reduce, 3×3), (reduce, 3×3, 3×3), pooling and its projection; where the first and the last are 0 the block has stride 2
BLOCKS = {
    "3a": (64, (64, 64), (64, 96), "avg", 32), "3b": (64, (64, 96), (64, 96), "avg", 64), "3c": (0, (128, 160), (64, 96), "max", 0),
    "4a": (224, (64, 96), (96, 128), "avg", 128), "4b": (192, (96, 128), (96, 128), "avg", 128),
    "4c": (160, (128, 160), (128, 160), "avg", 128), "4d": (96, (128, 192), (160, 192), "avg", 128),
    "4e": (0, (128, 192), (192, 256), "max", 0),
    "5a": (352, (192, 320), (160, 224), "avg", 128), "5b": (352, (192, 320), (192, 224), "max", 128),
}


class ConvNorm(nn.Module):
    """relu(bn(conv(x))). The published weights have a bias in front of the batch norm, which makes it superfluous."""

    def __init__(self, inputs, outputs, kernel_size, **settings):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, **settings)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        """relu(bn(conv(x)))."""
        return self.bn(self.conv(x), relu=True)


class InceptionV2(nn.Module):
    """Up to four branches side by side: 1×1 | 3×3 | two 3×3 | pooling."""

    def __init__(self, inputs, ones, threes, double, pool, projection):
        super().__init__()
        stride = 1 if ones else 2
        branches = [ConvNorm(inputs, ones, 1)] if ones else []
        branches.append(nn.Sequential(ConvNorm(inputs, threes[0], 1), ConvNorm(*threes, 3, stride=stride, padding=1)))
        branches.append(nn.Sequential(ConvNorm(inputs, double[0], 1), ConvNorm(*double, 3, padding=1),
                                      ConvNorm(double[1], double[1], 3, stride=stride, padding=1)))
        if stride == 2:
            branches.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
        else:
            pooling = nn.AvgPool2d(3, stride=1, padding=1) if pool == "avg" else nn.MaxPool2d(3, stride=1, padding=1)
            branches.append(nn.Sequential(pooling, ConvNorm(inputs, projection, 1)))
        self.branches = nn.ModuleList(branches)
        self.outputs = ones + threes[1] + double[1] + (projection or inputs)

    def forward(self, x):
        """The branches' outputs side by side."""
        return cat([branch(x) for branch in self.branches], 1)


class BNInception(nn.Module):
    """Stem, ten blocks on three sizes, global average, classifier.

    Shapes:    x (N, 3, 224, 224) -> 112² -> 56² -> 3a 28² -> 3c, 4a 14² -> 4e, 5a 7² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, dropout=0.0):
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNorm(64, 64, 1)
        self.conv3 = ConvNorm(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception = nn.Sequential()
        inputs = 192
        for name, sizes in BLOCKS.items():
            block = InceptionV2(inputs, *sizes)
            self.inception.add_module(name, block)
            inputs = block.outputs
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)  # the paper needs none
        self.fc = nn.Linear(inputs, num_classes)

    def init_weights(self):
        """As layers start; convolutions normal with variance 2 / fan in."""
        as_layers_start(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.inception(x)
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


@published((3, 224, 224), IOFFE, "25.2 / 7.82")
def bn_inception(**settings):
    """GoogLeNet with batch norm and 5×5 as two 3×3."""
    return BNInception(**settings)
