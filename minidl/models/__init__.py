"""Networks, one family a file: minidl.models.resnet50(). `minidl models` lists them; zoo.py is what they share."""

import difflib
import importlib

FAMILIES = ("lenet", "alexnet", "zfnet", "vgg", "googlenet", "bn_inception", "inception_v3", "inception_v4", "resnet", "resnet_cifar",
            "squeezenet", "densenet", "cats_and_dogs", "tiny")


def families():
    """Import every family; returns the modules. Until a network is asked for, none of them costs anything."""
    return [importlib.import_module(f"minidl.models.{name}") for name in FAMILIES]


def table():
    """{name: Model} of every published network, in the order of the story."""
    families()
    return importlib.import_module("minidl.models.zoo").MODELS


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(f"minidl.models has no {name!r}.")
    for family in families():
        value = getattr(family, name, None)
        if getattr(value, "__module__", None) == family.__name__:
            globals()[name] = value
            return value
    near = difflib.get_close_matches(name, table(), 1, 0.5)
    raise AttributeError(f"minidl.models has no {name!r}." + (f" The nearest name it has is {near[0]!r}." if near else ""))


def __dir__():
    return sorted({*globals(), *table(), *FAMILIES} - {"difflib", "importlib"})
