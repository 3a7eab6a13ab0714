"""Which machine code and PTX the CUDA module holds, against what it must hold; cuobjdump reads it.

``python tools/check_cuda.py path/to/_cuda.so`` exits with status 1 when sm_80, sm_90 or the PTX of compute_90 is
missing, or when the module links the CUDA runtime or driver dynamically. cuobjdump comes with the CUDA toolkit or from
PyPI (nvidia-cuda-cuobjdump).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REQUIRED = {"sm_80", "sm_90", "compute_90"}


def find_cuobjdump() -> str | None:
    """Path of cuobjdump: on PATH, in the toolkit, or as the PyPI package installs it."""
    candidates = [shutil.which("cuobjdump"), "/usr/local/cuda/bin/cuobjdump"]
    candidates += map(str, Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/cuobjdump"))
    return next((c for c in candidates if c and Path(c).is_file()), None)


def architectures(module: Path, cuobjdump: str) -> set[str]:
    """``sm_NN`` for each cubin and ``compute_NN`` for each PTX in the module."""

    def listed(option: str) -> str:
        return subprocess.run([cuobjdump, option, str(module)], check=True, capture_output=True, text=True).stdout

    cubins = set(re.findall(r"(sm_\d+[a-z]?)\.cubin", listed("--list-elf")))
    return cubins | {f"compute_{n}" for n in re.findall(r"sm_(\d+[a-z]?)\.ptx", listed("--list-ptx"))}


def dynamic_cuda_libraries(module: Path) -> list[str]:
    """CUDA libraries the loader would need; there must be none."""
    needed = subprocess.run(["readelf", "-d", str(module)], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\[(libcuda[^\]]*|libnv[^\]]*)\]", needed)


def main(arguments: list[str]) -> int:
    """Check one module."""
    if len(arguments) != 1:
        print("usage: python tools/check_cuda.py path/to/_cuda.so", file=sys.stderr)
        return 2
    module, cuobjdump = Path(arguments[0]), find_cuobjdump()
    if cuobjdump is None:
        print("check_cuda: no cuobjdump; install the CUDA toolkit's or pip install nvidia-cuda-cuobjdump")
        return 1
    found, linked = architectures(module, cuobjdump), dynamic_cuda_libraries(module)
    if missing := REQUIRED - found:
        print(f"check_cuda: {module} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(found)) or 'none'}")
    if linked:
        print(f"check_cuda: {module} links {', '.join(linked)}: it would not load on a machine without CUDA")
    if missing or linked:
        return 1
    print(f"cuda: {module.name} holds {', '.join(sorted(found))} and links no CUDA library")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
