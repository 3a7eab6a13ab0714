"""Poses and maps from particles: global search and refinement."""

from verglas.refinement.alignment import AlignSettings, align

__all__ = ["AlignSettings", "align"]
