"""The fifteen confusions: every stop of the tour exists in a fresh recording and shows what its text says. That the numbers
on the pages are what their code prints, test_docs.py looks after.
"""

import io
import re
from pathlib import Path

import numpy as np
import pytest

from minidl.core.tensor import Tensor
from minidl.models.shapes import trained
from minidl.stepper import page as html_page
from minidl.stepper import subjects, tour
from minidl.stepper.opcheck import checked
from minidl.stepper.terminal import Paper, Prompt
from minidl.stepper.worked import again

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "confusions"
STOPS = {stop.page: stop for stop in tour.stops()}
TERM = re.compile(r"grad_y(?:\[0\](?=\[))?\[([\d,]+)\]")
CLOSE = {"rtol": 2e-4, "atol": 1e-7}  # sums of at most a few thousand float32 numbers


@pytest.fixture(scope="module")
def trace_of(tmp_path_factory):
    """page -> its trace; the shipped network is recorded once."""
    folder, known = tmp_path_factory.mktemp("scripts"), {}

    def find(page):
        script = STOPS[page].script
        if script not in known:
            if script:
                code = re.search(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)[1]
                (folder / script).write_text(code, encoding="utf-8")
            known[script] = subjects.record_script(str(folder / script)) if script else subjects.record_shapes()
        return known[script]
    return find


def text_of(page):
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def walked(trace, commands):
    """(the step where the commands end, everything that was drawn on the way)."""
    paper = Paper(io.StringIO())
    prompt = Prompt(trace, paper)
    prompt.run_all(line.strip() for line in commands.split(";"))
    return prompt.current, paper.out.getvalue()


def where_it_leads(stop, trace):
    """What is wrong with a stop: "" if the verbs, the address and the description of the step agree."""
    meant = stop.find(trace)
    if meant is None:
        return "no step, or several, are of this kind"
    end, _ = walked(trace, stop.commands)
    if end is not meant:
        return f"the verbs lead to step {end.step}, not to {meant.step}"
    if stop.view["step"] != meant.step:
        return f"the address opens step {stop.view['step']}, not {meant.step}"
    return ""


# --- pages --------------------------------------------------------------------------------------------------------

