"""The `minidl` command: its help, its answers to mistakes, its exit codes, and `minidl doctor`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from minidl import cli
from minidl.commands import doctor
from minidl.core.op import OPS

ROOT = Path(__file__).parents[1]


def run(*args):
    return CliRunner().invoke(cli.main, args, prog_name="minidl")


def test_help_names_every_command():
    done = run("--help")
    assert done.exit_code == 0
    assert all(f"\n  {name} " in done.output for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    done = run(name, "--help")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: minidl {name}")


def test_help_loads_no_command():
    script = "import sys; from minidl.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert "minidl.cli" in done.stdout and "minidl.commands" not in done.stdout


@pytest.mark.parametrize("typed, hint", [
    ("chek", "Did you mean `minidl check`?"), ("docter", "`minidl doctor`?"), ("xyzzy", "There are: step,"),
])
def test_unknown_command(typed, hint):
    done = run(typed)
    assert done.exit_code == 2
    assert hint in done.stderr and done.stdout == ""


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "minidl", "doctor"], check=True, capture_output=True, text=True, cwd=ROOT)
    assert "All that minidl needs is here." in done.stdout and done.stderr == ""


def test_doctor_json():
    found = json.loads(run("doctor", "--json").stdout)
    assert found["problems"] == [] and found["ops"] == len(OPS)
    assert found["packages"]["numpy"] and found["threads"]
    assert found["cuda"][0]["what"] == "package cupy"


def wrong_gradient(*_):
    return "a first small gradient failed: planted"


@pytest.mark.parametrize("plant, told", [
    (lambda patch, tmp: patch.setattr(doctor, "first_gradient", wrong_gradient), "failed: planted"),
    (lambda patch, tmp: patch.setattr(doctor, "kernels_folder", lambda: tmp), "the CUDA sources are not in"),
    (lambda patch, tmp: patch.setattr(doctor, "NEEDED", ("no-such-package",)), "the package no-such-package is missing"),
    (lambda patch, tmp: patch.setenv("MINIDL_BACKEND", "cdua"), "MINIDL_BACKEND names 'cdua'"),
], ids=["gradient", "kernels", "package", "backend"])
def test_doctor_finds_what_is_broken(plant, told, monkeypatch, tmp_path):
    plant(monkeypatch, tmp_path)
    done = run("doctor")
    assert done.exit_code == 1
    assert "WRONG: " in done.output and told in done.output


def test_first_gradient_notices(monkeypatch):
    real = OPS["mul"].function
    monkeypatch.setattr(doctor.Tensor, "__mul__", lambda x, y: real(real(x, y), 1.01))
    assert doctor.first_gradient().startswith("d(3x²)/dx came out as")


def test_doctor_clears_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path / "cache"))
    ours = tmp_path / "cache" / "minidl"
    ours.mkdir(parents=True)
    (ours / "kernel.bin").write_bytes(b"123456")
    (tmp_path / "cache" / "not ours").touch()
    assert "6 bytes" in run("doctor").output
    assert f"cleared {ours}" in run("doctor", "--clear").stderr
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["not ours"]
