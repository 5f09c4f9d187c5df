"""Batch norm (+ add) (+ relu), training, forward and backward, at the sizes of a ResNet-50 step, against PyTorch."""

import argparse
import os

from benchmarks import record

BATCH = 8
SIZES = [  # channels, height, with an addition, how often in ResNet-50 (relu follows all but the four shortcuts' norms)
    (64, 112, False, 1), (64, 56, False, 6), (256, 56, True, 3), (128, 56, False, 1), (128, 28, False, 7), (512, 28, True, 4),
    (256, 28, False, 1), (256, 14, False, 11), (1024, 14, True, 6), (512, 14, False, 1), (512, 7, False, 5), (2048, 7, True, 3),
]
FLOOR, GOAL = 0.9, 1.3
WHAT = ("Batch norm and relu (and the addition before it), training, forward and backward through Tensors, batch 8, float32, medians of "
        "interleaved rounds. ratio: PyTorch's time in its quicker storage order / minidl's; the last row weighs each size by how often "
        "ResNet-50 has it.")


def measure(C, H, add, rounds):
    """{contender: median seconds} of forward plus backward."""
    from minidl.bench import cases, measure, timing, torch_calls

    case = cases.make("batch_norm", shape=(BATCH, C, H, H), add=add)
    contenders = {"minidl": measure.through_tensors(case), **torch_calls.contenders(case)}
    times = timing.Rounds(contenders, rounds, warm=2).run()
    return {name: record.median([sum(pair) for pair in pairs]) for name, pairs in times.items()}


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", type=int, help="the number of one size, from 0; nothing is saved")
    given = parser.parse_args()
    from minidl.bench import training

    training.set_threads(given.threads)
    rows, ours, theirs = [], 0.0, 0.0
    for C, H, add, times in SIZES if given.only is None else [SIZES[given.only]]:
        found = measure(C, H, add, given.rounds)
        best = min(found["torch NCHW"], found["torch NHWC"])
        ours, theirs = ours + times * found["minidl"], theirs + times * best
        rows.append({"size": f"{BATCH}×{C}×{H}×{H}" + (" + add" if add else ""), "times": times,
                     **{f"{name} ms": seconds * 1e3 for name, seconds in found.items()}, "ratio": best / found["minidl"]})
    rows.append({"size": "all of ResNet-50's", "times": sum(row["times"] for row in rows), "minidl ms": ours * 1e3, "torch NCHW ms": "",
                 "torch NHWC ms": "", "ratio": theirs / ours})
    if given.only is not None:
        print(record.table(rows))
        return
    ratio = theirs / ours
    record.write("batch_norm", WHAT, rows, [(f"{FLOOR} of PyTorch's speed (here {ratio:.2f}, goal {GOAL})", ratio >= FLOOR)])


if __name__ == "__main__":
    main()
