"""Benchmarks, as ratios measured side by side in one run. `python -m benchmarks` runs all; see benchmarks/README.md."""
