"""Call sites: which line of the user's program (or of a model) called an op."""

import sys

_INSIDE = {}  # file name -> is it part of the engine, not of a model or a user's program?


def call_site(depth=2):
    """(code, instruction) of the innermost line outside the engine. Resolved to file and line only when shown."""
    frame = sys._getframe(depth)
    while True:
        name = frame.f_code.co_filename
        inside = _INSIDE.get(name)
        if inside is None:
            inside = _INSIDE[name] = any(f"minidl/{part}/" in name.replace("\\", "/") for part in ("core", "ops", "nn", "optim"))
        if not inside or frame.f_back is None:
            return frame.f_code, frame.f_lasti
        frame = frame.f_back


def resolve(site):
    """(file, line) of a call site."""
    code, instruction = site
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno
