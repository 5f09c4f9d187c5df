"""Every op × every example, from the registry: right gradients to second order, and whatever else an op promises."""

import contextlib

import numpy as np
import pytest
from kept_bytes import NONE, kept_bytes, leaves_of

import minidl
from minidl import backend
from minidl.core import op as registry
from minidl.core.config import use_backend
from minidl.core.device import why_no_cuda
from minidl.core.dtypes import is_floating
from minidl.core.gradcheck import NOTHING, Function, check_op, op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

CASES = [pytest.param(op, e, id=f"{name}-{k}") for name, op in sorted(OPS.items()) for k, e in enumerate(op.examples)]
every_op = pytest.mark.parametrize("op", [pytest.param(o, id=n) for n, o in sorted(OPS.items())])
every_case = pytest.mark.parametrize("op, example", CASES)


def flat(value):
    """The Tensors in nested arguments."""
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in flat(v)]
    return [value] if isinstance(value, Tensor) else []


def rebuilt(value, change):
    """The same nesting with every Tensor changed."""
    if isinstance(value, (list, tuple)):
        return type(value)(rebuilt(v, change) for v in value)
    return change(value) if isinstance(value, Tensor) else value


def outputs_and_grads(op, inputs, settings, seed=0):
    """Run forward and backward with random cotangents: (outputs, {place among the flat inputs: gradient})."""
    inputs = leaves_of(inputs)
    y = op.function(*inputs, **settings)
    ys = y if isinstance(y, tuple) else (y,)
    rng = np.random.default_rng(seed)
    roots = [t for t in ys if t.requires_grad]
    us = [Tensor(np.asarray(rng.standard_normal(t.shape), t.dtype)).to(device=t.device) for t in roots]
    leaves = [(k, t) for k, t in enumerate(flat(inputs)) if t.requires_grad]
    if not roots:
        return ys, {}
    grads = minidl.autograd.grad(roots, [t for _, t in leaves], us, allow_unused=True)
    return ys, {k: g for (k, _), g in zip(leaves, grads, strict=True) if g is not None}


@contextlib.contextmanager
def planted(op, change):
    """Change what the backward of one op returns. What this test plants, the check must find."""

    def plant(call):
        if call.op is not op:
            return
        node = next((y.edge[0] for y in call.outputs if y.edge), None)
        right = node and node.backward
        if right:
            def wrong(*grads):
                result = right(*grads)
                return tuple(map(change, result)) if isinstance(result, tuple) else change(result)

            node.backward = wrong

    registry.OBSERVERS.append(plant)
    try:
        yield
    finally:
        registry.OBSERVERS.remove(plant)


@every_case
def test_gradients_are_right_to_second_order(op, example):
    report = check_op(op, example, order=2, probes=2)
    assert report.ok, f"\n{report}"
    assert not report.skipped, "an example should keep away from kinks and ties"


def scaled(g):
    return None if g is None else g * 1.01


def shifted(g):
    return None if g is None else g + 0.01


@every_case
def test_one_percent_is_caught(op, example):
    """Zero gradients have no one percent: there something is added."""
    _, grads = outputs_and_grads(op, *op_call(op, example)[1:])
    if not any(g.array.size for g in grads.values()):
        return  # no gradient at all: test_what_has_no_gradient
    with planted(op, scaled if any(np.any(g.array != 0) for g in grads.values()) else shifted):
        report = check_op(op, example, order=1, probes=1, explain=False)
    assert not report.ok and any(row.verdict == "wrong" and row.probes for row in report.rows), f"\n{report}"


@every_case
def test_what_has_no_gradient(op, example):
    """Integer and bool results never require grad, and an op that says it has no gradient gives none."""
    ys, _ = outputs_and_grads(op, *op_call(op, example)[1:])
    for number, y in enumerate(ys):
        if not is_floating(y.dtype) or number in op.non_differentiable:
            assert not y.requires_grad
    if not any(y.requires_grad for y in ys):
        report = check_op(op, example)  # its floating outputs must then have slope 0
        assert report.ok
        assert any(row.reason in NOTHING for row in report.rows) or all(row.numeric == 0 for row in report.rows if row.probes)


@every_case
def test_inputs_stay_untouched(op, example):
    """Bytes before and after forward and backward; the gradient with create_graph is the gradient without."""
    fn, inputs, settings = op_call(op, example)
    before = [t.array.tobytes() for t in flat(inputs)]
    outputs_and_grads(op, inputs, settings)
    assert [t.array.tobytes() for t in flat(inputs)] == before
    f = Function(fn, inputs, settings=settings)
    f.pick_outputs()
    if not f.outputs or not f.arrays:
        return
    u = [np.random.default_rng(1).standard_normal(y.shape) for y in f.evaluate(f.arrays)]
    u_before = [np.asarray(w).tobytes() for w in u]
    plain, recorded = f.gradients(f.arrays, u), f.gradients(f.arrays, u, create_graph=True)
    assert [np.asarray(w).tobytes() for w in u] == u_before
    for a, b in zip(plain, recorded, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    assert [t.array.tobytes() for t in flat(inputs)] == before


def transposed(array):
    return array.T.copy("C").T


def strided(array):
    if not array.ndim:
        return array
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def reversed_storage(array):
    return array[::-1].copy()[::-1] if array.ndim else array


def channels_last(array):
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)).swapaxes(1, -1).swapaxes(2, -1) if array.ndim == 4 else transposed(array)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@every_case
def test_any_storage_order(op, example):
    """The same numbers in another order in memory give the same results; read-only inputs are enough."""
    _, inputs, settings = op_call(op, example)
    ys, grads = outputs_and_grads(op, inputs, settings)
    for layout in (transposed, strided, reversed_storage, channels_last, read_only):
        changed = rebuilt(inputs, lambda t, layout=layout: Tensor(layout(t.array)))
        other_ys, other_grads = outputs_and_grads(op, changed, settings)
        for a, b in [*zip(ys, other_ys, strict=True), *((grads[k], other_grads[k]) for k in grads)]:
            assert a.shape == b.shape and a.dtype == b.dtype, layout.__name__
            np.testing.assert_allclose(a.array, b.array, rtol=1e-12, atol=1e-13, err_msg=layout.__name__)


