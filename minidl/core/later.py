"""Checks of values that live on a GPU: looked at when a value comes over to the CPU anyway, so that no check makes it wait.

Asking a GPU array whether all its labels are valid would stop the program until the GPU has caught up. require() asks at
once on the CPU; on a GPU it only remembers the question, and settle() asks all of them before item(), numpy() and
synchronize() answer.
"""

import collections

import numpy as np

from minidl.core.device import array_module, on_cpu
from minidl.core.site import call_site, resolve

PENDING = collections.deque()  # (a 0-d array on a GPU that should be true, what raises if it is not, the call site)
MOST = 256                     # so many wait; then they are asked


def require(holds, complain, depth=3):
    """complain() must raise; it is called unless `holds` is true: at once on the CPU, else when settle() looks."""
    if isinstance(holds, (bool, np.bool_)) or on_cpu(holds):
        if not holds:
            complain()
        return
    PENDING.append((holds, complain, call_site(depth)))
    if len(PENDING) >= MOST:
        settle()


def settle():
    """Ask every question that waits; the oldest that fails raises."""
    if not PENDING:
        return
    waiting = [PENDING.popleft() for _ in range(len(PENDING))]
    xp = array_module(waiting[0][0])
    answers = xp.asnumpy(xp.stack([holds for holds, _, _ in waiting]))  # one copy for all
    for answer, (_, complain, site) in zip(answers, waiting, strict=True):
        if not answer:
            try:
                complain()
            except Exception as error:
                error.add_note("Seen late, because the values are on a GPU: the call was at {}:{}.".format(*resolve(site)))
                raise


def forget():
    """Drop what waits, unasked."""
    PENDING.clear()
