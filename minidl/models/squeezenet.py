"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters (Iandola and others 2016).

Where do parameters sit? In 3×3 filters, times their input channels. So: few 3×3 filters, and few channels going into them.
A fire module first squeezes with 1×1 convolutions to a handful of channels, then expands with 1×1 and 3×3 filters side by
side. Pooling comes late, so that most of it works on large maps. And no linear layer at all: the last convolution has one
channel per class, averaged over the image. Version 1.1 starts with 3×3 and pools earlier: as accurate at 2.4 times less work.
"""

from minidl import nn
from minidl.models.zoo import one_of, published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.ops import cat

IANDOLA = "Iandola et al. 2016, SqueezeNet"
IMAGE = (3, 224, 224)


class Fire(nn.Module):
    """Squeeze to few channels, expand with 1×1 and 3×3 side by side."""

    def __init__(self, inputs, squeezed, expanded1x1, expanded3x3):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded1x1, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded3x3, 3, padding=1)

    def forward(self, x):
        """x (N, inputs, H, W) -> (N, expanded1x1 + expanded3x3, H, W)."""
        x = F.relu(self.squeeze(x))
        return cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def pool():
    """Halves the image; a last row that fits only half is pooled too."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def features(version):
    """The convolutional part: in 1.1 the fires are the same, the stem is smaller and the pools come earlier."""
    if version == "1_0":
        return nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2), nn.ReLU(True), pool(),
            Fire(96, 16, 64, 64), Fire(128, 16, 64, 64), Fire(128, 32, 128, 128), pool(),
            Fire(256, 32, 128, 128), Fire(256, 48, 192, 192), Fire(384, 48, 192, 192), Fire(384, 64, 256, 256), pool(),
            Fire(512, 64, 256, 256))
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(True), pool(),
        Fire(64, 16, 64, 64), Fire(128, 16, 64, 64), pool(),
        Fire(128, 32, 128, 128), Fire(256, 32, 128, 128), pool(),
        Fire(256, 48, 192, 192), Fire(384, 48, 192, 192), Fire(384, 64, 256, 256), Fire(512, 64, 256, 256))


class SqueezeNet(nn.Module):
    """Fires, then one channel per class.

    Shapes:    x (N, 3, 224, 224) -> features (N, 512, 13, 13) -> (N, num_classes)
    """

    @undrawn
    def __init__(self, version="1_0", num_classes=1000, dropout=0.5):
        super().__init__()
        self.features = features(one_of("SqueezeNet", "version", version, ("1_0", "1_1")))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(512, num_classes, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d((1, 1)))

    def init_weights(self):
        """Convolutions: uniform with variance 2 / fan in, the last one normal, 0.01; biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is self.classifier[1]:
                    init.normal_(module.weight, 0, 0.01)
                else:
                    init.kaiming_uniform_(module.weight)
                init.zeros_(module.bias)

    def forward(self, x):
        """Scores (N, num_classes)."""
        return self.classifier(self.features(x)).flatten(1)


@published(IMAGE, IANDOLA, "42.5 / 19.7")
def squeezenet1_0(**settings):
    """The paper's: eight fires behind a 7×7 stem."""
    return SqueezeNet("1_0", **settings)


@published(IMAGE, IANDOLA)
def squeezenet1_1(**settings):
    """The same accuracy at 2.4 times less work."""
    return SqueezeNet("1_1", **settings)
