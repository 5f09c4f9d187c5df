"""Mistakes in ops that move elements: indices, shifts, orders of axes, what was repeated, what was joined."""

from minidl.core.examples import normal
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.ops import cat, flip, pad
from minidl.planted.arithmetic import first_along_broadcast_axes
from minidl.planted.plant import mistake


@mistake("getitem", guess="= for += ?", examples=[example(normal(4, 3), ([0, 2, 0],))])
def assignment_for_addition(right, a):
    """grad_x[index] = grad_y instead of grad_x[index] += grad_y.

    A row that was taken twice gets the gradient of one of the two. Embeddings see it whenever a word occurs twice.
    """
    def backward(grad_y):
        grad_x = Tensor(a.x.array * 0)
        grad_x.array[a.index] = grad_y.array
        return grad_x

    return backward


@mistake("getitem", guess="= for += ?", examples=[example(normal(4, 3), ([0, 2, 0],))])
def unbuffered_addition(right, a):
    """grad_x[index] += grad_y, which NumPy reads once per element.

    It looks like a scatter-add and is none: duplicates are lost all the same. np.add.at is the right one.
    """
    def backward(grad_y):
        grad_x = Tensor(a.x.array * 0)
        grad_x.array[a.index] += grad_y.array
        return grad_x

    return backward


@mistake("narrow", guess="shifted by one")
def stretch_put_back_one_too_early(right, a):
    """The gradient of a stretch is put back one place in front of where it came from.

    Off by one in start.
    """
    def backward(grad_y):
        axis = a.dim % a.x.ndim
        front = (0, 0) * (a.x.ndim - 1 - axis)
        return pad(grad_y, (*front, a.start - 1, a.x.shape[axis] - a.length - a.start + 1))

    return backward


@mistake("pad", guess="shifted by one", examples=[example(normal(2, 3), (1, 2))])
def rim_cut_on_the_wrong_side(right, a):
    """before and after are exchanged when the rim is cut off again.

    (1, 2) back is (−1, −2), not (−2, −1); with symmetric padding it makes no difference.
    """
    def backward(grad_y):
        before, after = a.pad
        return pad(grad_y, (-after, -before))

    return backward


@mistake("flip", guess="flipped along axis")
def flip_not_undone(right, a):
    """The gradient is not reversed again.

    "A flip has no slope."
    """
    def backward(grad_y):
        return grad_y

    return backward


@mistake("permute", guess="transposed", examples=[example(normal(3, 3, 3), (2, 0, 1))])
def permutation_for_its_inverse(right, a):
    """The gradient is permuted with dims again instead of with their inverse.

    For two axes both are the same, and for equal sizes the shape does not tell.
    """
    def backward(grad_y):
        return grad_y.permute(a.dims)

    return backward


@mistake("reshape", examples=[example(normal(2, 3, 4), (4, 6))])
def reshaped_column_by_column(right, a):
    """The gradient is put back in column-major order.

    .T somewhere before a reshape, or an array of a library that counts the other way.
    """
    def backward(grad_y):
        return Tensor(grad_y.array.reshape(a.x.shape, order="F"))

    return backward


@mistake("transpose", guess="transposed", examples=[example(normal(3, 3), 0, 1)])
def transpose_not_undone(right, a):
    """The gradient is not transposed back.

    A square matrix has the right shape either way.
    """
    def backward(grad_y):
        return grad_y

    return backward


@mistake("expand", guess="missing sum over the broadcast axis")
def repeated_elements_not_summed(right, a):
    """Of all places where an element was repeated only the first one counts.

    The opposite of repeating looks like picking one; it is adding up.
    """
    def backward(grad_y):
        return first_along_broadcast_axes(grad_y, a.x.shape)

    return backward


@mistake("cat", guess="swapped", examples=[example([normal(2, 3), normal(2, 3)])])
def cat_gradients_in_swapped_order(right, a):
    """Each of two joined tensors gets the other one's stretch.

    A list that was built backwards, as backward passes are.
    """
    def backward(grad_y):
        return tuple(reversed(right(grad_y)))

    return backward


@mistake("cat", examples=[example([normal(2, 3), normal(3, 3)])])
def cat_starts_one_late(right, a):
    """Every stretch but the first begins one element too late.

    Running totals of the sizes, with the total before and the total after mixed up.
    """
    def backward(grad_y):
        first, *rest = right(grad_y)
        return first, *(None if g is None else cat([g.narrow(a.dim, 1, g.shape[a.dim] - 1), g.narrow(a.dim, 0, 1)], a.dim) for g in rest)

    return backward


@mistake("stack", examples=[example([normal(3, 3), normal(3, 3), normal(3, 3)])])
def stack_along_another_axis(right, a):
    """Tensors stacked along axis 0 get back their slices of axis 1.

    dim was not passed on, and the sizes happen to agree.
    """
    def backward(grad_y):
        return tuple(grad_y.select(1, k) for k in range(len(a.tensors)))

    return backward


@mistake("stack", guess="swapped", examples=[example([normal(2, 3), normal(2, 3)])])
def closures_that_share_a_variable(right, a):
    """Every tensor gets the slice of the last one.

    Functions made in a loop look up the loop's variable when they are called, and by then the loop is over.
    """
    def backward(grad_y):
        slices = [lambda: grad_y.select(a.dim, k) for k in range(len(a.tensors))]  # noqa: B023 - the mistake itself
        return tuple(each() for each in slices)

    return backward


@mistake("flip", guess="shifted by one", examples=[example(normal(4), (0,))])
def flip_around_the_wrong_centre(right, a):
    """Element i comes from N − i instead of N − 1 − i.

    Counting from 1 where indices count from 0.
    """
    def backward(grad_y):
        back = flip(grad_y, a.dims)
        n = back.shape[0]
        return cat([back.narrow(0, n - 1, 1), back.narrow(0, 0, n - 1)])

    return backward
