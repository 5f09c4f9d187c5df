"""How a mistake gets into an op and out again: @mistake puts it into CATALOGUE, bug(name) plants it.

Nothing in the registry is touched. An observer (minidl.core.op.OBSERVERS) sees every call of the op and puts the wrong
backward into the node that the call made; when the `with` ends the observer is gone.
"""

import contextlib
import difflib
import inspect
from types import SimpleNamespace
from typing import NamedTuple

import minidl.ops  # noqa: F401 - fills the registry
from minidl.core.errors import ArgumentError, explained
from minidl.core.gradcheck import check, op_call
from minidl.core.op import OBSERVERS, OPS
from minidl.core.tensor import Tensor

CATALOGUE = {}  # name -> Bug


class Finding(NamedTuple):
    """What one check said about a planted bug."""

    order: int    # the order of derivative at which it showed
    argument: str
    reason: str
    guess: str
    report: object
    example: str

    @property
    def text(self):
        """The guess at the cause; the reason where nothing had to be guessed."""
        return self.guess or self.reason


class Bug:
    """One mistake: the op it sits in, what it is, why people make it, and the calls on which it shows."""

    def __init__(self, wrong, op, guess, examples, at, function):
        self.wrong = wrong
        self.name = wrong.__name__.strip("_").replace("_", "-")
        self.op = op
        self.what, _, why = inspect.getdoc(wrong).partition("\n\n")
        self.what, self.why = " ".join(self.what.split()), " ".join(why.split())
        self.guess = guess          # a part of what check says about it
        self.at = at                # "backward", "forward", or the name of the function of the engine that it replaces
        self.own_examples = examples
        self.function = function    # what to check where one call of the op does not show it

    def __repr__(self):
        return f"<Bug {self.name} in {self.op}: {self.what}>"

    @property
    def examples(self):
        """Its own, or those of the op."""
        return self.own_examples or OPS[self.op].examples

    def calls(self, seed=0):
        """(function, inputs, settings, argument names, text) of every call that is checked."""
        op = OPS[self.op]
        for example in self.examples:
            if self.function:
                args, settings = example.build(seed)
                names = list(inspect.signature(self.function).parameters)
                yield self.function, [Tensor(a) for a in args], settings, names, repr(example)
            else:
                yield *op_call(op, example, seed), [*op.tensors, *op.settings], repr(example)

    def finding(self, seed=0, order=2, explain=True):
        """The first complaint of minidl's check about this bug while it is planted, or None; explain=False does not look for the cause."""
        for fn, inputs, settings, names, text in self.calls(seed):
            report = check(fn, inputs, order, seed, names=names, settings=settings, explain=explain, float32=False)
            for row in report.rows:
                if row.verdict == "wrong":
                    return Finding(row.order, row.argument, row.reason, row.guess, report, text)
        return None


def mistake(op, guess="", examples=(), at="backward", function=None):
    """Put a bug into the catalogue. Its name is the function's, its docstring says what it is and, below, why people make it.

    at="backward": the function gets (right, a), the right backward and the call's arguments by name, and returns a wrong one.
    at="forward": it gets (a, y) after the forward and writes into arrays. at=(module, "name"): it stands in for that function.
    """

    def register(wrong):
        entry = Bug(wrong, op, guess, list(examples), at, function)
        CATALOGUE[entry.name] = entry
        return wrong

    return register


@contextlib.contextmanager
def bug(name):
    """Within the `with`, the op that a bug of the catalogue sits in goes wrong; afterwards, whatever happened, it is right again."""
    entry = find(name)
    if entry.at == "backward" or entry.at == "forward":
        watch = watcher(entry)
        OBSERVERS.append(watch)
        try:
            yield entry
        finally:
            OBSERVERS.remove(watch)
    else:
        module, attribute = entry.at
        right = getattr(module, attribute)
        setattr(module, attribute, entry.wrong)
        try:
            yield entry
        finally:
            setattr(module, attribute, right)


def find(name):
    """A Bug by its name."""
    if isinstance(name, Bug):
        return name
    if name not in CATALOGUE:
        near = difflib.get_close_matches(str(name), CATALOGUE, 3)
        raise explained(ArgumentError, "planted.bug", f"there is no bug {name!r}.", [f"minidl.planted.CATALOGUE has {len(CATALOGUE)}"],
                        f"Did you mean {' or '.join(near)}?" if near else "Print the names: print(*minidl.planted.CATALOGUE)")
    return CATALOGUE[name]


def watcher(entry):
    """The observer that makes the calls of one op go wrong."""
    op = OPS[entry.op]
    signature = inspect.signature(op.forward)

    def watch(call):
        if call.op is not op:
            return
        bound = signature.bind(*call.args, **call.settings)
        bound.apply_defaults()
        arguments = SimpleNamespace(**bound.arguments)
        if entry.at == "forward":
            entry.wrong(arguments, call.outputs[0])
            return
        node = next((y.edge[0] for y in call.outputs if y.edge), None)
        if node is not None:
            node.backward = entry.wrong(node.backward, arguments)

    return watch


def changed(grads, number, change):
    """The gradients with `change` applied to one of them; None stays None."""
    return tuple(change(g) if k == number and g is not None else g for k, g in enumerate(grads))
