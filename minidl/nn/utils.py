"""Tools for parameters and their gradients: clipping, and all parameters as one vector."""

import math

import numpy as np

from minidl.core.config import no_grad
from minidl.core.device import array_module
from minidl.core.dtypes import default_float
from minidl.core.errors import ArgumentError, GraphError, ShapeError, explained
from minidl.core.guard import lifted, written
from minidl.core.tensor import Tensor
from minidl.core.writing import write
from minidl.ops import cat


@no_grad()
def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients together so that their norm, as one vector, is at most max_norm; returns the norm before."""
    grads = _gradients(parameters)
    total = _total_norm(grads, float(norm_type))
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise explained(GraphError, "clip_grad_norm_", "the norm of the gradients is not finite.", [f"norm: {total.item()}"],
                        "minidl.detect_anomaly() names the op that made the first such number.")
    for grad in grads:  # no question to the device: it multiplies by 1 where nothing is to be clipped
        factor = (float(max_norm) / (total.array + 1e-6)).clip(None, 1.0).astype(grad.dtype)
        _overwrite(grad.array, "clip_grad_norm_", lambda array, factor=factor: array_module(array).multiply(array, factor, out=array))
    return total


def _total_norm(grads, norm_type):
    """The norm of all gradients together, a 0-d Tensor: the norm of their norms."""
    if not grads:
        return Tensor(np.zeros((), default_float))
    xp = array_module(grads[0].array)
    return Tensor(xp.asarray(_norm(xp, xp.stack([_norm(xp, grad.array, norm_type) for grad in grads]), norm_type)))


def _norm(xp, array, norm_type):
    """(Σ |a|^p)^(1/p); the largest |a| for p = ∞."""
    if norm_type == math.inf:
        return abs(array).max() if array.size else xp.zeros((), array.dtype)
    if norm_type == 2:
        return xp.sqrt(xp.square(array).sum())
    return (abs(array) ** norm_type).sum() ** (1 / norm_type)


@no_grad()
def clip_grad_value_(parameters, clip_value):
    """Cut every element of every gradient to between -clip_value and clip_value."""
    for grad in _gradients(parameters):
        _overwrite(grad.array, "clip_grad_value_", lambda array: array.clip(-float(clip_value), float(clip_value), out=array))


def _overwrite(array, call, change):
    """Let change(array) write into a gradient, and say so to the in-place guard."""
    with lifted(array):
        change(array)
    written(call, array)


def _gradients(parameters):
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [param.grad for param in parameters if param.grad is not None]


def parameters_to_vector(parameters):
    """All parameters as one vector, in order; differentiable."""
    parts = [param.reshape((-1,)) for param in parameters]
    if not parts:
        raise explained(ArgumentError, "parameters_to_vector", "there are no parameters.", [],
                        "Pass model.parameters(); a generator can be used once only.")
    return cat(parts)


@no_grad()
def vector_to_parameters(vec, parameters):
    """Write the elements of a vector into the parameters, in order: the opposite of parameters_to_vector."""
    parameters = list(parameters)
    count = sum(param.numel() for param in parameters)
    if vec.shape != (count,):
        raise explained(ShapeError, "vector_to_parameters", "the vector must hold one number per parameter element.",
                        [f"vector: shape {vec.shape}", f"parameters: {count} elements in {len(parameters)} tensors"],
                        "Make it with parameters_to_vector().")
    start = 0
    for param in parameters:
        write(param, "vector_to_parameters", vec[start:start + param.numel()].reshape(param.shape))
        start += param.numel()
