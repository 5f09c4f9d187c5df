"""Every op against PyTorch: values, dtypes, gradients and second-order gradients in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")

import minidl  # noqa: E402
from minidl.core.op import OPS  # noqa: E402
from tests.parity.both import MINIDL, TORCH, check_line, compare, draw  # noqa: E402
from tests.parity.cases import DTYPE_LINES, LINES  # noqa: E402

TWINS = {  # ops whose PyTorch twin is not simply the function of the same name with the same arguments
    "getitem": lambda x, index: x[index],
    "einsum": lambda operands, equation: torch.einsum(equation, *operands),
    "maximum": lambda x, other: torch.maximum(x, torch.as_tensor(other, dtype=x.dtype)),  # minidl takes numbers too
    "minimum": lambda x, other: torch.minimum(x, torch.as_tensor(other, dtype=x.dtype)),
    "expand": torch.Tensor.expand,
    "fmod": lambda x, other: torch.fmod(torch.as_tensor(x), other),
    "binary_cross_entropy_with_logits": lambda x, target, weight=None, pos_weight=None, **k:  # tensors first, in minidl
        torch.nn.functional.binary_cross_entropy_with_logits(x, target, weight=weight, pos_weight=pos_weight, **k),
    "to": lambda x, *a, **k: x.to(*a, **{key: getattr(torch, str(v), v) for key, v in k.items()}),
}
INPUTS = {"cross_entropy": 2, "nll_loss": 2, "binary_cross_entropy": 2, "binary_cross_entropy_with_logits": 2}
# how many of the arguments are differentiated: class weights are constants
REASONS = {  # ops without a twin, and why; a gradient op x_grad_... is compared where x is
    "max_pool2d_at": "the gradient of max_pool2d's gradient; compared there",
    "embed": "what embedding() is made of; compared there",
    "resample": "what interpolate() is made of; compared there",
    "huber": "what huber_loss() and smooth_l1_loss() are made of; compared there",
    "masked_scale": "what dropout() is made of, the mask an argument; PyTorch's takes none",
    "neighbour_sum": "what local_response_norm() is made of; compared there",
    "normalize_over": "what layer, group and instance norm are made of; compared there",
    "batch_norm_train": "batch_norm() in training; compared there",
    "batch_norm_eval": "batch_norm() in evaluation; compared there",
    "batch_norm_grad": "the gradient of batch_norm_train; compared through batch_norm()",
    "cross_entropy_grad": "the gradient of cross_entropy, compared there",
    "pass_on": "carries the hooks of modules; it computes nothing",
}


def reason(name):
    """Why this op has no twin, or "" where it has one."""
    if twin(name):
        return ""
    whole, gradient, _ = name.partition("_grad")
    return f"the gradient of {whole}; compared there" if gradient and (whole in OPS) else REASONS.get(name, "")


def twin(name):
    """The PyTorch function that an op stands for, or None."""
    if name in TWINS:
        return TWINS[name]
    name = name.removesuffix("_along").removesuffix("_of_all")  # max(x, dim) and max(x) are two ops, one function in PyTorch
    return next((getattr(place, name) for place in (torch.nn.functional, torch, torch.Tensor) if hasattr(place, name)), None)


def test_every_op_has_a_twin_or_a_reason():
    missing = [name for name in OPS if not twin(name) and not reason(name)]
    assert not missing, f"give these a twin in TWINS or a reason in REASONS: {missing}"


@pytest.mark.parametrize("name, number", [(name, k) for name, op in OPS.items() if not reason(name) for k in range(len(op.examples))])
@pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:reduction. 'mean' divides")  # PyTorch's own
def test_examples(name, number):
    op = OPS[name]

    def run(library, values):
        values, settings = values[:len(args)], dict(zip(named, values[len(args):], strict=True))
        y = op.function(*values, **settings) if library is MINIDL else twin(name)(*values, **settings)
        return list(y) if isinstance(y, (tuple, list)) else [y]

    for seed in range(3):
        args, named = op.examples[number].build(seed)
        if name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"):
            args = [a.astype(int) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args]
        compare(run, list(args) + list(named.values()), seed=seed, inputs=INPUTS.get(name, 99))


def value_off(library, values):
    return [values[0] ** 2 * (1 + 1e-9 * (library is MINIDL))]


def gradient_off(library, values):
    x = values[0]
    return [x * x if library is TORCH else (x * x).detach() + 1.9 * (x * x.detach() - (x * x.detach()).detach())]


def second_gradient_off(library, values):
    x = values[0]
    return [x * x if library is TORCH else (x * x).detach() + 2 * (x * x.detach() - (x * x.detach()).detach())]


def dtype_off(library, values):
    return [values[0] if library is TORCH else values[0].float()]


@pytest.mark.parametrize("planted", [value_off, gradient_off, second_gradient_off, dtype_off])
def test_the_comparison_notices(planted):
    with pytest.raises(AssertionError, match="second gradient" if planted is second_gradient_off else None):
        compare(planted, [np.array([0.5, -1.5])])


@pytest.mark.parametrize("code, shapes", LINES, ids=[code for code, _ in LINES])
def test_lines(code, shapes):
    for seed in range(3):
        rng = np.random.default_rng([seed, len(code)])
        values = {}
        for name, shape in shapes.items():
            kind, shape = (shape[-1], shape[:-1]) if isinstance(shape, tuple) and shape and isinstance(shape[-1], str) else ("", shape)
            values[name] = draw(rng, shape, kind) if isinstance(shape, tuple) else shape
        check_line(code, values, seed=seed, tolerance=1e-5 if any(getattr(v, "dtype", "") == "float32" for v in values.values()) else 1e-10)


def test_std_of_equal_elements():
    check_line("(x * 0 + 1).std(1)", {"x": np.ones((2, 3))}, orders=1)  # PyTorch's second order is NaN there


DIFFERENT = {  # on purpose
    "x.all()": "always bool; PyTorch makes an exception of uint8",
    "x.any(0)": "always bool; PyTorch makes an exception of uint8",
    "torch.sign(x)": "bool has no sign; PyTorch gives it back",
}
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@pytest.mark.parametrize("code", [code for code in DTYPE_LINES if code not in DIFFERENT])
def test_dtypes(code):
    """The dtype of the result, wherever PyTorch has one, for every dtype (and pair of them)."""
    two = " y" in code or "y," in code or "y)" in code
    wrong = []
    for first in DTYPES:
        for second in DTYPES if two else ("float32",):
            for second_shape in ((2, 2), ()) if two else ((2, 2),):
                values = {"x": np.ones((2, 2), first), "y": np.ones(second_shape, second)}
                found = [_dtype_of(library, code, values) for library in (MINIDL, TORCH)]
                if found[0] != found[1] != "refused":  # what PyTorch refuses we may allow
                    wrong.append(f"{code} with x {first}, y {second} {second_shape}: minidl {found[0]}, PyTorch {found[1]}")
    assert not wrong, "\n".join(wrong)


def _dtype_of(library, code, values):
    try:
        outputs = library.evaluate(code, {k: library.make(v, False) for k, v in values.items()})
    except (RuntimeError, TypeError, minidl.core.errors.MinidlError):
        return "refused"
    return [str(y.dtype).replace("torch.", "") for y in outputs]


def random_index(rng, shape):
    """An index of every kind PyTorch has, mixed: ints, slices, None, ..., integer arrays that broadcast, one mask."""
    items, axis, common, masked = [], 0, [(2,), (1,), (3, 2), ()][rng.integers(4)], False
    while axis < len(shape):
        n, kind = shape[axis], rng.choice(["int", "slice", "none", "array", "array", "mask", "stop"])
        if kind == "stop":
            break
        if kind == "none":
            items.append(None)
            continue
        if kind == "int":
            items.append(int(rng.integers(-n, n)))
        elif kind == "array":
            items.append(rng.integers(-n, n, common[rng.integers(len(common) + 1):]))
        elif kind == "mask" and not masked:
            items.append(np.arange(n) == rng.integers(n))  # one True: broadcasts with any array
            masked = True
        else:
            items.append(slice(*([None, int(rng.integers(-n, n + 1))][rng.integers(2)] for _ in range(2)), [None, 1, 2][rng.integers(3)]))
        axis += 1
    if rng.random() < 0.3 and len(items) < 6:
        items.insert(rng.integers(len(items) + 1), ...) if axis == len(shape) else items.append(...)
    return tuple(items)


@pytest.mark.parametrize("seed", range(200))
def test_random_indices(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, rng.integers(1, 5)))
    x, index = np.asarray(rng.standard_normal(shape)), random_index(rng, shape)
    compare(lambda library, values: [values[0][values[1]] * values[0].sum()], [x, index], seed=seed)


@pytest.mark.parametrize("seed", range(100))
def test_random_products(seed):
    rng = np.random.default_rng(seed)
    sizes = {letter: int(rng.integers(0, 4)) for letter in "abcd"}
    terms = ["".join(rng.choice(list("abcd"), rng.integers(0, 4))) for _ in range(rng.integers(1, 4))]
    output = "".join(letter for letter in rng.permutation(list("abcd")) if any(letter in t for t in terms) and rng.random() < 0.5)
    values = [np.asarray(rng.standard_normal([sizes[letter] for letter in term])) for term in terms]
    equation = f"{','.join(terms)}->{output}"
    compare(lambda library, values: [library.module.einsum(equation, *values)], values, seed=seed)
