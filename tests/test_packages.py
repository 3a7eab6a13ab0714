"""The package as a namespace: every part of it can be imported, and public functions stay what they are."""

from __future__ import annotations

import subprocess
import sys
import types

import verglas as vg

_SCRIPT = """
import importlib, pkgutil, types
import verglas as vg

for module in pkgutil.walk_packages(vg.__path__, "verglas."):
    if module.ispkg:
        importlib.import_module(module.name)
functions = [n for n in vg.__all__ if n in vg._LAZY]
assert {"abinitio", "refine", "align", "pick", "process", "reconstruct", "extract", "project"} <= set(functions)
modules = [n for n in functions if isinstance(getattr(vg, n), types.ModuleType) or not callable(getattr(vg, n))]
assert not modules, modules
import sys
assert "scipy.stats" not in sys.modules  # as long to load as all of the package; scipy.special has the distributions
print(vg.abinitio.__name__, vg.refine.__name__, vg.classify2d.__name__)
"""


def test_no_package_bears_the_name_of_a_public_function():
    # In a process of its own: what other tests have loaded must not decide.
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["abinitio", "refine", "classify2d"]


def test_every_listed_submodule_is_a_package_or_module():
    for name in vg._SUBMODULES:
        assert isinstance(getattr(vg, name), types.ModuleType)
