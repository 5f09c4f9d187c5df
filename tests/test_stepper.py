"""The stepper: what a trace holds, what the screens say of it, and whole dialogues word for word (tests/golden).

Write the dialogues anew after a wanted change with `python -m tests.test_stepper`, and read the difference.
"""

import gc
import io
import os
import re
import select
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from minidl.core.derivative import WATCHERS, backward, grad
from minidl.core.op import OBSERVERS, OPS, op
from minidl.core.tensor import Tensor
from minidl.ops import add, cat, tanh
from minidl.stepper import step
from minidl.stepper.opcheck import check_lines, check_op
from minidl.stepper.screen import step_screen
from minidl.stepper.terminal import Paper, Prompt, explore
from minidl.stepper.text import cells, fit, number, safe, spread, table
from minidl.stepper.values import histogram

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"

DIALOGUES = {  # file -> arguments of `minidl step`
    "demo": [],
    "forward": ["tiny", "-c", "n; n; p; ; c tanh; j 7; g; q"],
    "backward": ["tiny", "-c", "c back; n; c relu; n; c matmul; c; n; p; c back"],
    "fan_out": ["tiny", "-c", "c back; n; n; n; v grad_bend; n; n; n; n; v grad_h; v h; v nothing"],
    "check": ["tiny", "-c", "ck; c back; ck; n; ck; n; ck; c relu; ck"],
    "help": ["tiny", "-c", "h; foo; j 99; j x; c conv2d; v; \x1b[2J; q; n"],
    "breakpoints": ["-c", "b; b conv2d; b stage3.project; b |g|>0.35; b 2x32x*; b nonsense; b; c; c; rc; cl 2; cl 9; cl; c nan; rc end"],
    "places": ["-c", "j stage2.conv1; u; d; d; d 2; r; c back; j stage1.add; j stage1; u; u 2; d; p; j op3; c stage3.*; j fc; r; r"],
    "worked": ["-c", "w; w y[0,3,2,2]; w y[9,9,9,9]; w y[0]; w foo; j 8; w; v .weight; v grad_.bias; c back; n; w grad_weight[4,0]; "
                     "c end; w; w x"],
    "values": ["-c", "v x[0,0,:3,:3]; v stem.weight[0]; v fc.bias; v x[a]; v x[9]; c back; v grad_y; v grad_fc.weight[0,:4]; v"],
    "looking": ["-c", "g; g stage2; why; why nan; x abs(y).max() > 1; x T('fc.bias').shape; x 1/0; x"],
    "optimiser": ["-c", "c end; l; ck; w; n"],
}


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def ones(*shape):
    return Tensor(np.ones(shape))


def fork(x, w):
    """h goes two ways."""
    h = tanh(x * w)
    s = h + h * w
    return s


def recorded():
    x, w = leaf(2, 3), leaf(2, 3, seed=1)
    with step() as trace:
        y = fork(x, w)
        y.backward(ones(2, 3))
    return trace, x, w


def screens(trace, width=100):
    return ["\n".join("".join(text for text, _ in line) for line in step_screen(trace, item, width)) for item in trace.steps]


class Out(io.StringIO):
    """Collects what is drawn."""


def say(trace, *commands):
    """What the prompt answers to some commands."""
    paper = Paper(Out())
    prompt = Prompt(trace, paper)
    for line in commands:
        prompt.onecmd(line)
    return paper.out.getvalue()


# --- the trace ------------------------------------------------------------------------------------------------

def test_a_trace_has_every_op_forward_and_back_in_the_order_they_ran():
    trace, *_ = recorded()
    assert [f.op.name for f in trace.forwards] == ["mul", "tanh", "mul", "add"]
    assert [b.forward.number for b in trace.backwards] == [4, 3, 2, 1]
    assert [s.step for s in trace.steps] == list(range(1, 9))
    assert repr(trace) == "<Trace: 4 forward ops, 4 backward steps>"


def test_tensors_are_called_what_the_program_calls_them():
    trace, *_ = recorded()
    assert [value.name for value in trace.values] == ["x", "w", "op1.y", "h", "op3.y", "y"]
    assert trace.find("h").made_by is trace.forwards[1]
    assert trace.find("nobody") is None


def test_a_name_that_is_used_again_says_which_op():
    x = leaf(3)
    with step() as trace:
        x = tanh(x)
        x = tanh(x)
        tanh(x)
    assert [value.name for value in trace.values] == ["x", "x@op1", "x@op2", "op3.y"]


