"""Scattering, diagonals, rearranging and products of matrices against PyTorch, and what integers become."""

import numpy as np
import pytest

from minidl.core.errors import MinidlError
from minidl.core.tensor import Tensor
from tests.parity.drawn import (
    OURS,
    QUIET,
    THEIRS,
    Cases,
    assert_same,
    axis_of,
    flat,
    numbers,
    ours_array,
    pair,
    shape_of,
    theirs_array,
    torch,
)

pytestmark = QUIET
case = Cases()
inf = float("inf")

# --- scatter, diagonal, rearrange ----------------------------------------------------------------------------------

def index_for(rng, shape, dim):
    """A shape and an index that gather accepts for x of this shape."""
    sizes = [int(rng.integers(1, n + 1)) if n else 0 for n in shape]
    sizes[dim] = int(rng.integers(0, 5)) if shape[dim] else 0
    return rng.integers(0, max(shape[dim], 1), sizes)


@case("gather", "take_along_dim")
def picking(rng, name):
    shape = shape_of(rng, low=1, zero=name == "gather")
    dim = axis_of(rng, shape)
    index = index_for(rng, shape, dim)
    if name == "gather":
        return (lambda lib, x: lib.gather(x, dim, lib.tensor(index))), [numbers(rng, shape)]
    sizes = [3 if k == dim % len(shape) else 1 if rng.random() < 0.5 else n for k, n in enumerate(shape)]
    index = rng.integers(0, shape[dim], sizes)
    if rng.random() < 0.2 and np.prod(shape):
        return (lambda lib, x: lib.take_along_dim(x, lib.tensor(index.reshape(-1)))), [numbers(rng, shape)]
    return (lambda lib, x: lib.take_along_dim(x, lib.tensor(index), dim=dim)), [numbers(rng, shape)]


@case("scatter", "scatter_add")
def putting(rng, name):
    shape = shape_of(rng, low=1)
    dim = axis_of(rng, shape)
    index = index_for(rng, shape, dim)
    if name == "scatter":  # PyTorch's gradient is right only for places that differ
        sizes = [min(n, shape[dim]) if k == dim % len(shape) else n for k, n in enumerate(index.shape)]
        index = np.argsort(rng.random(shape), axis=dim)[tuple(slice(n) for n in sizes)]
    src = numbers(rng, index.shape)
    if rng.random() < 0.2:  # more of src than index covers: PyTorch then fails to go back
        src = numbers(rng, [n + int(rng.integers(2)) for n in index.shape])
        return (lambda lib, x, src: getattr(lib, name)(x.detach(), dim, lib.tensor(index), src.detach())), [numbers(rng, shape), src]
    if name == "scatter" and rng.random() < 0.3:
        return (lambda lib, x: lib.scatter(x, dim, lib.tensor(index), value=2.5)), [numbers(rng, shape)]
    if name == "scatter" and rng.random() < 0.3:
        return (lambda lib, x, src: lib.scatter(x.detach(), dim, lib.tensor(index), src.detach(), reduce="add")), [numbers(rng, shape), src]
    return (lambda lib, x, src: getattr(lib, name)(x, dim, lib.tensor(index), src)), [numbers(rng, shape), src]


@case("index_select", "index_add")
def slices(rng, name):
    shape = shape_of(rng, low=1, zero=False)
    dim = axis_of(rng, shape)
    index = rng.integers(0, shape[dim], rng.integers(0, 5))
    if name == "index_select":
        return (lambda lib, x: lib.index_select(x, dim, lib.tensor(index))), [numbers(rng, shape)]
    source = numbers(rng, [len(index) if k == dim % len(shape) else n for k, n in enumerate(shape)])
    settings = {} if rng.random() < 0.5 else {"alpha": -0.5}
    return (lambda lib, x, y: lib.index_add(x, dim, lib.tensor(index), y, **settings)), [numbers(rng, shape), source]


@case("masked_fill")
def masking(rng, name):
    a, b = pair(rng)
    mask = rng.random(b) < 0.5
    kind = rng.integers(3)
    if kind == 0:
        return (lambda lib, x, v: lib.masked_fill(x, lib.tensor(mask), v)), [numbers(rng, a), numbers(rng, ())]
    value = -inf if kind == 1 else 2
    return (lambda lib, x: lib.masked_fill(x, lib.tensor(mask), value)), [numbers(rng, a)]


@case("masked_select")
def selecting(rng, name):
    a, b = pair(rng)
    mask = rng.random(b) < 0.5
    return (lambda lib, x: lib.masked_select(x, lib.tensor(mask))), [numbers(rng, a)]


@case("roll")
def rolling(rng, name):
    shape = shape_of(rng, low=1)
    dims = [int(d) for d in rng.permutation(len(shape))[:rng.integers(1, len(shape) + 1)]]
    shifts = rng.integers(-5, 6, len(dims)).tolist()
    if rng.random() < 0.3:
        return (lambda lib, x: lib.roll(x, shifts[0])), [numbers(rng, shape)]
    if rng.random() < 0.3:
        return (lambda lib, x: lib.roll(x, shifts[0], dims[0])), [numbers(rng, shape)]
    return (lambda lib, x: lib.roll(x, shifts, dims)), [numbers(rng, shape)]


