"""The stepper beside itself: what ran, what an op does to the gradient, the training step before, other traces, other backends,
recordings that keep only the last training steps; and the verbs t, diff, save and html."""

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import minidl
from minidl import nn, optim
from minidl.backend.cuda.pretend import a_gpu
from minidl.commands.step import command
from minidl.core.config import use_backend
from minidl.core.device import why_no_cuda
from minidl.core.errors import ArgumentError, DeviceError
from minidl.core.op import OPS, op
from minidl.core.tensor import Tensor
from minidl.ops import relu
from minidl.stepper import flight_recorder, load, page, step, subjects, values
from minidl.stepper.compare import BEFORE, comparisons, training_steps
from minidl.stepper.container import TraceError
from minidl.stepper.diff import differences
from minidl.stepper.effect import SENTENCES, measured, sentence
from minidl.stepper.flight import FlightError
from minidl.stepper.pattern import PATTERN, mismatch
from minidl.stepper.ran import Run, in_words
from minidl.stepper.record import same
from minidl.stepper.source import output_names
from minidl.stepper.terminal import Paper, Prompt


class Out(io.StringIO):
    """Collects what is drawn."""


def say(trace, *commands, at=1):
    """What the prompt answers, at a step."""
    paper = Paper(Out())
    prompt = Prompt(trace, paper)
    prompt.cursor = at - 1
    for line in commands:
        prompt.onecmd(line)
    return paper.out.getvalue()


