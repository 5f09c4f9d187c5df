"""backward() and grad(): the two ways people start the walk in graph.py."""

import collections

from minidl.backend.layout import empty
from minidl.core.errors import DTypeError, GraphError, ShapeError, explained
from minidl.core.graph import backward_steps
from minidl.core.tensor import Tensor

WATCHERS = []  # generator functions through which the steps of every walk pass: watcher(steps) yields what it gets


def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None):
    """Add d(tensors)/d(leaf), weighted with grad_tensors, to the .grad of every leaf (or only of `inputs`)."""
    roots, grads = _roots("backward", tensors, grad_tensors)
    if inputs is None:
        walk(roots, grads, create_graph, retain_graph)
        return
    inputs = [inputs] if isinstance(inputs, Tensor) else list({id(x): x for x in inputs}.values())
    found = _collect(roots, grads, inputs, create_graph, retain_graph)
    for x, gradient in zip(inputs, found, strict=True):
        if gradient is not None:
            x.grad = gradient.clone() if x.grad is None else x.grad + gradient


def grad(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, allow_unused=False):
    """The gradients of `outputs` (weighted with grad_outputs) with respect to `inputs`, as a tuple; no .grad changes.

    An input that no path leads to is an error, or None with allow_unused=True.
    """
    roots, grads = _roots("grad", outputs, grad_outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for number, x in enumerate(inputs):
        if not x.requires_grad:
            raise explained(GraphError, "grad", f"input {number} does not require grad.", [f"shape: {x.shape}, {x.dtype}"],
                            "Call x.requires_grad_() before computing the outputs.")
    found = _collect(roots, grads, inputs, create_graph, retain_graph)
    if not allow_unused and None in [None if g is None else 1 for g in found]:
        number = next(k for k, g in enumerate(found) if g is None)
        raise explained(GraphError, "grad", f"no path leads from the outputs back to input {number}.",
                        [f"input {number}: shape {inputs[number].shape}"],
                        "Was it used, and not detached? allow_unused=True gives None instead of this error.")
    return tuple(found)


def walk(roots, grads, create_graph, retain_graph, into=None):
    """Run a walk to its end, holding none of its steps: a leaf takes its total without a copy if nobody else holds it.

    Those who watch get to keep every partial sum, and see an exception pass by too.
    """
    steps = backward_steps(roots, grads, create_graph, retain_graph, into, keep_sums=bool(WATCHERS))
    for watcher in WATCHERS:
        steps = watcher(steps)
    collections.deque(steps, maxlen=0)


def _collect(roots, grads, inputs, create_graph, retain_graph):
    into = {x.edge or x: None for x in inputs}
    walk(roots, grads, create_graph, retain_graph, into)
    return [into[x.edge or x] for x in inputs]


def _roots(call, tensors, gradients):
    """Check the tensors a walk starts from, and make the gradients it starts with: 1 for a scalar."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not isinstance(gradients, (list, tuple)):
        gradients = [gradients] * len(roots)
    result = []
    for root, gradient in zip(roots, gradients, strict=True):
        if not root.requires_grad:
            raise explained(
                GraphError, call, "nothing to differentiate: no input of this tensor requires grad.",
                [f"tensor: shape {root.shape}, {root.dtype}"],
                "Make the parameters with requires_grad=True, and compute outside of no_grad().")
        if gradient is None:
            if root.array.size != 1:
                raise explained(
                    GraphError, call, "backward starts from one number.",
                    [f"this tensor has {root.array.size} elements, shape {root.shape}"],
                    "Reduce it to a loss first, as in y.sum() or y.mean(), or pass gradient= of the same shape.")
            array = empty(root.shape, root.dtype, root.array)
            array.fill(1)
            gradient = Tensor(array)
        elif not isinstance(gradient, Tensor):
            raise explained(DTypeError, call, "the starting gradient must be a Tensor.", [f"it is a {type(gradient).__name__}"],
                            "Wrap it in minidl.tensor(...).")
        elif gradient.shape != root.shape:
            raise explained(ShapeError, call, "the starting gradient must have the shape of the tensor.",
                            [f"tensor: {root.shape}", f"gradient: {gradient.shape}"], "Pass one number per element of the tensor.")
        result.append(gradient if gradient.dtype == root.dtype else gradient.to(root.dtype))
    return roots, result


__all__ = ["backward", "grad"]
