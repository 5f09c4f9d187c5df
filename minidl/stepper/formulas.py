"""Formulas as outlines: TeX -> glyphs and rectangles (by ziamath, if it is installed), which the page draws as SVG.

No SVG text goes into the page: only glyph outlines, once each, and where they stand. A formula is typeset once a process.
"""

import functools
import re
import warnings
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
OUTLINE = re.compile(r"[MLQCZHVAST0-9eE .,+-]*")  # what an SVG path may consist of
SIZE = 24                                          # ziamath's font size: an em of the page


@functools.cache
def typesetter():
    """ziamath's Latex, or None where it is not installed (`pip install 'minidl[step]'` brings it)."""
    try:
        with warnings.catch_warnings():  # it opens its font by a call that Python 3.11 and 3.12 call deprecated, and 3.13 does not
            warnings.filterwarnings("ignore", "path is deprecated", DeprecationWarning)
            from ziamath import Latex
    except ImportError:
        return None
    return Latex


@functools.lru_cache(maxsize=512)
def typeset(tex):
    """{"box", "glyphs", "rules", "outlines"} of a formula, in units of an em / 24; None if it cannot be typeset."""
    latex = typesetter()
    if latex is None or not tex:
        return None
    try:
        root = latex(tex, size=SIZE).svgxml()
    except Exception:  # TeX that ziamath does not know: the page shows the text instead
        return None
    return placed(ElementTree.fromstring(ElementTree.tostring(root)))


def placed(root):
    """The glyphs of a drawn formula and their places: [key, x, y, scale]; rules (fraction bars) as rectangles."""
    outlines, boxes, glyphs, rules = {}, {}, [], []
    for item in root.iter():
        if item.tag in (f"{SVG}symbol", "symbol"):
            path = item.find(f"{SVG}path") if item.find(f"{SVG}path") is not None else item.find("path")
            outlines[item.get("id")] = tidy(path.get("d")) if path is not None else ""
            boxes[item.get("id")] = floats(item.get("viewBox"))
        elif item.tag in (f"{SVG}use", "use"):
            key = item.get("href").lstrip("#")
            left, top, width, _ = boxes[key]
            x, y, drawn = (float(item.get(name)) for name in ("x", "y", "width"))
            scale = drawn / width if width else 1.0
            glyphs.append([key, round(x - left * scale, 2), round(y - top * scale, 2), round(scale, 3)])
        elif item.tag in (f"{SVG}rect", "rect"):
            rules.append([round(float(item.get(name)), 2) for name in ("x", "y", "width", "height")])
    return {"box": [round(n, 2) for n in floats(root.get("viewBox"))], "glyphs": glyphs, "rules": rules, "outlines": outlines}


def floats(text):
    """The numbers in an attribute."""
    return [float(n) for n in text.split()]


def tidy(path):
    """A path's text in less room: nothing but commands and numbers, two decimals."""
    if not OUTLINE.fullmatch(path):
        return ""
    return re.sub(r" ?([A-Z]) ?", r"\1", re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), path))


class Formulas:
    """The formulas of one page: every glyph once."""

    def __init__(self):
        self.outlines, self.drawn, self.numbers, self.keys = [], [], {}, {}

    def number(self, tex):
        """The formula's place in `drawn`, or -1 where it cannot be drawn."""
        if tex not in self.numbers:
            found = typeset(tex)
            self.numbers[tex] = len(self.drawn) if found else -1
            if found:
                self.drawn.append(self.shared(found))
        return self.numbers[tex]

    def shared(self, formula):
        """The formula with its glyphs as numbers into the page's table."""
        glyphs = []
        for key, x, y, scale in formula["glyphs"]:
            outline = formula["outlines"][key]
            if outline not in self.keys:
                self.keys[outline] = len(self.outlines)
                self.outlines.append(outline)
            glyphs.append([self.keys[outline], x, y, scale])
        return {"box": formula["box"], "glyphs": glyphs, "rules": formula["rules"]}
