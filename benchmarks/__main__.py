"""`python -m benchmarks [NAME ...]`: run these benchmarks (all by default), each in its own process, then render the table."""

import subprocess
import sys

from benchmarks import record

NAMES = ("small_ops", "import_time", "chain", "steps", "batch_norm", "engine_cost", "peak_memory", "breakdown")

for name in sys.argv[1:] or NAMES:
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
print(f"\nwrote {record.render()}")
