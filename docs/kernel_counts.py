"""`python -m docs.kernel_counts`: writes docs/kernels/counted.md, what NVIDIA's compiler makes of every kernel, without a GPU."""

import subprocess
from pathlib import Path

from minidl.backend.cuda import nvrtc
from minidl.backend.cuda.signature import signatures
from minidl.backend.cuda.source import text_of
from minidl.bench.machine import version
from minidl.core.folders import kernels_folder

PAGE = Path(__file__).parent / "kernels" / "counted.md"
GROUPS = ("multiply-add", "tensor core", "load global", "copy to shared", "store global", "load shared", "store shared", "barrier",
          "shuffle")
ARCH = "sm_90"

HEAD = """# What the compiler makes of every kernel

Counted, not measured: registers per thread, static shared memory per block, and how often each kind of instruction stands in
the machine code for {arch} (loops that were not unrolled count once). Compiled by NVRTC {nvrtc} with CuPy's options and the
tile shapes that stand in the files, at commit {commit}. `python -m docs.kernel_counts` writes this page again.

How to read it: a multiprocessor has 65,536 registers, so 128 of them leave room for two blocks of 256 threads; a
register-blocked product has many more multiply-adds than loads from shared memory; a copy to shared memory (`cp.async`)
passes by the registers; spills would be listed, and there are none.
"""


def main():
    """Compile, count, write."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    lines = [HEAD.format(arch=ARCH, nvrtc=version("nvidia-cuda-nvrtc"), commit=commit)]
    for path in sorted(kernels_folder().glob("*.cu")):
        found = nvrtc.resources(path.name, (), ARCH, disassemble=True)
        lines += [f"## {path.name}", "", f"| kernel | registers | shared | {' | '.join(GROUPS)} |", "|---|" + "---:|" * (2 + len(GROUPS))]
        for name in signatures(text_of(path.name)):
            used, mix = found[name], nvrtc.grouped(found[name].mix)
            spilled = f" ({used.spills} bytes spilled)" if used.spills else ""
            lines.append(f"| {name}{spilled} | {used.registers} | {used.shared:,} | {' | '.join(str(mix.get(g, '')) for g in GROUPS)} |")
        lines.append("")
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
