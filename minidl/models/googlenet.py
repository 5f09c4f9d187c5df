"""GoogLeNet: Going Deeper with Convolutions (Szegedy and others 2014), also called Inception v1: 22 weighted layers.

Which filter size is best? Take all: an inception block runs 1×1, 3×3, 5×5 and pooling side by side and concatenates. That is
affordable because a 1×1 convolution first reduces the channels that the large filters see: 271 instead of 854 million
multiply-adds for a typical block. A global average replaces the huge linear layers: 7 million parameters, AlexNet had 61.
Two auxiliary classifiers halfway give the lower layers a gradient of their own while training, and are thrown away.
The usual form is torchvision's: batch norm everywhere, and 3×3 where the paper has 5×5. variant="paper" is the network of 2014.
"""

from collections import namedtuple

from minidl import nn
from minidl.models.zoo import one_of, published, undrawn
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.ops import cat

SZEGEDY = "Szegedy et al. 2014, Going Deeper with Convolutions"
GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])

# Table 1 of the paper: 1×1, (reduce, 3×3), (reduce, 5×5), projection after pooling
BLOCKS = {
    "3a": (64, (96, 128), (16, 32), 32), "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64), "4b": (160, (112, 224), (24, 64), 64), "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64), "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128), "5b": (384, (192, 384), (48, 128), 128),
}


class BasicConv2d(nn.Module):
    """Convolution, batch norm, relu: relu(bn(conv(x)))."""

    def __init__(self, inputs, outputs, kernel_size, **settings):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, bias=False, **settings)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        """relu(bn(conv(x)))."""
        return self.bn(self.conv(x), relu=True)


class PlainConv2d(nn.Module):
    """Convolution with bias, relu: as in 2014, before batch norm."""

    def __init__(self, inputs, outputs, kernel_size, **settings):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, **settings)

    def forward(self, x):
        """relu(conv(x))."""
        return F.relu(self.conv(x))


class Inception(nn.Module):
    """Four branches side by side: x (N, C, H, W) -> (N, sum of the branches' channels, H, W)."""

    def __init__(self, inputs, ones, threes, fives, projection, conv=BasicConv2d, true_5x5=False):
        super().__init__()
        kernel = 5 if true_5x5 else 3
        self.branch1 = conv(inputs, ones, 1)
        self.branch2 = nn.Sequential(conv(inputs, threes[0], 1), conv(*threes, 3, padding=1))
        self.branch3 = nn.Sequential(conv(inputs, fives[0], 1), conv(*fives, kernel, padding=kernel // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), conv(inputs, projection, 1))
        self.outputs = ones + threes[1] + fives[1] + projection

    def forward(self, x):
        """The branches' outputs side by side."""
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """A classifier halfway: 4×4 averages, 1×1 convolution to 128 channels, two linear layers."""

    def __init__(self, inputs, num_classes, dropout=0.7, conv=BasicConv2d, pool=None):
        super().__init__()
        self.pool = pool or nn.AdaptiveAvgPool2d((4, 4))
        self.conv = conv(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """Scores (N, num_classes)."""
        x = self.conv(self.pool(x)).flatten(1)  # (N, 2048)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Stem, nine inception blocks on three sizes, global average, classifier; while training also what the two heads say.

    Shapes:    x (N, 3, 224, 224) -> 112² -> 56² -> 3a 28² -> 4a 14² -> 5a 7² -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, aux_logits=True, transform_input=False, dropout=None, dropout_aux=0.7, *,
                 variant="torchvision", true_5x5=None):
        super().__init__()
        paper = one_of("GoogLeNet", "variant", variant, ("torchvision", "paper")) == "paper"
        self.variant, self.aux_logits, self.transform_input = variant, aux_logits, transform_input
        conv = PlainConv2d if paper else BasicConv2d
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) if paper else nn.Identity()
        self.conv1 = conv(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        inputs, widths = 192, {}
        for name, sizes in BLOCKS.items():
            if name == "4a":
                self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            if name == "5a":
                self.maxpool4 = nn.MaxPool2d(3 if paper else 2, stride=2, ceil_mode=True)
            block = Inception(inputs, *sizes, conv, paper if true_5x5 is None else true_5x5)
            self.add_module(f"inception{name}", block)
            inputs = widths[name] = block.outputs
        for head, where in (("aux1", "4a"), ("aux2", "4d")):
            pool = nn.AvgPool2d(5, stride=3) if paper else None
            self.add_module(head, InceptionAux(widths[where], num_classes, dropout_aux, conv, pool) if aux_logits else None)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout((0.4 if paper else 0.2) if dropout is None else dropout)
        self.fc = nn.Linear(1024, num_classes)

    def init_weights(self):
        """torchvision: normal, 0.01, within ±2. Paper's variant, as in Caffe: Xavier, biases 0.2 (without batch norm 0.01 would vanish)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and self.variant == "paper":
                init.xavier_uniform_(module.weight)
                init.constant_(module.bias, 0.0 if module is self.fc else 0.2)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                init.trunc_normal_(module.weight, 0.0, 0.01, -2, 2)
                if module.bias is not None:
                    init.layer_bias_(module.bias, module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, x):
        """Scores (N, num_classes); while training with heads a GoogLeNetOutputs of three."""
        heads = self.training and self.aux_logits
        x = centred(x) if self.transform_input else x
        x = self.norm(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        aux1 = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if heads else None
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return GoogLeNetOutputs(logits, aux2, aux1) if heads else logits


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def centred(x):
    """Undo (x − mean) / std of ImageNet and apply (x − 0.5) / 0.5, which the original weights were trained with.

    Per channel, axis 1: y[:, c] = x[:, c] · std[c] / 0.5 + (mean[c] − 0.5) / 0.5.
    """
    scale = [std / 0.5 for std in IMAGENET_STD]
    shift = [(mean - 0.5) / 0.5 for mean in IMAGENET_MEAN]
    return cat([x[:, c:c + 1] * scale[c] + shift[c] for c in range(3)], 1)


def as_trained(*heads):
    """What published weights bring along: inputs scaled as they were trained with, and the heads that the file has."""

    def fit(state, settings):
        settings.setdefault("transform_input", True)
        has = any(name.startswith(heads) for name in state)
        if not settings.setdefault("aux_logits", has):
            for name in [name for name in state if name.startswith(heads)]:
                del state[name]

    return fit


@published((3, 224, 224), SZEGEDY, "- / 10.07", {"googlenet_noaux": {"aux_logits": False}, "googlenet_5x5": {"true_5x5": True},
                                                 "googlenet_paper": {"variant": "paper"}}, fit=as_trained("aux1.", "aux2."))
def googlenet(**settings):
    """Inception v1 with two auxiliary classifiers."""
    return GoogLeNet(**settings)
