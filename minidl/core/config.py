"""The engine's switches, one set per thread, changed by context managers only."""

import functools
import inspect
import threading

from minidl.core.errors import ArgumentError, describe, explained


class _State(threading.local):
    """What this thread is doing. Class attributes are the defaults every new thread starts with."""

    recording = True  # do ops build a graph?
    walking = None    # the Node whose backward is running now, if any
    backend = None    # the implementation that use_backend() forces, if any
    winograd = True   # may a 3×3 convolution in float32 trade rounding for fewer multiplications?
    fusion = True     # may one op do what several do (normalise, add and rectify in one go)?
    tf32 = False      # may products on a GPU round to TF32? True, "3x" (three products that keep float32's precision), or False


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

    def again(self):
        """A switch of its own for every call of a decorated function, so that threads do not share the stack."""
        fresh = object.__new__(type(self))
        _Switch.__init__(fresh, self.value)
        return fresh

    def __call__(self, function):
        if inspect.isgeneratorfunction(function):  # the switch holds while the body runs, not while it is suspended
            @functools.wraps(function)
            def switched_steps(*args, **kwargs):
                steps, sent = function(*args, **kwargs), None
                while True:
                    try:
                        with self.again():
                            value = steps.send(sent)
                    except StopIteration as end:
                        return end.value
                    sent = yield value

            return switched_steps

        @functools.wraps(function)
        def switched(*args, **kwargs):
            with self.again():
                return function(*args, **kwargs)

        return switched


class set_grad_enabled(_Switch):  # noqa: N801 - PyTorch's name
    """`with set_grad_enabled(flag):` record the graph inside, or do not. As a plain statement it switches for good, as in PyTorch."""

    attribute = "recording"

    def __init__(self, mode):
        super().__init__(bool(mode))
        self.outside, STATE.recording = STATE.recording, self.value

    def again(self):
        return type(self)(self.value)

    def __enter__(self):
        STATE.recording = self.value
        return self

    def __exit__(self, *_):
        STATE.recording = self.outside

    def __call__(self, function):
        STATE.recording = self.outside  # as a decorator it switches inside the function only
        return super().__call__(function)


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
    raises and says which it has. "shapes" computes nothing expensive: such ops give zeros of the right shape, for counting.
    """

    attribute = "backend"


class use_fusion(_Switch):  # noqa: N801 - reads like no_grad
    """`with use_fusion(False):` what a layer can do in one go is done by separate ops, with the same numbers."""

    attribute = "fusion"


class use_tf32(_Switch):  # noqa: N801 - reads like no_grad
    """`with use_tf32():` convolutions on a GPU may use its tensor cores, which round every factor to 10 bits of mantissa.

    `use_tf32("3x")` splits each factor in two and multiplies three times: about float32's precision, a third of the speed.
    `use_tf32(False)` forbids both again: the default, unlike PyTorch's.
    """

    attribute = "tf32"

    def __init__(self, allowed=True):
        if allowed not in (True, False, "3x"):
            raise explained(ArgumentError, "use_tf32", "it takes True, False or '3x'.", [f"it got {describe(allowed)}"],
                            "use_tf32() for the tensor cores as they are, use_tf32('3x') to keep float32's precision.")
        super().__init__(allowed)


class use_winograd(_Switch):  # noqa: N801 - reads like no_grad
    """`with use_winograd(False):` convolutions on the CPU keep to plain products, whose rounding is five times smaller.

    Winograd mixes the pixels of a tile (6×6 for a 3×3 kernel) before it multiplies. So the rounding is relative to the
    largest pixel of the tile, not to those that an output sees; a NaN or an infinity reaches all outputs of its tile;
    and inputs beyond 1e34 overflow. Activations of a network are far from all three. detect_anomaly() turns it off.
    """

    attribute = "winograd"


def is_grad_enabled():
    """Are ops recording the graph in this thread?"""
    return STATE.recording
