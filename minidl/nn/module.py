"""Module: a part of a model. It owns parameters, buffers and other modules, and knows how to call forward().

What belongs to whom is found by assignment: self.weight = Parameter(...), self.conv = Conv2d(...). Saving and loading
is in state.py, hooks are in hooks.py, the layers are in layers_*.py.
"""

import itertools
import threading

from minidl.core import show
from minidl.core.config import no_grad
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, describe, explained
from minidl.core.tensor import Tensor
from minidl.nn import hooks, state
from minidl.nn.parameter import Parameter


class _Running(threading.local):
    """The modules whose forward is running in this thread, the outermost first."""

    def __init__(self):
        self.modules = []


_RUNNING = _Running()


def running_modules():
    """The modules whose forward is running in this thread, the outermost first."""
    return tuple(_RUNNING.modules)


def current_path():
    """Where in the model this thread is, as "layer1.0.conv1": the name of the running module below the outermost one.

    "" in the outermost module, None outside of every forward.
    """
    running = _RUNNING.modules
    if not running:
        return None
    parts = []
    for outer, inner in itertools.pairwise(running):
        names = [name for name, module in outer.named_modules(remove_duplicate=False) if module is inner and name]
        parts.append(names[0] if names else type(inner).__name__)
    return ".".join(parts)


