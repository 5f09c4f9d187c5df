"""DenseNet: Densely Connected Convolutional Networks (Huang, Liu, van der Maaten, Weinberger 2016).

A ResNet adds what a layer found to what came in; a DenseNet keeps both side by side. Every layer of a block reads the
outputs of *all* layers before it and appends its own `growth_rate` channels, so layers can be narrow: nothing has to be
carried along by copying. A 1×1 bottleneck keeps the ever wider input cheap, and a transition between blocks halves the
channels and the image. The price is memory: each layer's input is a concatenation of its own.
"""

import re

from minidl import nn
from minidl.models.zoo import published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.ops import cat

HUANG = "Huang et al. 2016, Densely Connected Convolutional Networks"
IMAGE = (3, 224, 224)


class DenseLayer(nn.Module):
    """norm, relu, 1×1 to bn_size·growth_rate channels; norm, relu, 3×3 to growth_rate: what one layer adds to its block."""

    def __init__(self, inputs, growth_rate, bn_size, drop_rate):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x):
        """x (N, inputs, H, W) -> (N, growth_rate, H, W)."""
        y = self.conv1(self.norm1(x, relu=True))
        y = self.conv2(self.norm2(y, relu=True))
        return F.dropout(y, self.drop_rate, self.training) if self.drop_rate else y


class DenseBlock(nn.Module):
    """Layers that each read all that came before: x (N, inputs, H, W) -> (N, inputs + layers·growth_rate, H, W)."""

    def __init__(self, layers, inputs, growth_rate, bn_size, drop_rate):
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", DenseLayer(inputs + number * growth_rate, growth_rate, bn_size, drop_rate))

    def forward(self, x):
        """x and what every layer adds, side by side."""
        parts = [x]
        for layer in self.children():
            parts.append(layer(cat(parts, 1) if len(parts) > 1 else x))
        return cat(parts, 1)


class Transition(nn.Sequential):
    """Between two blocks: half the channels, half the image."""

    def __init__(self, inputs, outputs):
        super().__init__({"norm": nn.BatchNorm2d(inputs), "relu": nn.ReLU(True), "conv": nn.Conv2d(inputs, outputs, 1, bias=False),
                          "pool": nn.AvgPool2d(2, stride=2)})


class DenseNet(nn.Module):
    """Stem, four dense blocks with transitions between them, global average, classifier.

    Shapes:    x (N, 3, 224, 224) -> 112² -> pool 56² -> block 1 -> 28² -> block 2 -> 14² -> block 3 -> 7² -> block 4 -> (N, num_classes)
    """

    @undrawn
    def __init__(self, growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64, bn_size=4, drop_rate=0, num_classes=1000):
        super().__init__()
        channels = num_init_features
        self.features = nn.Sequential({
            "conv0": nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False), "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(True), "pool0": nn.MaxPool2d(3, stride=2, padding=1)})
        for number, layers in enumerate(block_config, 1):
            self.features.add_module(f"denseblock{number}", DenseBlock(layers, channels, growth_rate, bn_size, drop_rate))
            channels += layers * growth_rate
            if number < len(block_config):
                self.features.add_module(f"transition{number}", Transition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)

    def init_weights(self):
        """Convolutions: normal with variance 2 / fan in. Norms: the identity. The classifier's bias: 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()
        init.zeros_(self.classifier.bias)

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = F.relu(self.features(x))
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


def modern_names(state, settings):
    """The published files say `norm.1`, `conv.2`, ... where the layers are called norm1, conv2."""
    for name in list(state):
        old = re.fullmatch(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)", name)
        if old:
            state[old[1] + old[2]] = state.pop(name)


@published(IMAGE, HUANG, "25.02 / 7.71", fit=modern_names)
def densenet121(**settings):
    """Blocks of 6, 12, 24 and 16 layers."""
    return DenseNet(32, (6, 12, 24, 16), 64, **settings)


@published(IMAGE, HUANG, "23.80 / 6.85", fit=modern_names)
def densenet169(**settings):
    """Blocks of 6, 12, 32 and 32 layers."""
    return DenseNet(32, (6, 12, 32, 32), 64, **settings)


@published(IMAGE, HUANG, "22.58 / 6.34", fit=modern_names)
def densenet201(**settings):
    """Blocks of 6, 12, 48 and 32 layers."""
    return DenseNet(32, (6, 12, 48, 32), 64, **settings)


@published(IMAGE, HUANG, fit=modern_names)
def densenet161(**settings):
    """Blocks of 6, 12, 36 and 24 layers that add 48 channels each."""
    return DenseNet(48, (6, 12, 36, 24), 96, **settings)