class Small(nn.Module):
    """A convolution with everything around it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        """Pictures -> scores."""
        return self.head(relu(self.bn(self.conv(x))).mean((2, 3)))


def trained(steps, last=None, seed=0, backend=None):
    """A recording of some training steps of it."""
    minidl.manual_seed(seed)
    net, x, labels = Small(), minidl.randn(2, 2, 6, 6), Tensor(np.array([0, 2]))
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    with use_backend(backend), step(net, last=last) as trace:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), labels).backward()
            optimizer.step()
    return trace


@pytest.fixture(scope="module")
def once():
    return trained(1)


@pytest.fixture(scope="module")
def twice():
    return trained(2)


# --- what ran ---------------------------------------------------------------------------------------------------------

def test_a_step_knows_which_implementation_ran():
    conv, *others = trained(1, backend="reference").forwards
    assert [(run.op, run.name) for run in conv.runs] == [("conv2d", "reference")]
    ran = [(run.op, run.name) for run in conv.backwards[0].runs]
    assert ("conv2d_grad_w", "reference") in ran and "conv2d_grad_x" not in dict(ran)  # nobody asks for the picture's
    linear = next(item for item in others if item.op.name == "linear")
    assert ("matmul", "reference") in [(run.op, run.name) for run in linear.runs]
    assert not next(item for item in others if item.op.name == "relu").runs


def test_the_screens_and_the_page_say_it(once, tmp_path):
    name = once.forwards[0].runs[0].name
    assert re.search(rf"  ran +{name} .*checks", say(once, "j 1"))
    run = once.forwards[0].backwards[0].runs[0]
    assert re.search(rf"  on +{run.op}: {run.name} ", say(once, "j 1", "f"))
    assert "ran      plain array expressions" in say(once, "c relu")
    once.save(tmp_path / "t.zip")
    kept = load(tmp_path / "t.zip")
    assert in_words(kept.forwards[0]) == in_words(once.forwards[0])
    assert once.describe()["steps"][0]["runs"][0]["name"] == name


def test_a_fallback_is_told_and_a_call_that_is_not_meant_is_not():
    item = type("Item", (), {"op": OPS["conv2d"], "runs": [Run("conv2d", "generic", 1e-3, others=[
        ("cpu/a", "float16", "fallback"), ("cpu/b", "another call", ""), ("reference", "would do it too", "")])]})
    assert in_words(item) == "generic 1 ms (cpu/a: float16)"


def test_kernels_that_ran_are_kept_with_their_text(once, tmp_path):
    from minidl.backend.cuda import launch
    from minidl.stepper.ran import Heard, Launch, kernel_text

    file, lines = kernel_text("batchnorm.cu", "norm_merge")
    assert file == "kernels/batchnorm.cu" and any("norm_merge(" in text for _, text in lines) and lines[-1][1].startswith("}")
    assert kernel_text("batchnorm.cu", "nobody")[1] == [] == kernel_text("nowhere.cu", "x")[1]
    kernel = launch.kernel("batchnorm.cu", "norm_merge")
    with Heard() as heard:
        for watcher in launch.WATCHERS:
            watcher(kernel, (2, 1, 1), (256, 1, 1), [], 0)
        assert [(one.file, one.name, one.grid) for one in heard.launches] == [("batchnorm.cu", "norm_merge", (2, 1, 1))]
    assert not launch.WATCHERS
    run = once.forwards[0].runs[0]
    run.launches = [Launch("batchnorm.cu", "norm_merge", (2, 1, 1), (256, 1, 1), (file, lines))]
    try:
        assert "kernel   kernels/batchnorm.cu" in say(once, "l") and "norm_merge(" in say(once, "l")
        once.save(tmp_path / "t.zip")
        kept = load(tmp_path / "t.zip")
        assert kept.forwards[0].runs[0].launches[0].text == (file, lines)
        assert "norm_merge(" in say(kept, "l")
    finally:
        run.launches = []


# --- what an op does to the gradient ------------------------------------------------------------------------------------

def test_every_op_says_what_it_does_to_the_gradient():
    assert [name for name, known in OPS.items() if not sentence(known)] == []
    assert [name for name in SENTENCES if name not in OPS and name != "SGD"] == []
    assert sentence(OPS["where"]).startswith("grad_y goes to whichever was chosen")  # from its docstring


def test_the_first_screen_answers_three_questions(once):
    paper = Paper(Out())
    Prompt(once, paper, ["A title."]).start()
    said = paper.out.getvalue()
    assert "You are at step 1 of 13: 6 forward, 6 back, 1 update." in said  # where am I
    assert "gradient sends it back through the filter" in said and "(f: to step 12)" in said        # what does it do to the gradient
    assert "Enter: next step" in said and "c back" in said                                       # which key moves on


def test_every_screen_says_which_step_of_the_whole_it_is(once, twice):
    assert "● step 12/13  bwd 6/6  conv" in say(once, "j 12")
    assert "● step 14/26  training step 2 of 2  fwd 1/6" in say(twice, "j 14")
    assert "here without add and relu" in say(once, "j 2") and "here without" not in say(once, "j 1")


def test_what_is_typed_wrongly_is_answered_in_a_line(once, tmp_path):
    assert "There is no verb 'foo'" in say(once, "h foo") and "next step" not in say(once, "h foo")
    assert "fwd 2/6" in say(once, "next") and "h [VERB]" in say(once, "?")
    assert say(once, "c end", "c").endswith("This is the last step. p goes back, q quits.\n") and "first step." in say(once, "rc")
    assert "f goes to the step back" in say(once, "x np.abs(grad_y)")
    assert len(say(once, f"save {tmp_path}/no/x").splitlines()) == 4
    assert "a part" in say(once, "g conv") and "folded" not in say(once, "g conv")
    assert "\n←" in say(once, "c back", "g") and "\n←" not in say(once, "g")
    assert "cpu/winograd_2x2" not in say(once, "diff foo")


@pytest.mark.parametrize("arguments", [["{script}", "--steps", "3"], ["tiny", "--batch", "2"], ["resnet18", "--record", "last:2"],
                                       ["{script}", "--image", "{script}"], ["tiny", "--diff", "nothing", "-c", "q"]])
def test_an_option_that_would_do_nothing_is_refused(tmp_path, arguments):
    script = tmp_path / "mine.py"
    script.write_text("print(1)\n")
    done = CliRunner().invoke(command, [part.format(script=script) for part in arguments])
    assert done.exit_code == 2 and (arguments[1] in done.output or "no such backend" in done.output)


def test_diff_without_a_file_is_shown_at_the_prompt():
    done = CliRunner().invoke(command, ["tiny", "--diff", "reference", "-c", "q"])
    assert done.exit_code == 0 and "(step) diff reference" in done.output and "nearer" in done.output


def test_a_script_that_raises_shows_its_own_lines_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import minidl\nx = minidl.ones(2) * 2\nraise ValueError(x.shape)\n")
    trace = subjects.record_script("mine.py")
    said = capfd.readouterr().err
    assert "runpy" not in said and 'File "mine.py", line 3' in said and len(trace.steps) == 1
    assert "backward() was not called" in say(step_only(), "c back")


def step_only():
    """A trace without a backward."""
    with step() as trace:
        minidl.ones(2) * 2
    return trace


def test_the_numbers_beside_it_are_those_of_the_step_back(once):
    gate = next(item for item in once.forwards if item.op.name == "relu")
    back = gate.backwards[0]
    before, after = (max(abs(x.array).max() for x in xs) for xs in (
        [grad for _, grad in back.grads_in], [part.grad for part in back.contributions]))
    assert measured(gate) == measured(back)
    found = re.match(r"largest \|grad_y\| (\S+) → grad_x (\S+) .*zeros 0 % → (\d+) %", measured(gate))
    assert float(found[1]) == pytest.approx(before, rel=1e-2) and float(found[2]) == pytest.approx(after, rel=1e-2)
    assert int(found[3]) == round(100 * (back.contributions[0].grad.array == 0).mean())
    norm = re.match(r"largest \|grad_y\| (\S+) → grad_x (\S+) \(×(\S+)\), grad_weight \S+, grad_bias ", measured(once.forwards[1]))
    assert float(norm[3]) == pytest.approx(float(norm[2]) / float(norm[1]), rel=0.02)
    assert "×" not in measured(once.forwards[0])  # of a weight's gradient that would say nothing


def test_where_no_gradient_came_back_it_says_so():
    x = Tensor(np.ones(3), requires_grad=True)
    with step() as trace:
        (x * 2).tanh()
        Tensor(np.ones(2)) + 1
    assert measured(trace.forwards[0]) == "no backward went through it."
    assert measured(trace.forwards[2]).startswith("none came back")
    assert "No step went back through it: no backward" in say(trace, "f")


def test_f_goes_to_the_step_back_and_again_to_the_forward(once):
    assert re.findall(r"● step \d+/13  (\w+ \d+/\d+)", say(once, "f", "f", at=2)) == ["bwd 5/6", "fwd 2/6"]
    assert "neither" in say(once, "f", at=13)


@pytest.mark.parametrize("name, count, names", [
    ("batch_norm_train", 3, ["y", "mean", "var"]), ("sort", 2, ["values", "indices"]), ("max_pool2d", 2, ["y1", "y2"]),
    ("pass_on", 2, ["y1", "y2"])])
def test_outputs_are_called_what_the_docstring_calls_them(name, count, names):
    assert output_names(OPS[name], count) == names


def test_batch_norms_extras_are_mean_and_var(once):
    assert once.find("bn.mean").shape == once.find("bn.var").shape == (4,)


# --- the training step before, other traces ----------------------------------------------------------------------------

def test_a_tensor_is_put_beside_the_one_of_the_training_step_before(twice):
    first, second = training_steps(twice)
    found = comparisons(twice)
    for before, after in zip(first[:12], second[:12], strict=True):
        assert (before.kind, before.op.name) == (after.kind, after.op.name)
    for k in range(6):
        y, other = second[k].outputs[0], first[k].outputs[0]
        row, = found[id(y)]
        assert row.where == BEFORE and row.value is other
        assert row.apart == pytest.approx(np.abs(y.array - other.array).max() / np.abs(other.array).max(), rel=1e-6)
    weight = second[0].inputs[1]
    assert weight.name == "conv.weight'" and found[id(weight)][0].value.name == "conv.weight"
    grad = second[6 + 5].contributions[0].grad
    assert found[id(grad)][0].value is first[6 + 5].contributions[0].grad
    assert all(id(value) not in found for value in (first[0].outputs[0], first[0].inputs[0]))


def test_the_second_call_is_held_against_the_second_call():
    def run(x):
        with step() as trace:
            Tensor(np.array([x])).tanh().tanh().tanh()
        return trace

    trace = run(1.0)
    trace.others = [("other", run(2.0))]
    found = comparisons(trace)
    assert [found[id(item.outputs[0])][0].value.array for item in trace.forwards] == [
        item.outputs[0].array for item in trace.others[0][1].forwards]


def test_the_prompt_shows_it(twice):
    assert "compare  the training step before: mean" in say(twice, "v y", at=14)
    assert "compare" not in say(twice, "v y", at=1)


def test_it_is_in_the_file_and_in_the_page_and_stays_in_the_budget(twice, tmp_path):
    twice.save(tmp_path / "t.zip")
    whole, kept = twice.describe(), load(tmp_path / "t.zip")
    again = kept.describe()
    assert [t["compared"] for t in again["tensors"]] == [t["compared"] for t in whole["tensors"]]
    assert sum(len(t["compared"]) for t in whole["tensors"]) > 20
    assert "the training step before" in say(kept, "v y", at=14)
    assert mismatch({**again, "arrays": []}, PATTERN, "trace") == ""
    names = [row["name"] for row in page.prepared(whole)["outline"]]
    assert names[:2] == ["training step 1–2", "training step 1"] and "training step 2" in names


def test_another_trace_beside_this_one(once):
    once.others = [("other</script>.zip", trained(1, seed=1)), ("same.zip", trained(1))]
    try:
        rows = comparisons(once)[id(once.forwards[0].outputs[0])]
        assert [row.where for row in rows] == ["other</script>.zip", "same.zip"]
        assert rows[0].apart > 0.1 and rows[1].apart < 1e-6
        said = once.describe()["tensors"]
        assert any(row["tensor"] is None and row["facts"] and row["apart"] == 0 for tensor in said for row in tensor["compared"])
        assert "</script>" not in page.html(once.describe()).split('id="trace">')[1].partition("</script>")[0]
    finally:
        once.others = []


def test_two_backends_beside_each_other(tmp_path):
    trained(1, backend="reference").save(tmp_path / "reference.zip")
    trace = trained(1)
    trace.others = [("reference", load(tmp_path / "reference.zip"))]
    conv = trace.forwards[0].outputs[0]
    assert comparisons(trace)[id(conv)][0].apart < 1e-5


# --- other backends -----------------------------------------------------------------------------------------------------

def test_differences_are_in_the_description_and_survive_a_file(once, tmp_path):
    whole = once.describe(diff=["reference"])
    diff, = whole["diffs"]
    ops = {once.steps[row["step"] - 1].op.name for row in diff["rows"]}
    assert {"conv2d", "batch_norm_train", "linear"} <= ops and all(row["alone"] < 1e-5 for row in diff["rows"])
    assert "relu" in {left["why"]: left["ops"] for left in diff["left"]}["has no other implementation"]
    once.save(tmp_path / "t.zip", diff=["reference"])
    kept = load(tmp_path / "t.zip")
    assert differences(kept, "reference") == diff
    assert "conv2d" in say(kept, "diff reference")


def test_a_wrong_backend_shows_up_in_the_differences(once, monkeypatch):
    from minidl import backend
    wrong = next(i for i in backend.IMPLEMENTATIONS["conv2d"] if i.name == "reference")
    right = wrong.function
    monkeypatch.setattr(wrong, "function", lambda *arrays, **how: right(*arrays, **how) * 1.01)
    row = next(row for row in differences(once, "reference")["rows"] if once.steps[row["step"] - 1].op.name == "conv2d")
    assert row["alone"] == pytest.approx(0.01, rel=0.1) and row["theirs"] > 100 * row["ours"]


def test_a_recording_on_a_gpu_is_looked_at_on_the_cpu(tmp_path):
    with a_gpu():
        x, w = (Tensor(np.array([[1.0, 2.0]]), requires_grad=True).to("cuda").detach().requires_grad_() for _ in "xw")
        seed = Tensor(np.ones((1, 2))).to("cuda")
        with step() as trace:
            y = (x * w).tanh()
            y.backward(seed)
        assert [value.device for value in trace.values] == ["cuda:0"] * 4
        assert "✓ stored" in say(trace, "f", "w", at=1) and "✓ ok" in say(trace, "ck")
        trace.save(tmp_path / "gpu.zip")
        page.write(trace, tmp_path / "gpu.html")
    assert all(isinstance(value.array, np.ndarray) for value in trace.values)
    assert load(tmp_path / "gpu.zip").values[0].device == "cuda:0"


@pytest.mark.skipif(not why_no_cuda(), reason="there is a GPU here")
def test_diff_cuda_says_what_is_missing(once):
    with pytest.raises(DeviceError, match="this backend runs on a GPU"):
        differences(once, "cuda")


def test_an_unknown_backend_is_refused_with_the_nearest(once):
    with pytest.raises(ArgumentError, match="Did you mean reference"):
        differences(once, "refrence")
    assert "there is no such backend" in say(once, "diff nonsense")


def test_a_difference_of_a_step_that_is_not_there_is_refused(once, tmp_path):
    import zipfile
    once.save(tmp_path / "t.zip", diff=["reference"])
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(files["trace.json"])
    for wrong, change in ((99, "step"), ("x", "step"), (None, "alone")):
        broken = json.loads(files["trace.json"])
        broken["diffs"][0]["rows"][0][change] = wrong
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, json.dumps(broken) if name == "trace.json" else content)
        with pytest.raises(TraceError):
            load(tmp_path / "bad.zip")
    assert data["version"] == 3


# --- the last training steps only -----------------------------------------------------------------------------------------

def test_only_the_last_training_steps_are_kept():
    whole, last = trained(7), trained(7, last=2)
    assert len(last.updates) == 2 and last.forgotten == 5 * 13 and len(whole.updates) == 7
    for ours, theirs in zip(last.steps, whole.steps[-26:], strict=True):
        assert (ours.kind, ours.op.name, ours.path) == (theirs.kind, theirs.op.name, theirs.path)
    np.testing.assert_array_equal(last.steps[-1].rows[0].after.array, whole.steps[-1].rows[0].after.array)
    assert [item.step for item in last.steps] == list(range(1, 27)) and last.counts == dict.fromkeys(last.counts, 12) | {
        type(last.updates[0]): 2}
    assert {value.name for value in last.values} >= {"conv.weight", "conv.weight'", "conv.weight''"}
    assert mismatch({**last.describe(), "arrays": []}, PATTERN, "trace") == ""
    assert comparisons(last)[id(last.steps[13].outputs[0])][0].where == BEFORE


def test_a_long_recording_does_not_grow():
    minidl.manual_seed(0)
    net, sizes = Small(), []
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    recording = step(net, last=2)
    with recording:
        for _ in range(9):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(minidl.randn(2, 2, 6, 6)), Tensor(np.array([0, 2]))).backward()
            optimizer.step()
            sizes.append([len(part) for part in (recording.alive, recording.found, recording.grads, recording.by_node)])
    assert sizes[3] == sizes[-1]


def test_record_last_of_a_script(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import minidl\nw = minidl.ones(3, requires_grad=True)\nopt = minidl.optim.SGD([w], lr=0.1)\n"
                      "for _ in range(5):\n    opt.zero_grad()\n    (w * w).sum().backward()\n    opt.step()\n")
    trace = subjects.record_script(str(script), last=3)
    assert len(trace.updates) == 3 and "The last 3 training steps; 10 steps before them were let go." in trace.title


@pytest.mark.parametrize("text", ["last", "last:0", "first:3", "last:x", "3"])
def test_record_takes_last_and_a_number(text):
    from click.testing import CliRunner

    from minidl.commands.step import command
    done = CliRunner().invoke(command, ["tiny", "--record", text])
    assert done.exit_code == 2 and "is not last:N" in done.output


def test_the_flight_recorder_repeats_the_last_steps(tmp_path):
    minidl.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @flight_recorder(model, optimizer, tmp_path / "f.zip", last=3)
    def train_step(x, target):
        optimizer.zero_grad()
        loss = ((model(x) - target) / target).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    with pytest.raises(FlightError) as caught:
        for target in (1.0, 2.0, 3.0, 4.0, 0.0):
            losses.append(train_step(minidl.randn(4, 2), minidl.full((4, 1), target)).item())
    trace = caught.value.trace
    again = [[item for item in part if item.kind == "forward"][-1].outputs[0].array for part in training_steps(trace)]
    assert again == [*losses[2:], np.inf]
    assert len(trace.updates) == 3 and "training step 3 to 5, the loss is inf" in trace.title[0]
    assert "first bad: div" in str(caught.value) and training_steps(trace)[2][4].op.name == "div"
    with pytest.raises(ArgumentError, match="how many training steps"):
        flight_recorder(model, optimizer, last=0)


# --- large tensors, a piece at a time ---------------------------------------------------------------------------------------

LARGE = {"matrix": (700, 500), "row": (400_000,), "image": (2, 5, 200, 180), "channels last": (2, 200, 180, 5)}


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_what_is_said_of_a_large_tensor_is_what_is_said_of_a_small_one(name, bad, monkeypatch):
    array = np.random.default_rng(0).standard_normal(LARGE[name]).astype(np.float32) ** 3
    array += np.linspace(-3, 5, len(array), dtype=np.float32).reshape(-1, *[1] * (array.ndim - 1))  # the pieces differ
    array = array.transpose(0, 3, 1, 2) if name == "channels last" else array
    if bad:
        array[(0,) * array.ndim], array[(1,) * array.ndim if array.ndim > 1 else 9] = np.nan, -np.inf
    at_once, in_pieces = [], []
    for found, size in ((in_pieces, values.PIECE), (at_once, 10**9)):
        monkeypatch.setattr(values, "PIECE", size)
        found += [values.facts_of(array), values.histogram(array), values.pictures(array, "channels", False)]
    assert in_pieces[0].keys() == at_once[0].keys()
    for key, value in at_once[0].items():
        assert in_pieces[0][key] == pytest.approx(value, rel=1e-6, abs=1e-9), key
    assert [in_pieces[1][key] for key in ("low", "high")] == [at_once[1][key] for key in ("low", "high")]
    assert np.abs(np.subtract(in_pieces[1]["counts"], at_once[1]["counts"])).sum() <= 4  # a value on the border of two bins
    levels = [np.concatenate([np.frombuffer(base64.b64decode(text), np.uint8).astype(int) for text in found[2]["data"]])
              for found in (in_pieces, at_once)]
    assert np.abs(levels[0] - levels[1]).max() <= 1


def test_pieces_cover_an_array_once():
    for shape in ((700, 500), (400_000,), (3, 5, 200, 180), (2, 3), (), (0, 4), (1, 300_000)):
        array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
        assert np.concatenate([piece.ravel() for piece in values.pieces(array)]).tolist() == array.ravel().tolist()


def test_arrays_are_compared_to_the_last_element():
    a = np.zeros((700, 500), np.float32)
    b = a.copy()
    assert same(a, b) and not same(a, b.astype(np.float64)) and not same(a, b[:-1])
    b[-1, -1] = np.nan
    assert not same(a, b) and same(b, b.copy())


# --- verbs ----------------------------------------------------------------------------------------------------------------

def test_t_says_where_the_time_went(once):
    said = say(once, "t").splitlines()
    assert re.match(r"  forward \S+ (µs|ms|s), backward \S+ (µs|ms|s), update ", said[0])
    assert said[1].split() == ["step", "kind", "op", "module", "time", "share", "speed"]
    shares = [int(re.search(r"(\d+) %", line)[1]) for line in said[2:]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 13 and 90 <= sum(shares) <= 110


def test_diff_is_a_table_that_ends_with_what_it_left_out(once):
    said = say(once, "diff reference")
    assert re.search(r"step +op +module +alone +added up +ours-f64 +its-f64 +nearer", said)
    assert re.search(r"\n  1 +conv2d +conv +\S+ +\S+ +\S+ +\S+", said)
    assert re.search("not compared, has no other implementation: .*relu", said)


def test_save_and_html_write_files_and_say_how_large(once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = say(once, "save t.zip", "html p.html", "save", "html no/such/folder/p.html", "save no/such/folder/t.zip")
    assert re.search(r"Written: t\.zip, \S+ kB\.", said) and re.search(r"Written: p\.html, \S+ kB\.", said)
    assert "Say where to: a file name." in said and said.count("the file cannot be written") == 2
    assert len(load("t.zip").steps) == 13 and "<!doctype html>" in (tmp_path / "p.html").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "t.zip"]


@pytest.mark.parametrize("command, meant", [
    ("c con2d", "conv2d"), ("b RELU", "relu"), ("c hed", "head"), ("b nam", "nan"), ("b satrated", "saturated"), ("j haed", "head")])
def test_near_misses_are_suggested(once, command, meant):
    assert f"Did you mean {meant}" in " ".join(say(once, command).split())


def test_what_is_near_nothing_gets_no_suggestion(once):
    assert "Did you mean" not in say(once, "b qqqqqqq", "j qqqqqqq")


# --- pictures of one's own --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode, suffix", [("RGB", "png"), ("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "png")])
def test_pictures_are_read_through_pillow(tmp_path, mode, suffix):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install -e '.[data]'")
    path = tmp_path / f"half.{suffix}"
    picture = image.new("RGB", (40, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (20, 0, 40, 20))
    picture.convert(mode).save(path)
    found = subjects.read_image(str(path), (3, 32, 32))
    assert found.shape == (3, 32, 32) and found.dtype == np.float32 and 0 <= found.min() and found.max() <= 1
    if mode != "L":
        assert found[0, :, :12].min() > 0.9 and found[2, :, 20:].min() > 0.9 and found[0, :, 20:].max() < 0.1
    assert subjects.read_image(str(path), (1, 28, 28)).shape == (1, 28, 28)


def test_an_own_picture_gets_into_the_trace(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install -e '.[data]'")
    image.new("RGB", (64, 64), (0, 255, 0)).save(tmp_path / "green.png")
    trace = subjects.record_shapes(image=str(tmp_path / "green.png"))
    assert trace.forwards[0].inputs[0].array[0, :, 0, 0].tolist() == [0, 1, 0]


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ArgumentError, match="Pillow"):
        subjects.read_image(str(tmp_path / "a.png"), (3, 8, 8))


def test_an_op_without_words_on_its_gradient_still_steps():
    known = dict(OPS)
    try:
        @op("x", name="wordless_op_of_a_test")
        def wordless(x):
            """Twice x."""
            return x.array * 2, lambda grad_y: (grad_y * 2,)

        with step() as trace:
            wordless(Tensor(np.ones(2), requires_grad=True)).sum().backward()
        assert "gradient largest |grad_y| 1 → grad_x 2" in say(trace, "j 1")
    finally:
        OPS.clear()
        OPS.update(known)
