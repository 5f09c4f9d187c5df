"""Places in large arrays are computed in 64 bits: read off the sources, since no launch on a CPU has 2³¹ elements to show it.

The rule, for what stands in `pointer[...]`, behind `pointer +` and behind `long long name =`: each of its sums' terms that
multiplies two variables has a 64-bit factor before the first product is taken. A factor in brackets may be a product
itself, (n * H + h) say: a number of pixels, which fits 32 bits wherever the launch does.
"""

import re

import pytest

from minidl.core.folders import kernels_folder

NARROW = {  # 32 bits on purpose: these cost the inner loops registers otherwise
    **dict.fromkeys(("maps.cuh", "tile.cuh", "mma.cuh", "async.cuh", "conv_blocked.cu", "conv_mma.cu", "conv_depthwise.cu"),
                    "conv.py hands arrays of 2³¹ elements and more to the first rung"),
    "optim.cu": "a launch has no more than 2³¹ threads, and its pieces of a parameter are counted on the host in 64 bits",
}
FITS = {  # single products that need no more than 32 bits
    ("conv_parts.cu", "at / C * WHOLE"): "a sum is only cut where the result has few tiles",
    ("pool.cu", "window * C"): "at most `at`, a number of threads",
    ("pool.cu", "blockIdx.x * blockDim.x"): "pool.py takes no more numbers than 32 bits count",
    ("reduce.cu", "step * TX"): "a place in shared memory",
}
FILES = sorted(path.name for path in kernels_folder().glob("*.cu*") if path.name not in NARROW)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
TOKEN = re.compile(r"\(WIDE\)|\w+(?:(?:\.|->)\w+)*|[-+*/%<>=!&|]=|&&|\|\||<<|>>|\S")
OPEN, CLOSE = {"(": 1, "[": 1, "{": 1}, {")": 1, "]": 1, "}": 1}
POINTER = re.compile(r"(?:float|double|int|WIDE|T|Real)\s*\*\s*(?:const\s+)?(?:__restrict__\s+)?(\w+)")


def text_of(name):
    return (kernels_folder() / name).read_text(encoding="utf-8")


def functions(text):
    """The text in pieces that end where a brace stands in the first column, with 64-bit types as one word."""
    text = COMMENT.sub(lambda m: " " + "\n" * m[0].count("\n"), text)
    text = re.sub(r"(?m)^[ \t]*#.*$", "", text)
    text = re.sub(r"\b(?:unsigned\s+)?long\s+long\b|\bsize_t\b", "WIDE", text)
    return re.split(r"(?m)^\};?$", text)


def until(tokens, at, ends):
    """Where the expression that begins at `at` ends: one of `ends` outside of brackets, or a bracket that it did not open."""
    depth = 0
    while at < len(tokens):
        token = tokens[at]
        if depth == 0 and (token in ends or token in CLOSE):
            break
        depth += (token in OPEN) - (token in CLOSE)
        at += 1
    return at


def split(tokens, at_these):
    """[(what stands before it, the piece)], cut outside of brackets."""
    pieces, depth, before = [("", [])], 0, ""
    for token in tokens:
        if depth == 0 and token in at_these and before and before not in at_these:
            pieces.append((token, []))
        else:
            pieces[-1][1].append(token)
            depth += (token in OPEN) - (token in CLOSE)
        before = token
    return pieces


