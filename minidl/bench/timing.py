"""How times are taken: contenders interleaved in rounds, a pause before each, medians with their spread.

Interleaved, because a machine that slows down then slows all of them. A pause, because the idle worker of a BLAS library
spins for about 0.1 s after a product and takes a core from whatever runs next. After it some calls that do not count: a
thread that has slept needs tens of milliseconds to be quick again (PyTorch's at batch norm of 8×64×56×56: 11.9 ms a call
instead of 1.7), and in a training loop nobody sleeps. Medians, because interruptions only add.
"""

import contextlib
import gc
import statistics
import time

PAUSE = 0.12   # seconds before each timing: longer than an idle BLAS worker spins
WAKE = 0.05    # seconds of calls that do not count, after the pause
NOISY = 0.15   # of the median: a distance between the 20th and the 80th percentile above this makes a number doubtful


def quantile(values, share):
    """The value below which `share` of the sorted values lie, between two of them in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(seconds):
    """{"median", "p20", "p80", "n"} of a list of seconds."""
    return {"median": statistics.median(seconds), "p20": quantile(seconds, 0.2), "p80": quantile(seconds, 0.8), "n": len(seconds)}


def is_noisy(numbers):
    """Do the middle 60 % of the values spread over more than NOISY of the median?"""
    return numbers["n"] > 2 and numbers["p80"] - numbers["p20"] > NOISY * numbers["median"]


def timed(function, least=2e-3):
    """A contender that calls the function until `least` seconds are over and returns the seconds of one call.

    Calls shorter than the clock's jitter are repeated; how often is decided by the first call and stays.
    """
    repeats = None

    def run():
        nonlocal repeats
        if repeats is None:
            started = time.perf_counter()
            function()
            repeats = max(1, min(10_000, int(least / max(time.perf_counter() - started, 1e-9))))
        started = time.perf_counter()
        for _ in range(repeats):
            function()
        return (time.perf_counter() - started) / repeats

    return run


def wake(contender):
    """Call it, at least once, until WAKE seconds are over."""
    started = time.perf_counter()
    while True:
        contender()
        if time.perf_counter() - started > WAKE:
            return


class Rounds:
    """Interleaved rounds over contenders {name: function that returns a measurement}; iterate to run them.

        rounds = Rounds(contenders, count=9)
        for done, total in rounds: show(done, total)
        rounds.results                                        # {name: [measurement, ...]}

    Ctrl-C ends the iteration; what was measured stays, and `interrupted` says so. `most` bounds the seconds spent.
    """

    def __init__(self, contenders, count, pause=PAUSE, warm=1, most=None):
        self.contenders, self.count, self.pause, self.warm, self.most = contenders, count, pause, warm, most
        self.results = {name: [] for name in contenders}
        self.interrupted = False

    def __iter__(self):
        total = (self.warm + self.count) * len(self.contenders)
        started, done = time.perf_counter(), 0
        try:
            with quiet_memory():
                for number in range(self.warm + self.count):
                    if self.most is not None and number > self.warm and time.perf_counter() - started > self.most:
                        return
                    order = list(self.contenders.items())
                    for name, contender in order[::-1] if number % 2 else order:  # who comes first alternates
                        time.sleep(self.pause)
                        wake(contender)
                        measurement = contender()
                        done += 1
                        if number >= self.warm:
                            self.results[name].append(measurement)
                        yield done, total
        except KeyboardInterrupt:
            self.interrupted = True

    def run(self):
        """All of it, silently: the results."""
        for _ in self:
            pass
        return self.results


@contextlib.contextmanager
def quiet_memory():
    """No garbage collection inside, one before: a collection in the middle of a timing belongs to nobody.

    Off for every contender alike. A program that leaves it on pays for it on top, most where many Tensors are made.
    """
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
