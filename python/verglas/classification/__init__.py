"""2D alignment and classes."""

from verglas.classification.align2d import Alignment2D, align2d, alignment_scores, in_reference_frame

__all__ = ["Alignment2D", "align2d", "alignment_scores", "in_reference_frame"]
