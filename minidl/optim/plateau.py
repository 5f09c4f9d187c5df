"""ReduceLROnPlateau: the schedule that looks at how training goes."""

import math

from minidl.core.errors import ArgumentError, explained
from minidl.optim.schedule import LRScheduler


class ReduceLROnPlateau(LRScheduler):
    """Times factor when a metric has not improved for more than `patience` epochs; step(metric) once per epoch.

    Better means below best · (1 − threshold) for mode "min", above best · (1 + threshold) for "max"; threshold_mode
    "abs" subtracts or adds the threshold instead. For `cooldown` epochs after a change bad epochs are not counted.
    """

    def __init__(self, optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0, min_lr=0,
                 eps=1e-8):
        if factor >= 1 or mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise explained(ArgumentError, "ReduceLROnPlateau", "factor must be below 1, mode min or max, threshold_mode rel or abs.",
                            [f"factor = {factor}, mode = {mode!r}, threshold_mode = {threshold_mode!r}"], "mode='max' is for accuracies.")
        groups = optimizer.param_groups
        if isinstance(min_lr, (list, tuple)) and len(min_lr) != len(groups):
            raise explained(ArgumentError, "ReduceLROnPlateau", "one min_lr per parameter group.",
                            [f"{len(min_lr)} of them, {len(groups)} groups"],
                            "Pass one number to use it for all.")
        self.optimizer, self.mode, self.factor, self.patience, self.threshold = optimizer, mode, factor, patience, threshold
        self.threshold_mode, self.cooldown, self.eps = threshold_mode, cooldown, eps
        self.min_lrs = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * len(groups)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self.present()

    def is_better(self, metric):
        """Is this metric better than the best so far, by more than the threshold?"""
        sign = -1 if self.mode == "min" else 1
        bar = self.best * (1 + sign * self.threshold) if self.threshold_mode == "rel" else self.best + sign * self.threshold
        return metric < bar if self.mode == "min" else metric > bar

    def step(self, metrics):
        """One epoch more, in which the metric was this."""
        metric = float(metrics)
        self.last_epoch += 1
        if self.is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            lowered = [max(rate * self.factor, least) for rate, least in zip(self.present(), self.min_lrs, strict=True)]
            self._set([new if old - new > self.eps else old for old, new in zip(self.present(), lowered, strict=True)])
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self.present()
