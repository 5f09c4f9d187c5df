"""`minidl doctor`: what this machine and this installation look like to minidl, and what is wrong with them.

report() collects everything as plain data; text() lays it out for people; problems decide the exit code.
"""

import json
import os
import platform
import shutil
import sys
from pathlib import Path

import click
import numpy as np

import minidl
from minidl import backend
from minidl.backend.threads import get_num_threads
from minidl.bench.machine import processor, version
from minidl.core.config import STATE
from minidl.core.device import cuda_checks
from minidl.core.folders import cache_folder, kernels_folder
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

NEEDED = ("numpy", "safetensors", "click", "rich", "threadpoolctl")
OPTIONAL = ("cupy-cuda12x", "cupy-cuda13x", "ziamath", "matplotlib", "pillow", "onnx", "onnxruntime", "mpi4py", "torch")
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINIDL_NUM_THREADS", "OPENBLAS_CORETYPE")
CORETYPE = ": somebody chose OpenBLAS's kernels; without it OpenBLAS takes those for this processor, often quicker ones"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--backends", is_flag=True, help="List every implementation of every op.")
@click.option("--clear", is_flag=True, help="Empty minidl's cache folder first.")
def command(as_json, backends, clear):
    """Show device, backends, versions, threads and caches; exit 1 if something minidl needs is broken."""
    if clear:
        clear_cache()
    found = report()
    click.echo(json.dumps(found, indent=2) if as_json else text(found, backends))
    sys.exit(1 if found["problems"] else 0)


