"""matmul and einsum: what the product rules promise, equal backends, and what wrong shapes say."""

import numpy as np
import pytest

import minidl
from minidl.core.errors import ArgumentError, DTypeError, ShapeError
from minidl.core.gradcheck import check

rng = np.random.default_rng(0)


def normal(*shape):
    return minidl.Tensor(rng.standard_normal(shape))


@pytest.mark.parametrize("x, other", [((3,), (3,)), ((2, 3), (3,)), ((3,), (4, 3, 2)), ((4, 1, 2, 3), (5, 3, 2)), ((2, 4, 3), (3, 2))],
                         ids=str)
def test_backends_agree_and_gradients_are_right(x, other):
    x, other = rng.integers(-4, 5, x).astype(float), rng.integers(-4, 5, other).astype(float)  # integers: the sums are exact
    results = []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            results.append((minidl.Tensor(x) @ minidl.Tensor(other)).array)
    assert np.array_equal(*results) and np.array_equal(results[0], np.matmul(x, other))
    report = check(minidl.matmul, [rng.standard_normal(x.shape), rng.standard_normal(other.shape)], 2)
    assert report, report


def test_matmul_keeps_only_what_its_formula_names():
    x, weight = normal(2, 3), minidl.Tensor(rng.standard_normal((3, 4)), True)
    y = x @ weight
    names = dict(zip(y.edge[0].backward.__code__.co_freevars, y.edge[0].backward.__closure__, strict=True))
    assert names["x_saved"].cell_contents is x and names["other_saved"].cell_contents is None


def test_dtypes():
    assert (minidl.tensor([1, 2]) @ minidl.tensor([3, 4])).dtype == "int64"
    assert (normal(2, 3).float() @ normal(3, 2)).dtype == "float64"
    assert minidl.einsum("i,i", normal(3).float(), normal(3).float()).dtype == "float32"


def test_einsum_of_a_list_and_of_several():
    x, y = normal(2, 3), normal(3, 4)
    assert (minidl.einsum("ik,kj->ij", [x, y]).array == minidl.einsum("ik,kj->ij", x, y).array).all()


@pytest.mark.parametrize("equation, shapes", [
    ("iij->j", [(3, 3, 2)]), ("iii->", [(2, 2, 2)]), ("ij->", [(2, 3)]), ("ij,kl->ik", [(2, 3), (2, 4)]),
    ("ij,j->i", [(2, 1), (3,)]),
    ("...ii,...i->...", [(2, 3, 3), (3,)]),
    ("ii,i->i", [(1, 1), (3,)]), ("i,i->", [(3,), (1,)]), ("ab,bc,cd->ad", [(2, 3), (3, 2), (2, 2)]),
], ids=str)
def test_einsum_gradients(equation, shapes):
    report = check(lambda *xs: minidl.einsum(equation, *xs), [rng.standard_normal(s) for s in shapes], 2)
    assert report, report


@pytest.mark.parametrize("call, kind, text", [
    (lambda: normal(2, 3) @ normal(4, 3), ShapeError, """matmul: axis K disagrees.
    x axis 1 says K = 3
    other axis 0 says K = 4
    shapes: x (N, K) = (2, 3), other (K, M) = (4, 3)
    Did you mean other.mT (its last two axes exchanged)?"""),
    (lambda: normal(5, 3, 2) @ normal(3), ShapeError, """matmul: axis K disagrees.
    x axis 2 says K = 2
    other axis 0 says K = 3
    shapes: x (.., N, K) = (5, 3, 2), other (K) = (3,)
    Did you mean x.mT (its last two axes exchanged)?"""),
    (lambda: normal(2, 2, 3) @ normal(3, 3, 2), ShapeError, """matmul: the shapes do not broadcast: axis -1 has sizes 2 and 3.
    argument 0: (2,)
    argument 1: (3,)
    Aligned from the right, two sizes must be equal or one of them 1. Did you mean unsqueeze() on one of them?"""),
    (lambda: normal(2) @ 3.0, DTypeError, """matmul: both operands must have at least one axis.
    other: float 3.0
    To scale every element use x * y."""),
    (lambda: minidl.einsum("ij,jk->ik", normal(2, 3), normal(2, 3)), ShapeError, """einsum: axis j disagrees.
    operand 0 axis 1 says j = 3
    operand 1 axis 0 says j = 2
    equation: 'ij,jk->ik', shapes (2, 3), (2, 3)
    Make the sizes called j equal."""),
    (lambda: minidl.einsum("ij->ik", normal(2, 3)), ArgumentError, """einsum: the output names letters of the operands, each once.
    equation: 'ij->ik'
    To put a vector on a diagonal multiply by an identity matrix."""),
    (lambda: minidl.einsum("ij,jk", normal(2, 3)), ArgumentError, """einsum: one comma-separated part per operand.
    equation 'ij,jk' has 2
    operands: 1
    Add or drop an operand."""),
    (lambda: minidl.einsum("ijk", normal(2, 3)), ShapeError, """einsum: one letter per axis.
    operand 0: 'ijk', shape (2, 3)
    Use '...' for axes that need no letter."""),
    (lambda: minidl.einsum("i1->i", normal(2, 3)), ArgumentError, """einsum: '1' is not a letter.
    equation: 'i1->i'
    Write letters, commas, '...' and one '->'."""),
])
def test_wrong_shapes_say_what_is_wrong(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
