"""What can be said of a kernel file without a GPU: does it compile, what does it use, and does it survive sizes that tile badly?

A file of one's own says how its kernels are launched in a comment:

    // launch axpy: n = 1 31 32 33 1000; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2

Sizes take each of their values, in all combinations; grid and block have up to three parts, separated by commas; x[n] is an
array of n random numbers; any other name is a number. `shared = ...` is dynamic shared memory in bytes.
Results are not looked at.
"""

import ast
import contextlib
import itertools
import math
import operator
import re
import signal
import threading
import time

import numpy as np

from minidl.backend.cuda.launch import LIMITS, kernel, reread, running
from minidl.backend.cuda.nvrtc import ARCHITECTURES, examined
from minidl.backend.cuda.on_cpu_build import KernelError, compiler, warnings_of
from minidl.backend.cuda.signature import TYPES, nameless, signatures
from minidl.backend.cuda.source import text_of
from minidl.core.errors import ArgumentError, explained

LAUNCH = re.compile(r"^[ \t]*//[ \t]*launch[ \t]+(\w+)[ \t]*:(.*)$", re.MULTILINE)
ARRAY = re.compile(r"(\w+)\[([^\]]*)\]")
MOST = 200        # combinations of sizes
LARGEST = 1 << 28  # elements of an array
SECONDS = 20      # that one launch may take
DEEPEST = 100     # brackets and signs within one another in an expression
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.floordiv,
             ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}


class LaunchLine:
    """One `// launch` comment: sizes to sweep, grid, block, shared memory, arrays and numbers, as expressions."""

    def __init__(self, name, text):
        self.name, self.text = name, text.strip()
        self.sweeps, self.settings, self.arrays = {}, {}, {}
        for part in filter(None, map(str.strip, text.split(";"))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                self.arrays.update(ARRAY.findall(part))
                if not ARRAY.sub("", part).replace(",", "").isspace() and ARRAY.sub("", part).replace(",", "").strip():
                    raise self.wrong(f"{part!r} is neither an array x[n] nor a setting n = 1 2 3")
            elif key in ("grid", "block", "shared"):
                self.settings[key] = value.strip("()") if value.count("(") == 1 and "," in value else value
            else:
                self.sweeps[key] = value.split() if re.fullmatch(r"[-\d.\s]+", value) else [value]
        if not {"grid", "block"} <= self.settings.keys():
            raise self.wrong("grid and block are missing")
        many = math.prod(map(len, self.sweeps.values()))
        if many > MOST:
            raise self.wrong(f"{many} combinations of sizes, at most {MOST}: leave some out, or write several lines")

    def wrong(self, reason):
        """The exception for a line that cannot be read."""
        return explained(ArgumentError, f"// launch {self.name}", reason + ".", [self.text],
                         "As in: // launch axpy: n = 1 31 32 33; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2")

    def combinations(self):
        """One {name: number} after another."""
        names = list(self.sweeps)
        for values in itertools.product(*self.sweeps.values()):
            found = {}
            for name, value in zip(names, values, strict=True):
                found[name] = self.number(value, found)
            yield found

    def number(self, text, names):
        """The value of an expression of whole numbers, names and + - * / %, where / rounds down."""
        if text.count("(") + text.count("-") > DEEPEST:
            raise self.wrong(f"{text[:60]!r}... has no value: too many brackets or signs")
        try:
            return float(text) if re.fullmatch(r"-?\d*\.\d*", text) else _value(ast.parse(text, mode="eval").body, names)
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError, OverflowError) as error:
            raise self.wrong(f"{text[:60]!r} has no value: {error}") from None

    def whole(self, what, text, names, least, most):
        """The same, if it is a whole number within these limits."""
        value = self.number(text.strip(), names)
        if not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(f"{what} is {value}, and must be a whole number from {least} to {most:,}")
        return value

    def sizes(self, key, names):
        """Grid or block as a tuple."""
        parts = self.settings[key].split(",")
        if len(parts) > 3:
            raise self.wrong(f"{key} has more than three parts")
        sizes = tuple(self.whole(key, part, names, int(key == "block"), most) for part, most in zip(parts, LIMITS[key], strict=False))
        if key == "block" and math.prod(sizes) > 1024:
            raise self.wrong(f"block {sizes} has {math.prod(sizes)} threads, at most 1024")
        return sizes

    def count(self, p, names):
        """How many elements the array of a parameter has."""
        return self.whole(f"the size of {p.name}", self.arrays[p.name], names, 0, LARGEST)

    def fits(self, signature):
        """Complain of arrays that the kernel does not have."""
        pointers = [p.name for p in signature.parameters if p.pointer]
        for name in self.arrays:
            if name not in pointers:
                raise self.wrong(f"the kernel has no array {name}; it has {', '.join(pointers) or 'none'}")


