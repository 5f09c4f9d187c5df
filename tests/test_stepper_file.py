"""describe(), saved traces and hostile files; what `minidl step` records; pictures of one's own."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minidl.core.errors import ArgumentError
from minidl.core.tensor import Tensor
from minidl.stepper import load, step, subjects
from minidl.stepper.container import TraceError
from minidl.stepper.pattern import PATTERN, mismatch
from minidl.stepper.terminal import Paper, Prompt

ROOT = Path(__file__).resolve().parents[1]


class Out(io.StringIO):
    """Collects what is drawn."""


def say(trace, *commands):
    """What the prompt answers."""
    paper = Paper(Out())
    prompt = Prompt(trace, paper)
    for line in commands:
        prompt.onecmd(line)
    return paper.out.getvalue()


@pytest.fixture(scope="module")
def shapes():
    return subjects.record_shapes()


@pytest.fixture(scope="module")
def saved(shapes, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "shapes.zip"
    shapes.save(path)
    return path


@pytest.fixture(scope="module")
def whole(shapes):
    return shapes.describe()


def minidl_step(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, "-m", "minidl", "step", *arguments], capture_output=True, text=True, encoding="utf-8",
                          stdin=subprocess.DEVNULL, env=environment, check=False)


# --- describe() -------------------------------------------------------------------------------------------------------

def test_a_description_is_json_and_fits_its_pattern(whole):
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert mismatch({**whole, "arrays": []}, PATTERN, "trace") == ""
    assert whole["counts"] == {"forward": 31, "backward": 31, "update": 1}
    assert [item["id"] for item in whole["steps"]] == list(range(1, 64))
    assert [tensor["id"] for tensor in whole["tensors"]] == list(range(len(whole["tensors"])))


def test_a_description_names_modules_and_links_tensors(whole):
    tensors, steps = whole["tensors"], whole["steps"]
    conv = next(item for item in steps if item["path"] == "stage1.conv1")
    weight = tensors[conv["inputs"][1]["tensor"]]
    assert weight["name"] == "stage1.conv1.weight" and weight["role"] == "parameter" and weight["thumbnails"]["kind"] == "tiles"
    assert tensors[weight["gradient"]]["of"] == weight["id"] and tensors[weight["gradient"]]["name"] == "grad_stage1.conv1.weight"
    assert tensors[conv["outputs"][0]["tensor"]]["made_by"] == conv["id"] and conv["flops"] == 2 * 2 * 8 * 32 * 32 * 8 * 9
    assert {"", "stage1", "stage1.conv1", "stage2.project"} <= {module["path"] for module in whole["modules"]}
    assert tensors[steps[0]["inputs"][0]["tensor"]]["thumbnails"]["kind"] == "rgb"
    assert all(row["agree"] for item in steps for row in item["worked"]) and sum(len(item["worked"]) for item in steps) > 60


def test_a_budget_shrinks_pictures_and_never_statistics(shapes, whole):
    small = shapes.describe(budget=450_000)
    assert len(json.dumps(small)) <= 450_000 < len(json.dumps(whole)) and "thumbnails" in small["shrunk"][0]
    assert [t["facts"] for t in small["tensors"]] == [t["facts"] for t in whole["tensors"]]


# --- files ------------------------------------------------------------------------------------------------------------

def test_a_saved_trace_says_the_same(saved, whole):
    other = load(saved).describe()
    for key in whole:
        assert other[key] == whole[key], key


def test_checks_are_saved_too(tmp_path):
    trace = subjects.record_tiny()
    trace.save(tmp_path / "tiny.zip", check=True)
    again = load(tmp_path / "tiny.zip")
    assert again.describe() == trace.describe(check=True)
    checks = [item["check"] for item in again.describe()["steps"]]
    assert all(check["ok"] for check in checks if check) and len(checks[0]["rows"][0]["curve"]) > 20


def test_a_saved_trace_is_walked_through_like_a_live_one(shapes, saved):
    again = load(saved)
    for commands in (["c back", "n", "l"], ["g"], ["why"], ["c stage3", "v fc.bias"], ["b relu", "c", "rc"], ["c end"]):
        assert say(again, *commands) == say(shapes, *commands), commands
    assert "cannot be run again" in say(again, "w y[0,0,0,0]") and "from a file" in say(again, "diff")
    assert "✓ stored" in say(again, "c back", "n") and "✓ stored" in say(again, "w").replace("✓ stored:", "✓ stored")


def test_what_does_not_fit_is_left_out_and_said(shapes, tmp_path):
    left = shapes.save(tmp_path / "small.zip", budget=700_000)
    assert any("statistics and pictures only" in line for line in left)
    again = load(tmp_path / "small.zip")
    assert again.shrunk == left and "is in this file:" in say(again, "v stem")
    assert os.listdir(tmp_path) == ["small.zip"]


def test_a_trace_that_ended_badly_is_saved_too(tmp_path):
    x = Tensor(np.array([-1.0, 2.0]), requires_grad=True)
    with np.errstate(all="ignore"), pytest.raises(ValueError), step() as trace:
        y = x.sqrt() * 2
        y.sum().backward()
        x + Tensor(np.ones(3))
    trace.save(tmp_path / "bad.zip")
    again = load(tmp_path / "bad.zip")
    assert again.error == trace.error and "first bad: sqrt" in say(again, "why nan")


def test_an_op_from_before_the_recording_survives_the_file(tmp_path):
    x = Tensor(np.ones(3), requires_grad=True)
    h = x.tanh()
    with step() as trace:
        (h * 2).sum().backward()
    trace.save(tmp_path / "earlier.zip")
    again = load(tmp_path / "earlier.zip")
    assert [item.op.name for item in again.steps] == [item.op.name for item in trace.steps]
    assert say(again, "c end", "g", "t")


def edited(saved, path, change):
    """The saved trace with its JSON changed."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "trace.json":
                whole = json.loads(data)
                change(whole)
                data = json.dumps(whole)
            new.writestr(info.filename, data)
    return path


