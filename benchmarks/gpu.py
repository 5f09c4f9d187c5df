"""`python -m benchmarks.gpu`: everything about the GPU in one go, in under eight minutes, as one JSON file and a short table.

First whether the numbers are right: every kernel's own cases and every op of the registry on the device (the tensor cores'
layout among them), compute-sanitizer where it is. Then how fast: ceilings, tile shapes, every rung of convolution on real
layers against PyTorch with cuDNN, batch norm in GB/s, whole training steps.

Each part is a process of its own with a time limit. A job that kills its process (an illegal address poisons CUDA for good)
is recorded as such, and the part goes on behind it in a new process. What there was no time for is listed.

    python -m benchmarks.gpu                      on a machine with a GPU
    python -m benchmarks.gpu --dry-run            the same in miniature on the stand-in for CuPy, PyTorch on the CPU
    python -m benchmarks.gpu --parts conv steps   some parts only
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "gpu"
ROOT = Path(__file__).resolve().parents[1]
PARTS = {"kernels": 70, "ops": 75, "sanitizer": 25, "ceilings": 15, "tiles": 25, "conv": 130, "batchnorm": 30, "steps": 80}  # seconds
LIMIT = 465  # seconds in all: eight minutes, less the end
PATIENCE = {False: 10, True: 180}  # seconds that the last job of a part may go on beyond the part's time; True: dry run, any machine
RESTARTS = 4  # of a part whose process dies


def main():
    """Run the parts, write the file after each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the stand-in for CuPy")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"the time for everything ({LIMIT})")
    parser.add_argument("--out", type=Path, help="the JSON file; by default results/gpu/<device>.json")
    wanted = parser.parse_args()
    started = time.monotonic()
    result = {**machine(wanted.dry_run), "dry_run": wanted.dry_run, "parts": {}, "rows": [], "left_out": []}
    out = wanted.out or (Path(tempfile.gettempdir()) / "minidl-gpu-dry-run.json" if wanted.dry_run else
                         RESULTS / f"{slug(result['device'])}.json")
    for part in wanted.parts:
        seconds = min(PARTS[part] * (0.4 if wanted.dry_run else 1), wanted.seconds - (time.monotonic() - started))
        before = time.monotonic()
        if seconds > 5:
            print(f"== {part} (at most {seconds:.0f} s)", flush=True)
            rows, left_out, note = run_part(part, seconds, wanted.dry_run)
        else:
            rows, left_out, note = [], ["all of it"], "no time was left"
        result["rows"] += rows
        result["left_out"] += [f"{part}: {name}" for name in left_out]
        failed = sum("error" in row for row in rows)
        result["parts"][part] = {"seconds": round(time.monotonic() - before, 1), "rows": len(rows), "failed": failed,
                                 "left_out": len(left_out), "note": note}
        print(f"   {len(rows)} rows, {failed} failed, {len(left_out)} left out, {result['parts'][part]['seconds']} s {note}", flush=True)
        write(out, result)
    result["seconds"] = round(time.monotonic() - started, 1)
    write(out, result)
    out.with_suffix(".md").write_text(report(result), encoding="utf-8")
    print(report(result, short=True))
    print(f"\nwrote {out} and {out.with_suffix('.md').name} in {result['seconds']} s")
    sys.exit(1 if any(part["failed"] for part in result["parts"].values()) else 0)


def run_part(part, seconds, dry_run):
    """(rows, names left out, a note) of one part, whatever happens in it."""
    until, rows, left_out, restarts, note = time.monotonic() + seconds, {}, [], 0, ""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "rows.jsonl"
        log.touch()
        while restarts <= RESTARTS:
            rest = until - time.monotonic()
            if rest < 3:
                note = note or "time was up"
                break
            command = [sys.executable, "-m", "benchmarks.gpu_part", part, str(log), f"{rest:.1f}", *["--dry-run"] * dry_run]
            try:
                done = subprocess.run(command, cwd=ROOT, timeout=rest + PATIENCE[dry_run], stderr=subprocess.PIPE, text=True)
            except subprocess.TimeoutExpired:
                note = "stopped: a job did not end"
                break
            if done.returncode == 0:
                break
            restarts += 1
            last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
            note = f"its process died {restarts} times, last: {last}"
            mark_dead(log, last)
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "left_out" in entry:
                left_out = entry["left_out"]
            elif "rows" in entry:
                rows[entry["job"]] = [{"part": part, **row} for row in entry["rows"]]
        unfinished = [job for job in started_jobs(log) if job not in rows]
        for job in unfinished:
            rows[job] = [{"part": part, **empty_row(job), "error": note or "it did not end"}]
    return [row for each in rows.values() for row in each], left_out, note