def _value(node, names):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, names)
    raise ValueError("only whole numbers, names and + - * / % are understood")


def launch_lines(text):
    """The launch lines of a source text, by kernel; a kernel may have several."""
    found = {}
    for name, line in LAUNCH.findall(text):
        found.setdefault(name, []).append(LaunchLine(name, line))
    return found


def compiled(file, options=(), architectures=ARCHITECTURES, disassemble=True):
    """{architecture: ({kernel: Resources}, warnings)}; raises with the compiler's words if it does not compile."""
    reread()
    return {arch: examined(str(file), options, arch, disassemble) for arch in architectures}


def kernels_of(file):
    """(the names of a file's kernels, {name: (file, line)} of those that nothing finds, for want of an extern "C")."""
    reread()
    return list(signatures(text_of(str(file)))), nameless(text_of(str(file)))


def checked(file, defines=None, mode="check", order="forward", seconds=SECONDS):
    """([(kernel, sizes, None or the error)] for every launch line and combination of its sizes, g++'s warnings)."""
    reread()
    text, results, warned = text_of(str(file)), [], {}
    known, lost, lines = signatures(text), nameless(text), launch_lines(text)
    if lines:
        compiler()  # says what is missing, once
    for name, of_kernel in lines.items():
        if name not in known:
            raise of_kernel[0].wrong(f'{name} needs extern "C" right before its __global__' if name in lost else
                                     f"the file has no kernel {name}; it has {', '.join(known) or 'none'}")
        for line in of_kernel:
            line.fits(known[name])
            for sizes in line.combinations():
                results.append((name, sizes, _tried(file, line, known[name], sizes, defines or {}, (mode, order, seconds), warned)))
    return results, list(warned)


def _tried(file, line, signature, sizes, defines, how, warned):
    """None if one launch went well, else the error; what the compiler warned of becomes a key of `warned`."""
    rng, arguments, (mode, order, seconds) = np.random.default_rng(0), {}, how
    for p in signature.parameters:
        if p.pointer and p.name in line.arrays:
            count = line.count(p, sizes)
            dtype = np.dtype(TYPES[p.type] or "uint8")
            count *= int(p.type[-1]) if p.type in ("float2", "float4", "int4") else 1
            arguments[p.name] = rng.standard_normal(count).astype(dtype) if dtype.kind == "f" else np.zeros(count, dtype)
        elif p.name in sizes:
            arguments[p.name] = sizes[p.name]
        else:
            raise line.wrong(f"{p!r} has no value")
    shared = line.whole("shared", line.settings["shared"], sizes, 0, 227 << 10) if "shared" in line.settings else 0
    grid, block = line.sizes("grid", sizes), line.sizes("block", sizes)
    with running(mode, order):
        launch = kernel(str(file), line.name, **defines)
        warned.update(dict.fromkeys(warnings_of(launch.on_cpu().module.library_path)))  # compiles, and raises if it cannot
        try:
            with limited(line.name, seconds):
                launch(grid, block, shared=shared, **arguments)
        except KernelError as error:
            return error
    return None


@contextlib.contextmanager
def limited(name, seconds):
    """Stop a kernel that runs for longer. Only in the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began, before = time.monotonic(), signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt as stopped:
        if time.monotonic() - began < 0.99 * seconds:
            raise
        error = explained(KernelError, name, f"still running after {seconds:g} s.", [f"stopped {str(stopped).partition(': ')[2]}"],
                          "Does every loop end? Is the size too large for check mode, which is some hundred times slower?")
        error.kind, error.kernel = "endless", name
        raise error from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