class Reader:
    """Knows which names of a function are wide, and which numbers are constants."""

    def __init__(self, wide, wide_tables, constants):
        self.wide_names, self.wide_tables, self.constants = wide, wide_tables, constants

    def is_wide(self, factor):
        """Has this factor 64 bits?"""
        if factor[0] == "(WIDE)":
            return True
        if factor[0] == "(" and factor[-1] == ")":
            return any(self.is_wide(f) for _, term in split(factor[1:-1], "+-") if term for _, f in split(term, "*/%") if f)
        if factor[1:2] == ["["]:  # an element of a table
            return factor[0] in self.wide_tables
        return len(factor) == 1 and (factor[0] in self.wide_names or "." in factor[0] and factor[0].rpartition(".")[2] in self.wide_names)

    def is_constant(self, factor):
        """Is this known when the kernel is compiled?"""
        inner = factor[1:-1] if factor[0] == "(" else factor
        return all(token.isdigit() or token in self.constants or token in "+-*/%()" for token in inner)

    def narrow_products(self, tokens):
        """The terms of a sum that take a product of two variables in 32 bits."""
        for _, term in split(tokens, ("+", "-", "?", ":", "<", ">", "<=", ">=", "==", "&&", "||")):
            if not term:
                continue
            (_, first), *rest = [(op, factor) for op, factor in split(term, "*/%") if factor] or [("", [])]
            if all(op != "*" for op, _ in rest):  # no product: a bracket, a cast of one, or a single name
                inner = first[1:] if first[:1] == ["(WIDE)"] else first
                if inner[:1] == ["("] and inner[-1] == ")":
                    yield from self.narrow_products(inner[1:-1])
                continue
            wide, constant = self.is_wide(first), self.is_constant(first)
            for op, factor in rest:
                if op == "*" and not (wide or self.is_wide(factor) or constant or self.is_constant(factor)):
                    yield " ".join(term)
                    break
                wide, constant = wide or self.is_wide(factor), constant and self.is_constant(factor)


def findings(text):
    """The products in 32 bits that become places in memory, one line each."""
    pieces = functions(text)
    members = {name for piece in pieces if "struct" in piece for name in re.findall(r"\bWIDE\s+(\w+)\s*[;,]", piece)}
    constants = {*re.findall(r"#\s*define\s+(\w+)", text)}
    constants |= {*re.findall(r"(?:int|bool)\s+(\w+)", " ".join(re.findall(r"template\s*<([^>]*)>", text)))}
    constants |= {*re.findall(r"constexpr\s+int\s+(\w+)", text)}
    found = []
    for piece in pieces:
        tokens = TOKEN.findall(re.sub(r"\(\s*WIDE\s*\)", "(WIDE)", piece))
        pointers, wide, wanted = set(POINTER.findall(piece)), set(members), []
        for at, token in enumerate(tokens[:-2]):
            following = tokens[at + 1]
            if token == "WIDE" and following not in ("*", ")"):
                name = at + 1
                while True:  # WIDE a = ..., b = ...;
                    wide.add(tokens[name])
                    end = until(tokens, name, (",", ";"))
                    if tokens[name + 1] == "=":
                        wanted.append(tokens[name + 2:end])
                    if end + 2 >= len(tokens) or tokens[end] != "," or tokens[end + 2] not in ("=", ",", ";"):
                        break
                    name = end + 1
            elif token in wide and following in ("=", "<", ">", "<=", ">="):
                wanted.append(tokens[at + 2:until(tokens, at + 2, (",", ";", "?", "&&", "||"))])
            elif token in pointers and following == ")" and tokens[at + 2] == "[":  # reinterpret_cast<float4*>(y)[...]
                wanted.append(tokens[at + 3:until(tokens, at + 3, ())])
            elif token in pointers and following in ("[", "+"):
                wanted.append(tokens[at + 2:until(tokens, at + 2, (",", ";", "?", ":") if following == "+" else ())])
        reader = Reader(wide, set(re.findall(r"WIDE\s*\*\s*(?:__restrict__\s+)?(\w+)", piece)), constants)
        found += [product for expression in wanted for product in reader.narrow_products(expression)]
    return found


def test_what_is_let_pass_is_still_there():
    assert set(FITS) <= {(name, product) for name in FILES for product in findings(text_of(name))}
    assert all((kernels_folder() / name).is_file() for name in NARROW)


@pytest.mark.parametrize("name", FILES)
def test_places_in_memory_have_64_bits(name):
    narrow = [product for product in findings(text_of(name)) if (name, product) not in FITS]
    assert narrow == [], f"{name}: put (long long) before the first factor, or say in NARROW why 32 bits are enough"


@pytest.mark.parametrize("name", [name for name in FILES if "(long long)" in text_of(name)])
def test_every_cast_is_missed(name):
    """Without any one of its casts a file does not pass: the check sees each of them."""
    text = text_of(name)
    before = len(findings(text))
    casts = [m.start() for m in re.finditer(r"\(long long\)", COMMENT.sub(lambda m: " " * len(m[0]), text))]
    unseen = [text[:at].count("\n") + 1 for at in casts if len(findings(text[:at] + text[at + len("(long long)"):])) <= before]
    assert casts and unseen == [], f"{name}: nobody misses the cast of lines {unseen}"
