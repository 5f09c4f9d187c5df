"""ResNet: Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun 2015), and the nets that grew out of it.

A plain net of 34 layers has a larger *training* error than one of 18: not because it cannot express the shallower one,
but because SGD does not find it. So let a stack of layers learn only the difference F(x) to what came in, and add x:

    y = relu(F(x) + x)        F = 0 is easy to find; going back, grad_x = grad_y + what F adds: no product of many factors.

Where the shape changes, the shortcut is a 1×1 convolution (option B, usual), zeros for the new channels (A), or every
shortcut is a convolution (C). ResNeXt splits the 3×3 into groups, wide nets double its width, and `variant="preact"` puts
batch norm and relu before the convolutions, so that the path of additions is free from end to end (He and others 2016).
"""

from minidl import nn
from minidl.core.errors import ArgumentError, explained
from minidl.models.zoo import one_of, published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init

HE = "He et al. 2015, Deep Residual Learning"
XIE = "Xie et al. 2016, Aggregated Residual Transformations"
ZAGORUYKO = "Zagoruyko, Komodakis 2016, Wide Residual Networks"
VARIANTS = ("v1.5", "paper", "preact")  # stride on the 3×3 (as torchvision and everybody since), or on the first 1×1
SHORTCUTS = ("A", "B", "C", "none")     # "none": the plain net


def conv3x3(inputs, outputs, stride=1, groups=1, dilation=1):
    """A 3×3 convolution that keeps the size at stride 1; batch norm follows, so a bias would be subtracted again."""
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def conv1x1(inputs, outputs, stride=1):
    """A matrix product at every position."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class PadChannels(nn.Module):
    """Option A: every second row and column, and zeros for the channels that x does not have. No parameters."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.more, self.stride = outputs - inputs, stride

    def forward(self, x):
        """x (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        x = x if self.stride == 1 else x[:, :, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.more)) if self.more else x

    def extra_repr(self):
        """The settings."""
        return f"more={self.more}, stride={self.stride}"


def shortcut(option, inputs, outputs, stride, norm):
    """What stands beside a block: None where x itself is added."""
    changes = inputs != outputs or stride != 1
    if option == "A" and changes:
        return PadChannels(inputs, outputs, stride)
    if option == "C" or option == "B" and changes:
        projection = conv1x1(inputs, outputs, stride)
        return nn.Sequential(projection, norm(outputs)) if norm else nn.Sequential(projection)
    return None


def normed(norm, x, add=None, relu=True):
    """relu(norm(x) + add): in one go where the layer can."""
    if isinstance(norm, nn.BatchNorm2d):
        return norm(x, add=add, relu=relu)
    x = norm(x) if add is None else norm(x) + add
    return F.relu(x) if relu else x


class Block(nn.Module):
    """One residual block: F, and what is added to it. Its subclasses say which convolutions F consists of."""

    expansion = 1  # how many times `planes` channels come out

    def __init__(self, inputs, planes, stride=1, downsample=None, groups=1, base_width=64, dilation=1, norm_layer=nn.BatchNorm2d,
                 variant="v1.5", plain=False):
        super().__init__()
        self.plain = plain
        for number, convolution in enumerate(self.convolutions(inputs, planes, stride, groups, base_width, dilation, variant), 1):
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", norm_layer(convolution.out_channels))
        self.downsample = downsample

    def identity(self, x):
        """What is added to F(x): x, brought to F(x)'s shape, or nothing in a plain net."""
        if self.plain:
            return None
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(Block):
    """Two 3×3 convolutions: F(x) = bn2(conv2(relu(bn1(conv1(x)))))."""

    @staticmethod
    def convolutions(inputs, planes, stride, groups, base_width, dilation, variant):
        """The convolutions of F, in order."""
        if groups != 1 or base_width != 64 or dilation != 1:
            raise explained(ArgumentError, "BasicBlock", "it has no groups, no width and no dilation.",
                            [f"groups = {groups}, base_width = {base_width}, dilation = {dilation}"], "Use Bottleneck.")
        return conv3x3(inputs, planes, stride), conv3x3(planes, planes)

    def forward(self, x):
        """relu(F(x) + x)."""
        y = normed(self.bn1, self.conv1(x))
        return normed(self.bn2, self.conv2(y), add=self.identity(x))


