"""minidl.save and minidl.load: tensors by name in .safetensors and .npz files, and a few words about them.

Neither format can carry code, and nothing here unpickles: a file from a stranger can be wrong, it cannot be dangerous.
A file appears under its name complete or not at all: it is written beside it, then renamed.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from minidl.core.dtypes import DTYPES
from minidl.core.errors import ArgumentError, DTypeError, FileError, describe, explained
from minidl.core.tensor import Tensor

METADATA = "__metadata__"      # the name under which an .npz file keeps its metadata, as JSON
BOMB = 200                     # an .npz may unpack to so many times its size: zeros do, but not to more
LETTERS = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
           "uint8": "U8", "bool": "BOOL"}  # what .safetensors calls the element types
HEADER = 100 * 2**20           # the longest description of tensors that a .safetensors file may begin with


class State(dict):
    """{name: Tensor} as a file had it, in its order, with the file's words in `metadata`."""

    def __init__(self, tensors, metadata):
        super().__init__(tensors)
        self.metadata = metadata


def save(state, path, metadata=None):
    """Write a module's or an optimiser's state dict, or any {name: Tensor or array}, to path.safetensors or path.npz.

    A module is taken too. `metadata` is {name: text}: which model, which commit, which classes.
    """
    path = Path(path)
    kind = kind_of("minidl.save", path)
    if hasattr(state, "state_dict"):
        state = state.state_dict()
    arrays = {name: as_saved(name, value) for name, value in checked_names(state).items()}
    words = checked_words(metadata)
    write_complete(path, lambda file: (write_npz if kind == ".npz" else write_safetensors)(file, arrays, words))


def load(path):
    """Read a .safetensors or .npz file: a dictionary of Tensors with the attribute `metadata`."""
    path = Path(path)
    kind = kind_of("minidl.load", path)
    try:
        size = path.stat().st_size
        arrays, words = (read_npz if kind == ".npz" else read_safetensors)(path, size)
    except FileError:
        raise
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".safetensors", ".npz"))[:5] if path.parent.is_dir() else []
        raise unreadable(path, "there is no such file.", [f"model files there: {', '.join(near)}"] if near else [],
                         "Check the path.") from None
    except (OSError, EOFError) as error:
        raise unreadable(path, "the file cannot be read.", [f"{type(error).__name__}: {error}"],
                         "Check the path and its permissions.") from None
    return State({name: Tensor(array) for name, array in arrays.items()}, words)


# --- what goes in -----------------------------------------------------------------------------------------------------

def kind_of(call, path):
    """The file's ending, which says the format."""
    if path.suffix in (".safetensors", ".npz"):
        return path.suffix
    fix = "Name it .safetensors."
    if call.endswith("load"):
        fix = "In PyTorch: safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), then load that."
    raise explained(ArgumentError, call, "the ending says the format, and must be .safetensors or .npz.", [f"path: {path}"], fix)


def checked_names(state):
    """The dictionary, if its names can stand in a file."""
    if not isinstance(state, dict):
        raise explained(DTypeError, "minidl.save", "the first argument must be a module or a dictionary of tensors.",
                        [f"it is {describe(state)}"], "Did you mean minidl.save(model.state_dict(), path)?")
    for name in state:
        if not isinstance(name, str) or not name or name == METADATA:
            raise explained(ArgumentError, "minidl.save", "every name must be a string that is not empty.", [f"name: {name!r}"],
                            f"{METADATA} is reserved: pass words as metadata=.")
    return state


def checked_words(metadata):
    """{name: text}."""
    words = dict(metadata or {})
    for name, word in words.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise explained(DTypeError, "minidl.save", "metadata is {name: text}, both strings.", [f"{name!r}: {describe(word)}"],
                            "Turn it into text, as in json.dumps(classes).")
    return words


