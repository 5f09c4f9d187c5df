"""ZFNet: Visualizing and Understanding Convolutional Networks (Zeiler, Fergus 2013), the winner of the year after AlexNet.

They ran a trained AlexNet backwards (unpooling, relu, transposed convolution) to see what each filter looks for, and saw two
faults: first-layer filters that were dead or only caught extreme frequencies, and aliasing from the stride of 4. The cure
is smaller and slower: 7×7 instead of 11×11, stride 2 instead of 4, and stride 2 in the second layer. The rest is AlexNet
on one card. A lesson in looking before changing.
"""

from minidl import nn
from minidl.models.zoo import published, undrawn
from minidl.nn import init

ZEILER = "Zeiler, Fergus 2013, Visualizing and Understanding"


class ZFNet(nn.Module):
    """Five convolutions, three linear layers.

    Shapes:    x (N, 3, 224, 224) -> 110² -> 55² -> 26² -> 13² -> features (N, 256, 6, 6) -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, dropout=0.5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2, padding=1), nn.ReLU(True), nn.MaxPool2d(3, stride=2, padding=1),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.Conv2d(96, 256, 5, stride=2), nn.ReLU(True), nn.MaxPool2d(3, stride=2, padding=1),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, stride=2))
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(True),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(True),
            nn.Linear(4096, num_classes))

    def init_weights(self):
        """All weights normal, 0.01; all biases 0."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.normal_(module.weight, 0, 0.01)
                init.zeros_(module.bias)

    def forward(self, x):
        """Scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@published((3, 224, 224), ZEILER, "38.4 / 16.5")
def zfnet(**settings):
    """AlexNet with a 7×7 stride-2 beginning."""
    return ZFNet(**settings)
