"""How fast on this device: ceilings, tile shapes, every rung of convolution, batch norm, whole steps; PyTorch beside it where it is."""

import time

import numpy as np

import minidl
from benchmarks.gpu_torch import LAYOUTS, Torch
from minidl import backend
from minidl.backend.cuda import tiles
from minidl.backend.layout import empty
from minidl.backend.window import output_size
from minidl.core.config import use_tf32
from minidl.core.device import module_for

# network, N, C, H, W, O, kernel, stride, padding; the first of them measure the whole ladder, the others its upper rungs
LAYERS = [
    ("resnet50 layer1 3x3", 64, 64, 56, 56, 64, (3, 3), 1, (1, 1)), ("resnet50 layer2 3x3", 64, 128, 28, 28, 128, (3, 3), 1, (1, 1)),
    ("vgg16 conv3_2", 32, 256, 56, 56, 256, (3, 3), 1, (1, 1)), ("resnet50 layer1 1x1 up", 64, 64, 56, 56, 256, (1, 1), 1, (0, 0)),
    ("resnet50 stem", 64, 3, 224, 224, 64, (7, 7), 2, (3, 3)), ("inception_v3 17x17 1x7", 32, 128, 17, 17, 192, (1, 7), 1, (0, 3)),
    ("resnet50 layer3 3x3", 64, 256, 14, 14, 256, (3, 3), 1, (1, 1)), ("resnet50 layer4 3x3", 64, 512, 7, 7, 512, (3, 3), 1, (1, 1)),
    ("vgg16 conv4_2", 32, 512, 28, 28, 512, (3, 3), 1, (1, 1)), ("inception_v3 35x35 5x5", 32, 48, 35, 35, 64, (5, 5), 1, (2, 2)),
    ("resnet50 layer3 1x1 down", 64, 1024, 14, 14, 256, (1, 1), 1, (0, 0)),
    ("resnet50 layer2 3x3 s2", 64, 128, 56, 56, 128, (3, 3), 2, (1, 1)),
    ("vgg16 conv1_2", 32, 64, 224, 224, 64, (3, 3), 1, (1, 1)), ("inception_v3 3x3 s2", 32, 288, 35, 35, 384, (3, 3), 2, (0, 0)),
    ("vgg16 conv2_2", 32, 128, 112, 112, 128, (3, 3), 1, (1, 1)), ("resnet50 layer4 1x1 up", 64, 512, 7, 7, 2048, (1, 1), 1, (0, 0)),
    ("vgg16 conv5", 32, 512, 14, 14, 512, (3, 3), 1, (1, 1)), ("inception_v3 17x17 1x1", 32, 768, 17, 17, 192, (1, 1), 1, (0, 0)),
    ("vgg16 conv1_1", 32, 3, 224, 224, 64, (3, 3), 1, (1, 1)), ("inception_v3 stem", 32, 3, 299, 299, 32, (3, 3), 2, (0, 0)),
    ("inception_v3 8x8 3x3", 32, 448, 8, 8, 384, (3, 3), 1, (1, 1)), ("resnet50 layer1 1x1 down", 64, 256, 56, 56, 64, (1, 1), 1, (0, 0)),
]
WHOLE_LADDER = 4                       # layers on which the slow rungs run too
SLOW = ("v1_thread_per_output", "v2_shared_tile", "im2col")
PRECISION = {"v5_tf32": ("tf32", True), "v6_3xtf32": ("3xtf32", "3x")}
NORMS = [(64, 64, 112, 112), (64, 256, 56, 56), (64, 512, 28, 28), (64, 2048, 7, 7)]
STEPS = [("resnet18", 64), ("resnet50", 64), ("vgg16", 32), ("resnet50", 256)]


