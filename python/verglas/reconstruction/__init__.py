"""Known poses: maps to projections, and projections back to maps."""

from verglas.reconstruction.forward import project
from verglas.reconstruction.known_poses import Method, Reconstruction, reconstruct, reconstruct_report

__all__ = ["Method", "Reconstruction", "project", "reconstruct", "reconstruct_report"]
