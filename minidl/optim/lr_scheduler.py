"""The schedules, under the names of torch.optim.lr_scheduler: how the learning rate changes from epoch to epoch."""

import math
from bisect import bisect_right
from collections import Counter

from minidl.core.errors import ArgumentError, explained
from minidl.optim.one_cycle import OneCycleLR
from minidl.optim.plateau import ReduceLROnPlateau
from minidl.optim.schedule import LRScheduler


class LambdaLR(LRScheduler):
    """The first rate times a function of the epoch: lr = base · f(epoch). One function, or one per group."""

    def __init__(self, optimizer, lr_lambda, last_epoch=-1):
        count = len(optimizer.param_groups)
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * count
        if len(self.lr_lambdas) != count:
            raise explained(ArgumentError, "LambdaLR", "one function per parameter group.",
                            [f"{len(self.lr_lambdas)} functions, {count} groups"],
                            "Pass a single function to use it for all.")
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        """base · f(epoch)."""
        return [base * f(self.last_epoch) for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]

    def state_dict(self):
        """Without the functions; objects with a __call__ of their own give their attributes."""
        kept = [None if not hasattr(f, "__dict__") or hasattr(f, "__code__") else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict):
        """Take over a saved state; the functions stay those given here."""
        vars(self).update({name: value for name, value in state_dict.items() if name != "lr_lambdas"})
        for f, kept in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if kept is not None:
                vars(f).update(kept)


