"""2D alignment and classes."""

from verglas.classification.align2d import Alignment2D, align2d, alignment_scores, in_reference_frame
from verglas.classification.class2d import classify2d
from verglas.classification.classes import Classes2D, Iteration, held_out_evidence
from verglas.classification.settings import Class2DSettings

__all__ = [
    "Alignment2D",
    "Class2DSettings",
    "Classes2D",
    "Iteration",
    "align2d",
    "alignment_scores",
    "classify2d",
    "held_out_evidence",
    "in_reference_frame",
]
