"""Who may import whom: checks every #include and every Python import against the tables below.

``python tools/check_layers.py [root]`` prints one line per violation and exits with status 1 if there is one. The
tables are those of ARCHITECTURE.md; a change of either changes both. An import inside a function counts like one at the
top of the file: hiding an arrow does not turn it round. One exception: a package's module-level ``__getattr__`` may
reach ``run``, because public functions that touch files (vg.simulate.particles) are found where users look for them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# --- Python: layer -> layers it may import. A layer is the first name below ``verglas``. ---------------------------
BASE = {"errors", "_version"}  # importable from everywhere
LOW = {"_screen", "_native", "_array_module", "_cuda_arrays", "_devices", "types", "fourier"}
TOOLS = {"io", "geometry", "fourier", "filters", "masks", "image"}
STAGES = {
    "simulate",
    "detector",
    "picking",
    "extraction",
    "classification",
    "search",
    "regularisation",
    "refinement",
    "map_geometry",
    "initial_model",
    "reconstruction",
    "assessment",
    "heterogeneity",
    "motion",
    "polishing",
    "tilting",
}
FOR_STAGES = {"ops", "optics", "gridding", "geometry", "filters", "masks", "image", *LOW}
JOBS = {"report", "run", "pipeline"}
COMPILED = {"_cpu", "_cuda", "_core"}  # extension modules; _core stands for _core_v2, _core_v3, ...

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "_version": set(),
    "_native": COMPILED,
    "_array_module": set(),
    "_cuda_arrays": {"_native", "_array_module"},
    "_devices": {"_native", "_cuda_arrays"},
    "types": set(),
    "_screen": {"types"},
    "reference": set(),  # the oracle knows nothing of what it judges
    "ops": {"_native", "_array_module", "_cuda_arrays", "types"},
    **{name: LOW for name in TOOLS},
    # cryoSPARC's rotation vectors become Euler angles when a file is read; the bit stream of EER files needs a kernel
    "io": {"geometry", "ops", *LOW},
    # networks: numbers to numbers, loaded by what asks for one
    "learned": {"types", "ops"},
    "optics": FOR_STAGES - {"optics"},
    "gridding": {"ops", *LOW},
    **{name: FOR_STAGES for name in STAGES},
    # regularisation < refinement < initial_model: the M-step is a reconstruction, what it is regularised by comes from
    # the FSC, and a first map is made by the steps of a refinement
    "search": FOR_STAGES | {"reconstruction"},
    "classification": FOR_STAGES | {"search", "learned"},
    "picking": FOR_STAGES | {"learned"},
    # a model is judged by a map through the density that it would have
    "assessment": FOR_STAGES | {"simulate", "learned"},
    "regularisation": FOR_STAGES | {"reconstruction", "assessment"},
    "refinement": FOR_STAGES | {"search", "reconstruction", "assessment", "regularisation"},
    "initial_model": FOR_STAGES | {"search", "refinement", "map_geometry", "reconstruction", "assessment"},
    # maps of tilt pairs: images aligned to class averages, poses from the pair, sums, classes turned onto each other
    "tilting": FOR_STAGES | {"classification", "search", "reconstruction", "map_geometry", "assessment"},
    # classes are refined by the loop's iterations, and start where ab initio does; public jobs show how they go
    "heterogeneity": FOR_STAGES | {"search", "refinement", "initial_model", "reconstruction", "assessment"},
    # blocks of particles on other machines: what a search or a refinement runs here, run there
    "cluster": FOR_STAGES | {"search", "io"},
    "report": FOR_STAGES | STAGES | TOOLS,
    "run": FOR_STAGES
    | STAGES
    | TOOLS
    | {"report", "reference", "cluster", "learned"},  # reference: verglas doctor compares with it
    "pipeline": FOR_STAGES | STAGES | TOOLS | {"report", "run", "cluster"},
    "window": FOR_STAGES | STAGES | TOOLS | JOBS,
    "cli": {"types", "_screen", "window", *JOBS},
    "__main__": {"cli"},
}
FACADE_EAGER = {"types", *BASE}  # what ``import verglas`` loads; everything else it reaches lazily

# Third-party packages that belong to one place; the others may be imported anywhere except in CLOSED.
EXTERNAL_HOME = {
    "mrcfile": {"io"},
    "tifffile": {"io"},
    "imagecodecs": {"io"},
    "matplotlib": {"report"},
    "jinja2": {"report", "window"},
    "starlette": {"window"},
    "uvicorn": {"window"},
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"_screen", "run"},
    "dask": {"cluster"},
    "distributed": {"cluster"},
    "dask_jobqueue": {"cluster"},
    "cupy": {"_array_module", "_cuda_arrays", "fourier"},
    "cupyx": {"_cuda_arrays", "fourier"},
}
# layer -> the only third-party packages it may import
CLOSED = {
    "errors": set(),
    "_version": set(),
    "_native": set(),
    "types": {"numpy", "pandas"},
    "reference": {"numpy", "scipy"},
}

# --- C++ and CUDA: folder -> folders it may include (quoted includes are relative to cpp/ or cuda/). ---------------
CPP_ALLOWED = {
    "math": {"math"},
    "ops": {"ops", "math"},
    "bind": {"bind", "ops", "math", "cuda"},
    "cuda": {"cuda", "math"},
}
# Kernels know neither Python nor files, logs or threads of their own (OpenMP's end with the loop).
CPP_FORBIDDEN = re.compile(
    r"pybind11/.*|Python\.h|[io]?fstream|iostream|ostream|filesystem|cstdio|stdio\.h|thread|future"
)
CPP_ONLY_STANDARD = {"math"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?P<mark>[<"])(?P<name>[^">]+)[">]', re.M)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _cpp_layer(path: Path, root: Path) -> str | None:
    parts = path.relative_to(root).parts
    if parts[0] == "cuda":
        return "cuda"
    return parts[1] if len(parts) > 2 else None


def check_includes(root: Path) -> list[str]:
    """Violations of the C++ table, ``path:line: sentence`` each."""
    found = []
    files = [p for top in ("cpp", "cuda") for p in sorted((root / top).rglob("*")) if p.suffix in {".h", ".cpp", ".cu"}]
    for path in files:
        where, layer = path.relative_to(root), _cpp_layer(path, root)
        if layer not in CPP_ALLOWED:
            found.append(f"{where}:1: lies in no layer; expected cpp/{{math,ops,bind}} or cuda")
            continue
        text = path.read_text(encoding="utf-8")
        for match in INCLUDE.finditer(text):
            problem = _include_problem(layer, where, match["mark"], match["name"])
            if problem:
                found.append(f"{where}:{_line(text, match.start())}: {problem}")
    return found


def _include_problem(layer: str, where: Path, mark: str, name: str) -> str | None:
    if layer != "bind" and CPP_FORBIDDEN.fullmatch(name):
        return f"{layer} may not include {name}: kernels know neither Python nor files, logs or threads"
    if mark == "<":
        if layer in CPP_ONLY_STANDARD and ("/" in name or "." in name):
            return f"{layer} may include the standard library only, not <{name}>"
        return None
    target = name.split("/")[0] if "/" in name else None
    if target not in CPP_ALLOWED[layer]:
        return f'{layer} may not include "{name}"; it may include {", ".join(sorted(CPP_ALLOWED[layer]))}'
    if layer == "bind" and target == "cuda" and where.parts[2] != "cuda":
        return f'only cpp/bind/cuda may include "{name}": one module per backend'
    if layer == "bind" and target == "ops" and where.parts[2] == "cuda":
        return f'cpp/bind/cuda may not include "{name}": one module per backend'
    return None


def _imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported; importlib.import_module with a constant start counts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}" if prefix == "verglas" else prefix
        elif isinstance(node, ast.Call) and _called_name(node) in {"importlib.import_module", "import_module"}:
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.JoinedStr) and argument.values:
                argument = argument.values[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value


def _called_name(node: ast.Call) -> str:
    """``name`` or ``name.name``, else nothing: to write out every expression that is called takes seconds."""
    match node.func:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(module), name):
            return f"{module}.{name}"
    return ""


def _layer_of(name: str) -> str:
    """Layer of a dotted ``verglas...`` name; the compiled cores are one layer."""
    parts = name.split(".")
    layer = parts[1] if len(parts) > 1 else ""
    return "_core" if layer.startswith("_core") else layer


def _python_problem(layer: str, name: str) -> str | None:
    top = name.split(".")[0]
    if top != "verglas":
        homes = EXTERNAL_HOME.get(top)
        if homes and layer not in homes:
            return f"{layer} may not import {top}; it belongs to {', '.join(sorted(homes))}"
        standard = top in sys.stdlib_module_names
        if not standard and layer in CLOSED and top not in CLOSED[layer]:
            return f"{layer} may not import {top}; it may import {', '.join(sorted(CLOSED[layer])) or 'no package'}"
        return None
    target = _layer_of(name)
    if target in BASE or target == layer or target in ALLOWED[layer]:
        return None
    if target not in ALLOWED and target not in COMPILED:
        return f"{layer} may not import {name!r} from the top-level namespace; import it from the module that holds it"
    return f"{layer} may not import {target}; it may import {', '.join(sorted(ALLOWED[layer] | BASE))}"


def check_imports(root: Path) -> list[str]:
    """Violations of the Python table, ``path:line: sentence`` each."""
    found = []
    top = root / "python" / "verglas"
    for path in sorted(top.rglob("*.py")):
        where, inner = path.relative_to(root), path.relative_to(top)
        package = ["verglas", *inner.parts[:-1]]
        tree = ast.parse(path.read_text(encoding="utf-8"), str(where))
        if inner.parts == ("__init__.py",):
            found += _facade_problems(tree, where)
            continue
        layer = inner.parts[0].removesuffix(".py")
        if layer not in ALLOWED:
            found.append(f"{where}:1: {layer!r} is in no layer; add it to tools/check_layers.py and ARCHITECTURE.md")
            continue
        reach = _lines_of_getattr(tree) if inner.name == "__init__.py" else range(0)
        for line, name in _imports(tree, package):
            if line in reach and _layer_of(name) == "run":
                continue
            problem = _python_problem(layer, name)
            if problem:
                found.append(f"{where}:{line}: {problem}")
    return found


def _lines_of_getattr(tree: ast.Module) -> range:
    """Lines of the module-level ``__getattr__``, none without one."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)


def _facade_problems(tree: ast.Module, where: Path) -> list[str]:
    """``import verglas`` must stay light: eager imports are few, those for type checkers and in functions are free."""
    eager = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    return [
        f"{where}:{line}: import verglas may load only {', '.join(sorted(FACADE_EAGER))} at once, not {name}"
        for line, name in _imports(eager, ["verglas"])
        if name.split(".")[0] not in sys.stdlib_module_names and _layer_of(name) not in FACADE_EAGER
    ]


def main(arguments: list[str]) -> int:
    """Check the tree at the given root, by default the one this script lies in."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = check_includes(root) + check_imports(root)
    print("\n".join(problems) if problems else "layers: every include and import points the right way")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
