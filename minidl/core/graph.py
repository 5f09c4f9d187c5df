"""The graph, and THE backward algorithm: backward_steps(). Everything that goes backward consumes it.

A graph points backwards only, node to node: a Node knows the nodes (and leaves) its inputs came from, never a Tensor
in between, so an activation lives exactly as long as some formula names it.
"""

import heapq
import os
import sys
import threading

import numpy as np

from minidl.backend.layout import add_into, as_array, elementwise, is_stored_right
from minidl.core.config import STATE
from minidl.core.errors import GraphError, describe, explained
from minidl.core.guard import CLOCK, check_saved, written_since


class Node:
    """One executed op: how to go backward through it, and where its inputs came from."""

    __slots__ = ("op", "backward", "edges", "outputs", "age", "site", "saved_output", "cells", "__weakref__")

    def __init__(self, op, backward, edges, outputs, site, saved_output=None):
        self.op = op                      # the registered Op
        self.backward = backward          # the closure its forward returned; None once it has run and was freed
        self.edges = edges                # per input: (Node, output number), a leaf Tensor, or None (no gradient wanted)
        self.outputs = outputs            # per output: (shape, dtype)
        self.age = next(CLOCK)            # every node is younger than its inputs: age order is a topological order
        self.site = site                  # (code, instruction) of the line that called the op
        self.saved_output = saved_output  # the output array, for the ops whose gradient is a formula in y
        self.cells = None                 # {output number: Cell}, only where someone hooked a tensor

    def __repr__(self):
        return f"<Node {self.op.name} #{self.age}{'' if self.backward else ' (freed)'}>"

    def next_edges(self):
        """The edges that lead to other nodes."""
        return [edge for edge in self.edges if type(edge) is tuple]


class Cell:
    """What users attached to a tensor: hooks, and whether to keep its gradient. Shared by the tensor and its node."""

    __slots__ = ("hooks", "keeper", "__weakref__")

    def __init__(self):
        self.hooks = {}     # number -> function, called in order with the gradient
        self.keeper = None  # weak reference to the tensor whose .grad is to be kept

    def apply(self, grad):
        """Run the hooks on a gradient, then hand it to the tensor that asked to retain it."""
        for hook in tuple(self.hooks.values()):
            replacement = hook(grad)
            if replacement is None:
                continue
            if getattr(replacement, "array", None) is None or replacement.shape != grad.shape or replacement.dtype != grad.dtype:
                raise explained(GraphError, "register_hook", "a hook returns None or a gradient of the same shape and dtype.",
                                [f"gradient: {describe(grad)}", f"returned: {describe(replacement)}"],
                                "Return None to leave the gradient as it is.")
            grad = replacement
        tensor = self.keeper and self.keeper()
        if tensor is not None:
            tensor.grad = grad if grad.requires_grad else _copy(grad, None)
        return grad


class Step:
    """What one node did on the way back."""

    __slots__ = ("node", "edges", "grads_in", "grads_out", "sums")

    def __init__(self, node, edges, grads_in, grads_out, sums):
        self.node = node
        self.edges = edges          # the node's edges: it may have been freed since
        self.grads_in = grads_in    # one gradient per output of the op (None where none came)
        self.grads_out = grads_out  # one gradient per input of the op (None where none is wanted)
        self.sums = sums            # per input None or (sum before, sum after); with keep_sums both stay as they are


def newest_first(roots):
    """Every node reachable from these nodes, newest first: the order of a backward walk. No recursion."""
    seen, stack = set(roots), list(roots)
    while stack:
        for node, _ in stack.pop().next_edges():
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return sorted(seen, key=lambda node: -node.age)


def nodes_towards(targets, roots):
    """The nodes from which some target (a leaf, or a (node, output number)) can be reached."""
    towards = set()
    for node in reversed(newest_first(roots)):
        if any(edge in targets or type(edge) is tuple and edge[0] in towards for edge in node.edges if edge is not None):
            towards.add(node)
    return towards


