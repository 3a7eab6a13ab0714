"""The kernels on plain arrays: one documented function per op, the same word in every tree."""

from verglas.ops.ctf import ctf

__all__ = ["ctf"]
