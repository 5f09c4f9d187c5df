"""Worked numbers: for every op and example, the terms add up to what the op stored, forward and in each gradient."""

import io

import numpy as np
import pytest

from minidl.core.derivative import backward
from minidl.core.gradcheck import op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor
from minidl.nn import BatchNorm2d
from minidl.ops import conv2d, relu, where
from minidl.stepper import step
from minidl.stepper.terminal import Paper, Prompt
from minidl.stepper.worked import Again, available, text, updated, worked_out


def leaves(value):
    """Every floating tensor as a leaf that wants a gradient."""
    if isinstance(value, list):
        return [leaves(v) for v in value]
    return value.requires_grad_() if isinstance(value, Tensor) and value.dtype.kind == "f" else value


def recorded(op, example, dtype):
    """The trace of one example of an op, forward and back."""
    function, inputs, settings = op_call(op, example, 0, dtype)
    rng = np.random.default_rng(1)
    with step() as trace:
        y = function(*[leaves(x) for x in inputs], **settings)
        ys = [t for t in (y if isinstance(y, tuple) else (y,)) if t.requires_grad]
        if ys:
            backward(ys, [Tensor(rng.standard_normal(t.shape).astype(t.dtype)) for t in ys])
    return trace


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_terms_add_up_to_what_was_stored(op, dtype):
    for example in op.examples:
        trace = recorded(op, example, dtype)
        forward = trace.forwards[0]
        assert not available(forward)
        found = worked_out(forward)
        kept = [y for k, y in enumerate(forward.outputs) if y.array.size and not (len(forward.outputs) > 1 and k in op.non_differentiable)]
        assert len(found[forward.step]) == len(kept)
        for row in (row for rows in found.values() for row in rows):
            assert row["agree"], f"{op.name}({example}): {row['text']}"
            if row["kind"] == "sum":
                parts = sum(float(term["product"]) for term in row["terms"]) + float(row["rest"])
                sizes = sum(abs(float(term["product"])) for term in row["terms"]) + abs(float(row["rest"]))
                assert abs(parts - float(row["total"])) <= 1e-5 * sizes + 1e-12, row["text"]
        for back in forward.backwards:
            wanted = [f"grad_{part.argument}" for part in back.contributions if part.grad.array.size]
            assert [row["of"] for row in found[back.step]] == wanted


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_worked_out_in_silence(number):  # warnings are errors here
    x, w = Tensor(np.array([[number, 1], [-number, 2]], np.float32), requires_grad=True), Tensor(np.ones((2, 2), np.float32), True)
    with step() as trace:
        y = where(Tensor(np.array([[True, False], [False, True]])), x @ w, x * w).sum()
        y.backward()
    rows = [row for item in trace.forwards for some in worked_out(item).values() for row in some]
    assert len(rows) == 11 and trace.describe()["steps"]


def test_a_wrong_stored_number_does_not_agree():
    x = Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    with step() as trace:
        y = x @ x
        y.backward(Tensor(np.ones((2, 2))))
    forward, back = trace.forwards[0], trace.backwards[0]
    forward.outputs[0].array = forward.outputs[0].array * 1.0001
    back.contributions[0].grad.array = back.contributions[0].grad.array * 1.0001
    rows = worked_out(forward)
    assert not rows[forward.step][0]["agree"] and "✗" in rows[forward.step][0]["text"]
    assert not rows[back.step][0]["agree"]


def test_a_convolution_is_a_window_times_a_filter():
    rng = np.random.default_rng(0)
    x, w = Tensor(rng.standard_normal((1, 2, 4, 4)), requires_grad=True), Tensor(rng.standard_normal((3, 2, 3, 3)), requires_grad=True)
    with step() as trace:
        y = relu(conv2d(x, w, padding=1))
        y.backward(Tensor(np.ones(y.shape)))
    row = Again(trace.forwards[0]).output(0, (0, 1, 2, 2))
    assert len(row["terms"]) + row["more"] == 18 and row["kind"] == "sum"
    for term in row["terms"]:
        assert term["text"].startswith("x[0,")
    assert float(row["total"]) == pytest.approx((x.array[0, :, 1:4, 1:4] * w.array[1]).sum(), rel=1e-5)
    back = trace.backwards[-1]
    row = Again(trace.forwards[0]).gradient(back, 1, (2, 1, 0, 0))
    assert row["name"] == "grad_weight[2,1,0,0]" and all(term["text"].startswith("grad_y[0,2,") for term in row["terms"])
    assert len(row["terms"]) + row["more"] <= 9  # the positions whose window has this corner inside the picture


def test_what_is_from_before_the_recording_cannot_be_worked_out():
    x = Tensor(np.ones(3), requires_grad=True)
    h = x * 2
    with step() as trace:
        y = h * 3
        y.backward(Tensor(np.ones(3)))
    assert "before the recording" in available(trace.backwards[1].forward)
    assert worked_out(trace.backwards[1].forward) == {}


def test_an_optimisers_step_is_worked_out_where_it_moved_most():
    from minidl.nn import Linear
    from minidl.optim import SGD

    layer = Linear(3, 2)
    optimizer = SGD(layer.parameters(), lr=0.5)
    with step(layer) as trace:
        layer(Tensor(np.ones((1, 3), np.float32))).sum().backward()
        optimizer.step()
    (item,) = trace.updates
    (row,) = updated(item)
    assert row["agree"] and row["terms"][1]["factor"] == pytest.approx(-0.5, rel=1e-4)
    assert {change.before.name for change in item.rows} == {"weight", "bias"}
    assert [change.after.name for change in item.rows] == ["weight'", "bias'"]
    assert item.rows[0].change > 0


def test_nothing_is_also_a_number():
    row = {"name": "y[0]", "kind": "sum", "terms": [], "more": 0, "total": 0.0, "stored": 0.0, "agree": True}
    assert text(row) == "y[0] = 0: every term is 0  ✓ stored 0"


def test_a_statistic_beside_the_result_has_no_terms_and_says_so():
    layer, x = BatchNorm2d(2), Tensor(np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32), requires_grad=True)
    with step(layer) as trace:
        layer(x).sum().backward()
    forward = trace.forwards[0]
    assert [row["of"] for row in worked_out(forward)[forward.step]] == ["y[0]"]  # not 0·x + 0·x = mean
    assert [Again(forward).output(k) for k in (1, 2)] == [None, None]
    for command in ("w op1.mean", "w op1.mean[0]", "w y[1]", "w y[1][0]"):
        answer = dialogue(trace, command)
        assert "no gradient flows through it" in answer and "v op1.mean" in answer, command
    assert "y[0][0,1,2,2]" in dialogue(trace, "w y[0][0,1,2,2]")
    assert "y[0][0,1,2,2]" in dialogue(trace, "w y[0,1,2,2]")
    assert "no element of it" in dialogue(trace, "w y[5,1,2,2]")


def dialogue(trace, command):
    """What the prompt answers to one command."""
    out = io.StringIO()
    Prompt(trace, Paper(out)).onecmd(command)
    return out.getvalue()