@case("tril", "triu")
def triangles(rng, name):
    shape, offset = shape_of(rng, low=2), int(rng.integers(-3, 4))
    return (lambda lib, x: getattr(lib, name)(x, diagonal=offset)), [numbers(rng, shape)]


@case("diagonal", "diag_embed")
def diagonals(rng, name):
    shape, offset = shape_of(rng, low=2, high=3), int(rng.integers(-2, 3))
    first, second = (int(d) for d in rng.permutation(len(shape))[:2])
    if rng.random() < 0.5:
        first -= len(shape)
    shape = shape[1:] if name == "diag_embed" else shape
    return (lambda lib, x: getattr(lib, name)(x, offset=offset, dim1=first, dim2=second)), [numbers(rng, shape)]


@case("diag", "trace")
def matrices(rng, name):
    shape, offset = shape_of(rng, low=2, high=2), int(rng.integers(-2, 3))
    if name == "trace":
        return (lambda lib, x: lib.trace(x)), [numbers(rng, shape)]
    return (lambda lib, x: lib.diag(x, offset)), [numbers(rng, shape[:rng.integers(1, 3)])]


MOVES = {
    "t": lambda lib, x: lib.t(x[..., 0, 0]), "t vector": lambda lib, x: x[0, 0, 0].t(), "swapaxes": lambda lib, x: lib.swapaxes(x, 0, -1),
    "swapdims": lambda lib, x: x.swapdims(1, 2), "movedim": lambda lib, x: lib.movedim(x, (0, -1), (-2, 0)),
    "movedim one": lambda lib, x: x.movedim(1, 3), "moveaxis": lambda lib, x: lib.moveaxis(x, [3, 1], [0, 1]),
    "broadcast_to": lambda lib, x: lib.broadcast_to(x, (2, *x.shape)), "broadcast_to method": lambda lib, x: x[:, :1].broadcast_to(x.shape),
    "repeat": lambda lib, x: x.repeat(2, 1, 3, 1), "repeat more": lambda lib, x: x.repeat((2, 1, 2, 1, 1)),
    "repeat none": lambda lib, x: x.repeat(0, 1, 1, 1),
    "tile": lambda lib, x: lib.tile(x, (2, 3)), "tile more": lambda lib, x: x.tile((2, 1, 1, 2, 1)),
    "repeat_interleave": lambda lib, x: lib.repeat_interleave(x, 3, dim=1), "repeat_interleave flat": lambda lib, x: x.repeat_interleave(2),
    "repeat_interleave each": lambda lib, x: lib.repeat_interleave(x, lib.tensor(np.arange(x.shape[2])), dim=2),
    "unflatten": lambda lib, x: lib.unflatten(x, 1, (-1, 1)), "unflatten method": lambda lib, x: x.unflatten(-1, (1, x.shape[-1])),
    "ravel": lambda lib, x: lib.ravel(x), "unbind": lambda lib, x: lib.unbind(x, 1), "select": lambda lib, x: lib.select(x, -1, 0),
    "meshgrid": lambda lib, x: lib.meshgrid(x[:, 0, 0, 0], x[0, :, 0, 0], x[0, 0, 0, 0], indexing="ij"),
    "meshgrid xy": lambda lib, x: lib.meshgrid([x[:, 0, 0, 0], x[0, :, 0, 0], x[0, 0, :, 0]], indexing="xy"),
    "meshgrid one": lambda lib, x: lib.meshgrid(x[:, 0, 0, 0], indexing="xy"),
    "broadcast_tensors": lambda lib, x: lib.broadcast_tensors(x, x[0], x[:, :1]),
}


@case(*MOVES)
def moves(rng, name):
    return MOVES[name], [numbers(rng, tuple(rng.integers(1, 5, 4)))]


# --- linear algebra ------------------------------------------------------------------------------------------------

PRODUCTS = {
    "mm": ("NK KM", lambda lib, x, y: lib.mm(x, y)), "bmm": ("BNK BKM", lambda lib, x, y: lib.bmm(x, y)),
    "mv": ("NK K", lambda lib, x, y: lib.mv(x, y)), "dot": ("K K", lambda lib, x, y: lib.dot(x, y)),
    "vdot": ("K K", lambda lib, x, y: x.vdot(y)),
    "outer": ("N M", lambda lib, x, y: lib.outer(x, y)),
    "addmm": ("NM NK KM", lambda lib, z, x, y: lib.addmm(z, x, y)),
    "addmm row": ("M NK KM", lambda lib, z, x, y: z.addmm(x, y, beta=0.5, alpha=-2)),
    "addmm beta 0": ("NM NK KM", lambda lib, z, x, y: lib.addmm(z, x, y, beta=0, alpha=3)),
    "baddbmm": ("BNM BNK BKM", lambda lib, z, x, y: lib.baddbmm(z, x, y, beta=2, alpha=0.5)),
    "baddbmm one": ("1M BNK BKM", lambda lib, z, x, y: lib.baddbmm(z, x, y)),
    "addmv": ("N NK K", lambda lib, z, x, y: lib.addmv(z, x, y, alpha=2)),
    "tensordot": ("NKM KMA", lambda lib, x, y: lib.tensordot(x, y)), "tensordot 0": ("NK M", lambda lib, x, y: lib.tensordot(x, y, dims=0)),
    "tensordot lists": ("NKM MAK", lambda lib, x, y: lib.tensordot(x, y, dims=([1, 2], [2, 0]))),
    "tensordot negative": ("KNM AK", lambda lib, x, y: lib.tensordot(x, y, ([0], [-1]))),
}