def put(place, value):
    """A change of one place: put("steps", 0, "op")."""
    def change(whole):
        for key in place[:-1]:
            whole = whole[key]
        whole[place[-1]] = value
    return change


@pytest.mark.parametrize("change", [
    put(("format",), "something else"), put(("version",), 99), put(("steps", 0, "op"), 5), put(("steps", 0, "op"), "no such op"),
    put(("steps", 0, "id"), 7), put(("steps", 0, "inputs", 0, "tensor"), 10**9), put(("steps", 0, "inputs", 0, "tensor"), -1),
    put(("tensors", 0, "shape"), [2, -3]), put(("tensors", 0, "shape"), [10**9] * 5), put(("tensors", 0, "dtype"), "object"),
    put(("tensors", 0, "dtype"), "__import__('os')"), put(("tensors", 0, "facts", "mean"), [1]), put(("tensors", 0, "facts", "nan"), "x"),
    put(("arrays",), [10**9]), put(("arrays",), [-1]), put(("steps", 40, "forward"), 10**9), put(("steps", 40, "kind"), "sideways"),
    put(("title",), "text"), put(("steps", 3, "users"), [999]), put(("steps", 40, "parts", 0, "after"), "1"), put(("steps",), None),
    put(("sources", 0, "lines"), [[1]]), put(("steps", 0, "worked", 0, "terms"), [{}]), put(("tensors", 2, "histogram"), {"low": 1})])
def test_damaged_traces_are_refused(saved, tmp_path, change):
    with pytest.raises(TraceError, match="not a trace, or a damaged one"):
        trace = load(edited(saved, tmp_path / "x.zip", change))
        say(trace, "g")


