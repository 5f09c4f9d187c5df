"""What a kernel takes, read from the text of its .cu file: `extern "C" __global__ void name(const float* __restrict__ x, int N)`.

CuPy passes whatever it is given, without a look at the kernel; so the launcher reads the types here and checks by name.
"""

import bisect
import re

from minidl.core.errors import ArgumentError, explained

KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+')
GLOBAL = re.compile(r"\b__global__\b[^;{}]*\{")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
QUALIFIERS = re.compile(r"\b(?:__restrict__|restrict|volatile|__grid_constant__)\b")
LINE = re.compile(r'^#line (\d+) "([^"]+)"', re.MULTILINE)

TYPES = {  # C's name -> the array's dtype, the number's dtype
    "float": "float32", "double": "float64", "int": "int32", "signed int": "int32", "unsigned": "uint32", "unsigned int": "uint32",
    "long long": "int64", "long long int": "int64", "unsigned long long": "uint64", "unsigned long long int": "uint64",
    "char": "int8", "signed char": "int8", "unsigned char": "uint8", "short": "int16", "unsigned short": "uint16", "bool": "bool",
    "__half": "float16", "half": "float16", "size_t": "uint64", "int64_t": "int64", "int32_t": "int32", "uint32_t": "uint32",
    "float2": "float32", "float4": "float32", "int4": "int32", "void": None,
}


class Parameter:
    """One parameter of a kernel."""

    __slots__ = ("name", "type", "dtype", "pointer", "const")

    def __init__(self, name, type, pointer, const):
        self.name, self.type, self.dtype, self.pointer, self.const = name, type, TYPES[type], pointer, const

    def __repr__(self):
        return f"{'const ' * self.const}{self.type}{'*' * self.pointer} {self.name}"


class Signature:
    """A kernel's name, its parameters in order, and where it stands."""

    __slots__ = ("name", "parameters", "file", "line")

    def __init__(self, name, parameters, file, line):
        self.name, self.parameters, self.file, self.line = name, parameters, file, line

    def __repr__(self):
        return f"{self.name}({', '.join(map(repr, self.parameters))})"


def signatures(text):
    """{name: Signature} of every kernel in a source text, in order."""
    place_of = _places(text)
    return {name: Signature(name, parameters, *place_of(start)) for name, parameters, start, _ in _kernels(text)}


def nameless(text):
    """{name: (file, line)} of the kernels that have no extern "C" of their own: nothing finds them by their name."""
    place_of, known = _places(text), {name for name, *_ in _kernels(text)}
    found = ((_declared(m[0]), m.start()) for m in GLOBAL.finditer(_without_comments(text)))
    return {name: place_of(start) for name, start in found if name not in known}


def alone(text, name):
    """A source text without its other kernels: compiling it costs what this one costs. Lines keep their numbers."""
    parts, done, code = [], 0, _without_comments(text)
    for other, _, start, end in _kernels(text):
        if other != name:
            _, _, end = _brackets(code, code.index("{", end), "{}")
            parts += [text[done:start], "\n" * text.count("\n", start, end)]
            done = end
    return "".join([*parts, text[done:]])


def _kernels(text):
    """(name, parameters, where its `extern` stands, where its parameter list ends) of every kernel."""
    text = _without_comments(text)
    for start in KERNEL.finditer(text):
        if "(" not in text[start.end():]:
            raise explained(ArgumentError, "kernel signature", "a kernel has no brackets.", [text[start.start():].strip()[:60]],
                            'As in: extern "C" __global__ void axpy(const float* x, float* y, int n) {')
        head, inside, end = _brackets(text, text.index("(", start.end()))
        declared = text[start.end():head]
        if "__launch_bounds__" in declared:  # __launch_bounds__(...) may stand before or after void
            after = end
            head, inside, end = _brackets(text, text.index("(", after))
            declared = text[after:head]
        name = declared.split()[-1]
        yield name, [_parameter(name, part) for part in inside.split(",") if part.strip()], start.start(), end


def _declared(text):
    """The name in the head of a kernel: the last word before a bracket that is not __launch_bounds__."""
    return next((name for name in re.findall(r"(\w+)\s*\(", text) if name != "__launch_bounds__"), "")


def _without_comments(text):
    """Spaces instead of comments: every place keeps its number."""
    return COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _brackets(text, opening, pair="()"):
    """(position of the opening bracket, what is between it and its partner, position after the partner)."""
    depth = 0
    for end in range(opening, len(text)):
        depth += {pair[0]: 1, pair[1]: -1}.get(text[end], 0)
        if not depth:
            return opening, text[opening + 1:end], end + 1
    raise explained(ArgumentError, "kernel signature", "a bracket is never closed.", [text[opening:opening + 60].split("\n")[0]],
                    "Close it, or look for a bracket too many before it.")


def _parameter(kernel, text):
    words = QUALIFIERS.sub(" ", text).replace("*", " * ").split()
    pointer = words.count("*")
    const = "const" in words
    words = [word for word in words if word not in ("*", "const")]
    type, name = " ".join(words[:-1]), words[-1]
    if type not in TYPES or pointer > 1 or type == "void" and not pointer or not name.isidentifier():
        raise explained(ArgumentError, f"kernel {kernel}", "a parameter is a pointer or a number of a plain type.",
                        [f"parameter: {' '.join(text.split())}", f"types: {', '.join(TYPES)}"],
                        "Pass structs as separate numbers, and arrays as pointers.")
    return Parameter(name, type, bool(pointer), const)


def _places(text):
    """A function from positions in a text to (file, line), by the last #line before them."""
    marks = list(LINE.finditer(text))
    starts, ends = [m.start() for m in marks], [k for k, c in enumerate(text) if c == "\n"]

    def place(position):
        k = bisect.bisect_left(starts, position) - 1
        if k < 0:
            return "", bisect.bisect_left(ends, position) + 1
        return marks[k][2], int(marks[k][1]) + bisect.bisect_left(ends, position) - bisect.bisect_left(ends, marks[k].end()) - 1

    return place
