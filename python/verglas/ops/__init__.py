"""The kernels on plain arrays: one documented function per op, the same word in every tree."""

from verglas.ops.ctf import ctf
from verglas.ops.grid import Grid
from verglas.ops.insert import GridSums, fold, insert, symmetrise
from verglas.ops.project import project

__all__ = ["Grid", "GridSums", "ctf", "fold", "insert", "project", "symmetrise"]
