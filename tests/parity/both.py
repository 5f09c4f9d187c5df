"""Run one line of code twice, with `torch` meaning PyTorch and with `torch` meaning minidl, and compare everything.

Outputs and their dtypes, gradients, and second-order gradients (in the inputs and in the cotangents).
"""

import importlib

import numpy as np
import torch

import minidl

TOLERANCE = 1e-10  # of the largest number in the same array: float64 rounding of short sums, with room


class Library:
    """One of the two, seen through the same few names."""

    def __init__(self, name, module, functional, make, number):
        self.name, self.module, self.functional, self.make, self.number = name, module, functional, make, number

    def evaluate(self, code, values):
        """The outputs of a line of code as a list of tensors."""
        result = eval(code, {"torch": self.module, "F": self.functional, "np": np}, dict(values))
        return list(result) if isinstance(result, (tuple, list)) else [result]


class Functional:
    """minidl.nn.functional, and the ops themselves for what it does not name."""

    def __getattr__(self, name):
        return getattr(importlib.import_module("minidl.nn.functional"), name, None) or getattr(minidl.ops, name)


def _torch_tensor(array, wants_grad):
    return torch.from_numpy(np.array(array, order="C")).requires_grad_(wants_grad)  # np.array: 0-d stays an array


def _minidl_tensor(array, wants_grad):
    return minidl.Tensor(array, wants_grad)


MINIDL = Library("minidl", minidl, Functional(), _minidl_tensor, lambda t: t.array)
TORCH = Library("torch", torch, torch.nn.functional, _torch_tensor, lambda t: t.numpy(force=True))


def wrap(library, value, leaves, wants_grad=True):
    """A value of a case for one library: arrays, also those inside lists and tuples, become tensors."""
    if isinstance(value, np.ndarray):
        tensor = library.make(value, wants_grad and value.dtype.kind == "f")
        if tensor.requires_grad:
            leaves.append(tensor)
        return tensor
    if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
        return type(value)(wrap(library, v, leaves, wants_grad) for v in value)
    return value


def results(library, run, values, orders, seed, inputs):
    """The outputs and all gradients as arrays under their names; None for a gradient that does not exist."""
    leaves, found = [], {}
    rng = np.random.default_rng(seed)
    outputs = run(library, [wrap(library, v, leaves, orders > 0 and k < inputs) for k, v in enumerate(values)])
    for k, y in enumerate(outputs):
        found[f"output {k}"] = library.number(y)
    smooth = [y for y in outputs if y.requires_grad]
    if not smooth or orders == 0:
        return found
    cotangents = [library.make(draw(rng, tuple(y.shape)), True) for y in smooth]
    grads = _grad(library, smooth, leaves, cotangents, orders > 1)
    for k, g in enumerate(grads):
        found[f"gradient of input {k}"] = None if g is None else library.number(g)
    again = [(g, library.make(draw(rng, tuple(x.shape)), False)) for g, x in zip(grads, leaves, strict=True)]
    again = [(g, c) for g, c in again if g is not None and g.requires_grad]
    if orders > 1:
        second = _grad(library, [g for g, _ in again], leaves + cotangents, [c for _, c in again], False) if again else [None] * 99
        for k, g in enumerate(second[:len(leaves) + len(cotangents)]):
            found[f"second gradient of input {k}"] = None if g is None else library.number(g)
    return found


def _grad(library, outputs, inputs, cotangents, create_graph):
    return library.module.autograd.grad(outputs, inputs, cotangents, create_graph=create_graph, allow_unused=True)


def compare(run, values, orders=2, seed=0, tolerance=TOLERANCE, inputs=99):
    """Assert that run(library, values) gives the same in both libraries; the first `inputs` values are differentiated."""
    before = [np.array(v) for v in _arrays(values)]
    ours = results(MINIDL, run, values, orders, seed, inputs)
    for was, now in zip(before, _arrays(values), strict=True):
        assert np.array_equal(was, now, equal_nan=now.dtype.kind == "f"), "minidl changed an input"
    theirs = results(TORCH, run, values, orders, seed, inputs)
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if a is None or b is None:  # "no path" and "zero everywhere" are one gradient
            zero = a if b is None else b
            assert zero is None or not zero.any(), f"{key}: minidl {a}, PyTorch {b}"
            continue
        assert a.shape == b.shape, f"{key}: minidl {a.shape}, PyTorch {b.shape}"
        assert a.dtype == b.dtype, f"{key}: minidl {a.dtype}, PyTorch {b.dtype}"
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0))) if b.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale if b.dtype.kind == "f" else 0, err_msg=f"{key}\n{values}")


def _arrays(values):
    for v in values:
        if isinstance(v, np.ndarray):
            yield v
        elif isinstance(v, (list, tuple)):
            yield from _arrays(v)


def draw(rng, shape, kind=""):
    """An array for one case. Kinds: normal, "+" positive, "t" with many ties and zeros, "i" int64, "b" bool, "f" float32."""
    if kind == "+":
        return np.asarray(rng.uniform(0.5, 2, shape))
    if kind == "t":
        return np.asarray(rng.integers(-2, 3, shape).astype(float))
    if kind == "i":
        return np.asarray(rng.integers(-3, 4, shape))
    if kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    return np.asarray(rng.standard_normal(shape)).astype("float32" if kind == "f" else "float64")


def check_line(code, arguments, orders=2, seed=0, tolerance=TOLERANCE):
    """Compare one line of code; arguments: name -> array or plain value."""
    names = list(arguments)

    def run(library, values):
        return library.evaluate(code, zip(names, values, strict=True))

    compare(run, list(arguments.values()), orders, seed, tolerance)
