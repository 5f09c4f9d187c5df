"""The verbs that look: source, values, worked numbers, checks, the doctor, outline, times, other backends, expressions."""

import ast

import numpy as np

from minidl.core.errors import MinidlError
from minidl.stepper import doctor, screen
from minidl.stepper.compare import comparisons
from minidl.stepper.opcheck import check_lines
from minidl.stepper.outline import outline, time_table
from minidl.stepper.text import byte_size, number, safe
from minidl.stepper.worked import LIMIT, again, available, updated, worked_out

NAMES = 12  # shown when a name is not found


class Looking:
    """Half of the prompt; terminal.py has the other half and what both share."""

    def do_l(self, argument):
        """l              source: the call, the op's forward, its backward"""
        self.paper.draw(screen.listing(self.current, self.paper.width))

    def do_g(self, argument):
        """g [all|PATH]   outline of all ops with the skips as lines, and the cursor; alike blocks are folded"""
        everything = argument == "all"
        self.paper.draw(outline(self.trace, self.current, self.paper.width, everything, argument if argument and not everything else None))

    def do_t(self, argument):
        """t              where the time went"""
        self.paper.draw(time_table(self.trace, self.paper.width))

    def do_v(self, argument):
        """v T[0,3,:5]    values of a tensor, or of a part;  v grad_T: its gradient;  v grad_x: what this step made"""
        name, part = (argument, "") if self.value_of(argument) is not None else split_index(argument)
        value = self.value_of(name)
        if value is None:
            names = [safe(known) for known in self.names()]
            more = f" ... ({len(names)} in all; Tab completes them)" if len(names) > NAMES else ""
            self.say((f"There is no tensor called {safe(name)}. " if argument else "v takes a name. ")
                     + f"Names here: {', '.join(names[:NAMES])}{more}")
            return
        if value.array is None:
            self.paper.draw(screen.stored_lines(name, value, self.paper.width))
            self.paper.draw(screen.compared_lines(comparisons(self.trace).get(id(value), ()), self.paper.width))
            return
        try:
            array = value.array[parsed_index(part)] if part else value.array
        except (ValueError, IndexError, SyntaxError, TypeError) as error:
            self.say(f"{safe(part)} is no part of shape {screen.shape_text(value.shape)}: {safe(error)}")
            return
        self.paper.draw(screen.tensor_lines(name + part, np.asarray(array), self.paper.width))
        if not part:
            self.paper.draw(screen.compared_lines(comparisons(self.trace).get(id(value), ()), self.paper.width))

    def do_w(self, argument):
        """w [T[index]]   one number worked out, term by term:  w;  w y[0,3,2,2];  w grad_weight[0,0,1,1]"""
        item = self.current
        several = len(getattr(item.forward, "outputs", ())) > 1
        which = next((f"y[{k}]" for k in range(len(item.forward.outputs)) if argument.startswith(f"y[{k}]")), None) if several else None
        name, part = (which, argument[len(which):]) if which else split_index(argument)  # y[1][0]: of output 1, as the screen writes it
        found = self.worked_at(item, name, part) if argument else self.worked_here(item)
        if isinstance(found, str):
            self.say(found)
            return
        for row in found:
            self.say(row) if isinstance(row, str) else self.paper.draw(screen.worked_table(row, self.paper.width))

    def worked_here(self, item):
        """All worked numbers of a step, or why there are none."""
        if item.kind == "update":
            return updated(item)
        found = worked_out(item.forward, 100 * LIMIT).get(item.step)
        return found or f"It cannot be worked out: {available(item.forward) or 'there is no number to show'}."

    def worked_at(self, item, name, part):
        """The worked number of one element, or why there is none."""
        if item.kind == "update" or (op := again(item.forward)) is None:
            return f"It cannot be worked out: {available(item.forward) or 'this op could not be run again'}."
        try:
            index = parsed_index(part) if part else None
            index = index if index is None or isinstance(index, tuple) else (index,)
            if index is not None and not all(isinstance(i, int) for i in index):
                return "w takes one element, as in w y[0,3,2,2]."
            for k, y in enumerate(item.forward.outputs):
                if name in ("y" if len(item.forward.outputs) == 1 else f"y[{k}]", y.name) or name == "y" and not k:
                    return [op.output(k, normal(index, y.shape)) or self.no_number(y, f"y[{k}]")]
            if item.kind == "backward":
                for k, to in enumerate(item.contributions):
                    if name in (f"grad_{to.argument}", f"grad_{to.to.name}"):
                        return [op.gradient(item, k, normal(index, to.grad.shape)) or "This op's gradient cannot be differentiated again."]
        except (ValueError, IndexError, SyntaxError, TypeError) as error:
            return f"{safe(part)} is no element of it: {safe(error)}"
        made = ["y", *(f"grad_{part.argument}" for part in getattr(item, "contributions", ()))]
        return f"This step makes {', '.join(safe(m) for m in made)}; w works out one of their elements."

    def no_number(self, value, name):
        """Why an output has no terms."""
        if not value.array.size:
            return f"{name} is empty."
        return f"{name} comes beside the result and no gradient flows through it, so it has no terms: v {safe(value.name)} shows it."

    def do_ck(self, argument):
        """ck [full]      check this op's gradients by finite differences, on these very inputs;  full: all, and error against h"""
        if self.current.kind == "update":
            self.say("An optimiser's step has no gradient to check. ck is for ops.")
            return
        self.paper.draw(check_lines(self.current.forward, self.paper.width, argument == "full", argument == "full"))

    def do_why(self, argument):
        """why [nan]      which op made the first NaN, and where the growth began; without one, what else looks ill"""
        found = doctor.blame(self.trace, self.current)
        if found is not None:
            for line in found.lines:
                self.say(line)
            if found.cause is not None:
                self.say(f"j {found.cause.step} goes there.")
        elif argument == "nan":
            self.say("Every number in this trace is finite.")
        else:
            for line in doctor.findings(self.trace) or ["Nothing looks ill: all is finite, no unit is dead, no gradient explodes or "
                                                        "vanishes."]:
                self.say(line)

    def do_diff(self, argument):
        """diff BACKEND   every op on another backend beside the recording, both judged against float64:  diff reference"""
        from minidl.stepper.diff import diff_lines
        from minidl.stepper.subjects import Progress

        progress = Progress(f"diff {safe(argument or 'reference')}:")
        try:
            lines = diff_lines(self.trace, argument or "reference", self.paper.width, progress)
        except MinidlError as error:
            progress.done()
            self.tell(error)
            return
        progress.done()
        self.paper.draw(lines)

    def do_x(self, argument):
        """x EXPR         a Python expression: T("name") is a tensor's array; x, y, grad_y, ... those of this step; np is NumPy"""
        if not argument:
            self.say('x takes an expression, as in x abs(grad_y).max() or x T("loss").')
            return
        places = {name: value.array for name, value in self.arguments() if name.isidentifier() and value.array is not None}
        places |= {"np": np, "T": self.array_called, "trace": self.trace, "step": self.current}
        try:
            with np.errstate(all="ignore"):
                result = eval(argument, places)  # what people type at their own prompt, as in pdb
            with np.printoptions(threshold=100, edgeitems=3, linewidth=self.paper.width - 2, precision=5):
                text = repr(result) if not isinstance(result, float) else number(result)
        except Exception as error:  # theirs: the prompt tells it and goes on
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, NameError) and self.current.kind == "forward" and str(error.name).startswith("grad_"):
                text += "\nThere is no gradient yet in a forward step: f goes to the step back through this op."
        self.paper.draw([[("  " + safe(line), "")] for line in text.splitlines()[:40] or [""]])

    def array_called(self, name):
        """T("name") in an expression."""
        value = self.value_of(name)
        if value is None or value.array is None:
            raise KeyError(f"no tensor {name!r} with its numbers here")
        return value.array

    def do_save(self, argument):
        """save FILE      write the trace to a file; `minidl step FILE` opens it again"""
        self.write(argument, self.trace.save)

    def do_html(self, argument):
        """html FILE      write the trace as one offline page"""
        from minidl.stepper.page import write

        self.write(argument, lambda path: write(self.trace, path))

    def write(self, path, how):
        """Write a file, and say how large it became or why not."""
        import os

        if not path:
            self.say("Say where to: a file name.")
            return
        try:
            how(path)
        except (MinidlError, OSError) as error:
            self.tell(error)
            return
        self.say(f"Written: {safe(path)}, {byte_size(os.path.getsize(path))}.")

    # --- names ------------------------------------------------------------------------------------------------------
    def value_of(self, name):
        """The Value that a name stands for here: a tensor of the trace, its gradient, or an argument of this step.

        .weight is that of the module of this step.
        """
        if name.startswith((".", "grad_.")) and self.current.path:
            name = name.replace(".", f"{self.current.path}.", 1)
        value = dict(self.arguments()).get(name) or self.trace.find(name)
        if value is not None:
            return value
        if name.startswith("grad_") and (of := self.trace.find(name[5:])) is not None:
            return self.trace.gradients.get(id(of))
        return None

    def arguments(self):
        """(name, Value) of what the op under the cursor calls its own tensors."""
        item = self.current
        if item.kind == "update":
            return
        if item.kind == "backward":
            yield from (("grad_y" if len(item.grads_in) == 1 else f"grad_y[{v.number}]", grad) for v, grad in item.grads_in)
            yield from ((f"grad_{part.argument}", part.grad) for part in item.contributions)
        forward = item.forward
        yield from ((forward.op.input_name(k), x) for k, x in enumerate(forward.inputs) if hasattr(x, "array"))
        if len(forward.outputs) == 1:
            yield "y", forward.outputs[0]
        else:
            yield from ((f"y[{k}]", y) for k, y in enumerate(forward.outputs))

    def names(self):
        """What v may be asked for."""
        return list(dict.fromkeys([name for name, _ in self.arguments()] + [value.name for value in self.trace.values]))

    def complete_v(self, text, *_):
        """Names of tensors that begin like this."""
        return [name for name in self.names() if name.startswith(text)]

    complete_w = complete_v


