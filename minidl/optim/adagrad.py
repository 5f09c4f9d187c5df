"""Adagrad: divide the gradient by the root of the sum of all its squares so far."""

from minidl.core.device import array_module
from minidl.optim.optimizer import Optimizer, check_settings, zeros_like
from minidl.optim.sgd import decayed


class Adagrad(Optimizer):
    """Elements that moved often move ever less (Duchi, Hazan, Singer 2011).

        g ← g + weight_decay · p
        s ← s + g²
        p ← p − lr / (1 + (t − 1) · lr_decay) · g / (√s + eps)
    """

    def __init__(self, params, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, foreach=None, *, maximize=False,
                 fused=None):
        check_settings("Adagrad", lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value,
                       eps=eps)
        super().__init__(params, {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                                  "initial_accumulator_value": initial_accumulator_value, "maximize": maximize})

    def begin(self, param, state, group):
        """The sum of squares."""
        if not state:
            state.update(step=0, sum=zeros_like(param))
            state["sum"].array.fill(group["initial_accumulator_value"])
        rate = group["lr"] / (1 + state["step"] * group["lr_decay"])
        state["step"] += 1
        return [state["sum"].array], {"rate": rate, **{key: group[key] for key in ("weight_decay", "eps", "maximize")}}

    @staticmethod
    def update(array, grad, total, *, rate, weight_decay, eps, maximize):
        """The rule of the class, on one piece."""
        grad = decayed(array, grad, weight_decay, maximize)
        total += grad * grad
        array -= grad * rate / (array_module(array).sqrt(total) + eps)
