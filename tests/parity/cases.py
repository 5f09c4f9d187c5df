"""The lines of code that minidl and PyTorch must agree on: (code, {name: shape or value}).

A letter at the end of a shape is the kind of numbers: "+" positive, "t" with ties and zeros, "i" integers, "b" booleans.
"""

BINARY = [((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (3,)), ((0, 2), (2,)), ((2, 3, 2, 2), (3, 1, 1)), ((), ())]
ELEMENTWISE = [
    (code, {"x": (*a, kind), "y": (*b, kind)})
    for code, kind in [
        ("torch.add(x, y, alpha=2.5)", ""), ("x - y", ""), ("torch.sub(x, y, alpha=3)", ""), ("x * y", ""), ("x / y", "+"),
        ("torch.div(x, y, rounding_mode='floor')", ""), ("torch.div(x, y, rounding_mode='trunc')", ""), ("x ** y", "+"),
        ("torch.maximum(x, y)", "t"), ("torch.minimum(x, y)", "t"), ("torch.where(x > y, x, y)", "t"), ("x * x * y", ""),
        ("torch.remainder(x, y)", "+"),
    ]
    for a, b in BINARY
] + [
    (code, {"x": shape}) for code in (
        "x + 2", "2 - x", "x - 2.5", "3 * x", "x / 3", "2 / x", "x ** 3", "x ** 2", "x ** 0.5", "x ** -1", "x ** 0", "2 ** x", "-x",
        "abs(x)",
        "torch.exp(x)", "x.log()", "torch.sqrt(x)", "torch.tanh(x)", "torch.sigmoid(x)", "x.clamp(0.7, 1.2)", "x.clamp(min=1)",
        "torch.clamp(x, max=1.0)", "x.detach() // 0.3 + x", "x % 0.7", "F.relu(x)", "x.clone()", "x.detach() * x", "x * x",
    ) for shape in ((2, 3, "+"), ("+",), (0, 3, "+"))
] + [
    (code, {"x": (3, 4, "t")}) for code in (
        "abs(x)", "torch.relu(x)", "x.clamp(-1, 1)", "x.clamp(min=0)", "x.clamp(2, -2)", "torch.sign(x)", "x ** 2", "x ** 3", "x ** 0",
        "x ** 1",
        "torch.maximum(x, x * 1)", "torch.where(x > 0, x, 0.0)", "torch.where(x > 0, 1.5, x)", "x.exp().log()",
    )
] + [("torch.where(c, x, y)", {"c": (2, 1, "b"), "x": (3,), "y": ()}),
     ("torch.maximum(x, y)", {"x": (4, "i"), "y": (4,)}), ("x + y", {"x": (4, "i"), "y": (4, 1)}), ("x * y", {"x": (2, "f"), "y": (2,)}),
     ("x * y", {"x": (2, "f"), "y": ()})]

REDUCTIONS = [("torch.std(x, 1)", {"x": (2, 3, 4)}), ("x.std((0, 1), correction=0)", {"x": (2, 3, 4)})] + [
    (code, {"x": shape})
    for code in (
        "x.sum()", "x.mean()", "x.var()", "torch.sum(x, 0)", "x.sum(-1, keepdim=True)", "x.sum((0, 2))", "x.mean((0, -1), keepdim=True)",
        "torch.mean(x, 1)", "x.var(1)", "x.var((0, 2), unbiased=False)", "x.var(dim=1, correction=0, keepdim=True)",
        "torch.var(x, correction=2)",
        "x.amax(1)", "x.amax((0, 2), keepdim=True)", "torch.amax(x)", "x.amin(-1)", "x.max()", "x.min()", "x.max(1)",
        "torch.max(x, -1, keepdim=True)", "x.min(dim=0)", "x.argmax()", "x.argmax(1)", "torch.argmin(x, -1, keepdim=True)",
        "torch.logsumexp(x, 1)", "x.logsumexp((0, 2), keepdim=True)", "F.softmax(x, 1)", "x.softmax(-1)", "torch.log_softmax(x, dim=0)",
        "F.log_softmax(x, dim=2)", "F.softmax(x, dim=-1, dtype=torch.float64)", "x.sum(dim=[0, 1])", "x.all()", "torch.any(x, 1)",
    )
    for shape in ((2, 3, 4), (2, 3, 4, "t"), (3, 2, 2, "t"))
] + [("x.sum()", {"x": ()}), ("x.mean(0)", {"x": ()}), ("x.sum(-1)", {"x": ()}), ("x.amax(0)", {"x": ()}),
    ("torch.softmax(x, 0)", {"x": ()}),
     ("x.logsumexp(0)", {"x": ()}), ("x.sum(0)", {"x": (0, 3)}), ("x.sum(1)", {"x": (2, 0)}), ("x.softmax(1)", {"x": (0, 3)}),
     ("x.logsumexp(1)", {"x": (2, 0)}), ("x.sum(1, dtype=torch.float32)", {"x": (2, 3)}), ("x.sum()", {"x": (3, "i")}),
     ("x.sum()", {"x": (3, "b")}),
     ("torch.max(x, y)", {"x": (3, "t"), "y": (3, "t")}), ("x.sum((1, 3))", {"x": (2, 3, 2, 2)}), ("x.max(1)", {"x": (2, 3, 2, 2)})]

SHAPES = [(code, {"x": (2, 3, 4)}) for code in (
    "x.reshape(6, 4)", "x.reshape(-1)", "x.view(2, -1, 2, 2)", "x.transpose(0, 2).reshape(4, 6)", "torch.reshape(x, (3, -1))",
    "x.view((4, 6))",
    "x.flatten()", "x.flatten(1)", "torch.flatten(x, 0, 1)", "torch.flatten(x, start_dim=-2)", "x.permute(2, 0, 1)",
    "torch.permute(x, (1, -1, 0))",
    "x.transpose(-1, 0)", "x.mT", "x.unsqueeze(0)", "x.unsqueeze(-1)", "torch.unsqueeze(x, 2)", "x[:, :1].squeeze(1)", "x[:, :1].squeeze()",
    "x.squeeze(0)", "x[:1, :, :1].squeeze((0, 2))", "x.unsqueeze(1).expand(2, 5, 3, 4)", "x.unsqueeze(1).expand(-1, 5, -1, -1)",
    "x.expand(2, 2, 3, 4)", "torch.cat([x, x * 2])", "torch.cat((x, x[:, :1]), 1)", "torch.cat([x, x[..., :0]], dim=-1)",
    "torch.stack([x, x * x])",
    "x.unbind(-1)", "torch.stack((x, x), dim=-1)", "torch.stack([x, x, x], 1)", "x.split(2, 1)", "torch.split(x, [1, 3], dim=2)",
    "x.split(5, 1)", "x.chunk(2, 1)",
    "x.chunk(3, -1)", "torch.chunk(x, 7, dim=1)", "torch.unbind(x, 1)", "x.flip(0)", "x.flip(0, -1)", "torch.flip(x, (1,))",
    "torch.flip(x, [0, 1, 2])",
    "x.narrow(1, 1, 2)", "torch.narrow(x, -1, -3, 2)", "x.narrow(0, 2, 0)", "x.select(1, -1)", "torch.select(x, 0, 1)",
    "F.pad(x, (1, 2))", "F.pad(x, (0, 1, 2, 0))", "F.pad(x, (1, 1, 0, 0, 2, 1), value=1.5)", "F.pad(x, (-1, 2, 1, -1))",
    "F.pad(x, (-2, -2))",
    "F.pad(x, (3, -2))", "F.pad(x, (1, 1), mode='constant', value=-1.0)", "F.pad(x, ())", "x.expand_as(x)",
    "x.view_as(x.transpose(0, 1).reshape(4, 6))", "x[0].T",
)] + [
    ("torch.cat([x, y])", {"x": (2, 3), "y": (2, 3, "f")}), ("torch.cat([x, y])", {"x": (2, "i"), "y": (3,)}),
    ("torch.stack([x, y])", {"x": (), "y": ("i",)}),
    ("torch.cat([x, y, x], 1)", {"x": (2, 3, 2, 2), "y": (2, 1, 2, 2)}), ("x.reshape(2, 12)", {"x": (2, 3, 2, 2)}),
    ("x.flatten(1)", {"x": (2, 3, 2, 2)}),
    ("(x * 2).reshape(3, 2, 4)", {"x": (2, 3, 2, 2)}), ("F.pad(x, (1, 2, 0, 1))", {"x": (2, 3, 2, 2)}), ("x.flatten()", {"x": ()}),
    ("x.reshape(())", {"x": (1, 1)}), ("x.transpose(0, -1)", {"x": ()}), ("x.squeeze()", {"x": ()}), ("x.squeeze(-1)", {"x": ()}),
    ("x.unsqueeze(0)", {"x": ()}), ("x.expand(2, 3)", {"x": ()}), ("x.expand(0, 3)", {"x": (1, 1)}), ("x.reshape(0, 5)", {"x": (3, 0)}),
    ("x.flatten()", {"x": (3, 0, 2)}), ("x.split(2)", {"x": (0, 2)}), ("x.chunk(2)", {"x": (0, 2)}), ("torch.unbind(x)", {"x": (0, 2)}),
    ("x.split([0, 2, 0])", {"x": (2, 2)}), ("F.pad(x, (1, 1), value=2)", {"x": (2, "i")}), ("torch.flip(x, ())", {"x": (2, 2)}),
    ("x.flip(0)", {"x": (0,)}),
]

INDEXING = [(f"x[{index}]", {"x": (4, 3, 5), "i": (2, 2, "i"), "j": (2, "i"), "m": (4, "b"), "m2": (4, 3, "b"), "m3": (4, 3, 5,
    "b")}) for index in (
    "0", "-1", "1, 2", "1, 2, 3", "1, 2, -3", ":", "1:3", "::2", "1:, :, ::3", "-2:", "5:", "2:1", "...", "..., 0", "0, ...", "None",
    ":, None, 1", "..., None",
    "None, 0, ..., None", "[0, 2]", "[0, 0, 1]", ":, [0, 2, 2]", "..., [4, 0]", "[0, 1], [2, 0]", "[0, 1], :, [2, 0]", "0, :, [1, 2]",
    "[1, 2], :, 0",
    "[1, 2], 0", "0, [1, 2]", ":, 0, [1, 2]", "[[0], [1]], [0, 2]", "None, [0, 1], None, [1, 0]", "[0, 1], None, [1, 0]", "i % 3",
    ":, i % 3", "i % 3, j % 2",
    "i % 3, :, j % 2", "j, j", "m", "m2", "m3", ":2, m2[0]", "m, 1", "m, ..., 0", "x > 0", "1:3, m2[1]", "torch.tensor(1)",
    "torch.tensor(1), [0, 1]", "True", "False", "None, True", "[]", ":, []", "0, 0, 0", "np.array([1, 2])", "np.int64(2)",
    "[True, False, True, True]",
    "(1, 2)", "[-1, -2], [-1, 0]", "slice(None), slice(0, 2)", "1:3, [0, 2], 1:4", "[0, 1, 1], [0, 1, 1], [3, 3, 3]", "m, None", "0, m2[0]",
)] + [("x[...]", {"x": ()}), ("x[None]", {"x": ()}), ("x[()]", {"x": ()}), ("x[True]", {"x": ()}), ("x[x > 0]", {"x": ()}),
    ("x[0:0]", {"x": (3,)}),
      ("x[[1, 1, 1]] * y[[0, 0]].sum()", {"x": (2,), "y": (3,)}), ("x[:, i]", {"x": (2, 3, 2, 2), "i": (0, "i")}),
      ("x[:, 1]", {"x": (0, 3)}),
      ("x[i]", {"x": (5, 2, "i"), "i": (3, "i")}), ("x[m]", {"x": (5, "b"), "m": (5, "b")}), ("x[:, [0, 2]]", {"x": (2, 3, 2, 2)})]

PRODUCTS = [(code, {"x": x, "y": y}) for code in ("torch.matmul(x, y)", "x @ y") for x, y in (
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2)), ((4, 2, 3), (3, 5)),
    ((2, 3), (4, 3, 5)),
    ((4, 2, 3), (4, 3, 5)), ((4, 1, 2, 3), (5, 3, 2)), ((1, 2, 3), (4, 3, 2)), ((2, 1, 2, 3), (2, 4, 3, 2)), ((0, 3), (3, 2)),
    ((2, 0), (0, 3)), ((0,), (0,)),
    ((2, 0, 3), (3, 2)), ((2, 3, 0), (0, 2)), ((2, 3, "i"), (3, 2, "i")), ((2, 2, 3, "i"), (3, "i")),
)] + [(f"torch.einsum({equation!r}, {', '.join(shapes)})", shapes) for equation, shapes in (
    ("ij->ji", {"x": (2, 3)}), ("ij->", {"x": (2, 3)}), ("ij->j", {"x": (2, 3)}), ("ij", {"x": (2, 3)}), ("ba", {"x": (2, 3)}),
    ("ii", {"x": (3, 3)}),
    ("ii->i", {"x": (3, 3)}), ("iii->i", {"x": (2, 2, 2)}), ("iij->j", {"x": (3, 3, 2)}), ("iijj->ij", {"x": (2, 2, 3, 3)}),
    ("ijij->", {"x": (2, 3, 2, 3)}),
    ("ik,kj->ij", {"x": (2, 3), "y": (3, 4)}), ("ik,kj", {"x": (2, 3), "y": (3, 4)}), ("i,j->ij", {"x": (2,), "y": (3,)}),
    ("i,i->", {"x": (3,), "y": (3,)}),
    ("bij,bjk->bik", {"x": (2, 3, 2), "y": (2, 2, 4)}), ("bn,anm,bm->ba", {"x": (2, 3), "y": (5, 3, 2), "z": (2, 2)}),
    ("...i,...i->...", {"x": (2, 4, 3), "y": (4, 3)}), ("...ij->...ji", {"x": (2, 4, 3)}), ("i...->...", {"x": (2, 4, 3)}),
    ("...", {"x": (2, 3)}),
    ("...ik,...kj", {"x": (2, 1, 2, 3), "y": (4, 3, 2)}), ("ij,jk,kl->il", {"x": (2, 3), "y": (3, 4), "z": (4, 2)}),
    ("ij,kl->ij", {"x": (2, 3), "y": (2, 2)}),
    ("ii,i->i", {"x": (3, 3), "y": (3,)}), ("ii,ij->j", {"x": (3, 3), "y": (3, 2)}), ("ij,ij->i", {"x": (2, 3), "y": (1, 3)}),
    ("i,i->", {"x": (3,), "y": (1,)}),
    ("i,i->i", {"x": (1,), "y": (3,)}), (",i->i", {"x": (), "y": (3,)}), ("->", {"x": ()}), ("ij,jk->ik", {"x": (0, 3), "y": (3, 2)}),
    ("ij,jk->ik", {"x": (2, 0), "y": (0, 2)}), ("Ab,bC->AC", {"x": (2, 3), "y": (3, 2)}), ("bA", {"x": (2, 3)}),
    ("i...,...j->ij...", {"x": (2, 4), "y": (4, 3)}),
    ("ij,jk->ik", {"x": (2, 3, "i"), "y": (3, 2, "i")}), ("nchw,ochw->no", {"x": (2, 3, 2, 2), "y": (4, 3, 2, 2)}),
    ("... i, i -> ...", {"x": (2, 3), "y": (3,)}),
    ("ij,i,j->", {"x": (2, 3), "y": (2,), "z": (3,)}), ("...ii->...i", {"x": (2, 3, 3)}),
)] + [("torch.einsum('ik,kj->ij', [x, y])", {"x": (2, 3), "y": (3, 4)}), ("torch.einsum('i,i', x, x)", {"x": (3,)})]

