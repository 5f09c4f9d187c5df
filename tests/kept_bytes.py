"""What each op keeps alive for its backward. `python -m tests.kept_bytes` prints the table; test_every_op.py asserts it."""

from minidl.core.count import kept_arrays
from minidl.core.gradcheck import op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

NONE = ("add", "sub", "neg", "sum", "mean", "reshape", "permute", "transpose", "expand", "cat", "stack", "pad", "narrow", "flip",
        "squeeze", "unsqueeze")


def leaves_of(value):
    """Make every floating tensor of an argument list require grad."""
    if isinstance(value, (list, tuple)):
        return type(value)(leaves_of(v) for v in value)
    if isinstance(value, Tensor) and value.dtype.kind == "f":
        return Tensor(value.array, True)
    return value


def kept_bytes(op, example):
    """The bytes one call keeps for its backward; None if no output carries a gradient."""
    fn, inputs, settings = op_call(op, example)
    y = fn(*leaves_of(inputs), **settings)
    nodes, stack = set(), [t.edge[0] for t in (y if isinstance(y, tuple) else (y,)) if t.edge]
    if not stack:
        return None
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack += [edge[0] for edge in node.next_edges()]
    kept = {}
    for node in nodes:
        kept |= kept_arrays(node)
    return sum(a.nbytes for a in kept.values())


def table():
    """One line per op and example."""
    for name in sorted(OPS):
        for example in OPS[name].examples:
            count = kept_bytes(OPS[name], example)
            yield f"{name:<18} {'no gradient' if count is None else f'{count:6d} bytes':>12}   {example}"


if __name__ == "__main__":
    print("\n".join(table()))
