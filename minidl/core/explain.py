"""explain(): which implementation would run a call of an op, and why not the others.

    print(minidl.explain("conv2d", x, weight, stride=2))

The op itself is asked: it is called as users call it, so its settings are checked and brought into the form that backends
take, and stopped at the first run(), before anything is computed.
"""

import threading

import numpy as np

from minidl import backend
from minidl.core.config import no_grad
from minidl.core.errors import ArgumentError, explained
from minidl.core.op import OPS
from minidl.core.tensor import Tensor


class StoppedError(Exception):
    """Carries what run() was asked for out of the op that asked."""


class _Stop(backend.Listener):
    def __init__(self):
        self.thread = threading.get_ident()

    def asked(self, op, arrays, how):
        if threading.get_ident() == self.thread:
            raise StoppedError(op, arrays, how)


def request(name, *inputs, **settings):
    """(op, arrays, settings) as the op `name` asks run() for them; None if it computes without run(), in its own file."""
    if name not in OPS:
        import difflib
        near = difflib.get_close_matches(name, [*OPS, *backend.IMPLEMENTATIONS], 3)
        raise explained(ArgumentError, "explain", f"there is no op {name!r}.", [f"near that: {', '.join(near) or 'nothing'}"],
                        "docs/ops/README.md lists the ops.")
    tensors = [Tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
    stop = _Stop()
    backend.LISTENERS.append(stop)
    try:
        with no_grad():
            OPS[name].function(*tensors, **settings)
    except StoppedError as stopped:
        return stopped.args
    finally:
        backend.LISTENERS.remove(stop)
    return None


def explain(op, *inputs, **settings):
    """Which implementation would run this call, and why not the others: a printable text. Settings are the op's own: stride=2."""
    asked = request(op, *inputs, **settings)
    if asked is None:
        return f"{op} has one implementation: array expressions that NumPy and CuPy share, in its own file (docs/ops/{op}.md shows them)"
    name, arrays, how = asked
    text = backend.explain(name, *arrays, **how)
    return text if name == op else f"{op} asks for {name}.\n{text}"
