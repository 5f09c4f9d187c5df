"""Drawn by hypothesis: shapes (0-size and 0-d too), broadcasting pairs, axes, index expressions, memory orders, dtypes.

Values are compared with NumPy, gradients with finite differences. The draws are the same in every run.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import broadcastable_shapes, mutually_broadcastable_shapes

import minidl
from minidl.core.gradcheck import check

drawn = settings(max_examples=40)
small = st.integers(0, 3)
ORDERS = ("C", "transposed", "every second", "reversed", "channels last", "repeated")


def shapes(low=0, high=4, sizes=small):
    return st.lists(sizes, min_size=low, max_size=high).map(tuple)


@st.composite
def arrays(draw, shape, kind="normal", seeds=0):
    """A read-only float64 array of this shape in some memory order. Kinds: normal, positive, distinct (no ties)."""
    shape = draw(shape) if hasattr(shape, "example") else shape
    rng, order = np.random.default_rng([seeds, draw(st.integers(0, 99))]), draw(st.sampled_from(ORDERS))
    n = int(np.prod(shape))
    values = {"normal": lambda: rng.standard_normal(shape), "positive": lambda: rng.uniform(0.5, 2, shape),
              "distinct": lambda: rng.permutation(n).reshape(shape) * 0.2 + rng.uniform(0, 0.1, shape)}[kind]()
    values = np.array(values)
    if order == "transposed":
        array = values.T.copy().T
    elif order == "every second":
        array = np.empty([2 * n for n in shape])[tuple(slice(None, None, 2) for _ in shape)]
    elif order == "reversed":
        array = np.empty(shape)[tuple(slice(None, None, -1) for _ in shape)]
    elif order == "channels last" and len(shape) == 4:
        array = np.empty([shape[k] for k in (0, 2, 3, 1)]).transpose(0, 3, 1, 2)
    elif order == "repeated" and kind == "normal" and shape:
        return np.broadcast_to(values[:1], shape)
    else:
        array = np.empty(shape)
    array = array if isinstance(array, np.ndarray) else np.empty(())
    array[...] = values
    array.flags.writeable = False
    return array


def agree(ours, numpy, *inputs, gradients=True, order=1):
    """ours(*tensors) has NumPy's values, and right gradients; the inputs stay as they were (they are read-only)."""
    y, expected = ours(*map(minidl.Tensor, inputs)), np.asarray(numpy(*inputs))
    assert y.shape == expected.shape
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y.array, expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max(initial=0)))
    if gradients and y.numel() and all(x.size for x in inputs):
        report = check(ours, list(inputs), order)
        assert report, report
    elif gradients:  # nothing to probe, but the walk must give gradients of the right shape
        leaves = [minidl.Tensor(x, True) for x in inputs]
        y = ours(*leaves)
        grads = minidl.autograd.grad(y, leaves, minidl.ones(y.shape, dtype=y.dtype), allow_unused=True)
        assert [g.shape for g in grads if g is not None] == [x.shape for x, g in zip(leaves, grads, strict=True) if g is not None]
        assert y.numel() or not any(g.array.any() for g in grads if g is not None)


# --- elementwise ops and broadcasting ---------------------------------------------------------------------------

BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power,
          "maximum": np.maximum, "minimum": np.minimum}


@pytest.mark.parametrize("name", BINARY)
@drawn
@given(data=st.data())
def test_broadcasting(name, data):
    pair = data.draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3)).input_shapes
    x, other = (data.draw(arrays(shape, "positive", seeds)) for seeds, shape in enumerate(pair))  # no ties
    agree(getattr(minidl, name), BINARY[name], x, other)


@drawn
@given(data=st.data(), function=st.sampled_from(["exp", "log", "sqrt", "tanh", "negative", "abs"]))
def test_one_tensor(data, function):
    x = data.draw(arrays(shapes(), "positive"))
    agree(getattr(minidl, {"negative": "neg"}.get(function, function)), getattr(np, function), x, order=2)


@drawn
@given(data=st.data())
def test_where(data):
    condition, x, other = data.draw(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=3)).input_shapes
    condition = data.draw(arrays(condition)) > 0
    agree(lambda a, b: minidl.where(minidl.Tensor(np.asarray(condition)), a, b), lambda a, b: np.where(condition, a, b),
          data.draw(arrays(x)), data.draw(arrays(other)))


@drawn
@given(data=st.data())
def test_expand(data):
    shape = data.draw(shapes(0, 3))
    wanted = data.draw(broadcastable_shapes(shape, min_dims=len(shape), max_dims=4, min_side=0, max_side=3))
    if np.broadcast_shapes(shape, wanted) == wanted:
        agree(lambda x: x.expand(wanted), lambda x: np.broadcast_to(x, wanted), data.draw(arrays(shape)))


# --- reductions -------------------------------------------------------------------------------------------------

REDUCTIONS = {"sum": np.sum, "mean": np.mean, "var": lambda x, a, keepdims: np.var(x, a, ddof=1, keepdims=keepdims),
              "amax": np.amax, "amin": np.amin,
              "logsumexp": lambda x, a, keepdims: np.log(np.sum(np.exp(x), a, keepdims=keepdims))}


