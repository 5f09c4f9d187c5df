"""Where things stand on the page: the outline's tree with its folds and lanes, and the small graph around an op.

An op here is a dict with "name", "path" (its module, "layer1.0.conv1"), "reads" and "makes" (numbers of tensors), and
"kind": what must be equal for two ops to count as the same in a fold. Nothing here looks at a tensor.
"""

from itertools import groupby

MOST = 15  # nodes of a graph that still reads well


def flow(steps):
    """The ops of a trace from its forward steps, given as (op, path, settings, tensors read, tensors made, training step).

    A tensor is (number, shape, was it made by an op). Where several training steps follow each other, each is a module
    around its ops.
    """
    steps, ops = list(steps), []
    several = len({turn for *_, turn in steps}) > 1
    for name, path, settings, reads, makes, turn in steps:
        kind = name, tuple(sorted(settings.items())), tuple(tuple(shape) for _, shape, _ in [*reads, *makes])
        around = [f"training step {turn}"] if several else []
        ops.append({"name": name, "path": ".".join([*around, path] if path else around), "reads": [n for n, _, made in reads if made],
                    "makes": [n for n, _, _ in makes], "kind": kind})
    return ops


class Group:
    """A module call in the outline, a run of identical ones ("1-5 ×5"), or (with `op`) one op."""

    def __init__(self, name, path, op=None):
        self.name, self.path, self.op, self.copies = name, path, op, 1
        self.children = []

    first = property(lambda self: self.op if self.op is not None else self.children[0].first)
    last = property(lambda self: self.op if self.op is not None else self.children[-1].last)

    def kind(self, ops):
        """Equal for two groups that do the same."""
        return ops[self.op]["kind"] if self.op is not None else tuple(child.kind(ops) for child in self.children)


def tree(ops):
    """The outline's groups: ops in order of execution under the modules that called them."""
    root = Group("", "")
    for number, op in enumerate(ops):
        parts = [part for part in op["path"].split(".") if part]
        here = root
        for depth, part in enumerate(parts):
            path = ".".join(parts[:depth + 1])
            newest = here.children[-1] if here.children else None
            if newest is None or newest.op is not None or newest.path != path:
                newest = Group(part, path)
                here.children.append(newest)
            here = newest
        here.children.append(Group(op["name"], op["path"], number))
    root.children = [simplified(child) for child in root.children]
    fold(root, ops)
    return root


def simplified(group):
    """A module that is one op becomes that op, under the module's name."""
    if group.op is not None:
        return group
    group.children = [simplified(child) for child in group.children]
    if len(group.children) == 1 and group.children[0].op is not None:
        only = group.children[0]
        only.name = group.name if only.path == group.path else f"{group.name}.{only.name}"
        return only
    return group


def fold(group, ops):
    """Put neighbours that do the same under one row."""
    for child in group.children:
        fold(child, ops)
    runs = []
    for _, run in groupby(group.children, lambda child: child.kind(ops) if child.op is None else id(child)):
        run = list(run)
        if len(run) > 1:
            folded = Group(f"{run[0].name}–{run[-1].name.rpartition(' ')[2]}", run[0].path.rpartition(".")[0])
            folded.children, folded.copies = run, len(run)
            run = [folded]
        runs += run
    group.children = runs


def occupied(ops):
    """For each op, which lane every tensor that is still needed has before it and after it: [({tensor: lane}, ...)]."""
    last_use = {tensor: number for number, op in enumerate(ops) for tensor in op["reads"]}
    made = {tensor for op in ops for tensor in op["makes"]}
    lanes, result = {}, []
    for number, op in enumerate(ops):
        before = dict(lanes)
        reads = [tensor for tensor in dict.fromkeys(op["reads"]) if tensor in lanes]
        for tensor in reads:
            if last_use[tensor] == number:
                del lanes[tensor]
        here = min((before[tensor] for tensor in reads), default=free(lanes))
        if any(last_use.get(tensor, -1) > number for tensor in op["makes"]):
            for tensor in [tensor for tensor, lane in lanes.items() if lane == here]:
                del lanes[tensor]
                lanes[tensor] = free(lanes, here)  # what goes past this op steps aside
        for tensor in op["makes"]:
            if tensor in made and last_use.get(tensor, -1) > number:
                lanes[tensor] = here if here not in lanes.values() else free(lanes)
        result.append((before, dict(lanes), here))
    return result


def free(lanes, *taken):
    """The first lane that nothing is in."""
    used = {*lanes.values(), *taken}
    return next(lane for lane in range(len(used) + 1) if lane not in used)


