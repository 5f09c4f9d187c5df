"""What the layers share: settings that are stored, printed, and given to a function."""

from minidl.core.errors import ArgumentError, describe, explained
from minidl.nn.module import Module


class Configured(Module):
    """A layer that is nothing but settings: stores them under their names and prints them; `shown` says which and in what order."""

    shown = ()

    def __init__(self, **settings):
        super().__init__()
        for name, value in settings.items():
            setattr(self, name, value)

    def extra_repr(self):
        """name=value of every setting in `shown`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)


def tupled(value, count):
    """An int as a tuple of `count` of them; a tuple or list as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


def must_be_positive(call, **settings):
    """Sizes that a layer is built from."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < 1:
            raise explained(ArgumentError, call, f"{name} must be an integer of at least 1.", [f"{name}: {describe(value)}"],
                            "Check the order of the arguments.")