def test_fifteen_pages_and_a_stop_for_each():
    assert len(STOPS) == 15
    assert set(STOPS) == {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [page for page in STOPS if f"| [{STOPS[page].title}]({page}.md) |" not in index] == []


@pytest.mark.parametrize("page", STOPS)
def test_page_and_tour_say_the_same(page):
    stop, text = STOPS[page], text_of(page)
    said = " ".join(text.split())
    assert text.startswith(f"# {stop.title}\n") and stop.text in said and f"step.html{stop.hash}`" in text
    assert f'minidl step{" " + stop.script if stop.script else ""} -c "{stop.commands}"\n' in text


# --- stops --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("page", STOPS)
def test_verbs_and_address_lead_to_the_stop(page, trace_of):
    stop, trace = STOPS[page], trace_of(page)
    assert where_it_leads(stop, trace) == ""
    _, drawn = walked(trace, stop.commands)
    assert "no such" not in drawn.lower() and "There is no" not in drawn and "✗" not in drawn, drawn


@pytest.fixture(scope="module")
def shipped_description():
    return subjects.record_shapes().describe(limit=0)


@pytest.mark.parametrize("page", STOPS)
def test_address_opens_what_it_names(page, trace_of, shipped_description):
    """The tab, the tensor (on the stage of that step, its name once in the page) and the element exist."""
    stop = STOPS[page]
    description = trace_of(page).describe(limit=0) if stop.script else shipped_description
    tabs = re.search(r"TABS = \[(.*?)\]", html_page.asset("state.js"))[1]
    assert f'"{stop.view["tab"]}"' in tabs
    if "tensor" not in stop.view:
        return
    named = [tensor for tensor in description["tensors"] if tensor["name"] == stop.view["tensor"]]
    step = description["steps"][stop.view["step"] - 1]
    on_stage = {entry["tensor"] for entry in [*step["inputs"], *step["outputs"]]} | {part["after"] for part in step.get("parts", ())}
    assert len(named) == 1 and named[0]["id"] in on_stage
    if "at" in stop.view:
        assert len(stop.view["at"]) == len(named[0]["shape"])
        assert all(k < n for k, n in zip(stop.view["at"], named[0]["shape"], strict=True))


def test_a_stop_that_moved_is_noticed(trace_of):
    trace, stop = trace_of("skip"), STOPS["skip"]
    assert "address" in where_it_leads(stop._replace(hash=stop.hash.replace("59", "58")), trace)
    assert "verbs" in where_it_leads(stop._replace(commands="c back; c stage1.conv2"), trace)
    assert "no step" in where_it_leads(stop._replace(step={**stop.step, "op": "relu", "path": "stage9"}), trace)


# --- what each text says ------------------------------------------------------------------------------------------

def term_indices(row):
    """The indices in grad_y of a worked number's terms, with their factors."""
    return [(tuple(int(k) for k in TERM.match(term["text"])[1].split(",")), term["factor"]) for term in row["terms"]]


def worked(back, argument, index):
    """One element of a gradient, worked out; it agrees with what was stored."""
    which = [part.argument for part in back.contributions].index(argument)
    row = again(back.forward).gradient(back, which, index)
    assert row["agree"], row
    return row, len(row["terms"]) + row["more"]


def arrays(back):
    """{x: array, ..., grad_y, grad_x: array, ...} of a backward step."""
    forward = back.forward
    found = {forward.op.input_name(k): value.array for k, value in enumerate(forward.inputs) if hasattr(value, "array")}
    return found | {"grad_y": back.grads_in[0][1].array} | {f"grad_{part.argument}": part.grad.array for part in back.contributions}


def shows_conv_channels(step, trace):
    a = arrays(step)
    assert a["weight"].shape[:2] == (16, 8) and step.settings["stride"] in (2, (2, 2)) and a["grad_y"].shape == (2, 16, 16, 16)
    row, count = worked(step, "weight", (4, 2, 1, 1))
    assert {index[1] for index, _ in term_indices(row)} == {4} and 8 < count <= 2 * 16 * 16
    row, count = worked(step, "x", (1, 3, 7, 9))
    assert {index[0] for index, _ in term_indices(row)} == {1} and len({index[1] for index, _ in term_indices(row)}) > 1
    assert count == 4 * 16  # with stride 2 an odd row and an odd column each lie in two windows


def shows_kernel_flip(step, trace):
    w = arrays(step)["weight"]
    row, _ = worked(step, "x", (0, 0, 5, 5))
    for (_, o, p, q), factor in term_indices(row):
        np.testing.assert_allclose(factor, w[o, 0, 5 - p + 1, 5 - q + 1], rtol=1e-5)
    assert any(index[2:] == (6, 6) for index, _ in term_indices(row))


def shows_overlap_adds(step, trace):
    assert worked(step, "x", (0, 0, 4, 4))[1] == 9 * 32 and worked(step, "x", (0, 0, 0, 0))[1] == 4 * 32


def shows_bias_gradient(step, trace):
    row, count = worked(step, "bias", (4,))
    assert count == 2 and sorted(term_indices(row)) == [((0, 4), 1), ((1, 4), 1)]


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def shows_batch_size(step, trace):
    a = arrays(step)
    row, count = worked(step, "weight", (4, 0))
    assert count == 2 and sorted(index for index, _ in term_indices(row)) == [(0, 4), (1, 4)]
    np.testing.assert_allclose(a["grad_weight"], a["grad_y"].T @ a["x"], **CLOSE)
    scores = step.forward.outputs[0].array
    np.testing.assert_allclose(a["grad_y"], (softmax(scores) - np.eye(10)[list(subjects.SHOWN)]) / 2, **CLOSE)


def shows_softmax_cross_entropy(step, trace):
    a = arrays(step)
    assert list(np.flatnonzero(a["grad_x"][0] < 0)) == [4]
    np.testing.assert_allclose(a["grad_x"].sum(1), 0, atol=1e-7)
    np.testing.assert_allclose(a["grad_x"], (softmax(a["x"]) - np.eye(10)[list(subjects.SHOWN)]) / 2, **CLOSE)


def shows_batch_norm_gradient(step, trace):
    a = arrays(step)
    row, count = worked(step, "x", (0, 3, 1, 2))
    (first, largest), *others = term_indices(row)
    assert first == (0, 3, 1, 2) and all(abs(factor) < abs(largest) / 10 for _, factor in others)
    assert {index[1] for index, _ in term_indices(row)} == {3} and count == np.count_nonzero(a["grad_y"][:, 3]) <= 128
    np.testing.assert_allclose(a["grad_x"].sum((0, 2, 3)), 0, atol=1e-6)


def shows_batch_norm_modes(step, trace):
    x, (_, mean, var) = step.inputs[0].array.astype(np.float64), (y.array for y in step.outputs)
    assert x[:, 0].size == 128
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), **CLOSE)
    np.testing.assert_allclose(var, x.var((0, 2, 3)), **CLOSE)  # NumPy's var divides by N
    net = trained().train()
    before = net.stage3.bn2.running_var.numpy().copy()
    net(Tensor(trace.find("x").array))
    np.testing.assert_allclose(net.stage3.bn2.running_var.numpy(), 0.9 * before + 0.1 * 128 / 127 * var, **CLOSE)


