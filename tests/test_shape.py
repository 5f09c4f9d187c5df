"""Ops that only move elements: storage order, pieces of an axis, and what wrong sizes and axes say."""

import numpy as np
import pytest

import minidl
from minidl import ops
from minidl.backend.layout import is_stored_right, stored
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError

x = minidl.Tensor(np.arange(24.0).reshape(2, 3, 4))


def image():
    """A 4-D tensor stored channels-last, as every 4-D result of minidl is."""
    return minidl.Tensor(stored(np.arange(48.0).reshape(2, 3, 4, 2)))


def test_reshape_reads_channels_last_images_in_the_order_of_their_axes():
    assert image().flatten().tolist() == list(range(48))
    assert image().reshape(6, 8).array[5, 7] == 47
    assert is_stored_right(image().reshape(2, 3, 2, 4).array)


@pytest.mark.parametrize("make", [
    lambda: minidl.cat([image(), image()], 1), lambda: minidl.stack([x, x]), lambda: ops.pad(image(), (1, 1)), lambda: image()[:, [0, 2]],
])
def test_results_that_need_memory_are_stored_channels_last(make):
    assert is_stored_right(make().array)


def test_pieces_of_an_axis():
    assert [p.shape[2] for p in x.split(3, 2)] == [3, 1]
    assert [p.shape[2] for p in x.split([1, 0, 3], -1)] == [1, 0, 3]
    assert [p.shape[1] for p in x.chunk(2, 1)] == [2, 1]
    assert len(x.chunk(7, 2)) == 4
    assert [p.shape for p in minidl.unbind(x, 1)] == [(2, 4)] * 3
    assert minidl.cat(x.split(2, 1), 1).tolist() == x.tolist()


def test_a_view_of_a_leaf_gets_a_gradient_of_its_own():
    leaf = minidl.Tensor(np.ones((2, 1)), True)
    y = leaf.expand(2, 3)
    y.backward(minidl.Tensor(np.arange(6.0).reshape(2, 3)))
    assert leaf.grad.tolist() == [[3.0], [12.0]]
    leaf.grad.array[0] = 5  # writable: not a broadcast view


@pytest.mark.parametrize("call, kind, text", [
    (lambda: x.reshape(5, 5), ShapeError, """reshape: the number of elements must stay the same.
    x: (2, 3, 4) has 24 elements
    wanted: (5, 5) has 25
    Did you mean to leave one size open with -1?"""),
    (lambda: x.view(5, -1), ShapeError, """reshape: the number of elements must stay the same.
    x: (2, 3, 4) has 24 elements
    wanted: (5, -1) has a multiple of 5
    Did you mean to leave one size open with -1?"""),
    (lambda: x.view(-1, -1), ShapeError, """reshape: sizes are not negative, and only one of them may be -1.
    shape: (-1, -1)
    Write -1 for one unknown size."""),
    (lambda: x[:0].reshape(-1, 0), ShapeError, """reshape: -1 cannot be worked out beside a size of 0: any size would fit.
    x: (0, 3, 4)
    wanted: (-1, 0)
    Write the size instead of -1."""),
    (lambda: x.transpose(0, 3), RangeError, """transpose: there is no axis 3.
    the tensor has 3 axes: -3 to 2 exist
    Count axes from 0, or from -1 at the end."""),
    (lambda: x.unsqueeze("channel"), DTypeError, """unsqueeze: an axis is an integer.
    dim: str 'channel'
    Count axes from 0, or from -1 at the end."""),
    (lambda: x.permute(0, 1), ArgumentError, """permute: every axis must be named once.
    x has 3 axes, shape (2, 3, 4)
    dims: (0, 1)
    To exchange two axes use transpose()."""),
    (lambda: x.permute(0, 1, -2), ArgumentError, """permute: an axis is named twice.
    dim: (0, 1, -2) of 3 axes
    Name each axis once."""),
    (lambda: x.flatten(2, 1), ArgumentError, """flatten: start_dim must not come after end_dim.
    start_dim 2, end_dim 1, 3 axes
    Exchange the two."""),
    (lambda: x.expand(4, 3, 4), ShapeError, """expand: only axes of size 1, and new axes in front, can be repeated.
    x: (2, 3, 4)
    sizes: (4, 3, 4)
    Use -1 to keep a size; unsqueeze() makes an axis of size 1."""),
    (lambda: minidl.cat([x, x[:, :2]], 2), ShapeError, """cat: shapes must agree in every axis but axis 2, the one they are joined along.
    tensors[0]: (2, 3, 4)
    tensors[1]: (2, 2, 4)
    Did you mean another dim=?"""),
    (lambda: minidl.cat([]), ArgumentError, """cat: there must be at least one tensor.
    the list is empty
    Pass a list or tuple of tensors."""),
    (lambda: minidl.cat([x[0, 0, 0], x[0, 0, 0]]), ShapeError, """cat: 0-d tensors have no axis to be joined along.
    tensors[0]: ()
    Did you mean stack()? It makes a new axis."""),
    (lambda: minidl.stack([x, x[0]]), ShapeError, """stack: all tensors must have one shape.
    tensors[0]: (2, 3, 4)
    tensors[1]: (3, 4)
    Did you mean cat()? It joins along an axis that exists."""),
    (lambda: x.narrow(1, 2, 2), RangeError, """narrow: the stretch must lie inside the axis.
    x: (2, 3, 4), axis 1 has size 3
    start 2, length 2
    start + length is at most the size."""),
    (lambda: x.select(1, 3), RangeError, """select: index 3 lies outside axis 1.
    x: (2, 3, 4), axis 1 has size 3
    Indices go from -3 to 2."""),
    (lambda: x.split([1, 1], 1), ShapeError, """split: the sizes must add up to the size of axis 1.
    x: (2, 3, 4), axis 1 has size 3
    sizes: [1, 1], together 2
    Change one of the sizes."""),
    (lambda: x.split(0, 1), ArgumentError, """split: a piece must have at least one element, and x at least one axis.
    x: (2, 3, 4)
    size: 0
    Pass a size, or a list of sizes."""),
    (lambda: x.chunk(0), ArgumentError, """chunk: there must be at least one piece.
    chunks: 0
    Pass a positive number."""),
    (lambda: ops.pad(x, (1,)), ArgumentError, """pad: pad is a pair (before, after) per axis, for the last axes of x.
    pad: (1,), 1 numbers
    x: (2, 3, 4), 3 axes
    Name the last axis first: (left, right, top, bottom)."""),
    (lambda: ops.pad(x, (-3, -2)), ShapeError, """pad: axis 2 is shorter than what is to be cut off.
    x: (2, 3, 4)
    axis 2: size 4, pad (-3, -2)
    Negative numbers in pad cut off; use smaller ones."""),
    (lambda: ops.pad(x, (1, 1), mode="reflect"), ArgumentError, """pad: mode 'reflect' is not one of minidl's.
    modes: 'constant'
    Pad with constants, or build the rim with cat() and flip()."""),
])
def test_wrong_sizes_and_axes_say_what_is_wrong(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
