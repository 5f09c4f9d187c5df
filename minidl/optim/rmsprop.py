"""RMSprop: divide the gradient by the root of the running average of its square."""

from minidl.core.device import array_module
from minidl.optim.optimizer import Optimizer, check_settings, zeros_like
from minidl.optim.sgd import decayed


class RMSprop(Optimizer):
    """Steps of about the same size for every element (Hinton 2012).

        g ← g + weight_decay · p
        s ← alpha · s + (1 − alpha) · g²,   a ← alpha · a + (1 − alpha) · g     (a only if centered)
        d = g / (√(s − a²) + eps)
        p ← p − lr · d                                          (momentum: v ← momentum · v + d, p ← p − lr · v)
    """

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, *, foreach=None, maximize=False):
        check_settings("RMSprop", lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "maximize": maximize})

    def begin(self, param, state, group):
        """The averages of g² and of g, and the velocity: those that are used."""
        names = ["square_avg", *["grad_avg"] * group["centered"], *["momentum_buffer"] * (group["momentum"] > 0)]
        for name in names:
            if name not in state:
                state[name] = zeros_like(param)
        state["step"] = state.get("step", 0) + 1
        return [state[name].array for name in names], {key: group[key] for key in (
            "lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")}

    @staticmethod
    def update(array, grad, square, *others, lr, alpha, eps, weight_decay, momentum, centered, maximize):
        """The rule of the class, on one piece."""
        xp = array_module(array)
        grad = decayed(array, grad, weight_decay, maximize)
        square *= alpha
        square += grad * grad * (1 - alpha)
        spread = square
        if centered:
            average = others[0]
            average += (grad - average) * (1 - alpha)
            spread = square - average * average
        step = grad / (xp.sqrt(spread) + eps)
        if momentum > 0:
            velocity = others[-1]
            velocity *= momentum
            velocity += step
            step = velocity
        array -= step * lr
