"""Products that sum over shared axes: matmul, and einsum, which names the axes with letters."""

from collections import Counter

import numpy as np

from minidl import backend
from minidl.core.device import array_module
from minidl.core.dtypes import result_type
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, describe, explained
from minidl.core.examples import normal
from minidl.core.op import example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import broadcast_shape, operands, same_device, sum_to

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@op("x other", examples=[example(normal(2, 3), normal(3, 4)), example(normal(3), normal(3, 2)),
                         example(normal(2, 1, 2, 3), normal(4, 3, 2)), example(normal(2, 4, 3), normal(3, 2))],
    tex=r"y_{nm} = \sum_k x_{nk}\, o_{km}", method=True)
def matmul(x, other):
    """Matrix product: y[n, m] = Σ_k x[n, k] · other[k, m]. More axes in front are a batch and broadcast.

    Shapes:    x (.., N, K),  other (.., K, M)  ->  y (.., N, M). A vector counts as a row on the left and as a column on
               the right, and its axis is gone from y.
    Backward:  x[n, k] meets other[k, m] in y[n, m]: grad_x = grad_y @ otherᵀ, grad_other = xᵀ @ grad_y, summed over the
               broadcast batch.
    """
    _match(x, other)
    y = backend.run("matmul", *operands("matmul", x, other))
    need_x, need_other = needs_grad(x, other)
    x_saved, other_saved = (x if need_other else None), (other if need_x else None)
    x_shape, other_shape = x.shape, other.shape

    def backward(grad_y):
        grad_y = _as_matrices(grad_y, x_shape, other_shape)                # (.., N, M)
        grad_x = grad_other = None
        if need_x:
            column = other_saved if len(other_shape) > 1 else other_saved.unsqueeze(1)
            grad_x = sum_to(matmul(grad_y, column.mT), x_shape if len(x_shape) > 1 else (1, *x_shape)).reshape(x_shape)
        if need_other:
            row = x_saved if len(x_shape) > 1 else x_saved.unsqueeze(0)
            if len(other_shape) == 2:  # one weight for a whole batch: the batch is only more rows
                row, grad_y = _rows(row), _rows(grad_y)
            grad_other = sum_to(matmul(row.mT, grad_y), other_shape if len(other_shape) > 1 else (*other_shape, 1)).reshape(other_shape)
        return grad_x, grad_other

    return y, backward


def _rows(x):
    """All axes but the last joined: (.., N, K) -> (rows, K)."""
    return x if x.ndim == 2 else x.flatten(0, -2)


def _as_matrices(grad_y, x_shape, other_shape):
    """Give the gradient the axes of size 1 that vectors stand for."""
    if len(other_shape) == 1:
        grad_y = grad_y.unsqueeze(-1)
    return grad_y.unsqueeze(-2) if len(x_shape) == 1 else grad_y


def _match(x, other):
    """Check the operands of a matrix product."""
    for name, t in (("x", x), ("other", other)):
        if not isinstance(t, Tensor) or t.ndim == 0:
            raise explained(ShapeError if isinstance(t, Tensor) else DTypeError, "matmul", "both operands must have at least one axis.",
                            [f"{name}: {describe(t)}"], "To scale every element use x * y.")
    k_axis = -2 if other.ndim > 1 else -1
    if x.shape[-1] != other.shape[k_axis]:
        raise explained(ShapeError, "matmul", "axis K disagrees.",
                        [f"x axis {x.ndim - 1} says K = {x.shape[-1]}", f"other axis {other.ndim + k_axis} says K = {other.shape[k_axis]}",
                         f"shapes: x {_named('N K', x.shape)}, other {_named('K M', other.shape)}"], _transposition(x.shape, other.shape))
    if x.ndim > 2 and other.ndim > 2:
        broadcast_shape("matmul", x.shape[:-2], other.shape[:-2])


def _named(letters, shape):
    """"(.., N, K) = (2, 4, 3)"."""
    letters = letters.split()
    kept = ["K"] if len(shape) == 1 else ([".."] if len(shape) > 2 else []) + letters
    return f"({', '.join(kept)}) = {shape}"


