"""Rows for a GPU: the same calls on its arrays, timed by its own events, or the reason why there are none."""

from time import perf_counter

import numpy as np

from minidl.core.device import device_of, module_for, move, on_cpu, why_no_cuda


def why_not():
    """"" if there is a GPU to measure on, else why its rows are missing."""
    reason = why_no_cuda()
    return f"no GPU here: {reason}" if reason else ""


def moved(arrays, how):
    """The call's arrays on the GPU."""
    return [a if a is None else move(a, "cuda") for a in arrays], how


def back(results):
    """Results as NumPy arrays, to be judged."""
    return tuple(move(r, "cpu") for r in results) if isinstance(results, tuple) else move(results, "cpu")


def name():
    """What the GPU is called."""
    try:
        properties = module_for("cuda").cuda.runtime.getDeviceProperties(0)
    except Exception as error:  # CuPy's failures share no base class
        return f"a GPU without a name ({type(error).__name__})"
    called = properties["name"]
    return called.decode() if isinstance(called, bytes) else str(called)


def first_call(function):
    """(result, seconds): compiling included."""
    started = perf_counter()
    result = function()
    module_for("cuda").cuda.Device().synchronize()
    return result, perf_counter() - started


def timed(function):
    """A contender: seconds on the device between two events, never the time the host takes to launch."""
    cuda = module_for("cuda").cuda
    start, end = cuda.Event(), cuda.Event()

    def run():
        start.record()
        function()
        end.record()
        end.synchronize()
        return cuda.get_elapsed_time(start, end) / 1e3

    return run


def launch_cost(function, times=20):
    """Seconds the host takes to launch the work, without waiting for it: the least of several."""
    cuda, best = module_for("cuda").cuda, np.inf
    for _ in range(times):
        started = perf_counter()
        function()
        best = min(best, perf_counter() - started)
        cuda.Device().synchronize()
    return float(best)


__all__ = ["back", "device_of", "first_call", "launch_cost", "moved", "name", "on_cpu", "timed", "why_not"]