class Bottleneck(Block):
    """1×1 to fewer channels, 3×3 on those, 1×1 to four times as many: as deep as three layers, as costly as a basic block."""

    expansion = 4

    @staticmethod
    def convolutions(inputs, planes, stride, groups, base_width, dilation, variant):
        """The convolutions of F, in order."""
        width = int(planes * base_width / 64) * groups
        first, second = (stride, 1) if variant == "paper" else (1, stride)
        return (conv1x1(inputs, width, first), conv3x3(width, width, second, groups, dilation),
                conv1x1(width, planes * Bottleneck.expansion))

    def forward(self, x):
        """relu(F(x) + x)."""
        y = normed(self.bn1, self.conv1(x))
        y = normed(self.bn2, self.conv2(y))
        return normed(self.bn3, self.conv3(y), add=self.identity(x))


class PreactBlock(Block):
    """y = x + F(x), F made of (norm, relu, convolution) units of a kind of block: nothing stands on the way from x to y.

    A shortcut that changes the shape starts from relu(norm(x)). The very first block gets x normalised by the stem.
    """

    def __init__(self, kind, inputs, planes, stride, downsample, *settings, norm_layer, plain, first):
        nn.Module.__init__(self)
        self.plain = plain
        for number, convolution in enumerate(kind.convolutions(inputs, planes, stride, *settings, "preact"), 1):
            norm = nn.Identity() if first and number == 1 else norm_layer(convolution.in_channels)
            setattr(self, f"bn{number}", norm)
            setattr(self, f"conv{number}", convolution)
        self.downsample = downsample

    def units(self):
        """F's (norm, convolution) pairs, in order."""
        pairs = [(self.bn1, self.conv1), (self.bn2, self.conv2)]
        return pairs + [(self.bn3, self.conv3)] if hasattr(self, "conv3") else pairs

    def forward(self, x):
        """F(x) + x."""
        (norm, convolution), *units = self.units()
        start = x if isinstance(norm, nn.Identity) else normed(norm, x)
        y = convolution(start)
        for norm, convolution in units:
            y = convolution(normed(norm, y))
        added = self.identity(x if self.downsample is None else start)
        return y if added is None else y + added


class ResNet(nn.Module):
    """Stem, four stages of blocks (each half as high and wide, with twice the channels), global average, classifier.

    Work per stage is about equal by design: halving both sides and doubling the channels cancel out.

    Shapes:    x (N, 3, 224, 224) -> 112² -> maxpool 56² -> layer1 56² -> layer2 28² -> layer3 14² -> layer4 7² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, block, layers, num_classes=1000, zero_init_residual=False, groups=1, width_per_group=64,
                 replace_stride_with_dilation=None, norm_layer=None, *, variant="v1.5", shortcut="B"):
        super().__init__()
        self.variant, self.shortcut = one_of("ResNet", "variant", variant, VARIANTS), one_of("ResNet", "shortcut", shortcut, SHORTCUTS)
        self.groups, self.base_width, self.norm_layer = groups, width_per_group, norm_layer or nn.BatchNorm2d
        self.zero_init_residual, self.inplanes, self.dilation = zero_init_residual, 64, 1
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = self.norm_layer(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        dilate = (False, *(replace_stride_with_dilation or (False, False, False)))
        for number, (planes, count) in enumerate(zip((64, 128, 256, 512), layers, strict=True)):
            stage = self._make_layer(block, planes, count, stride=1 if number == 0 else 2, dilate=dilate[number], first=number == 0)
            setattr(self, f"layer{number + 1}", stage)
        if variant == "preact":
            self.bn_last = self.norm_layer(self.inplanes)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self.inplanes, num_classes)

    def _make_layer(self, block, planes, count, stride, dilate, first):
        """`count` blocks of one size; the first of them changes the shape."""
        before = self.dilation
        if dilate:
            self.dilation, stride = self.dilation * stride, 1
        preact, plain = self.variant == "preact", self.shortcut == "none"
        blocks = []
        for number in range(count):
            outputs = planes * block.expansion
            beside = shortcut(self.shortcut, self.inplanes, outputs, stride, None if preact else self.norm_layer)
            settings = (self.inplanes, planes, stride, beside, self.groups, self.base_width, before)
            if preact:
                blocks.append(PreactBlock(block, *settings, norm_layer=self.norm_layer, plain=plain, first=first and number == 0))
            else:
                blocks.append(block(*settings, self.norm_layer, self.variant, plain))
            self.inplanes, stride, before = outputs, 1, self.dilation
        return nn.Sequential(*blocks)

    def init_weights(self):
        """Convolutions: normal with variance 2 / fan out. Norms: the identity. With zero_init_residual F starts as 0."""
        start_residual(self)
        for block in self.modules() if self.zero_init_residual else ():
            if isinstance(block, PreactBlock):
                init.zeros_(block.units()[-1][1].weight)
            elif isinstance(block, Block):
                init.zeros_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = self.maxpool(normed(self.bn1, self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.variant == "preact":
            x = normed(self.bn_last, x)
        return self.fc(self.avgpool(x).flatten(1))


def start_residual(network):
    """How residual nets start: He's normal numbers in the convolutions; the classifier as every linear layer."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()


