"""The stepper: record what a forward and its backward did (trace.py), then walk through it at a prompt (terminal.py)."""

from minidl.stepper.record import step
from minidl.stepper.trace import Trace

__all__ = ["Trace", "step"]
