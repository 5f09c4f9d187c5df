"""Exercises: a report of minidl.check about a planted bug, without its name and without the guess. Which one is it?"""

import inspect
import random

from minidl.planted.plant import CATALOGUE, bug

CHOICES = 4


class Exercise:
    """One planted bug, what the check found, and the answers to choose from."""

    def __init__(self, entry, found, choices):
        self.bug, self.found, self.choices = entry, found, choices

    @property
    def right(self):
        """The number of the right answer, from 1."""
        return self.choices.index(self.bug) + 1

    @property
    def question(self):
        """What was called, what the check said, and the choices."""
        report = [line for line in str(self.found.report).splitlines() if not line.strip().startswith("guess:")]
        listed = [f"    {k}. {entry.op}: {entry.what}" for k, entry in enumerate(self.choices, 1)]
        return "\n".join([f"One op of minidl has a wrong gradient. It was called with ({self.found.example}).", "", *report, "",
                          "Which op, and what is wrong?", *listed])

    @property
    def answer(self):
        """The bug, why people write it, what the check guessed, and its source."""
        return "\n".join([f"{self.right}. {self.bug.name}, in {self.bug.op}: {self.bug.what}", f"   {self.bug.why}",
                          f"   The check says: {self.found.text}", "", source(self.bug)])


def source(entry):
    """The wrong backward itself, without its decorator and docstring."""
    lines, inside = [], False
    for line in inspect.getsource(entry.wrong).splitlines():
        quotes = line.count('"""')
        if not (line.startswith(("@", " " * 9 + "examples")) or inside or quotes):
            lines.append(f"    {line}")
        inside ^= quotes == 1
    return "\n".join(line.rstrip() for line in lines)


def exercises(count, seed):
    """`count` different exercises at random; the same ones for the same seed."""
    rng = random.Random(seed)
    chosen = list(CATALOGUE.values())
    rng.shuffle(chosen)
    for entry in chosen[:count]:
        with bug(entry):
            found = entry.finding(rng.randrange(1000)) or entry.finding()
        choices = [entry, *lookalikes(entry, rng)]
        rng.shuffle(choices)
        yield Exercise(entry, found, choices)


def lookalikes(entry, rng):
    """Wrong answers that are not ruled out at a glance: bugs of the same op, then of the same topic, then any."""
    others = [other for other in CATALOGUE.values() if other is not entry]
    rng.shuffle(others)
    others.sort(key=lambda other: (other.op != entry.op, other.wrong.__module__ != entry.wrong.__module__))
    return others[:CHOICES - 1]