def shows_max_pool_ties(step, trace):
    assert np.count_nonzero(arrays(step)["x"] == 7) == 3
    np.testing.assert_array_equal(arrays(step)["grad_x"], [[[[0, 1], [0, 0]]]])


def shows_scalar_start(step, trace):
    assert step.number == 1 and arrays(step)["grad_y"].shape == () and arrays(step)["grad_y"] == 1


def shows_accumulate(step, trace):
    gradients = {part.to.name: part.after.array for back in trace.backwards for part in back.contributions}
    assert len(step.rows) == 29
    for row in step.rows:
        np.testing.assert_array_equal(row.grad.array, gradients[row.before.name])  # of this backward, and nothing before it
        np.testing.assert_allclose(row.after.array, row.before.array - 0.01 * row.grad.array, rtol=1e-5, atol=1e-7)


def shows_skip(step, trace):
    part = step.contributions[0]
    assert (part.argument, part.index, part.count, part.complete) == ("x", 2, 2, True)
    first = next(other for back in trace.backwards for other in back.contributions if other.to is part.to and other.index == 1)
    through = next(back for back in trace.backwards if first in back.contributions)
    assert (through.op.name, through.path) == ("add", "stage1")
    np.testing.assert_array_equal(first.grad.array, through.grads_in[0][1].array)  # copied, not split
    np.testing.assert_allclose(part.after.array, first.grad.array + part.grad.array, **CLOSE)


def shows_flatten_size(step, trace):
    assert step.inputs[0].shape == (2, 32, 8, 8) and step.outputs[0].shape == (2, 32)
    (reader,) = step.users
    assert reader.path == "fc" and reader.inputs[1].shape == (10, 32)


def shows_gradient_check(step, trace):
    report = checked(step.forward, True)
    row = report["rows"][0]
    errors = [error for _, error in row["curve"]]
    assert report["ok"] and min(errors) < row["allowed"] and min(errors) < errors[0] / 1000 and min(errors) < errors[-1]


def shows_nan(step, trace):
    assert np.isinf(step.inputs[0].array).any() and np.isinf(step.inputs[1].array).all() and np.isnan(step.outputs[0].array).any()
    _, drawn = walked(trace, STOPS["nan"].commands)
    assert "stopped at nan" in drawn and "first bad: exp (op1)" in drawn and "from 1 to 90" in drawn


@pytest.mark.parametrize("page", STOPS)
def test_stop_shows_what_its_text_says(page, trace_of):
    trace = trace_of(page)
    globals()[f"shows_{page.replace('-', '_')}"](STOPS[page].find(trace), trace)
