"""A prompt like pdb's on a trace: n and p move, h helps. In colour on a terminal, plain text everywhere else."""

import cmd
import os
import shutil
import sys
import textwrap

from minidl.stepper import screen
from minidl.stepper.opcheck import check_lines
from minidl.stepper.text import safe, shorten
from minidl.stepper.trace import Backward, Forward

PROMPT = "(step) "
PLAIN_WIDTH = 100
VERBS = ["n", "p", "c", "j", "r", "l", "v", "g", "ck", "h", "q"]


class Paper:
    """Where lines are drawn: with rich on a terminal, as plain text otherwise (and where NO_COLOR is set)."""

    def __init__(self, out=None):
        self.out = out or sys.stdout
        self.is_terminal = self.out.isatty()
        self.console = None
        if self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            self.console = Console(file=self.out, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def width(self):
        """Columns to draw in."""
        return max(40, shutil.get_terminal_size((PLAIN_WIDTH, 40)).columns) if self.is_terminal else PLAIN_WIDTH

    def draw(self, lines):
        """Draw lines of (text, style) pairs."""
        for line in lines:
            if self.console is None:
                print("".join(text for text, _ in line).rstrip(), file=self.out)
            else:
                self.console.print(self.coloured(line))
        self.out.flush()

    def coloured(self, line):
        """A line as rich text; Python source in colours of its own."""
        from rich.text import Text

        result = Text()
        for text, style in line:
            result.append_text(python(text)) if style == "code" else result.append(text, style)
        return result


def python(text):
    """A line of Python in the terminal's own colours."""
    from rich.syntax import Syntax

    coloured = Syntax(text, "python", theme="ansi_dark", background_color="default").highlight(text)
    coloured.rstrip()
    return coloured


class Prompt(cmd.Cmd):
    """The verbs. Each do_X is one; its docstring is its help."""

    prompt = PROMPT

    def __init__(self, trace, paper, intro=()):
        super().__init__(stdout=paper.out)
        self.trace, self.paper, self.title = trace, paper, intro
        self.cursor = 0          # index into trace.steps

    current = property(lambda self: self.trace.steps[self.cursor])

    # --- moving -----------------------------------------------------------------------------------------------
    def do_n(self, argument):
        """n            next step (s, or an empty line, does the same)"""
        self.go(self.cursor + 1)

    def do_p(self, argument):
        """p            previous step"""
        self.go(self.cursor - 1)

    def do_c(self, argument):
        """c            on to the end;  c back: to the start of the backward;  c relu: to the next relu"""
        steps = self.trace.steps
        if not argument:
            self.go(len(steps) - 1)
            return
        if argument == "back":
            wanted, what = (lambda item: type(item) is Backward), "backward step"
        else:
            wanted, what = (lambda item: item.op.name == argument), f"op called {argument}"
        ahead = [k for k in range(self.cursor + 1, len(steps)) if wanted(steps[k])]
        if argument == "back":  # from inside the backward: its start
            ahead = ahead if type(self.current) is Forward else [k for k, item in enumerate(steps) if wanted(item)]
        if ahead:
            self.go(ahead[0])
        elif argument == "back":
            self.say("There is no backward step: was backward() called inside the recorded block?")
        else:
            earlier = any(wanted(item) for item in steps[:self.cursor + 1])
            self.say(f"No further {what} ahead. " + ("p goes back; g shows where it was." if earlier else "g shows what there is."))

    def do_j(self, argument):
        """j 12         to step 12 (g shows the numbers)"""
        if argument.isdecimal() and 1 <= int(argument) <= len(self.trace.steps):
            self.go(int(argument) - 1)
        else:
            self.say(f"j takes a step from 1 to {len(self.trace.steps)}; g shows which is which.")

    def go(self, cursor):
        """Move the cursor and show the step there."""
        if cursor < 0:
            self.say("This is the first step.")
        elif cursor >= len(self.trace.steps):
            self.say("This is the last step. p goes back, q quits.")
        else:
            self.cursor = cursor
            self.show()

    def show(self):
        """Draw the step under the cursor."""
        self.paper.draw(screen.step_screen(self.trace, self.current, self.paper.width))

    # --- looking ----------------------------------------------------------------------------------------------
    def do_l(self, argument):
        """l            source: the call, the op's forward, its backward"""
        self.paper.draw(screen.listing(self.current, self.paper.width))

    def do_g(self, argument):
        """g            outline of all ops, with the cursor"""
        self.paper.draw(screen.outline(self.trace, self.current, self.paper.width))

    def do_v(self, argument):
        """v h          values of a tensor;  v grad_h: of its gradient;  v grad_x: of what this step made of it"""
        found = self.array(argument)
        if found is None:
            names = ", ".join(safe(name) for name in self.names())
            self.say((f"There is no tensor called {safe(argument)}. " if argument else "v takes a name. ") + f"Names here: {names}")
        else:
            self.paper.draw(screen.tensor_lines(argument, found, self.paper.width))

    def do_ck(self, argument):
        """ck           check this op's gradients by finite differences, on these very inputs"""
        item = self.current
        self.paper.draw(check_lines(item.forward if type(item) is Backward else item, self.paper.width))

    def do_r(self, argument):
        """r            redraw this step"""
        self.show()

    def array(self, name):
        """The array that a name stands for here: a tensor of the trace, its gradient, or an argument of this step."""
        value = self.trace.find(name)
        if value is not None:
            return value.array
        for argument, array in self.arguments():
            if argument == name:
                return array
        if name.startswith("grad_") and self.trace.find(name[5:]):
            parts = [part for back in self.trace.backwards for part in back.contributions if part.to.name == name[5:]]
            return parts[-1].after.array if parts else None
        return None

    def complete_v(self, text, *_):
        """Names of tensors that begin like this."""
        return [name for name in self.names() if name.startswith(text)]

    def complete_c(self, text, *_):
        """Ops that begin like this."""
        return sorted(name for name in {"back", *(item.op.name for item in self.trace.steps)} if name.startswith(text))

    def arguments(self):
        """(name, array) of what the op under the cursor calls its own tensors."""
        item = self.current
        if type(item) is Backward:
            yield from (("grad_y" if len(item.grads_in) == 1 else f"grad_y[{v.number}]", grad.array) for v, grad in item.grads_in)
            yield from ((f"grad_{part.argument}", part.grad.array) for part in item.contributions)
        forward = item.forward if type(item) is Backward else item
        yield from ((forward.op.input_name(k), x.array) for k, x in enumerate(forward.inputs) if hasattr(x, "array"))
        if len(forward.outputs) == 1:
            yield "y", forward.outputs[0].array

    def names(self):
        """What v may be asked for."""
        return list(dict.fromkeys([value.name for value in self.trace.values] + [name for name, _ in self.arguments()]))

    # --- the prompt itself ------------------------------------------------------------------------------------
    def do_h(self, argument):
        """h            this help"""
        self.paper.draw([[("  " + getattr(self, f"do_{verb}").__doc__, "")] for verb in VERBS])

    do_help = do_h
    do_s = do_n

    def do_q(self, argument):
        """q            quit"""
        return True

    def do_EOF(self, argument):  # noqa: N802 - cmd's name for the end of input
        """The end of the input."""
        self.paper.draw([[]])
        return True

    def emptyline(self):
        """An empty line moves on."""
        return self.do_n("")

    def default(self, line):
        """A verb that does not exist."""
        self.say(f"There is no verb '{shorten(safe(line.split()[0]), 20)}'. Verbs: {' '.join(VERBS)}. h explains them.")

    def say(self, text):
        """An answer in words."""
        self.paper.draw([[("  " + line, "")] for line in textwrap.wrap(text, self.paper.width - 2)])

    def start(self):
        """The title and the first step."""
        self.paper.draw([[(line, "dim")] for line in self.title])
        self.paper.draw([[]])
        self.show()

    def run_all(self, commands):
        """Run commands as if typed, each echoed after the prompt, until they end or one quits."""
        for line in commands:
            self.paper.draw([[(PROMPT + safe(line), "bold")]])
            if self.onecmd(line):
                return


def explore(trace, commands=None, title=(), cursor=0):
    """Show a trace: at a prompt on a terminal; elsewhere, or with commands ("c back; n; ck"), as a transcript that ends."""
    paper = Paper()
    if not trace.steps:
        paper.draw([[("Nothing was recorded: no op ran inside the block.", "")]])
        return
    prompt = Prompt(trace, paper, title)
    prompt.cursor = cursor
    prompt.start()
    if commands is not None:
        prompt.run_all(line.strip() for line in commands.split(";"))
    elif paper.is_terminal and sys.stdin.isatty():
        try:
            prompt.cmdloop()
        except KeyboardInterrupt:
            paper.draw([[]])
    else:
        prompt.run_all(["c back", "n"])
