"""A prompt like pdb's on a trace: n and p move, h helps. In colour on a terminal, plain text everywhere else.

The verbs that move are here, those that look in looking.py; what they draw is in screen.py and outline.py.
"""

import cmd
import os
import shutil
import sys
import textwrap

from minidl.core.errors import MinidlError
from minidl.stepper import screen
from minidl.stepper.compare import turn_of
from minidl.stepper.conditions import condition, matches, nearest
from minidl.stepper.effect import measured
from minidl.stepper.looking import Looking
from minidl.stepper.text import safe, shorten

PROMPT = "(step) "
PLAIN_WIDTH = 100
NO_BACKWARD = "There is no backward step: backward() was not called in what was recorded. A loss.backward() in it would bring them."
ALIASES = {"next": "n", "step": "n", "prev": "p", "previous": "p", "back": "p", "continue": "c", "go": "j", "jump": "j", "list": "l",
           "break": "b", "?": "h", "quit": "q", "exit": "q"}
KEYS = "Enter: next step   p: back   f: its backward   c back: to the backward   h: all verbs   q: quit"
VERBS = ["n", "p", "c", "rc", "r", "f", "j", "u", "d", "b", "cl",
         "g", "l", "v", "w", "ck", "why", "t", "diff", "x", "save", "html", "h", "q"]


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


