"""What all families share: the table of models, `weights=` in every constructor, and weights that are drawn once.

A family is a file beside this one. Its networks are classes whose __init__ is marked @undrawn; its published sizes are
functions marked @published, which is what `minidl models` lists.
"""

import difflib
import functools

from minidl.core.errors import ArgumentError, explained
from minidl.nn import init

MODELS = {}    # name -> Model, in the order in which the families are imported
VARIANTS = {}  # the same for forms of them that have settings, and a name of their own


class Model:
    """One published network: how to build it, and what its paper says."""

    def __init__(self, name, make, settings, input, source, errors, base=None):
        self.name, self.make, self.settings = name, make, settings
        self.input = input        # the shape of what goes in, without the batch: (C, H, W)
        self.source = source      # the paper
        self.errors = errors      # published errors in %, top-1 / top-5 unless it says otherwise
        self.base = base          # of a variant: the name of the network it is one of

    def build(self, drawn=True, **settings):
        """The network; without random numbers if it is not to be `drawn`: for counting, or for loading a file."""
        if drawn:
            return self.make(**{**self.settings, **settings})
        with init.skipped():
            return self.make(**{**self.settings, **settings})


def published(input, source, errors="", variants=None, fit=None):
    """Register a constructor and give it `weights=`: a file that minidl.load() reads, with the names of its state dict.

    `variants` gives settings a name of their own, {"resnet50_paper": {"variant": "paper"}}; `input` among them is another input.
    `fit(state, settings)` may adapt a file and the settings to each other before the network is built: heads it lacks, say.
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

        name = make.__name__
        MODELS[name] = Model(name, constructor, {}, input, source, errors)
        for variant, settings in (variants or {}).items():
            own = {key: value for key, value in settings.items() if key != "input"}
            VARIANTS[variant] = Model(variant, constructor, own, settings.get("input", input), source, "", base=name)
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


def listed():
    """{name: Model} of every published network, each followed by its variants."""
    return {m.name: m for model in MODELS.values() for m in (model, *(v for v in VARIANTS.values() if v.base == model.name))}


def find(name, call="minidl.models"):
    """The Model of a name; a misspelt one is answered with the nearest."""
    if name not in MODELS and name not in VARIANTS:
        near = difflib.get_close_matches(name, [*MODELS, *VARIANTS], 3, 0.5)
        raise explained(ArgumentError, call, f"there is no model {name!r}.", [f"near: {', '.join(near)}"] if near else [],
                        "`minidl models` lists them all.")
    return MODELS.get(name) or VARIANTS[name]
