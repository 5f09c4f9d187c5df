"""How a command prints: data to stdout, talk to stderr, errors as one message, and no text that could steer the terminal.

A stdout that is closed, full, or read by a program that has seen enough (`| head -1`) ends in words, not in a traceback.
"""

import contextlib
import os
import sys

import click

from minidl.core.show import safe


def visible(text):
    """Lines with everything that is not printable made visible: what a user's exception says may hold terminal escapes."""
    return "\n".join(safe(line) for line in str(text).split("\n"))


def say(text):
    """Data, on stdout."""
    if sys.stdout is None:
        raise click.ClickException("stdout is closed: there is nowhere to print the result.")
    try:
        click.echo(visible(text))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        nowhere()
    except OSError as error:
        nowhere()
        raise click.ClickException(f"stdout cannot be written to: {error.strerror or error}") from error


def talk(text):
    """A line for the person, on stderr; if nobody can hear it, that is no error."""
    with contextlib.suppress(OSError):
        click.echo(visible(text), err=True)


def usage(text):
    """The exception for a call that could not be understood: exit status 2."""
    return click.UsageError(visible(text))


def interrupted():
    """After Ctrl-C: the words and the exit status of every command."""
    talk("interrupted; no complete result")
    sys.exit(130)


def nowhere():
    """From now on stdout is thrown away, so that Python does not fail again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
