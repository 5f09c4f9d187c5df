"""minidl.save and minidl.load: tensors by name in .safetensors and .npz files, and a few words about them.

Neither format can carry code, and nothing here unpickles: a file from a stranger can be wrong, it cannot be dangerous.
A file appears under its name complete or not at all: it is written beside it, then renamed.
"""

import json
import os
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from minidl.core import nested
from minidl.core.dtypes import DTYPES
from minidl.core.errors import ArgumentError, DTypeError, FileError, MinidlError, describe, explained, safe
from minidl.core.tensor import Tensor

METADATA = "__metadata__"      # the name under which an .npz file keeps its metadata, as JSON
TREE = "minidl.tree"            # the name in the metadata under which the shape of a nested state is kept (nested.py)
BOMB = 200                     # an .npz may unpack to so many times its size: zeros do, but not to more
LETTERS = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
           "uint8": "U8", "bool": "BOOL"}  # what .safetensors calls the element types
HEADER = 100 * 2**20           # the longest description of tensors that a .safetensors file may begin with


class State(dict):
    """{name: Tensor}, or the nested state, as a file had it, in its order, with the file's words in `metadata`."""

    def __init__(self, tensors, metadata):
        super().__init__(tensors)
        self.metadata = metadata


def save(state, path, metadata=None):
    """Write a state dict, any {name: Tensor or array}, or a checkpoint of several to path.safetensors or path.npz.

        minidl.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "checkpoint.safetensors")

    A module or an optimiser is taken too. A nested state comes back nested, with its numbers, strings, lists and tuples;
    in a flat dictionary a number is saved as a tensor. `metadata` is {name: text}: which model, which commit, which classes.
    """
    if isinstance(state, (str, os.PathLike)) and not isinstance(path, (str, os.PathLike)):
        raise explained(DTypeError, "minidl.save", "the state comes first, then the path.", [f"first: {describe(state)}"],
                        "Did you mean minidl.save(model.state_dict(), path)?")
    path = as_path("minidl.save", path)
    kind = kind_of("minidl.save", path)
    if hasattr(state, "state_dict"):
        state = state.state_dict()
    tensors, words = checked_state(state), checked_words(metadata)
    if not nested.is_flat(state):
        tree, tensors = nested.flatten(state)
        words[TREE] = json.dumps(tree, separators=(",", ":"), allow_nan=False)
    arrays = {name: as_saved(name, value) for name, value in checked_names(tensors, kind).items()}
    write_complete(path, lambda file: (write_npz if kind == ".npz" else write_safetensors)(file, arrays, words))


def load(path):
    """Read a .safetensors or .npz file: a dictionary of Tensors (or the nested state) with the attribute `metadata`."""
    path = as_path("minidl.load", path)
    kind = kind_of("minidl.load", path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # to read a pipe is to wait for somebody who writes
            raise unreadable(path, "the file cannot be read.", [f"it is a {'folder' if stat.S_ISDIR(about.st_mode) else 'pipe or device'}"],
                             "Check the path.")
        arrays, words = (read_npz if kind == ".npz" else read_safetensors)(path, about.st_size)
    except FileError:
        raise
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".safetensors", ".npz"))[:5] if path.parent.is_dir() else []
        raise unreadable(path, "there is no such file.", [f"model files there: {', '.join(near)}"] if near else [],
                         "Check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        raise unreadable(path, "the file cannot be read.", [f"{type(error).__name__}: {error}"],
                         "Check the path and its permissions.") from None
    tensors = {name: Tensor(array) for name, array in arrays.items()}
    if TREE not in words:
        return State(tensors, words)
    try:
        return State(nested.unflatten(json.loads(words.pop(TREE)), tensors), words)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, "its description of a nested state does not fit its tensors.", [f"{type(error).__name__}: {error}"],
                         "Was it changed by another program?") from None


# --- what goes in -----------------------------------------------------------------------------------------------------

def kind_of(call, path):
    """The file's ending, which says the format."""
    if path.suffix in (".safetensors", ".npz"):
        return path.suffix
    fix = "Name it .safetensors."
    if call.endswith("load"):
        fix = "In PyTorch: safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), then load that."
    raise explained(ArgumentError, call, "the ending says the format, and must be .safetensors or .npz.", [f"path: {safe(path)}"], fix)


def as_path(call, path):
    """The path, if it is one."""
    if isinstance(path, (str, os.PathLike)):
        return Path(path)
    fix = ("minidl downloads nothing: pass a file's path." if path is True else
           "Pass a string or a pathlib.Path; open files are not taken.")
    raise explained(DTypeError, call, "the path must be a string or a Path.", [f"got {describe(path)}"], fix)


def checked_state(state):
    """The state, if it is a dictionary."""
    if not isinstance(state, dict):
        raise explained(DTypeError, "minidl.save", "the first argument must be a module or a dictionary of tensors.",
                        [f"it is {describe(state)}"], "Did you mean minidl.save(model.state_dict(), path)?")
    return state