def as_saved(name, value):
    """The C-contiguous NumPy array of a value: both formats write bytes in that order, whatever the strides say."""
    array = value.detach().numpy() if isinstance(value, Tensor) else value
    if isinstance(array, (int, float, np.generic)):
        array = np.asarray(array)
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") not in DTYPES:
        raise explained(DTypeError, "minidl.save", "every value must be a tensor or an array of numbers.", [f"{name}: {describe(value)}"],
                        "Save words as metadata=, and nested dictionaries in files of their own.")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).reshape(array.shape)


def write_complete(path, write):
    """Write to a file beside `path`, then rename it: whoever looks sees the old file or the new one, whole."""
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise explained(FileError, "minidl.save", "the file cannot be written.", [f"{type(error).__name__}: {error}"],
                        "Does the folder exist, and may you write there?") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)  # mkstemp's file is its owner's alone
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


# --- the two formats ----------------------------------------------------------------------------------------------------

def write_safetensors(file, arrays, words):
    """Eight bytes of length, a JSON description, the bytes of all tensors: by hand, so that order and bytes are always the same.

    Wide elements come first, so that every tensor starts at a multiple of its element's size: readers map them as they are.
    """
    places, end = {}, 0
    for name in sorted(arrays, key=lambda name: -arrays[name].itemsize):
        places[name] = (end, end + arrays[name].nbytes)
        end += arrays[name].nbytes
    described = {name: {"dtype": LETTERS[array.dtype.name], "shape": list(array.shape), "data_offsets": list(places[name])}
                 for name, array in arrays.items()}
    text = json.dumps({**({METADATA: words} if words else {}), **described}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in places:
        file.write(arrays[name].data if arrays[name].size else b"")


def read_safetensors(path, size):
    """(arrays, metadata). The library checks that the description fits the bytes, without overlaps or holes."""
    import safetensors

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, HEADER))
    if size < 8 or length > min(size - 8, HEADER):
        raise unreadable(path, "the file is shorter than it says, or no .safetensors file.",
                         [f"size: {size} bytes", f"its first 8 bytes promise a description of {length} bytes"],
                         "Was the download cut off? Fetch it again.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            words = dict(file.metadata() or {})
            names = [name for name in json.loads(text) if name != METADATA]  # the library sorts them
            return {name: checked_array(path, name, file.get_tensor(name)) for name in names}, words
    except (safetensors.SafetensorError, AttributeError, TypeError, KeyError, ValueError) as error:
        raise unreadable(path, "the description does not fit the bytes, or names an element type that NumPy lacks.",
                         [f"size: {size} bytes", f"{type(error).__name__}: {error}"],
                         "Was the download cut off? bfloat16 and float8 must be converted where the file was made.") from None


def write_npz(file, arrays, words):
    """A zip of .npy files, as numpy.savez makes, but with any name, and the same bytes for the same content."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        entries = {**({METADATA: np.array(json.dumps(words))} if words else {}), **arrays}
        for name, array in entries.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_npz(path, size):
    """(arrays, metadata)."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > BOMB * size:
            raise unreadable(path, f"it unpacks to more than {BOMB} times its size.", [f"size: {size} bytes, unpacked: {unpacked} bytes"],
                             "Such a file is made to fill memory: where did it come from?")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        words = json.loads(str(arrays.pop(METADATA))) if METADATA in arrays else {}
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, MemoryError, KeyError, SyntaxError, EOFError) as error:
        if isinstance(error, FileError):
            raise
        raise unreadable(path, "it is no complete .npz file of plain arrays.", [f"size: {size} bytes", f"{type(error).__name__}: {error}"],
                         "Was the download cut off? Arrays of Python objects are refused: they would run code.") from None
    return {name: checked_array(path, name, array) for name, array in arrays.items()}, words


def checked_array(path, name, array):
    """An array that minidl has the element type for."""
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") not in DTYPES:
        raise unreadable(path, "every entry must be an array of numbers.", [f"{name}: {describe(array)}"], "Leave it out of the file.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def unreadable(path, rule, facts, fix):
    """The exception for a file that cannot be loaded."""
    return explained(FileError, f"minidl.load({str(path)!r})", rule, facts, fix)