def _transposition(x_shape, other_shape):
    """Guess which operand was meant the other way round."""
    if len(other_shape) > 1 and other_shape[-1] == x_shape[-1]:
        return "Did you mean other.mT (its last two axes exchanged)?"
    if len(x_shape) > 1 and x_shape[-2] == other_shape[-2 if len(other_shape) > 1 else -1]:
        return "Did you mean x.mT (its last two axes exchanged)?"
    return "The last axis of x is summed against the second to last of other: make their sizes equal."


# --- einsum -----------------------------------------------------------------------------------------------------

def einsum(equation, *operands):
    """Name every axis with a letter, multiply, and sum over the letters missing from the output: einsum("nk,km->nm", x, w).

    `...` stands for any further axes, which broadcast; a letter twice in one operand takes its diagonal; without "->" the
    output has every letter that occurs once, in alphabetical order. The operands may come as one list.
    """
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    return einsum_of_list(list(tensors), equation)


@op("[operands]", name="einsum",
    examples=[example([normal(2, 3), normal(3, 4)], "ik,kj->ji"), example([normal(3, 3, 2)], "iij->ij"), example([normal(2, 3)], "ij->j"),
              example([normal(2, 1, 3), normal(4, 3, 2)], "...k,...km->...m")],
    tex=r"y_{\mathrm{out}} = \sum_{\mathrm{other\ letters}} \prod_k (x_k)_{\mathrm{letters}_k}")
def einsum_of_list(operands, equation):
    """Einstein's sum convention: multiply the operands, sum over the letters that are missing from the output.

    Shapes:    one letter per axis, as in "nk,km->nm": operands (N, K) and (K, M) -> y (N, M).
    Backward:  the sum is linear in each operand, and y[out] holds x_k[letters_k] times the rest: grad_x_k is the einsum of
               grad_y and the rest, from out to letters_k. A letter that only x_k has was summed alone: there the gradient
               repeats (times ones). A letter twice in x_k took a diagonal: the gradient is 0 off it (times an identity).
    """
    if not operands:
        raise explained(ArgumentError, "einsum", "there must be at least one operand.",
                        [f"equation: {equation!r}"], "Pass one tensor per comma part.")
    same_device("einsum", *operands)
    inputs, output, sizes = _parse(equation, [t.shape for t in operands])
    xp, dtype = array_module(operands[0].array), result_type(*(t.array for t in operands))
    arrays, terms = zip(*(_without_ones(t.array.astype(dtype, copy=False), letters, sizes)
                          for t, letters in zip(operands, inputs, strict=True)), strict=True)
    y = xp.einsum(f"{','.join(terms)}->{output}", *arrays, optimize=True)
    needs = [t.requires_grad for t in operands]
    saved = [t if any(needs[:k] + needs[k + 1:]) else None for k, t in enumerate(operands)]
    shapes = [t.shape for t in operands]

    def backward(grad_y):
        grads = []
        for k, need in enumerate(needs):
            rest = [(t, inputs[j]) for j, t in enumerate(saved) if j != k]
            grads.append(_gradient(grad_y, output, rest, inputs[k], shapes[k], sizes) if need else None)
        return tuple(grads)

    return y, backward


def _gradient(grad_y, output, rest, letters, shape, sizes):
    """The gradient of one operand: an einsum of grad_y, the other operands, and what its repeated and lonely letters need."""
    tensors, terms = [grad_y] + [t for t, _ in rest], [output] + [term for _, term in rest]
    target, constant = "", lambda array: Tensor(array_module(grad_y.array).asarray(array))
    free = iter(letter for letter in LETTERS if letter not in sizes)
    for axis, letter in enumerate(letters):
        if letter in target:  # the diagonal: this axis must equal the earlier one
            twin = next(free)
            tensors.append(constant(np.eye(sizes[letter], dtype=grad_y.dtype)))
            terms.append(letter + twin)
            target += twin
        elif shape[axis] != 1 or sizes[letter] == 1:
            if not _spans(letter, sizes[letter], tensors, terms):  # summed alone: the gradient repeats along it
                tensors.append(constant(np.ones(sizes[letter], grad_y.dtype)))
                terms.append(letter)
            target += letter
    return einsum_of_list(tensors, f"{','.join(terms)}->{target}").reshape(shape)