def backward_steps(roots, grad_roots, create_graph=False, retain_graph=None, into=None, keep_sums=False):
    """Walk back from `roots` with the gradients `grad_roots`; yield a Step after every node.

    Pop the newest node, call its backward, add the results into its inputs' sums, free what can be freed. When the
    walk is done the leaves' sums are added to their .grad: never half of them. With `into`, a dict whose keys are
    leaves or (node, output number), the sums go there instead, only nodes on the way to those keys run, and no .grad
    changes. `keep_sums` keeps every partial sum, for those who watch.
    """
    retain_graph = create_graph if retain_graph is None else retain_graph
    towards = None if into is None else nodes_towards(into, [root.edge[0] for root in roots if root.edge])
    totals = {}  # edge -> the gradient that has arrived there so far
    own = None if create_graph or keep_sums else set()  # edges whose total is an array made here: the only ones added to in place
    queue = []   # a heap of (-age, node): every node that a gradient has reached
    for root, grad in zip(roots, grad_roots, strict=True):
        _arrive(root.edge or root, grad, totals, own, queue, root)
    while queue:
        node = heapq.heappop(queue)[1]
        if len(node.outputs) == 1:
            grads_in = [totals.pop((node, 0))]
        elif queue and queue[0][1] is node:
            continue  # reached through several of its outputs: all have arrived when the last entry is popped
        else:
            grads_in = [totals.pop((node, number), None) for number in range(len(node.outputs))]
        if node.cells:
            _apply_cells(node, grads_in)
        if into is not None:
            into.update({(node, k): grad for k, grad in enumerate(grads_in) if (node, k) in into})
            if node not in towards:
                continue
        grads_out = run_node(node, grads_in, create_graph)
        edges, sums = node.edges, []
        for edge, grad in zip(edges, grads_out):  # noqa: B905 - run_node checked the lengths
            sums.append(_arrive(edge, grad, totals, own, queue, node) if edge is not None and grad is not None else None)
        if not retain_graph:
            node.backward, node.edges, node.saved_output = None, (), None
        yield Step(node, edges, grads_in, grads_out, sums)
    grads_in = grads_out = grad = sums = None  # let go, so that a leaf can take its total without a copy
    _settle(totals, create_graph, into)


def _arrive(edge, grad, totals, own, queue, walking):
    """Add a gradient to the total of an edge; return the total before and after."""
    before = totals.get(edge)
    if before is None:
        total = grad
        if type(edge) is tuple:
            heapq.heappush(queue, (-edge[0].age, edge[0]))
    elif own is not None and (edge in own or _is_alone(before, others=1)):
        own.add(edge)  # `before` is held by the totals only: nobody sees it change
        add_into(before.array, grad.array)
        return before, before
    else:
        total = _plus(before, grad, walking)  # a new array: `before` is held by others
        if own is not None:
            own.add(edge)
    totals[edge] = total
    return before, total


def _plus(before, grad, walking):
    """The sum of two gradients in a new array."""
    if before.requires_grad or grad.requires_grad:
        return _in_graph(lambda: before + grad, walking)
    return type(before)(as_array(elementwise(np.add, before.array, grad.array)))


def _copy(grad, walking):
    """The same gradient in memory of its own."""
    if grad.requires_grad:
        return _in_graph(grad.clone, walking)
    return type(grad)(as_array(elementwise(np.positive, grad.array)))


def _in_graph(compute, walking):
    """The walk's own op on gradients that will be differentiated again: recorded, and not taken for one of the program's."""
    state, outside = vars(STATE), (STATE.recording, STATE.walking)
    state["recording"], state["walking"] = True, walking
    try:
        return compute()
    finally:
        state["recording"], state["walking"] = outside


def _apply_cells(node, grads_in):
    """Run the hooks of a node's outputs and keep the gradients that were asked to be kept."""
    for number, cell in node.cells.items():
        if grads_in[number] is not None:
            grads_in[number] = cell.apply(grads_in[number])


def run_node(node, grads_in, create_graph):
    """Call one node's backward and check what it returns: one gradient per input, each of its input's shape and dtype."""
    if node.backward is None:
        raise explained(
            GraphError, "backward", f"this graph was already walked and freed (at {node.op.name}).",
            ["a walk frees what each op saved as soon as its backward has run"],
            "Call the first backward with retain_graph=True, or run the forward again.")
    if written_since(node.age):
        check_saved(node)
    state = vars(STATE)  # this thread's own
    recording, walking = state.get("recording", True), state.get("walking")
    state["recording"], state["walking"] = create_graph, node
    try:
        grads_out = node.backward(*grads_in) if node.saved_output is None else node.backward(*grads_in, node.op.wrap_output(node))
        if type(grads_out) is not tuple:
            grads_out = (grads_out,)
        if len(grads_out) != len(node.edges):
            raise explained(
                GraphError, f"{node.op.name}.backward", "one gradient per tensor input, in order.",
                [f"inputs: {len(node.edges)} ({', '.join(node.op.tensors)})", f"gradients returned: {len(grads_out)}"],
                "Return None for an input that has no gradient.")
        kind = type(grads_in[0])  # Tensor; the graph does not know the class
        for edge, grad in zip(node.edges, grads_out):  # noqa: B905 - the lengths were just compared
            if edge is not None and grad is not None:
                shape, dtype = edge[0].outputs[edge[1]] if type(edge) is tuple else (edge.array.shape, edge.array.dtype)
                if type(grad) is not kind or grad.array.shape != shape or grad.array.dtype is not dtype:
                    return _fitted(node, grads_out)
        return grads_out
    finally:
        state["recording"], state["walking"] = recording, walking


