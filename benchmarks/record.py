"""What every benchmark shares: interleaved rounds, medians, and a result file that says where its numbers come from."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def interleaved(contenders, rounds, warm=3):
    """{name: [seconds per round]} of functions that return seconds; one after the other in every round, so that a
    machine that slows down slows all of them."""
    for _ in range(warm):
        for run in contenders.values():
            run()
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            times[name].append(run())
    return times


def median(values):
    return statistics.median(values)


def spread(values):
    """Half the distance between the quartiles, relative to the median: how far to trust the last digit."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def commit():
    """The commit that runs, and whether files differ from it; results that were just written are none of them."""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(exclude,top)benchmarks/results")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def merged(name, rows, key):
    """These rows, and those of an earlier result for what was not measured now; each says its own commit."""
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    fresh = {row[key] for row in rows}
    return [row for row in earlier if row[key] not in fresh] + rows


def write(name, what, rows, floors=(), started_at=None):
    """Save and print one benchmark. `rows`: dicts with equal keys; `floors`: (claim, holds) pairs; `started_at`: the commit()
    of a run so long that there may be another one when it ends."""
    result = {
        "name": name, "what": what, "rows": rows, "floors": [{"claim": claim, "holds": bool(holds)} for claim, holds in floors],
        "device": f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in ("numpy", "torch") if version(n)} | blas(),
        "commit": started_at or commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    for floor in result["floors"]:
        print(f"{'holds' if floor['holds'] else 'MISSED'}: {floor['claim']}")
    return result


def table(rows):
    """Rows as a Markdown table."""
    cells = [list(rows[0])] + [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def render():
    """Write results/README.md from the result files, and the tables of other pages."""
    parts = ["# Results", "Written by `python -m benchmarks` from the JSON files beside it; the run is named under each table."]
    for path in sorted(RESULTS.glob("*.json")):
        r = json.loads(path.read_text(encoding="utf-8"))
        if not {"what", "rows", "floors", "load"} <= r.keys():  # another kind of file, with a page of its own
            continue
        floors = [f"- {'holds' if f['holds'] else '**missed**'}: {f['claim']}" for f in r["floors"]]
        parts += [f"## {r['name']}", r["what"], table(r["rows"]), "\n".join(floors), origin(r)]
    path = RESULTS / "README.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    fill()
    return path


MARK = re.compile(r"(<!-- results: (\w+)(?: of ([^>]*?))? -->\n).*?(<!-- end of results -->)", re.DOTALL)
PAGES = ("README.md", "docs/performance.md")  # where tables of results stand between marks


def filled(text):
    """A page with the tables between its marks as the result files say: <!-- results: steps of network, ratio --> names columns."""
    def replace(match):
        path = RESULTS / f"{match[2]}.json"
        if not path.exists():
            return f"{match[1]}\n*Not measured yet: `python -m benchmarks {match[2]}`.*\n\n{match[4]}"
        r = json.loads(path.read_text(encoding="utf-8"))
        columns = [name.strip() for name in match[3].split(",")] if match[3] else list(r["rows"][0])
        rows = [{name: row.get(name, "") for name in columns} for row in r["rows"]]
        return f"{match[1]}\n{table(rows)}\n\n{origin(r)}\n\n{match[4]}"

    return MARK.sub(replace, text)


def origin(r):
    """The line under a table that says where its numbers come from."""
    versions = ", ".join(f"{name} {number}" for name, number in r["versions"].items())
    return f"<sub>{r['device']}; {versions}; commit {r['commit']}; {r['date']}; load {r['load'] or 0:.1f} when it ended</sub>"


def fill():
    """Write the tables of PAGES again."""
    for name in PAGES:
        path = RESULTS.parents[1] / name
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            path.write_text(filled(text), encoding="utf-8")


def processor():
    """The processor's name."""
    from minidl.commands.doctor import processor
    return processor()


def blas():
    """NumPy's BLAS, and the processor whose kernels it has chosen: half of a product's speed may hang on that."""
    import threadpoolctl
    chosen = " (chosen by OPENBLAS_CORETYPE)" * ("OPENBLAS_CORETYPE" in os.environ)
    return {pool["internal_api"]: f"{pool['version']} with {pool.get('architecture')} kernels{chosen}"
            for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]}


def version(name):
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git(*args):
    """The answer of a git command; "unknown" outside a checkout."""
    done = subprocess.run(["git", *args], capture_output=True, text=True, cwd=RESULTS.parent)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
