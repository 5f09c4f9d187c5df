"""Stochastic gradient descent, with momentum if you like."""

from minidl.core.errors import ArgumentError, explained
from minidl.optim.optimizer import Optimizer, check_settings, zeros_like


class SGD(Optimizer):
    """Go against the gradient g, with a velocity v that remembers earlier ones.

        g ← g + weight_decay · p
        v ← momentum · v + (1 − dampening) · g        (the first time v ← g)
        p ← p − lr · v                                (nesterov: p − lr · (g + momentum · v))
    """

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False, foreach=None,
                 fused=None):
        check_settings("SGD", lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise explained(ArgumentError, "SGD", "nesterov needs momentum and no dampening.",
                            [f"momentum = {momentum}, dampening = {dampening}"],
                            "Pass momentum=0.9, for example.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize})

    def begin(self, param, state, group):
        """The velocity, if there is momentum."""
        numbers = {key: group[key] for key in ("lr", "momentum", "weight_decay", "nesterov", "maximize")}
        if not group["momentum"]:
            return [], {**numbers, "share": 1}
        first = state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = zeros_like(param)
        return [state["momentum_buffer"].array], {**numbers, "share": 1 if first else 1 - group["dampening"]}

    @staticmethod
    def update(array, grad, velocity=None, *, lr, momentum, weight_decay, nesterov, maximize, share):
        """The rule of the class, on one piece."""
        grad = decayed(array, grad, weight_decay, maximize)
        if velocity is not None:
            velocity *= momentum
            velocity += grad if share == 1 else grad * share
            grad = grad + velocity * momentum if nesterov else velocity
        array -= grad * lr


def decayed(array, grad, weight_decay, maximize):
    """The gradient to go against: that of the loss (or of its negative, to maximise) plus weight_decay · p. `grad` stays as it is."""
    if maximize:
        grad = -grad
    return grad + array * weight_decay if weight_decay else grad
