"""Peak resident memory of a training step, minidl and PyTorch each in fresh processes.

    python -m benchmarks.peak_memory --only resnet18

A child builds the network, forgets what building took, runs two steps and reports its peak. PyTorch's child never imports
minidl, nor minidl's PyTorch. PyTorch runs in both storage orders and the smaller peak counts.
"""

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import record
from benchmarks.steps import GOALS

ALLOWED, STEPS = 1.05, 2
ROOT = Path(__file__).resolve().parents[1]
HEADS = {"googlenet": 0.3, "inception_v3": 0.4}
WHAT = ("Peak resident memory in MB of two training steps (SGD with momentum and weight decay, dropout off, float32), each in a fresh "
        "process, interpreter and libraries included; in brackets with the network built and nothing run. The ratio is of whole processes.")


def resident(what):
    """MB of this process: VmRSS now, VmHWM the peak since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def forget_peak():
    """Give back what building took, and start the peak again from here."""
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def minidl_step(name, batch):
    """A function that runs one step."""
    import numpy as np

    from minidl import models, nn, optim
    from minidl.core.create import tensor

    model = models.zoo.find(name)
    network, rng = model.build(), np.random.default_rng(0)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = tensor(rng.standard_normal((batch, *model.input), np.float32))
    labels = tensor(rng.integers(0, 10, batch))
    optimizer = optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    return _step(name, network, x, labels, nn.functional.cross_entropy, optimizer)


def torch_step(name, batch, order, shapes, size):
    """The same in PyTorch; torch_twins.py is loaded by its path, so that minidl is not."""
    import torch

    spec = importlib.util.spec_from_file_location("torch_twins", ROOT / "minidl/bench/torch_twins.py")
    twins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twins)
    torch.manual_seed(0)
    arrays = {}
    for key, shape in shapes.items():
        fan = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        arrays[key] = (torch.randn(shape) * (2 / fan) ** 0.5 if len(shape) > 1 else torch.ones(shape)).numpy()
    weights = twins.Weights(arrays, order == "NHWC")
    del arrays
    x = torch.randn(batch, *size).contiguous(memory_format=weights.layout)
    optimizer = torch.optim.SGD(weights.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    network = twins.TWINS[name]
    labels = torch.randint(0, 10, (batch,))
    return _step(name, lambda x: network(weights, x), x, labels, torch.nn.functional.cross_entropy, optimizer)


def _step(name, network, x, labels, entropy, optimizer):
    def run():
        optimizer.zero_grad()
        y = network(x)
        scores, *heads = y if isinstance(y, tuple) else (y,)
        loss = entropy(scores, labels)
        for head in heads:
            loss = loss + HEADS[name] * entropy(head, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def child(request):
    """Run one measurement and print it."""
    if request["library"] == "minidl":
        from minidl.backend.threads import set_num_threads

        set_num_threads(request["threads"])
        step = minidl_step(request["name"], request["batch"])
    else:
        import torch

        torch.set_num_threads(request["threads"])
        step = torch_step(request["name"], request["batch"], request["library"].split()[1], request["shapes"], request["input"])
    forget_peak()
    loaded = resident("VmRSS")
    losses = [step() for _ in range(STEPS)]
    print(json.dumps({"loaded": loaded, "peak": resident("VmHWM"), "losses": losses}))


def measure(name, batch, threads):
    """One row."""
    from minidl import models

    model = models.zoo.find(name)
    shapes = {key: list(value.shape) for key, value in model.build(drawn=False).state_dict().items() if "num_batches" not in key}
    found = {}
    for library in ("minidl", "torch NCHW", "torch NHWC"):
        request = {"name": name, "batch": batch, "threads": threads, "library": library, "shapes": shapes, "input": list(model.input)}
        done = subprocess.run([sys.executable, "-m", "benchmarks.peak_memory", "--child"], input=json.dumps(request), capture_output=True,
                              text=True, check=True, cwd=ROOT)
        found[library] = json.loads(done.stdout.splitlines()[-1])
    best = min(found[key]["peak"] for key in found if key != "minidl")
    row = {"network": f"{name}, batch {batch}", **{key: f"{value['peak']:.0f} ({value['loaded']:.0f})" for key, value in found.items()},
           "minidl / PyTorch": round(found["minidl"]["peak"] / best, 3), "commit": record.commit()}
    print(record.table([row]), flush=True)
    return row


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=GOALS)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--save", action="store_true", help="with --only: put this row into the result file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(json.loads(sys.stdin.read()))
        return
    rows = [measure(name, GOALS[name][0]["batch"], given.threads) for name in ([given.only] if given.only else GOALS)]
    if given.save or not given.only:
        rows = record.merged("peak_memory", rows, "network")
        floors = [(f"{row['network']}: at most {ALLOWED} times PyTorch's peak (here {row['minidl / PyTorch']})",
                   row["minidl / PyTorch"] <= ALLOWED) for row in rows]
        record.write("peak_memory", WHAT, rows, floors)


if __name__ == "__main__":
    main()