@pytest.mark.parametrize("name", REDUCTIONS)
@drawn
@given(data=st.data(), keepdim=st.booleans())
def test_reductions(name, data, keepdim):
    low = 0 if name == "sum" else 2  # var needs two elements, the others one
    shape = data.draw(shapes(1, 4, st.integers(low, 3)))
    axes = tuple(data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, unique_by=lambda a: a % len(shape))))
    x = data.draw(arrays(shape, "distinct" if name in ("amax", "amin", "var") else "normal"))
    agree(lambda x: getattr(minidl, name)(x, axes, keepdim=keepdim), lambda x: REDUCTIONS[name](x, axes, keepdims=keepdim), x)


@drawn
@given(data=st.data())
def test_softmax(data):
    x = data.draw(arrays(shapes(1, 4, st.integers(1, 3))))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    agree(lambda x: minidl.softmax(x, axis), lambda x: np.exp(x) / np.exp(x).sum(axis, keepdims=True), x)


# --- shape ops --------------------------------------------------------------------------------------------------

@drawn
@given(data=st.data())
def test_reshape(data):
    x = data.draw(arrays(shapes()))
    sizes = data.draw(st.permutations(x.shape))
    cut = data.draw(st.integers(0, len(sizes)))
    wanted = [*sizes[:cut], int(np.prod(sizes[cut:]))]
    agree(lambda x: x.reshape(wanted), lambda x: x.reshape(wanted), x)
    if 0 not in wanted:
        hidden = data.draw(st.integers(0, len(wanted) - 1))
        open_size = [-1 if k == hidden else n for k, n in enumerate(wanted)]
        agree(lambda x: x.view(open_size), lambda x: x.reshape(open_size), x)


@drawn
@given(data=st.data())
def test_axes_in_another_order(data):
    x = data.draw(arrays(shapes(1)))
    axis = st.integers(-x.ndim, x.ndim - 1)
    dims = data.draw(st.permutations(range(x.ndim)))
    first, second = data.draw(axis), data.draw(axis)
    agree(lambda x: x.permute(dims), lambda x: x.transpose(dims), x)
    agree(lambda x: x.transpose(first, second), lambda x: x.swapaxes(first, second), x)
    agree(lambda x: x.flip(first), lambda x: np.flip(x, first), x)
    agree(lambda x: x.unsqueeze(first), lambda x: np.expand_dims(x, first), x)
    agree(lambda x: x.squeeze(), np.squeeze, x)
    start, end = sorted((first % x.ndim, second % x.ndim))
    joined = (*x.shape[:start], int(np.prod(x.shape[start:end + 1])), *x.shape[end + 1:])
    agree(lambda x: x.flatten(start, end), lambda x: x.reshape(joined), x)


