"""Our CUDA kernels as implementations of ops: each topic's launcher registers what it can do. The sources are in kernels/.

Launchers come through launch.kernel(), which checks every argument; on_cpu.py runs the same .cu files without a GPU.
The launchers are imported when a GPU is first used, or when somebody asks which implementations there are: `import
minidl` pays nothing for them.
"""

import importlib

from minidl.core.device import FIRST_USE

TOPICS = ("conv", "normalize", "optim", "pool", "reduce", "scatter", "softmax")  # the launcher files, which register themselves


def load():
    """Import every launcher; harmless the second time."""
    for topic in TOPICS:
        importlib.import_module(f"minidl.backend.cuda.{topic}")


FIRST_USE.append(load)
