"""`make package`: sdist -> wheel -> clean virtual environment -> run from another directory. Then a bare checkout.

Not a pytest file: it downloads and takes a minute. It prints what it runs and stops at the first failure.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (["check", "--op", "mul"], ["step", "-c", "c back; n; q"], ["doctor"], ["--version"])


def run(command, cwd, **more):
    """Run a command, show it, stop if it fails."""
    print("$", " ".join(map(str, command)), flush=True)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(part) for part in command], cwd=cwd, check=True, stdin=subprocess.DEVNULL, env=env, **more)


def build(folder):
    """The wheel, built from the sdist as pip would."""
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT], ROOT, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def missing(wheel):
    """Files of the checkout that the wheel should carry and does not."""
    there = set(zipfile.ZipFile(wheel).namelist())
    files = [path for top in ("minidl", "kernels") for path in (ROOT / top).rglob("*.*") if "__pycache__" not in path.parts]
    names = [path.relative_to(ROOT).as_posix() for path in files if path.parent == ROOT / "kernels" or path.suffix != ".md"]
    return [name for name in names if name.replace("kernels/", "minidl/kernels/", 1 if name.startswith("kernels/") else 0) not in there]


def main():
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wheel = build(folder / "dist")
        assert not missing(wheel), f"not in the wheel: {missing(wheel)}"
        venv.create(folder / "venv", with_pip=True)
        python, elsewhere = folder / "venv/bin/python", folder / "elsewhere"
        elsewhere.mkdir()
        run([python, "-m", "pip", "install", "--quiet", wheel], elsewhere)
        run([python, "-c", "import minidl; assert 'site-packages' in minidl.__file__, minidl.__file__"], elsewhere)
        for arguments in COMMANDS:
            run([folder / "venv/bin/minidl", *arguments], elsewhere)
        where = "from minidl.core.folders import kernels_folder as k; print(k())"
        installed = run([python, "-c", where], elsewhere, capture_output=True, text=True).stdout.strip()
        assert installed.endswith(os.path.join("minidl", "kernels")), installed
        run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "minidl"], elsewhere)
        bare = run([python, "-c", where], ROOT, capture_output=True, text=True).stdout.strip()
        assert bare == str(ROOT / "kernels"), bare
        run([python, "-m", "minidl", "doctor"], ROOT, stdout=subprocess.DEVNULL)
    print("package: sdist, wheel, clean installation and bare checkout all work")


if __name__ == "__main__":
    main()
