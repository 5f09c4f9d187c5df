"""The engine's switches, one set per thread, changed by context managers only."""

import functools
import threading


class _State(threading.local):
    """What this thread is doing. Class attributes are the defaults every new thread starts with."""

    recording = True  # do ops build a graph?
    walking = None    # the Node whose backward is running now, if any
    backend = None    # the implementation that use_backend() forces, if any
    fusion = True     # may one op do what several do (normalise, add and rectify in one go)?


STATE = _State()


class _Switch:
    """Set one attribute of STATE inside `with`, restore it after; also usable as a decorator."""

    attribute = None

    def __init__(self, value):
        self.value, self.before = value, []

    def __enter__(self):
        self.before.append(getattr(STATE, self.attribute))  # a stack: one object may be entered more than once
        setattr(STATE, self.attribute, self.value)
        return self

    def __exit__(self, *_):
        setattr(STATE, self.attribute, self.before.pop())

    def __call__(self, function):
        @functools.wraps(function)
        def switched(*args, **kwargs):
            again = object.__new__(type(self))  # every call its own switch, so that threads do not share the stack
            _Switch.__init__(again, self.value)
            with again:
                return function(*args, **kwargs)

        return switched


class set_grad_enabled(_Switch):  # noqa: N801 - PyTorch's name
    """`with set_grad_enabled(flag):` record the graph inside, or do not."""

    attribute = "recording"


class no_grad(_Switch):  # noqa: N801 - PyTorch's name
    """`with no_grad():` ops compute values and build no graph. Also a decorator, with or without parentheses."""

    attribute, mode = "recording", False

    def __new__(cls, function=None):
        self = super().__new__(cls)
        self.__init__()
        return self if function is None else self(function)

    def __init__(self, function=None):
        super().__init__(self.mode)


class enable_grad(no_grad):  # noqa: N801 - PyTorch's name
    """`with enable_grad():` ops build the graph again, inside a no_grad block for example. Also a decorator."""

    mode = True


class use_backend(_Switch):  # noqa: N801 - reads like no_grad
    """`with use_backend("reference"):` run every op that has it on that implementation; `None` lets minidl choose.

    A name is a backend ("generic") or one implementation ("cpu/winograd"). An op that has no such implementation
    raises and says which it has.
    """

    attribute = "backend"


class use_fusion(_Switch):  # noqa: N801 - reads like no_grad
    """`with use_fusion(False):` what a layer can do in one go is done by separate ops, with the same numbers."""

    attribute = "fusion"


def is_grad_enabled():
    """Are ops recording the graph in this thread?"""
    return STATE.recording