class StepLR(LRScheduler):
    """Times gamma every step_size epochs: lr = base · gamma^(epoch // step_size)."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        """Times gamma if a new stair begins."""
        return self.present(self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else 1)

    def closed_form(self):
        """base · gamma^(epoch // step_size)."""
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """Times gamma at every epoch named in milestones (twice at one named twice)."""

    def __init__(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        """Times gamma at a milestone."""
        return self.present(self.gamma ** self.milestones[self.last_epoch])

    def closed_form(self):
        """base · gamma^(milestones passed)."""
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma ** passed for base in self.base_lrs]

    def load_state_dict(self, state_dict):
        """Take over a saved state; a file gives plain dictionaries, which know no 0 for an epoch that is not there."""
        super().load_state_dict(state_dict)
        self.milestones = Counter(self.milestones)


class ExponentialLR(LRScheduler):
    """Times gamma every epoch: lr = base · gamma^epoch."""

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        """Times gamma."""
        return self.present(1 if self._beginning else self.gamma)

    def closed_form(self):
        """base · gamma^epoch."""
        return [base * self.gamma ** self.last_epoch for base in self.base_lrs]


class _Ramp(LRScheduler):
    """A schedule with a factor for every epoch: what the rate is multiplied by is the ratio of two neighbours."""

    def factor(self, epoch):
        """lr / base in this epoch."""
        raise NotImplementedError

    def get_lr(self):
        """Times this epoch's factor, divided by that of the epoch before."""
        if self.last_epoch == 0:
            return self.present(self.factor(0))
        return self.present(1 if self._beginning else self.ratio())

    def ratio(self):
        """This epoch's factor over that of the epoch before."""
        return self.factor(self.last_epoch) / self.factor(self.last_epoch - 1)

    def closed_form(self):
        """base · factor."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class LinearLR(_Ramp):
    """From start_factor · base to end_factor · base on a straight line of total_iters epochs."""

    def __init__(self, optimizer, start_factor=1.0 / 3, end_factor=1.0, total_iters=5, last_epoch=-1):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise explained(ArgumentError, "LinearLR", "the factors must lie between 0 and 1, and the first must not be 0.",
                            [f"start_factor = {start_factor}, end_factor = {end_factor}"], "The optimiser's lr is the rate of factor 1.")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch):
        """A straight line, then constant."""
        return self.start_factor + (self.end_factor - self.start_factor) * min(epoch, self.total_iters) / self.total_iters

    def ratio(self):
        """1 after the end of the line, where both factors may be 0."""
        return super().ratio() if self.last_epoch <= self.total_iters else 1


class ConstantLR(_Ramp):
    """factor · base for total_iters epochs, then base."""

    def __init__(self, optimizer, factor=1.0 / 3, total_iters=5, last_epoch=-1):
        if not 0 <= factor <= 1:
            raise explained(ArgumentError, "ConstantLR", "the factor must lie between 0 and 1.", [f"factor = {factor}"],
                            "The optimiser's lr is the rate that comes after.")
        self.first_factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch):
        """The factor, then 1."""
        return self.first_factor if epoch < self.total_iters else 1

    def ratio(self):
        """1 except at the end."""
        return 1 / self.first_factor if self.last_epoch == self.total_iters else 1


class CosineAnnealingLR(LRScheduler):
    """From base to eta_min along half a cosine of T_max epochs: lr = eta_min + (base − eta_min) · (1 + cos(π · epoch / T_max)) / 2."""

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def height(self, epoch):
        """1 + cos(π · epoch / T_max)."""
        return 1 + math.cos(math.pi * epoch / self.T_max)

    def get_lr(self):
        """What is above eta_min, times the ratio of two neighbours on the cosine; upwards again after T_max."""
        if self._beginning:
            return self.present()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # from the lowest point: the ratio would be ·/0
            return [group["lr"] + (base - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
                    for base, group in zip(self.base_lrs, self.optimizer.param_groups, strict=True)]
        ratio = self.height(self.last_epoch) / self.height(self.last_epoch - 1)
        return [ratio * (rate - self.eta_min) + self.eta_min for rate in self.present()]

    def closed_form(self):
        """eta_min + (base − eta_min) · (1 + cos(π · epoch / T_max)) / 2."""
        return [self.eta_min + (base - self.eta_min) * self.height(self.last_epoch) / 2 for base in self.base_lrs]


class SequentialLR(LRScheduler):
    """One schedule after another: schedulers[k] begins, at its own epoch 0, in the epoch milestones[k − 1]."""

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        if len(milestones) != len(schedulers) - 1 or not schedulers:
            raise explained(ArgumentError, "SequentialLR", "between every two schedules there is one milestone.",
                            [f"{len(schedulers)} schedules, {len(milestones)} milestones"],
                            "Name the epochs at which the second, third, ... begin.")
        for scheduler in schedulers:
            if isinstance(scheduler, ReduceLROnPlateau) or scheduler.optimizer is not optimizer:
                raise explained(ArgumentError, "SequentialLR", "all schedules must be of this optimiser, and none may need a metric.",
                                [f"{type(scheduler).__name__} is of {'this' if scheduler.optimizer is optimizer else 'another'} optimiser"],
                                "Step ReduceLROnPlateau by itself.")
        self.optimizer, self._schedulers, self._milestones = optimizer, list(schedulers), list(milestones)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self._undo()
        self._begin()
        self.last_epoch = last_epoch + 1

    def _begin(self):
        """Inside another SequentialLR that begins with this one: its first schedule begins."""
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._begin()
        self.last_epoch, self._last_lr = 0, first.get_last_lr()

    def jump(self, epoch):
        """Inside another SequentialLR that changes over to this one."""
        number = bisect_right(self._milestones, epoch)
        self._schedulers[number].jump(epoch - (self._milestones[number - 1] if number else 0))
        self.last_epoch, self._last_lr = epoch, self._schedulers[number].get_last_lr()

    def _undo(self):
        """Take back the steps that the schedules made when they were built, each on top of the one before."""
        for scheduler in self._schedulers:
            if isinstance(scheduler, SequentialLR):
                scheduler._undo()
            else:
                scheduler.last_epoch -= 1

    def step(self):
        """Go on to the next epoch, and to the next schedule at a milestone."""
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        if number and self._milestones[number - 1] == self.last_epoch:
            scheduler.jump(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self):
        """With the states of the schedules inside."""
        return {**super().state_dict(), "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict):
        """Take over a saved state, with those of the schedules inside."""
        vars(self).update({name: value for name, value in state_dict.items() if name != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


__all__ = ["LRScheduler", "LambdaLR", "StepLR", "MultiStepLR", "ExponentialLR", "LinearLR", "ConstantLR", "CosineAnnealingLR",
           "SequentialLR", "OneCycleLR", "ReduceLROnPlateau"]
