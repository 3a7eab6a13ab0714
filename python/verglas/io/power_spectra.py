"""Power spectra of micrographs in files, as rlnCtfPowerSpectrum names them."""

from __future__ import annotations

import re

import mrcfile
import numpy as np

from verglas.errors import FormatError
from verglas.io.atomic import atomic_path
from verglas.io.mrc import PathLike, read_stack
from verglas.io.mrc_header import read_header
from verglas.types.power_spectrum import PowerSpectrum

_TILES = re.compile(r"verglas: mean of (\d+) tiles")


def write_power_spectrum(path: PathLike, spectrum: PowerSpectrum) -> None:
    """Write the amplitudes of the whole plane, centred, with the pixel size of the tiles in the header.

    Parameters
    ----------
    path : path
        ``.mrc``.
    spectrum : PowerSpectrum
    """
    with atomic_path(path) as temporary, mrcfile.new(temporary) as f:
        f.set_data(spectrum.centred_amplitude())
        f.voxel_size = spectrum.pixel_size_A
        f.add_label(f"verglas: mean of {spectrum.tiles} tiles")


def read_power_spectrum(path: PathLike) -> PowerSpectrum:
    """Read what :func:`write_power_spectrum` writes.

    Parameters
    ----------
    path : path

    Returns
    -------
    PowerSpectrum

    Raises
    ------
    FormatError
        Not square, more than one image, or a spectrum of another program, whose windows are not known.
    """
    header = read_header(path)
    count, rows, columns = header.shape
    if count != 1 or rows != columns or rows % 2:
        raise FormatError(f"{path}: {count} images of {columns} x {rows} pixels; expected one power spectrum, square")
    with mrcfile.open(path, header_only=True, permissive=True) as f:
        labels = " ".join(str(label, "ascii", "replace") for label in f.header.label)
    tiles = _TILES.search(labels)
    if tiles is None:
        raise FormatError(f"{path}: a power spectrum of another program: over how many tiles it is a mean is not said")
    amplitude = np.fft.ifftshift(read_stack(path)[0])[:, : rows // 2 + 1]
    return PowerSpectrum(amplitude**2, float(header.pixel_size_A), int(tiles[1]))
