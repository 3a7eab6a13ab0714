"""What the CUDA module holds, against what it must hold: architectures, tensor-core instructions, registers, spills.

``python tools/check_cuda.py path/to/_cuda.so`` exits with status 1 when

- sm_80, sm_90 or the PTX of compute_90 is missing, or the module links the CUDA runtime or driver dynamically;
- no kernel of an op of ``TENSOR_OPS`` holds tensor-core instructions (HMMA ... of the machine code) on sm_80 or sm_90;
- a kernel takes more registers, stack or local memory than ``tools/cuda_budget.csv`` grants it, or has no row there.

``--write`` writes the budget anew from the module: look at the difference before it is committed. Local memory is
counted in instructions (LDL, STL): what the compiler spills, and arrays whose index it does not know, both end there.

cuobjdump and nvdisasm come with the CUDA toolkit or from PyPI (nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

REQUIRED = {"sm_80", "sm_90", "compute_90"}
# Ops whose product of matrices is most of a refinement's time: on tensor cores, or the figures of the guide are void.
TENSOR_OPS = ("score",)
BUDGET = Path(__file__).with_name("cuda_budget.csv")
_TENSOR = re.compile(r"\b(?:HMMA|IMMA|DMMA|BMMA|QGMMA|HGMMA|IGMMA|BGMMA)\b")
_LOCAL = re.compile(r"\b(?:LDL|STL)\b")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture.

    Attributes
    ----------
    registers : int
        Of a thread.
    stack_bytes : int
        Of a thread.
    local : int
        Instructions that read or write local memory.
    tensor : int
        Tensor-core instructions.
    """

    registers: int
    stack_bytes: int
    local: int
    tensor: int


Key = tuple[str, str]  # kernel, architecture


def find_tool(name: str) -> str | None:
    """Path of a tool: on PATH, in the toolkit, or as its PyPI package installs it."""
    candidates = [shutil.which(name), f"/usr/local/cuda/bin/{name}"]
    candidates += map(str, Path(sysconfig.get_path("purelib")).glob(f"nvidia/*/bin/{name}"))
    return next((c for c in candidates if c and Path(c).is_file()), None)


def find_cuobjdump() -> str | None:
    """Path of cuobjdump."""
    return find_tool("cuobjdump")


def _output(*command: str) -> str:
    environment = dict(os.environ)
    if disassembler := find_tool("nvdisasm"):
        environment["NVDISASM_PATH"] = str(Path(disassembler).parent)
        environment["PATH"] = f"{Path(disassembler).parent}{os.pathsep}{environment.get('PATH', '')}"
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def architectures(module: Path, cuobjdump: str) -> set[str]:
    """``sm_NN`` for each cubin and ``compute_NN`` for each PTX in the module."""
    cubins = set(re.findall(r"(sm_\d+[a-z]?)\.cubin", _output(cuobjdump, "--list-elf", str(module))))
    ptx = re.findall(r"sm_(\d+[a-z]?)\.ptx", _output(cuobjdump, "--list-ptx", str(module)))
    return cubins | {f"compute_{n}" for n in ptx}


def dynamic_cuda_libraries(module: Path) -> list[str]:
    """CUDA libraries the loader would need; there must be none."""
    needed = _output("readelf", "-d", str(module))
    return re.findall(r"\[(libcuda[^\]]*|libnv[^\]]*)\]", needed)


def kernel_name(demangled: str) -> str:
    """A kernel's name and template arguments, without namespaces, return type and parameters.

    The anonymous namespace has a hash of the file in its name: it would change with every edit.
    """
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|\bverglas::(?:cuda::|math::)?", "", demangled)
    depth, end = 0, len(name)
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0 and name[:i].strip():
            end = i
            break
    words = re.split(r" (?![^<]*>)", name[:end].strip())
    return words[-1]


def source_name(mangled: str) -> str:
    """The file of cuda/ that a kernel of an anonymous namespace comes from: two files may use one name."""
    match = re.search(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]+", mangled)
    return match[1] if match else "?"


def parse_resources(listing: str) -> dict[tuple[str, str], tuple[int, int]]:
    """(mangled name, architecture) -> (registers, stack) from ``cuobjdump --dump-resource-usage``."""
    found, architecture, function = {}, "", ""
    for line in listing.splitlines():
        if match := re.match(r"arch = (\S+)", line):
            architecture = match[1]
        elif match := re.match(r" Function (\S+):", line):
            function = match[1]
        elif function and (match := re.search(r"REG:(\d+) STACK:(\d+)", line)):
            found[function, architecture] = int(match[1]), int(match[2])
            function = ""
    return found


def parse_instructions(listing: str) -> dict[tuple[str, str], tuple[int, int]]:
    """(mangled name, architecture) -> instructions of local memory, of tensor cores; ``cuobjdump --dump-sass``."""
    found: dict[tuple[str, str], Counter[str]] = {}
    architecture, now = "", None
    for line in listing.splitlines():
        if match := re.search(r"code for (sm_\S+)", line):
            architecture, now = match[1], None
        elif match := re.match(r"\s*Function : (\S+)", line):
            now = found.setdefault((match[1], architecture), Counter())
        elif now is not None and "/*" in line:
            now["local"] += bool(_LOCAL.search(line))
            now["tensor"] += bool(_TENSOR.search(line))
    return {key: (count["local"], count["tensor"]) for key, count in found.items()}


