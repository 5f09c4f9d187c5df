"""Every message that minidl raises on purpose, in one table: the call, the type, the text."""

import numpy as np
import pytest

import minidl
from minidl.core import op as registry
from minidl.core.device import Device
from minidl.core.errors import ArgumentError, BackendError, DeviceError, DTypeError, GraphError, RangeError, ShapeError
from minidl.core.op import op

t, F = minidl.zeros, minidl.nn.functional


def leaf(*shape):
    return minidl.ones(*shape, requires_grad=True)


def backward_twice():
    y = (leaf(3) * leaf(3)).sum()
    y.backward()
    y.backward()


def leaf_with_bad_hook():
    x = leaf(2)
    x.register_hook(lambda grad: t(3))
    return x


class ElsewhereArray(np.ndarray):
    """Stands for an array on a GPU, where the machine has none."""


def mixed_devices(call=lambda here, there: here + there):
    from minidl.core import device
    there = minidl.Tensor(np.zeros((3, 3), np.float32).view(ElsewhereArray))
    original = device.device_of
    try:
        device.device_of = lambda array: Device("cuda:0") if isinstance(array, ElsewhereArray) else original(array)
        return call(t(3, 3), there)
    finally:
        device.device_of = original


def without_a_gpu():
    from minidl.core import device
    original = device.why_no_cuda
    try:
        device.why_no_cuda = lambda: "no NVIDIA driver: libcuda.so.1 cannot be loaded"
        return t(2).to("cuda")
    finally:
        device.why_no_cuda = original


def forced_backend():
    with minidl.use_backend("cpu/winograd"):
        return t(2, 3) @ t(3, 2)


def mine(gradients):
    """A user's op whose backward returns gradients(grad_y)."""
    try:
        @op("x weight", name="mine")
        def mine(x, weight):
            return x.array * 2, gradients

        mine(leaf(2, 3), leaf(2, 3)).backward(t(2, 3))
    finally:
        registry.OPS.pop("mine", None)


def my_forward(forward, tensors="x"):
    """Call a user's op with this forward."""
    try:
        return op(tensors, name="mine")(forward)(leaf(2, 3))
    finally:
        registry.OPS.pop("mine", None)


