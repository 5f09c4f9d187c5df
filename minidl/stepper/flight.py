"""A flight recorder for any training loop: when a step goes bad, it is run again from the state before it, and recorded.

    train_step = flight_recorder(model, optimizer, path="flight.zip")(train_step)

Every step begins with a copy of all parameters, averages and optimiser state, and of the random generators. If the loss,
a gradient or a parameter is not finite afterwards, all of it is put back, the step is repeated under step(), and its
trace is written to `path`: `minidl step flight.zip -c "why nan"` names the op. With last=3 it goes back three steps and
repeats them all, so that the trace shows what led there; that takes three copies instead of one.
"""

import functools
import random
from collections import deque

import numpy as np

from minidl.core.config import no_grad
from minidl.core.device import array_module
from minidl.core.errors import ArgumentError, GraphError, explained
from minidl.core.rng import default_generator
from minidl.core.tensor import Tensor
from minidl.stepper import doctor
from minidl.stepper.record import step
from minidl.stepper.text import number, safe

REMEMBERED = 20  # losses of the steps before


class FlightError(GraphError):
    """A training step went bad. `.trace` is its recording, `.path` the file it was written to."""

    def __init__(self, text):
        super().__init__(text)
        self.trace = self.path = None


class flight_recorder:  # noqa: N801 - reads like a decorator
    """Watch a function that does one training step and returns the loss; `also`: whatever else has a state_dict (schedules).

    What the step needs must come in as arguments: a step that takes the next batch by itself would take another one the
    second time.
    """

    def __init__(self, model, optimizer=None, path="flight.zip", also=(), last=1):
        if not isinstance(last, int) or last < 1:
            raise explained(ArgumentError, "flight_recorder", "last is how many training steps to repeat: 1 or more.", [f"last = {last!r}"],
                            "Leave it out to record the bad step alone.")
        self.model, self.path = model, path
        self.steps = deque(maxlen=last)  # (state before, arguments, settings) of the newest steps
        self.stateful = [model, *([optimizer] if optimizer is not None else []), *also]
        self.losses, self.count = [], 0

    def __call__(self, train_step):
        """The same function, watched."""

        @functools.wraps(train_step)
        def watched(*args, **settings):
            self.steps.append((self.snapshot(), args, settings))
            try:
                loss, error = train_step(*args, **settings), None
            except ArithmeticError as raised:
                loss, error = None, raised
            self.count += 1
            reason = f"it raised {type(error).__name__}" if error else self.wrong(loss)
            if reason:
                raise self.crash(reason, train_step) from error
            self.losses = [*self.losses[1 - REMEMBERED:], value(loss)]
            return loss

        return watched

    def wrong(self, loss):
        """"" if everything is finite after a step, else what is not."""
        if loss is not None and not np.isfinite(value(loss)):
            return f"the loss is {value(loss)}"
        for name, param in self.model.named_parameters():
            if param.grad is not None and not finite(param.grad.array):
                return f"the gradient of {name} is not finite"
            if not finite(param.array):
                return f"the parameter {name} is not finite"
        return ""

    # --- going back -------------------------------------------------------------------------------------------------
    def snapshot(self):
        """Copies of everything that a step changes."""
        states = [copied(thing.state_dict()) for thing in self.stateful]
        grads = [(param, None if param.grad is None else Tensor(param.grad.array.copy())) for param in self.model.parameters()]
        return states, grads, default_generator.get_state(), np.random.get_state(), random.getstate()

    @no_grad()
    def restore(self, before):
        """Put everything back as it was."""
        states, grads, own, numpy_state, python_state = before
        for thing, state in zip(self.stateful, states, strict=True):
            thing.load_state_dict(state)
        default_generator.set_state(own)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for param, grad in grads:
            param.grad = grad

    def crash(self, reason, train_step):
        """Repeat the newest steps under step(), write their trace; returns the exception to raise."""
        self.restore(self.steps[0][0])
        try:
            with step(self.model) as trace, np.errstate(all="ignore"):
                for _, args, settings in self.steps:
                    train_step(*args, **settings)
        except Exception as error:  # the trace has everything up to there, and says what it was
            trace.error = trace.error or f"{type(error).__name__}: {error}"
        found = doctor.blame(trace)
        which = f"{self.count - len(self.steps) + 1} to {self.count}" if len(self.steps) > 1 else str(self.count)
        trace.title = [f"Flight recorder: training step {which}, {safe(reason)}. Losses before: {self.history()}.",
                       f"{len(trace.forwards)} ops forward, {len(trace.backwards)} steps back. `why nan` names the op, `c nan` goes there."]
        trace.save(self.path)
        lines = found.lines if found else ["the second run was finite: the step depends on something that was not put back"]
        error = explained(FlightError, f"training step {self.count}", f"{reason}.", lines,
                          f'Walk through it: minidl step {self.path} -c "why nan"')
        error.trace, error.path = trace, self.path
        return error

    def history(self):
        """The losses of the last steps."""
        return " ".join(number(loss) for loss in self.losses[-5:]) or "none"


def value(loss):
    """A loss as a Python number."""
    return float(loss.item() if hasattr(loss, "item") else loss)


def finite(array):
    """Is every element finite? One pass, unless the sum overflows."""
    if array.dtype.kind != "f" or not array.size:
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(float(array.sum(dtype="float64")))) or bool(array_module(array).isfinite(array).all())


def copied(state):
    """A state dict whose tensors are copies."""
    if isinstance(state, dict):
        return {key: copied(part) for key, part in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(copied(part) for part in state)
    if isinstance(state, Tensor):
        return Tensor(state.array.copy())
    return state.copy() if isinstance(state, np.ndarray) else state
