"""Micrographs and gains as MRC files of one image."""

from __future__ import annotations

import mrcfile
import numpy as np

from verglas.errors import InputError
from verglas.io.atomic import atomic_path
from verglas.io.mrc import PathLike, as_stored
from verglas.types import Micrograph


def write_micrograph(path: PathLike, micrograph: Micrograph, dtype: str = "float32") -> None:
    """Write one image; its pixel size goes into the header where it is known.

    Parameters
    ----------
    path : path
        ``.mrc``.
    micrograph : Micrograph
    dtype : str
        ``float32`` (mode 2), ``float16`` (12), or an integer type as of :func:`write_map`, except ``uint4``.

    Raises
    ------
    InputError
        A value is not finite, or does not fit the type.

    Examples
    --------
    >>> import tempfile, numpy as np, verglas as vg
    >>> from verglas.io import write_micrograph
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_micrograph(f"{folder}/a.mrc", vg.Micrograph(np.ones((3, 5)), 1.5), "float16")
    ...     vg.read_micrograph(f"{folder}/a.mrc").shape
    (3, 5)
    """
    if dtype == "uint4":
        raise InputError(f"{path}: images of 4 bits are not written; use int8")
    bad = micrograph.data.size - int(np.count_nonzero(np.isfinite(micrograph.data)))
    if bad:
        raise InputError(f"cannot write {path}: {bad} pixels are NaN or infinite")
    stored = as_stored(micrograph.data, dtype, str(path))
    with atomic_path(path) as temporary, mrcfile.new(temporary) as f:
        f.set_data(stored)
        if np.isfinite(micrograph.pixel_size_A):
            f.voxel_size = micrograph.pixel_size_A
        f.add_label("verglas")