def test_parameters_keep_the_names_of_their_model():
    class Model:
        weight = leaf(3)

        def named_parameters(self):
            return [("layer1.weight", self.weight)]

    model = Model()
    with step(model) as trace:
        tanh(model.weight)
    assert trace.values[0].name == "layer1.weight"


def test_a_fork_gets_two_contributions_and_the_last_completes_the_sum():
    trace, _, w = recorded()
    parts = [part for back in trace.backwards for part in back.contributions if part.to.name == "h"]
    assert [(p.index, p.count, p.complete) for p in parts] == [(1, 2, False), (2, 2, True)]
    assert parts[0].before is None
    np.testing.assert_array_equal(parts[1].after.array, parts[0].grad.array + parts[1].grad.array)
    np.testing.assert_array_equal(parts[1].before.array, parts[0].grad.array)  # still what it was before the sum
    last = [part for back in trace.backwards for part in back.contributions if part.to.name == "w"][-1]
    assert (last.index, last.count) == (2, 2)
    np.testing.assert_array_equal(last.after.array, w.grad.array)


def test_being_watched_changes_no_gradient():
    _, x, w = recorded()
    x2, w2 = leaf(2, 3), leaf(2, 3, seed=1)
    fork(x2, w2).backward(ones(2, 3))
    np.testing.assert_array_equal(x.grad.array, x2.grad.array)
    np.testing.assert_array_equal(w.grad.array, w2.grad.array)


def test_ops_inside_a_backward_belong_to_it_and_are_no_steps():
    trace, *_ = recorded()
    assert trace.backwards[0].ran == []  # add passes on what it gets
    assert trace.backwards[1].ran == ["mul", "mul"]  # and not the add with which the walk sums up


def test_ops_that_an_ops_own_forward_calls_are_no_steps():
    @op("x", name="twice_tanh")
    def twice_tanh(x):
        """Hyperbolic tangent, computed by calling another op."""
        y = tanh(x.detach()).array * 2

        def backward(grad_y):
            return grad_y

        return y, backward

    try:
        with step() as trace:
            tanh(twice_tanh(leaf(3)))
    finally:
        del OPS["twice_tanh"]
    assert [f.op.name for f in trace.forwards] == ["twice_tanh", "tanh"]


def test_the_gradient_that_a_walk_starts_with_counts_as_a_contribution():
    x = leaf(3)
    with step() as trace:
        h = tanh(x)
        y = h * 2
        backward([y, h], [ones(3), ones(3)])
    (part,) = [p for back in trace.backwards for p in back.contributions if p.to.name == "h"]
    assert (part.index, part.count) == (2, 2)


def test_what_a_node_keeps_is_named():
    trace, *_ = recorded()
    assert trace.forwards[1].kept == [("y", 48)]
    assert trace.forwards[3].kept == []
    assert {name for name, _ in trace.forwards[0].kept} == {"x_saved", "other_saved"}


def test_a_partial_trace_survives_an_exception_in_the_forward():
    x = leaf(2, 3)
    with pytest.raises(ValueError, match="broadcast"), step() as trace:
        h = tanh(x)
        h + leaf(2, 4)
    assert [f.op.name for f in trace.forwards] == ["tanh"] and trace.values[1].name == "h"
    assert "ended by ShapeError" in repr(trace)
    assert not OBSERVERS and not WATCHERS


def test_a_partial_trace_survives_an_exception_in_the_backward():
    x = leaf(3)
    y = tanh(x) * 3

    def explode(grad):
        raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"), step() as trace:
        h = tanh(y)
        z = h * 2 + h
        h.register_hook(explode)
        z.backward(ones(3))
    assert [back.op.name for back in trace.backwards] == ["add", "mul"]
    assert "the walk broke off" in screens(trace)[-1]
    assert not OBSERVERS and not WATCHERS


def test_what_is_overwritten_later_is_shown_as_it_was():
    w = leaf(3)
    first = w.array.copy()
    with step() as trace:
        for _ in range(2):
            tanh(w).backward(ones(3))
            w.data.fill_(0.5)
    names = [value.name for value in trace.values if value.made_by is None]
    assert names == ["w", "w@2"]
    np.testing.assert_array_equal(trace.find("w").array, first)
    np.testing.assert_array_equal(trace.find("w@2").array, [0.5] * 3)
    assert [type(s).__name__ for s in trace.steps] == ["Forward", "Backward"] * 2


def test_an_op_from_before_the_recording_is_said_to_be_one():
    x = leaf(3)
    h = tanh(x)
    with step() as trace:
        y = h * 2
        y.backward(ones(3))
    assert [b.op.name for b in trace.backwards] == ["mul", "tanh"]
    assert "before the recording" in say(trace, "j 3", "ck")
    assert screens(trace)


