"""Losses as layers. The formulas are those of the functions of the same meaning in nn.functional."""

from minidl.core.errors import ArgumentError, explained
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn.module import Module


class _Loss(Module):
    """Stores the reduction: "mean" (the default), "sum" or "none"."""

    def __init__(self, size_average=None, reduce=None, reduction="mean"):
        super().__init__()
        name = type(self).__name__
        if size_average is not None or reduce is not None:
            raise explained(ArgumentError, name, "size_average and reduce are long gone.",
                            [f"size_average={size_average}, reduce={reduce}"],
                            "Use reduction='mean', 'sum' or 'none'.")
        if reduction not in ("mean", "sum", "none"):
            raise explained(ArgumentError, name, "there is no such reduction.", [f"reduction: {reduction!r}"],
                            "Use 'mean', 'sum' or 'none'.")
        self.reduction = reduction


class _Weighted(_Loss):
    """A loss with one weight per class."""

    def __init__(self, weight, size_average, reduce, reduction):
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_Weighted):
    """How surprised a softmax over x is by the classes in target; target holds class numbers or probabilities."""

    def __init__(self, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean", label_smoothing=0.0):
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, x, target):
        """The loss."""
        return F.cross_entropy(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
                               label_smoothing=self.label_smoothing)


class NLLLoss(_Weighted):
    """−x at the class in target: cross entropy of log probabilities."""

    def __init__(self, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, x, target):
        """The loss."""
        return F.nll_loss(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCELoss(_Weighted):
    """Cross entropy of a probability x with a target between 0 and 1."""

    def __init__(self, weight=None, size_average=None, reduce=None, reduction="mean"):
        super().__init__(weight, size_average, reduce, reduction)

    def forward(self, x, target):
        """The loss."""
        return F.binary_cross_entropy(x, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Weighted):
    """The same for x before the sigmoid, without overflow; pos_weight weighs the positive term."""

    def __init__(self, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None):
        super().__init__(weight, size_average, reduce, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, x, target):
        """The loss."""
        return F.binary_cross_entropy_with_logits(x, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight)


class MSELoss(_Loss):
    """(x − target)²."""

    def forward(self, x, target):
        """The loss."""
        return F.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|x − target|."""

    def forward(self, x, target):
        """The loss."""
        return F.l1_loss(x, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """(x − target)² / (2·beta) where they are closer than beta, |x − target| − beta/2 elsewhere."""

    def __init__(self, size_average=None, reduce=None, reduction="mean", beta=1.0):
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, x, target):
        """The loss."""
        return F.smooth_l1_loss(x, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """(x − target)² / 2 where they are closer than delta, delta · (|x − target| − delta/2) elsewhere."""

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, x, target):
        """The loss."""
        return F.huber_loss(x, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """target · (log target − x), x being log probabilities; reduction "batchmean" divides by the batch alone."""

    def __init__(self, size_average=None, reduce=None, reduction="mean", log_target=False):
        super().__init__(size_average, reduce, "sum" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target

    def forward(self, x, target):
        """The loss."""
        return F.kl_div(x, target, reduction=self.reduction, log_target=self.log_target)


__all__ = ["CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss", "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss"]
