"""The small network of many first lessons: is this photograph a cat or a dog?

Four times a 3×3 convolution without padding and a 2×2 pooling, then two linear layers and one sigmoid: 25,000 photographs,
2,000 of them enough to overfit, which is what it is for. Nearly all of its 3.45 million parameters sit in the first linear
layer, 6,272 × 512: a good place to see why later networks average over the image instead.
"""

from minidl import nn
from minidl.models.zoo import as_layers_start, published, undrawn


class CatsAndDogs(nn.Module):
    """Shapes:    x (N, 3, 150, 150) -> 148² -> 74² -> 72² -> 36² -> 34² -> 17² -> 15² -> 7² -> 6272 -> 512 -> (N, 1), between 0 and 1."""

    @undrawn
    def __init__(self, dropout=0.0):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(128, 128, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(128 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 1), nn.Sigmoid())

    def init_weights(self):
        """As layers start."""
        as_layers_start(self)

    def forward(self, x):
        """How likely it is a dog, (N, 1)."""
        return self.classifier(self.features(x))


@published((3, 150, 150), "A network of many courses")
def cats_and_dogs(**settings):
    """Four convolutions, a dense layer, one sigmoid."""
    return CatsAndDogs(**settings)
