"""The stepper: record what a forward and its backward did (record.py), then walk through it at a prompt (terminal.py)."""

from minidl.stepper.record import step
from minidl.stepper.trace import Trace

__all__ = ["Trace", "flight_recorder", "load", "step"]


def __getattr__(name):
    if name == "flight_recorder":
        from minidl.stepper.flight import flight_recorder
        return flight_recorder
    if name == "load":
        from minidl.stepper.container import load
        return load
    raise AttributeError(f"minidl.stepper has no {name!r}. It has: {', '.join(__all__)}.")
