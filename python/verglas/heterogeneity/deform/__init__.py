"""Structures that bend: elastic networks, flexible alignment, deformations between maps, strain, distances of maps."""

from functools import partial

from verglas.heterogeneity.deform.flexible import FlexibleAlignment, align_modes
from verglas.heterogeneity.deform.normal_modes import NormalModes, normal_modes, pseudo_atoms
from verglas.heterogeneity.deform.strain import LocalStrain, local_strain
from verglas.heterogeneity.deform.structmap import StructMap, structmap
from verglas.heterogeneity.deform.zernike3d import Deformation, fit_deformation

__all__ = [
    "Deformation",
    "FlexibleAlignment",
    "LocalStrain",
    "NormalModes",
    "StructMap",
    "align_modes",
    "fit_deformation",
    "local_strain",
    "normal_modes",
    "pseudo_atoms",
    "structmap",
]
__dir__ = partial(sorted, __all__)
