"""Which dtype comes out: PyTorch's promotion table, for all pairs of dtypes as tensors, 0-d tensors and Python numbers."""

import itertools

import numpy as np
import pytest

import minidl
from minidl.core.dtypes import DTYPES, as_dtype, default_float, result_type
from minidl.core.errors import DTypeError

# Computed once with torch.promote_types (PyTorch 2.13); row op column.
TABLE = """
          bool    uint8   int8    int16   int32   int64   float16 float32 float64
bool      bool    uint8   int8    int16   int32   int64   float16 float32 float64
uint8     uint8   uint8   int16   int16   int32   int64   float16 float32 float64
int8      int8    int16   int8    int16   int32   int64   float16 float32 float64
int16     int16   int16   int16   int16   int32   int64   float16 float32 float64
int32     int32   int32   int32   int32   int32   int64   float16 float32 float64
int64     int64   int64   int64   int64   int64   int64   float16 float32 float64
float16   float16 float16 float16 float16 float16 float16 float16 float32 float64
float32   float32 float32 float32 float32 float32 float32 float32 float32 float64
float64   float64 float64 float64 float64 float64 float64 float64 float64 float64
"""
COLUMNS, *LINES = (line.split() for line in TABLE.strip().splitlines())
PROMOTED = {(line[0], column): result for line in LINES for column, result in zip(COLUMNS, line[1:], strict=True)}
KINDS = ("1-d", "0-d", "number")  # the stronger one first
LEVEL = {"b": 0, "u": 1, "i": 1, "f": 2}


def operand(name, kind):
    """A tensor with axes, a 0-d tensor, or the Python number of that dtype's category; all are 1 or True."""
    if kind == "number":
        return {0: True, 1: 1, 2: 1.0}[LEVEL[np.dtype(name).kind]]
    return minidl.ones(2 if kind == "1-d" else (), dtype=name)


def expected(a, kind_a, b, kind_b):
    """The rule in one place: the stronger kind decides, unless the weaker one has a higher category (bool < int < float)."""
    number = {0: "bool", 1: "int64", 2: "float32"}
    a, b = (number[LEVEL[np.dtype(n).kind]] if kind == "number" else n for n, kind in ((a, kind_a), (b, kind_b)))
    if kind_a == kind_b:
        return PROMOTED[a, b]
    if KINDS.index(kind_a) > KINDS.index(kind_b):
        a, b = b, a
    return a if LEVEL[np.dtype(a).kind] >= LEVEL[np.dtype(b).kind] else PROMOTED[a, b]


CASES = [(a, kind_a, b, kind_b) for a, b in itertools.product(COLUMNS, repeat=2)
         for kind_a, kind_b in itertools.product(KINDS, repeat=2) if (kind_a, kind_b) != ("number", "number")]


def disagreements(compute):
    """The cases in which a function of two operands gives another dtype than PyTorch's rule."""
    return [(case, str(got), expected(*case)) for case in CASES
            if str(got := compute(operand(*case[:2]), operand(*case[2:]))) != expected(*case)]


def test_result_type():
    assert disagreements(result_type) == []


def test_a_planted_mistake_is_seen():
    assert disagreements(lambda x, other: np.result_type(*(getattr(t, "array", t) for t in (x, other)))) != []  # NumPy's own rule


@pytest.mark.parametrize("name", ["add", "mul", "maximum"])
def test_arithmetic_promotes_like_pytorch(name):
    assert disagreements(lambda x, other: getattr(minidl, name)(x, other).dtype) == []


def test_division_gives_floats():
    for case in CASES:
        got, rule = (operand(*case[:2]) / operand(*case[2:])).dtype, expected(*case)
        assert got == (rule if rule.startswith("float") else "float32"), case


def test_comparison_gives_bool():
    for case in CASES:
        assert minidl.le(operand(*case[:2]), operand(*case[2:])).dtype == bool, case


@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5), np.sqrt(2), np.int64(3), np.float32(1.5)])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "remainder"])
def test_float32_stays_float32_beside_any_number(name, number):
    x = minidl.tensor([1.5, 2.5])
    assert getattr(minidl, name)(x, number).dtype == "float32"
    assert getattr(minidl, name)(number, x).dtype == "float32"


SETTINGS = {"softmax": {"dim": 0}, "log_softmax": {"dim": 0}, "logsumexp": {"dim": 0},
            "var": {"unbiased": False}, "std": {"unbiased": False}}


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "relu", "abs", "neg", "sum", "mean", "amax", *SETTINGS])
def test_float32_stays_float32_and_so_does_its_gradient(name):
    for shape in [(2, 3), (3,), ()]:
        x = minidl.full(shape, 0.5, requires_grad=True)
        y = getattr(minidl, name)(x, **SETTINGS.get(name, {}))
        assert y.dtype == "float32"
        y.sum().backward()
        assert x.grad.dtype == "float32"


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid"])
def test_functions_of_integers_are_float32(name):
    assert getattr(minidl, name)(minidl.tensor([1, 2])).dtype == "float32"
    assert getattr(minidl, name)(minidl.tensor([True])).dtype == "float32"


def test_sums_of_integers_are_int64():
    assert minidl.ones(3, dtype="uint8").sum().dtype == "int64"
    assert minidl.ones(3, dtype=bool).sum().item() == 3
    assert minidl.full((300,), 200, dtype="uint8").sum().item() == 60000


def test_float16_adds_up_in_float32():
    assert minidl.ones(5000, 2, dtype="float16").sum(0).tolist() == [5000, 5000]  # adding ones, float16 itself stops at 2048
    assert minidl.full((5000, 2), 0.1, dtype="float16").mean(0).dtype == "float16"


def test_a_gradient_has_the_dtype_of_its_tensor():
    x, other = minidl.ones(3, dtype="float32", requires_grad=True), minidl.ones(3, dtype="float64", requires_grad=True)
    (x * other).sum().backward()
    assert (x.grad.dtype, other.grad.dtype) == ("float32", "float64")


@pytest.mark.parametrize("word, dtype", [
    (float, "float64"), (int, "int64"), (bool, "bool"), ("float", "float32"), ("half", "float16"), (np.float32, "float32"),
    (np.dtype("int16"), "int16"), ("torch.float64", "float64"), (minidl.double, "float64"), (minidl.long, "int64"), (minidl.bool, "bool"),
])
def test_names_of_dtypes(word, dtype):
    assert as_dtype(word) == dtype


def test_a_dtype_that_does_not_exist():
    with pytest.raises(DTypeError, match="complex64 is not an element type of minidl"):
        as_dtype("complex64")
    with pytest.raises(DTypeError, match="300 does not fit into uint8"):
        minidl.ones(2, dtype="uint8") + 300


def test_default_dtypes():
    assert default_float == "float32"
    assert [d.name for d in DTYPES] == COLUMNS


def test_the_table_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: the stored table is used alone")
    for (a, b), result in PROMOTED.items():
        assert torch.promote_types(getattr(torch, a), getattr(torch, b)) == getattr(torch, result)
