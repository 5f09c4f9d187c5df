"""Networks, one family a file, in the order of the story. `minidl models` lists them; zoo.py is what they share."""
# ruff: noqa: F401, I001 - the imports are the public names, and their order is the story's

import difflib

from minidl.models.zoo import MODELS

from minidl.models.lenet import LeNet5, lenet5
from minidl.models.alexnet import AlexNet, alexnet
from minidl.models.zfnet import ZFNet, zfnet
from minidl.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from minidl.models.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from minidl.models.bn_inception import BNInception, bn_inception
from minidl.models.inception_v3 import Inception3, InceptionOutputs, inception_v3
from minidl.models.inception_v4 import InceptionV4, inception_v4
from minidl.models.resnet import (
    ResNet,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from minidl.models.resnet_cifar import (
    CifarResNet,
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet1202,
)
from minidl.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from minidl.models.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from minidl.models.cats_and_dogs import CatsAndDogs, cats_and_dogs
from minidl.models.tiny import TinyNet, tiny_cnn, tiny_mlp

__all__ = ["MODELS", *MODELS, *(name for name, value in list(globals().items()) if isinstance(value, type))]


def __getattr__(name):
    near = difflib.get_close_matches(name, MODELS, 1, 0.5)
    raise AttributeError(f"minidl.models has no {name!r}." + (f" The nearest name it has is {near[0]!r}." if near else ""))