# --- the published sizes: settings are ResNet's ---------------------------------------------------------------------

IMAGE = (3, 224, 224)


@published(IMAGE, HE, "27.88 top-1, 10-crop", {"resnet18_preact": {"variant": "preact"}})
def resnet18(**settings):
    """18 weighted layers, basic blocks (2, 2, 2, 2)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **settings)


@published(IMAGE, HE, "24.52 / 7.46, 10-crop", {"resnet34_shortcut_a": {"shortcut": "A"}, "resnet34_shortcut_c": {"shortcut": "C"}})
def resnet34(**settings):
    """34 weighted layers, basic blocks (3, 4, 6, 3)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **settings)


@published(IMAGE, HE, "22.85 / 6.71, 10-crop", {"resnet50_paper": {"variant": "paper"}, "resnet50_preact": {"variant": "preact"}})
def resnet50(**settings):
    """50 weighted layers, bottlenecks (3, 4, 6, 3)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **settings)


@published(IMAGE, HE, "21.75 / 6.05, 10-crop")
def resnet101(**settings):
    """101 weighted layers, bottlenecks (3, 4, 23, 3)."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **settings)


@published(IMAGE, HE, "21.43 / 5.71, 10-crop")
def resnet152(**settings):
    """152 weighted layers, bottlenecks (3, 8, 36, 3)."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **settings)


@published(IMAGE, HE, "27.94 top-1, 10-crop")
def plain18(**settings):
    """ResNet-18 without its shortcuts."""
    return ResNet(BasicBlock, (2, 2, 2, 2), shortcut="none", **settings)


@published(IMAGE, HE, "28.54 / 10.02, 10-crop")
def plain34(**settings):
    """ResNet-34 without its shortcuts: deeper than plain18, and worse."""
    return ResNet(BasicBlock, (3, 4, 6, 3), shortcut="none", **settings)


@published(IMAGE, XIE, "22.38 / 6.30, torchvision")
def resnext50_32x4d(**settings):
    """ResNet-50 with 32 groups of 4 channels in every 3×3."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"groups": 32, "width_per_group": 4, **settings})


@published(IMAGE, XIE, "20.69 / 5.47, torchvision")
def resnext101_32x8d(**settings):
    """ResNet-101 with 32 groups of 8 channels."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"groups": 32, "width_per_group": 8, **settings})


@published(IMAGE, XIE, "16.75 / 3.55, torchvision")
def resnext101_64x4d(**settings):
    """ResNet-101 with 64 groups of 4 channels."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"groups": 64, "width_per_group": 4, **settings})


@published(IMAGE, ZAGORUYKO, "21.53 / 5.91, torchvision")
def wide_resnet50_2(**settings):
    """ResNet-50 with twice as many channels in every 3×3."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"width_per_group": 128, **settings})


@published(IMAGE, ZAGORUYKO, "21.15 / 5.72, torchvision")
def wide_resnet101_2(**settings):
    """ResNet-101 with twice as many channels in every 3×3."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **{"width_per_group": 128, **settings})
