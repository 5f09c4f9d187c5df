"""Optimizer: groups of parameters, what is remembered about each, and the loop that updates them. Rules are in sgd.py, ...

A rule sees plain arrays: a parameter, its gradient, what is remembered. All parameters of a group go to the backend in one
call, which hands them to the rule as it sees fit: a piece at a time on several threads (minidl/backend/cpu/optim.py), or
whole. So a rule must treat every element alike and write into its arguments only.
"""

import math
from time import perf_counter

from minidl import backend
from minidl.backend.layout import empty, stored
from minidl.core.config import enable_grad, no_grad
from minidl.core.device import move
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, StateError, describe, explained
from minidl.core.guard import lifted, written
from minidl.core.tensor import Tensor
from minidl.nn.module import Module, forget_gradients

STEP_OBSERVERS = []  # functions called with (optimiser, seconds) after every step, while the gradients are still there


class Optimizer:
    """Base of the optimisers. A new one writes begin() and update()."""

    def __init__(self, params, defaults):
        self.defaults = defaults
        self.state = {}          # parameter -> what is remembered about it, a dict of Tensors and numbers
        self.stepped = False     # has step() been called yet? A schedule asks
        self.param_groups = []   # dicts: "params" and the settings that hold for them
        if isinstance(params, (Tensor, Module)):
            raise explained(DTypeError, type(self).__name__, "it takes a list of parameters.", [f"got a {type(params).__name__}"],
                            "Did you mean model.parameters()?" if isinstance(params, Module) else "Write [param].")
        groups = list(params)
        if not groups:
            raise explained(ArgumentError, type(self).__name__, "there are no parameters to train.", ["the list is empty"],
                            "Pass model.parameters(); a generator that was used up is empty.")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    # --- what a rule writes -----------------------------------------------------------------------------------------
    def begin(self, param, state, group):
        """Prepare one parameter: fill `state` the first time, count the step. Returns (arrays to update with it, numbers for update)."""
        raise NotImplementedError

    @staticmethod
    def update(array, grad, *arrays, **numbers):
        """The rule itself, on pieces of raw arrays: change `array` (and `arrays`) in place."""
        raise NotImplementedError

    # --- parameters ---------------------------------------------------------------------------------------------------
    def add_param_group(self, param_group):
        """Train more parameters, with settings of their own where the group names them."""
        group = {**self.defaults, **param_group}
        params = [param_group["params"]] if isinstance(param_group["params"], Tensor) else list(param_group["params"])
        if params and all(isinstance(p, tuple) for p in params):  # named_parameters() gives (name, parameter)
            group["param_names"], params = [name for name, _ in params], [param for _, param in params]
        group = {"params": params, **{key: value for key, value in group.items() if key != "params"}}
        known = {param for other in self.param_groups for param in other["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise explained(DTypeError, type(self).__name__, "every parameter must be a Tensor.", [f"got {describe(param)}"],
                                "Pass model.parameters(), or a list of dicts with 'params'.")
            if not param.is_leaf:
                raise explained(ArgumentError, type(self).__name__, "only a leaf can be trained.",
                                [f"shape {param.shape}, made by {param.grad_fn.op.name}"], "Train the parameters it was computed from.")
        if len(set(params)) < len(params) or known & set(params):
            raise explained(ArgumentError, type(self).__name__, "a parameter may be in one group only, once.",
                            [f"{len(params)} parameters, {len(set(params))} different, {len(known & set(params))} in another group"],
                            "Leave it out of one of them.")
        missing = [name for name, value in group.items() if value is required]
        if missing:
            raise explained(ArgumentError, type(self).__name__, f"{missing[0]} has no default.",
                            [f"the group has: {', '.join(param_group)}"],
                            f"Pass {missing[0]}=.")
        self.param_groups.append(group)

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of all parameters, or fill them with 0."""
        for group in self.param_groups:
            forget_gradients(group["params"], set_to_none)

    # --- stepping -------------------------------------------------------------------------------------------------------
    @no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient. closure() computes the loss and the gradients first; returns the loss."""
        loss, self.stepped = None, True
        if closure is not None:
            with enable_grad():
                loss = closure()
        call, started = f"{type(self).__name__}.step", perf_counter()
        for group in self.param_groups:
            trained = [param for param in group["params"] if param.grad is not None]
            self._update(trained, [self.begin(param, self.state.setdefault(param, {}), group) for param in trained], call)
        seconds = perf_counter() - started
        for observer in tuple(STEP_OBSERVERS):
            observer(self, seconds)
        return loss

    def _update(self, params, begun, call):
        """Hand parameters to the backend, all of one device and dtype in one call."""
        alike = {}
        for param, (arrays, numbers) in zip(params, begun, strict=True):
            work = alike.setdefault((str(param.device), param.dtype), [])
            work.append(([param.array, stored(param.grad.array), *arrays], numbers))
        arrays = [param.array for param in params]
        with lifted(*arrays):
            for work in alike.values():
                backend.run("update_parameters", work[0][0][0], rule=self.update, work=work)
        written(call, *arrays)

    # --- saving -----------------------------------------------------------------------------------------------------------
    def state_dict(self):
        """{"state": {number: {...}}, "param_groups": [...]}, with numbers in place of the parameters."""
        numbers = self._numbers()
        groups = [{**group, "params": [numbers[param] for param in group["params"]]} for group in self.param_groups]
        return {"state": {numbers[param]: dict(state) for param, state in self.state.items()}, "param_groups": groups}

    @no_grad()
    def load_state_dict(self, state_dict):
        """Take over a saved state; the groups must hold as many parameters as they did. Tensors are copied."""
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            has = f"got {describe(state_dict)}"
            if isinstance(state_dict, dict):
                has = f"it has: {', '.join(map(str, list(state_dict)[:8])) or 'nothing'}"
            raise explained(StateError, f"{type(self).__name__}.load_state_dict", "it takes what state_dict() of an optimiser gave.", [has],
                            "Pass the optimiser's part of a checkpoint, as in minidl.load(path)['optimizer'].")
        saved = state_dict["param_groups"]
        sizes, saved_sizes = ([len(group["params"]) for group in groups] for groups in (self.param_groups, saved))
        if sizes != saved_sizes:
            raise explained(StateError, f"{type(self).__name__}.load_state_dict",
                            "the groups must hold as many parameters as the saved ones.",
                            [f"parameters per group: {sizes}", f"saved: {saved_sizes}"], "Build the optimiser the same way before loading.")
        owners = {number: param for group, old in zip(self.param_groups, saved, strict=True)
                  for number, param in zip(old["params"], group["params"], strict=True)}
        self.state = {owners[number]: {name: _restored(name, value, owners[number]) for name, value in state.items()}
                      for number, state in state_dict["state"].items()}
        for group, old in zip(self.param_groups, saved, strict=True):
            group.update({key: value for key, value in old.items() if key not in ("params", "param_names")})

    def _numbers(self):
        return {param: number for number, param in enumerate(param for group in self.param_groups for param in group["params"])}

    def __repr__(self):
        lines = []
        for number, group in enumerate(self.param_groups):
            lines += [f"Parameter Group {number}", *(f"    {key}: {group[key]}" for key in sorted(group) if key != "params")]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


required = object()  # in defaults: this setting must be given


def zeros_like(param):
    """A Tensor of zeros, stored like the parameter: what most rules remember starts as this."""
    array = empty(param.shape, param.dtype, param.array)
    array.fill(0)
    return Tensor(array)


def _restored(name, value, param):
    """A saved value for this parameter: on its device, in its dtype and storage order."""
    if name == "step" or isinstance(value, (int, float)) or value is None:
        return value if value is None or isinstance(value, (int, float)) else float(value)
    array = getattr(value, "array", value)
    array = move(array if hasattr(array, "strides") and hasattr(array, "flags") else value.__array__(), param.device)
    if array.shape != param.shape:
        raise explained(StateError, "load_state_dict", f"{name} must have the shape of its parameter.",
                        [f"parameter: {param.shape}", f"saved: {array.shape}"], "Are the parameters in another order?")
    own = empty(array.shape, param.dtype if is_floating(array.dtype) else array.dtype, param.array)
    own[...] = array
    return Tensor(own)


def check_settings(call, **settings):
    """Settings that must be finite and not negative; a pair of them (betas) must lie below 1."""
    for name, value in settings.items():
        numbers = value if isinstance(value, (tuple, list)) else (value,)
        low_enough = all(number < 1 for number in numbers) if isinstance(value, (tuple, list)) else True
        if not low_enough or any(not 0 <= number < math.inf for number in numbers):
            raise explained(ArgumentError, call, f"{name} must not be negative{'' if low_enough else ', and below 1'}.",
                            [f"{name} = {value}"],
                            "Learning rates lie between 1e-5 and 1, most other settings between 0 and 1.")
