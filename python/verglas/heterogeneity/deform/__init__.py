"""Structures that bend: elastic networks, flexible alignment, deformations of maps and to images, strain, distances."""

from functools import partial

from verglas.heterogeneity.deform.flexible import FlexibleAlignment, align_modes
from verglas.heterogeneity.deform.images import ImageDeformation, ZernikeWays, fit_deformation_to_images, zernike_ways
from verglas.heterogeneity.deform.normal_modes import NormalModes, normal_modes, pseudo_atoms
from verglas.heterogeneity.deform.strain import LocalStrain, local_strain
from verglas.heterogeneity.deform.structmap import StructMap, structmap
from verglas.heterogeneity.deform.zernike3d import Deformation, fit_deformation

__all__ = [
    "Deformation",
    "FlexibleAlignment",
    "ImageDeformation",
    "LocalStrain",
    "NormalModes",
    "StructMap",
    "ZernikeWays",
    "align_modes",
    "fit_deformation",
    "fit_deformation_to_images",
    "local_strain",
    "normal_modes",
    "pseudo_atoms",
    "structmap",
    "zernike_ways",
]
__dir__ = partial(sorted, __all__)
