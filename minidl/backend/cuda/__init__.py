"""The CUDA backend: compiles the sources in kernels/ and launches them. For now it only knows where they are."""

import importlib.util
from pathlib import Path


def kernels_folder():
    """The folder of the .cu files: the package minidl.kernels of an installation, or kernels/ beside a bare checkout."""
    found = importlib.util.find_spec("minidl.kernels")
    if found is not None and found.origin:
        return Path(found.origin).parent
    return Path(__file__).resolve().parents[3] / "kernels"
