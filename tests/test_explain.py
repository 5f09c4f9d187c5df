"""explain() and run(): the decision is the one that run() takes, settings are the op's own, fallbacks are real ones, listeners hear."""

import threading

import numpy as np
import pytest
from click.testing import CliRunner

import minidl
from minidl import backend, cli
from minidl.backend import IMPLEMENTATIONS, LISTENERS, Listener, NotFor, implements
from minidl.backend.counters import COUNTS
from minidl.core import explain as explaining
from minidl.core.errors import ArgumentError, BackendError

X, W = np.ones((2, 3, 6, 5), np.float32), np.ones((4, 3, 3, 2), np.float32)


class Heard(Listener):
    """What run() said."""

    def __init__(self):
        self.requests, self.runs = [], []

    def asked(self, op, arrays, how):
        self.requests.append((op, how))

    def ran(self, op, implementation, arrays, how, result, seconds):
        self.runs.append((op, implementation.name, seconds))


@pytest.fixture
def heard():
    listener = Heard()
    LISTENERS.append(listener)
    yield listener
    LISTENERS.remove(listener)


@pytest.fixture
def twice():
    """An op of its own with three implementations, gone after the test."""
    implements("twice", "generic")(lambda x: x + x)
    yield lambda name, accepts=None, why="": implements("twice", name, accepts, why)(lambda x: 2 * x)
    del IMPLEMENTATIONS["twice"]


def fallbacks():
    return {key: count for key, count in COUNTS.items() if key.startswith("twice")}


def test_explain_normalises_settings_as_the_op_does(heard):
    """Predicates see what run() gives them: pairs of pairs, never stride=2."""
    minidl.nn.functional.conv2d(minidl.tensor(X), minidl.tensor(W), stride=2, padding=1)
    _, _, how = explaining.request("conv2d", minidl.tensor(X), minidl.tensor(W), stride=2, padding=1)
    assert how == heard.requests[0][1] and how["stride"] == (2, 2) and how["padding"] == ((1, 1), (1, 1))


CALLS = [("conv2d", X, W), ("max_pool2d", X, 2), ("softmax", X, 1), ("matmul", X[0, 0], X[0, 0].T)]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c[0])
def test_explain_names_what_runs(heard, call):
    name, *args = call
    text = minidl.explain(name, *args)
    assert heard.runs == []  # explaining computes nothing
    minidl.core.op.OPS[name].function(*[minidl.tensor(a) if isinstance(a, np.ndarray) else a for a in args])
    assert text.startswith(f"{name} runs on {heard.runs[0][1]}\n")


def test_a_wrong_call_gets_the_ops_own_message():
    with pytest.raises(minidl.MinidlError, match="axis C/groups disagrees"):
        minidl.explain("conv2d", X, np.ones((4, 5, 3, 3), np.float32))
    with pytest.raises(ArgumentError, match="near that: conv2d"):
        minidl.explain("conv2", X, W)
    assert LISTENERS == []


def test_an_op_without_alternatives_says_so():
    assert "docs/ops/relu.md" in minidl.explain("relu", X)


def test_explain_says_what_is_forced():
    with minidl.use_backend("reference"):
        text = minidl.explain("conv2d", X, W)
    assert "runs on reference   (forced: use_backend('reference'))" in text


def test_another_thread_is_not_stopped():
    """explain() stops its own op only."""
    results, stop = [], explaining._Stop()
    thread = threading.Thread(target=lambda: results.append(backend.run("matmul", X[0, 0], X[0, 0].T)))
    LISTENERS.append(stop)
    try:
        thread.start()
        thread.join()
        with pytest.raises(explaining.StoppedError):
            backend.run("matmul", X[0, 0], X[0, 0].T)
    finally:
        LISTENERS.remove(stop)
    assert len(results) == 1


def test_a_refusal_that_ends_in_another_backend_is_a_fallback(twice):
    before = fallbacks()
    twice("cpu/quick", accepts=lambda x: "float64 is not for it")
    backend.run("twice", X)
    assert {key: count for key, count in fallbacks().items() if key not in before} == {"twice: cpu/quick refused: float64 is not for it": 1}


