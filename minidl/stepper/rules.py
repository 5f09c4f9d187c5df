"""shape_rule(): why an output has its shape, with the numbers put in: OH = (14 + 2·1 − 1·(3 − 1) − 1) // 2 + 1 = 7."""

import ast

WINDOWED = ("conv2d", "max_pool2d", "avg_pool2d")


def shape_rule(step, tensors):
    """Lines that work the shape of a described forward step out; [] where its rule is "as the input"."""
    shapes = {x["argument"]: tensors[x["tensor"]]["shape"] for x in step["inputs"] if x["tensor"] is not None}
    made = [tensors[y["tensor"]]["shape"] for y in step["outputs"] if y["tensor"] is not None]
    rule = {"matmul": product, "linear": linear, "flatten": flattened, "reshape": flattened, "cat": joined}.get(step["op"])
    rule = windowed if step["op"] in WINDOWED else rule
    if rule is None or not made:
        return []
    return rule(shapes, made[0], step)


def settings(step):
    """The settings whose text is a plain Python value."""
    found = {}
    for name, text in step["settings"].items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
    return found


def pair(value):
    """(down, across)."""
    return tuple(value) * (2 if len(value) == 1 else 1) if isinstance(value, (tuple, list)) else (value, value)


def windowed(shapes, made, step):
    """How many windows fit, along both axes."""
    how = settings(step)
    x, w = shapes["x"], shapes.get("weight")
    kernel = w[2:] if w else pair(how.get("kernel_size", 2))
    stride = pair(how.get("stride") or (1 if w else kernel))
    padding, dilation = pair(how.get("padding", 0)), pair(how.get("dilation", 1))
    if len(x) != 4 or not all(isinstance(p, int) for p in padding):
        return []
    lines = []
    for k, letter in enumerate("HW"):
        reach = f"{dilation[k]}·({kernel[k]} − 1) − 1" if dilation[k] != 1 else f"{kernel[k]}"
        brackets = f"({x[2 + k]} + 2·{padding[k]} − {reach})"
        division = f" // {stride[k]}" if stride[k] != 1 else ""
        if not how.get("ceil_mode"):
            lines.append(f"O{letter} = {brackets}{division} + 1 = {made[2 + k]}")
    if len(lines) == 2 and lines[0].replace("OH", "") == lines[1].replace("OW", ""):
        lines = [lines[0].replace("OH", "OH = OW", 1)]
    if w:
        groups = how.get("groups", 1)
        taken = f"{x[1]}/{groups}" if groups != 1 else f"{x[1]}"
        lines.append(f"each of the {w[0]} filters spans {taken} channels × {w[2]}×{w[3]} = {w[1] * w[2] * w[3]} numbers")
    return lines


def product(shapes, made, step):
    """(M, K) @ (K, N)."""
    x, other = shapes["x"], shapes["other"]
    if len(x) < 2 or len(other) < 2:
        return []
    return [f"({x[-2]}, {x[-1]}) @ ({other[-2]}, {other[-1]}) → ({made[-2]}, {made[-1]}): both have K = {x[-1]}"]


def linear(shapes, made, step):
    """(N, C) and (O, C)."""
    w = shapes["weight"]
    return [f"(…, {shapes['x'][-1]}) · ({w[0]}, {w[1]})ᵀ → (…, {made[-1]}): {w[0]}·{w[1]} = {w[0] * w[1]} weights"]


def flattened(shapes, made, step):
    """Where 512·7·7 comes from."""
    x = shapes["x"]
    if len(made) != 2 or len(x) < 3 or x[0] != made[0]:
        return []
    return [f"{'·'.join(str(n) for n in x[1:])} = {made[1]} numbers of each sample, in one row"]


def joined(shapes, made, step):
    """Sizes along the joined axis add up."""
    dim = settings(step).get("dim", 0) % len(made)
    return [f"axis {dim}: {' + '.join(str(shape[dim]) for shape in shapes.values())} = {made[dim]}"]
