"""The modules of a trace: in order of first use, with what they are and which neighbours are built alike."""

from minidl.stepper.text import safe


def describe_modules(trace, models):
    """[{"path", "type", "text", "parent", "steps", "alike"}] of every module in which an op ran, and of those around it."""
    known = {}
    for model in reversed(models):  # the first one wins where several have a path
        known.update(model.named_modules(remove_duplicate=False))
    used = {}  # path -> ids of its forward steps, those of the modules inside included
    for item in trace.forwards:
        for path in paths_to(item.path):
            used.setdefault(path, []).append(item.step)
    found, alike = [], {}
    for path, steps in used.items():
        module = known.get(path)
        text = safe(" ".join(repr(module).split())) if module is not None else ""
        key = path.rpartition(".")[0], text
        name = type(module).__name__ if module is not None else ""
        found.append({"path": path, "type": name, "text": text[:200], "parent": parent(path), "steps": steps,
                      "alike": alike.setdefault(key, len(alike))})
    return found


def paths_to(path):
    """"a.b" -> "", "a", "a.b"; nothing outside of modules."""
    if path is None:
        return []
    parts = path.split(".") if path else []
    return [".".join(parts[:k]) for k in range(len(parts) + 1)]


def parent(path):
    """The path of the module around this one; None for the outermost."""
    return path.rpartition(".")[0] if path else None
