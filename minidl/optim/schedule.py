"""The base of the schedules: how the learning rate of every parameter group changes from epoch to epoch (or from step to step).

Most say by what the present rate is multiplied, not what it is, so that two schedules on one optimiser multiply.
"""

import warnings

from minidl.core.errors import ArgumentError, DTypeError, describe, explained
from minidl.optim.optimizer import Optimizer


class LRScheduler:
    """Base: call step() after optimizer.step(), once per epoch. A new schedule writes get_lr(), and closed_form() if it has one."""

    def __init__(self, optimizer, last_epoch=-1):
        if not isinstance(optimizer, Optimizer):
            raise explained(DTypeError, type(self).__name__, "it takes an optimiser.", [f"got {describe(optimizer)}"],
                            "The optimiser comes first: StepLR(optimizer, step_size).")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise explained(ArgumentError, type(self).__name__, "going on from last_epoch needs the rate that the training began with.",
                                [f"last_epoch = {last_epoch}", "the parameter group has no 'initial_lr'"],
                                "Load the optimiser's saved state first.")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._begin()

    def _begin(self):
        """The step to the first epoch, where a schedule that multiplies leaves the rate alone."""
        self._step_count = 0
        self._beginning = True
        self.step()
        self._beginning = False

    def get_lr(self):
        """The rate of every group in the epoch self.last_epoch, from the present one."""
        raise NotImplementedError

    def closed_form(self):
        """The rate of every group in the epoch self.last_epoch, from the first one; only SequentialLR asks, when it changes over."""
        return self.get_lr()

    def get_last_lr(self):
        """The rate of every group, as last set."""
        return self._last_lr

    def step(self):
        """Go on to the next epoch."""
        if self._step_count == 1 and not self.optimizer.stepped:
            warnings.warn("the schedule's step() came before the first optimizer.step(), so the first learning rate is skipped; "
                          "call optimizer.step() first", stacklevel=2)
        self._step_count += 1
        self.last_epoch += 1
        self._set(self.get_lr())

    def jump(self, epoch):
        """Go to an epoch directly."""
        self.last_epoch = epoch
        self._set(self.closed_form())

    def _set(self, rates):
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def present(self, factor=1.0):
        """The present rate of every group times a factor."""
        return [group["lr"] if factor == 1 else group["lr"] * factor for group in self.optimizer.param_groups]

    def state_dict(self):
        """Everything but the optimiser and functions."""
        return {name: value for name, value in vars(self).items() if name not in ("optimizer", "_beginning") and not callable(value)}

    def load_state_dict(self, state_dict):
        """Take over a saved state."""
        vars(self).update(state_dict)