def test_other_threads_are_not_recorded():
    x = leaf(3)
    with step() as trace:
        other = threading.Thread(target=lambda: tanh(leaf(3)).backward(ones(3)))
        other.start()
        other.join()
        tanh(x)
    assert [s.op.name for s in trace.steps] == ["tanh"]


def test_lists_of_tensors_and_gradients_of_gradients():
    x, y = leaf(2, 3), leaf(1, 3, seed=1)
    with step() as trace:
        z = cat([x, y])
        (g,) = grad(z * z, x, ones(3, 3), create_graph=True)
        (g * g).backward(ones(2, 3))
    assert trace.forwards[0].op.input_name(1) == "tensors[1]"
    assert len(trace.backwards) > 3
    assert all(screens(trace))
    assert check_op(trace.forwards[0]).ok


# --- screens --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_terminal(width):
    trace, *_ = recorded()
    for text in screens(trace, width):
        assert max(cells(line) for line in text.splitlines()) <= width, text


def test_a_backward_screen_says_what_came_in_what_went_out_and_what_it_adds_to():
    trace, *_ = recorded()
    first, second = screens(trace)[4:6]
    assert first.startswith("● step 5/8  bwd 1/4  add of op4  2×3, 2×3 → 2×3")
    assert "h went to op3 and op4: contribution 1 of 2, 1 still to come" in first
    assert "return sum_to(grad_y, x_shape)" in first
    assert "contribution 2 of 2: now its gradient is complete" in second
    assert "sum  total" in second and "ran      mul, mul:" in second


def test_numbers_have_three_digits_and_few_characters():
    written = {0: "0", 1: "1", 0.031249: "0.0312", 3.14159e-5: "3.14e-5", -1.5e10: "-1.5e10", 123456: "1.23e5"}
    assert {value: number(value) for value in written} == written
    values = np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.random.default_rng(1).integers(-99, 99, 1000)
    assert max(len(number(v)) for v in values) <= 9


def spread_of(array):
    return spread(histogram(array))


def test_a_spread_shows_where_the_values_lie():
    assert spread_of(np.arange(8.0)) == "████████"
    assert spread_of(np.array([0.0, 0, 0, 0, 7])) == "█▁▁▁▁▁▁▃"
    assert spread_of(np.array([1.0, np.nan])) == spread_of(np.ones(3)) == spread_of(np.empty(0)) == ""


def test_empty_and_non_finite_tensors_have_screens():
    x = Tensor(np.array([[np.nan, np.inf, 1.0]]), requires_grad=True)
    with step() as trace:
        add(x, Tensor(np.empty((0, 3)))).backward(ones(0, 3))
        (x * 2).backward(ones(1, 3))
    assert "1+1 inf" in screens(trace)[2] and "empty" in screens(trace)[0]
    assert "nan" in say(trace, "v x")


def test_a_narrow_table_drops_columns_and_keeps_the_names():
    rows = [{"tensor": "weight", "min": "-0.123", "max": "0.5", "μ": "0.1", "σ": "1", "spread": "▁▂▃▄▅▆▇█"}]
    wide, narrow = (table(("tensor", "min", "max", "μ", "σ", "spread"), rows, width)[0][0][0].split() for width in (80, 36))
    assert wide == ["tensor", "min", "max", "μ", "σ", "spread"] and narrow == ["tensor", "min", "max", "μ"]
    assert "".join(text for text, _ in fit([("abcdef", ""), ("ghi", "")], 7)) == "abcdef…"


# --- hostile text ---------------------------------------------------------------------------------------------

HOSTILE = "[red]x\x1b[2J\u202e\u200b\n</script>"


def test_hostile_names_appear_as_text():
    assert safe(HOSTILE) == "[red]x\\x1b[2J\\u202e\\u200b\\n</script>"

    class Model:
        weight = leaf(3)

        def named_parameters(self):
            return [(HOSTILE, self.weight)]

    @op("x", name=HOSTILE)
    def hostile(x, mode="\x1b[31m"):
        """Copy: y = x \x1b[2J.

        Backward:  \x1b[2J
        """
        y = x.array.copy()

        def backward(grad_y):
            return grad_y

        return y, backward

    try:
        model = Model()
        with step(model) as trace:
            hostile(model.weight, mode="\x1b[31m").backward(ones(3))
        text = "\n".join([*screens(trace), say(trace, "l", "g", "v", "v \x1b[2J", "\x1b[2J", "ck", "v " + HOSTILE)])
        coloured = Out()
        coloured.isatty = lambda: True
        paper = Paper(coloured)
        paper.draw(step_screen(trace, trace.steps[0], 100))
    finally:
        del OPS[HOSTILE]
    assert "[red]x\\x1b[2J" in text
    for said in (text, coloured.getvalue()):
        assert "\x1b[2J" not in said and "\u202e" not in said and "\u200b" not in said
    assert "\x1b" not in text


