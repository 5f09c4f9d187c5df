"""What can be said of a kernel file without a GPU: does it compile, what does it use, and does it survive sizes that tile badly?

A file of one's own says how its kernels are launched in a comment:

    // launch axpy: n = 1 31 32 33 1000; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2

Sizes take each of their values, in all combinations; grid and block have up to three parts, separated by commas; x[n] is an
array of n random numbers; any other name is a number. `shared = ...` is dynamic shared memory in bytes.
"""

import ast
import itertools
import operator
import re

import numpy as np

from minidl.backend.cuda.launch import kernel, reread, running
from minidl.backend.cuda.nvrtc import ARCHITECTURES, resources
from minidl.backend.cuda.signature import TYPES, signatures
from minidl.backend.cuda.source import text_of
from minidl.core.errors import ArgumentError, MinidlError, explained

LAUNCH = re.compile(r"^[ \t]*//[ \t]*launch[ \t]+(\w+)[ \t]*:(.*)$", re.MULTILINE)
ARRAY = re.compile(r"(\w+)\[([^\]]*)\]")
MOST = 200  # combinations of sizes
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

    def wrong(self, reason):
        """The exception for a line that cannot be read."""
        return explained(ArgumentError, f"// launch {self.name}", reason + ".", [self.text],
                         "As in: // launch axpy: n = 1 31 32 33; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2")

    def combinations(self):
        """One {name: number} after another."""
        names = list(self.sweeps)
        for values in itertools.islice(itertools.product(*self.sweeps.values()), MOST):
            found = {}
            for name, value in zip(names, values, strict=True):
                found[name] = self.number(value, found)
            yield found

    def number(self, text, names):
        """The value of an expression of whole numbers, names and + - * / %, where / rounds down."""
        try:
            return float(text) if re.fullmatch(r"-?\d*\.\d*", text) else _value(ast.parse(text, mode="eval").body, names)
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError) as error:
            raise self.wrong(f"{text!r} has no value: {error}") from None

    def sizes(self, key, names):
        """Grid or block as a tuple."""
        return tuple(self.number(part.strip(), names) for part in self.settings[key].split(","))


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
    """{architecture: {kernel: Resources}}; raises with the compiler's words if it does not compile."""
    reread()
    return {arch: resources(str(file), options, arch, disassemble) for arch in architectures}


def checked(file, defines=None, mode="check", order="forward"):
    """[(kernel, sizes, None or the error)] for every launch line of a file, every combination of its sizes."""
    reread()
    text, results = text_of(str(file)), []
    known = signatures(text)
    for name, lines in launch_lines(text).items():
        if name not in known:
            raise lines[0].wrong(f"the file has no kernel {name}; it has {', '.join(known) or 'none'}")
        for line in lines:
            for sizes in line.combinations():
                results.append((name, sizes, _tried(file, line, known[name], sizes, defines or {}, mode, order)))
    return results


def _tried(file, line, signature, sizes, defines, mode, order):
    """None if one launch went well, else the error."""
    rng, arguments = np.random.default_rng(0), {}
    for p in signature.parameters:
        if p.pointer and p.name in line.arrays:
            count = line.number(line.arrays[p.name], sizes)
            dtype = np.dtype(TYPES[p.type] or "uint8")
            count *= int(p.type[-1]) if p.type in ("float2", "float4", "int4") else 1
            arguments[p.name] = rng.standard_normal(count).astype(dtype) if dtype.kind == "f" else np.zeros(count, dtype)
        elif p.name in sizes:
            arguments[p.name] = sizes[p.name]
        else:
            raise line.wrong(f"{p!r} has no value")
    shared = line.number(line.settings["shared"], sizes) if "shared" in line.settings else 0
    try:
        with running(mode, order):
            kernel(str(file), line.name, **defines)(line.sizes("grid", sizes), line.sizes("block", sizes), shared=shared, **arguments)
    except MinidlError as error:
        return error
    return None
