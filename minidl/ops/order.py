"""Order statistics: sort, argsort, topk and median. Values carry a gradient to where they came from, positions none.

Equal elements keep their order: of two that are equal the one with the lower index comes first, also in descending
order. NaN counts as larger than every number.
"""

from collections import namedtuple

from minidl.backend.layout import stored
from minidl.core.device import array_module
from minidl.core.dtypes import int64
from minidl.core.errors import RangeError, ShapeError, explained
from minidl.core.examples import distinct
from minidl.core.op import as_array, example, op
from minidl.core.tensor import Tensor
from minidl.ops.axes import one_axis
from minidl.ops.reduce import ValuesAndIndices, extreme_backward
from minidl.ops.scatter import gather_grad

Sorted = namedtuple("Sorted", "values indices")


def order_of(array, axis, descending=False):
    """The positions that put an axis in order, equal elements in theirs."""
    xp = array_module(array)
    if not array.ndim:
        return xp.zeros((), int64)
    if not descending:
        return xp.argsort(array, axis, kind="stable").astype(int64, copy=False)
    positions = xp.flip(xp.argsort(xp.flip(array, axis), axis, kind="stable"), axis)  # flipped twice: equals keep their order
    return (array.shape[axis] - 1 - positions).astype(int64, copy=False)


def picked(x, positions, axis):
    """((values, positions), backward): the elements of x at these positions along an axis."""
    array, x_shape = x.array, x.shape
    values = stored(array_module(array).take_along_axis(array, positions, axis)) if array.ndim else array.copy()
    positions = stored(positions)

    def backward(grad_values, _):
        return gather_grad(grad_values, x_shape, axis, positions) if x_shape else grad_values

    return (values, positions), backward


@op("x", name="sort", examples=[example(distinct(5)), example(distinct(2, 3, 2), dim=1, descending=True),
                   example(distinct(2, 3, 2, 2), dim=0)],
    tex=r"y_k = x_{\pi(k)},\quad y_0 \le y_1 \le \ldots", non_differentiable=(1,))
def sort_along(x, dim=-1, descending=False, stable=True):
    """Put an axis in ascending order (or descending): what sort() calls. Equal elements keep their order, NaN is largest.

    Shapes:    x -> values and indices (int64), the same.
    Backward:  every element went to one place: grad_x[indices[k]] = grad_values[k].
    """
    axis = one_axis("sort", dim, x.ndim)
    return picked(x, order_of(x.array, axis, descending), axis)


def sort(input, dim=-1, descending=False, stable=False):
    """The pair (values, indices) that puts an axis in order. Always stable: equal elements keep their order."""
    return Sorted(*sort_along(input, dim=dim, descending=descending))


def argsort(input, dim=-1, descending=False, stable=False):
    """The positions that put an axis in order. Always stable: equal elements keep their order."""
    return sort(input.detach(), dim, descending).indices


@op("x", name="topk", examples=[example(distinct(5), 2), example(distinct(2, 3, 2), 2, dim=1, largest=False),
                   example(distinct(2, 3, 2, 2), 1, 0)],
    tex=r"y_k = x_{\pi(k)},\quad y_0 \ge y_1 \ge \ldots,\quad k < K", non_differentiable=(1,))
def topk_along(x, k, dim=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements of an axis, best first: what topk() calls. Of equal elements the first wins.

    Shapes:    x (.., N, ..) -> values and indices (int64), both (.., k, ..).
    Backward:  only the chosen ones move y: grad_x[indices[k]] = grad_values[k], 0 elsewhere.
    """
    axis = one_axis("topk", dim, x.ndim)
    size = x.shape[axis] if x.ndim else 1
    if not 0 <= k <= size:
        raise explained(RangeError, "topk", "k lies between 0 and the size of the axis.",
                        [f"k: {k}", f"x: {x.shape}, axis {axis} has size {size}"],
                        "Use sort() for all of them.")
    if not x.ndim:
        return picked(x, order_of(x.array, axis), axis)
    positions = order_of(x.array, axis, largest)
    return picked(x, positions[(slice(None),) * axis + (slice(k),)], axis)


def topk(input, k, dim=-1, largest=True, sorted=True):
    """The pair (values, indices) of the k largest (or smallest) elements of an axis, best first; of equal ones the first."""
    return ValuesAndIndices(*topk_along(input, k, dim=dim, largest=largest))


@op("x", examples=[example(distinct(5), 0), example(distinct(2, 4, 3), dim=1, keepdim=True)],
    tex=r"y = x_{\pi(\lfloor (n - 1) / 2 \rfloor)}", non_differentiable=(1,))
def median_along(x, dim, keepdim=False):
    """The middle element of an axis, the lower of the two for an even size: what median(x, dim) calls. NaN if there is one.

    Shapes:    x -> values and indices (int64), both without axis dim (size 1 with keepdim).
    Backward:  only the middle element moves y: grad_x[index] = grad_value, 0 elsewhere.
    """
    axis = one_axis("median", dim, x.ndim)
    if not x.ndim:
        return picked(x, order_of(x.array, axis), axis)
    (values, positions), backward = picked(x, middle(x.array, axis), axis)
    if keepdim:
        return (values, positions), backward

    def backward_without_axis(grad_values, _):
        return backward(grad_values.unsqueeze(axis), None)

    return (stored(values.squeeze(axis)), stored(positions.squeeze(axis))), backward_without_axis


def middle(array, axis):
    """The positions (size 1 along axis) of the lower median, or of the first NaN."""
    size, xp = array.shape[axis], array_module(array)
    if not size:
        raise explained(ShapeError, "median", "no elements have no middle.", [f"x: {array.shape}, axis {axis}"],
                        "Reduce over an axis that is not empty.")
    positions = order_of(array, axis)
    at = lambda k: positions[(slice(None),) * axis + (slice(k, k + 1),)]  # noqa: E731 - one place along the axis
    if array.dtype.kind != "f":
        return at((size - 1) // 2)
    numbers = size - xp.isnan(array).sum(axis, keepdims=True)  # NaN comes last: the first one stands after all numbers
    first_nan = xp.take_along_axis(positions, xp.minimum(numbers, size - 1), axis)
    return xp.where(numbers < size, first_nan, at((size - 1) // 2))


@op("x", examples=[example(distinct(5)), example(distinct(2, 3))], tex=r"y = x_{\pi(\lfloor (n - 1) / 2 \rfloor)}", uses_output=True)
def median_of_all(x):
    """The middle element of all, the lower of the two for an even number: what median(x) calls. NaN if there is one.

    Shapes:    x -> y ().
    Backward:  grad_y goes to the middle element, shared evenly among all that equal it.
    """
    flat = x.array.reshape(-1)
    if not flat.size:
        raise explained(ShapeError, "median", "no elements have no middle.", [f"x: {x.shape}"], "Check where the elements went.")
    return as_array(flat[middle(flat, 0)][0]), extreme_backward(x, tuple(range(x.ndim)))


def median(input, dim=None, keepdim=False):
    """median(x): the lower median of all elements. median(x, dim): a pair (values, indices) along one axis."""
    return median_of_all(input) if dim is None else ValuesAndIndices(*median_along(input, dim, keepdim))


for method in (argsort, median, sort, topk):
    setattr(Tensor, method.__name__, method)

__all__ = ["argsort", "median", "sort", "topk"]
