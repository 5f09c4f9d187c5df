"""AlexNet: ImageNet Classification with Deep Convolutional Neural Networks (Krizhevsky, Sutskever, Hinton 2012).

The network that began it: LeNet's plan with a thousand times the weights, on a million photographs and two graphics cards.
What it brought is still everywhere: relu instead of tanh (six times fewer steps), dropout, crops and flips as more data.
What it brought and VGG dropped: response normalisation, overlapping pooling, and convolutions split over the two cards,
which live on as groups. The usual form is torchvision's, from "One weird trick" (2014): one tower, 64 filters, no
normalisation. `variant="paper"` is the network of 2012.
"""

from minidl import nn
from minidl.models.zoo import as_layers_start, one_of, published, undrawn
from minidl.nn import init

KRIZHEVSKY = "Krizhevsky et al. 2012, ImageNet Classification"
IMAGE = (3, 224, 224)


def one_tower():
    """torchvision's convolutions: 224² -> 55² -> 27² -> 13² -> 6²."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(True), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, stride=2))


def two_cards():
    """The paper's: groups=2 where a card saw only its own half of the channels."""
    def response_norm():
        # The paper adds α·Σx² with α = 1e-4 over 5 channels; LocalResponseNorm takes their mean, so α is 5 times as large.
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2), nn.ReLU(True), response_norm(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(True), response_norm(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, stride=2))


class AlexNet(nn.Module):
    """Five convolutions, three linear layers.

    Shapes:    x (N, 3, 224, 224) -> features (N, 256, 6, 6) -> (N, num_classes)
    """

    @undrawn
    def __init__(self, num_classes=1000, dropout=0.5, *, variant="torchvision"):
        super().__init__()
        self.variant = one_of("AlexNet", "variant", variant, ("torchvision", "paper"))
        self.features = two_cards() if variant == "paper" else one_tower()
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(True),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(True),
            nn.Linear(4096, num_classes))

    def init_weights(self):
        """torchvision: as layers start. Paper: normal, 0.01; biases of the 2nd, 4th, 5th convolution and hidden layers 1."""
        if self.variant == "torchvision":
            return as_layers_start(self)
        layers = [module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        for number, layer in enumerate(layers, 1):
            init.normal_(layer.weight, 0, 0.01)
            init.constant_(layer.bias, 1.0 if number in (2, 4, 5, 6, 7) else 0.0)  # so that relus have inputs above 0 from the start

    def forward(self, x):
        """Scores (N, num_classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@published(IMAGE, KRIZHEVSKY, "40.7 / 18.2", {"alexnet_paper": {"variant": "paper"}})
def alexnet(**settings):
    """Five convolutions, three linear layers."""
    return AlexNet(**settings)
