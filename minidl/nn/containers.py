"""Modules that hold modules: Sequential, ModuleList, ModuleDict, and ParameterList; and Identity, which does nothing."""

from minidl.core.errors import DTypeError, RangeError, describe, explained
from minidl.nn.module import Module, bracketed, indented
from minidl.nn.parameter import Parameter


class Identity(Module):
    """y = x. A place holder: whatever arguments it is made with are ignored."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def forward(self, x):
        """x itself."""
        return x


class _Numbered(Module):
    """Modules under the names "0", "1", ...: what Sequential and ModuleList share."""

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def _name(self, index):
        if not -len(self) <= index < len(self):
            raise explained(RangeError, f"{type(self).__name__}[{index}]", "there is no such module.", [f"it holds {len(self)}"],
                            "Modules count from 0.")
        return list(self._modules)[index]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._with(list(self._modules.items())[index])
        return self._modules[self._name(index)]

    def __setitem__(self, index, module):
        self._fill({**self._modules, self._name(index): module})

    def __delitem__(self, index):
        names = list(self._modules)[index] if isinstance(index, slice) else [self._name(index)]
        kept = [(name, module) for name, module in self._modules.items() if name not in names]
        plain = all(name.isdigit() for name in self._modules)
        self._fill({str(k) if plain else name: module for k, (name, module) in enumerate(kept)})  # numbers close up

    def _fill(self, modules):
        modules = dict(modules)
        self._modules.clear()
        for name, module in modules.items():
            self.add_module(name, module)

    def append(self, module):
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules):
        """Add several modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index, module):
        """Put a module before the one at `index`."""
        modules = list(self)
        modules.insert(index, module)
        self._fill({str(k): m for k, m in enumerate(modules)})
        return self

    def pop(self, index=-1):
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module


class Sequential(_Numbered):
    """Modules one after another: y = m_n(... m_1(m_0(x))). Made from modules, or from one dictionary of named ones."""

    def __init__(self, *modules):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            self._fill(modules[0])
        else:
            self._fill({str(k): module for k, module in enumerate(modules)})

    def _with(self, items):
        return type(self)(dict(items))

    def __add__(self, other):
        return Sequential(*self, *other)

    def forward(self, x):
        """Every module in order."""
        for module in self._modules.values():
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list whose modules belong to the model. It has no forward(): loop over it, or index it."""

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    def _with(self, items):
        return type(self)(module for _, module in items)

    def __add__(self, other):
        return ModuleList([*self, *other])

    def __iadd__(self, modules):
        return self.extend(modules)

    def __repr__(self):
        groups = []  # [first number, last number, text]: equal neighbours are printed once
        for k, text in enumerate(map(repr, self)):
            if groups and groups[-1][2] == text:
                groups[-1][1] = k
            else:
                groups.append([k, k, text])
        lines = [f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}"
                 for first, last, text in groups]
        return bracketed(self._get_name(), "", [indented(line) for line in lines])


class ModuleDict(Module):
    """A dictionary whose modules belong to the model."""

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key): return self._modules[key]
    def __setitem__(self, key, module): self.add_module(key, module)
    def __delitem__(self, key): del self._modules[key]
    def __len__(self): return len(self._modules)
    def __iter__(self): return iter(self._modules)
    def __contains__(self, key): return key in self._modules

    def keys(self):
        """The names."""
        return self._modules.keys()

    def values(self):
        """The modules."""
        return self._modules.values()

    def items(self):
        """(name, module) pairs."""
        return self._modules.items()

    def update(self, modules):
        """Add the modules of a dictionary, or of (name, module) pairs."""
        for key, module in modules.items() if hasattr(modules, "items") else modules:
            self[key] = module

    def pop(self, key):
        """Take a module out and return it."""
        return self._modules.pop(key)

    def clear(self):
        """Take all modules out."""
        self._modules.clear()


class ParameterList(Module):
    """A list whose parameters belong to the model."""

    def __init__(self, parameters=()):
        super().__init__()
        self.extend(parameters)

    def __len__(self):
        return len(self._parameters)

    def __iter__(self):
        return iter(self._parameters.values())

    def __getitem__(self, index):
        return list(self)[index]

    def append(self, parameter):
        """Add a parameter at the end."""
        if not isinstance(parameter, Parameter):
            raise explained(DTypeError, "ParameterList.append", "it holds Parameters.", [f"got: {describe(parameter)}"],
                            "Wrap it in nn.Parameter(...).")
        self.register_parameter(str(len(self)), parameter)
        return self

    def extend(self, parameters):
        """Add several parameters at the end."""
        for parameter in parameters:
            self.append(parameter)
        return self

    def __repr__(self):
        return bracketed(self._get_name(), "", [f"({k}): Parameter of shape {tuple(p.shape)}, {p.dtype}" for k, p in enumerate(self)])


__all__ = ["Identity", "Sequential", "ModuleList", "ModuleDict", "ParameterList"]
