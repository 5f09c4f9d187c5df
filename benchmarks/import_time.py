"""`import minidl` over `import numpy`, in fresh processes."""

import os
import subprocess
import sys

from benchmarks import record

ROUNDS = 20
WHAT = "Seconds that the import statement takes in a fresh Python process, medians of interleaved rounds."
SCRIPT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def importing(module):
    """A function that times one import in a fresh process, with byte code cached as an installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run():
        done = subprocess.run([sys.executable, "-c", SCRIPT.format(module)], check=True, capture_output=True, text=True, env=environment)
        return float(done.stdout)

    run()  # writes the byte code
    return run


def main():
    """Measure, print, save."""
    times = record.interleaved({"numpy": importing("numpy"), "minidl": importing("minidl")}, ROUNDS)
    over = record.median([b - a for a, b in zip(times["numpy"], times["minidl"], strict=True)])
    rows = [{"import": name, "ms": record.median(t) * 1e3, "spread": f"±{record.spread(t):.0%}"} for name, t in times.items()]
    rows.append({"import": "minidl over numpy", "ms": over * 1e3, "spread": ""})
    record.write("import_time", WHAT, rows, [(f"at most 60 ms over numpy (here {over * 1e3:.0f} ms)", over <= 0.060)])


if __name__ == "__main__":
    main()
