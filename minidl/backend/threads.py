"""The one thread pool: parallel_for(body, items) spreads work over the cores, and BLAS keeps to one thread meanwhile.

Why not leave the threads to BLAS? Because only products would use them: gathers, transforms and element-wise passes
take half of a step and are serial in NumPy. NumPy lets go of the interpreter's lock in all of them, so plain threads do.
And an idle BLAS worker spins for 0.1 s after each product, which halves whatever the pool does next.

What goes in several turns, such as a sum over everything and then its use, asks for one section with parallel_turns.
Work is cut by its shape, never by the number of threads, and partial sums are merged in the order of the items:
results are the same bits for any number of threads.
"""

import contextlib
import contextvars
import ctypes
import itertools
import math
import os
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
_kept = None                   # the thread that was told to stay on its core, and the cores that it may use
_pool = {}                     # "owner" -> the thread whose section has it; a section that comes meanwhile runs in its own thread
_here = threading.local()      # .inside: this thread is working for a section; .scratch: its own memory


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
    _run(iter(((body, items),)), len(items), False)


def parallel_turns(turns, most):
    """Work in turns, each on several threads (at most `most`): a generator says `yield body, items`, and is resumed when all of
    them are done. Returns what the generator returns.

    The thread that ends a turn's last item resumes the generator and goes straight on with the next turn: nobody has to be
    woken up in between, which takes longer than a pass over a small array.
    """
    return _run(turns, most, True)


def _run(turns, most, turns_follow):
    # Ctrl-C may strike between any two lines: what it leaves behind, this thread's next section puts right
    helpers = min(get_num_threads(), most) - 1
    if getattr(_here, "inside", False):
        return _one_by_one(turns)
    me, single = threading.get_ident(), single_blas_thread()
    try:
        single.__enter__()
        if helpers < 1 or _pool.setdefault("owner", me) != me:  # one call into C; who finds his own name was interrupted
            return _one_by_one(turns)
        return _Section(turns, turns_follow).run(helpers)
    finally:
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


def _nothing(_):
    pass


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
        self.rest = iter(items)           # shared: taking the next one is a single call into C, which the interpreter's lock makes safe
        self.finished = itertools.count(1)  # how many are done: the same
        self.over = threading.Lock()        # held until the last one is done
        self.over.acquire()


