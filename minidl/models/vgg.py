"""VGG: Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan, Zisserman 2014).

One idea, carried through: only 3×3 convolutions, one behind the other. Two of them see 5×5 pixels, three see 7×7, but with
fewer weights (27·C² instead of 49·C²) and a relu after each. Five stages, each ending in a 2×2 pooling that halves the
image while the next stage doubles the channels. Depth 11 to 19 is the only thing that varies between A, B, D and E.
Nine tenths of the 138 million parameters of VGG-16 sit in the three linear layers, most in the first: 25,088 × 4,096.
"""

from minidl import nn
from minidl.models.zoo import published, undrawn
from minidl.nn import init

SIMONYAN = "Simonyan, Zisserman 2014, Very Deep Convolutional Networks"
STAGES = {  # convolutions per stage, of the paper's configurations A, B, D and E
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
IMAGE = (3, 224, 224)


def make_layers(depth, batch_norm=False):
    """The convolutional part. The bias stays beside batch norm, which makes it superfluous: torchvision's files have it."""
    layers, inputs = [], 3
    for count, outputs in zip(STAGES[depth], CHANNELS, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Convolutions, then three linear layers: `classifier` is the paper's for 224×224, or one layer for small images.

    Shapes:    x (N, 3, 224, 224) -> 112² -> 56² -> 28² -> 14² -> 7² -> avgpool (7², whatever came) -> (N, num_classes)
    """

    @undrawn
    def __init__(self, features, num_classes=1000, dropout=0.5, *, small=False):
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1) if small else (7, 7))
        self.classifier = nn.Linear(512, num_classes) if small else nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(dropout),
            nn.Linear(4096, num_classes))

    def init_weights(self):
        """Convolutions: normal with variance 2 / fan out. Linear layers: normal, 0.01. Norms: the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                init.normal_(module.weight, 0, 0.01)
                init.zeros_(module.bias)

    def forward(self, x):
        """Scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg(depth, batch_norm=False, **settings):
    """One of the four depths. small=True ends in one linear layer 512 -> num_classes, as is usual for 32×32 images."""
    with init.skipped():  # the class draws once, when it has all layers
        features = make_layers(depth, batch_norm)
    return VGG(features, **settings)


def small():
    """The variant for 32×32 images and ten classes."""
    return {"small": True, "num_classes": 10, "input": (3, 32, 32)}


@published(IMAGE, SIMONYAN, "29.6 / 10.4", {"vgg11_small": small()})
def vgg11(**settings):
    """Configuration A: 8 convolutions."""
    return vgg(11, **settings)


@published(IMAGE, SIMONYAN, "29.63 / 10.19, torchvision", {"vgg11_bn_small": small()})
def vgg11_bn(**settings):
    """Configuration A with batch norm."""
    return vgg(11, batch_norm=True, **settings)


@published(IMAGE, SIMONYAN, "28.7 / 9.9", {"vgg13_small": small()})
def vgg13(**settings):
    """Configuration B: 10 convolutions."""
    return vgg(13, **settings)


@published(IMAGE, SIMONYAN, "28.41 / 9.63, torchvision", {"vgg13_bn_small": small()})
def vgg13_bn(**settings):
    """Configuration B with batch norm."""
    return vgg(13, batch_norm=True, **settings)


@published(IMAGE, SIMONYAN, "25.6 / 8.1", {"vgg16_small": small()})
def vgg16(**settings):
    """Configuration D: 13 convolutions."""
    return vgg(16, **settings)


@published(IMAGE, SIMONYAN, "26.64 / 8.48, torchvision", {"vgg16_bn_small": small()})
def vgg16_bn(**settings):
    """Configuration D with batch norm."""
    return vgg(16, batch_norm=True, **settings)


@published(IMAGE, SIMONYAN, "25.5 / 8.0", {"vgg19_small": small()})
def vgg19(**settings):
    """Configuration E: 16 convolutions."""
    return vgg(19, **settings)


@published(IMAGE, SIMONYAN, "25.78 / 8.16, torchvision", {"vgg19_bn_small": small()})
def vgg19_bn(**settings):
    """Configuration E with batch norm."""
    return vgg(19, batch_norm=True, **settings)
