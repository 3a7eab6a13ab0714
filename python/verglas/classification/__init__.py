"""2D alignment, classes, multivariate analysis, and checks of model bias."""

from functools import partial

from verglas.classification.align2d import Alignment2D, align2d, alignment_scores, in_reference_frame
from verglas.classification.bias import BiasReport, check_bias
from verglas.classification.class2d import classify2d
from verglas.classification.classes import Classes2D, Iteration, held_out_evidence
from verglas.classification.cores import class_cores, with_levels
from verglas.classification.members import core_members, stable_core
from verglas.classification.multivariate import (
    Correspondence,
    Eigenimages,
    SteerableEigenimages,
    cluster,
    correspondence_analysis,
    covariance,
    eigenimages,
    steerable_eigenimages,
)
from verglas.classification.neighbours import ViewNeighbours, view_neighbours
from verglas.classification.ranking import class_descriptors, rank_classes
from verglas.classification.reference_free import (
    MutualAlignment,
    align_pyramid,
    align_reference_free,
    einstein_from_noise,
)
from verglas.classification.selection import ClassSelection, SelectionRules, select_classes, select_ranked
from verglas.classification.settings import BiasSettings, Class2DSettings

__all__ = [
    "Alignment2D",
    "BiasReport",
    "BiasSettings",
    "Class2DSettings",
    "ClassSelection",
    "Classes2D",
    "Correspondence",
    "Eigenimages",
    "Iteration",
    "MutualAlignment",
    "SelectionRules",
    "SteerableEigenimages",
    "ViewNeighbours",
    "align2d",
    "align_pyramid",
    "align_reference_free",
    "alignment_scores",
    "check_bias",
    "class_cores",
    "class_descriptors",
    "classify2d",
    "cluster",
    "core_members",
    "correspondence_analysis",
    "covariance",
    "eigenimages",
    "einstein_from_noise",
    "held_out_evidence",
    "in_reference_frame",
    "rank_classes",
    "select_classes",
    "select_ranked",
    "stable_core",
    "steerable_eigenimages",
    "view_neighbours",
    "with_levels",
]
__dir__ = partial(sorted, __all__)