def split_index(text):
    """("w", "[0,:3]") of "w[0,:3]"; only an index that ends the text is one, since names may hold brackets."""
    if text.endswith("]") and "[" in text:
        name, _, part = text.rpartition("[")
        return name, f"[{part}"
    return text, ""


def parsed_index(part):
    """The index that "[0, 3, :5, ...]" means: integers, slices and an ellipsis, nothing else."""
    node = ast.parse(f"x{part}", mode="eval").body.slice
    found = tuple(one_index(n) for n in (node.elts if isinstance(node, ast.Tuple) else [node]))
    return found if len(found) != 1 else found[0]


def one_index(node):
    """One place of an index."""
    if isinstance(node, ast.Slice):
        return slice(*(None if n is None else one_index(n) for n in (node.lower, node.upper, node.step)))
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if type(value) is not int and value is not Ellipsis:
        raise ValueError("an index is made of whole numbers, slices and ...")
    return value


def normal(index, shape):
    """A full index of non-negative numbers; raises if it is none."""
    if index is None:
        return None
    if len(index) != len(shape):
        raise IndexError(f"{len(shape)} numbers are needed, one for each axis of {screen.shape_text(shape)}")
    if any(not -n <= i < n for i, n in zip(index, shape, strict=True)):
        raise IndexError(f"out of range for {screen.shape_text(shape)}")
    return tuple(i % n for i, n in zip(index, shape, strict=True))
