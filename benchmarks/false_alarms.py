"""Does the gradient check ever call a right gradient wrong? The whole registry, every example, over many seeds.

    python -m benchmarks.false_alarms --seeds 30
    nice -n 19 python -m benchmarks.false_alarms --seeds 1000 --processes 2

Not among the benchmarks that run by default: 1000 seeds take more than an hour.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from benchmarks import record

WHAT = ("Every op, every example, orders 1 and 2 against finite differences, and float32 against float64, as `minidl check` does it. "
        "All gradients are right, so every complaint is a false alarm. One more seed draws other inputs, directions and cotangents.")


def one_seed(seed):
    """(checks, elements skipped, alarms) of the registry with one seed."""
    import minidl.ops  # noqa: F401 - fills the registry
    from minidl.core.gradcheck import check_op
    from minidl.core.op import OPS
    from minidl.core.rounding import float32_error

    checks, skipped, alarms = 0, 0, []
    for name, op in sorted(OPS.items()):
        for number, example in enumerate(op.examples):
            here = f"{name}, example {number}, seed {seed}"
            try:
                report = check_op(op, example, 2, seed, probes=2)
                error, allowed, problem = float32_error(op, example, seed)
            except Exception as exception:  # one more alarm, and the other ops go on
                alarms.append(f"{here}: {type(exception).__name__}: {exception}")
                continue
            checks += len(report.rows) + 1
            skipped += len(report.skipped)
            alarms += [f"{here}, order {row.order}, {row.argument}: {row.verdict}, {row.reason}, error {row.error:.2e}, allowed "
                       f"{row.tolerance:.2e}" for row in report.rows if not row.ok]
            if not error <= allowed or problem:
                alarms.append(f"{here}, float32: {problem or f'{error:.1f} eps, allowed {allowed:.1f}'}")
    return checks, skipped, alarms, len(OPS)


def main():
    """Run the seeds, print what is found as it is found, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=30, metavar="N", help="how many (30)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one (0)")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="how many at a time (1)")
    wanted = parser.parse_args()
    commit, start, checks, skipped, alarms, ops = record.commit(), time.perf_counter(), 0, 0, [], 0
    with ProcessPoolExecutor(wanted.processes) as pool:
        for done, found in enumerate(pool.map(one_seed, range(wanted.first, wanted.first + wanted.seeds)), 1):
            checks, skipped, ops = checks + found[0], skipped + found[1], found[3]
            alarms += found[2]
            for alarm in found[2]:
                print(f"{' ' * 60}\r{alarm}", flush=True)
            if done == wanted.seeds or done % 10 == 0 or sys.stderr.isatty():
                rest = (time.perf_counter() - start) / done * (wanted.seeds - done) / 60
                print(f"{done}/{wanted.seeds} seeds, {checks} checks, {len(alarms)} alarms, {rest:.0f} min left",
                      end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    rows = [{"ops": ops, "seeds": wanted.seeds, "first seed": wanted.first, "checks": checks, "elements skipped": skipped,
             "false alarms": len(alarms), "minutes": (time.perf_counter() - start) / 60}]
    record.write("false_alarms", WHAT, rows, [(f"no false alarm in {wanted.seeds} seeds", not alarms)], commit)
    sys.exit(bool(alarms))


if __name__ == "__main__":
    main()
