"""Creation functions: dtypes, storage order, copies and shared memory, ranges, repeatable chance, messages."""

import subprocess
import sys

import numpy as np
import pytest

import minidl
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError
from minidl.nn import functional


@pytest.mark.parametrize("data, dtype", [
    (1.5, "float32"), (3, "int64"), (True, "bool"), ([1, 2], "int64"), ([1, 2.5], "float32"), ([[True]], "bool"), ([], "float32"),
    (np.zeros(2), "float64"), (np.float64(1), "float64"), ([np.zeros(2), np.ones(2)], "float64"), (np.zeros(2, ">f4"), "float32"),
])
def test_python_numbers_get_the_defaults_and_arrays_keep_their_dtype(data, dtype):
    x = minidl.tensor(data)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x.array, data)


def test_python_floats_keep_every_digit():
    for make in (minidl.tensor, minidl.as_tensor):
        assert make([0.1], dtype="float64").item() == make(0.1, dtype="float64").item() == 0.1
    assert minidl.tensor([1e300]).tolist() == [float("inf")] and minidl.tensor([1e300], dtype="float64").tolist() == [1e300]


def test_tensors_inside_lists():
    x = minidl.tensor([minidl.tensor(1.0), minidl.tensor(2.0)])
    assert x.tolist() == [1, 2]
    assert x.dtype == "float32"


def test_tensor_copies_and_from_numpy_shares():
    array = np.zeros(3, np.float32)
    copied, shared, also_shared = minidl.tensor(array), minidl.from_numpy(array), minidl.as_tensor(array)
    array[0] = 5
    assert copied.tolist() == [0, 0, 0]
    assert shared.tolist() == also_shared.tolist() == [5, 0, 0]
    assert minidl.as_tensor(copied) is copied
    assert minidl.as_tensor(array, dtype="float64").dtype == "float64"


def test_a_tensor_of_a_tensor_is_a_leaf():
    x = minidl.ones(2, requires_grad=True)
    y = minidl.tensor(x * 2, requires_grad=True)
    assert y.is_leaf
    assert y.tolist() == [2, 2]


@pytest.mark.parametrize("make", [
    minidl.zeros, minidl.ones, minidl.empty, minidl.rand, minidl.randn, lambda shape: minidl.full(shape, 2.0),
    lambda shape: minidl.zeros_like(minidl.ones(shape)), lambda shape: minidl.tensor(np.zeros(shape)),
    lambda shape: minidl.randint(5, shape), lambda shape: minidl.normal(0.0, 1.0, shape),
    lambda shape: minidl.bernoulli(minidl.zeros(shape)),
])
def test_shapes_and_storage_order(make):
    for shape in [(2, 3, 4, 5), (2, 3), (0, 4), ()]:
        x = make(shape)
        assert x.shape == shape
        assert is_stored_right(x.array)


def test_sizes_one_by_one_as_a_tuple_and_by_name():
    assert minidl.zeros(2, 3).shape == minidl.zeros((2, 3)).shape == minidl.zeros([2, 3]).shape == minidl.zeros(size=(2, 3)).shape == (2, 3)
    assert minidl.zeros().shape == minidl.zeros(()).shape == ()


def test_like_takes_shape_and_dtype():
    x = minidl.ones(2, 3, dtype="float64", requires_grad=True)
    for make in (minidl.zeros_like, minidl.ones_like, minidl.empty_like, minidl.rand_like, minidl.randn_like):
        assert (make(x).shape, make(x).dtype, make(x).requires_grad) == ((2, 3), "float64", False)
    assert minidl.full_like(x, 3, dtype="int32").tolist() == [[3, 3, 3]] * 2


@pytest.mark.parametrize("arguments, values, dtype", [
    ((4,), [0, 1, 2, 3], "int64"), ((1, 4), [1, 2, 3], "int64"), ((5, 0, -2), [5, 3, 1], "int64"), ((0,), [], "int64"),
    ((0, 1, 0.25), [0, 0.25, 0.5, 0.75], "float32"), ((1.0, 3), [1, 2], "float32"), ((3, 1, -0.5), [3, 2.5, 2, 1.5], "float32"),
])
def test_arange(arguments, values, dtype):
    x = minidl.arange(*arguments)
    assert x.tolist() == values
    assert x.dtype == dtype


