"""state_dict() and load_state_dict(): what a module knows, as a flat dictionary from paths to tensors."""

from collections import namedtuple

import numpy as np

from minidl.core.config import no_grad
from minidl.core.device import move
from minidl.core.dtypes import is_floating
from minidl.core.errors import DTypeError, StateError, describe, explained
from minidl.core.tensor import Tensor
from minidl.core.writing import write
from minidl.nn.parameter import Parameter

SHOWN = 8  # names of one kind in an error message


class IncompatibleKeys(namedtuple("IncompatibleKeys", "missing_keys unexpected_keys")):
    """What load_state_dict() returns: the names that were in only one of the two."""

    __slots__ = ()

    def __repr__(self):
        return super().__repr__() if any(self) else "<All keys matched successfully>"


def own_state(module, prefix):
    """(path, holder dictionary, name) of every parameter and persistent buffer, in PyTorch's order."""
    for path, inner in module.named_modules(prefix=prefix, remove_duplicate=False):
        for holder, left_out in ((inner._parameters, ()), (inner._buffers, inner._non_persistent)):
            for name, tensor in holder.items():
                if tensor is not None and name not in left_out:
                    yield (f"{path}.{name}" if path else name), holder, name


def state_dict(module, prefix="", keep_vars=False):
    """{path: tensor}: detached, sharing memory; with keep_vars the parameters themselves."""
    found = own_state(module, prefix.removesuffix("."))
    return {path: holder[name] if keep_vars else holder[name].detach() for path, holder, name in found}


@no_grad()
def load_state_dict(module, given, strict=True, assign=False):
    """Check every name and shape, then write: either everything that fits is loaded, or nothing is."""
    given = {path: _as_array(path, value) for path, value in given.items()}
    own = {path: (holder, name) for path, holder, name in own_state(module, "")}
    missing = [path for path in own if path not in given]
    unexpected = [path for path in given if path not in own]
    misshapen = [path for path, (holder, name) in own.items() if path in given and holder[name].shape != given[path].shape]
    # Checkpoints from before PyTorch 0.4.1, and many converted ones, lack the counter that only momentum=None needs.
    required = [path for path in missing if path.rpartition(".")[2] != "num_batches_tracked"]
    if misshapen or strict and (required or unexpected):
        raise _mismatch(module, given, own, required if strict else [], unexpected if strict else [], misshapen)
    for path, (holder, name) in own.items():
        if path in given and assign:
            holder[name] = _assigned(holder[name], given[path])
        elif path in given:
            write(holder[name], "load_state_dict", Tensor(given[path]))
    return IncompatibleKeys(required, unexpected)


def _assigned(old, array):
    """A tensor around the given array itself, in the place of the old one."""
    return Parameter(Tensor(array), old.requires_grad and is_floating(array.dtype)) if isinstance(old, Parameter) else Tensor(array)


def _as_array(path, value):
    """The array of a Tensor, a NumPy array, or anything that converts to one, such as PyTorch's tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, (int, float, np.generic)) or hasattr(value, "__array__"):
        return np.asarray(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return move(value, "cpu")
    raise explained(DTypeError, "load_state_dict", "every value must be a Tensor or an array.", [f"{path}: {describe(value)}"],
                    "Is the state dict nested? Pass its inner part, as in checkpoint['model'] or checkpoint['state_dict'].")


def _mismatch(module, given, own, missing, unexpected, misshapen):
    """The error that lists what does not fit, and guesses why."""
    facts = [f"{len(own)} names in the model, {len(given)} in the state dict, {len(own.keys() & given.keys())} in both"]
    facts += _listed("missing (only in the model)", [f"{path} {own[path][0][own[path][1]].shape}" for path in missing])
    facts += _listed("unexpected (only in the state dict)", [f"{path} {given[path].shape}" for path in unexpected])
    facts += _listed("misshapen", [f"{path}: the model has {own[path][0][own[path][1]].shape}, the state dict {given[path].shape}"
                                   for path in misshapen])
    return explained(StateError, f"{type(module).__name__}.load_state_dict", "names and shapes must be the model's.", facts,
                     _guess(given, own, missing, unexpected, misshapen))


def _listed(title, lines):
    if not lines:
        return []
    more = [f"    ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"{title}:", *("    " + line for line in lines[:SHOWN]), *more]


def _guess(given, own, missing, unexpected, misshapen):
    """The likely fix: a prefix too many or too few, another number of classes, a part that is meant to differ."""
    first = unexpected[0].split(".")[0] + "." if unexpected else ""
    if first and missing and all(path.startswith(first) for path in given) and {path[len(first):] for path in given} >= set(missing):
        return f"Every name begins with {first!r}. Did you mean {{k.removeprefix({first!r}): v for k, v in state.items()}}?"
    first = missing[0].split(".")[0] + "." if missing else ""
    if first and unexpected and all(path.startswith(first) for path in own) and {first + path for path in given} >= set(missing):
        return f"The model puts {first!r} before every name. Did you mean model.{first[:-1]}.load_state_dict(...)?"
    if misshapen and not missing and not unexpected:
        return "Build the model with the same sizes (number of classes, channels), or leave these names out and pass strict=False."
    return "Is it the same architecture? strict=False loads the names that both have."
