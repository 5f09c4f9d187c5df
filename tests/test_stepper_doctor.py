"""The doctor: a NaN planted anywhere is blamed on the op that made it; dead units, saturation, wild and vanished gradients."""

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.core.errors import ArgumentError
from minidl.core.tensor import Tensor
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.stepper import flight_recorder, load, step
from minidl.stepper.conditions import condition
from minidl.stepper.doctor import blame, findings, flags
from minidl.stepper.flight import FlightError

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the point of this file is arithmetic that goes wrong


class Net(nn.Module):
    """Small enough to see through, with a place for a mistake."""

    def __init__(self, middle=lambda h: h, end=lambda s: s):
        super().__init__()
        minidl.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.middle, self.end = middle, end

    def forward(self, x):
        h = F.relu(self.norm(self.conv(x)))
        h = self.middle(h)
        return self.end(self.fc(h.mean((2, 3))))


def run(net=None, x=None, **places):
    """A recorded training step."""
    net = net or Net(**places)
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32) if x is None else x
    with np.errstate(all="ignore"), step(net) as trace:
        F.cross_entropy(net(Tensor(x)), Tensor(np.array([0, 2]))).backward()
    return trace


def bad_weight():
    net = Net()
    with minidl.no_grad():
        net.fc.weight[1, 2] = float("nan")
    return run(net)


def bad_pixel():
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32)
    x[1, 0, 2, 2] = np.nan
    return run(x=x)


def zero_over_zero_in_a_norm():
    return run(middle=lambda h: h / ((h * 0) ** 2).sum((1, 2, 3), keepdim=True).sqrt())


def infinity_minus_infinity():
    return run(middle=lambda h: ((h + 1) * 3e38 * 100) - ((h + 1) * 3e38 * 50))


PLANTED = {  # where it is planted -> (the trace, the op that must be blamed, or None for a leaf)
    "log of zero": (lambda: run(middle=lambda h: (h * 0).log()), "log"),
    "0/0 in a norm": (zero_over_zero_in_a_norm, "div"),
    "inf - inf": (infinity_minus_infinity, "mul"),
    "overflow in exp": (lambda: run(middle=lambda h: (h * 1000 + 100).exp()), "exp"),
    "root of a negative number": (lambda: run(middle=lambda h: (h - 5).sqrt()), "sqrt"),
    "a softmax written by hand": (lambda: run(end=lambda s: (s * 1e4).exp() / (s * 1e4).exp().sum(1, keepdim=True)), "exp"),
    "log of a softmax": (lambda: run(end=lambda s: F.softmax(s * 1e5, 1).log()), "log"),
    "a power of a negative number": (lambda: run(middle=lambda h: (h - 9) ** 0.5), "pow"),
    "division by zero": (lambda: run(middle=lambda h: 1 / (h * 0)), "div"),
    "a bad weight": (bad_weight, None),
    "a bad pixel": (bad_pixel, None),
    "a product that overflows": (lambda: run(middle=lambda h: (h + 1) * 1e30 * 1e30), "mul"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_nan_is_blamed_on_the_op_that_made_it(name):
    make, op = PLANTED[name]
    found = blame(make())
    assert found is not None
    assert (found.cause and found.cause.op.name) == op, found.lines
    if op is None:
        assert {"a bad weight": "fc.weight", "a bad pixel": "x"}[name] == found.value.name


def test_a_finite_step_is_not_blamed():
    trace = run()
    assert blame(trace) is None and not [flag for item in trace.steps for flag in flags(item) if flag["kind"] in ("nan", "inf")]


def test_an_infinite_slope_is_blamed_on_the_backward():
    x = Tensor(np.array([0.0, 4.0]), requires_grad=True)
    with np.errstate(all="ignore"), step() as trace:
        ((x.sqrt()) * 2).sum().backward()
    found = blame(trace)
    assert found.cause.kind == "backward" and found.cause.op.name == "sqrt" and "2" not in found.lines[0].partition("sqrt")[0]


def test_masked_infinities_are_nobodys_fault():
    scores = Tensor(np.array([[1.0, 2.0, 3.0]]), requires_grad=True)
    with step() as trace:
        F.softmax(scores.masked_fill(Tensor(np.array([[False, True, False]])), float("-inf")), 1).sum().backward()
    assert blame(trace) is None


def test_growth_before_the_overflow_is_named():
    trace = run(middle=lambda h: ((h + 0.5) * 1e4).exp())
    assert "growth began" in " ".join(blame(trace).lines) and "mul" in " ".join(blame(trace).lines)


def test_dead_units_are_counted():
    net = Net()
    with minidl.no_grad():
        net.norm.bias.fill_(0.0)
        net.norm.bias[1] = -50.0
    trace = run(net)
    (flag,) = [flag for item in trace.forwards for flag in flags(item) if flag["kind"] == "dead"]
    assert flag["text"] == "1 of 4 channels are 0 for every sample"
    assert any(line.startswith("dead: relu") for line in findings(trace))


def test_saturation_exploding_vanishing_and_gradients_that_are_zero():
    kinds = lambda trace: {flag["kind"] for item in trace.steps for flag in flags(item)}
    assert "saturated" in kinds(run(end=lambda s: (s * 1000).sigmoid()))
    assert "exploding" in kinds(run(end=lambda s: s * 1e6))
    assert "vanishing" in kinds(run(end=lambda s: s * 1e-9))
    assert "zero-grad" in kinds(run(end=lambda s: s * 0))
    assert not kinds(run())


def test_float64_creeping_in_is_seen():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    with step() as trace:
        y = x * Tensor(np.ones(3))
        x.to(dtype="float64")
    assert y.dtype == np.float64
    assert [f["kind"] for f in flags(trace.forwards[0])] in ([], ["float64"])  # a float64 operand is no creep
    trace.forwards[0].inputs = trace.forwards[0].inputs[:1]
    assert [f["kind"] for f in flags(trace.forwards[0])] == ["float64"] and not flags(trace.forwards[1])


# --- conditions -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, steps", [
    ("nan", 0), ("conv2d", 2), ("fc", 2), ("f*", 2), ("|g|>1e9", 0), ("|g|<1e9", 6), ("|y|>1e9", 0), ("2x4x5x5", 6), ("2×4×*×5", 6),
    ("2x4", 2), ("check-fail", 0), ("drift>1", 0), ("dead", 0)])
