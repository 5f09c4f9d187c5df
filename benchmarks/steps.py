"""Whole training steps against PyTorch: forward, backward, SGD with momentum and weight decay, same weights, same threads.

    python -m benchmarks.steps                                  all networks; writes results/steps.json
    python -m benchmarks.steps --only resnet18 --rounds 5       one of them; prints, and writes with --save

Both libraries run in one process, interleaved round by round; PyTorch in both storage orders, of which the quicker one counts.
Each network has a process of its own: after five others minidl's step of ResNet-20 took 159 ms, alone 143. The losses of the
first three steps are compared: a step that computes something else gets no speed. Float32 rounding grows in a deep network
(a relu that flips), and differently in PyTorch's two orders: that distance is the yardstick.
"""

import argparse
import multiprocessing
import os
import sys

from benchmarks import record

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # before NumPy: an idle BLAS worker of minidl must not spin while PyTorch is timed

GOALS = {  # network -> (settings, floor, goal): PyTorch's time in its best layout / ours
    "vgg16": ({"batch": 8}, 1.3, 1.8),
    "resnet50": ({"batch": 8}, 0.75, 1.0),
    "resnet18": ({"batch": 8}, 0.75, 1.0),
    "googlenet": ({"batch": 8}, 0.6, 0.9),
    "inception_v3": ({"batch": 8}, 0.6, 0.9),
    "resnet20": ({"batch": 128}, 0.35, 0.7),
}
WHAT = ("One training step (forward, backward, SGD with momentum and weight decay; dropout off), float32, medians of interleaved "
        "rounds in one process, a fresh one for each network. ratio: PyTorch's time in its quicker storage order / minidl's. loss "
        "apart: the largest relative distance of three losses from PyTorch's / that of PyTorch's two orders from each other.")


def measure(name, rounds, threads, **settings):
    """One row of the table, and the times of every contender and part."""
    from minidl.bench import steps, timing, training

    said = training.set_threads(threads)
    work, contenders = training.steps(name, **settings)
    print(f"\n{work}, threads: {said}", file=sys.stderr, flush=True)
    losses = {key: [step()["loss"] for _ in range(steps.STEPS)] for key, step in contenders.items()}
    apart, own, wrong = steps.compare_losses(losses)
    if wrong:
        print(f"WRONG: {wrong}")
    times = timing.Rounds(contenders, rounds, warm=0)
    for done, total in times:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} ", end="", file=sys.stderr, flush=True)
    parts = {key: {part: timing.summary([m[part] for m in measured]) for part in ("forward", "backward", "optimizer")}
             | {"step": timing.summary([m.seconds for m in measured])} for key, measured in times.results.items()}
    best = min((key for key in parts if key != "minidl"), key=lambda key: parts[key]["step"]["median"])
    ours, _, floor, goal = parts["minidl"], *GOALS[name]
    ratio = parts[best]["step"]["median"] / ours["step"]["median"] if not wrong else float("nan")
    row = {"network": str(work), **{f"{key} ms": parts[key]["step"]["median"] * 1e3 for key in parts}, "ratio": ratio, "floor": floor,
           "goal": goal, "spread": f"±{(ours['step']['p80'] - ours['step']['p20']) / 2 / ours['step']['median']:.0%}",
           "loss apart": f"{apart:.0e} / {own:.0e}", "threads": threads, "commit": record.commit()}
    return row, {"losses": losses, "parts": parts}


def detail(parts):
    """Forward, backward and optimiser of every contender, in ms."""
    return record.table([{"ms": key, **{part: numbers["median"] * 1e3 for part, numbers in found.items()}} for key, found in parts.items()])


def save(rows):
    """Write the rows; of networks that were not measured now, the earlier rows stay, each with its own commit."""
    rows = record.merged("steps", rows, "network")
    rows.sort(key=lambda row: list(GOALS).index(row["network"].partition(",")[0]))
    floors = [(f"{row['network']}: {row['floor']} of PyTorch's speed (here {row['ratio']:.2f}, goal {row['goal']})",
               row["ratio"] >= row["floor"]) for row in rows]
    record.write("steps", WHAT, rows, floors)


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=GOALS, help="one network")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--batch", type=int, help="another batch size; then nothing is saved")
    parser.add_argument("--save", action="store_true", help="with --only: put this row into the result file")
    given = parser.parse_args()
    rows = []
    for name in [given.only] if given.only else GOALS:
        settings = GOALS[name][0] | ({"batch": given.batch} if given.batch else {})
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            row, more = fresh.apply(measure, (name, given.rounds, given.threads), settings)
        print(detail(more["parts"]))
        print(f"ratio {row['ratio']:.3f} (floor {row['floor']}, goal {row['goal']}), loss apart {row['loss apart']}", flush=True)
        rows.append(row)
    if not given.batch and (given.save or not given.only):
        save(rows)


if __name__ == "__main__":
    main()