class _Section:
    """The turns of one call, and the threads that work on them.

    A helper that finds nothing more to do goes back to sleep, and is called again for the next turn: at the end of a section
    nobody has to be woken up. Only the thread that asked for the section waits.
    """

    def __init__(self, turns, turns_follow):
        self.turns, self.turns_follow = turns, turns_follow  # is there more than one turn?
        self.failure, self.result, self.helpers, self.calls, self.gone = None, None, (), [], SimpleQueue()
        self.turn = _Turn(_nothing, (None,))  # whoever does it begins the generator: others wake up meanwhile

    def run(self, helpers):
        """All turns, over this thread and `helpers` others. Comes back when nobody works on them any more, whatever happens, with
        what the generator returns.
        """
        try:
            self.begin(helpers)
        except BaseException as failure:  # Ctrl-C beside the items
            self.stop(failure)
        finally:
            _let_go()
        if self.failure is None:
            return self.result  # every item is done: a helper that has not woken up yet finds nothing
        while self.gone.qsize() < len(self.calls):  # counted, not taken: another Ctrl-C loses none
            try:
                time.sleep(1e-4)
            except KeyboardInterrupt as failure:
                self.failure = failure
        try:
            raise self.failure
        finally:
            self.failure = None  # the traceback leads here: no circle

    def begin(self, helpers):
        """Call the helpers and take part to the end."""
        while len(_workers) < helpers:
            tasks = SimpleQueue()
            worker = threading.Thread(target=_work, args=(tasks,), daemon=True, name=f"minidl-{len(_workers) + 1}")
            worker.start()
            _workers.append(tasks)
            _ids.append(worker.native_id)
        cores = _keep_workers_away()
        self.helpers = [(tasks, contextvars.copy_context()) for tasks in _workers[:helpers]]  # NumPy's errstate lives in the context
        self.call_helpers()
        if cores and self.turns_follow:
            _stay_here(*cores)
        self.take_part(True)

    def call_helpers(self):
        """Wake up all helpers but the one that runs this."""
        for tasks, context in self.helpers:
            if tasks is not _here.__dict__.get("tasks"):
                tasks.put((context, self))
                self.calls.append(tasks)  # after it: who is interrupted in between must not wait for a call that was not made

    def take_part(self, until_the_end=False):
        """Work on the turns until nothing is left to take up, or until there are no more turns."""
        turn = item = None
        _here.inside = True
        try:
            while (turn := self.turn) is not None:
                for item in turn.rest:
                    turn.body(item)
                    if next(turn.finished) == turn.count:
                        self.advance(turn)
                    if self.failure is not None:
                        return
                item = None
                if turn is self.turn:  # others are still at it
                    if not until_the_end:
                        return
                    turn.over.acquire()
        except BaseException as failure:  # also Ctrl-C: run() raises it again, after the others have stopped
            item = None
            self.stop(failure, turn)
        finally:
            _here.inside = False

    def stop(self, failure, turn=None):
        """Nothing more is taken up; whoever waits for a turn goes on."""
        if self.failure is None:
            self.failure = failure
        begun, self.turn = {turn, self.turn} - {None}, None
        for turn in begun:
            with contextlib.suppress(RuntimeError):  # not held: Ctrl-C came after the turn's last item
                turn.over.release()

    def advance(self, turn):
        """The turn's last item is done: begin the next one."""
        self.turn = self.next_turn()
        turn.body = None  # a thread that still sleeps keeps nothing alive
        turn.over.release()
        if self.turn is not None:
            self.call_helpers()

    def next_turn(self):
        """The next turn that has items, or None."""
        while True:
            try:
                body, items = next(self.turns)
            except StopIteration as end:
                self.result = end.value
                return None
            if len(items):
                return _Turn(body, items)


def _keep_workers_away():
    """Bar the workers from the core that this thread runs on, where every core has a thread to run: then returns (the cores of
    this process, the one of this thread), else None.

    After a pause Linux here (a virtual machine) wakes a thread on the core of who wakes it though another is idle, and they
    share it for milliseconds: a product of 0.53 ms took 0.95.
    """
    global _away
    if _current_core is None:
        return None
    _let_go()  # whom Ctrl-C kept from it
    try:
        cores = os.sched_getaffinity(0)
        if len(_ids) < len(cores) - 1 or len(cores) == 1:
            return None  # cores to spare
        here = _current_core()
        away = cores - {here}, len(_ids)
        if away != _away:
            for number in _ids:
                os.sched_setaffinity(number, away[0])
            _away = away
        return cores, here
    except OSError:  # forbidden here, or a thread that has gone: the system places them as it likes
        return None


def _stay_here(cores, here):
    """Keep this thread on its core: between turns it sleeps, and must not wake up on the core of the worker that wakes it."""
    global _kept
    _kept = threading.get_native_id(), cores
    os.sched_setaffinity(0, {here})


def _let_go():
    """Let the thread that was kept on its core go where it likes."""
    global _kept
    if _kept is not None:
        with contextlib.suppress(OSError):  # it has gone
            os.sched_setaffinity(*_kept)
        _kept = None


def _core_of_this_thread():
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


_current_core = _core_of_this_thread()


def _work(tasks):
    _here.tasks = tasks
    while True:
        context, section = tasks.get()
        try:
            context.run(section.take_part)
        finally:
            section.gone.put(None)
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
    global _pool, _here, _single, _away, _kept
    _workers.clear()
    _ids.clear()
    _away = _kept = None
    _pool, _here, _single = {}, threading.local(), _SingleBlasThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