def started_jobs(log):
    """The jobs that a part's processes began, in order."""
    return [entry["started"] for entry in map(json.loads, log.read_text(encoding="utf-8").splitlines()) if "started" in entry]


def mark_dead(log, reason):
    """The job during which the process died gets a row that says so, and is not tried again."""
    finished = {entry["job"] for entry in map(json.loads, log.read_text(encoding="utf-8").splitlines()) if "rows" in entry}
    dead = [job for job in started_jobs(log) if job not in finished] or [f"the start of the process ({len(finished)} jobs done)"]
    with log.open("a", encoding="utf-8") as file:
        for job in dead:
            file.write(json.dumps({"job": job, "rows": [{**empty_row(job), "error": f"the process died: {reason}"}]}) + "\n")


def empty_row(name):
    """What every row has."""
    return {"name": name, "precision": None, "ours_ms": None, "torch_ms": None, "ratio": None, "max_err": None}


def machine(dry_run):
    """Device, driver, versions, commit: asked of nvidia-smi, so that this process never touches the GPU."""
    asked = ask("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader").partition("\n")[0].split(", ")
    name, driver, memory = asked if len(asked) == 3 and not dry_run else ("stand-in (no GPU)" if dry_run else "unknown", None, None)
    versions = {"python": platform.python_version()} | {package: found for package in PACKAGES if (found := installed(package))}
    return {"device": name, "driver": driver, "memory": memory, "system": f"{platform.system()} {platform.machine()}", "versions": versions,
            "commit": os.environ.get("MINIDL_COMMIT") or commit(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}


PACKAGES = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cuda-nvrtc")


def installed(package):
    """The version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """The commit of the checkout, +changes where files differ."""
    changed = ask("git", "status", "--porcelain", "--untracked-files=no", "--", "minidl", "kernels")
    head = ask("git", "rev-parse", "--short", "HEAD")
    return head + "+changes" * bool(changed) if head else "unknown"


def ask(*command):
    """What a program prints; "" if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def slug(name):
    """A file name of a device's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def write(path, result):
    """The JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


# --- as text ------------------------------------------------------------------------------------------------------------

COLUMNS = ("name", "precision", "ours_ms", "torch_ms", "ratio", "max_err", "note")


def report(result, short=False):
    """Markdown: where and when, then a table per part. `short`: what failed, and of the measurements only each job's best rung."""
    lines = ["# Measured on a GPU" if not result["dry_run"] else "# A DRY RUN: sizes are tiny, nothing here is a measurement of a GPU", "",
             f"{result['device']}, driver {result['driver']}; {', '.join(f'{k} {v}' for k, v in result['versions'].items())}; "
             f"commit {result['commit']}; {result['date']}", "", "ratio = PyTorch's time / ours: above 1 we are faster."]
    for part, facts in result["parts"].items():
        rows = [row for row in result["rows"] if row["part"] == part]
        right = [row for row in rows if "error" not in row and row["ours_ms"] is None]
        timed, wrong = [row for row in rows if row["ours_ms"] is not None], [row for row in rows if "error" in row]
        counts = f"{len(right)} right, {len(timed)} measured, {facts['failed']} failed, {facts['left_out']} left out"
        lines += ["", f"## {part}", "", f"{counts}, {facts['seconds']} s. {facts['note']}".strip()]
        lines += [f"- FAILED {row['name']}: {row['error'].splitlines()[0][:200]}" for row in wrong[:10 if short else None]]
        if timed:
            lines += ["", *table(best(timed) if short else timed)]
    return "\n".join(lines) + "\n"


def best(rows):
    """Of the rows that differ in their rung alone, the quickest."""
    found = {}
    for row in rows:
        key = (row["name"].partition(" · ")[0], row["precision"])
        if key not in found or row["ours_ms"] < found[key]["ours_ms"]:
            found[key] = row
    return list(found.values())


def table(rows):
    """Rows as Markdown."""
    cells = [COLUMNS] + [[shown(row.get(key)) for key in COLUMNS] for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return [lines[0], "|" + "---|" * len(COLUMNS), *lines[1:]]


def shown(value):
    """A cell."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
