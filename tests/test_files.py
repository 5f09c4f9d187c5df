"""minidl.save and minidl.load: what comes back, files that are cut off or made to harm, and every message."""

import contextlib
import json
import os
import stat
import threading
import warnings
import zipfile

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.core.errors import ArgumentError, DTypeError, FileError, StateError
from minidl.core.files import write_complete
from minidl.optim import lr_scheduler as S  # noqa: N812 - a short name for many schedules

ENDINGS = ("npz", "safetensors")
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


@pytest.mark.parametrize("ending", ENDINGS)
def test_everything_comes_back(tmp_path, ending):
    rng = np.random.default_rng(0)
    state = {f"a.{dtype}": minidl.tensor(rng.normal(0, 3, (2, 3)).astype(dtype)) for dtype in DTYPES}
    state |= {"file": minidl.tensor(rng.normal(size=(2, 3, 4, 5))), "z empty": np.zeros((0, 3)), "number": np.float32(3), "one": 1.5,
              "strided": rng.normal(size=(6, 8))[::2, ::-3], "big endian": np.arange(3, dtype=">f4"), "flag": np.array(True)}
    path = tmp_path / f"x.{ending}"
    minidl.save(state, path, {"model": "none", "classes": '["cat", "dog"]'})
    found = minidl.load(path)
    assert list(found) == list(state) and found.metadata == {"model": "none", "classes": '["cat", "dog"]'}
    for name, value in state.items():
        array = value.numpy() if isinstance(value, minidl.Tensor) else np.asarray(value)
        assert isinstance(found[name], minidl.Tensor) and found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        assert np.array_equal(found[name].numpy(), array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_bytes_in_the_file_are_c_contiguous(tmp_path, ending):
    """A convolution's weight is stored channels-last: written as it lies, other readers would see other numbers."""
    weight = nn.Conv2d(3, 4, 2).weight
    assert not weight.array.flags.c_contiguous
    minidl.save({"w": weight}, tmp_path / f"x.{ending}")
    if ending == "npz":
        theirs = np.load(tmp_path / "x.npz", allow_pickle=False)["w"]
    else:
        from safetensors.numpy import load_file
        theirs = load_file(tmp_path / "x.safetensors")["w"]
    assert np.array_equal(theirs, weight.detach().numpy()) and theirs.flags.c_contiguous


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_module_and_what_others_wrote(tmp_path, ending):
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    path = tmp_path / f"x.{ending}"
    minidl.save(net, path)
    assert list(minidl.load(path)) == list(net.state_dict()) and minidl.load(path).metadata == {}
    plain = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    if ending == "npz":
        np.savez_compressed(path, **plain)
    else:
        from safetensors.numpy import save_file
        save_file(plain, path)
    again = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    again.load_state_dict(minidl.load(path))
    assert np.array_equal(again[0].weight.array, net[0].weight.array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_appears_whole_or_not_at_all(tmp_path, ending, monkeypatch):
    path = tmp_path / f"x.{ending}"
    minidl.save({"a": np.ones(3)}, path)
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        minidl.save({"a": np.zeros(30000)}, path)
    assert os.listdir(tmp_path) == [path.name]  # nothing left beside it
    assert minidl.load(path)["a"].tolist() == [1, 1, 1]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    minidl.save({"a": np.ones(3)}, tmp_path / "x.npz")
    assert stat.S_IMODE((tmp_path / "x.npz").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for ending in ENDINGS:
        for name in "ab":
            minidl.save({"x": np.arange(4.0), "b": np.array(True), "y": np.arange(3)}, tmp_path / f"{name}.{ending}", {"k": "v", "l": "w"})
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_tensors_start_at_multiples_of_their_size(tmp_path):
    minidl.save({"b": np.array([True]), "h": np.ones(3, np.float16), "d": np.ones(2)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    described = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    assert list(described) == ["b", "h", "d"] and [described[k]["data_offsets"] for k in "dhb"] == [[0, 16], [16, 22], [22, 23]]


# --- files that are wrong ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ending", ENDINGS)
def test_every_cut_is_noticed(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    minidl.save({"w": np.arange(6.0), "v": np.ones((2, 2), np.float32)}, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="size: "):
            minidl.load(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_random_bytes_never_get_through_as_another_error(tmp_path, ending):
    path, rng = tmp_path / f"x.{ending}", np.random.default_rng(0)
    minidl.save({"w": np.arange(6.0), "v": np.ones((2, 2), np.float32)}, path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        places = rng.integers(0, len(whole), 3)
        damaged[places] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(FileError):
            minidl.load(path)  # a number may have changed: no format notices that


class Evil:
    """What a pickle could do."""

    def __reduce__(self):
        return (os.mkdir, ("i_was_run",))


def test_a_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("evil.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(FileError, match="Object arrays cannot be loaded"):
        minidl.load("evil.npz")
    assert not os.path.exists("i_was_run")


def safetensors_bytes(description, data=b""):
    text = json.dumps(description).encode()
    return len(text).to_bytes(8, "little") + text + data


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**6))


def text_array(path):
    np.savez(path, words=np.array(["hi"]))


def headers(path, text=b"{" + b"(" * 4000):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def entries(*names):
    def make(path):
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names that come twice
            for name in names:
                with archive.open(zipfile.ZipInfo("x" * len(name)), "w") as entry:
                    np.lib.format.write_array(entry, np.ones(2))
        data = path.read_bytes()
        for name in names:
            data = data.replace(b"x" * len(name), name.encode())
        path.write_bytes(data)
    return make


def twice(path):
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\1")


HOSTILE = {  # name: (ending, how it is made, the beginning of the second part of the message)
    "no file": ("npz", lambda path: None, "there is no such file."),
    "a folder": ("npz", lambda path: path.mkdir(), "the file cannot be read."),
    "not a zip": ("npz", lambda path: path.write_bytes(b"hello"), "it is no complete .npz file of plain arrays."),
    "a bomb": ("npz", bomb, "it unpacks to more than 200 times its size."),
    "a deep header": ("npz", headers, "it is no complete .npz file of plain arrays."),
    "a name twice": ("npz", entries("a.npy", "a.npy"), "it is no complete .npz file of plain arrays."),
    "a name with and without .npy": ("npz", entries("a.npy", "a"), "it is no complete .npz file of plain arrays."),
    "a name with NUL": ("npz", entries("a\0b.npy"), "it is no complete .npz file of plain arrays."),
    "a pipe": ("npz", os.mkfifo, "the file cannot be read."),
    "a key twice": ("safetensors", twice, "the description does not fit"),
    "a tree of nothing": ("npz", lambda path: np.savez(path, __metadata__='{"minidl.tree":"[]"}'), "its description of a nested state"),
    "words": ("npz", text_array, "every entry must be an array of numbers."),
    "empty": ("safetensors", lambda path: path.write_bytes(b""), "the file is shorter than it says, or no .safetensors file."),
    "a huge promise": ("safetensors", lambda path: path.write_bytes(b"\xff" * 64), "the file is shorter than it says"),
    "overlap": ("safetensors", lambda path: path.write_bytes(safetensors_bytes(
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        bytes(12))), "the description does not fit the bytes"),
    "a wrong size": ("safetensors", lambda path: path.write_bytes(safetensors_bytes(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8))), "the description does not fit the bytes"),
    "bfloat16": ("safetensors", lambda path: path.write_bytes(safetensors_bytes(
        {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4))), "the description does not fit the bytes, or names an"),
    "complex numbers": ("safetensors", lambda path: path.write_bytes(safetensors_bytes(
        {"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8))), "every entry must be an array of numbers."),
    "uint32": ("safetensors", lambda path: path.write_bytes(safetensors_bytes(
        {"a": {"dtype": "U32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))), "every entry must be an array of numbers."),
    "no JSON": ("safetensors", lambda path: path.write_bytes((4).to_bytes(8, "little") + b"abcd"), "the description does not fit"),
}


@pytest.mark.parametrize("ending, make, text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(tmp_path, ending, make, text):
    path = tmp_path / f"x.{ending}"
    make(path)
    with pytest.raises(FileError) as raised:
        minidl.load(path)
    lines = str(raised.value).split("\n    ")
    assert lines[0].startswith(f"minidl.load({str(path)!r}): {text}") and len(lines) >= 2 and isinstance(raised.value, OSError)


def test_a_missing_file_names_its_neighbours(tmp_path):
    minidl.save({"a": 1.0}, tmp_path / "here.npz")
    with pytest.raises(FileError, match=r"model files there: here\.npz"):
        minidl.load(tmp_path / "there.npz")



MESSAGES = [
    (lambda: minidl.load("x.pth"), ArgumentError,
     "minidl.load: the ending says the format, and must be .safetensors or .npz.\n    path: x.pth\n"
     "    In PyTorch: safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), then load that."),
    (lambda: minidl.save({}, "x"), ArgumentError,
     "minidl.save: the ending says the format, and must be .safetensors or .npz.\n    path: x\n    Name it .safetensors."),
    (lambda: minidl.save([1], "x.npz"), DTypeError,
     "minidl.save: the first argument must be a module or a dictionary of tensors.\n    it is list [1]\n"
     "    Did you mean minidl.save(model.state_dict(), path)?"),
    (lambda: minidl.save({"a": {1.5: 2}}, "x.npz"), DTypeError,
     "minidl.save: every key must be a string or an integer.\n    a: float 1.5\n"
     "    Did you mean model.state_dict(), optimizer.state_dict()?"),
    (lambda: minidl.save({"": 1.0}, "x.npz"), ArgumentError,
     "minidl.save: every name must be able to stand in the file.\n    name: ''\n    it is empty\n    Rename it."),
    (lambda: minidl.save({"a": {"b": {1, 2}}}, "x.npz"), DTypeError,
     "minidl.save: a state holds tensors, arrays, numbers, strings, None, and dictionaries and lists of them.\n    a.b: set {1, 2}\n"
     "    Leave it out, or save what can rebuild it."),
    (lambda: minidl.save("x.npz", {"a": 1.0}), DTypeError,
     "minidl.save: the state comes first, then the path.\n    first: str 'x.npz'\n    Did you mean minidl.save(model.state_dict(), path)?"),
    (lambda: minidl.save({}, "x.npz", "resnet"), DTypeError,
     "minidl.save: metadata is {name: text}, both strings.\n    got str 'resnet'\n"
     "    Give the text a name, as in metadata={'model': 'resnet18'}."),
    (lambda: minidl.load(None), DTypeError,
     "minidl.load: the path must be a string or a Path.\n    got NoneType None\n"
     "    Pass a string or a pathlib.Path; open files are not taken."),
    (lambda: minidl.load(True), DTypeError,
     "minidl.load: the path must be a string or a Path.\n    got bool True\n    minidl downloads nothing: pass a file's path."),
    (lambda: minidl.load("a\0b.npz"), FileError,
     "minidl.load('a\\x00b.npz'): the file cannot be read.\n    ValueError: embedded null byte\n    Check the path and its permissions."),
    (lambda: minidl.save({}, "x.npz", {"epoch": 3}), DTypeError,
     "minidl.save: metadata is {name: text}, both strings.\n    'epoch': int 3\n    Turn it into text, as in json.dumps(classes)."),
]


@pytest.mark.parametrize("call, kind, text", MESSAGES, ids=[text.split("\n")[0] for _, _, text in MESSAGES])
def test_messages(call, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as raised:
        call()
    assert str(raised.value) == text and os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="Does the folder exist"):
        minidl.save({}, tmp_path / "no" / "x.npz")


# --- names, links, nested states ----------------------------------------------------------------------------------------------

def test_names_that_only_safetensors_can_hold(tmp_path):
    for name in ("a\0b", "n" * 70000):
        minidl.save({name: 1.0}, tmp_path / "x.safetensors")
        assert list(minidl.load(tmp_path / "x.safetensors")) == [name]
        with pytest.raises(ArgumentError, match=r"a \.npz file cannot hold"):
            minidl.save({name: 1.0}, tmp_path / "x.npz")
    for ending in ENDINGS:
        minidl.save({"a": 1.0, "a.npy": 2.0}, tmp_path / f"y.{ending}")
        assert {name: x.item() for name, x in minidl.load(tmp_path / f"y.{ending}").items()} == {"a": 1, "a.npy": 2}
        with pytest.raises(ArgumentError, match="UTF-8"):
            minidl.save({"\ud800": 1.0}, tmp_path / f"x.{ending}")


def test_a_link_stays_and_so_do_permissions(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "x.npz", tmp_path / "x.npz"
    minidl.save({"a": 1.0}, target)
    target.chmod(0o640)
    link.symlink_to(target)
    minidl.save({"a": 2.0}, link)
    assert link.is_symlink() and minidl.load(target)["a"].item() == 2 and stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(FileError, match="a folder has this name"):
        minidl.save({"a": 1.0}, tmp_path / "x.npz")
    assert os.listdir(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_nested_state_comes_back(tmp_path, ending):
    t = minidl.tensor([1.0, 2.0])
    plain = {7: {}, "best": float("-inf"), "lr": 0.1, "tensor": {"tensor": "a.b"}}
    state = {"a": {"b": t, 0: [t, (1, 2.5, None, True, "ü\n")]}, "a.b": t, **plain}
    minidl.save(state, tmp_path / f"x.{ending}", {"by": "me"})
    found = minidl.load(tmp_path / f"x.{ending}")
    same = minidl.Tensor.tolist
    assert same(found["a"].pop("b")) == same(found["a"][0].pop(0)) == same(found.pop("a.b")) == [1, 2]
    assert found == {"a": {0: [(1, 2.5, None, True, "ü\n")]}, **plain}
    assert found.metadata == {"by": "me"} and isinstance(found["a"][0][0], tuple)
    state["a"]["self"] = state
    with pytest.raises(ArgumentError, match="Does one of them hold itself"):
        minidl.save(state, tmp_path / f"x.{ending}")


def training(make_optimizer, make_schedule):
    minidl.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = make_optimizer(net.parameters())
    return net, optimizer, make_schedule(optimizer)


def epochs(net, optimizer, schedule, numbers):
    for number in numbers:
        x = minidl.tensor(np.random.default_rng(number).normal(size=(8, 3)).astype(np.float32))
        loss = (net(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step(*([loss.item()] if isinstance(schedule, S.ReduceLROnPlateau) else []))


RUNS = {
    "Adam, steps": (lambda p: optim.AdamW(p, lr=0.1, amsgrad=True), lambda o: S.MultiStepLR(o, [1, 4])),
    "SGD, one cycle": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda o: S.OneCycleLR(o, 0.1, total_steps=9)),
    "RMSprop, plateau": (lambda p: optim.RMSprop(p, centered=True), lambda o: S.ReduceLROnPlateau(o, patience=0)),
    "Adagrad, one after another": (optim.Adagrad, lambda o: S.SequentialLR(o, [S.LinearLR(o), S.ExponentialLR(o, 0.9)], [2])),
    "SGD, a function": (lambda p: optim.SGD(p, lr=0.1), lambda o: S.LambdaLR(o, lambda epoch: 0.9 ** epoch)),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("makers", RUNS.values(), ids=RUNS)
def test_a_run_that_is_resumed_equals_one_that_was_not_interrupted(tmp_path, ending, makers):
    whole = training(*makers)
    epochs(*whole, range(6))
    first = training(*makers)
    epochs(*first, range(3))
    names, path = ("model", "optimizer", "scheduler"), tmp_path / f"x.{ending}"
    minidl.save({**{name: part.state_dict() for name, part in zip(names, first, strict=True)}, "epoch": 3}, path)
    again, found = training(*makers), minidl.load(path)
    for name, part in zip(names, again, strict=True):
        part.load_state_dict(found[name])
    epochs(*again, range(found["epoch"], 6))
    for a, b in zip(whole[0].state_dict().values(), again[0].state_dict().values(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())
    assert whole[1].param_groups[0]["lr"] == again[1].param_groups[0]["lr"]
    minidl.save(whole[1], tmp_path / f"o.{ending}")
    assert minidl.load(tmp_path / f"o.{ending}")["param_groups"] == whole[1].state_dict()["param_groups"]
    with pytest.raises(StateError, match="the optimiser's part of a checkpoint"):
        again[1].load_state_dict(found)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    """/dev/stdout would be gone for everybody if a file were put in its place."""
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_complete(pipe, lambda file: file.write(b"all of it"))
    reader.join(10)
    assert found == [b"all of it"] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("call", [lambda name: minidl.save({}, name), minidl.load])
@pytest.mark.parametrize("ending", ["pt", "npz"])
def test_a_newline_in_a_files_name_begins_no_line_of_a_message(tmp_path, call, ending):
    with pytest.raises(minidl.MinidlError) as caught:
        call(tmp_path / "no folder" / f"model\nok: loaded.{ending}")
    assert "model\\nok:" in str(caught.value) and "\nok:" not in str(caught.value)
