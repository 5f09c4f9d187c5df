"""Nested states as tensors by name and a few lines of JSON, and back: what files.py writes of a checkpoint.

    {"epoch": 3, "optimizer": {"state": {0: {"step": 1.0, "exp_avg": t}}}}
    tensors  {"optimizer.state.0.exp_avg": t}
    tree     {"dict": [["epoch", 3], ["optimizer", {"dict": [["state", ...]]}]]}, with {"tensor": name} where a tensor stands
"""

import math

import numpy as np

from minidl.core.errors import ArgumentError, DTypeError, describe, explained
from minidl.core.tensor import Tensor

DEEPEST = 100  # so many dictionaries and lists inside each other; one that holds itself has no end


def is_flat(state):
    """Is it {name: tensor, array or number}, which needs no tree?"""
    return all(isinstance(name, str) and isinstance(value, (Tensor, np.ndarray, int, float, np.generic)) for name, value in state.items())


def flatten(state):
    """(tree, {dotted name: tensor or array}) of dictionaries, lists, tuples, tensors, numbers, strings and None."""
    tensors = {}
    return _described(state, "", tensors, DEEPEST), tensors


def _described(value, path, tensors, room):
    """The JSON for one value; tensors in it are put into `tensors`."""
    if room == 0:
        raise explained(ArgumentError, "minidl.save", f"a state holds at most {DEEPEST} dictionaries and lists inside each other.",
                        [f"at: {path[:60]}..."], "Does one of them hold itself?")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (Tensor, np.ndarray)):
        name = path
        while name in tensors:  # {"a": {"b": t}} and {"a.b": t}
            name += "~"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_key(key, path), _described(inner, f"{path}.{key}" if path else str(key), tensors, room - 1)]
                         for key, inner in value.items()]}
    if isinstance(value, (list, tuple)):
        inside = [_described(inner, f"{path}.{k}", tensors, room - 1) for k, inner in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": inside}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # JSON has no word for it
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise explained(DTypeError, "minidl.save", "a state holds tensors, arrays, numbers, strings, None, and dictionaries and lists of them.",
                    [f"{path}: {describe(value)}"], "Leave it out, or save what can rebuild it.")


def _key(key, path):
    if type(key) in (str, int):
        return key
    raise explained(DTypeError, "minidl.save", "every key must be a string or an integer.",
                    [f"{path or 'the dictionary'}: {describe(key)}"],
                    "Did you mean model.state_dict(), optimizer.state_dict()?")


def unflatten(tree, tensors):
    """The nested state again; ValueError where the tree and the tensors do not belong together."""
    left = dict(tensors)
    state = _rebuilt(tree, left)
    if left or not isinstance(state, dict):
        raise ValueError(f"the tree names {len(tensors) - len(left)} of {len(tensors)} tensors")
    return state


def _rebuilt(value, left):
    """One value from its JSON; the tensors it names are taken out of `left`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind, inside = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)
    if kind == "tensor" and isinstance(inside, str) and inside in left:
        return left.pop(inside)
    if kind == "float" and inside in ("inf", "-inf", "nan"):
        return float(inside)
    if kind in ("list", "tuple") and isinstance(inside, list):
        return (list if kind == "list" else tuple)(_rebuilt(inner, left) for inner in inside)
    if kind == "dict" and isinstance(inside, list) and all(
            isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (str, int) for pair in inside):
        found = {key: _rebuilt(inner, left) for key, inner in inside}
        if len(found) == len(inside):
            return found
    raise ValueError("the tree holds something that is no part of a state")