@every_case
def test_float32_stays_float32(op, example):
    """And its gradient is the float64 gradient up to float32's rounding."""
    _, inputs, settings = op_call(op, example, dtype=np.float32)
    _, wide, wide_settings = op_call(op, example, dtype=np.float64)
    if "dtype" in settings:
        return
    ys, grads = outputs_and_grads(op, inputs, settings)
    wide_ys, wide_grads = outputs_and_grads(op, wide, wide_settings)
    for y, w in zip(ys, wide_ys, strict=True):
        assert y.dtype == (np.float32 if w.dtype == np.float64 else w.dtype), f"{op.name} returned {y.dtype}"
    for k, g in grads.items():
        assert g.dtype == np.float32
        w = wide_grads[k].array
        np.testing.assert_allclose(g.array, w, rtol=2e-4, atol=2e-5 * max(1.0, np.max(np.abs(w), initial=0)))


@every_case
def test_every_backend_agrees(op, example):
    _, inputs, settings = op_call(op, example)
    ys, _ = outputs_and_grads(op, inputs, settings)
    for name in backend.names(op.name):
        if name.startswith("cuda"):
            continue
        with use_backend(name):
            try:
                other = op.function(*inputs, **settings)
            except minidl.core.errors.BackendError:
                continue  # this implementation refuses this call, and says why
        for a, b in zip(ys, other if isinstance(other, tuple) else (other,), strict=True):
            np.testing.assert_allclose(a.array, b.array, rtol=1e-10, atol=1e-12, err_msg=name)


ZERO_SIZE = [n for n, o in OPS.items() if len(o.tensors) <= 2 and not o.takes_list]


@pytest.mark.parametrize("name", ZERO_SIZE)
def test_no_elements(name):
    """Zero-size inputs: the op works, or refuses in its own words; never a bare NumPy error."""
    op = OPS[name]
    x = Tensor(np.zeros((0, 3)), True)
    args = (x,) if len(op.tensors) == 1 else (x, Tensor(np.zeros((0, 3)), True))
    try:
        result = op.function(*args)
    except (minidl.core.errors.MinidlError, TypeError) as error:
        assert str(error)
        return
    for y in result if isinstance(result, tuple) else (result,):
        if y.requires_grad:
            (grad,) = minidl.autograd.grad(y, [x], Tensor(np.zeros(y.shape)), allow_unused=True)
            assert grad is None or grad.shape == x.shape


@every_op
def test_the_registration_is_complete(op):
    assert op.examples, "an op without an example is an op without a test"
    assert op.tex, "docs and the stepper show tex="
    assert "Shapes:" in op.doc and "Backward:" in op.doc, "the docstring has formula, Shapes: and Backward:"
    assert op.doc.splitlines()[0].endswith((".", ":")) or "=" in op.doc, "the docstring starts with what the op computes"
    assert op.function.op is op


@every_case
def test_kept_bytes(op, example):
    """Only what the formula names is kept alive for backward."""
    count = kept_bytes(op, example)
    if op.name in NONE:
        assert not count, f"{op.name} keeps {count} bytes alive; its gradient needs none"


def test_kept_bytes_sees_what_is_kept():
    mul = OPS["mul"]
    assert kept_bytes(mul, mul.examples[0]) == 2 * 6 * 8
    assert kept_bytes(OPS["tanh"], OPS["tanh"].examples[0]) == 6 * 8


def test_the_registry_has_every_op_of_the_table():
    assert set(NONE) <= set(OPS) | {"transpose", "stack", "squeeze", "unsqueeze", "flatten"}


@pytest.mark.skipif(bool(why_no_cuda()), reason=why_no_cuda() or "a GPU is present")
@every_op
def test_the_gpu_agrees(op):
    for example in op.examples:
        _, inputs, settings = op_call(op, example)
        ys, grads = outputs_and_grads(op, inputs, settings)
        other_ys, other_grads = outputs_and_grads(op, rebuilt(inputs, lambda t: t.to(device="cuda")), settings)
        for a, b in [*zip(ys, other_ys, strict=True), *((grads[k], other_grads[k]) for k in grads)]:
            np.testing.assert_allclose(a.array, b.cpu().array, rtol=1e-10, atol=1e-12)
