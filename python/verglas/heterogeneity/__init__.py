"""More than one structure in a set of particles: classes, linear components, parts of a particle, equivalent poses."""

from functools import partial

from verglas.heterogeneity.bodies import Body, make_bodies
from verglas.heterogeneity.classes import ClassTrial
from verglas.heterogeneity.evidence import HeterogeneityTest, heterogeneity_test
from verglas.heterogeneity.expand import collapse_symmetry, expand_symmetry
from verglas.heterogeneity.fixed_classes import fit_classes, population_errors
from verglas.heterogeneity.landscape import Landscape, Mixture, landscape
from verglas.heterogeneity.migration import migration_matrix, stable_members
from verglas.heterogeneity.motions import Motions, motions_of
from verglas.heterogeneity.posed import PosedImages, posed_images
from verglas.heterogeneity.recentred import recentre_boxes, undo_recentring
from verglas.heterogeneity.regions import Region, in_regions
from verglas.heterogeneity.resampled import BootstrapVariance, SubsetLandscape, bootstrap_variance, subset_landscape
from verglas.heterogeneity.settings import (
    ClassSettings,
    DeformSettings,
    MultibodySettings,
    TestSettings,
    VariabilitySettings,
)
from verglas.heterogeneity.subtract import SubtractedSource, subtract
from verglas.heterogeneity.variability import Variability, variability

__all__ = [
    "Body",
    "BootstrapVariance",
    "ClassSettings",
    "ClassTrial",
    "DeformSettings",
    "HeterogeneityTest",
    "Landscape",
    "Mixture",
    "Motions",
    "MultibodySettings",
    "PosedImages",
    "Region",
    "SubsetLandscape",
    "SubtractedSource",
    "TestSettings",
    "Variability",
    "VariabilitySettings",
    "bootstrap_variance",
    "collapse_symmetry",
    "expand_symmetry",
    "fit_classes",
    "heterogeneity_test",
    "in_regions",
    "landscape",
    "make_bodies",
    "migration_matrix",
    "motions_of",
    "population_errors",
    "posed_images",
    "recentre_boxes",
    "stable_members",
    "subset_landscape",
    "subtract",
    "undo_recentring",
    "variability",
]
__dir__ = partial(sorted, __all__)