def report():
    """Everything doctor knows, as plain data."""
    cupy_cache = Path(os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache").expanduser()
    found = {
        "minidl": {"version": minidl.__version__, "folder": str(Path(minidl.__file__).parent)},
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation(), "path": sys.executable},
        "machine": {"system": f"{platform.system()} {platform.machine()}", "processor": processor(), "cores": os.cpu_count()},
        "packages": {name: version(name) for name in NEEDED},
        "optional": {name: version(name) for name in OPTIONAL},
        "threads": thread_pools(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "cuda": [{"what": what, "why_not": reason} for what, reason in cuda_checks()],
        "ops": len(OPS),
        "implementations": {name: backend.names(name) for name in sorted(backend.IMPLEMENTATIONS)},
        "forced_backend": STATE.backend or os.environ.get("MINIDL_BACKEND"),
        "kernels": {"folder": str(kernels_folder()), "sources": sorted(p.name for p in kernels_folder().glob("*.cu"))},
        "kernel_tools": kernel_tools(),
        "caches": [cache("minidl", cache_folder()), cache("cupy kernels", cupy_cache)],
    }
    found["problems"] = problems(found)
    return found


def kernel_tools():
    """What it takes to compile and to run kernels without a GPU, as [{what, why_not}]."""
    from minidl.backend.cuda import nvrtc, on_cpu_build, on_cpu_step
    asked = {"compile for a GPU": nvrtc.why_no_compiler, "count instructions": nvrtc.why_no_disassembler,
             "run on the CPU": on_cpu_build.why_no_compiler, "step through": on_cpu_step.why_no_gdb}
    return [{"what": what, "why_not": " ".join(why_not().split())} for what, why_not in asked.items()]


def problems(found):
    """What minidl needs and this machine does not give; empty when all is well."""
    wrong = [f"the package {name} is missing" for name, number in found["packages"].items() if number is None]
    if int(np.__version__.partition(".")[0]) < 2:
        wrong.append(f"NumPy {np.__version__} is older than 2.0")
    if not (kernels_folder() / "__init__.py").is_file():
        wrong.append(f"the CUDA sources are not in {found['kernels']['folder']}")
    names = {part for listed in found["implementations"].values() for name in listed for part in (name, name.partition("/")[0])}
    if found["forced_backend"] and found["forced_backend"] not in names | {"cuda", "cpu", "generic", "reference"}:
        wrong.append(f"MINIDL_BACKEND names {found['forced_backend']!r}, which is no backend and no implementation")
    reason = first_gradient()
    return wrong + ([reason] if reason else [])


def first_gradient():
    """"" if a small forward and backward gives the right numbers, else what happened."""
    try:
        x = Tensor(np.array([0.5, -2.0], np.float32), requires_grad=True)
        (x * x * 3).backward(Tensor(np.array([1.0, 10.0], np.float32)))
        return "" if x.grad.tolist() == [3.0, -120.0] else f"d(3x²)/dx came out as {x.grad.tolist()}, not [3, -120]"
    except Exception as error:  # whatever it is, it is what the person asked doctor for
        return f"a first small gradient failed: {type(error).__name__}: {error}"


def thread_pools():
    """minidl's threads, and those of BLAS and OpenMP in this process; the processor whose kernels BLAS has chosen."""
    import threadpoolctl
    np.ones((2, 2)) @ np.ones((2, 2))  # so that BLAS is loaded
    own = {"library": "minidl", "version": None, "threads": get_num_threads(), "kernels": None}
    return [own] + [{"library": pool["internal_api"], "version": pool.get("version"), "threads": pool["num_threads"],
                     "kernels": pool.get("architecture")} for pool in threadpoolctl.threadpool_info()]


def cache(what, folder):
    """A cache folder and its size in bytes (None: not there)."""
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else None
    return {"what": what, "folder": str(folder), "bytes": size}


def clear_cache():
    """Empty minidl's own cache; CuPy's is CuPy's."""
    if cache_folder().is_dir():
        shutil.rmtree(cache_folder())
        click.echo(f"cleared {cache_folder()}", err=True)
    else:
        click.echo(f"nothing to clear: {cache_folder()} does not exist", err=True)


def size_text(size):
    """A folder's size, or that there is none."""
    return "not there" if size is None else f"{size:,} bytes"


def pool_text(pool):
    """One pool of threads, and what BLAS computes with."""
    kernels = f" ({pool['kernels']} kernels)" if pool["kernels"] else ""
    return f"{pool['library']} {pool['version'] or ''}{kernels}: {pool['threads']}".replace(" :", ":")


def implementations_text(found, all_of_them):
    """Every implementation of every op, or how many ops each backend has."""
    listed = found["implementations"]
    if all_of_them:
        return [f"{op}: {', '.join(names)}" for op, names in listed.items()]
    counts = {kind: sum(any(name.partition("/")[0] == kind for name in names) for names in listed.values())
              for kind in ("cuda", "cpu", "generic", "reference")}
    return [", ".join(f"{kind} has {count} ops" for kind, count in counts.items()) + "; --backends lists them"]


def text(found, backends=False):
    """The report for people."""
    rows = [
        ("minidl", f"{found['minidl']['version']}   {found['minidl']['folder']}"),
        ("python", f"{found['python']['version']} ({found['python']['implementation']})   {found['python']['path']}"),
        ("machine", f"{found['machine']['system']}, {found['machine']['cores']} cores, {found['machine']['processor']}"),
        ("packages", ", ".join(f"{name} {number or 'MISSING'}" for name, number in found["packages"].items())),
        ("optional", ", ".join(f"{name} {number}" for name, number in found["optional"].items() if number) or "none"),
        ("", "not installed: " + ", ".join(name for name, number in found["optional"].items() if not number)),
        *[("threads", pool_text(pool)) for pool in found["threads"]],
        *[("", f"{name}={value}" + CORETYPE * (name == "OPENBLAS_CORETYPE")) for name, value in found["variables"].items() if value],
        ("device cpu", "yes"),
        *[("device cuda", f"{c['what']}: {c['why_not'] or 'yes'}") for c in found["cuda"]],
        ("ops", f"{found['ops']} registered"),
        *[("backends", line) for line in implementations_text(found, backends)],
        *([("", f"forced: {found['forced_backend']}")] if found["forced_backend"] else []),
        ("kernels", f"{found['kernels']['folder']}   {', '.join(found['kernels']['sources']) or 'no .cu file yet'}"),
        *[("", f"{tool['what']}: {tool['why_not'] or 'yes'}") for tool in found["kernel_tools"]],
        *[("cache", f"{c['what']}: {c['folder']}   {size_text(c['bytes'])}") for c in found["caches"]],
    ]
    lines, before = [], None
    for label, line in rows:
        lines.append(f"{'' if label == before else label:<12} {line}".rstrip())
        before = label or before
    verdict = [f"WRONG: {problem}" for problem in found["problems"]] or ["All that minidl needs is here."]
    cannot = [tool["what"] for tool in found["kernel_tools"] if tool["why_not"]]
    if cannot:
        verdict.append(f"Of what `minidl kernels` does, this machine cannot: {'; '.join(cannot)}. Nothing else needs that.")
    return "\n".join([*lines, "", *verdict])
