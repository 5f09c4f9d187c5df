"""Does check mode see exactly the races there are? Random programs of reads, writes, barriers and warp barriers with random
masks run in check mode, and the verdict is held against "happens before" worked out from its definition, pair by pair.
"""

from pathlib import Path

import numpy as np
import pytest

from minidl.backend.cuda.on_cpu import KernelError, RawModule, why_no_compiler

pytestmark = pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())

READ, WRITE, SYNCTHREADS, SYNCWARP, SHUFFLE = range(5)
PLACES = 6
ORDERS = ("forward", "reverse", "random")
PROGRAM = RawModule(path=Path(__file__).parent / "bugs" / "program.cu", mode="check")


def random_program(rng, threads, length, masks):
    """(S, 2 + threads) as program.cu reads it. Few accesses a step, so that many programs are sound."""
    steps = np.full((length, 2 + threads), -1, np.int64)
    actors = rng.permutation(threads)[:6]  # few, so that they meet again
    for step in steps:
        step[0] = rng.choice(5, p=[0.35, 0.2, 0.15, 0.25, 0.05])
        if step[0] in (READ, WRITE):
            crowd = step[0] == READ and rng.random() < 0.4  # several threads look at one place: a writer must wait for all of them
            who = rng.permutation(actors)[:rng.integers(2, 6) if crowd else rng.integers(1, 4)]
            step[2 + who] = rng.integers(PLACES) if crowd else rng.permutation(PLACES)[:len(who)]
        elif step[0] == SYNCWARP:
            for warp in range(0, threads, 32):
                group = rng.integers(masks, size=min(32, threads - warp))  # lanes of one group wait for each other
                for lane, g in enumerate(group):
                    step[2 + warp + lane] = sum(1 << m for m in range(len(group)) if group[m] == g)
    first = np.full((2, 2 + threads), -1, np.int64)  # nearly everything is written first, and a barrier follows
    first[0, 0], first[1, 0] = WRITE, SYNCTHREADS
    first[0, 2:2 + min(PLACES, threads)] = np.arange(min(PLACES, threads))
    if rng.random() < 0.2:
        first[0, 2 + rng.integers(min(PLACES, threads))] = -1
    return np.concatenate([first, steps])


def truth(steps):
    """{"race", "uninitialised"}: what the program does wrong, by vector clocks of one entry per thread, nothing left out."""
    threads = steps.shape[1] - 2
    knows = np.zeros((threads, threads), int)  # knows[a, b]: how many of b's accesses are over, as far as a can be sure
    done = np.zeros(threads, int)
    accesses, wrong = [], set()                # (thread, its number, place, wrote it?)
    for step in steps:
        if step[0] in (READ, WRITE):
            for t in np.flatnonzero(step[2:] >= 0):
                place, wrote = step[2 + t], step[0] == WRITE
                before = [a for a in accesses if a[2] == place]
                if any((wrote or w) and who != t and number >= knows[t, who] for who, number, _, w in before):
                    wrong.add("race")
                if not wrote and not any(w for _, _, _, w in before):
                    wrong.add("uninitialised")
                accesses.append((t, done[t], place, wrote))
                done[t] += 1
        elif step[0] == SYNCTHREADS:
            knows[:] = done
        elif step[0] == SYNCWARP:
            after = knows.copy()
            for t in range(threads):
                group = [t // 32 * 32 + m for m in range(32) if step[2 + t] >> m & 1]
                after[t] = knows[group].max(0)
                after[t, group] = done[group]
            knows = after
    return wrong


def verdict(steps, order, seed=7):
    """What check mode says: the kind, or "" for nothing."""
    threads = steps.shape[1] - 2
    program = np.where(steps[:, :1] == SYNCWARP, steps & 0xffffffff, steps).astype(np.uint32).view(np.int32)
    try:
        kernel = PROGRAM.get_function("program")
        kernel((1,), (threads,), (program, np.int32(len(steps)), np.zeros(threads, np.int32)), order=order, seed=seed)
    except KernelError as error:
        return error.kind
    return ""


@pytest.mark.parametrize("threads, masks", [(32, 1), (64, 1), (48, 2), (32, 3), (96, 2)])
def test_the_verdict_is_the_truth(threads, masks):
    rng = np.random.default_rng([threads, masks])
    seen = {"": 0, "race": 0, "uninitialised": 0}
    missed, false_alarms = [], []
    for number in range(200):
        steps = random_program(rng, threads, int(rng.integers(3, 14)), masks)
        wrong = truth(steps)
        said = verdict(steps, ORDERS[number % 3])
        seen[said] += 1
        if said and said not in wrong:
            false_alarms.append((number, said))
        if not said and wrong:
            missed.append((number, wrong))
    assert not false_alarms and not missed, (false_alarms, missed)
    assert min(seen[""], seen["race"]) >= 20, seen  # both happen often enough to mean something


@pytest.mark.parametrize("writer", [0, 40])
def test_two_warps_read_and_one_of_them_writes(writer):
    steps = np.full((5, 2 + 64), -1, np.int64)
    steps[:, 0] = WRITE, SYNCTHREADS, READ, SHUFFLE, WRITE  # at the shuffle the warps may change places
    steps[0, 2:2 + PLACES] = np.arange(PLACES)
    steps[2, [2, 42]] = 3
    steps[4, 2 + writer] = 3
    assert truth(steps) == {"race"}
    assert {verdict(steps, order, seed) for order in ORDERS for seed in range(20)} == {"race"}
    steps[2, 2 + 40 - writer] = -1  # without the other reader it is sound
    assert not truth(steps) and {verdict(steps, order) for order in ORDERS} == {""}