def test_files_that_are_no_traces_are_refused(saved, tmp_path):
    cases = {"empty": b"", "text": b"hello", "cut": saved.read_bytes()[:5000], "zip": b"PK\x05\x06" + bytes(18),
             "flipped": saved.read_bytes()[:3000] + b"\xff" * 50 + saved.read_bytes()[3050:]}
    for name, data in cases.items():
        path = tmp_path / f"{name}.zip"
        path.write_bytes(data)
        with pytest.raises(TraceError, match="not a trace"):
            load(path)
    done = minidl_step(str(tmp_path / "cut.zip"))
    assert done.returncode == 2 and "not a trace" in done.stderr and "Traceback" not in done.stderr
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("trace.json", "w", force_zip64=True) as file:
        for _ in range(11):
            file.write(bytes(100_000_000))
    with pytest.raises(TraceError, match="unpacks to more"):
        load(bomb)
    deep = tmp_path / "deep.zip"
    with zipfile.ZipFile(deep, "w") as archive:
        archive.writestr("trace.json", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(TraceError):
        load(deep)


def test_hostile_texts_in_a_file_appear_as_text(saved, tmp_path):
    evil = "</script>\x1b[2J\u202e\""

    def change(whole):
        whole["title"], whole["error"] = [evil], evil
        for tensor in whole["tensors"]:
            tensor["name"] += evil
        for item in whole["steps"]:
            item["path"] = (item["path"] or "") + evil
            item["settings"] = {evil: evil}
            item["call"] = {"file": evil, "line": 1, "text": evil}
        whole["sources"] = [{"file": evil, "lines": [[1, evil]]} for _ in whole["sources"]]

    text = say(load(edited(saved, tmp_path / "evil.zip", change)), "n", "g", "l", "c back", "n", "c end", "why", "v", "t", "r", "u")
    assert "</script>" in text and "\x1b" not in text and "\u202e" not in text


# --- what is recorded ---------------------------------------------------------------------------------------------------

def test_the_shipped_network_names_its_pictures(shapes):
    assert "star" in shapes.title[1] and "heart" in shapes.title[1] and "it is a" not in shapes.title[1]


def test_the_shipped_weights_name_new_pictures():
    from minidl.lessons.train_shapes import accuracy
    from minidl.models.shapes import trained

    assert accuracy(trained(), seed=123, count=200) >= 0.97


def test_training_is_reproducible_and_learns():
    from minidl.lessons.train_shapes import train

    losses = [[], []]
    for said in losses:
        train(pictures=64, epochs=2, held_out=10, say=said.append)
    first, second = (float(line.split()[3]) for line in losses[0])
    assert [line.split()[3] for line in losses[0]] == [line.split()[3] for line in losses[1]] and second < first


def test_pictures_are_the_same_for_the_same_seed_and_every_kind_comes_equally_often():
    from minidl.data.shapes import shapes as draw

    (x, labels), (again, _) = draw(40, 3), draw(40, 3)
    np.testing.assert_array_equal(x, again)
    assert x.shape == (40, 3, 32, 32) and x.dtype == np.float32 and 0 <= x.min() < x.max() <= 1
    assert np.bincount(labels).tolist() == [4] * 10 and not np.array_equal(x, draw(40, 4)[0])


def test_a_model_by_name_says_that_its_weights_are_random():
    done = minidl_step("tiny_cnn", "--batch", "3", "-c", "q")
    assert done.returncode == 0 and "Weights are random (seed 0)" in done.stdout and "3 pictures of 1×28×28" in done.stdout
    wrong = minidl_step("resnet5O")
    assert wrong.returncode == 2 and "resnet50" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_picture_of_ones_own(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[10:30, 20:40] = 200
    np.save(tmp_path / "a.npy", picture)
    image = subjects.read_image(str(tmp_path / "a.npy"), (3, 32, 32))
    assert image.shape == (3, 32, 32) and image.max() == pytest.approx(200 / 255)
    grey = subjects.read_image(str(tmp_path / "a.npy"), (1, 28, 28))
    assert grey.shape == (1, 28, 28)
    assert minidl_step("--image", str(tmp_path / "a.npy"), "-c", "q").returncode == 0
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "no.png").write_bytes(b"\x89PNG nonsense")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    for name, message in (("evil.npy", "no .npy array"), ("flat.npy", "a picture is an array"), ("no.png", "Pillow")):
        with pytest.raises(ArgumentError, match=message):
            subjects.read_image(str(tmp_path / name), (3, 32, 32))


def test_a_png_through_pillow(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "red.png")
    image = subjects.read_image(str(tmp_path / "red.png"), (3, 32, 32))
    assert image.shape == (3, 32, 32) and image[0].min() == 1 and image[1].max() == 0


def test_files_are_written_and_opened_again_by_the_command(tmp_path):
    path = str(tmp_path / "tiny.zip")
    done = minidl_step("tiny", "--save", path, "--check", "fast")
    assert done.returncode == 0 and "trace:" in done.stderr and done.stdout == ""
    again = minidl_step(path, "-c", "c back; n; ck; q")
    assert again.returncode == 0 and "Random weights" in again.stdout and "✓ ok" in again.stdout
    assert minidl_step("tiny", "--budget", "much").returncode == 2
    assert minidl_step("tiny", "extra").returncode == 2
