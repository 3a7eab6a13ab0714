"""The former place of :mod:`verglas.regularisation`: its names, for scripts that look for them here."""

from functools import partial

from verglas import regularisation
from verglas.regularisation import *  # noqa: F403

__all__ = list(regularisation.__all__)
__dir__ = partial(sorted, __all__)
