"""Where minidl finds and keeps files: the CUDA sources it ships, and the cache of what can be made again."""

import importlib.util
import os
from pathlib import Path


def kernels_folder():
    """The folder of the .cu files: the package minidl.kernels of an installation, or kernels/ beside a bare checkout."""
    found = importlib.util.find_spec("minidl.kernels")
    if found is not None and found.origin:
        return Path(found.origin).parent
    return Path(__file__).resolve().parents[2] / "kernels"


def cache_folder():
    """minidl/ in MINIDL_CACHE or in the user's cache folder. Not created here; everything in it can be made again."""
    base = os.environ.get("MINIDL_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minidl"  # always a folder of our own name: `minidl doctor --clear` removes it whole
