"""ShapeNet: a small residual network that is trained on the pictures of minidl/data/shapes.py and comes with its weights.

It is what `minidl step` walks through: an untrained network shows noise, this one has learnt to look. The program that
trained it is minidl/lessons/train_shapes.py.
"""

from pathlib import Path

from minidl import nn
from minidl.core import files
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init

WEIGHTS = Path(__file__).with_name("weights") / "shapes.safetensors"


class Block(nn.Module):
    """Two 3×3 convolutions beside a skip: y = relu(F(x) + x). Where the shape changes, a 1×1 convolution brings x to it."""

    def __init__(self, channels, filters, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.project = None
        if stride > 1 or channels != filters:
            self.project = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        """The way through the convolutions, plus the skip."""
        skip = x if self.project is None else self.project(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + skip)


class ShapeNet(nn.Module):
    """Stem, three residual stages, the average over all positions, scores for ten shapes.

    Shapes:    x (N, 3, 32, 32) -> stem 8×32² -> stage1 8×32² -> stage2 16×16² -> stage3 32×8² -> scores (N, 10)
    """

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.stage1 = Block(8, 8)
        self.stage2 = Block(8, 16, stride=2)
        self.stage3 = Block(16, 32, stride=2)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        """Scores (N, 10)."""
        x = F.relu(self.bn(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        features = x.mean((2, 3))            # (N, 32)
        return self.fc(features)


def trained(weights=WEIGHTS):
    """The network as it ships: trained, in eval mode."""
    with init.skipped():
        net = ShapeNet()
    net.load_state_dict(files.load(weights))
    return net.eval()