LOSSES = [(code, {"x": (5, 3), "t": [2, 0, -1, 1, 0], "w": (3, "+")}) for code in (
    "F.cross_entropy(x, torch.tensor(t).clamp(min=0))", "F.cross_entropy(x, torch.tensor(t), ignore_index=-1)",
    "F.cross_entropy(x, torch.tensor(t), ignore_index=-1, reduction='sum')",
    "F.cross_entropy(x, torch.tensor(t), ignore_index=-1, reduction='none')",
    "F.cross_entropy(x, torch.tensor(t), ignore_index=-1, label_smoothing=0.1)",
    "F.cross_entropy(x, torch.tensor(t), w.detach(), ignore_index=-1)",
    "F.cross_entropy(x, torch.tensor(t), weight=w.detach(), ignore_index=-1, label_smoothing=0.2)",
    "F.cross_entropy(x, torch.tensor(t), weight=w.detach(), ignore_index=-1, label_smoothing=0.2, reduction='sum')",
    "F.cross_entropy(x, torch.tensor(t), weight=w.detach(), ignore_index=-1, label_smoothing=0.2, reduction='none')",
)] + [
    ("F.cross_entropy(x, torch.tensor([[[0, 2], [1, 1]], [[2, 2], [0, 1]]]))", {"x": (2, 3, 2, 2)}),
    ("F.cross_entropy(x, torch.tensor(1))", {"x": (3,)}),
    ("F.mse_loss(x, y)", {"x": (2, 3), "y": (2, 3)}), ("F.mse_loss(x, y, reduction='sum')", {"x": (2, 3), "y": (2, 3)}),
    ("F.mse_loss(x, y, reduction='none')", {"x": (2, 3), "y": (2, 3)}),
]

