"""Images of particles by name, so that rows of two files can be joined."""

from __future__ import annotations

import numpy as np
import pandas as pd

from verglas.io.stack import StackSource
from verglas.types import Particles


def image_names(particles: Particles) -> pd.MultiIndex | None:
    """Number (from 1) and whole path of the stack of every image; None where images have no names.

    Paths, not the names in the files: files in other folders write the same stack differently.
    """
    source = particles.source
    if not isinstance(source, StackSource):
        return None
    stacks, number = np.unique(source.stack_of, return_inverse=True)
    paths = np.array([str(source.path(int(k)).resolve()) for k in stacks], object)
    return pd.MultiIndex.from_arrays([source.frame + 1, paths[number.reshape(-1)]])
