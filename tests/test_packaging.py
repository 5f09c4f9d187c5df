"""What a wheel will carry, without building one; tests/try_package.py builds and runs it (`make package`)."""

import importlib
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import setuptools

import minidl
from minidl.core import folders

ROOT = Path(__file__).resolve().parents[1]


def settings():
    """What setup.py hands to setuptools."""
    found = {}
    with_setup = setuptools.setup
    try:
        setuptools.setup = lambda **given: found.update(given)
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = with_setup
    return found


def test_version():
    assert settings()["version"] == minidl.__version__


def test_every_folder_with_python_is_a_package():
    """A folder without __init__.py would be left out of the wheel in silence."""
    folders_of_code = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "minidl").rglob("*.py")}
    assert folders_of_code == set(settings()["packages"]) - {"minidl.kernels"}


def test_every_kernel_is_carried():
    patterns = settings()["package_data"]["minidl.kernels"]
    carried = {path for pattern in patterns for path in (ROOT / "kernels").glob(pattern)}
    there = {path for path in (ROOT / "kernels").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert there - carried == {ROOT / "kernels/__init__.py"}


def test_needs_no_torch():
    assert not [name for name in settings()["install_requires"] if "torch" in name]
    script = "import sys; sys.modules['torch'] = None\nimport minidl.autograd, minidl.nn.functional, minidl.stepper, minidl.commands.doctor"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_entry_point_exists():
    module, _, name = settings()["entry_points"]["console_scripts"][0].partition(" = ")[2].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_kernels_are_found_in_a_bare_checkout(monkeypatch):
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    assert folders.kernels_folder() == ROOT / "kernels"


def test_kernels_are_found_in_an_installation(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("minidl.kernels", tmp_path / "__init__.py")
    monkeypatch.setattr(folders.importlib.util, "find_spec", {"minidl.kernels": spec}.get)
    assert folders.kernels_folder() == tmp_path


def test_python_version_is_said_once():
    """setup.py and ruff agree about the oldest Python."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["target-version"]
    assert settings()["python_requires"] == f">={target[2]}.{target[3:]}"
