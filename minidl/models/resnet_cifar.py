"""The small residual nets for 32×32 images of He et al. 2015, §4.2: 6n + 2 layers, 16, 32 and 64 channels.

Made to study depth, not to win: the same three stages of n basic blocks each, on 32², 16² and 8². Their shortcuts have no
parameters (option A), so that the residual and the plain net of one depth are exactly the same size and cost: what differs
is the sum. Plain nets get worse from 20 to 56 layers and do not train at 110; residual nets get better.
ResNet-110 needs a gentle start: learning rate 0.01 until the training error is below 80 %, then 0.1.
"""

from minidl import nn
from minidl.models.resnet import HE, SHORTCUTS, BasicBlock, conv3x3, normed, shortcut, start_residual
from minidl.models.zoo import one_of, published, undrawn

IMAGE = (3, 32, 32)


class CifarResNet(nn.Module):
    """Stem, three stages of n basic blocks, global average, classifier.

    Shapes:    x (N, 3, 32, 32) -> layer1 16×32² -> layer2 32×16² -> layer3 64×8² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, n, num_classes=10, *, shortcut="A"):
        super().__init__()
        self.shortcut = one_of("CifarResNet", "shortcut", shortcut, SHORTCUTS)
        self.conv1 = conv3x3(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._make_layer(n, 16, 16, stride=1)
        self.layer2 = self._make_layer(n, 16, 32, stride=2)
        self.layer3 = self._make_layer(n, 32, 64, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def _make_layer(self, n, inputs, planes, stride):
        """n blocks of one size; the first of them changes the shape."""
        blocks = []
        for _ in range(n):
            beside = shortcut(self.shortcut, inputs, planes, stride, nn.BatchNorm2d)
            blocks.append(BasicBlock(inputs, planes, stride, beside, plain=self.shortcut == "none"))
            inputs, stride = planes, 1
        return nn.Sequential(*blocks)

    def init_weights(self):
        """As the large residual nets."""
        start_residual(self)

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = normed(self.bn1, self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


@published(IMAGE, HE, "8.75, CIFAR-10", {"resnet20_shortcut_b": {"shortcut": "B"}, "resnet20_shortcut_c": {"shortcut": "C"}})
def resnet20(**settings):
    """n = 3."""
    return CifarResNet(3, **settings)


@published(IMAGE, HE, "7.51, CIFAR-10")
def resnet32(**settings):
    """n = 5."""
    return CifarResNet(5, **settings)


@published(IMAGE, HE, "7.17, CIFAR-10")
def resnet44(**settings):
    """n = 7."""
    return CifarResNet(7, **settings)


@published(IMAGE, HE, "6.97, CIFAR-10", {"resnet56_shortcut_b": {"shortcut": "B"}, "resnet56_shortcut_c": {"shortcut": "C"}})
def resnet56(**settings):
    """n = 9."""
    return CifarResNet(9, **settings)


@published(IMAGE, HE, "6.43, CIFAR-10, best of 5", {"resnet110_shortcut_b": {"shortcut": "B"}, "resnet110_shortcut_c": {"shortcut": "C"}})
def resnet110(**settings):
    """n = 18."""
    return CifarResNet(18, **settings)


@published(IMAGE, HE, "7.93, CIFAR-10")
def resnet1202(**settings):
    """n = 200: it trains, and overfits."""
    return CifarResNet(200, **settings)


@published(IMAGE, HE)
def plain20(**settings):
    """ResNet-20 without its shortcuts."""
    return CifarResNet(3, shortcut="none", **settings)


@published(IMAGE, HE)
def plain32(**settings):
    """ResNet-32 without its shortcuts."""
    return CifarResNet(5, shortcut="none", **settings)


@published(IMAGE, HE)
def plain44(**settings):
    """ResNet-44 without its shortcuts."""
    return CifarResNet(7, shortcut="none", **settings)


@published(IMAGE, HE)
def plain56(**settings):
    """ResNet-56 without its shortcuts: worse than plain20, on the training set too."""
    return CifarResNet(9, shortcut="none", **settings)


@published(IMAGE, HE, "above 60, CIFAR-10")
def plain110(**settings):
    """ResNet-110 without its shortcuts: it does not train."""
    return CifarResNet(18, shortcut="none", **settings)
