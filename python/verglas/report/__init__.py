"""Figures and pages that show what a run did, and pictures for notebooks."""

from functools import partial

from verglas.report.notebook import gallery, use_style

__all__ = ["gallery", "use_style"]
__dir__ = partial(sorted, __all__)