@case(*PRODUCTS)
def products(rng, name):
    sizes = {letter: int(rng.integers(0 if rng.random() < 0.1 else 1, 5)) for letter in "NKMBA"} | {"1": 1}
    shapes, call = PRODUCTS[name]
    return call, [rng.standard_normal([sizes[letter] for letter in shape]) for shape in shapes.split()]


@pytest.mark.parametrize("name", case)
def test_float64(name):
    case.compare64(name)


@pytest.mark.parametrize("name", case)
def test_float32_stays_float32(name):
    case.compare32(name)


INTEGERS = {
    "square": lambda lib, i: lib.square(i), "sign": lambda lib, i: lib.sign(i), "floor": lambda lib, i: lib.floor(i),
    "ceil": lambda lib, i: lib.ceil(i),
    "trunc": lambda lib, i: lib.trunc(i), "round": lambda lib, i: lib.round(i), "sin": lambda lib, i: lib.sin(i),
    "rsqrt": lambda lib, i: lib.rsqrt(i.abs() + 1),
    "reciprocal": lambda lib, i: lib.reciprocal(i.abs() + 1), "erf": lambda lib, i: lib.erf(i), "expm1": lambda lib, i: lib.expm1(i),
    "log1p": lambda lib, i: lib.log1p(i.abs()), "fmod": lambda lib, i: lib.fmod(i, 3), "fmod -2.5": lambda lib, i: lib.fmod(i, -2.5),
    "atan2": lambda lib, i: lib.atan2(i, i + 1), "prod": lambda lib, i: lib.prod(i), "prod dim": lambda lib, i: i.prod(1),
    "cumsum": lambda lib, i: lib.cumsum(i, 0),
    "cumprod": lambda lib, i: lib.cumprod(i, 1), "cumsum dtype": lambda lib, i: lib.cumsum(i, 0, dtype=lib.float32),
    "sort": lambda lib, i: lib.sort(i, stable=True), "topk": lambda lib, i: lib.topk(i, 2)[0], "median": lambda lib, i: lib.median(i),
    "median dim": lambda lib, i: lib.median(i, 1)[0], "gather": lambda lib, i: lib.gather(i, 0, i.abs() % 2),
    "scatter_add": lambda lib, i: lib.scatter_add(i, 0, i.abs() % 2, i),
    "scatter": lambda lib, i: lib.scatter(i, 1, (i[:, :1] * 0).long(), value=7),
    "index_add": lambda lib, i: lib.index_add(i, 0, lib.tensor(np.array([1, 1, 0])), i),
    "masked_fill": lambda lib, i: lib.masked_fill(i, i > 0, 3),
    "roll": lambda lib, i: lib.roll(i, 1), "tril": lambda lib, i: lib.tril(i), "diagonal": lambda lib, i: lib.diagonal(i),
    "trace": lambda lib, i: lib.trace(i),
    "diag_embed": lambda lib, i: lib.diag_embed(i), "mm": lambda lib, i: lib.mm(i, i.t()), "dot": lambda lib, i: lib.dot(i[0], i[1]),
    "outer": lambda lib, i: lib.outer(i[0], i[1]), "hardtanh": lambda lib, i: lib.hardtanh(i, -2, 2), "relu6": lambda lib, i: lib.relu6(i),
    "threshold": lambda lib, i: lib.threshold(i, 1, -4), "tile": lambda lib, i: lib.tile(i, (2, 1)),
    "hypot float": lambda lib, i: lib.hypot(i, i + 0.5),
}


REFUSED = {("sign", "bool"), ("masked_fill", "bool"), ("threshold", "uint8")}  # PyTorch wraps around or turns 3 into True


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name, dtype):
    """Integers where PyTorch gives integers, float32 where it gives that; where PyTorch refuses, so may we."""
    rng = np.random.default_rng(3)
    i = rng.integers(-4 if dtype.startswith("int") else 0, 5, (3, 4)).astype(dtype)
    try:
        theirs = flat(INTEGERS[name](THEIRS, torch.tensor(i)))
    except (RuntimeError, TypeError):
        return
    if (name, dtype) in REFUSED:
        with pytest.raises(MinidlError):
            INTEGERS[name](OURS, Tensor(i))
        return
    for mine, other in zip(flat(INTEGERS[name](OURS, Tensor(i))), theirs, strict=True):
        assert_same(name, ours_array(mine), theirs_array(other), 1e-6)
