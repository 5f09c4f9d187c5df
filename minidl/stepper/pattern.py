"""What a saved trace must look like: PATTERN, and mismatch(), which says where some data is something else.

A pattern is a type, a set of allowed texts, [pattern] for a list, {key: pattern} for a dict with at least these keys,
{str: pattern} for one with any keys, or any(...) of several patterns.
"""


class Any:
    """One of several patterns."""

    def __init__(self, *patterns):
        self.patterns = patterns


NUMBER = Any(int, float, {"nan", "inf", "-inf"})
OPTIONAL_INT, OPTIONAL_TEXT = Any(None, int), Any(None, str)
ARGUMENT = {"argument": str, "tensor": OPTIONAL_INT, "text": str}
WORKED = {"of": str, "tensor": OPTIONAL_INT, "index": [int], "name": str, "kind": {"sum", "formula"}, "more": int, "rest": NUMBER,
          "total": NUMBER, "stored": NUMBER, "agree": bool, "text": str,
          "terms": [{"text": str, "value": NUMBER, "factor": NUMBER, "product": NUMBER}]}
CHECK = {"ok": bool, "cropped": str, "rows": [{"argument": str, "verdict": str, "error": NUMBER, "allowed": NUMBER, "probes": int,
                                               "reason": str, "details": [str], "skipped": [str], "curve": [[NUMBER]]}]}
LAUNCH = {"file": str, "name": str, "grid": [int], "block": [int], "source": OPTIONAL_INT}
RUN = {"op": str, "name": str, "seconds": NUMBER, "why": str, "others": [[str]], "launches": [LAUNCH]}
THUMBNAILS = {"kind": {"rgb", "channels", "tiles", "matrix", "row"}, "axis": OPTIONAL_INT, "at": str, "shown": [int], "total": int,
              "height": int, "width": int, "scale": NUMBER, "low": NUMBER, "high": NUMBER, "data": [str]}
FACTS = Any(None, {"size": int, "nan": int, "inf": int, "zero": int, "absmax": NUMBER})
COMPARED = {"where": str, "tensor": OPTIONAL_INT, "facts": FACTS, "apart": Any(None, int, float, {"nan", "inf"})}
DIFF = {"backend": str, "rows": [{"step": int, "alone": NUMBER, "added": NUMBER, "ours": NUMBER, "theirs": NUMBER}],
        "left": [{"why": str, "ops": [str]}]}
TENSOR = {"id": int, "name": str, "role": {"input", "parameter", "buffer", "activation", "gradient"}, "shape": [int], "dtype": str,
          "device": str, "axes": [str], "made_by": OPTIONAL_INT, "of": OPTIONAL_INT, "gradient": OPTIONAL_INT,
          "facts": FACTS, "compared": [COMPARED],
          "histogram": Any(None, {"low": NUMBER, "high": NUMBER, "counts": [int]}),
          "thumbnails": Any(None, THUMBNAILS), "corner": Any(None, {"at": str, "values": [[NUMBER]]})}
STEP = {"id": int, "kind": {"forward", "backward", "update"}, "number": int, "op": str, "path": OPTIONAL_TEXT, "label": str,
        "settings": {str: str}, "usual": [str], "seconds": NUMBER, "call": Any(None, {"file": str, "line": int, "text": str}),
        "source": {"forward": OPTIONAL_INT, "backward": OPTIONAL_INT}, "inputs": [ARGUMENT], "outputs": [ARGUMENT],
        "flags": [{"kind": str, "tensor": int, "text": str}], "measured": str, "runs": [RUN], "worked": [WORKED], "check": Any(None, CHECK)}
FORWARD = STEP | {"kind": {"forward"}, "without": [str], "back": [int], "users": [int], "keeps": [{"name": str, "bytes": int}],
                  "flops": int, "bytes": int}
BACKWARD = STEP | {"kind": {"backward"}, "forward": OPTIONAL_INT, "ran": [str], "parts": [
    {"argument": str, "to": int, "tensor": int, "before": OPTIONAL_INT, "after": int, "index": int, "count": OPTIONAL_INT,
     "complete": bool}]}
UPDATE = STEP | {"kind": {"update"}, "parameters": [{"tensor": int, "after": int, "gradient": int, "change": NUMBER}]}
PATTERN = {
    "format": str, "version": int, "minidl": str, "made": {str: str}, "title": [str], "error": str, "counts": {str: int},
    "seconds": {str: NUMBER}, "shrunk": [str], "doctor": [str],
    "ops": {str: {"summary": str, "formula": [str], "shapes": str, "gradient": str, "tex": str, "effect": str}},
    "sources": [{"file": str, "lines": [[Any(int, str)]]}],
    "modules": [{"path": str, "type": str, "text": str, "parent": OPTIONAL_TEXT, "steps": [int], "alike": int}],
    "tensors": [TENSOR], "steps": [Any(FORWARD, BACKWARD, UPDATE)], "diffs": [DIFF], "arrays": [int]}
NATURAL = {"tensor", "to", "before", "after", "gradient", "of", "made_by", "axis"}  # keys whose numbers count from 0


def mismatch(data, pattern, where):
    """"" if the data fits the pattern, else where it does not, in words."""
    if pattern is None:
        return "" if data is None else f"{where} must be null"
    if isinstance(pattern, Any):
        reasons = [mismatch(data, one, where) for one in pattern.patterns]
        return "" if "" in reasons else max(reasons, key=len)
    if isinstance(pattern, set):
        return "" if isinstance(data, str) and data in pattern else f"{where} must be one of {', '.join(sorted(pattern))}"
    if isinstance(pattern, type):
        fits = isinstance(data, pattern) and (pattern is bool or not isinstance(data, bool))
        return "" if fits else f"{where} must be {pattern.__name__}"
    if isinstance(pattern, list):
        if not isinstance(data, list):
            return f"{where} must be a list"
        return next((why for k, item in enumerate(data) if (why := mismatch(item, pattern[0], f"{where}[{k}]"))), "")
    if not isinstance(data, dict):
        return f"{where} must be an object"
    if str in pattern:
        return next((why for key, item in data.items() if (why := mismatch(item, pattern[str], f"{where}.{key}"))), "")
    for key, part in pattern.items():
        if key not in data:
            return f"{where}.{key} is missing"
        if why := mismatch(data[key], part, f"{where}.{key}"):
            return why
        if key in NATURAL and isinstance(data[key], int) and data[key] < 0:
            return f"{where}.{key} is negative"
    return ""
