"""What is measured: a case is a call of an op on drawn arrays; what it asks of the backends, forward and backward, is recorded.

So a case never names implementations: run() is listened to while the op and its backward run once, and every call
that it got becomes a row for each implementation registered for it, today's and tomorrow's.
"""

import contextlib
import math
import os
import threading

import numpy as np

from minidl import backend
from minidl.core.config import use_backend
from minidl.core.errors import ArgumentError, explained
from minidl.core.tensor import Tensor
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it

# name -> the settings that a case takes, with their defaults
SETTINGS = {
    "conv2d": {"shape": (8, 64, 56, 56), "out": 64, "kernel": 3, "stride": 1, "padding": None, "groups": 1},
    "matmul": {"shape": (1024, 1024, 1024)},
    "pool": {"shape": (8, 64, 112, 112), "kernel": 3, "stride": 2, "padding": None},
    "batch_norm": {"shape": (8, 64, 56, 56), "add": False},
    "softmax": {"shape": (256, 1000)},
}
AXES = {"conv2d": "N,C,H,W", "matmul": "N,K,M", "pool": "N,C,H,W", "batch_norm": "N,C,H,W", "softmax": "N,K"}
SWEEPS = {  # name -> (what grows, the settings of each size)
    "conv2d": ("layers of VGG-16 and ResNet", [{"shape": (8, C, H, H), "out": C} for C, H in ((64, 56), (128, 28), (256, 14), (512, 7))]),
    "matmul": ("size", [{"shape": (n, n, n)} for n in (64, 128, 256, 512, 1024)]),
    "pool": ("height and width", [{"shape": (8, 64, n, n)} for n in (14, 28, 56, 112)]),
    "batch_norm": ("layers of ResNet-50", [{"shape": (8, C, H, H)} for C, H in ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))]),
    "softmax": ("classes", [{"shape": (256, n)} for n in (10, 100, 1000, 10000)]),
}

UNTOUCHED = []  # not empty inside untouched()


class Case:
    """One call: its name, its size in words, arrays under the names of the op's arguments, and the function of Tensors."""

    def __init__(self, name, label, arrays, function):
        self.name, self.label, self.arrays, self.function = name, label, arrays, function
        self.settings = {}  # make() puts them here

    def tensors(self):
        """Fresh leaves around the arrays."""
        return {key: Tensor(array, True) for key, array in self.arrays.items()}

    def requests(self):
        """[(direction, op, arrays, settings)]: what run() is asked for, forward then backward, each op and shape once."""
        heard = _Heard()
        backend.LISTENERS.append(heard)
        try:
            # generic, so that what a gradient is asked about is right, whatever is being worked on
            with use_backend("shapes" if UNTOUCHED else "generic"):
                y = self.function(**self.tensors())
                heard.direction = "backward"
                y.backward(Tensor(drawn(1, *y.shape)))
        finally:
            backend.LISTENERS.remove(heard)
        found = {}
        for direction, op, arrays, how in heard.requests:
            key = op, tuple(getattr(a, "shape", None) for a in arrays), repr(how)
            found.setdefault(key, (direction, op, arrays, how))
        return list(found.values())


class _Heard(backend.Listener):
    def __init__(self):
        self.direction, self.requests, self.thread, self.depth = "forward", [], threading.get_ident(), 0

    def asked(self, op, arrays, how):
        self.depth += threading.get_ident() == self.thread

    def ran(self, op, implementation, arrays, how, result, seconds):
        if threading.get_ident() == self.thread:
            self.depth -= 1
            if not self.depth and result is not None:  # what an implementation asks for, and what writes in place, is no row
                self.requests.append((self.direction, op, arrays, how))


@contextlib.contextmanager
def untouched():
    """Inside, arrays have a size and no numbers: zeros whose memory nobody writes, and nothing is computed."""
    UNTOUCHED.append(True)
    try:
        yield
    finally:
        UNTOUCHED.pop()


def drawn(seed, *shape):
    """Normal float32 numbers, images stored channels-last."""
    if UNTOUCHED:
        n, *rest = shape
        return np.zeros((n, *rest[1:], rest[0]), np.float32).transpose(0, 3, 1, 2) if len(shape) == 4 else np.zeros(shape, np.float32)
    rng = np.random.default_rng(seed)
    if len(shape) == 4:
        n, c, h, w = shape
        return rng.standard_normal((n, h, w, c), np.float32).transpose(0, 3, 1, 2)
    return rng.standard_normal(shape, np.float32)