def timed(function, seconds=0.04, most=50):
    """Milliseconds of one call on the device: the least of three runs of several, between two events."""
    cuda = module_for("cuda").cuda
    function()
    start, end = cuda.Event(), cuda.Event()

    def run(times):
        start.record()
        for _ in range(times):
            function()
        end.record()
        end.synchronize()
        return cuda.get_elapsed_time(start, end) / times

    first = run(1)
    times = int(min(most, max(2, seconds * 1e3 / max(first, 1e-3))))
    return min(run(times) for _ in range(3)) if first < 500 else first


def drawn(shape, seed=0):
    """Normal numbers on the device, images stored channels-last; a million drawn, then repeated."""
    numbers = np.random.default_rng(seed).standard_normal(1 << 20, np.float32)
    module = module_for("cuda")
    y = empty(shape, np.dtype(np.float32), module.empty(0, np.float32))
    base = y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
    base[...] = module.asarray(np.resize(numbers, base.shape))
    return y


def error(ours, right):
    """max |ours − right| / max |right|, computed on the device."""
    return float(abs(ours - right).max() / abs(right).max())


def forget():
    """Give the memory of the last job back to the device."""
    module_for("cuda").get_default_memory_pool().free_all_blocks()


# --- ceilings -----------------------------------------------------------------------------------------------------------

def ceiling_jobs(dry_run):
    """What the device can do at most: a copy, and the vendor's product of matrices in both precisions; the price of a launch."""
    torch = Torch(dry_run)

    def copy():
        n = 1 << (16 if dry_run else 28)
        x, y = drawn((n,)), drawn((n,))
        ms = timed(lambda: module_for("cuda").copyto(y, x))
        return [{"ours_ms": ms, "precision": "fp32", "gbs": 8 * n / ms / 1e6, "note": f"{8 * n / ms / 1e6:.0f} GB/s, read and write"}]

    def product(n, tf32):
        def run():
            x = drawn((n, n))
            ms = timed(lambda: module_for("cuda").matmul(x, x))
            row = {"precision": "fp32", "ours_ms": ms, "note": f"{2 * n**3 / ms / 1e9:.1f} TFLOP/s by CuPy's cuBLAS"}
            if torch:
                with torch.precision(tf32):
                    t = torch.tensor(x)
                    theirs = torch.timed(lambda: t @ t)
                row |= {"precision": "tf32" if tf32 else "fp32", "torch_ms": theirs, "ratio": theirs / ms if not tf32 else None,
                        "note": row["note"] + f", {2 * n**3 / theirs / 1e9:.1f} by PyTorch's"}
            return [row]
        return run

    def launch():
        x = drawn((32,))
        started = time.perf_counter()
        for _ in range(200):
            np.add(x, 1, out=x)
        host = (time.perf_counter() - started) * 5
        minidl.cuda.synchronize()
        return [{"ours_ms": host, "note": "milliseconds of the host per small CuPy launch"}]

    n = 64 if dry_run else 8192
    return {"copy": copy, "product": product(n, False), "product tf32": product(n, True), "launch": launch}


# --- convolution --------------------------------------------------------------------------------------------------------

class Layer:
    """One convolution with its arrays, and the calls of the backend for its three products."""

    def __init__(self, row, dry_run):
        self.name, N, C, H, W, O, kernel, stride, pad = row
        if dry_run:
            N, H, W, C, O = 1, max(kernel[0], 9), max(kernel[1], 9), min(C, 8), min(O, 20)
        self.stride, self.pad, self.shapes = (stride, stride), pad, ((N, C, H, W), (O, C, *kernel))
        self.how = {"stride": self.stride, "padding": tuple((p, p) for p in pad), "dilation": (1, 1), "groups": 1}
        OH, OW = output_size((N, C, H, W), kernel, self.stride, self.how["padding"], (1, 1))
        self.gflop = 2e-9 * N * O * OH * OW * C * kernel[0] * kernel[1]
        self.x, self.w, self.grad_y = drawn((N, C, H, W)), drawn((O, C, *kernel), 1), drawn((N, O, OH, OW), 2)

    def call(self, op):
        """(arrays, settings) as backend.run(op) gets them."""
        if op == "conv2d":
            return (self.x, self.w, None), self.how
        if op == "conv2d_grad_x":
            return (self.grad_y, self.w), self.how | {"x_shape": self.shapes[0]}
        return (self.x, self.grad_y), self.how | {"w_shape": self.shapes[1]}