def _spans(letter, size, tensors, terms):
    """Does some tensor have this letter in its full size?"""
    return any(size == n and letter == own for t, term in zip(tensors, terms, strict=True) for n, own in zip(t.shape, term, strict=True))


def _without_ones(array, letters, sizes):
    """Drop the axes of size 1 that broadcast against a longer axis of the same letter."""
    kept = [k for k, letter in enumerate(letters) if array.shape[k] != 1 or sizes[letter] == 1]
    return array.reshape([array.shape[k] for k in kept]) if len(kept) < array.ndim else array, "".join(letters[k] for k in kept)


def _parse(equation, shapes):
    """(letters of every operand, letters of the output, size of every letter), with ... replaced by letters."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    used = left.replace("...", "").replace(",", "") + output.replace("...", "")
    if any(letter not in LETTERS for letter in used):
        bad = next(letter for letter in used if letter not in LETTERS)
        raise explained(ArgumentError, "einsum", f"{bad!r} is not a letter.",
                        [f"equation: {equation!r}"], "Write letters, commas, '...' and one '->'.")
    if len(inputs) != len(shapes):
        raise explained(ArgumentError, "einsum", "one comma-separated part per operand.",
                        [f"equation {equation!r} has {len(inputs)}", f"operands: {len(shapes)}"], "Add or drop an operand.")
    dots = [len(shape) - len(term.replace("...", "")) if "..." in term else 0 for term, shape in zip(inputs, shapes, strict=True)]
    spare = [letter for letter in LETTERS if letter not in used][:max([0, *dots])]
    for number, (term, shape, n) in enumerate(zip(inputs, shapes, dots, strict=True)):
        inputs[number] = term.replace("...", "".join(spare[len(spare) - n:]) if n > 0 else "")
        if len(inputs[number]) != len(shape):
            raise explained(ShapeError, "einsum", "one letter per axis.", [f"operand {number}: {term!r}, shape {shape}"],
                            "Use '...' for axes that need no letter.")
    count = Counter(letter for term in inputs for letter in term)
    if arrow:
        output = output.replace("...", "".join(spare))
    else:
        output = "".join(spare) + "".join(sorted(letter for letter, n in count.items() if n == 1 and letter not in spare))
    if any(letter not in count for letter in output) or len(set(output)) < len(output):
        raise explained(ArgumentError, "einsum", "the output names letters of the operands, each once.", [f"equation: {equation!r}"],
                        "To put a vector on a diagonal multiply by an identity matrix.")
    return inputs, output, _sizes(equation, inputs, shapes)


def _sizes(equation, inputs, shapes):
    """The size of every letter; an axis of size 1 broadcasts."""
    sizes, seen = {}, {}
    for number, (letters, shape) in enumerate(zip(inputs, shapes, strict=True)):
        for axis, (letter, n) in enumerate(zip(letters, shape, strict=True)):
            before = sizes.get(letter, 1)
            if n != before and 1 not in (n, before) or letter in letters[:axis] and n != shape[letters.index(letter)]:
                other = seen[letter]
                raise explained(ShapeError, "einsum", f"axis {letter} disagrees.",
                                [f"operand {other[0]} axis {other[1]} says {letter} = {other[2]}",
                                 f"operand {number} axis {axis} says {letter} = {n}",
                                 f"equation: {equation!r}, shapes {', '.join(map(str, shapes))}"], f"Make the sizes called {letter} equal.")
            if letter not in sizes or before == 1:
                sizes[letter], seen[letter] = n, (number, axis, n)
    return sizes


__all__ = ["einsum", "matmul"]
