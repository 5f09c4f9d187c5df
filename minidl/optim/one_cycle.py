"""OneCycleLR: up to a high learning rate and down to a very low one, in one cycle over the whole training."""

import math

from minidl.core.errors import ArgumentError, RangeError, explained
from minidl.optim.schedule import LRScheduler


class OneCycleLR(LRScheduler):
    """From max_lr / div_factor up to max_lr and down to that first rate / final_div_factor, while momentum goes the other way.

    Called once per batch; total_steps, or epochs and steps_per_epoch, say how many (Smith, Topin 2017). The way up takes
    the share pct_start. three_phase goes down as slowly as up, and then to the lowest rate.
    """

    def __init__(self, optimizer, max_lr, total_steps=None, epochs=None, steps_per_epoch=None, pct_start=0.3, anneal_strategy="cos",
                 cycle_momentum=True, base_momentum=0.85, max_momentum=0.95, div_factor=25.0, final_div_factor=1e4, three_phase=False,
                 last_epoch=-1):
        self.total_steps = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
        if self.total_steps <= 0 or not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise explained(ArgumentError, "OneCycleLR", "it needs the number of steps, a share pct_start, and the strategy cos or linear.",
                            [f"total_steps = {total_steps}, epochs = {epochs}, steps_per_epoch = {steps_per_epoch}",
                             f"pct_start = {pct_start}, anneal_strategy = {anneal_strategy!r}"],
                             "Pass total_steps, or epochs and steps_per_epoch.")
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        up = pct_start * self.total_steps - 1
        down = [(2 * up, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (self.total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        if not three_phase:
            down = [(self.total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        # (last step, learning rate at its beginning and end, momentum at its beginning and end) of every phase
        self.phases = [(up, "initial_lr", "max_lr", "max_momentum", "base_momentum"), *down]
        self.use_beta1 = "betas" in optimizer.defaults
        if cycle_momentum and not self.use_beta1 and "momentum" not in optimizer.defaults:
            raise explained(ArgumentError, "OneCycleLR", "this optimiser has no momentum to cycle.", [type(optimizer).__name__],
                            "Pass cycle_momentum=False.")
        if last_epoch == -1:
            self._prepare(optimizer, max_lr, base_momentum, max_momentum, div_factor, final_div_factor)
        super().__init__(optimizer, last_epoch)

    def _prepare(self, optimizer, max_lr, base_momentum, max_momentum, div_factor, final_div_factor):
        """Write the corners of the cycle into every group."""
        for number, group in enumerate(optimizer.param_groups):
            corners = (max_lr, base_momentum, max_momentum)
            rate, low, high = (value[number] if isinstance(value, (list, tuple)) else value for value in corners)
            group.update(max_lr=rate, initial_lr=rate / div_factor, min_lr=rate / div_factor / final_div_factor)
            if self.cycle_momentum:
                group.update(max_momentum=high, base_momentum=low)
                self._set_momentum(group, high)

    def _set_momentum(self, group, value):
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value

    def between(self, start, end, share):
        """The value this share of the way from start to end: along half a cosine, or on a straight line."""
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    def get_lr(self):
        """The rates of this step; the momentum is set in passing."""
        if self.last_epoch > self.total_steps:
            raise explained(RangeError, "OneCycleLR.step", "the cycle is over.", [f"step {self.last_epoch} of {self.total_steps}"],
                            "Call it once per batch; make total_steps as large as epochs · batches.")
        number = next((k for k, phase in enumerate(self.phases) if self.last_epoch <= phase[0]), len(self.phases) - 1)
        last, rate_from, rate_to, momentum_from, momentum_to = self.phases[number]
        first = self.phases[number - 1][0] if number else 0
        share = (self.last_epoch - first) / (last - first)
        for group in self.optimizer.param_groups:
            if self.cycle_momentum:
                self._set_momentum(group, self.between(group[momentum_from], group[momentum_to], share))
        return [self.between(group[rate_from], group[rate_to], share) for group in self.optimizer.param_groups]