def lane_row(places, ops, first, last):
    """How the lines run through one row: the node's lane, what is there before, what passes [from, to], comes in, goes out."""
    before, after, here = places[first][0], places[last][1], places[last][2]
    read = {tensor for op in ops[first:last + 1] for tensor in op["reads"]}
    return {"lane": here, "before": sorted(set(before.values())),
            "past": [[lane, after[tensor]] for tensor, lane in before.items() if tensor in after],
            "in": sorted({lane for tensor, lane in before.items() if tensor in read}),
            "out": sorted({lane for tensor, lane in after.items() if tensor not in before})}


def outline(ops):
    """The rows of the outline, parents before children: level, name, span of ops, parent's row, lanes."""
    places, rows = occupied(ops), []

    def add(group, level, parent):
        row = len(rows)
        rows.append({"level": level, "name": group.name, "path": group.path, "first": group.first, "last": group.last,
                     "parent": parent, "op": group.op if group.op is not None else -1, "copies": group.copies,
                     **lane_row(places, ops, group.first, group.last)})
        for child in group.children:
            add(child, level + 1, row)

    root = tree(ops)
    for child in root.children:
        add(child, 1, -1)
    return rows


def graphs(ops):
    """([graph], graph of each op): the nearest module around an op that branches and is small enough to read."""
    drawn, which, numbers = [], [0] * len(ops), {}

    def visit(group, around):
        here = [*around, group]
        for child in group.children:
            if child.op is None:
                visit(child, here)
            else:
                key, nodes = chosen(here, child.op, ops)
                if key not in numbers:
                    numbers[key] = len(drawn)
                    drawn.append(graph(nodes, ops, key[0]))
                which[child.op] = numbers[key]

    visit(tree(ops), [])
    return drawn, which


def parts(group):
    """What a graph of this group shows as nodes: its children, those of a fold one by one."""
    return [part for child in group.children for part in (child.children if child.copies > 1 else [child])]


def chosen(around, op, ops):
    """What to draw for an op, ((path, first op), nodes): the nearest group that branches, or else the largest that fits."""
    best = None
    for group in reversed(around):
        nodes = parts(group)
        if len(nodes) > MOST:
            break
        best = group, nodes
        if any(len(edges) > 1 for edges in readers(nodes, ops).values()):
            break
    if best is None:  # too many: those around the op
        group, nodes = around[-1], parts(around[-1])
        at = next(k for k, node in enumerate(nodes) if node.first <= op <= node.last)
        start = max(0, min(at // 5 * 5 - 5, len(nodes) - MOST))
        best = group, nodes[start:start + MOST]
    return (best[0].path, best[1][0].first), best[1]


def readers(nodes, ops):
    """{tensor: the nodes that read it} among the tensors that pass between these nodes, or into them."""
    made = {tensor: k for k, node in enumerate(nodes) for op in ops[node.first:node.last + 1] for tensor in op["makes"]}
    everything = {tensor for op in ops for tensor in op["makes"]}
    result = {}
    for k, node in enumerate(nodes):
        for op in ops[node.first:node.last + 1]:
            for tensor in op["reads"]:
                if tensor in everything and made.get(tensor) != k:
                    result.setdefault(tensor, {})[k] = True
    return {tensor: list(found) for tensor, found in result.items()}


def graph(nodes, ops, path):
    """Nodes with places (column, row), and edges [from, to, tensor]; what comes from outside has a node without ops."""
    made = {tensor: k for k, node in enumerate(nodes) for op in ops[node.first:node.last + 1] for tensor in op["makes"]}
    found = readers(nodes, ops)
    outside = [tensor for tensor in found if tensor not in made]
    places = {tensor: k for k, tensor in enumerate(outside)} | {tensor: len(outside) + k for tensor, k in made.items()}
    edges = [[places[tensor], len(outside) + k, tensor] for tensor, readers_ in found.items() for k in readers_]
    count = len(outside) + len(nodes)
    column, rows, taken = [0] * count, [0] * count, {}
    for k in range(len(outside), count):  # nodes stand in order of execution, so every edge goes forward
        column[k] = max((column[a] + 1 for a, b, _ in edges if b == k), default=0)
    for k in range(count):
        row = min((rows[a] for a, b, _ in edges if b == k), default=0)
        while row in taken.setdefault(column[k], set()) or crossed(k, row, edges, column, rows):
            row += 1
        rows[k] = row
        taken[column[k]].add(row)
    drawn = [{"name": "", "first": -1, "last": -1, "op": -1, "tensor": tensor} for tensor in outside]
    drawn += [{"name": node.name, "first": node.first, "last": node.last, "op": -1 if node.op is None else node.op} for node in nodes]
    return {"path": path, "edges": edges, "nodes": [{**node, "column": column[k], "row": rows[k]} for k, node in enumerate(drawn)]}


def crossed(k, row, edges, column, rows):
    """Would a node here stand on an edge that passes it in this row?"""
    return any(a < k < b and rows[a] == row and column[a] < column[k] < column[b] and not any(x == a and y == k for x, y, _ in edges)
               for a, b, _ in edges)