def checked_names(tensors, kind):
    """The tensors, if their names can stand in a file of this kind."""
    for name in tensors:
        fault = ("it is empty" if not name else "it is reserved: pass words as metadata=" if name == METADATA else
                 "it is no text that UTF-8 can write" if any("\ud800" <= c <= "\udfff" for c in name) else
                 "a .npz file cannot hold the character NUL" if kind == ".npz" and "\0" in name else
                 "a .npz file cannot hold names of more than 65,531 bytes" if kind == ".npz" and len(name.encode()) > 65531 else "")
        if fault:
            raise explained(ArgumentError, "minidl.save", "every name must be able to stand in the file.",
                            [f"name: {name[:60]!r}", fault], "Rename it.")
    return tensors


def checked_words(metadata):
    """{name: text}."""
    if metadata is not None and not isinstance(metadata, dict):
        raise explained(DTypeError, "minidl.save", "metadata is {name: text}, both strings.", [f"got {describe(metadata)}"],
                        "Give the text a name, as in metadata={'model': 'resnet18'}.")
    words = dict(metadata or {})
    for name, word in words.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise explained(DTypeError, "minidl.save", "metadata is {name: text}, both strings.", [f"{name!r}: {describe(word)}"],
                            "Turn it into text, as in json.dumps(classes).")
        if name == TREE or any("\ud800" <= c <= "\udfff" for c in name + word):
            raise explained(ArgumentError, "minidl.save", f"metadata must be text that UTF-8 can write, and {TREE} is reserved.",
                            [f"name: {name!r}"], "Rename it, or take the characters out that no text has.")
    return words


def as_saved(name, value):
    """The C-contiguous NumPy array of a value: both formats write bytes in that order, whatever the strides say."""
    array = value.detach().numpy() if isinstance(value, Tensor) else value
    if isinstance(array, (int, float, np.generic)):
        array = np.asarray(array)
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") not in DTYPES:
        raise explained(DTypeError, "minidl.save", "every value must be a tensor or an array of numbers.", [f"{name}: {describe(value)}"],
                        "Save words as metadata=, complex numbers as two arrays.")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).reshape(array.shape)


def write_complete(path, write):
    """Write to a file beside `path`, then rename it: whoever looks sees the old file or the new one, whole.

    A link stays a link: the file it points to is replaced. A file that was there keeps its permissions. What is no file
    (/dev/stdout, a pipe) is written to as it is.
    """
    beside, path = None, Path(os.path.realpath(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        if path.is_dir():
            raise IsADirectoryError("a folder has this name")
        if path.exists() and not path.is_file():  # a device or a pipe: to be written to, not to be replaced
            with open(path, "wb") as file:
                return write(file)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".minidl.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask if mode is None else mode)  # mkstemp's file is its owner's alone
        os.replace(beside, path)
    except BaseException as error:
        if beside is not None:
            os.unlink(beside)
        if not isinstance(error, (OSError, ValueError)) or isinstance(error, MinidlError):
            raise
        raise explained(FileError, "minidl.save", "the file cannot be written.",
                        [f"path: {str(path)!r}", f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"],
                        "Does the folder exist, may you write there, and is there room?") from None


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
            names = [name for name in json.loads(text, object_pairs_hook=without_doubles) if name != METADATA]  # the library sorts them
            return {name: checked_array(path, name, file.get_tensor(name)) for name in names}, words
    except FileError:
        raise
    except Exception as error:  # whatever a stranger's file makes of the readers
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
    """(arrays, metadata). Entry by entry, because numpy.load takes "a" and "a.npy" for the same."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(info.file_size for info in entries)
            if unpacked > BOMB * size:
                raise unreadable(path, f"it unpacks to more than {BOMB} times its size.",
                                 [f"size: {size} bytes, unpacked: {unpacked} bytes"],
                                 "Such a file is made to fill memory: where did it come from?")
            if any("\0" in info.orig_filename for info in entries):
                raise ValueError("a name holds the character NUL")
            without_doubles([(info.filename.removesuffix(".npy"), None) for info in entries])
            arrays = {}
            for info in entries:
                with archive.open(info) as entry:
                    arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(entry, allow_pickle=False)
        words = json.loads(str(arrays.pop(METADATA)), object_pairs_hook=without_doubles) if METADATA in arrays else {}
        if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
            raise ValueError("its metadata is not {name: text}")
    except FileError:
        raise
    except Exception as error:  # whatever a stranger's file makes of the readers: they raise errors of a dozen kinds
        raise unreadable(path, "it is no complete .npz file of plain arrays.", [f"size: {size} bytes", f"{type(error).__name__}: {error}"],
                         "Was the download cut off? Arrays of Python objects are refused: they would run code.") from None
    return {name: checked_array(path, name, array) for name, array in arrays.items()}, words


def without_doubles(pairs):
    """The dictionary of these pairs; ValueError if a name comes twice: two readers would see two different files."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def checked_array(path, name, array):
    """An array that minidl has the element type for."""
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") not in DTYPES:
        raise unreadable(path, "every entry must be an array of numbers.", [f"{name}: {describe(array)}"], "Leave it out of the file.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def unreadable(path, rule, facts, fix):
    """The exception for a file that cannot be loaded."""
    return explained(FileError, f"minidl.load({str(path)!r})", rule, facts, fix)