def test_conditions(text, steps):
    trace = run()
    assert sum(condition(text, trace).holds(item) for item in trace.steps) == steps


@pytest.mark.parametrize("text", ["softmax", "nothing", "|g|>x", "|g|>1e", ""])
def test_what_is_no_condition_says_what_is(text):
    with pytest.raises(ArgumentError, match="condition"):
        condition(text, run())


def test_a_backward_that_multiplies_with_an_infinity_is_not_its_cause():
    x, w, target = Tensor(np.array([[1.0, 2.0]]), requires_grad=True), Tensor(np.array([[1.0, -1.0], [1.0, 1.0]])), Tensor(np.zeros(2))
    with step() as trace, np.errstate(all="ignore"):
        ((x @ w - target) / target).square().mean().backward()  # NaN shows at ∞ - ∞ in the backward of @
    found = blame(trace)
    assert found.symptom.kind == "backward" and found.cause is trace.forwards[2] and found.cause.op.name == "div"


# --- the flight recorder ----------------------------------------------------------------------------------------------

def trained_to_death(tmp_path, momentum=0.9):
    """A training loop whose third batch holds a picture that overflows."""
    net = Net(middle=lambda h: h * 1e30)
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=momentum)
    path = tmp_path / "flight.zip"

    @flight_recorder(net, optimizer, path)
    def train_step(x, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(F.dropout(net(x), 0.2), labels)
        loss.backward()
        optimizer.step()
        return loss

    net.middle = lambda h: h
    labels = Tensor(np.array([0, 2]))
    batches = [Tensor(np.random.default_rng(k).standard_normal((2, 2, 5, 5)).astype(np.float32)) for k in range(3)]
    for batch in batches[:2]:
        train_step(batch, labels)
    before = {name: value.array.copy() for name, value in net.state_dict().items()}
    net.middle = lambda h: (h * 1e30 * 1e30) - (h * 1e30 * 1e30)
    with np.errstate(all="ignore"), pytest.raises(FlightError, match="training step 3: the loss is nan") as caught:
        train_step(batches[2], labels)
    return caught.value, path, before


def test_a_bad_training_step_is_repeated_and_recorded(tmp_path):
    error, path, before = trained_to_death(tmp_path)
    assert "first bad: mul" in str(error) and "minidl step" in str(error)
    trace = load(path)
    assert "Losses before:" in trace.title[0] and blame(trace).cause.op.name == "mul"
    for value in error.trace.values:  # the recording starts from the weights before the step
        if value.role == "parameter" and not value.name.endswith("'"):
            np.testing.assert_array_equal(value.array, before[value.name])


def test_a_good_training_step_passes_through():
    net = Net()
    optimizer = optim.SGD(net.parameters(), lr=0.01)
    watched = flight_recorder(net, optimizer)(lambda x: F.cross_entropy(net(x), Tensor(np.array([0, 2]))))
    assert np.isfinite(watched(Tensor(np.ones((2, 2, 5, 5), np.float32))).item())