def conv_jobs(dry_run):
    """One job per layer and product: every rung that takes it, beside PyTorch in its better layout at the same precision."""
    torch = Torch(dry_run)

    def job(number, row, op):
        def run():
            forget()
            layer, rows = Layer(row, dry_run), []
            theirs = {}
            if torch:
                arrays = (layer.x, layer.w, layer.grad_y)
                theirs = {tf32: torch.best_conv(op, arrays, layer.stride, layer.pad, tf32) for tf32 in (False, True)}
            arrays, how = layer.call(op)
            right = torch.array(theirs[False][2], module_for("cuda")) if torch else None
            for implementation in backend.IMPLEMENTATIONS[op]:
                rung = implementation.name.partition("/")[2]
                if implementation.backend != "cuda" or rung in SLOW and (number >= WHOLE_LADDER or layer.gflop > 60):
                    continue
                precision, switch = PRECISION.get(rung, ("fp32", False))
                with use_tf32(switch):
                    if implementation.refusal(arrays, how):
                        continue
                    result = implementation.function(*arrays, **how)
                    right = result if right is None else right
                    ms = timed(lambda f=implementation.function: f(*arrays, **how))
                torch_ms, layout = theirs[precision == "tf32"][:2] if torch else (None, None)
                rows.append({"name": f"{layer.name} {op} · {rung}", "precision": precision, "ours_ms": ms, "torch_ms": torch_ms,
                             "ratio": torch_ms / ms if torch else None, "max_err": error(result, right), "gflop": layer.gflop,
                             "note": f"{layer.gflop / ms:.1f} TFLOP/s{f', PyTorch {layout}' if torch else ''}"})
            return rows
        return run

    layers = LAYERS[:3] if dry_run else LAYERS
    return {f"{row[0]} {op}": job(number, row, op) for number, row in enumerate(layers)
            for op in ("conv2d", "conv2d_grad_x", "conv2d_grad_w") if not (op == "conv2d_grad_x" and row[2] == 3)}


TILES = [{"BM": BM, "BN": BN} for BM in (64, 128) for BN in (64, 128)]


def tile_jobs(dry_run):
    """Which tile shape is quickest for each rung that has a choice, for wide and for narrow results; kept in this device's table."""
    def job(op, rung, row, key):
        def run():
            layer = Layer(row, dry_run)
            arrays, how = layer.call(op)
            function = next(i.function for i in backend.IMPLEMENTATIONS[op] if i.name == f"cuda/{rung}")

            def launch(shape):
                with tiles.override(key, **shape), use_tf32(PRECISION.get(rung, ("", False))[1]):
                    function(*arrays, **how)

            candidates = TILES if not dry_run else TILES[:2]
            found = tiles.measure(key, [s for s in candidates if "/narrow" not in key or s["BN"] == 64], launch, layer.x,
                                  store=not dry_run)
            return [{"name": f"tile {key} {shape}", "ours_ms": seconds * 1e3, "note": reason or ("the quickest" if not k else None)}
                    for k, (shape, seconds, reason) in enumerate(found) if seconds < float("inf")] or [{"note": found[0][2]}]
        return run

    wide, narrow = LAYERS[1], LAYERS[0]
    rungs = ["v4_double_buffered", "v5_tf32", "v6_3xtf32"][:1 if dry_run else 3]
    return {f"tile {op}_{rung}{end}": job(op, rung, row, f"{op}_{rung}{end}") for op in ("conv2d", "conv2d_grad_x") for rung in rungs
            for row, end in ((wide, ""), (narrow, "/narrow"))}


