"""Every different convolution of VGG-16, ResNet-18 and -50, Inception-v3 and CIFAR ResNet-20: all implementations, and PyTorch.

    python -m benchmarks.layers --only resnet18 --rounds 3

The layers are read off the networks: they run once with use_backend("shapes"), which computes nothing, and every
convolution says what it was called with. Each implementation is judged against float64 before it is timed.
"""

import argparse
import math
import os

from benchmarks import record

NETWORKS = {"vgg16": 8, "resnet18": 8, "resnet50": 8, "inception_v3": 8, "resnet20": 128}
WHAT = ("Convolutions of {name}, batch {batch}, float32: forward, gradient of the image, gradient of the filters; what the chooser takes, "
        "and in brackets how many times slower the next best is. GFLOP/s count a direct convolution. ratio: PyTorch's quicker order / "
        "minidl, forward plus backward through Tensors.")


def layers(name, batch):
    """{(x shape, w shape, stride, padding, groups): how often}, in the order of the network."""
    from minidl import models
    from minidl.core.config import no_grad, use_backend
    from minidl.core.create import zeros
    from minidl.core.op import OBSERVERS

    model, found = models.zoo.find(name), {}

    def observe(call):
        if call.op.name == "conv2d":
            given = dict(zip(("bias", "stride", "padding", "dilation", "groups"), call.args[2:], strict=False)) | call.settings
            x, w = call.inputs[:2]
            key = (x.shape, w.shape, given.get("stride", 1), given.get("padding", 0), given.get("groups", 1))
            found[key] = found.get(key, 0) + 1

    OBSERVERS.append(observe)
    try:
        with no_grad(), use_backend("shapes"):
            model.build(drawn=False)(zeros(batch, *model.input))
    finally:
        OBSERVERS.remove(observe)
    return found


def case_of(x_shape, w_shape, stride, padding, groups):
    """A Case of the bench for one layer, also where a kernel is not square."""
    from minidl.bench.cases import Case, drawn
    from minidl.nn.functional import conv2d

    weight = drawn(2, *w_shape) / math.sqrt(math.prod(w_shape[1:]))
    label = f"{'×'.join(map(str, x_shape))} → {w_shape[0]}, {w_shape[2]}×{w_shape[3]}"
    label += f", stride {pair(stride)[0]}" if pair(stride) != (1, 1) else ""
    case = Case("conv2d", label, {"input": drawn(0, *x_shape), "weight": weight},
                lambda input, weight: conv2d(input, weight, None, stride, padding, 1, groups))
    case.settings = {"kernel": w_shape[2], "stride": stride, "padding": padding, "groups": groups}
    return case


def pair(value):
    """3 -> (3, 3)."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def measure(case, times, rounds, torch):
    """One row of the table."""
    from minidl.bench import measure

    run = measure.Run(rounds, vs_torch=torch)
    run.case(case)
    row = {"layer": case.label, "times": times}
    for op, heading in (("conv2d", "forward"), ("conv2d_grad_x", "grad_x"), ("conv2d_grad_w", "grad_w")):
        timed = [r for r in run.result["rows"] if r["op"] == op and r.get("median")]
        taken = next((r for r in timed if r["chosen"]), None)
        others = [r["median"] for r in timed if not r["chosen"]]
        if taken is None:
            row[heading] = "wrong" if any(r["op"] == op and r["status"] == "wrong" for r in run.result["rows"]) else "–"
            continue
        more = f" ({min(others) / taken['median']:.1f}×)" if others else ""
        row[heading] = f"{taken['implementation']} {taken['median'] * 1e3:.2f} ms, {taken['gflop_s']:.0f}{more}"
    whole = {}
    for r in run.result["rows"]:
        if r["op"] == "whole call" and r.get("median"):
            whole[r["implementation"]] = whole.get(r["implementation"], 0.0) + r["median"]
    rivals = [seconds for name, seconds in whole.items() if name != "minidl"]
    row["ratio"] = round(min(rivals) / whole["minidl"], 2) if rivals and "minidl" in whole else ""
    return row


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    from minidl.bench import torch_calls, training

    training.set_threads(given.threads)
    torch = not torch_calls.why_not()
    for name in [given.only] if given.only else NETWORKS:
        rows = []
        for key, times in layers(name, NETWORKS[name]).items():
            rows.append(measure(case_of(*key), times, given.rounds, torch))
            print(*rows[-1].values(), sep="  ", flush=True)
        record.write(f"layers_{name}", WHAT.format(name=name, batch=NETWORKS[name]), rows)


if __name__ == "__main__":
    main()