@drawn
@given(data=st.data())
def test_cat_and_stack(data):
    shape = data.draw(shapes(1, 4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(small, min_size=1, max_size=3))
    parts = [data.draw(arrays(tuple(n if k == axis % len(shape) else m for k, m in enumerate(shape)))) for n in sizes]
    agree(lambda *xs: minidl.cat(xs, axis), lambda *xs: np.concatenate(xs, axis), *parts)
    parts = [data.draw(arrays(shape)) for _ in sizes]
    agree(lambda *xs: minidl.stack(xs, axis), lambda *xs: np.stack(xs, axis), *parts)


@drawn
@given(data=st.data())
def test_pad_and_narrow(data):
    x = data.draw(arrays(shapes(1)))
    pairs = [(data.draw(st.integers(-(n // 2), 2)), data.draw(st.integers(-(n // 2), 2))) for n in x.shape]
    flat = list(itertools.chain.from_iterable(reversed(pairs)))

    def padded(x):
        x = np.pad(x, [(max(a, 0), max(b, 0)) for a, b in pairs], constant_values=1.5)
        return x[tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True))]

    agree(lambda x: minidl.ops.pad(x, flat, value=1.5), padded, x)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    start = data.draw(st.integers(0, x.shape[axis]))
    length = data.draw(st.integers(0, x.shape[axis] - start))
    agree(lambda x: x.narrow(axis, start, length), lambda x: np.take(x, range(start, start + length), axis), x)
    size = data.draw(st.integers(1, 4))
    assert [p.shape[axis] for p in minidl.Tensor(x).split(size, axis)] == [len(p) for p in _pieces(x.shape[axis], size)]


def _pieces(n, size):
    return [range(n)[k:k + size] for k in range(0, n, size)] or [range(0)]


# --- indexing ---------------------------------------------------------------------------------------------------

@st.composite
def indices(draw, shape, kinds):
    """An index expression for this shape. Ints and arrays are not mixed: there NumPy differs (see test_index.py)."""
    items, axis = [], 0
    common = draw(st.sampled_from([(4,), (2, 3), (0,), (3, 1)]))  # (4,) on sizes up to 3: some element is named twice
    while axis < len(shape):
        kind, n = draw(st.sampled_from(kinds)), shape[axis]
        if kind == "stop":
            break
        if kind == "none":
            items.append(None)
            continue
        if kind == "int" and n:
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "array" and (n or 0 in common):
            items.append(np.random.default_rng(draw(small)).integers(-n, n or 1, common))
        elif kind == "mask":
            items.append(np.random.default_rng(draw(small)).random(n) < 0.6)
            kinds = ["slice", "none", "stop"]  # one mask only: two would have to have as many elements
        else:
            bound = st.none() | st.integers(-4, 4)
            items.append(slice(draw(bound), draw(bound), draw(st.none() | st.integers(1, 3))))
        axis += 1
    return (*items, ...) if draw(st.booleans()) else tuple(items)


@pytest.mark.parametrize("kinds", ["int slice slice none stop", "array array slice none stop", "mask slice none"])
@drawn
@given(data=st.data(), as_tensors=st.booleans())
def test_indexing(kinds, data, as_tensors):
    x = data.draw(arrays(shapes(0, 4)))
    index = data.draw(indices(x.shape, kinds.split()))
    ours = tuple(minidl.Tensor(i) if as_tensors and isinstance(i, np.ndarray) else i for i in index)
    agree(lambda x: x[ours], lambda x: x[index], x)
    written, expected = minidl.Tensor(x.copy()), x.copy()
    written[ours], expected[index] = 7.0, 7.0
    assert (written.array == expected).all()


# --- products ---------------------------------------------------------------------------------------------------

@drawn
@given(data=st.data(), name=st.sampled_from(["generic", "reference"]))
def test_matmul(data, name):
    batch, other_batch = data.draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=2)).input_shapes
    n, k, m = data.draw(small), data.draw(small), data.draw(small)
    x = data.draw(arrays((*batch, n, k) if data.draw(st.booleans()) else (k,)))
    other = data.draw(arrays((*other_batch, k, m) if data.draw(st.booleans()) else (k,)))
    with minidl.use_backend(name):
        agree(minidl.matmul, np.matmul, x, other, gradients=name == "generic")


@drawn
@given(data=st.data())
def test_einsum(data):
    sizes = {letter: data.draw(small) for letter in "abcd"}
    terms = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    present = "".join(sorted(set("".join(terms))))
    output = "".join(data.draw(st.permutations(present)))[:data.draw(st.integers(0, 4))]
    equation = f"{','.join(terms)}->{output}"
    inputs = [data.draw(arrays(tuple(sizes[letter] for letter in term))) for term in terms]
    agree(lambda *xs: minidl.einsum(equation, *xs), lambda *xs: np.einsum(equation, *xs), *inputs)


# --- dtypes -----------------------------------------------------------------------------------------------------

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
TABLE = """
    bool    uint8   int8    int16   int32   int64   float16 float32 float64
    uint8   uint8   int16   int16   int32   int64   float16 float32 float64
    int8    int16   int8    int16   int32   int64   float16 float32 float64
    int16   int16   int16   int16   int32   int64   float16 float32 float64
    int32   int32   int32   int32   int32   int64   float16 float32 float64
    int64   int64   int64   int64   int64   int64   float16 float32 float64
    float16 float16 float16 float16 float16 float16 float16 float32 float64
    float32 float32 float32 float32 float32 float32 float32 float32 float64
    float64 float64 float64 float64 float64 float64 float64 float64 float64
"""  # PyTorch's
PROMOTED = {(a, b): row.split()[k] for a, row in zip(NAMES, TABLE.strip().splitlines(), strict=True) for k, b in enumerate(NAMES)}
KIND = {"b": 0, "u": 1, "i": 1, "f": 2}


def kind_of(name):
    return KIND[np.dtype(name).kind]


@pytest.mark.parametrize("first, second", list(itertools.product(NAMES, NAMES)))
def test_every_pair_of_dtypes(first, second):
    x, other, lone = np.ones(2, first), np.ones(2, second), np.ones((), second)
    weak = second if kind_of(second) > kind_of(first) else first  # a 0-d tensor counts only if its kind is higher
    for name in ("add", "mul", "maximum"):
        op = getattr(minidl, name)
        assert op(minidl.Tensor(x), minidl.Tensor(other)).dtype == PROMOTED[first, second], name
        assert op(minidl.Tensor(x), minidl.Tensor(lone)).dtype == weak, name
        assert op(minidl.Tensor(lone), minidl.Tensor(x)).dtype == weak, name
    quotient = PROMOTED[first, second]
    assert minidl.div(minidl.Tensor(x), minidl.Tensor(other)).dtype == (quotient if kind_of(quotient) == 2 else "float32")
    assert minidl.cat([minidl.Tensor(x), minidl.Tensor(other)]).dtype == PROMOTED[first, second]
    assert minidl.matmul(minidl.Tensor(x), minidl.Tensor(other)).dtype == PROMOTED[first, second]


@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_with_a_python_number(name):
    x = minidl.Tensor(np.ones(2, name))
    assert (x + True).dtype == name
    assert (x + 1).dtype == (name if name != "bool" else "int64")
    assert (1.5 * x).dtype == (name if kind_of(name) == 2 else "float32")
    assert x[:1].dtype == x.reshape(1, 2).dtype == x.flip(0).dtype == minidl.stack([x, x]).dtype == name
