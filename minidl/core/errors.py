"""Exception types, the layout of every message, and match_shapes(), the shape checker of the ops.

Every message has four parts: what you called / the rule in one sentence / the facts with their names /
the likely fix. tests/test_errors.py holds all of them in one table.
"""

import functools


class MinidlError(Exception):
    """Base of every error that minidl raises on purpose."""


class ShapeError(MinidlError, ValueError):
    """Shapes do not fit together, or an axis does not exist."""


class DTypeError(MinidlError, TypeError):
    """An element type, or the Python type of an argument, is not what the op needs."""


class ArgumentError(MinidlError, ValueError):
    """A setting has a value that makes no sense."""


class RangeError(MinidlError, IndexError):
    """An index or a label lies outside its range."""


class DeviceError(MinidlError, RuntimeError):
    """Tensors on different devices, or a device that is not there."""


class BackendError(MinidlError, RuntimeError):
    """The implementation that was asked for cannot do this."""


class GraphError(MinidlError, RuntimeError):
    """The graph cannot be walked: freed, missing, or an op's backward broke its contract."""


class StateError(MinidlError, RuntimeError):
    """A state dict does not fit the model or the optimiser it is loaded into."""


class FileError(MinidlError, OSError):
    """A file cannot be read or written: missing, cut off, or not what its ending says."""


class GradcheckError(MinidlError, RuntimeError):
    """A gradient disagrees with finite differences."""


def explained(kind, call, rule, facts=(), fix=""):
    """Build the exception `kind` with the four-part message; use as `raise explained(...)`. Names from files are made visible."""
    lines = [f"{call}: {rule}", *facts]
    if fix:
        lines.append(fix)
    return kind("\n".join(safe(line) for line in "\n    ".join(lines).split("\n")))


def safe(text):
    """The text with everything that could move a cursor, change colours or turn the writing direction made visible."""
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def describe(value):
    """Name a value in an error message: its type, and its shape and dtype where it has them."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}, {value.dtype}"
    if callable(value) and hasattr(value, "__name__"):
        return f"{type(value).__name__} {value.__name__}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def no_broadcast(call, *shapes):
    """The exception for shapes that do not broadcast: it names the axis that does not fit."""
    for axis in range(-1, -max(map(len, shapes)) - 1, -1):
        sizes = [s[axis] for s in shapes if len(s) >= -axis]
        if len({n for n in sizes if n != 1}) > 1:
            break
    return explained(ShapeError, call, f"the shapes do not broadcast: axis {axis} has sizes {' and '.join(map(str, sizes))}.",
                     [f"argument {k}: {tuple(s)}" for k, s in enumerate(shapes)],
                     "Aligned from the right, two sizes must be equal or one of them 1. Did you mean unsqueeze() on one of them?")


def match_shapes(call, **arguments):
    """Check shapes against letters and return the size of every letter.

        match_shapes("conv2d", groups=2, x=(x, "N C H W"), w=(w, "O C/groups KH KW"), b=(b, "O"))

    A keyword holds (tensor or None, pattern) or, for a name used in a pattern, an int. In a pattern a name is a
    size, equal wherever it stands; A/B is the size A divided by B. The first meeting of a name defines it.
    """
    sizes = {name: value for name, value in arguments.items() if isinstance(value, int)}
    seen = {}
    for name, value in arguments.items():
        if isinstance(value, int) or value[0] is None:
            continue
        shape, letters = value[0].shape, _letters(value[1])
        if len(shape) != len(letters):
            names = value[1].split()
            raise explained(
                ShapeError, call, f"{name} must have {len(letters)} axes ({', '.join(names)}).",
                [f"{name} has {len(shape)} axes, shape {tuple(shape)}", _shapes(arguments)],
                _axes_fix(name, shape, names))
        for axis, (letter, top, bottom) in enumerate(letters):
            size, expected = shape[axis], sizes.get(top)
            if expected is None:
                sizes[top] = size * (sizes[bottom] if bottom else 1)
                seen[top] = (name, axis, size)
                continue
            if bottom:
                expected //= sizes[bottom]
            if size != expected:
                other, other_axis, other_size = seen.get(top, ("the call", "", expected))
                raise explained(
                    ShapeError, call, f"axis {letter} disagrees.",
                    [f"{other} axis {other_axis} says {top} = {other_size}",
                     f"{name} axis {axis} says {letter} = {size}" + (f", not {expected}" if bottom else ""),
                     _shapes(arguments)],
                    _swap_fix(arguments, top, size))
    return sizes


@functools.cache
def _letters(pattern):
    """The axes of a pattern, as (A/B, A, B): every call of an op asks for the same few again."""
    return tuple((letter, *letter.partition("/")[::2]) for letter in pattern.split())


def _shapes(arguments):
    """The line of a message that lists all arguments, their patterns and their shapes."""
    listed = [f"{name} ({', '.join(value[1].split())}) = {tuple(value[0].shape)}"
              for name, value in arguments.items() if not isinstance(value, int) and value[0] is not None]
    return f"shapes: {', '.join(listed)}"


def _axes_fix(name, shape, letters):
    if len(shape) == len(letters) - 1:
        return f"Did you mean {name}.unsqueeze(0) (a batch of one)?"
    if len(shape) > len(letters):
        return f"Did you mean {name}.flatten({len(letters) - 1})?"
    return f"Reshape {name} to the axes named above."


def _swap_fix(arguments, letter, size):
    """Guess: another axis of some argument has the wanted size, so a transposition is the likely cause."""
    for name, value in arguments.items():
        if isinstance(value, int) or value[0] is None:
            continue
        shape, letters = tuple(value[0].shape), value[1].split()
        if letter not in letters:
            continue
        if letter == "C" and len(shape) == 4 and shape[3] == size:
            return f"Did you mean {name}.permute(0, 3, 1, 2) (a channels-last image)?"
        if len(shape) == 2 and shape[1 - letters.index(letter)] == size:
            return f"Did you mean {name}.transpose(0, 1)?"
    return f"Make the two sizes called {letter} equal."