class Prompt(Looking, cmd.Cmd):
    """The verbs. Each do_X is one; its docstring is its help."""

    prompt = PROMPT

    def __init__(self, trace, paper, intro=()):
        super().__init__(stdout=paper.out)
        self.trace, self.paper, self.title = trace, paper, intro
        self.cursor = 0          # index into trace.steps
        self.stops = {}          # number -> Condition: the breakpoints

    current = property(lambda self: self.trace.steps[self.cursor])

    # --- moving -----------------------------------------------------------------------------------------------
    def do_n(self, argument):
        """n              next step (s, or an empty line, does the same)"""
        self.go(self.cursor + 1)

    def do_p(self, argument):
        """p              previous step"""
        self.go(self.cursor - 1)

    def do_c(self, argument):
        """c [WHERE]      on to the next breakpoint, or the end;  c back: to the start of the backward;  c COND: to a condition"""
        self.travel(argument, +1)

    def do_rc(self, argument):
        """rc [WHERE]     the same in reverse"""
        self.travel(argument, -1)

    def travel(self, argument, way):
        """Move on to where a condition holds."""
        steps = self.trace.steps
        if argument == "back":
            self.to_backward(way)
            return
        if not argument and not self.stops or argument == "end":
            end = len(steps) - 1 if way > 0 else 0
            self.go(end + way if self.cursor == end else end)
            return
        conditions = self.conditions(argument) if argument else list(self.stops.values())
        if not conditions:
            return
        k = self.first(conditions, way)
        if k is not None:
            hit = next(one for one in conditions if one.holds(steps[k]))
            self.go(k, None if len(conditions) == 1 and argument else f"stopped at {safe(hit.text)}: {safe(hit.meaning)}")
        elif not argument:
            self.go(len(steps) - 1 if way > 0 else 0, "no breakpoint on the way: this is the " + ("end" if way > 0 else "beginning"))
        else:
            self.say(f"No such step {'ahead' if way > 0 else 'before this'}: {safe(conditions[0].meaning)}. "
                     + (("rc" if way > 0 else "c") + f" {safe(argument)} looks the other way; g shows what there is."))

    def conditions(self, text):
        """The Condition that a text stands for, in a list; an empty one, and words, if it stands for none."""
        try:
            return [condition(text, self.trace)]
        except MinidlError as error:
            self.tell(error)
            return []

    def first(self, conditions, way):
        """Where the first of the next steps is for which a condition holds, or None."""
        steps = self.trace.steps
        k = self.cursor + way
        while 0 <= k < len(steps):
            if any(one.holds(steps[k]) for one in conditions):
                return k
            k += way
        return None

    def to_backward(self, way):
        """To the first backward step ahead; from inside a backward, to its start."""
        backs = [k for k, item in enumerate(self.trace.steps) if item.kind == "backward"]
        if not backs:
            self.say(NO_BACKWARD)
            return
        ahead = [k for k in backs if (k - self.cursor) * way > 0]
        inside = self.current.kind == "backward" or not ahead
        self.go(backs[0] if inside else ahead[0] if way > 0 else ahead[-1])

    def do_r(self, argument):
        """r              on, out of this module: to the first step that is not part of it"""
        path = self.current.path
        if not path:
            self.say("This step is directly in the outermost module. c goes on to the end.")
            return
        k = self.cursor
        while k < len(self.trace.steps) and self.trace.steps[k].path is not None and matches(self.trace.steps[k].path, path):
            k += 1
        self.go(k)

    def do_f(self, argument):
        """f              between an op's forward and the step back through it"""
        item = self.current
        if item.kind == "update":
            self.say("An optimiser's step has neither.")
        elif item.kind == "backward" and not item.forward.step:
            self.say("Its forward ran before the recording.")
        elif item.kind == "forward" and not item.backwards:
            self.say(f"No step went back through it: {measured(item)}")
        else:
            self.go((item.forward if item.kind == "backward" else item.backwards[-1]).step - 1)

    def do_j(self, argument):
        """j 12, j PATH   to step 12, or to the first op of a module: forward from a forward step, back from a step back"""
        if argument.isdecimal() and 1 <= int(argument) <= len(self.trace.steps):
            self.go(int(argument) - 1)
            return
        kinds = (self.current.kind, "forward", "backward")
        for kind in kinds:
            for k, item in enumerate(self.trace.steps):
                if argument and item.kind == kind and (item.path and matches(item.path, argument) or item.label == argument):
                    self.go(k)
                    return
        near = nearest(argument, {item.path for item in self.trace.steps if item.path})
        self.say(f"j takes a step from 1 to {len(self.trace.steps)}, a module, or an op's number like op3; g shows which is which."
                 + (f" Did you mean {' or '.join(map(safe, near))}?" if near else ""))

    def do_u(self, argument):
        """u              to the op that made this one's input, towards the data (u 2: its second input)"""
        self.neighbour([x.made_by for x in self.current.forward.inputs if hasattr(x, "made_by") and x.made_by is not None]
                       if self.current.kind != "update" else [], argument, "No recorded op made its inputs: they were given.")

    def do_d(self, argument):
        """d              to the op that reads this one's output, towards the loss (d 2: its second reader)"""
        self.neighbour(list(self.current.forward.users), argument, "No recorded op reads its output.")

    def neighbour(self, forwards, argument, nobody):
        """Move to one of these ops: forward, or to the step back through it if that is where we are."""
        forwards = [item for item in forwards if item.step]
        choice = int(argument) if argument.isdecimal() else 1
        if not 1 <= choice <= len(forwards):
            self.say(nobody if not forwards else f"There is only {', '.join(item.label for item in forwards)}.")
            return
        chosen = forwards[choice - 1]
        if self.current.kind == "backward" and chosen.backwards:
            chosen = chosen.backwards[-1]
        self.go(chosen.step - 1)

    # --- breakpoints ------------------------------------------------------------------------------------------
    def do_b(self, argument):
        """b [COND]       a breakpoint for c and rc: nan inf dead |g|>1e3 check-fail drift>1e-4, an op, a module, 2x64x*;  b: all"""
        if argument:
            for one in self.conditions(argument):
                number = max(self.stops, default=0) + 1
                self.stops[number] = one
                count = "" if any(word in argument for word in ("check", "drift")) else self.counted(one)
                self.say(f"breakpoint {number}: {safe(one.text)}, {safe(one.meaning)}{count}")
            return
        for number, one in self.stops.items():
            self.say(f"breakpoint {number}: {safe(one.text)}, {safe(one.meaning)}{self.counted(one)}")
        if not self.stops:
            self.say("There is no breakpoint. b nan sets one; h lists the conditions.")

    def counted(self, one):
        """How many steps a condition holds for."""
        count = sum(bool(one.holds(item)) for item in self.trace.steps)
        return f" ({count} step{'' if count == 1 else 's'})"

    def do_cl(self, argument):
        """cl [N]         clear breakpoint N, or all"""
        if argument and (not argument.isdecimal() or int(argument) not in self.stops):
            self.say(f"There is no breakpoint {safe(argument)}. b lists them.")
            return
        gone = [int(argument)] if argument else list(self.stops)
        for number in gone:
            del self.stops[number]
        self.say(f"Cleared {len(gone)} breakpoint{'' if len(gone) == 1 else 's'}.")

    def go(self, cursor, why=None):
        """Move the cursor and show the step there."""
        if cursor < 0:
            self.say("This is the first step.")
        elif cursor >= len(self.trace.steps):
            self.say("This is the last step. p goes back, q quits.")
        else:
            self.cursor = cursor
            if why:
                self.say(why)
            self.show()

    def show(self):
        """Draw the step under the cursor."""
        self.paper.draw(screen.step_screen(self.trace, self.current, self.paper.width))

    def complete_c(self, text, *_):
        """Ops, modules and conditions that begin like this."""
        known = {"back", "nan", "inf", "dead", "saturated", "exploding", "vanishing", *(item.op.name for item in self.trace.steps),
                 *(item.path for item in self.trace.steps if item.path)}
        return sorted(name for name in known if name.startswith(text))

    complete_rc = complete_b = complete_j = complete_c

    # --- the prompt itself ------------------------------------------------------------------------------------
    def do_h(self, argument):
        """h [VERB]       this help"""
        argument = ALIASES.get(argument, argument)
        if argument and argument not in VERBS:
            self.default(argument)
            return
        verbs = [argument] if argument else VERBS
        for verb in verbs:
            key, _, text = getattr(self, f"do_{verb}").__doc__.partition("  ")
            lines = textwrap.wrap(" ".join(text.split()), self.paper.width - 18)
            self.paper.draw([[(f"  {key if k == 0 else '':<16}", "bold"), (line, "")] for k, line in enumerate(lines)])

    do_help = do_h
    do_s = do_n

    def do_q(self, argument):
        """q              quit"""
        return True

    def do_EOF(self, argument):  # noqa: N802 - cmd's name for the end of input
        """The end of the input."""
        self.paper.draw([[]])
        return True

    def parseline(self, line):
        """Every verb is a word: `x -y` and `w grad_w[0]` are split at the first blank, and a bare number goes to j."""
        word, _, rest = line.strip().partition(" ")
        if word == "EOF" or not word:
            return super().parseline(line)
        return ALIASES.get(word, word), rest.strip(), line

    def emptyline(self):
        """An empty line moves on."""
        return self.do_n("")

    def default(self, line):
        """A verb that does not exist."""
        self.say(f"There is no verb '{shorten(safe(line.split()[0]), 20)}'. Verbs: {' '.join(VERBS)}. h explains them.")

    def say(self, text):
        """An answer in words."""
        self.paper.draw([[("  " + line, "")] for line in textwrap.wrap(text, self.paper.width - 2)])

    def tell(self, error):
        """An error, line by line."""
        for line in str(error).splitlines():
            self.say(safe(line.strip()))

    def start(self):
        """The title and the first step, then where that is and which keys move on."""
        self.paper.draw([[(line, "dim")] for line in self.title])
        self.paper.draw([[]])
        self.show()
        self.paper.draw([[]])
        item, trace = self.current, self.trace
        _, _, counts, turn = turn_of(trace, item)
        self.say(f"You are at step {item.step} of {len(trace.steps)}{f', in {turn}' if turn else ''}: {counts}.")
        if not trace.backwards and not trace.error:
            self.say(NO_BACKWARD)
        self.say(KEYS)

    def run_all(self, commands):
        """Run commands as if typed, each echoed after the prompt, until they end or one quits."""
        for line in commands:
            self.paper.draw([[(PROMPT + safe(line), "bold")]])
            if self.onecmd(line):
                return


def explore(trace, commands=None, title=(), cursor=0, first=()):
    """Show a trace: at a prompt on a terminal; elsewhere, or with commands ("c back; n; ck"), as a transcript that ends.

    `first`: commands that come before everything else.
    """
    paper = Paper()
    if not trace.steps:
        paper.draw([[("Nothing was recorded: no op of minidl ran.", "")]])
        return
    prompt = Prompt(trace, paper, [line for text in title for line in textwrap.wrap(safe(text), paper.width)])
    prompt.cursor = cursor
    prompt.start()
    prompt.run_all(first)
    if commands is not None:
        prompt.run_all(line.strip() for line in commands.split(";"))
    elif paper.is_terminal and sys.stdin.isatty():
        try:
            prompt.cmdloop()
        except KeyboardInterrupt:
            paper.draw([[]])
    else:
        paper.draw([[], [("  This is no terminal, so nobody can type: c back and n as an example, and the end (-c runs others).", "dim")]])
        prompt.run_all(["c back", "n"])