@pytest.mark.parametrize("reason", [NotFor("for 3×3 filters"), "for 3×3 filters"], ids=["NotFor", "the next rung takes it"])
def test_a_choice_is_no_fallback(twice, reason):
    twice("cpu/special", accepts=lambda x: reason)
    if not isinstance(reason, NotFor):
        twice("cpu/plain")
    COUNTS.clear()
    backend.run("twice", X)
    assert fallbacks() == {}


def test_a_kernel_for_the_gpu_is_no_fallback_on_the_cpu(twice):
    twice("cuda/quick")
    COUNTS.clear()
    backend.run("twice", X)
    assert fallbacks() == {}
    assert "the arrays are on the CPU" in backend.explain("twice", X)


def test_explain_gives_the_reason_for_the_order(twice):
    twice("cpu/quick", why="half the passes over memory: 1.9 times as fast")
    assert "cpu/quick                chosen: half the passes over memory" in backend.explain("twice", X)


def test_nothing_that_accepts_is_said_with_every_reason(twice):
    twice("cpu/quick", accepts=lambda x: "too small")
    with minidl.use_backend("cpu"), pytest.raises(BackendError, match="cpu/quick: too small"):
        backend.run("twice", X)


def test_listeners_hear_name_and_time(heard):
    minidl.nn.functional.max_pool2d(minidl.tensor(X), 2)
    (op, name, seconds), = heard.runs
    assert op == "max_pool2d" and name == "generic" and 0 < seconds < 10  # an array this small


# --- the command --------------------------------------------------------------------------------------------------------

def command(*args):
    return CliRunner().invoke(cli.main, ["explain", *args], prog_name="minidl")


def test_the_command_names_what_runs(heard):
    done = command("conv2d", "--shape", "2,3,9,8", "--out", "4", "--kernel", "3", "--stride", "2", "--no-time")
    assert done.exit_code == 0
    heard.runs.clear()
    x, w = minidl.tensor(np.ones((2, 3, 9, 8), np.float32)), minidl.tensor(np.ones((4, 3, 3, 3), np.float32), requires_grad=True)
    minidl.nn.functional.conv2d(x, w, None, 2, 1).sum().backward()
    ran = {op: name for op, name, _ in heard.runs}
    assert f"forward: conv2d runs on {ran['conv2d']}\n" in done.stdout
    assert f"backward: conv2d_grad_w runs on {ran['conv2d_grad_w']}\n" in done.stdout
    assert "reference" in done.stdout


def test_the_command_times_the_alternatives(monkeypatch):
    from minidl.bench import timing

    monkeypatch.setattr(timing.Rounds.__init__, "__defaults__", (0.0, 1, None))
    done = command("softmax", "--shape", "5,7")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("    ")}
    assert done.exit_code == 0
    assert "µs" in lines["generic"] and "×)" in lines["reference"]


def test_the_command_answers_for_a_gpu_that_is_not_there():
    done = command("matmul", "--shape", "2,3,4", "--device", "cuda", "--no-time")
    assert done.exit_code == 0 and "the arrays are on a GPU" in done.stdout
    assert not minidl.core.device.why_no_cuda() or "Asked of a stand-in" in done.stdout


def test_the_command_on_the_stand_in():
    from minidl.backend.cuda import stand_in

    with stand_in.installed():
        done = command("softmax", "--shape", "5,7", "--device", "cuda", "--no-time")
    assert done.exit_code == 0 and "the arrays are on a GPU" in done.stdout, done.output


@pytest.mark.parametrize("args, text", [(["conv4d"], "'conv4d' is not one of"), (["matmul", "--shape", "1,2"], "N,K,M"),
                                        (["softmax", "--stride", "2"], "its settings are")])
def test_mistakes_are_answered(args, text):
    done = command(*args)
    assert done.exit_code == 2 and text in done.output
