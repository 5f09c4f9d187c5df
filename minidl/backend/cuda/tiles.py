"""Which tile shape a kernel is compiled with: a table per device, written by measurement, readable and overridable.

    tile("conv2d_v3_register_tile", like=x, BM=128, BN=128, BK=8)      -> {"BM": ..., "BN": ..., "BK": ...}

The answer is the first of: override() around the call; the file that MINIDL_TILES names; the table of this device in
minidl's cache, filled by measure(); the defaults given here. Each holds {kernel: {name: whole number}}.
"""

import contextlib
import functools
import json
import os
import re
import tempfile
import time
from pathlib import Path

from minidl.core.device import array_module, on_cpu
from minidl.core.errors import ArgumentError, FileError, explained, safe
from minidl.core.folders import cache_folder

OVERRIDES = {}  # kernel -> shape, inside override()
LARGEST = 4096  # no tile has more rows, columns or threads


@contextlib.contextmanager
def override(kernel, **shape):
    """Inside, this kernel has this tile shape on every device."""
    before = OVERRIDES.get(kernel)
    OVERRIDES[kernel] = checked({kernel: shape}, "override()")[kernel]
    try:
        yield
    finally:
        OVERRIDES.pop(kernel) if before is None else OVERRIDES.update({kernel: before})


def tile(kernel, like=None, **default):
    """The tile shape of a kernel on the device of an array: what is known, and the defaults for the rest."""
    known = OVERRIDES.get(kernel) or _given(os.environ.get("MINIDL_TILES")).get(kernel)
    if known is None and like is not None and not on_cpu(like):
        known = table(device_name(like)).get(kernel)
    return {name: (known or {}).get(name, value) for name, value in default.items()}


def source(kernel, like=None):
    """Where the shape of a kernel comes from, in words."""
    if kernel in OVERRIDES:
        return "override()"
    if kernel in _given(os.environ.get("MINIDL_TILES")):
        return "MINIDL_TILES"
    return "measured on this device" if like is not None and not on_cpu(like) and kernel in table(device_name(like)) else "the default"


def device_name(like):
    """The name of the GPU that holds an array."""
    return _name(array_module(like), like.device.id)


@functools.cache
def _name(module, number):
    name = module.cuda.runtime.getDeviceProperties(number)["name"]
    return name.decode() if isinstance(name, bytes) else name


def path_of(device):
    """The file of a device's table."""
    return cache_folder() / "tiles" / (re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-") + ".json")


@functools.cache
def table(device):
    """{kernel: shape} measured on a device of this name; empty if nothing was. A damaged file counts as none: it can be made again."""
    try:
        return checked(json.loads(path_of(device).read_text(encoding="utf-8")), str(path_of(device)))
    except (OSError, ValueError):
        return {}


@functools.cache
def _given(path):
    """The table in a file of the user's own; there a mistake is an error."""
    if not path:
        return {}
    try:
        return checked(json.loads(Path(path).read_text(encoding="utf-8")), path)
    except (OSError, json.JSONDecodeError) as error:
        raise explained(FileError, "MINIDL_TILES", "the table of tile shapes cannot be read.", [f"{safe(path)}: {safe(error)}"],
                        'It holds JSON, as in {"conv2d_v3_register_tile": {"BM": 64}}.') from None


def checked(shapes, where):
    """The table, if it is one: names of kernels, names of -D settings, whole numbers."""
    for kernel, shape in shapes.items() if isinstance(shapes, dict) else [("", None)]:
        if not isinstance(shape, dict) or not all(name.isidentifier() and type(n) is int and 0 < n <= LARGEST for name, n in shape.items()):
            raise explained(ArgumentError, where, "a tile shape is a few whole numbers by name.", [f"{kernel}: {shape!r}"],
                            f"As in BM=64, each between 1 and {LARGEST}.")
    return shapes


def measure(kernel, candidates, run, like, rounds=5, store=True):
    """Time run(shape) for every candidate on this device, keep the quickest in the device's table; [(shape, seconds, why not)].

    A candidate that cannot run (too much shared memory, say) is left out.
    """
    module, times = array_module(like), []
    for shape in candidates:
        try:
            run(shape)  # compiles
        except Exception as error:  # CuPy's failures share no base class
            times.append((shape, float("inf"), f"{type(error).__name__}: {error}"))
            continue
        times.append((shape, min(_timed(module, run, shape) for _ in range(rounds)), ""))
    times.sort(key=lambda row: row[1])
    if store and times[0][1] < float("inf"):
        keep(device_name(like), kernel, times[0][0])
    return times


def _timed(module, run, shape):
    module.cuda.runtime.deviceSynchronize()
    start = time.perf_counter()
    run(shape)
    module.cuda.runtime.deviceSynchronize()
    return time.perf_counter() - start


def keep(device, kernel, shape):
    """Write one shape into a device's table."""
    path = path_of(device)
    shapes = {**table(device), **checked({kernel: shape}, "tiles.keep()")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as file:
        json.dump(shapes, file, indent=1, sort_keys=True)
    os.replace(file.name, path)
    table.cache_clear()
