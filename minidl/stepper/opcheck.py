"""ck: the finite-difference check of one recorded op, on its real inputs."""

from minidl.stepper.screen import labelled
from minidl.stepper.text import fit


def check_lines(forward, width):
    """The verdict on each gradient of an op."""
    return [fit(labelled("check", "..."), width)]
