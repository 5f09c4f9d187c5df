"""Random numbers: a Generator with PyTorch's methods around NumPy's, and the default one that manual_seed() sets.

Numbers are drawn on the CPU, in the order of the logical shape: the same seed gives the same values on every device
and in every storage order.
"""

import math
import os
import threading
import weakref

import numpy as np

MANY = 2**15  # from so many normal numbers on, many_normals() draws them
_ALL = weakref.WeakSet()  # every Generator there is
_held = []                # locks of their streams, held while the process forks
_importing = threading.Lock()  # while numpy.random is imported: a child forked just then would wait for it for good


class Generator:
    """A stream of random numbers. The same seed gives the same stream (not PyTorch's)."""

    def __init__(self, device=None):
        _ALL.add(self)
        self.seed()

    def manual_seed(self, seed):
        """Start the stream that belongs to this number; returns the generator."""
        self.first_seed, self.stream = int(seed), None
        return self

    @property
    def numpy(self):
        """NumPy's generator; made when first asked for, because importing numpy.random takes longer than all of minidl."""
        if self.stream is None or _held:  # while the process forks nobody begins to draw: who wants to fork would wait for good
            with _importing:
                if self.stream is None:
                    self.stream = np.random.Generator(np.random.PCG64(self.first_seed % 2**64))
        return self.stream

    def seed(self):
        """Start a stream that nobody can predict; returns its number."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self.first_seed

    def initial_seed(self):
        """The number this stream was started with."""
        return self.first_seed

    def get_state(self):
        """Where the stream is, as a dict that set_state() takes."""
        return self.numpy.bit_generator.state

    def set_state(self, state):
        """Go on from where get_state() was called; returns the generator."""
        self.numpy.bit_generator.state = state
        return self


default_generator = Generator()


def _before_fork():
    """Wait until no thread is drawing: a child would inherit a stream's lock in the hands of a thread that it does not have."""
    def locks():
        yield _importing  # held before the streams are looked at: none begins meanwhile
        yield from (generator.stream.bit_generator.lock for generator in list(_ALL) if generator.stream is not None)

    for lock in locks():
        if lock.acquire(timeout=1):
            _held.append(lock)


def _after_fork():
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def manual_seed(seed):
    """Make every random number from here on repeatable; returns the default generator."""
    return default_generator.manual_seed(seed)


def initial_seed():
    """The number that the default generator was started with."""
    return default_generator.initial_seed()


def draw_normal(shape, dtype, mean=0.0, std=1.0, generator=None):
    """An array of normally distributed numbers."""
    wide = np.float64 if dtype == np.float64 else np.float32  # NumPy draws in these two
    stream = (generator or default_generator).numpy
    many = wide == np.float32 and math.prod(shape) >= MANY
    numbers = many_normals(stream, math.prod(shape)).reshape(shape) if many else np.asarray(stream.standard_normal(shape, wide))
    return np.add(np.multiply(numbers, std, out=numbers), mean, out=numbers).astype(dtype, copy=False)


def many_normals(stream, count):
    """float32 standard normal numbers by Box and Muller: √(−2 ln u) · cos and sin of a random angle.

    NumPy computes logarithms and sines many at a time: a network's weights take less than half the time that
    standard_normal() takes. No number is larger than 5.8, as u has 24 bits.
    """
    numbers = np.empty(count, np.float32)
    for start in range(0, count, MANY):  # pieces that stay in the cache
        piece = numbers[start:start + MANY]
        half = (len(piece) + 1) // 2
        radius = 1 - stream.random(half, np.float32)  # never 0
        np.sqrt(np.multiply(np.log(radius, out=radius), -2, out=radius), out=radius)
        angle = stream.random(half, np.float32)
        angle *= np.float32(2 * np.pi)
        np.multiply(radius, np.cos(angle), out=piece[:half])
        np.multiply(radius, np.sin(angle, out=angle), out=radius)
        piece[half:] = radius[:len(piece) - half]
    return numbers


def draw_uniform(shape, dtype, low=0.0, high=1.0, generator=None):
    """An array of numbers between low (included) and high (not included)."""
    wide = np.float64 if dtype == np.float64 else np.float32
    numbers = np.asarray((generator or default_generator).numpy.random(shape, wide))
    numbers = np.add(np.multiply(numbers, high - low, out=numbers), low, out=numbers).astype(dtype, copy=False)
    if low < high:  # rounding may reach high, which is not included
        np.minimum(numbers, np.nextafter(np.asarray(high, dtype), np.asarray(low, dtype)), out=numbers)
    return numbers