# --- the check under the cursor -------------------------------------------------------------------------------

def test_the_check_catches_a_gradient_that_is_one_percent_off():
    @op("x other", name="almost_mul")
    def almost_mul(x, other):
        """Multiply, with a planted error."""
        def backward(grad_y):
            return grad_y * other, grad_y * x * 1.01

        return x.array * other.array, backward

    x, w = leaf(2, 3), leaf(2, 3, seed=1)
    try:
        with step() as trace:
            almost_mul(x, w)
            x * w
    finally:
        del OPS["almost_mul"]
    wrong = "\n".join("".join(text for text, _ in line) for line in check_lines(trace.forwards[0], 100))
    right = "\n".join("".join(text for text, _ in line) for line in check_lines(trace.forwards[1], 100))
    assert re.search(r"grad_x +✓ ok", wrong) and re.search(r"grad_other +✗ wrong", wrong), wrong
    assert right.count("✓ ok") >= 2 and "✗" not in right


def test_the_check_sees_the_values_of_the_recording():
    x = leaf(3)
    with step() as trace:
        tanh(x)
        x.data.fill_(np.nan)
    assert check_op(trace.forwards[0]).ok


# --- the prompt -----------------------------------------------------------------------------------------------

def test_moving():
    trace, *_ = recorded()
    assert say(trace, "n", "p").count("  fwd") == 2
    assert "This is the first step." in say(trace, "p")
    assert "This is the last step." in say(trace, "c", "n")
    assert "  bwd 1/4" in say(trace, "c back") and "  bwd 1/4" in say(trace, "c", "c back")
    assert "  fwd 3/4" in say(trace, "n", "c mul")
    assert "  bwd 2/4" in say(trace, "j 6")
    assert "  fwd 2/4" in say(trace, "")
    assert Prompt(trace, Paper(Out())).onecmd("q") is True


def test_the_listing_marks_what_the_step_runs():
    trace, *_ = recorded()
    forward, back = say(trace, "l"), say(trace, "c back", "l").partition("called")[2].partition("called")[2]
    assert re.search(r"→ +\d+ y = elementwise\(np.multiply", forward) and re.search(r"     +\d+ grad_x = ", forward)
    assert re.search(r"→ +\d+ return sum_to", back) and re.search(r"     +\d+ s = h \+ h \* w", back)


def test_names_are_completed():
    trace, *_ = recorded()
    prompt = Prompt(trace, Paper(Out()))
    assert prompt.complete_v("op") == ["op1.y", "op3.y"]
    assert {"add", "back", "mul", "nan", "tanh"} <= set(prompt.complete_c(""))


def test_a_trace_keeps_no_graph_alive():
    def run():
        with step() as trace:
            y = tanh(leaf(3))
        return trace, weakref.ref(y.edge[0])

    gc.disable()
    try:
        trace, node = run()
        assert node() is None and trace.find("y").array.shape == (3,)
    finally:
        gc.enable()


def test_a_trace_without_backward_says_so():
    with step() as trace:
        tanh(leaf(3))
    assert "backward() was not called" in say(trace, "c back")


def test_nothing_recorded(capsys):
    with step() as trace:
        pass
    trace.explore("n")
    assert "Nothing was recorded" in capsys.readouterr().out


def test_commands_echo_and_quitting_ends_them(capsys):
    trace, *_ = recorded()
    explore(trace, "n; q; n")
    said = capsys.readouterr().out
    assert "(step) n\n● step 2/8  fwd 2/4" in said and said.endswith("(step) q\n")


def test_values_by_name():
    trace, x, w = recorded()
    first = f"{x.array[0, 0]:.4f}"
    assert first in say(trace, "v x")
    assert f"{w.grad.array[0, 0]:.4f}" in say(trace, "v grad_w")
    assert f"{trace.backwards[0].grads_in[0][1].array[0, 0]:.0f}" in say(trace, "c back", "v grad_y")
    assert "There is no tensor called h2. Names here: x, other, y" in say(trace, "v h2")


# --- the command ----------------------------------------------------------------------------------------------

def minidl_step(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **settings.pop("env", {})}
    return subprocess.run([sys.executable, "-m", "minidl", "step", *arguments], capture_output=True, text=True, encoding="utf-8",
                          stdin=subprocess.DEVNULL, env=environment, check=False, **settings)