LINES = ELEMENTWISE + REDUCTIONS + SHAPES + INDEXING + PRODUCTS + LOSSES

DTYPE_LINES = (
    "x + y", "x - y", "x * y", "x / y", "x // y", "x ** y", "x % y", "torch.maximum(x, y)", "torch.where(x > 0, x, y)", "x == y", "x < y",
    "x & y", "x | y",
    "torch.cat([x, x])", "torch.stack([x, x])", "x + 1", "x + 1.5", "x + True", "x * 2.5", "x / 2", "x // 2", "2 - x", "x ** 2",
    "x ** 2.0", "-x", "abs(x)",
    "~x", "torch.exp(x)", "torch.sqrt(x)", "torch.tanh(x)", "torch.sigmoid(x)", "torch.relu(x)", "torch.sign(x)", "x.clamp(0, 1)",
    "x.clamp(0.5, 1.5)",
    "x.sum()", "x.sum(0)", "x.mean()", "x.var()", "x.amax(0)", "x.max(0)", "x.argmax()", "x.all()", "x.any(0)", "x.logsumexp(0)",
    "torch.softmax(x, 0)",
    "torch.isnan(x)", "x[0]", "x.flip(0)", "x.reshape(-1)", "F.pad(x, (1, 0), value=1)", "x @ x",
)
