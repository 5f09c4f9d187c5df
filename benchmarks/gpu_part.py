"""One part of `python -m benchmarks.gpu`, in a process of its own: its jobs one after another, each written down before and after.

    python -m benchmarks.gpu_part PART LOG SECONDS [--dry-run]

The log gets a line {"started": job} before each job and {"job": ..., "rows": [...]} after it; a job that is in there already
is not done again. An error that leaves CUDA unusable ends the process with status 3.
"""

import contextlib
import json
import sys
import time
import traceback
from pathlib import Path

from benchmarks.gpu import empty_row

FATAL = ("illegal", "misaligned address", "launch failure", "unspecified", "ECC", "device-side assert", "out of memory: poisoned")


def main(part, log, seconds, dry_run):
    """Do the jobs for which there is time."""
    until, log = time.monotonic() + float(seconds), Path(log)
    with place(dry_run):
        from benchmarks import gpu_numbers, gpu_speed
        jobs = {**gpu_numbers.JOBS, **gpu_speed.JOBS}[part](dry_run)
        done = {entry.get("job") for entry in map(json.loads, log.read_text(encoding="utf-8").splitlines())}
        with log.open("a", encoding="utf-8") as file:
            left = list(jobs)
            for name in list(jobs):
                if time.monotonic() > until:
                    break
                left.remove(name)
                if name not in done:
                    note(file, started=name)
                    rows, fatal = attempt(name, jobs[name])
                    note(file, job=name, rows=rows)
                    if fatal:
                        sys.exit(3)
            note(file, left_out=left)


def note(file, **entry):
    """One line, at once on the disk."""
    file.write(json.dumps(entry) + "\n")
    file.flush()


def attempt(name, job):
    """(rows, is CUDA unusable now?) of one job; an error becomes a row."""
    try:
        return [{**empty_row(name), **row} for row in job()], False
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        place = traceback.extract_tb(error.__traceback__)[-1]
        row = {**empty_row(name), "error": f"{text[:600]} ({Path(place.filename).name}:{place.lineno})"}
        return [row], any(word in text for word in FATAL) and "CUDA" in text.upper()


@contextlib.contextmanager
def place(dry_run):
    """The GPU, or the stand-in for CuPy."""
    if not dry_run:
        from minidl.core.device import module_for
        module_for("cuda")  # raises with the reason where there is none
        yield
        return
    from minidl.backend.cuda import stand_in
    with stand_in.installed():
        yield


if __name__ == "__main__":
    main(*sys.argv[1:4], "--dry-run" in sys.argv)
