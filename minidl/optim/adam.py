"""Adam and AdamW: every element has a step size of its own, from the running averages of its gradient and of its square."""

import math

from minidl.core.device import array_module
from minidl.optim.optimizer import Optimizer, check_settings, zeros_like
from minidl.optim.sgd import decayed


class Adam(Optimizer):
    """Divide the running average of the gradient by the root of that of its square (Kingma, Ba 2014).

        g ← g + weight_decay · p                          (AdamW instead: p ← p − lr · weight_decay · p)
        m ← β₁ · m + (1 − β₁) · g,   v ← β₂ · v + (1 − β₂) · g²
        p ← p − lr · m̂ / (√v̂ + eps),  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)   (amsgrad: the largest v so far)
    """

    decoupled = False  # does weight decay act on the parameter, not on the gradient?

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, foreach=None, maximize=False,
                 fused=None, decoupled_weight_decay=False):
        check_settings(type(self).__name__, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                                  "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay or self.decoupled})

    def begin(self, param, state, group):
        """The two averages, and how far they still are from having seen enough."""
        if not state:
            state.update(step=0, exp_avg=zeros_like(param), exp_avg_sq=zeros_like(param))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = zeros_like(param)
        state["step"] += 1
        arrays = [state[name].array for name in ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"])]
        numbers = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "maximize")}
        seen = [1 - beta ** state["step"] for beta in group["betas"]]
        return arrays, {**numbers, "decoupled": group["decoupled_weight_decay"], "seen": seen}

    @staticmethod
    def update(array, grad, mean, square, largest=None, *, lr, betas, eps, weight_decay, maximize, decoupled, seen):
        """The rule of the class, on one piece."""
        xp = array_module(array)
        if decoupled and weight_decay:
            array *= 1 - lr * weight_decay
        grad = decayed(array, grad, 0 if decoupled else weight_decay, maximize)
        mean += (grad - mean) * (1 - betas[0])
        square *= betas[1]
        square += grad * grad * (1 - betas[1])
        if largest is not None:
            square = xp.maximum(largest, square, out=largest)
        scale = xp.sqrt(square)
        scale /= math.sqrt(seen[1])
        scale += eps
        array -= xp.divide(mean, scale, out=scale) * (lr / seen[0])


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly (Loshchilov, Hutter 2017)."""

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, maximize=False, foreach=None,
                 fused=None):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