def steady(text):
    """A transcript without what differs between machines (times, last bits of errors) and what op files say of themselves."""
    text = re.sub(r"minidl/ops/\w+\.py:\d+", "minidl/ops/(file):N", text)
    text = re.sub(r"\.py:\d+", ".py:N", text)
    text = re.sub(r"(?m)^ +\d+ \S.*\n( {10}.*\n)*(^ +\d+ .*\n( {10}.*\n)*)*", "           (its lines)\n", text)
    text = re.sub(r"(?m)^  maths    .*\n( {11}\S.*\n)*", "  maths    (its docstring)\n", text)
    text = re.sub(r"(?m)^  ran      .*\n( {11}\S.*\n)*(  on       .*\n( {11}\S.*\n)*)?", "  ran      (its ops)\n", text)
    text = re.sub(r"(?m)^ +in float32 .*\n", "", text)
    text = re.sub(r"error \S+ \(allowed \S+\)", "error E (allowed A)", text)
    text = re.sub(r"(?m)^  worked  .*\n( {11}\S.*\n)*", "  worked   (its numbers)\n", text) if "(step) w" not in text else text
    text = re.sub(r"(?m)^.*\de-\d.*$", lambda line: re.sub(" +", " ", re.sub(r"-?\d(\.\d+)?e-\d+", "ε", line[0])), text)
    return re.sub(r"\b\d+(\.\d+)?(e\+?\d+)? (µs|ms|s)\b", "T", text)


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogue(name):
    done = minidl_step(*DIALOGUES[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert steady(done.stdout) == (GOLDEN / f"step_{name}.txt").read_text("utf-8")


def test_a_script_of_ones_own(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("import sys\nimport numpy as np\nfrom minidl.core.tensor import Tensor\n"
                      "x = Tensor(np.ones(3), requires_grad=True)\nloss = x.tanh() * 2\nloss.backward(Tensor(np.ones(3)))\n"
                      "if len(sys.argv) > 1: loss + Tensor(np.ones(4))\n")
    done = minidl_step("-c", "c back; q", str(script), cwd=tmp_path)
    assert done.returncode == 0 and "called   mine.py:5  loss = x.tanh() * 2" in done.stdout and "bwd 1/2" in done.stdout
    assert re.search(r"in +grad_y +loss ", done.stdout)
    failed = minidl_step("-c", "q", str(script), "fail", cwd=tmp_path)
    assert failed.returncode == 1 and "It stopped. ShapeError: add:" in failed.stdout and "bwd 2/2" in failed.stdout
    assert minidl_step("no_such_file.py").returncode == 2


def test_a_terminal_that_cannot_show_unicode_is_no_reason_to_fail():
    done = minidl_step("-c", "q", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "? step 1/63  fwd 1/" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("keys, colour", [(b"n\n\n\x04", True), (b"c back\n\x03", False)])
def test_at_a_real_prompt(keys, colour):
    import pty

    parent, child = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    environment = {k: v for k, v in environment.items() if k != "NO_COLOR"} | ({} if colour else {"NO_COLOR": "1"})
    process = subprocess.Popen([sys.executable, "-m", "minidl", "step"], stdin=child, stdout=child, stderr=child, env=environment,
                               start_new_session=True, preexec_fn=lambda: take_terminal(child))
    os.close(child)
    said = b""
    for count, key in enumerate(keys.splitlines(keepends=True), 1):
        while said.count(b"(step) ") < count:
            said += os.read(parent, 4096)
        os.write(parent, key)
    while process.poll() is None or select.select([parent], [], [], 0)[0]:
        if select.select([parent], [], [], 1)[0]:
            try:
                said += os.read(parent, 4096)
            except OSError:  # the other end has gone
                break
        else:
            os.write(parent, key)  # a Ctrl-C between the prompt and readline's waiting is only noticed with the next key
    os.close(parent)
    assert process.wait(10) == 0, said.decode()
    assert "Traceback" not in said.decode()
    assert ("\x1b[1;36m" in said.decode()) == colour, said.decode()
    assert ("bwd 1/" if not colour else "fwd 3/") in said.decode()


def take_terminal(child):
    import fcntl
    import termios

    fcntl.ioctl(child, termios.TIOCSCTTY, 0)


def write_dialogues():
    GOLDEN.mkdir(exist_ok=True)
    for name, arguments in DIALOGUES.items():
        done = minidl_step(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        (GOLDEN / f"step_{name}.txt").write_text(steady(done.stdout), "utf-8")


if __name__ == "__main__":
    write_dialogues()