TABLE = [
    ('my_forward(lambda x: x.array * 2)', GraphError,
     ['mine: a forward returns (y, backward): an array (or a tuple of arrays), and a function.',
      'it returned: ndarray of shape (2, 3), float32',
      'Did you forget `return y, backward`?']),
    ('my_forward(lambda x: (x * 2, lambda grad_y: grad_y * 2))', GraphError,
     ['mine: a forward returns (y, backward): an array (or a tuple of arrays), and a function.',
      'it returned: Tensor of shape (2, 3), float32, function <lambda>',
      'Compute with x.array: y must be an array, not a Tensor.']),
    ('my_forward(lambda z: (z.array, None))', ArgumentError,
     ["@op('x'): the tensor arguments are the first parameters of the function, by name.",
      'parameters of mine: z',
      "Did you mean @op('z')?"]),
    ('bool(t(2))', GraphError,
     ['bool: only a tensor of one element is true or false.',
      'shape: (2,)',
      'Use x.any() or x.all().']),
    ('t(2, 3) + t(4, 3)', ShapeError,
     ['add: the shapes do not broadcast: axis -2 has sizes 2 and 4.',
      'argument 0: (2, 3)',
      'argument 1: (4, 3)',
      'Aligned from the right, two sizes must be equal or one of them 1. Did you mean unsqueeze() on one of them?']),
    ('t(2, 3) @ t(2, 3)', ShapeError,
     ['matmul: axis K disagrees.',
      'x axis 1 says K = 3',
      'other axis 0 says K = 2',
      'shapes: x (N, K) = (2, 3), other (K, M) = (2, 3)',
      'Did you mean other.mT (its last two axes exchanged)?']),
    ('t(2, 3) @ 2.0', DTypeError,
     ['matmul: both operands must have at least one axis.',
      'other: float 2.0',
      'To scale every element use x * y.']),
    ('t(2, 3).reshape(4, 2)', ShapeError,
     ['reshape: the number of elements must stay the same.',
      'x: (2, 3) has 6 elements',
      'wanted: (4, 2) has 8',
      'Did you mean to leave one size open with -1?']),
    ('t(2, 3).reshape(-1, -1)', ShapeError,
     ['reshape: sizes are not negative, and only one of them may be -1.',
      'shape: (-1, -1)',
      'Write -1 for one unknown size.']),
    ('t(2, 3).expand(4, 3)', ShapeError,
     ['expand: only axes of size 1, and new axes in front, can be repeated.',
      'x: (2, 3)',
      'sizes: (4, 3)',
      'Use -1 to keep a size; unsqueeze() makes an axis of size 1.']),
    ('t(2, 3).permute(0, 0)', ArgumentError,
     ['permute: an axis is named twice.',
      'dim: (0, 0) of 2 axes',
      'Name each axis once.']),
    ('t(2, 3).sum(2)', RangeError,
     ['sum: there is no axis 2.',
      'the tensor has 2 axes: -2 to 1 exist',
      'Count axes from 0, or from -1 at the end.']),
    ('t(2, 3).transpose(0, 5)', RangeError,
     ['transpose: there is no axis 5.',
      'the tensor has 2 axes: -2 to 1 exist',
      'Count axes from 0, or from -1 at the end.']),
    ('minidl.cat([t(2, 3), t(2, 4)])', ShapeError,
     ['cat: shapes must agree in every axis but axis 0, the one they are joined along.',
      'tensors[0]: (2, 3)',
      'tensors[1]: (2, 4)',
      'Did you mean another dim=?']),
    ('minidl.cat([t(2, 3), [1, 2]])', DTypeError,
     ['cat: tensors[1] must be a Tensor.',
      'it is list [1, 2]',
      'Did you mean minidl.tensor([1, 2])?']),
    ('minidl.stack([t(2, 3), t(2, 4)])', ShapeError,
     ['stack: all tensors must have one shape.',
      'tensors[0]: (2, 3)',
      'tensors[1]: (2, 4)',
      'Did you mean cat()? It joins along an axis that exists.']),
    ('t(2, 3).narrow(1, 2, 3)', RangeError,
     ['narrow: the stretch must lie inside the axis.',
      'x: (2, 3), axis 1 has size 3',
      'start 2, length 3',
      'start + length is at most the size.']),
    ('t(2, 3).split([1, 1], 1)', ShapeError,
     ['split: the sizes must add up to the size of axis 1.',
      'x: (2, 3), axis 1 has size 3',
      'sizes: [1, 1], together 2',
      'Change one of the sizes.']),
    ('t(2, 3)[2]', RangeError,
     ['x[...]: index 2 lies outside axis 0.',
      'x: (2, 3), axis 0 has size 2',
      'Indices go from -2 to 1.']),
    ('t(2, 3)[:, [0, 7]]', RangeError,
     ['x[...]: index 7 lies outside axis 1.',
      'x: (2, 3), axis 1 has size 3',
      'Indices go from -3 to 2.']),
    ('t(2, 3)[0, 0, 0]', RangeError,
     ["x[...]: an index names every axis at most once, and has at most one '...'.",
      'x: (2, 3), 2 axes',
      'the index names 3',
      'Drop the extra indices.']),
    ('t(2, 3)[:, ::-1]', ArgumentError,
     ['x[...]: the step of a slice must be positive.',
      'axis 1: ::-1',
      'Did you mean x.flip(1)?']),
    ('t(2, 3)[minidl.ones(3, 2) > 0]', ShapeError,
     ['x[...]: a mask must have the size of every axis it covers.',
      'x: (2, 3), axis 0 has size 2',
      'mask: (3, 2), axis 0 has size 3',
      'Compute the mask from x itself, as in x > 0.']),
    ('minidl.einsum("ij,jk->ik", t(2, 3), t(2, 3))', ShapeError,
     ['einsum: axis j disagrees.',
      'operand 0 axis 1 says j = 3',
      'operand 1 axis 0 says j = 2',
      "equation: 'ij,jk->ik', shapes (2, 3), (2, 3)",
      'Make the sizes called j equal.']),
    ('minidl.einsum("ij,jk", t(2, 3))', ArgumentError,
     ['einsum: one comma-separated part per operand.',
      "equation 'ij,jk' has 2",
      'operands: 1',
      'Add or drop an operand.']),
    ('F.pad(t(2, 3), (1,))', ArgumentError,
     ['pad: pad is a pair (before, after) per axis, for the last axes of x.',
      'pad: (1,), 1 numbers',
      'x: (2, 3), 2 axes',
      'Name the last axis first: (left, right, top, bottom).']),
    ('minidl.exp([1, 2])', DTypeError,
     ['exp: x must be a Tensor.',
      'it is list [1, 2]',
      'Did you mean minidl.tensor([1, 2])?']),
    ('t(2) + "a"', DTypeError,
     ['add: other must be a Tensor.',
      "it is str 'a'",
      'Did you mean minidl.tensor(...)?']),
    ('minidl.exp(t(2), speed=3)', DTypeError,
     ["exp: there is no argument 'speed'.",
      'arguments: x',
      'Check the spelling.']),
    ('minidl.tensor([1, 2]).mean()', DTypeError,
     ['mean: only floating point numbers have it.',
      'x: shape (2,), int64',
      'Convert it first: x.float().mean().']),
    ('minidl.tensor([1], dtype=minidl.uint8) + 300', DTypeError,
     ['add: 300 does not fit into uint8.',
      'range: 0 to 255',
      'Convert the tensor to a wider integer type first.']),
    ('minidl.tensor([1]) // 0', ArgumentError,
     ['div: integers cannot be divided by 0.',
      'dtype: int64',
      'a divisor is 0',
      'Convert to floats to get inf or NaN, or mask the zeros.']),
    ('minidl.tensor([1, 2]).requires_grad_()', DTypeError,
     ['requires_grad_: only floating point tensors can have a gradient.',
      'dtype: int64',
      'Convert it first: x.float().requires_grad_().']),
    ('minidl.tensor([1, 2], requires_grad=True)', DTypeError,
     ['requires_grad_: only floating point tensors can have a gradient.',
      'dtype: int64',
      'Convert it first: x.float().requires_grad_().']),
    ('minidl.tensor([[1, 2], [3]])', ShapeError,
     ['tensor: nested lists must have equal lengths.',
      'got list [[1, 2], [3]]',
      'Every row needs as many numbers as the first one.']),
    ('t(2).to("float31")', DTypeError,
     ['dtype: float31 is not an element type of minidl.',
      'it has: bool, uint8, int8, int16, int32, int64, float16, float32, float64',
      'Convert to one of these first.']),
    ('minidl.tensor(np.zeros(2, complex))', DTypeError,
     ['tensor: complex128 is not an element type of minidl.',
      'it has: bool, uint8, int8, int16, int32, int64, float16, float32, float64',
      'Convert the array first, as in array.astype(np.float32).']),
    ('(leaf(2, 3) * 2).backward()', GraphError,
     ['backward: backward starts from one number.',
      'this tensor has 6 elements, shape (2, 3)',
      'Reduce it to a loss first, as in y.sum() or y.mean(), or pass gradient= of the same shape.']),
    ('t(2).sum().backward()', GraphError,
     ['backward: nothing to differentiate: no input of this tensor requires grad.',
      'tensor: shape (), float32',
      'Make the parameters with requires_grad=True, and compute outside of no_grad().']),
    ('backward_twice()', GraphError,
     ['backward: this graph was already walked and freed (at sum).',
      'a walk frees what each op saved as soon as its backward has run',
      'Call the first backward with retain_graph=True, or run the forward again.']),
    ('(leaf(2, 3) * 2).backward(t(3))', ShapeError,
     ['backward: the starting gradient must have the shape of the tensor.',
      'tensor: (2, 3)',
      'gradient: (3,)',
      'Pass one number per element of the tensor.']),
    ('(leaf(2, 3) * 2).sum().backward(1.0)', DTypeError,
     ['backward: the starting gradient must be a Tensor.',
      'it is a float',
      'Wrap it in minidl.tensor(...).']),
    ('minidl.autograd.grad((leaf(2) * 2).sum(), leaf(2))', GraphError,
     ['grad: no path leads from the outputs back to input 0.',
      'input 0: shape (2,)',
      'Was it used, and not detached? allow_unused=True gives None instead of this error.']),
    ('minidl.autograd.grad((leaf(2) * 2).sum(), t(2))', GraphError,
     ['grad: input 0 does not require grad.',
      'shape: (2,), float32',
      'Call x.requires_grad_() before computing the outputs.']),
    ('leaf(2, 3).fill_(0)', GraphError,
     ['fill_: writing into a tensor is not recorded, so its gradient would be wrong.',
      'tensor: shape (2, 3), a leaf that requires grad',
      'Write inside `with minidl.no_grad():`, or compute a new tensor with where(), cat() or pad().']),
    ('leaf(2, 3).__iadd__(1)', GraphError,
     ['+=: writing into a tensor is not recorded, so its gradient would be wrong.',
      'tensor: shape (2, 3), a leaf that requires grad',
      'Write inside `with minidl.no_grad():`, or compute a new tensor with where(), cat() or pad().']),
    ('t(2).__iadd__(t(3, 2))', DTypeError,
     ['+=: the result must fit into the tensor it is written to.',
      'tensor: (2,), float32',
      'result: (3, 2), float32',
      'Compute a new tensor instead, as in x = x + y.']),
    ('t(2, 3).__setitem__((5, 0), 1)', RangeError,
     ['x[...]: index 5 lies outside axis 0.',
      'x: (2, 3), axis 0 has size 2',
      'Indices go from -2 to 1.']),
    ('leaf(2, 3).numpy()', GraphError,
     ['numpy: a tensor that requires grad does not hand out its array.',
      'a NumPy array carries no graph',
      'Use x.detach().numpy().']),
    ('(leaf(2) * 2).requires_grad_(False)', GraphError,
     ['requires_grad_: a computed tensor cannot forget that it has a history.',
      'made by: mul',
      'Use x.detach().']),
    ('t(2, 3).item()', GraphError,
     ['item: only a tensor of one element has a single value.',
      'shape: (2, 3)',
      'Reduce it first, as in x.sum().item(), or use x.tolist().']),
    ('len(t())', DTypeError,
     ['len: a 0-d tensor has no length.',
      'shape: ()',
      'Use x.item() for its value.']),
    ('list(t())', DTypeError,
     ['iter: a 0-d tensor cannot be iterated over.',
      'shape: ()',
      'Use x.item() for its value.']),
    ('t(2).register_hook(print)', GraphError,
     ['register_hook: this tensor does not require grad, so no gradient will come.',
      'shape: (2,)',
      'Call requires_grad_() first.']),
    ('leaf(2).register_hook(lambda g: t(3)) and (leaf_with_bad_hook() * 2).sum().backward()', GraphError,
     ['register_hook: a hook returns None or a gradient of the same shape and dtype.',
      'gradient: Tensor of shape (2,), float32',
      'returned: Tensor of shape (3,), float32',
      'Return None to leave the gradient as it is.']),
    ('F.cross_entropy(t(2, 3), minidl.tensor([0, 3]))', RangeError,
     ['cross_entropy: a label must lie between 0 and C − 1 = 2.',
      'target[1] = 3',
      'classes: C = 3',
      'ignore_index: -100',
      'Do the labels start at 1? Then pass target - 1.']),
    ('F.cross_entropy(t(2, 3), minidl.tensor([0.0, 1.0]))', DTypeError,
     ['cross_entropy: class labels are whole numbers.',
      'x: (2, 3), float32',
      'target: (2,), float32',
      'Convert them: target.long(). A target of floats holds a share for every class, shape (2, 3).']),
    ('F.cross_entropy(t(2, 3), minidl.tensor([0, 1, 2]))', ShapeError,
     ['cross_entropy: the target has one label per row of scores.',
      'x: (2, 3), float32',
      'target: (3,), int64',
      'expected target: (2,)',
      'x is (N, C) or (N, C, d1, ...), target (N) or (N, d1, ...).']),
    ('F.cross_entropy(t(2, 3), minidl.tensor([0, 1]), label_smoothing=1.5)', ArgumentError,
     ['cross_entropy: label_smoothing is a share between 0 and 1.',
      'label_smoothing: 1.5',
      '0.1 is usual.']),
    ('F.mse_loss(t(2, 3), t(2, 4))', ShapeError,
     ['mse_loss: x and target must have one shape.',
      'x: (2, 3)',
      'target: (2, 4)',
      'Broadcasting them is nearly always a mistake. Did you mean target.unsqueeze(1), or x.squeeze(1)?']),
    ('F.mse_loss(t(2, 3), t(2, 3), reduction="avg")', ArgumentError,
     ["mse_loss: 'avg' is not a reduction.",
      "reductions: 'mean', 'sum', 'none'",
      'Check the spelling.']),
    ('mixed_devices()', DeviceError,
     ['add: the tensors must be on one device.',
      'x: cpu, shape (3, 3)',
      'other: cuda:0, shape (3, 3)',
      "Move x to cuda:0: x.to('cuda:0')."]),
    ('without_a_gpu()', DeviceError,
     ["device('cuda'): there is no usable GPU.",
      'no NVIDIA driver: libcuda.so.1 cannot be loaded',
      "Use device='cpu'; `minidl doctor` shows every check."]),
    ('t(2, device="gpu")', DeviceError,
     ["device: 'gpu' is not a device.",
      "devices: 'cpu', 'cuda', 'cuda:0', 'cuda:1', ...",
      "Use 'cpu' or 'cuda'."]),
    ('forced_backend()', BackendError,
     ['matmul: no implementation named cpu/winograd can do this call.',
      'matmul has: cpu/sliced, generic, reference',
      'Leave use_backend() out to let minidl choose.']),
    ('minidl.use_tf32(3)', ArgumentError,
     ["use_tf32: it takes True, False or '3x'.",
      'it got int 3',
      "use_tf32() for the tensor cores as they are, use_tf32('3x') to keep float32's precision."]),
    ('mine(lambda g: (g,))', GraphError,
     ['mine.backward: one gradient per tensor input, in order.',
      'inputs: 2 (x, weight)',
      'gradients returned: 1',
      'Return None for an input that has no gradient.']),
    ('mine(lambda g: (g.sum(), None))', GraphError,
     ['mine.backward: grad_x must have the shape of x.',
      'x: (2, 3)',
      'grad_x: ()',
      'Sum it over the broadcast axes: sum_to(grad_x, (2, 3)).']),
    ('mine(lambda g: (None, g.transpose(0, 1)))', GraphError,
     ['mine.backward: grad_weight must have the shape of weight.',
      'weight: (2, 3)',
      'grad_weight: (3, 2)',
      'The sizes agree in another order: is it transposed?']),
    ('mine(lambda g: (g.array, None))', GraphError,
     ['mine.backward: grad_x must be a Tensor or None.',
      'it is a ndarray',
      'Inside backward work on Tensors: the graph of the gradient depends on it.']),
]


