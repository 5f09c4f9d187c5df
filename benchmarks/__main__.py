"""`python -m benchmarks [NAME ...]`: run these benchmarks (all by default), each in its own process, then render the table.

Exit 1 if one of them missed a floor.
"""

import json
import subprocess
import sys

from benchmarks import record

NAMES = ("small_ops", "import_time", "chain", "steps", "batch_norm", "engine_cost", "peak_memory", "breakdown")

for name in sys.argv[1:] or NAMES:
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
print(f"\nwrote {record.render()}")
paths = [record.RESULTS / f"{name}.json" for name in sys.argv[1:] or NAMES]
floors = [floor for path in paths if path.exists() for floor in json.loads(path.read_text(encoding="utf-8")).get("floors", ())]
sys.exit(1 if any(not floor["holds"] for floor in floors) else 0)
