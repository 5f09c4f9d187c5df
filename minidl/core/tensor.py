"""Tensor: an array, and where it came from. Every operation here is one line that calls an op in minidl/ops.

t.array is the raw NumPy or CuPy array; t.edge is (Node, output number) for a tensor an op made, None for a leaf.
"""

import weakref

import numpy as np

from minidl.core import show
from minidl.core.device import CPU, Device, device_of, move, on_cpu
from minidl.core.dtypes import DTYPES, as_dtype, is_floating
from minidl.core.errors import DTypeError, GraphError, describe, explained
from minidl.core.graph import Cell
from minidl.core.guard import written
from minidl.core.later import PENDING, settle
from minidl.core.rng import draw_normal, draw_uniform
from minidl.core.writing import augment, update, write

TENSORS = set()        # Tensor and its subclasses: asking a set is quicker than isinstance(), and ops ask often
QUICK = {int, float}   # those, and the numbers that an op of two tensors takes as they are


class Tensor:
    """An array that remembers how it was computed. Make one with minidl.tensor(...), not with this constructor."""

    __slots__ = ("array", "requires_grad", "edge", "_grad", "cell", "__weakref__")
    __array_ufunc__ = None  # so that `array * tensor` comes to __rmul__ here

    def __init_subclass__(cls):
        TENSORS.add(cls)
        QUICK.add(cls)

    def __init__(self, array, requires_grad=False, edge=None):
        self.array = array
        self.requires_grad = requires_grad
        self.edge = edge
        self._grad = None
        self.cell = None

    # --- what it is -------------------------------------------------------------------------------------------
    shape = property(lambda self: self.array.shape, doc="The size of every axis, as a tuple.")
    ndim = property(lambda self: self.array.ndim, doc="The number of axes.")
    dtype = property(lambda self: self.array.dtype, doc="The element type.")
    device = property(lambda self: device_of(self.array), doc="Where the array lives: cpu, cuda:0, ...")
    is_leaf = property(lambda self: self.edge is None, doc="True if no recorded op made it.")
    grad_fn = property(lambda self: self.edge and self.edge[0], doc="The Node of the op that made it, or None.")
    is_cuda = property(lambda self: not on_cpu(self.array), doc="Does it live on a GPU?")
    nbytes = property(lambda self: self.array.nbytes, doc="The bytes of its elements.")

    def size(self, dim=None):
        """The shape, or the size of one axis."""
        return self.array.shape if dim is None else self.array.shape[dim]

    def dim(self):
        """The number of axes."""
        return self.array.ndim

    def numel(self):
        """The number of elements."""
        return self.array.size

    nelement = numel

    def element_size(self):
        """The bytes of one element."""
        return self.array.itemsize

    def is_floating_point(self):
        """Is the element type a floating point type?"""
        return is_floating(self.array.dtype)

    def is_contiguous(self, **_):
        """True: storage order is minidl's own business, no op needs a particular one."""
        return True

    def contiguous(self, **_):
        """The tensor itself: every op accepts any storage order."""
        return self

    def __len__(self):
        if not self.array.ndim:
            raise explained(DTypeError, "len", "a 0-d tensor has no length.", ["shape: ()"], "Use x.item() for its value.")
        return self.array.shape[0]

    def __repr__(self):
        return show.tensor_repr(self)

    def _repr_html_(self):
        return show.tensor_html(self)

    def __iter__(self):
        if not self.array.ndim:
            raise explained(DTypeError, "iter", "a 0-d tensor cannot be iterated over.", ["shape: ()"], "Use x.item() for its value.")
        return (self[i] for i in range(self.array.shape[0]))

    __hash__ = object.__hash__

    # --- out of minidl ----------------------------------------------------------------------------------------
    def numpy(self):
        """The values as a C-contiguous NumPy array; shares memory where the storage order allows."""
        if self.requires_grad:
            raise explained(GraphError, "numpy", "a tensor that requires grad does not hand out its array.",
                            ["a NumPy array carries no graph"], "Use x.detach().numpy().")
        if PENDING:
            settle()
        return np.ascontiguousarray(move(self.array, CPU)).reshape(self.array.shape)

    def __array__(self, dtype=None, copy=None):
        array = self.numpy()
        array = array if dtype is None else array.astype(dtype)
        return array.copy() if copy else array

    def item(self):
        """The value of a one-element tensor as a Python number."""
        if self.array.size != 1:
            raise explained(GraphError, "item", "only a tensor of one element has a single value.", [f"shape: {self.shape}"],
                            "Reduce it first, as in x.sum().item(), or use x.tolist().")
        if PENDING:
            settle()
        return self.array.item()

    def tolist(self):
        """Nested Python lists of the values."""
        if PENDING:
            settle()
        return self.array.tolist()

    def __bool__(self):
        if self.array.size != 1:
            raise explained(GraphError, "bool", "only a tensor of one element is true or false.", [f"shape: {self.shape}"],
                            "Use x.any() or x.all().")
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    __index__ = __int__

    def __format__(self, spec):
        return format(self.item(), spec) if spec else repr(self)

    # --- the graph --------------------------------------------------------------------------------------------
    def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        """Add the gradient of this tensor to the .grad of every leaf it was computed from (or of `inputs`)."""
        derivative.backward(self, gradient, retain_graph, create_graph, inputs)

    def detach(self):
        """The same values without their history. Shares the array."""
        return Tensor(self.array)

    @property
    def data(self):
        """The same array as a tensor outside the graph; assigning to it replaces the array."""
        return Tensor(self.array)

    @data.setter
    def data(self, value):
        self.array = value.array
        written("x.data = ...", self.array)

    @property
    def grad(self):
        """The gradient that has arrived at this leaf so far, or None."""
        return self._grad

    @grad.setter
    def grad(self, value):
        if value is not None and (not isinstance(value, Tensor) or value.shape != self.shape or value.dtype != self.dtype):
            raise explained(GraphError, "x.grad = ...", "a gradient is None or a Tensor of its tensor's shape and dtype.",
                            [f"tensor: {describe(self)}", f"gradient: {describe(value)}"],
                            "Did you mean x.grad.copy_(...), or x.data = ...?")
        self._grad = value

    def requires_grad_(self, requires_grad=True):
        """Say whether gradients are wanted for this leaf; returns the tensor."""
        if requires_grad and not is_floating(self.array.dtype):
            raise explained(DTypeError, "requires_grad_", "only floating point tensors can have a gradient.",
                            [f"dtype: {self.dtype}"], "Convert it first: x.float().requires_grad_().")
        if not requires_grad and self.edge is not None:
            raise explained(GraphError, "requires_grad_", "a computed tensor cannot forget that it has a history.",
                            [f"made by: {self.edge[0].op.name}"], "Use x.detach().")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self):
        """Keep this tensor's gradient in .grad although it is not a leaf."""
        if self.edge is not None:
            self._cell().keeper = weakref.ref(self)

    def register_hook(self, hook):
        """Call hook(grad) when this tensor's gradient is complete; what it returns (if anything) replaces the gradient."""
        if not self.requires_grad:
            raise explained(GraphError, "register_hook", "this tensor does not require grad, so no gradient will come.",
                            [f"shape: {self.shape}"], "Call requires_grad_() first.")
        hooks = self._cell().hooks
        key = max(hooks, default=0) + 1
        hooks[key] = hook
        return HookHandle(hooks, key)

    def _cell(self):
        if self.cell is None and self.edge is not None:
            node, number = self.edge
            node.cells = node.cells or {}
            self.cell = node.cells.setdefault(number, Cell())
        elif self.cell is None:
            self.cell = Cell()
        return self.cell

    # --- writing in place: outside the graph only --------------------------------------------------------------
    def copy_(self, source, non_blocking=False):
        """Overwrite the values with those of `source` (broadcast, cast); returns the tensor."""
        return write(self, "copy_", source)

    def fill_(self, value):
        """Overwrite every element with one number; returns the tensor."""
        return write(self, "fill_", value)

    def zero_(self):
        """Overwrite every element with 0; returns the tensor."""
        return write(self, "zero_", 0)

    def normal_(self, mean=0.0, std=1.0, generator=None):
        """Overwrite the values with normally distributed random numbers; returns the tensor."""
        return write(self, "normal_", Tensor(draw_normal(self.shape, self.dtype, mean, std, generator)))

    def uniform_(self, low=0.0, high=1.0, generator=None):
        """Overwrite the values with random numbers from low (included) to high (not included); returns the tensor."""
        return write(self, "uniform_", Tensor(draw_uniform(self.shape, self.dtype, low, high, generator)))

    def __setitem__(self, index, value):
        write(self, "x[...] = value", value, lambda: ops.raw_index(self, index))

    def add_(self, other, *, alpha=1): return update(self, "add_", ops.add, other, alpha=alpha)
    def sub_(self, other, *, alpha=1): return update(self, "sub_", ops.sub, other, alpha=alpha)
    def mul_(self, other): return update(self, "mul_", ops.mul, other)
    def div_(self, other, *, rounding_mode=None): return update(self, "div_", ops.div, other, rounding_mode=rounding_mode)
    def pow_(self, other): return update(self, "pow_", ops.pow, other)
    def clamp_(self, min=None, max=None): return update(self, "clamp_", ops.clamp, min, max)
    def masked_fill_(self, mask, value): return update(self, "masked_fill_", ops.masked_fill, mask, value)
    def addcmul_(self, a, b, *, value=1): return update(self, "addcmul_", ops.add, ops.mul(a, b), alpha=value)
    def addcdiv_(self, a, b, *, value=1): return update(self, "addcdiv_", ops.add, ops.div(a, b), alpha=value)
    def lerp_(self, end, weight): return update(self, "lerp_", lambda x: x + (end - x) * weight)
    def sqrt_(self): return update(self, "sqrt_", ops.sqrt)
    def exp_(self): return update(self, "exp_", ops.exp)
    def neg_(self): return update(self, "neg_", ops.neg)

    # --- operators --------------------------------------------------------------------------------------------
    def __add__(self, other): return ops.add(self, other)
    def __radd__(self, other): return ops.add(other, self)
    def __sub__(self, other): return ops.sub(self, other)
    def __rsub__(self, other): return ops.sub(other, self)
    def __mul__(self, other): return ops.mul(self, other)
    def __rmul__(self, other): return ops.mul(other, self)
    def __truediv__(self, other): return ops.div(self, other)
    def __rtruediv__(self, other): return ops.div(other, self)
    def __floordiv__(self, other): return ops.div(self, other, rounding_mode="floor")
    def __rfloordiv__(self, other): return ops.div(other, self, rounding_mode="floor")
    def __mod__(self, other): return ops.remainder(self, other)
    def __pow__(self, other): return ops.pow(self, other)
    def __rpow__(self, other): return ops.pow(other, self)
    def __matmul__(self, other): return ops.matmul(self, other)
    def __rmatmul__(self, other): return ops.matmul(other, self)
    def __neg__(self): return ops.neg(self)
    def __pos__(self): return self
    def __abs__(self): return ops.abs(self)
    def __invert__(self): return ops.logical_not(self) if self.dtype == bool else ops.bitwise_not(self)
    def __and__(self, other): return ops.bitwise_and(self, other)
    def __or__(self, other): return ops.bitwise_or(self, other)
    def __xor__(self, other): return ops.bitwise_xor(self, other)
    def __eq__(self, other): return False if other is None else ops.eq(self, other)
    def __ne__(self, other): return True if other is None else ops.ne(self, other)
    def __lt__(self, other): return ops.lt(self, other)
    def __le__(self, other): return ops.le(self, other)
    def __gt__(self, other): return ops.gt(self, other)
    def __ge__(self, other): return ops.ge(self, other)
    def __iadd__(self, other): return augment(self, "+=", ops.add, other)
    def __isub__(self, other): return augment(self, "-=", ops.sub, other)
    def __imul__(self, other): return augment(self, "*=", ops.mul, other)
    def __itruediv__(self, other): return augment(self, "/=", ops.div, other)
    def __getitem__(self, index): return ops.getitem(self, index)

    # --- methods whose arguments may come one by one; all other methods are ops registered with method=True -----
    def reshape(self, *shape): return ops.reshape(self, _one_list(shape))
    def view(self, *shape): return ops.reshape(self, _one_list(shape))
    def permute(self, *dims): return ops.permute(self, _one_list(dims))
    def expand(self, *sizes): return ops.expand(self, _one_list(sizes))
    def flip(self, *dims): return ops.flip(self, _one_list(dims))
    def expand_as(self, other): return ops.expand(self, other.shape)
    def view_as(self, other): return ops.reshape(self, other.shape)
    def reshape_as(self, other): return ops.reshape(self, other.shape)
    def split(self, size, dim=0): return ops.split(self, size, dim)
    def chunk(self, chunks, dim=0): return ops.chunk(self, chunks, dim)
    def unbind(self, dim=0): return ops.unbind(self, dim)
    def max(self, *args, **settings): return ops.max(self, *args, **settings)
    def min(self, *args, **settings): return ops.min(self, *args, **settings)
    def std(self, *args, **settings): return ops.std(self, *args, **settings)
    def where(self, condition, other): return ops.where(condition, self, other)
    def clone(self, **_): return ops.clone(self)
    T = property(lambda self: ops.permute(self, tuple(range(self.ndim))[::-1]), doc="All axes in reverse order.")
    mT = property(lambda self: ops.transpose(self, -2, -1), doc="The last two axes swapped.")  # noqa: N815 - PyTorch's name

    def to(self, *targets, dtype=None, device=None, non_blocking=False, **_):
        """Convert to a dtype, a device, or both: x.to("cuda"), x.to(minidl.float64), x.to(other). To a GPU no copy makes the program
        wait; to the CPU it does, unless non_blocking: then the values are there after minidl.cuda.synchronize()."""
        for target in targets:
            if isinstance(target, Tensor):
                dtype, device = target.dtype, target.device
            elif isinstance(target, Device) or isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            elif not isinstance(target, bool):  # PyTorch's non_blocking flag
                dtype = target
        dtype = self.dtype if dtype is None else as_dtype(dtype)
        device = self.device if device is None else Device(device)
        if dtype == self.dtype and device == self.device:
            return self
        return ops.to(self, dtype=dtype, device=device, non_blocking=non_blocking and dtype == self.dtype)

    def type_as(self, other): return self.to(other.dtype)
    def cpu(self): return self.to(device="cpu")
    def cuda(self, device=None): return self.to(device=Device("cuda", device))
    def float(self): return self.to(dtype="float32")
    def double(self): return self.to(dtype="float64")
    def half(self): return self.to(dtype="float16")
    def long(self): return self.to(dtype="int64")
    def int(self): return self.to(dtype="int32")
    def bool(self): return self.to(dtype="bool")


Tensor.__init_subclass__()


class HookHandle:
    """What register_hook() returns: remove() takes the hook away; also a context manager."""

    __slots__ = ("hooks", "key")

    def __init__(self, hooks, key):
        self.hooks, self.key = hooks, key

    def remove(self):
        """Take the hook away; harmless if it is gone already."""
        self.hooks.pop(self.key, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def as_constant(array):
    """A NumPy or CuPy array as a Tensor outside the graph, without a copy; refuses element types minidl does not have."""
    if array.dtype.newbyteorder("=") not in DTYPES:
        raise explained(DTypeError, "tensor", f"{array.dtype} is not an element type of minidl.",
                        [f"it has: {', '.join(d.name for d in DTYPES)}"], "Convert the array first, as in array.astype(np.float32).")
    return Tensor(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _one_list(values):
    """(2, 3) from f(2, 3), f((2, 3)) and f([2, 3])."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


from minidl import ops  # noqa: E402 - the one allowed cycle: the operators above stand in the class where grep finds them
from minidl.core import derivative  # noqa: E402