class Module:
    """Base class of models and layers: call super().__init__(), assign parameters and modules, write forward()."""

    def __init__(self):
        own = vars(self)
        own["training"] = True
        own["_parameters"] = {}         # name -> Parameter or None
        own["_buffers"] = {}            # name -> Tensor or None: state that is saved but not trained
        own["_modules"] = {}            # name -> Module or None
        own["_non_persistent"] = set()  # names of the buffers that state_dict() leaves out
        own["_hooks"] = None            # a Hooks (hooks.py) from the first registration on

    def forward(self, *args):
        """What the module computes; every module writes its own."""
        raise explained(NotImplementedError, type(self).__name__, "this module has no forward().", ["Module.__call__ runs it"],
                        "Write `def forward(self, x):` in the class.")

    def __call__(self, *args, **kwargs):
        running = _RUNNING.modules
        running.append(self)
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return hooks.call(self, args, kwargs)
        finally:
            running.pop()

    # --- what it owns: attributes ------------------------------------------------------------------------------
    def __setattr__(self, name, value):
        own = vars(self)
        kind = "_parameters" if isinstance(value, Parameter) else "_modules" if isinstance(value, Module) else None
        if kind:
            if kind not in own:
                raise explained(AttributeError, f"{type(self).__name__}.{name} = ...", "a module needs Module.__init__() first.",
                                [f"assigned: a {type(value).__name__}"], "Call super().__init__() on the first line of __init__.")
            self._forget(name, keep=kind)
            own[kind][name] = value
            return
        for kind in ("_parameters", "_modules", "_buffers"):
            if name in own.get(kind, ()):
                if value is not None and not (kind == "_buffers" and isinstance(value, Tensor)):
                    word, needed = {"_parameters": ("parameter", "Parameter"), "_modules": ("module", "Module"),
                                    "_buffers": ("buffer", "Tensor")}[kind]
                    raise explained(DTypeError, f"{type(self).__name__}.{name} = ...",
                                    f"{name!r} is a {word}, so it takes a {needed} or None.",
                                    [f"assigned: {describe(value)}"],
                                    f"Delete it first (del module.{name}), or write into it: module.{name}.copy_(...).")
                own[kind][name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name):  # only asked for what is not found in the usual way
        own = vars(self)
        for kind in ("_parameters", "_modules", "_buffers"):
            if name in own.get(kind, ()):
                return own[kind][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __delattr__(self, name):
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._modules, *self._buffers})

    def _forget(self, name, keep=None):
        """Take a name out of everything the module owns, except out of `keep`; was it there?"""
        own, found = vars(self), False
        for kind in ("_parameters", "_modules", "_buffers"):
            if kind != keep and name in own.get(kind, ()):
                del own[kind][name]
                found = True
        if keep is not None:
            own.pop(name, None)
        self._non_persistent.discard(name)
        return found

    def _check_name(self, call, name, kind):
        if not isinstance(name, str) or not name or "." in name or hasattr(self, name) and name not in vars(self)[kind]:
            reason = "is taken already" if isinstance(name, str) and name and "." not in name else "cannot stand in a path"
            raise explained(ArgumentError, call, "the name must be new, not empty, and without a dot.", [f"{name!r} {reason}"],
                            "Choose another name.")

    def register_parameter(self, name, param):
        """The same as `self.name = param`; None holds a place in the order, as for a layer without bias."""
        self._check_name("register_parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise explained(DTypeError, "register_parameter", "a parameter must be a Parameter or None.", [f"{name}: {describe(param)}"],
                            "Wrap it in nn.Parameter(...).")
        self._parameters[name] = param

    def register_buffer(self, name, tensor, persistent=True):
        """State that is not trained (running averages, a mask): it moves with the module and, if persistent, is saved."""
        self._check_name("register_buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise explained(DTypeError, "register_buffer", "a buffer must be a Tensor or None.", [f"{name}: {describe(tensor)}"],
                            "Wrap it in minidl.tensor(...).")
        self._buffers[name] = tensor
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name, module):
        """The same as `self.name = module`, for names that are no Python words, as "0"."""
        self._check_name("add_module", name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise explained(DTypeError, "add_module", "a module must be a Module or None.", [f"{name}: {describe(module)}"],
                            "Call the class (nn.ReLU(), not nn.ReLU), or derive it from nn.Module.")
        self._modules[name] = module

    register_module = add_module

    # --- what it owns: walks, in PyTorch's order ----------------------------------------------------------------
    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """(path, module) of this module ("") and of everything below it."""
        memo = set() if memo is None else memo
        if self not in memo:
            if remove_duplicate:
                memo.add(self)
            yield prefix, self
            for name, module in self._modules.items():
                if module is not None:
                    yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self):
        """This module and everything below it."""
        return (module for _, module in self.named_modules())

    def named_children(self):
        """(name, module) of the modules directly below."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self):
        """The modules directly below."""
        return (module for _, module in self.named_children())

    def _named_members(self, kind, prefix, recurse, remove_duplicate):
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, tensor in vars(module)[kind].items():
                if tensor is not None and tensor not in seen:
                    if remove_duplicate:
                        seen.add(tensor)
                    yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        """(path, parameter) of everything to be trained; a parameter used twice comes once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse=True):
        """Everything to be trained."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix="", recurse=True, remove_duplicate=True):
        """(path, buffer) of all state that is not trained."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse=True):
        """All state that is not trained."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target):
        """The module at a path like "layer1.0.conv1"; "" is the module itself."""
        module = self
        for name in target.split(".") if target else ():
            inner = module._modules.get(name)
            if inner is None:
                raise explained(AttributeError, "get_submodule", f"{type(module).__name__} has no module {name!r}.",
                                [f"path: {target!r}", f"it has: {', '.join(module._modules) or 'none'}"],
                                "Check the path; model.named_modules() lists all.")
            module = inner
        return module

    def get_parameter(self, target):
        """The parameter at a path like "layer1.0.conv1.weight"."""
        return self._get("get_parameter", "_parameters", target)

    def get_buffer(self, target):
        """The buffer at a path like "layer1.0.bn1.running_mean"."""
        return self._get("get_buffer", "_buffers", target)

    def _get(self, call, kind, target):
        path, _, name = target.rpartition(".")
        held = vars(self.get_submodule(path))[kind]
        if held.get(name) is None:
            raise explained(AttributeError, call, f"there is no {kind.strip('_')[:-1]} {name!r} in {path or 'the module itself'}.",
                            [f"it has: {', '.join(k for k, v in held.items() if v is not None) or 'none'}"], "Check the path.")
        return held[name]

    # --- changing all of it ---------------------------------------------------------------------------------------
    def apply(self, fn):
        """Call fn(module) on everything below, then on this module; the usual way to initialise. Returns the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode=True):
        """Say that the model is being trained: dropout drops, batch norm uses the batch. Returns the module."""
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self):
        """Say that the model is being used. Returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Freeze (False) or unfreeze every parameter. Returns the module."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of the parameters, or fill them with 0."""
        forget_gradients(self.parameters(), set_to_none)

    def to(self, *targets, dtype=None, device=None, **_):
        """Move parameters and buffers to a device, or convert the floating point ones to a dtype. Returns the module."""
        def convert(tensor):
            moved = tensor.to(*targets, dtype=dtype, device=device)
            return moved if is_floating(tensor.dtype) or moved.dtype == tensor.dtype else tensor.to(device=moved.device)

        return self._convert(convert)

    def float(self): return self.to(dtype="float32")
    def double(self): return self.to(dtype="float64")
    def half(self): return self.to(dtype="float16")
    def cpu(self): return self.to(device="cpu")
    def cuda(self, device=None): return self._convert(lambda tensor: tensor.cuda(device))
    def type(self, dst_type): return self.to(dtype=dst_type)

    @no_grad()
    def _convert(self, convert):
        for module in self.modules():
            for param in module._parameters.values():
                if param is not None:  # the Parameter stays the same object: optimisers hold it
                    param.data = convert(param)
                    if param.grad is not None:
                        param.grad = convert(param.grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = convert(buffer)
        return self

    # --- saving, hooks, printing -------------------------------------------------------------------------------------
    def state_dict(self, prefix="", keep_vars=False):
        """{path: tensor} of all parameters and persistent buffers, sharing their memory."""
        return state.state_dict(self, prefix, keep_vars)

    def load_state_dict(self, state_dict, strict=True, assign=False):
        """Copy tensors or NumPy arrays into the parameters and buffers of the same names; all of it or, on an error, none."""
        return state.load_state_dict(self, state_dict, strict, assign)

    def register_forward_pre_hook(self, hook, *, prepend=False, with_kwargs=False):
        """Call hook(module, args) before forward; what it returns (if anything) replaces the arguments."""
        return hooks.register(self, "before", hook, prepend, with_kwargs)

    def register_forward_hook(self, hook, *, prepend=False, with_kwargs=False):
        """Call hook(module, args, output) after forward; what it returns (if anything) replaces the output."""
        return hooks.register(self, "after", hook, prepend, with_kwargs)

    def register_full_backward_hook(self, hook, prepend=False):
        """Call hook(module, grad_input, grad_output) in backward; what it returns (if anything) replaces grad_input."""
        return hooks.register(self, "backward", hook, prepend)

    def extra_repr(self):
        """The text between the brackets when the module is printed."""
        return ""

    def _get_name(self):
        return type(self).__name__

    def __repr__(self):
        children = [f"({name}): {indented(repr(module))}" for name, module in self._modules.items()]
        return bracketed(self._get_name(), self.extra_repr(), children)

    def _repr_html_(self):
        return show.module_html(self)


def indented(text):
    """The text with every line but the first moved right by two."""
    return text.replace("\n", "\n  ")


def bracketed(name, extra, children):
    """Name(extra) on one line, or Name( with one indented line each for `extra` and every child."""
    lines = extra.split("\n") if extra else []
    if len(lines) <= 1 and not children:
        return f"{name}({extra})"
    return f"{name}(\n  " + "\n  ".join(lines + children) + "\n)"


def forget_gradients(parameters, set_to_none=True):
    """Set every .grad to None, or fill it with 0."""
    for param in parameters:
        if param.grad is not None:
            if set_to_none:
                param.grad = None
            else:
                param.grad = param.grad.detach()
                param.grad.zero_()