@pytest.mark.parametrize("call, kind, lines", TABLE, ids=[row[0][:50] for row in TABLE])
def test_what_the_message_says(call, kind, lines):
    with pytest.raises(kind) as caught:
        eval(call)  # the calls stand in the table as people would type them
    assert str(caught.value) == "\n    ".join(lines)
    assert type(caught.value) is kind


@pytest.mark.parametrize("call", [
    lambda here, there: here - there, lambda here, there: there * here, lambda here, there: here @ there, lambda here, there: here > there,
    lambda here, there: minidl.cat([here, there]), lambda here, there: minidl.stack([here, there]),
    lambda here, there: minidl.where(here > 0, here, there), lambda here, there: minidl.maximum(here, there),
    lambda here, there: minidl.einsum("ij,jk->ik", here, there), lambda here, there: F.mse_loss(here, there),
    lambda here, there: F.cross_entropy(here, there), lambda here, there: F.linear(here, there),
    lambda here, there: minidl.masked_fill(here, there > 0, 1.0),
    lambda here, there: F.conv2d(here[None, None], minidl.Tensor(there.array[None, None])),
])
def test_every_op_of_two_tensors_names_mixed_devices(call):
    with pytest.raises(DeviceError, match="the tensors must be on one device"):
        mixed_devices(call)


def test_every_message_has_its_parts():
    for call, _, (head, *facts) in TABLE:
        name, _, rule = head.partition(": ")
        assert name and rule, call    # what you called: the rule
        assert rule.endswith("."), call
        assert len(facts) >= 2, call                                             # at least one fact, and the fix
        assert facts[-1].endswith((".", "?")), call
