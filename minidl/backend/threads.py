"""The one thread pool: parallel_for(body, items) spreads work over the cores, and BLAS keeps to one thread meanwhile.

Why not leave the threads to BLAS? Because only products would use them: gathers, transforms and element-wise passes
take half of a step and are serial in NumPy. NumPy lets go of the interpreter's lock in all of them, so plain threads do.
And an idle BLAS worker spins for 0.1 s after each product, which halves whatever the pool does next.

What goes in several turns, such as a sum over everything and then its use, asks for one section with parallel_turns.
Work is cut by its shape, never by the number of threads, and partial sums are merged in the order of the items:
results are the same bits for any number of threads.
"""

import contextvars
import ctypes
import itertools
import math
import os
import sys
import threading
import time
from queue import SimpleQueue

import numpy as np

from minidl.backend import blas, memory
from minidl.core.errors import ArgumentError, explained

BIG = 1 << 16  # elements: below this a pass over an array is over sooner than a second thread has woken up (35 µs on a virtual machine)


def available_cores():
    """How many cores this process may use: its affinity, and its container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such container
        return cores


def _from_environment():
    text = os.environ.get("MINIDL_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) else None


_wanted = _from_environment()  # None: not decided yet; asked for at the first use
_workers = []                  # a queue per worker thread
_ids = []                      # and the system's number of that thread
_away = None                   # the cores that the workers were last told to use
_pool = {}                     # "owner" -> the thread whose section has it; a section that comes meanwhile runs in its own thread
_here = threading.local()      # .inside: this thread is working for a section; .scratch: its own memory
_idle = np.broadcast_to(np.ones(4096, np.float32), (16, 4096))  # adding this up takes 12 µs, without the interpreter and without memory


def get_num_threads():
    """How many threads work on one op (PyTorch's name)."""
    global _wanted
    if _wanted is None:
        _wanted = available_cores()
    return _wanted


def set_num_threads(n):
    """Let n threads work on one op (PyTorch's name). The default: every core this process may use, or MINIDL_NUM_THREADS."""
    global _wanted
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise explained(ArgumentError, "set_num_threads", "n must be a whole number from 1 on.", [f"n = {n!r}"],
                        f"This process may use {available_cores()} cores.")
    _wanted = n


def parallel_for(body, items):
    """Call body(item) for every item, on several threads; an item is taken up as soon as a thread is free.

    Inside a section, and while another thread's section has the pool, the items run one after another right here.
    """
    items = items if isinstance(items, (list, tuple, range)) else list(items)
    _run(iter(((body, items),)), len(items), 1)


def parallel_turns(turns, most):
    """Work in turns, each on several threads (at most `most`): a generator says `yield body, items`, and is resumed when all of
    them are done. Returns what the generator returns.

    The calling thread resumes the generator, and has called the others before: waking up takes as long as what it computes there.
    """
    return _run(turns, most, 2)


def _run(turns, most, likely):
    # Ctrl-C may strike between any two lines: what it leaves behind, this thread's next section puts right
    helpers = min(get_num_threads(), most) - 1
    if getattr(_here, "inside", False):
        return _one_by_one(turns)
    me, single = threading.get_ident(), single_blas_thread()
    try:
        single.__enter__()
        owner = helpers > 0 and _pool.setdefault("owner", me) == me  # one call into C; who finds his own name was interrupted
        _here.inside = True  # also on its own: a section inside this one would give BLAS its threads back
        return _Section(turns, likely).run(helpers) if owner else _one_by_one(turns)
    finally:
        _here.inside = False  # first: nothing looks for signals between a failure and this line
        if _pool.get("owner") == me:
            _pool.clear()
        single.__exit__()


def parallel_map(body, items):
    """[body(item) for item in items], on several threads, in the order of the items."""
    items = list(items)
    results = [None] * len(items)

    def place(k):
        results[k] = body(items[k])

    parallel_for(place, range(len(items)))
    return results


def spans(n, most, align=1):
    """0 ... n cut into slices of about equal length, `most` at the most, whole multiples of align: a cut by shape alone."""
    if n <= 0:
        return []
    count = -(-n // max(most, 1))
    bounds = [min(n, -(-(n * k // count) // align) * align) for k in range(count)] + [n]
    return [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]


def scratch(name, shape, dtype=np.float32):
    """Memory of this thread to work in, uninitialised, the same again at every call with this name."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    owned = _here.__dict__.setdefault("scratch", {})
    buffer = owned.get(name)
    if buffer is None or buffer.size < size:
        owned[name] = None  # let go of the old one first
        buffer = owned[name] = np.empty(size, np.uint8)
    return buffer[:size].view(dtype).reshape(shape)


def _one_by_one(turns):
    while True:
        try:
            body, items = next(turns)
        except StopIteration as end:
            return end.value
        for item in items:
            body(item)


class _Turn:
    """Items that may be worked on at the same time."""

    __slots__ = ("body", "rest", "count", "finished", "over")

    def __init__(self, body, items):
        self.body, self.count = body, len(items)
        self.rest = iter(items)             # shared: taking the next one is a single call into C, which the interpreter's lock makes safe
        self.finished = itertools.count(1)  # how many are done: the same
        self.over = not len(items)


class _Section:
    """The turns of one call, and the threads that work on them.

    The thread that asked for the section leads: it begins every turn, takes part, and waits for the last items of the others
    without going to sleep. A helper that finds nothing to do goes to sleep, and is called again for the next turn.
    """

    def __init__(self, turns, likely):
        self.turns, self.likely = turns, likely  # how many turns there are, most of the time
        self.turn = self.failure = None
        self.helpers, self.called, self.awake = (), set(), set()

    def run(self, helpers):
        """All turns, over this thread and `helpers` others. Comes back when nobody works on them any more, whatever happens, with
        what the generator returns.
        """
        try:
            self.gather(helpers)
            return self.lead()
        except BaseException as failure:  # also Ctrl-C, and another one at the next call: so there is none
            if self.failure is None:
                self.failure = failure
        finally:
            self.turn = self.turns = None  # a helper that still sleeps keeps nothing alive
        while self.awake:  # a helper may still be in the middle of an item
            try:
                while self.awake:
                    time.sleep(1e-4)
            except KeyboardInterrupt as failure:
                self.failure = failure
        try:
            raise self.failure
        finally:
            self.failure = None  # the traceback leads here: no circle

    def gather(self, helpers):
        """Find the helpers, and make those that are not there yet."""
        while len(_workers) < helpers and not sys.is_finalizing():  # when Python ends, a new thread would never begin
            tasks = SimpleQueue()
            worker = threading.Thread(target=_work, args=(tasks,), daemon=True, name=f"minidl-{len(_workers) + 1}")
            worker.start()
            _workers.append(tasks)
            _ids.append(worker.native_id)
        _keep_workers_away()
        self.helpers = [(tasks, contextvars.copy_context()) for tasks in _workers[:helpers]]  # NumPy's errstate lives in the context

    def lead(self):
        """Begin every turn, and see it to its end; returns what the generator returns."""
        for number in itertools.count():
            if number < self.likely:
                self.call_helpers()  # ahead: they wake up while the turn is being made
            try:
                body, items = next(self.turns)
            except StopIteration as end:
                return end.value
            turn = self.turn = _Turn(body, items)
            self.call_helpers()
            self.take_part(turn)
            self.wait_for(turn)
            turn.body = None

    def call_helpers(self):
        """Wake up the helpers that sleep."""
        for helper in self.helpers:
            if helper[0] not in self.awake and helper[0] not in self.called:
                self.called.add(helper[0])
                helper[0].put((helper[1], self))

    def help(self, tasks):
        """What a helper does when it is called: take part until nothing is left to take up."""
        while True:
            self.awake.add(tasks)  # before it looks: who stops the section either sees it here, or it sees that there is no turn
            self.called.discard(tasks)
            turn = self.turn
            try:
                if turn is not None:
                    self.take_part(turn)
            except BaseException as failure:
                self.stop(failure)
            self.awake.discard(tasks)
            if self.turn is turn:  # after it: who begins a turn either finds it asleep, or it finds the turn
                return

    def take_part(self, turn):
        """Work on the turn until nothing is left to take up."""
        for item in turn.rest:
            turn.body(item)
            if next(turn.finished) == turn.count:
                turn.over = True
            if self.failure is not None:
                return

    def wait_for(self, turn):
        """Until the others have done their items: awake for about a millisecond, because waking up again would take 35 µs."""
        for _ in range(100):
            if turn.over or self.failure is not None:
                break
            np.add.reduce(_idle, None)
        while not turn.over and self.failure is None:
            time.sleep(1e-4)
        if self.failure is not None:
            raise self.failure

    def stop(self, failure):
        """Nothing more is taken up."""
        if self.failure is None:
            self.failure = failure
        self.turn = None


def _keep_workers_away():
    """Bar the workers from the core that this thread runs on, where every core has a thread to run.

    After a pause Linux here (a virtual machine) wakes a thread on the core of who wakes it though another is idle, and they
    share it for milliseconds: a product of 0.53 ms took 0.95.
    """
    global _away
    if _current_core is None:
        return
    try:
        cores = os.sched_getaffinity(0)
        if len(_ids) < len(cores) - 1 or len(cores) == 1:
            return  # cores to spare
        here = _current_core()
        away = cores - {here}, len(_ids)
        if away != _away:
            for number in _ids:
                os.sched_setaffinity(number, away[0])
            _away = away
    except OSError:  # forbidden here, or a thread that has gone: the system places them as it likes
        pass


def _core_of_this_thread():
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_current_core = _core_of_this_thread()


def _work(tasks):
    _here.inside = True
    while True:
        context, section = tasks.get()
        context.run(section.help, tasks)
        del context, section  # keep nothing alive while waiting


class _SingleBlasThread:
    """BLAS on one thread while anybody is inside, as many as before when the last one leaves.

    Entering twice counts once, so that a thread that Ctrl-C threw out on its way in or out is not waited for in vain; what is
    to be given back is remembered until it has been.
    """

    def __init__(self):
        self.lock, self.users, self.libraries, self.before = threading.Lock(), set(), None, []

    def __enter__(self):
        if getattr(_here, "inside", False):
            return  # the section has seen to it
        with self.lock:
            self.users.add(threading.get_ident())
            if len(self.users) == 1:
                if self.libraries is None:
                    self.libraries = blas.libraries()
                    memory.keep()  # also something to do once, before the first large piece of work
                self.before = self.before or [get() for get, _ in self.libraries]
                for (_, set_), threads in zip(self.libraries, self.before, strict=True):
                    if threads != 1:
                        set_(1)

    def __exit__(self, *_):
        if getattr(_here, "inside", False):
            return
        with self.lock:
            self.users.discard(threading.get_ident())
            if not self.users:
                for (_, set_), threads in zip(self.libraries or (), self.before, strict=False):  # nothing if nothing was taken
                    if threads != 1:
                        set_(threads)
                self.before = []


_single = _SingleBlasThread()


def single_blas_thread():
    """`with single_blas_thread():` BLAS uses the calling thread only."""
    return _single


def _forget_after_fork():
    """A forked child has none of its parent's threads."""
    global _pool, _here, _single, _away
    _workers.clear()
    _ids.clear()
    _away = None
    _pool, _here, _single = {}, threading.local(), _SingleBlasThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
