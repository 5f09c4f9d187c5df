"""What all families share: the table of models, `weights=` in every constructor, and weights that are drawn once.

A family is a file beside this one. Its networks are classes whose __init__ is marked @undrawn; its published sizes are
functions marked @published, which is what `minidl models` lists.
"""

import functools

from minidl.core.errors import ArgumentError, explained
from minidl.nn import init

MODELS = {}  # name -> Model, in the order in which the families are imported


class Model:
    """One published network: how to build it, and what its paper says."""

    def __init__(self, make, input, source, errors, variants):
        self.name = make.__name__
        self.make = make          # (**settings) -> the network
        self.input = input        # (C, H, W) of the images it was published for
        self.source = source      # the paper
        self.errors = errors      # published errors, as printed there
        self.variants = variants  # settings under which manifest.json lists it too: {"googlenet_noaux": {"aux_logits": False}}

    @property
    def doc(self):
        """The first line of the constructor's docstring."""
        return (self.make.__doc__ or "").strip().split("\n")[0]


def published(input, source, errors="", variants=None, fit=None):
    """Register a constructor and give it `weights=`: a file that minidl.load() reads, with the names of its state dict.

    `fit(state, settings)` may adapt both to each other before the network is built: heads that the file lacks, say.
    """

    def register(make):
        @functools.wraps(make)
        def constructor(*, weights=None, **settings):
            if weights is None:
                return make(**settings)
            from minidl.core import files

            state = files.load(weights)
            if fit:
                fit(state, settings)
            with init.skipped():
                network = make(**settings)
            network.load_state_dict(state)
            return network

        MODELS[make.__name__] = Model(constructor, input, source, errors, variants or {})
        return constructor

    return register


def undrawn(build):
    """For a network's __init__: its layers are made without random numbers, then its own init_weights() draws each weight once.

    init_weights=False, as in torchvision, leaves every layer with what layers start with.
    """

    @functools.wraps(build)
    def __init__(self, *args, init_weights=True, **settings):  # noqa: N807 - it takes the place of one
        with init.skipped():
            build(self, *args, **settings)
        if init_weights or init_weights is None:
            self.init_weights()
        else:
            as_layers_start(self)

    return __init__


def as_layers_start(network):
    """Every layer starts as it does on its own."""
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def one_of(call, name, value, known):
    """Refuse a setting that is not one of the known ones."""
    if value not in known:
        raise explained(ArgumentError, call, f"there is no such {name}.", [f"{name}: {value!r}", f"known: {', '.join(map(repr, known))}"],
                        "Choose one of these.")
    return value