def usage(module: Path, cuobjdump: str) -> dict[Key, Usage]:
    """What every kernel of the module takes on every architecture."""
    resources = parse_resources(_output(cuobjdump, "--dump-resource-usage", str(module)))
    instructions = parse_instructions(_output(cuobjdump, "--dump-sass", str(module)))
    mangled = sorted({name for name, _ in resources})
    demangled = _output("c++filt", *mangled).splitlines() if mangled else []
    names = {m: f"{source_name(m)}/{kernel_name(d)}" for m, d in zip(mangled, demangled, strict=True)}
    return {
        (names[name], architecture): Usage(*taken, *instructions.get((name, architecture), (0, 0)))
        for (name, architecture), taken in sorted(resources.items())
    }


def read_budget(path: Path = BUDGET) -> dict[Key, Usage]:
    """The committed limits: registers, stack and local at most, tensor-core instructions at least."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        numbers = [f.name for f in fields(Usage)]
        return {(row["kernel"], row["architecture"]): Usage(*(int(row[n]) for n in numbers)) for row in rows}


def write_budget(found: Mapping[Key, Usage], path: Path = BUDGET) -> None:
    """Limits that this module just meets; registers in the units of eight that a multiprocessor gives them out in."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("# Limits of tools/check_cuda.py: registers, stack bytes and local-memory instructions at most,\n")
        file.write("# tensor-core instructions at least. Written by tools/check_cuda.py --write.\n")
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["kernel", "architecture", *(f.name for f in fields(Usage))])
        for (kernel, architecture), taken in sorted(found.items()):
            limit = replace(taken, registers=-(-taken.registers // 8) * 8)
            out.writerow([kernel, architecture, *(getattr(limit, f.name) for f in fields(Usage))])


def over_budget(found: Mapping[Key, Usage], budget: Mapping[Key, Usage]) -> list[str]:
    """One sentence per kernel that takes more than it may, or that the budget does not know, or that is gone."""
    said = []
    for (kernel, architecture), taken in sorted(found.items()):
        limit = budget.get((kernel, architecture))
        if limit is None:
            said.append(
                f"{kernel} on {architecture} has no row in {BUDGET.name}: it takes {taken}; add it with --write"
            )
            continue
        for name in ("registers", "stack_bytes", "local"):
            if getattr(taken, name) > getattr(limit, name):
                said.append(
                    f"{kernel} on {architecture} takes {getattr(taken, name)} {name}, the budget grants "
                    f"{getattr(limit, name)}"
                )
        if taken.tensor < min(1, limit.tensor):
            said.append(f"{kernel} on {architecture} has lost its tensor-core instructions ({limit.tensor} before)")
    gone = sorted(set(budget) - set(found))
    said += [f"{kernel} on {architecture} is in {BUDGET.name} but not in the module" for kernel, architecture in gone]
    return said


def without_tensor_cores(found: Mapping[Key, Usage]) -> list[str]:
    """One sentence per op and architecture without tensor-core instructions."""
    said = []
    for op in TENSOR_OPS:
        for architecture in sorted(a for a in REQUIRED if a.startswith("sm_")):
            kernels = [u for (kernel, arch), u in found.items() if arch == architecture and kernel.startswith(op)]
            if not any(u.tensor for u in kernels):
                said.append(f"no kernel of {op} ({len(kernels)} of them) uses tensor cores on {architecture}")
    return said


def main(arguments: list[str]) -> int:
    """Check one module."""
    parser = argparse.ArgumentParser(prog="check_cuda.py", description="Check the CUDA module.")
    parser.add_argument("module", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {BUDGET.name} from this module")
    chosen = parser.parse_args(arguments)
    module, cuobjdump = chosen.module, find_cuobjdump()
    for tool, path in (("cuobjdump", cuobjdump), ("nvdisasm", find_tool("nvdisasm"))):
        if path is None:
            print(f"check_cuda: no {tool}; install the CUDA toolkit's or pip install nvidia-cuda-{tool}")
            return 1
    assert cuobjdump is not None
    held, linked = architectures(module, cuobjdump), dynamic_cuda_libraries(module)
    taken = usage(module, cuobjdump)
    if chosen.write:
        write_budget(taken)
    said = []
    if missing := REQUIRED - held:
        said.append(f"{module} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(held)) or 'none'}")
    if linked:
        said.append(f"{module} links {', '.join(linked)}: it would not load on a machine without CUDA")
    said += without_tensor_cores(taken) + over_budget(taken, read_budget())
    for sentence in said:
        print(f"check_cuda: {sentence}")
    if said:
        return 1
    print(
        f"cuda: {module.name} holds {', '.join(sorted(held))} and links no CUDA library; {len(taken)} kernels within "
        f"{BUDGET.name}, {', '.join(TENSOR_OPS)} on tensor cores"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