def test_linspace_eye_one_hot():
    assert minidl.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert minidl.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert functional.one_hot(minidl.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert functional.one_hot(minidl.tensor([[1]]), 4).shape == (1, 1, 4)


DRAWS = [lambda: minidl.rand(50), lambda: minidl.randn(50), lambda: minidl.randint(100, (50,)), lambda: minidl.randperm(50),
         lambda: minidl.normal(1.0, 2.0, (50,)), lambda: minidl.bernoulli(minidl.full((50,), 0.5)), lambda: minidl.zeros(50).normal_(),
         lambda: minidl.zeros(50).uniform_(-1, 1), lambda: minidl.rand(2, 3, 4, 5)]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_numbers(draw):
    minidl.manual_seed(7)
    first, second = draw().tolist(), draw().tolist()
    minidl.manual_seed(7)
    assert draw().tolist() == first
    assert first != second


def test_a_generator_of_ones_own():
    minidl.manual_seed(0)
    before = minidl.default_generator.get_state()
    generator = minidl.Generator().manual_seed(3)
    x = minidl.rand(4, generator=generator)
    assert minidl.default_generator.get_state() == before
    state = generator.get_state()
    y = minidl.randn(4, generator=generator)
    assert minidl.randn(4, generator=generator.set_state(state)).tolist() == y.tolist()
    assert minidl.rand(4, generator=minidl.Generator().manual_seed(3)).tolist() == x.tolist()
    assert generator.initial_seed() == 3


def test_random_numbers_do_not_depend_on_the_storage_order():
    minidl.manual_seed(1)
    image = minidl.randn(2, 3, 4, 5)
    minidl.manual_seed(1)
    assert image.reshape(-1).tolist() == minidl.randn(120).tolist()


def test_the_distributions():
    minidl.manual_seed(0)
    n = 20000
    x = minidl.randn(n, dtype="float64")
    assert abs(x.mean().item()) < 5 / n**0.5  # five standard errors
    assert abs(x.std().item() - 1) < 5 / (2 * n) ** 0.5
    u = minidl.zeros(n).uniform_(2, 3)
    assert u.amin().item() >= 2
    assert u.amax().item() < 3
    assert abs(u.mean().item() - 2.5) < 5 * (1 / 12 / n) ** 0.5
    assert sorted(set(minidl.randint(2, 5, (n,)).tolist())) == [2, 3, 4]
    assert sorted(minidl.randperm(9).tolist()) == list(range(9))
    assert minidl.bernoulli(minidl.tensor([0.0, 1.0])).tolist() == [0, 1]
    assert minidl.normal(minidl.tensor([0.0, 100.0]), 0.1).shape == (2,)
    assert minidl.rand(n, dtype="float16").amax().item() < 1


@pytest.mark.parametrize("call, text", [
    (lambda: minidl.tensor([[1, 2], [3]]), "tensor: nested lists must have equal lengths."),
    (lambda: minidl.tensor(["a"]), "tensor: every element must be a number."),
    (lambda: minidl.tensor(2**70), "tensor: this integer does not fit into int64."),
    (lambda: minidl.tensor(np.zeros(2, complex)), "tensor: complex128 is not an element type of minidl."),
    (lambda: minidl.from_numpy([1]), "from_numpy: it takes a NumPy array."),
    (lambda: minidl.zeros(-1), "zeros: a size is a whole number, 0 or more."),
    (lambda: minidl.zeros(2.5), "zeros: a size is a whole number, 0 or more."),
    (lambda: minidl.arange(0, 5, 0), "arange: step must lead from start to end."),
    (lambda: minidl.arange(5, 0), "arange: step must lead from start to end."),
    (lambda: minidl.randint(3, 3, (2,)), "randint: low must be below high."),
    (lambda: minidl.randn(2, dtype=int), "randn: these random numbers are floating point."),
    (lambda: minidl.bernoulli(minidl.tensor([1.5])), "bernoulli: a probability lies between 0 and 1."),
    (lambda: functional.one_hot(minidl.tensor([3]), 2), "one_hot: a class must lie between 0 and num_classes − 1 = 1."),
    (lambda: functional.one_hot(minidl.tensor([0.5])), "one_hot: classes are whole numbers."),
    (lambda: functional.one_hot(minidl.zeros(0, dtype=int)), "one_hot: without any class their number cannot be guessed."),
    (lambda: minidl.zeros(2, dtype=int, requires_grad=True), "requires_grad_: only floating point tensors can have a gradient."),
])
def test_messages(call, text):
    with pytest.raises(MinidlError) as caught:
        call()
    lines = str(caught.value).split("\n    ")
    assert lines[0] == text
    assert len(lines) >= 3  # the rule, a fact, the fix


def test_public_names_are_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    own = {"backend", "bench", "check", "core", "data", "debug", "detect_anomaly", "explain", "flight_recorder", "lessons", "models",
           "planted", "profile", "step", "stepper", "train", "use_backend", "use_fusion", "use_tf32", "use_winograd", "MinidlError"}
    assert {name for name in dir(minidl) if not hasattr(torch, name)} <= own
    assert [name for name in functional.__all__ if not hasattr(torch.nn.functional, name)] == ["stochastic_depth"]  # torchvision has it
    missing = [name for name in minidl.ops.__all__ if hasattr(torch, name) and not hasattr(minidl, name)]
    assert [name for name in missing if not hasattr(torch.nn.functional, name)] == []  # torch.batch_norm and F.batch_norm are not one


@pytest.mark.parametrize("name, text", [
    ("sofmax", "minidl has no 'sofmax'. The nearest name it has is minidl.softmax."),
    ("gelu", "minidl has no 'gelu'. The nearest name it has is minidl.nn.functional.gelu."),
    ("qqqqq", "minidl has no 'qqqqq'."),
])
def test_a_name_that_does_not_exist(name, text):
    with pytest.raises(AttributeError) as caught:
        getattr(minidl, name)
    assert str(caught.value) == text


def test_import_brings_in_nothing_heavy():
    heavy = ["click", "rich", "matplotlib", "ziamath", "cupy", "torch", "numpy.random", "safetensors", "threadpoolctl"]
    code = f"import sys, minidl; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