def _fitted(node, grads_out):
    """The gradients in the dtypes of their tensors (mixed dtypes meet in one op); a wrong shape or type raises."""
    fitted = []
    for number, (edge, grad) in enumerate(zip(node.edges, grads_out, strict=True)):
        if edge is not None and grad is not None:
            shape, dtype = edge[0].outputs[edge[1]] if type(edge) is tuple else (edge.array.shape, edge.array.dtype)
            if getattr(grad, "array", None) is None or grad.array.shape != shape:
                raise _wrong_gradient(node, number, grad, shape)
            grad = grad.to(dtype)
        fitted.append(grad)
    return tuple(fitted)


def _wrong_gradient(node, number, grad, shape):
    name = node.op.input_name(number)
    if getattr(grad, "array", None) is None:
        return explained(GraphError, f"{node.op.name}.backward", f"grad_{name} must be a Tensor or None.",
                         [f"it is a {type(grad).__name__}"], "Inside backward work on Tensors: the graph of the gradient depends on it.")
    fix = f"Sum it over the broadcast axes: sum_to(grad_{name}, {shape})."
    if sorted(grad.shape) == sorted(shape):
        fix = "The sizes agree in another order: is it transposed?"
    return explained(GraphError, f"{node.op.name}.backward", f"grad_{name} must have the shape of {name}.",
                     [f"{name}: {shape}", f"grad_{name}: {grad.shape}"], fix)


_SETTLING = threading.Lock()  # walks of several threads may end at one leaf
if hasattr(os, "register_at_fork"):  # a forked child has nobody who would let go of it
    os.register_at_fork(before=_SETTLING.acquire, after_in_parent=_SETTLING.release, after_in_child=_SETTLING.release)


def _settle(totals, create_graph, into):
    """The end of a walk: hand every leaf its sum, all together."""
    leaves = [(leaf, leaf.cell.apply(grad) if leaf.cell else grad) for leaf, grad in totals.items()]
    totals.clear()
    if into is not None:
        into.update({leaf: grad for leaf, grad in leaves if leaf in into})
        return
    with _SETTLING:
        while leaves:
            leaf, grad = leaves.pop()
            if leaf._grad is None:
                leaf._grad = grad if not create_graph and _is_alone(grad) else _copy(grad, leaf)
            elif create_graph or not getattr(leaf._grad.array.flags, "writeable", True):  # CuPy has no such flag
                leaf._grad = _plus(leaf._grad, grad, leaf)
            else:
                add_into(leaf._grad.array, grad.array)


def _is_alone(grad, others=0):
    """May this gradient's array be written to: does nobody but the caller, and `others` that the caller knows, hold it or its memory?"""
    if not is_stored_right(grad.array) or not getattr(grad.array.flags, "writeable", True):  # CuPy has no such flag
        return False
    tensor, *arrays = references(grad)
    alone, *arrays_alone = _references_alone(grad)
    return tensor == alone + others and arrays == arrays_alone


def references(grad):
    """How many places hold this tensor, its array, and the array that owns the memory."""
    array = grad.array
    owner = array if array.base is None else array.base
    return sys.getrefcount(grad), sys.getrefcount(array), sys.getrefcount(owner)


def _references_alone(grad, counts={}):  # noqa: B006 - a cache
    """What _is_alone() sees of a tensor that only its caller holds.

    Measured on a fresh one, in the same kind of calls, so that no detail of CPython's counting is assumed.
    """
    is_view = grad.array.base is not None
    if is_view not in counts:
        array = np.empty((1, 1))
        grad = type(grad)(array.T if is_view else array)
        del array
        counts[is_view] = (lambda grad: references(grad))(grad)
    return counts[is_view]
