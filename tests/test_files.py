"""minidl.save and minidl.load: what comes back, files that are cut off or made to harm, and every message."""

import contextlib
import json
import os
import stat
import zipfile

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.core.errors import ArgumentError, DTypeError, FileError

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


HOSTILE = {  # name: (ending, how it is made, the beginning of the second part of the message)
    "no file": ("npz", lambda path: None, "there is no such file."),
    "a folder": ("npz", lambda path: path.mkdir(), "the file cannot be read."),
    "not a zip": ("npz", lambda path: path.write_bytes(b"hello"), "it is no complete .npz file of plain arrays."),
    "a bomb": ("npz", bomb, "it unpacks to more than 200 times its size."),
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
    (lambda: minidl.save({3: 1.0}, "x.npz"), ArgumentError,
     "minidl.save: every name must be a string that is not empty.\n    name: 3\n"
     "    __metadata__ is reserved: pass words as metadata=."),
    (lambda: minidl.save({"a": {}}, "x.npz"), DTypeError,
     "minidl.save: every value must be a tensor or an array of numbers.\n    a: dict {}\n"
     "    Save words as metadata=, and nested dictionaries in files of their own."),
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
