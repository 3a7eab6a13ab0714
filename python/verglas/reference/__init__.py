"""Float64 NumPy versions of every kernel, written for clarity: the oracles of the tests. Never imported by ops."""

from verglas.reference import ctf, polar, project

__all__ = ["ctf", "polar", "project"]
__all__ = ["ctf", "project"]
from verglas.reference import ctf, scatter

__all__ = ["ctf", "scatter"]
from verglas.reference import ctf, project, scatter

__all__ = ["ctf", "project", "scatter"]
