"""The thread pool: every item once, results independent of the number of threads, failures and forks survived, BLAS left as it was."""

import linecache
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import threadpoolctl

import minidl
from minidl.backend import threads
from minidl.backend.threads import parallel_for, parallel_map, parallel_turns, scratch, spans


@pytest.fixture(autouse=True)
def three_threads():
    before = minidl.get_num_threads()
    minidl.set_num_threads(3)
    yield
    minidl.set_num_threads(before)


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def test_every_item_once():
    seen = []
    parallel_for(seen.append, range(1000))
    assert sorted(seen) == list(range(1000))


def test_more_than_one_thread_works():
    meeting = threading.Barrier(3, timeout=10)
    parallel_for(lambda _: meeting.wait(), range(3))  # passes only if three threads are in it at once


def test_map_keeps_the_order():
    assert parallel_map(lambda k: k * k, range(50)) == [k * k for k in range(50)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_turn_begins_when_the_one_before_is_over(count):
    minidl.set_num_threads(count)
    done = []

    def turns(sizes):
        for turn, size in enumerate(sizes):
            assert len(done) == sum(sizes[:turn])  # every item of the turns before
            yield lambda item, turn=turn: (time.sleep(1e-4 * (item % 3)), done.append((turn, item))), range(size)
        assert len(done) == sum(sizes)
        return f"after {sizes}"

    for sizes in ([7, 1, 0, 20, 3], [0], [], [1], [2, 2]):
        done.clear()
        assert parallel_turns(turns(sizes), 20) == f"after {sizes}"
        assert [turn for turn, _ in done] == [turn for turn, size in enumerate(sizes) for _ in range(size)]
        assert sorted(done) == [(turn, item) for turn, size in enumerate(sizes) for item in range(size)]


def test_helpers_come_back_for_the_next_turn():
    meeting = threading.Barrier(3, timeout=10)

    def wait(_):
        meeting.wait()

    for _ in range(5):  # the helpers sleep during the turn of one item
        parallel_turns(iter([(wait, range(3)), (lambda _: time.sleep(0.01), range(1)), (wait, range(6)), (wait, range(3))]), 6)


@pytest.mark.parametrize("failing", ["first item", "last item", "generator", "generator at once"])
def test_failure_ends_the_turns(failing):
    def body(item):
        time.sleep(1e-3)
        if item == {"first item": 0, "last item": 9}.get(failing):
            raise ValueError(failing)

    def turns():
        if failing == "generator at once":
            raise ValueError(failing)
        yield body, range(10)
        if failing == "generator":
            raise ValueError(failing)
        raise AssertionError("a turn after one that failed")

    for _ in range(10):
        with pytest.raises(ValueError, match=failing):
            parallel_turns(turns(), 10)
    assert parallel_map(lambda k: k, range(10)) == list(range(10))


def test_ctrl_c_ends_the_turns():
    def body(item):
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        time.sleep(1e-3)

    with pytest.raises(KeyboardInterrupt):
        parallel_turns(iter([(body, range(1000)), (body, range(1000))]), 1000)
    assert parallel_map(lambda k: k, range(10)) == list(range(10))


def test_a_turn_that_is_over_keeps_nothing_alive():
    """A helper that has not woken up yet still holds it, and a leaf takes a gradient without a copy only if nobody else has it."""
    seen = []
    section = threads._Section(iter([(lambda _: seen.append(section.turn), range(1))] * 2), 2)
    section.run(1)
    assert [turn.body for turn in seen] == [None, None] and section.turn is None


def test_ctrl_c_again_while_the_first_is_dealt_with_waits_for_the_helpers():
    done, meeting = [], threading.Barrier(3, timeout=10)

    def strike(frame, event, _):  # at the first call of a function of this module, where Python looks for signals
        if frame.f_code.co_filename == threads.__file__:
            raise KeyboardInterrupt

    def body(_):
        meeting.wait()
        if threading.current_thread() is threading.main_thread():
            sys.settrace(strike)
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(1)

    try:
        with pytest.raises(KeyboardInterrupt):
            parallel_for(body, range(3))
        assert len(done) == 2
    finally:
        sys.settrace(None)
    assert parallel_map(lambda k: k, range(10)) == list(range(10))


def test_a_failure_keeps_nothing_alive():
    """A helper that has not woken up yet knows the section, but no longer what was to be done."""
    array = np.zeros(3)
    seen = weakref.ref(array)
    section = threads._Section(iter([(lambda _, array=array: 1 // 0, range(1))] * 2), 2)
    del array
    with pytest.raises(ZeroDivisionError):
        section.run(0)
    assert seen() is None


def test_failure_stops_the_section_and_is_raised():
    running, meeting = [], threading.Barrier(3, timeout=10)

    def body(k):
        here = threading.current_thread() is threading.main_thread()
        if k < 3:
            meeting.wait()
        elif here:  # while the others are in the middle of theirs
            raise ValueError("item 3 or so")
        if not here:
            time.sleep(0.005)
        running.append(k)

    with pytest.raises(ValueError, match="item 3"):
        parallel_for(body, range(100_000))
    assert len(running) < 1000
    count = len(running)
    time.sleep(0.02)
    assert len(running) == count  # nobody works on behind our back
    assert parallel_map(lambda k: k, range(10)) == list(range(10))  # and the pool is as good as before


def test_sections_inside_sections_and_beside_each_other():
    assert parallel_map(lambda k: sum(parallel_map(lambda j: j, range(k))), range(20)) == [k * (k - 1) // 2 for k in range(20)]
    found = {}
    users = [threading.Thread(target=lambda n=n: found.__setitem__(n, parallel_map(lambda k: k + n, range(200)))) for n in range(5)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert found == {n: list(range(n, n + 200)) for n in range(5)}


def test_blas_keeps_to_one_thread_inside_and_gets_back_what_it_had():
    before = blas_threads()
    inside = parallel_map(lambda _: blas_threads(), range(4))
    assert all(set(counts) == {1} for counts in inside)
    assert blas_threads() == before
    with pytest.raises(ZeroDivisionError):
        parallel_for(lambda _: 1 // 0, range(4))
    assert blas_threads() == before


@pytest.mark.parametrize(("count", "items", "busy"), [(1, 3, False), (3, 1, False), (3, 3, True)])
def test_a_section_inside_one_that_runs_on_its_own_leaves_blas_alone(count, items, busy):
    """Sums came with other bits on one thread: what was left of the section ran with all of BLAS's threads."""
    if max(blas_threads()) == 1:
        pytest.skip("BLAS has one thread anyway on this machine")
    minidl.set_num_threads(count)
    before, seen, begun, over = blas_threads(), [], threading.Event(), threading.Event()

    def body(_):
        parallel_for(lambda _: None, range(3))
        if busy:  # the other's section may end before this one
            over.set()
            other.join()
        seen.append(set(blas_threads()))

    other = threading.Thread(target=parallel_for, args=(lambda _: begun.set() or over.wait(10), range(2)))
    if busy:
        other.start()
        begun.wait(10)
    parallel_for(body, range(items))
    assert seen == [{1}] * items and blas_threads() == before


def test_python_ends_while_something_still_wants_more_threads():
    code = """
from minidl.backend.threads import parallel_for, set_num_threads
class Late:
    def __del__(self):
        parallel_for(print, range(5))
set_num_threads(6)
parallel_for(id, range(2))  # one helper
late = Late()
"""
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert end.stdout.split() == list("01234") and not end.stderr


def test_a_second_thread_keeps_blas_to_one_thread_too():
    parallel_map(lambda _: None, range(4))  # this thread was the first
    if max(blas_threads()) == 1:
        pytest.skip("BLAS has one thread anyway on this machine")
    inside = []
    thread = threading.Thread(target=lambda: inside.append(parallel_map(lambda _: blas_threads(), range(4))))
    thread.start()
    thread.join()
    assert all(set(counts) == {1} for counts in inside[0])


def test_ctrl_c_at_any_line_leaves_the_pool_and_blas_as_they_were():
    """Raised by a tracer at one line of threads.py after the other; the next section puts right what was left behind."""
    before, cores, struck = blas_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None, 0

    def strike(frame, event, _):
        nonlocal countdown
        if frame.f_code.co_filename == threads.__file__ and event == "line":
            if linecache.getline(threads.__file__, frame.f_lineno).strip().startswith("with "):
                return strike  # a lock is taken and given back between two looks for signals
            countdown -= 1
            if countdown == 0:
                raise KeyboardInterrupt
        return strike

    for line in range(1, 200):
        countdown = line
        sys.settrace(strike)
        try:
            parallel_turns(iter([(lambda _: None, range(3)), (lambda _: None, range(3))]), 3)
        except KeyboardInterrupt:
            struck += 1
        finally:
            sys.settrace(None)
            threads._here.inside = False  # no signal comes between the end of a section and this line
        meeting = threading.Barrier(3, timeout=10)
        parallel_for(lambda _, meeting=meeting: meeting.wait(), range(3))  # the pool is there
        assert blas_threads() == before and not threads._single.users, line
        assert cores is None or os.sched_getaffinity(0) == cores, line
    assert struck > 50


def test_errstate_goes_along():
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel_for(lambda _: np.ones(3) / np.zeros(3), range(6))


def test_scratch_belongs_to_its_thread_and_is_used_again():
    assert scratch("test", (3, 4)).base is scratch("test", (2, 2)).base
    meeting = threading.Barrier(3, timeout=10)

    def body(_):
        meeting.wait()
        return id(scratch("test", (8,)).base)

    assert len(set(parallel_map(body, range(3)))) == 3


@pytest.mark.parametrize(("n", "most", "align"), [(10, 3, 1), (1, 5, 1), (0, 3, 1), (100, 40, 16), (7, 100, 4), (33, 32, 8)])
def test_spans_cover_everything_once(n, most, align):
    cut = spans(n, most, align)
    assert [k for s in cut for k in range(s.start, s.stop)] == list(range(n))
    assert all(s.start % align == 0 for s in cut)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "2"])
def test_set_num_threads_refuses(wrong):
    with pytest.raises(minidl.MinidlError, match="n must be a whole number"):
        minidl.set_num_threads(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of any fork() beside threads
def test_a_forked_child_makes_its_own_threads():
    parallel_for(lambda _: None, range(4))
    child = os.fork()
    if not child:
        right = parallel_map(lambda k: k, range(100)) == list(range(100))
        os._exit(0 if right and threads.get_num_threads() == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores on Linux")
def test_workers_keep_off_the_core_of_their_caller(monkeypatch):
    cores = os.sched_getaffinity(0)
    minidl.set_num_threads(len(cores))
    for core in (min(cores), max(cores)):
        monkeypatch.setattr(threads, "_current_core", lambda core=core: core)
        parallel_for(lambda k: None, range(2 * len(cores)))
        assert all(os.sched_getaffinity(number) == cores - {core} for number in threads._ids)
    assert os.sched_getaffinity(0) == cores  # the caller itself stays free


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_while_another_thread_draws_can_draw():
    """A stream's lock in the hands of a thread that the child does not have would stop it for good."""
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            minidl.rand(200_000)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if not child:
                signal.alarm(20)  # ends a child that hangs
                minidl.rand(3)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
