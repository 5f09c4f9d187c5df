"""state_dict() and load_state_dict(): what a module knows, as a flat dictionary from paths to tensors."""

from collections import namedtuple

import numpy as np

from minidl.core.config import no_grad
from minidl.core.device import move
from minidl.core.dtypes import DTYPES, is_floating
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
    """Check every name, shape and value, then write: either everything that fits is loaded, or nothing is."""
    call = f"{type(module).__name__}.load_state_dict"
    given = {path: _as_array(call, path, value) for path, value in _checked_names(call, given).items()}
    own = {path: (holder, name) for path, holder, name in own_state(module, "")}
    missing = [path for path in own if path not in given]
    unexpected = [path for path in given if path not in own]
    misshapen = [path for path, (holder, name) in own.items() if path in given and holder[name].shape != given[path].shape]
    # Checkpoints from before PyTorch 0.4.1, and many converted ones, lack the counter that only momentum=None needs.
    required = [path for path in missing if path.rpartition(".")[2] != "num_batches_tracked"]
    if misshapen or strict and (required or unexpected):
        raise _mismatch(module, given, own, required if strict else [], unexpected if strict else [], misshapen)
    fitting = {path: (_assigned if assign else _cast)(call, path, holder[name], given[path])
               for path, (holder, name) in own.items() if path in given}
    for path, value in fitting.items():  # nothing below can fail: the model is never left half loaded
        holder, name = own[path]
        if assign:
            holder[name] = value
        else:
            write(holder[name], "load_state_dict", Tensor(value))
    return IncompatibleKeys(required, unexpected)


def _checked_names(call, given):
    """The dictionary, if it is one from names to values."""
    if not hasattr(given, "items"):
        fix = "Did you mean load_state_dict(other.state_dict())?" if hasattr(given, "state_dict") else \
              "Load the file first: load_state_dict(minidl.load(path))."
        raise explained(DTypeError, call, "it takes a dictionary {name: tensor}.", [f"got {describe(given)}"], fix)
    for path in given:
        if not isinstance(path, str):
            raise explained(DTypeError, call, "every name must be a string.", [f"name: {describe(path)}"],
                            "Is it an optimiser's state? Load that with optimizer.load_state_dict(...).")
    return given


def _cast(call, path, old, array):
    """The array in the dtype of the old tensor, if that changes no value into another: rounding is fine, 1.5 → 1 or 1e300 → inf is not."""
    if array.dtype == old.dtype:
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(old.dtype)
        lost = np.isfinite(array) & ~np.isfinite(cast) if is_floating(old.dtype) else array != cast
    if bool(lost.any()):
        raise explained(DTypeError, call, "every value must fit into the element type of the model.",
                        [f"{path}: the model has {old.dtype}, the state dict {array.dtype}",
                         f"{int(lost.sum())} of {array.size} values do not fit, the first is {array[lost].reshape(-1)[0]}"],
                        "Was the file damaged, or does the name mean something else there? Nothing was loaded.")
    return cast


def _assigned(call, path, old, array):
    """A tensor around the given array itself, to stand in the place of the old one."""
    if array.dtype not in DTYPES or is_floating(array.dtype) != is_floating(old.dtype):
        raise explained(DTypeError, call, "assign=True takes over the given element type, so it must be of the model's kind.",
                        [f"{path}: the model has {old.dtype}, the state dict {array.dtype}"],
                        "Leave out assign=True, and the values are converted; or convert them first. Nothing was loaded.")
    return Parameter(Tensor(array), old.requires_grad) if isinstance(old, Parameter) else Tensor(array)


def _as_array(call, path, value):
    """The array of numbers of a Tensor, a NumPy array, or anything that converts to one, such as PyTorch's tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.array
    if type(value).__module__.partition(".")[0] == "cupy":
        return move(value, "cpu")
    if not isinstance(value, (int, float, np.generic)) and not hasattr(value, "__array__"):
        raise explained(DTypeError, call, "every value must be a Tensor or an array.", [f"{path}: {describe(value)}"],
                        "Is the state dict nested? Pass its inner part, as in checkpoint['model'] or checkpoint['state_dict'].")
    value = value.detach() if hasattr(value, "detach") else value  # PyTorch's parameters require grad
    value = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value  # float32 holds every bfloat16
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError, ValueError) as error:
        raise explained(DTypeError, call, "every value must convert to a NumPy array.",
                        [f"{path}: {describe(value)}", f"{type(error).__name__}: {error}"],
                        "Move it to the CPU and into float32 first, as in value.cpu().float().") from None
    if array.dtype.kind not in "biuf":
        raise explained(DTypeError, call, "every value must be an array of real numbers.", [f"{path}: {describe(array)}"],
                        "Leave it out, or convert it where the state dict was made. Nothing was loaded.")
    return array


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
