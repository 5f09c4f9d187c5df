"""Functions that people hang on a module: before its forward, after it, and in its backward.

A backward hook needs the gradients of exactly this module's inputs and outputs, and a tensor may be used elsewhere
too. So the inputs and the outputs each pass through one op that changes nothing and hears the gradients go by.
"""

from minidl.core.errors import GraphError, explained
from minidl.core.tensor import HookHandle, Tensor
from minidl.ops.pass_on import pass_on


class Hooks:
    """The hooks of one module, by the moment they run."""

    __slots__ = ("before", "after", "backward", "count")

    def __init__(self):
        self.before, self.after, self.backward = {}, {}, {}  # number -> (function, with_kwargs)
        self.count = 0


def register(module, moment, hook, prepend=False, with_kwargs=False):
    """Add a hook to a module; returns the handle whose remove() takes it away."""
    if module._hooks is None:
        module._hooks = Hooks()
    held = getattr(module._hooks, moment)
    number = module._hooks.count = module._hooks.count + 1
    held[number] = (hook, with_kwargs)
    if prepend:
        for other in [n for n in held if n != number]:
            held[other] = held.pop(other)  # to the end, in the same order
    return HookHandle(held, number)


def call(module, args, kwargs):
    """module.forward(*args, **kwargs) with all hooks around it."""
    hooks = module._hooks
    for hook, with_kwargs in tuple(hooks.before.values()):
        result = hook(module, args, kwargs) if with_kwargs else hook(module, args)
        if result is not None and with_kwargs:
            args, kwargs = result
        elif result is not None:
            args = result if isinstance(result, tuple) else (result,)
    heard = Heard(module, [hook for hook, _ in hooks.backward.values()]) if hooks.backward else None
    if heard:
        args = heard.inputs_of(args)
    output = module.forward(*args, **kwargs)
    for hook, with_kwargs in tuple(hooks.after.values()):
        result = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
        output = output if result is None else result
    return heard.outputs_of(output) if heard else output


class Heard:
    """One call of a module that has backward hooks: collects grad_output, then grad_input, and calls the hooks."""

    def __init__(self, module, hooks):
        self.module, self.hooks = module, hooks
        self.grad_output = None
        self.input_count = 0
        self.waits = False  # will a gradient reach the inputs?

    def inputs_of(self, args):
        """The arguments, the tensors among them passed through the op that hears their gradients."""
        self.input_count = len(args)
        self.waits = any(wants_grad(x) for x in args)
        return tuple(heard(args, self.hear_inputs))

    def outputs_of(self, output):
        """The output, a Tensor or a tuple or list of them, passed through likewise."""
        if isinstance(output, Tensor):
            return heard([output], self.hear_outputs)[0]
        if not isinstance(output, (tuple, list)):
            raise explained(GraphError, f"{type(self.module).__name__}'s backward hook",
                            "the module must return a Tensor, or a tuple of them.",
                            [f"it returned a {type(output).__name__}"], "Put the hook on a module inside it.")
        return type(output)(heard(output, self.hear_outputs))

    def hear_outputs(self, grads):
        self.grad_output = grads
        if not self.waits:  # no gradient will reach the inputs: now or never
            self.run((None,) * self.input_count)
        return grads

    def hear_inputs(self, grads):
        return self.run(grads)

    def run(self, grad_input):
        for hook in self.hooks:
            result = hook(self.module, grad_input, self.grad_output)
            if result is not None:
                grad_input = result if isinstance(result, tuple) else (result,)
        return grad_input


def wants_grad(x):
    """Is x a Tensor to which a gradient will come?"""
    return isinstance(x, Tensor) and x.requires_grad


def heard(values, hear):
    """The values, of which those that want a gradient went through pass_on(); hear(grads) has one entry per value."""
    places = [k for k, x in enumerate(values) if wants_grad(x)]
    if not places:
        return list(values)

    def hear_some(grads):
        by_place = dict(zip(places, grads, strict=True))
        answer = hear(tuple(by_place.get(k) for k in range(len(values))))
        return tuple(answer[k] for k in places)

    passed = dict(zip(places, pass_on([values[k] for k in places], hear_some), strict=True))
    return [passed.get(k, x) for k, x in enumerate(values)]
