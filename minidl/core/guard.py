"""The in-place guard: a value that a backward still needs must not be overwritten before that backward has run.

Every write minidl makes stamps the memory with the clock that also ages the nodes. A node whose saved memory carries a
stamp younger than the node itself would compute a wrong gradient, so it raises instead. Nothing is paid per op: a walk
compares one number per node, and looks closer only if something was written since that node was made.

The stamp belongs to the array that owns the memory, so a write through any view is seen. Writes that bypass minidl
(x.array[0] = 5) are caught in debug(), which locks saved arrays and compares fingerprints.
"""

import functools
import itertools
import types
import weakref
import zlib

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.errors import GraphError, explained
from minidl.core.site import call_site, resolve

CLOCK = itertools.count(1)  # ages of nodes and times of writes, on one scale
_writes = {}                # id of the owner of the memory -> Write
_newest = 0                 # the time of the newest write
FINGERPRINTS = weakref.WeakKeyDictionary()  # node -> [(saved array, its checksum)], filled by debug()
_locks = {}                 # id of a locked array -> [array, how many nodes need it as it is]


class Write:
    """The last write into one piece of memory."""

    __slots__ = ("owner", "time", "call", "site")

    def __init__(self, owner, time, call, site):
        self.owner, self.time, self.call, self.site = owner, time, call, site


def owner_of(array):
    """The array (or device memory) that owns the bytes a view shows."""
    while type(array) is np.ndarray:
        if array.base is None:
            return array
        array = array.base
    if hasattr(array, "data") and hasattr(array.data, "mem"):
        return array.data.mem
    while True:
        if isinstance(array, memoryview):
            array = array.obj
        elif getattr(array, "base", None) is not None:
            array = array.base
        else:
            return array


def written(call, *arrays):
    """Note that minidl has just written into these arrays."""
    global _newest
    site = call_site(3)
    for array in arrays:
        owner = owner_of(array)
        key, _newest = id(owner), next(CLOCK)
        before = _writes.get(key)
        reference = before and before.owner
        if reference is None or reference() is not owner:
            reference = _reference(owner, key)
        _writes[key] = Write(reference, _newest, call, site)


def _reference(owner, key):
    """A weak reference that takes the stamp away when the owner of the memory goes: in C, as Ctrl-C in Python code there is lost."""
    try:
        return weakref.ref(owner, functools.partial(_writes.pop, key))
    except TypeError:  # an owner that takes no weak reference (bytes, a memory map): its stamp is kept for good
        return None


def written_since(age):
    """Has minidl written anything since a node of this age was made? (In debug(): something else may have.)"""
    return _newest > age or _locks


def check_saved(node):
    """Raise if something this node saved was overwritten after it was saved."""
    for array in saved_arrays(node):
        write = _writes.get(id(owner_of(array)))
        if write is not None and write.time > node.age:
            raise explained(
                GraphError, f"{node.op.name}.backward", "a value it saved was overwritten before its backward ran.",
                ["saved:   version {} by {} ({}:{}), shape {}".format(node.age, node.op.name, *resolve(node.site), array.shape),
                 "written: version {} by {} ({}:{})".format(write.time, write.call, *resolve(write.site))],
                "Write after backward(), or write into a clone(): x.clone().copy_(...).")
    for array, before in FINGERPRINTS.get(node, ()) if FINGERPRINTS else ():
        if fingerprint(array) != before:
            raise explained(
                GraphError, f"{node.op.name}.backward", "a value it saved was overwritten before its backward ran.",
                ["saved: by {} ({}:{}), shape {}".format(node.op.name, *resolve(node.site), array.shape),
                 "written: behind minidl's back, through a view that is older than the save, or on a GPU"],
                "Write after backward(), or write into a copy.")


def fingerprint(array):
    """A checksum of the values."""
    array = np.ascontiguousarray(move(array, CPU))
    return zlib.crc32(array.view(np.uint8).reshape(-1)) if array.size else 0


def lock(array):
    """Make a saved NumPy array, and the one that owns its memory, read-only until every node that saved it has let go."""
    for one in (array, owner_of(array)) if owner_of(array) is not array else (array,):
        if isinstance(one, np.ndarray) and (one.flags.writeable or id(one) in _locks):
            _locks.setdefault(id(one), [one, 0])[1] += 1
            one.flags.writeable = False


def unlock(array):
    """One node less needs this array as it is."""
    for one in (owner_of(array), array) if owner_of(array) is not array else (array,):
        entry = _locks.get(id(one))
        if entry is not None:
            entry[1] -= 1
            if not entry[1]:
                del _locks[id(one)]
                one.flags.writeable = True


class lifted:  # noqa: N801 - reads like no_grad
    """Inside, minidl itself may write into arrays that debug() has locked: the stamp will tell."""

    __slots__ = ("locked",)

    def __init__(self, *arrays):
        self.locked = [one for array in arrays for one in (owner_of(array), array) if id(one) in _locks] if _locks else ()

    def __enter__(self):
        for one in self.locked:
            one.flags.writeable = True

    def __exit__(self, *_):
        for one in self.locked:
            one.flags.writeable = False


def saved_arrays(node):
    """The arrays that a node keeps alive for its backward: what its closure reaches, and the saved output.

    Looks through the ways in which Python code holds values: closures, default arguments, partial functions, bound
    methods, lists, dicts and plain objects. It stops at graphs, modules and classes, and at strangers' big objects.
    """
    found = [] if node.saved_output is None else [node.saved_output]
    stack, seen = [node.backward], set()
    while stack and len(seen) < 1000:
        value = stack.pop()
        kind = type(value)
        if _is_plain(kind) or id(value) in seen:
            continue
        seen.add(id(value))
        if kind is np.ndarray:
            found.append(value)
        elif kind is tuple:
            stack.extend(value)
        elif hasattr(value, "array") and hasattr(value, "edge"):  # a Tensor
            found.append(value.array)
        elif hasattr(value, "strides") and hasattr(value, "dtype"):
            found.append(value)
        else:
            stack.extend(_held_by(value))
    return found


_PLAIN = (str, bytes, int, float, complex, bool, slice, type, types.ModuleType, types.BuiltinFunctionType, np.dtype, np.generic, type(None))


@functools.lru_cache(maxsize=256)
def _is_plain(kind):
    """Is this a type whose values hold no arrays? Asked for every value that a closure names."""
    return issubclass(kind, _PLAIN)


def _held_by(value):
    """The values that a function, a container or an object holds."""
    if isinstance(value, types.FunctionType):
        try:
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
        except ValueError:  # one of them is a name that was never assigned
            cells = [_content(cell) for cell in value.__closure__]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()] if cells or value.__defaults__ else cells
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, (tuple, list, set, frozenset)):
        return value
    if isinstance(value, dict):
        return value.values()
    if hasattr(value, "outputs") and hasattr(value, "edges"):  # a Node
        return ()
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if not name.startswith("__")]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # a name that was never assigned
        return None
