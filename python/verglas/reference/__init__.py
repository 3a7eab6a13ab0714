"""Float64 NumPy versions of every kernel, written for clarity: the oracles of the tests. Never imported by ops."""

from verglas.reference import ctf, polar, project, scatter

__all__ = ["ctf", "polar", "project", "scatter"]