def memory():
    """Bytes that this machine has, in all."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # elsewhere than on Unix
        return 1 << 34


def bytes_needed(name, settings):
    """Roughly, at least: the arrays of a call and their gradients in float32 and, to judge them, in float64."""
    shape = settings["shape"]
    if name == "matmul":
        N, K, M = shape
        count = N * K + K * M + N * M
    else:
        count = 2 * math.prod(shape)
    if name == "conv2d":
        N, C, H, W = shape
        stride, groups, kernel = settings["stride"], settings["groups"], settings["kernel"]
        padding = kernel // 2 if settings["padding"] is None else settings["padding"]
        H, W = (max((n + 2 * padding - kernel) // stride + 1, 0) for n in (H, W))
        count = math.prod(shape) + N * settings["out"] * H * W + settings["out"] * C // groups * kernel * kernel
    return 32 * count


def make(name, call="bench", **given):
    """The Case of a name; settings that are None keep their defaults."""
    settings = SETTINGS[name] | {key: value for key, value in given.items() if value is not None}
    strange = sorted(set(settings) - set(SETTINGS[name]))
    axes = AXES[name].split(",")
    if strange or len(settings["shape"]) != len(axes) or min(settings["shape"]) < 1:
        raise explained(ArgumentError, f"{call} {name}", f"its settings are {', '.join(SETTINGS[name])}, and its shape is {AXES[name]}.",
                        [f"{key} = {settings[key]}" for key in (*strange, "shape")],
                        f"For example --shape {','.join(map(str, SETTINGS[name]['shape']))}.")
    needed, there = bytes_needed(name, settings), memory()
    if needed > there:
        raise explained(ArgumentError, f"{call} {name}", "its arrays must fit into memory.",
                        [f"shape = {settings['shape']}", f"needed: at least {needed / 1e9:,.0f} GB of {there / 1e9:,.0f} GB"],
                        "Give a smaller --shape.")
    case = MAKERS[name](**settings)
    case.settings = settings
    return case


def conv2d(shape, out, kernel, stride, padding, groups):
    """A convolution; padding keeps the size unless it is given."""
    N, C, H, W = shape
    padding = kernel // 2 if padding is None else padding
    label = f"{N}×{C}×{H}×{W} → {out}, {kernel}×{kernel}" + (f", stride {stride}" if stride != 1 else "")
    label += (f", padding {padding}" if padding != kernel // 2 else "") + (f", groups {groups}" if groups != 1 else "")
    fan = C // max(groups, 1) * kernel * kernel
    weight = drawn(2, out, C // max(groups, 1), kernel, kernel) / np.float32(math.sqrt(max(fan, 1)))  # outputs of size one
    return Case("conv2d", label, {"input": drawn(0, *shape), "weight": weight},
                lambda input, weight: F.conv2d(input, weight, None, stride, padding, 1, groups))


def matmul(shape):
    """A matrix product."""
    from minidl.ops import matmul as product

    N, K, M = shape
    return Case("matmul", f"{N}×{K} · {K}×{M}", {"a": drawn(0, N, K), "b": drawn(2, K, M)}, lambda a, b: product(a, b))


def pool(shape, kernel, stride, padding):
    """Max pooling."""
    padding = kernel // 2 if padding is None and kernel % 2 and stride < kernel else padding or 0
    label = "×".join(map(str, shape)) + f", {kernel}×{kernel}, stride {stride}"
    return Case("pool", label, {"x": drawn(0, *shape)}, lambda x: F.max_pool2d(x, kernel, stride, padding))


def batch_norm(shape, add):
    """Batch norm as a layer does it while training: with an addition and a relu in one go, where it can."""
    from minidl.nn import BatchNorm2d

    layer = BatchNorm2d(shape[1])
    arrays = {"x": drawn(0, *shape)} | ({"add": drawn(3, *shape)} if add else {})
    label = "×".join(map(str, shape)) + (" + add" if add else "") + " + relu"
    return Case("batch_norm", label, arrays, lambda x, add=None: layer(x, add=add, relu=True))


def softmax(shape):
    """Softmax over the last axis."""
    return Case("softmax", "×".join(map(str, shape)), {"x": drawn(0, *shape)}, lambda x: F.softmax(x, -1))


MAKERS = {"conv2d": conv2d, "matmul": matmul, "pool": pool, "batch_norm": batch_norm, "softmax": softmax}


def loops_are_affordable(op, arrays, operations):
    """"" if the reference loops take less than a second or so, else how long they would take."""
    seconds = operations * 4e-7  # a few operations of Python per multiply-add
    return "" if seconds < 1 else f"plain loops: about {seconds:,.0f} s for this size; give a small --shape to see them"