# --- batch norm -----------------------------------------------------------------------------------------------------------

def norm_jobs(dry_run):
    """Forward (3 passes over the image) and backward (5), with relu in the same launch, in GB/s."""
    torch = Torch(dry_run)

    def job(shape, relu):
        def run():
            forget()
            C = shape[1]
            x, grad_y, weight, bias = drawn(shape), drawn(shape, 1), drawn((C,), 2), drawn((C,), 3)
            how = {"eps": 1e-5}
            y, mean, var = backend.run("batch_norm_train", x, weight, bias, None, relu=relu, **how)
            ours = (timed(lambda: backend.run("batch_norm_train", x, weight, bias, None, relu=relu, **how)),
                    timed(lambda: backend.run("batch_norm_grad", grad_y, x, weight, mean, var, y if relu else None, **how)))
            theirs = torch.batch_norm(x, weight, bias, grad_y, relu) if torch else (None, None, "")
            rows = []
            for k, (what, passes) in enumerate((("forward", 3), ("backward", 5 + relu))):
                gbs = passes * x.nbytes / ours[k] / 1e6
                rows.append({"name": f"batch norm{' + relu' * relu} {what} {'×'.join(map(str, shape))}", "precision": "fp32", "gbs": gbs,
                             "ours_ms": ours[k], "torch_ms": theirs[k], "ratio": theirs[k] / ours[k] if torch else None,
                             "note": f"{gbs:.0f} GB/s in {passes} passes{f', PyTorch {theirs[2]}' if torch else ''}"})
            return rows
        return run

    shapes = [(2, 8, 5, 5)] if dry_run else NORMS
    return {f"batch norm {shape} {relu}": job(shape, relu) for shape in shapes for relu in (False, True)}


# --- training steps ---------------------------------------------------------------------------------------------------------

def step_jobs(dry_run):
    """Whole training steps with SGD, in images a second; PyTorch eager, both precisions, the better layout."""
    torch = Torch(dry_run)

    def seconds(function):
        times, loss = [], None
        for _ in range(2 if dry_run else 8):
            started = time.perf_counter()
            loss = function()  # reads the loss: the step is over
            times.append(time.perf_counter() - started)
        return min(times[1 if dry_run else 3:]), loss

    def job(name, batch, precision, switch):
        def run():
            from minidl.bench.training import MinidlStep, Work

            forget()
            work = Work(name, batch=2 if dry_run else batch, size=64 if dry_run else None)
            theirs = {}
            if torch:
                with torch.precision(precision == "tf32"):
                    for layout in LAYOUTS:
                        theirs[layout] = seconds(torch.step(work, layout == "NHWC"))
            step = MinidlStep(work)
            step.network.to("cuda")
            step.x, step.labels = step.x.to("cuda"), step.labels.to("cuda")
            with use_tf32(switch):
                mine, loss = seconds(lambda: step()["loss"])
            layout = min(theirs, key=lambda key: theirs[key][0]) if theirs else None
            torch_ms = theirs[layout][0] * 1e3 if layout else None
            note = f"{work.batch / mine:.0f} images/s" + (f", PyTorch {work.batch / theirs[layout][0]:.0f} in {layout}" if layout else "")
            off = abs(loss - theirs[layout][1]) / abs(theirs[layout][1]) if layout else None
            return [{"precision": precision, "ours_ms": mine * 1e3, "torch_ms": torch_ms, "max_err": off, "note": note,
                     "ratio": torch_ms / mine / 1e3 if layout else None}]
        return run

    wanted = [("resnet18", 2)] if dry_run else STEPS
    return {f"step {name} batch {batch} {precision}": job(name, batch, precision, switch)
            for name, batch in wanted for precision, switch in (("fp32", False), ("tf32", True), ("3xtf32", "3x"))}


JOBS = {"ceilings": ceiling_jobs, "tiles": tile_jobs, "conv": conv_jobs, "batchnorm": norm_jobs, "steps": step_jobs}
