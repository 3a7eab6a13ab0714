"""What was done to particle images before they were stored, and what a job must know of it.

Programs store images whose phases are flipped, or that are multiplied by their CTF. Everything here fits one model,
image = CTF x projection + white noise, so that such images are brought back to it when they are read:

- flipped: the transform is multiplied by the sign of the CTF, which undoes the flip exactly.
- premultiplied: y = c x with the CTF c and the image x. x is found as y c / max(c^2, e^2), e = 0.05. Where the CTF is
  larger than e, this is x again, noise included, which is white once more; near the zeros, where y holds next to
  nothing of x, it falls to 0, and no rounding of a stack is blown up more than 1/e times. For a sine that runs evenly
  through all phases, 8 e / (5 pi) = 2.5 % of the noise power is missing then, and 0.002 % of the information on the
  projection, whose weight is c^2.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas import fourier, ops
from verglas.errors import InputError, VerglasWarning
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types.arrays import FloatArray
from verglas.types.images import ChangedSource

FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"
LEAST_CTF = 0.05

_ABERRATIONS = {
    "beam tilt": ("rlnBeamTiltX", "rlnBeamTiltY", "ctf/tilt_A"),
    "odd Zernike coefficients": ("rlnOddZernike", "ctf/trefoil_A"),
    "even Zernike coefficients": ("rlnEvenZernike", "ctf/tetra_A"),
    "anisotropic magnification": ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11", "ctf/anisomag"),
    "image shift of the CTF": ("ctf/shift_A",),
}


def plain_images(particles: Particles) -> Particles:
    """Particles whose images are CTF x projection + noise, whatever was done to them before they were stored.

    Reads ``rlnCtfDataArePhaseFlipped`` and ``rlnCtfDataAreCtfPremultiplied`` from the particle or the optics table.
    Particles of which neither is true are returned as they are; every job of the package calls this first.

    Parameters
    ----------
    particles : Particles
        With CTFs where one of the two labels is true.

    Returns
    -------
    Particles
        Its images are undone when they are read. Written without images, it names the stacks and labels of the input.

    Raises
    ------
    InputError
        A label is neither 0 nor 1, or there is no CTF to undo.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics import plain_images
    >>> x = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    >>> p = vg.Particles.from_images(x, 2.0, optics=vg.Optics([15000, 9000], [15000, 9000]))
    >>> ctfs = vg.ctf(p.optics, 32, 2.0)
    >>> flipped = vg.fourier.inverse(vg.optics.phase_flip(vg.fourier.forward(x, 2), ctfs), (32, 32))
    >>> stored = vg.Particles.from_images(flipped, 2.0, optics=p.optics).with_columns(rlnCtfDataArePhaseFlipped=1)
    >>> bool(np.allclose(plain_images(stored).images(), x, atol=1e-5))
    True
    """
    flipped, premultiplied = (_state(particles, label) for label in (FLIPPED, PREMULTIPLIED))
    if particles.source is None or not (flipped.any() or premultiplied.any()):
        return particles
    optics = particles.optics
    undo = CtfUndo(optics.as_params(), flipped & ~premultiplied, premultiplied, particles.pixel_size_A)
    table = particles.table
    stored = {label: table[label].to_numpy() if label in table else None for label in (FLIPPED, PREMULTIPLIED)}
    source = ChangedSource(particles.source, undo, stored)
    return particles.with_source(source).with_columns(**{FLIPPED: 0, PREMULTIPLIED: 0})


def _state(particles: Particles, label: str) -> npt.NDArray[np.bool_]:
    tables = col.Tables(particles.table, particles.optics_table, particles.where)
    values = tables.value(label, optics_first=False)
    if values is None:
        return np.zeros(len(particles), bool)
    bad = np.flatnonzero((values != 0) & (values != 1))
    if bad.size:
        raise InputError(f"{particles.where}: {label} of particle {bad[0]}: expected 0 or 1, got {values[bad[0]]:g}")
    return values == 1


@dataclass(frozen=True, eq=False)
class CtfUndo:
    """Takes what a program did to stored images back; see the module.

    Attributes
    ----------
    params : (n, 9) float64
        CTFs, as of :func:`verglas.ops.ctf`, by which the images were flipped or multiplied.
    flipped, premultiplied : (n,) bool
    pixel_size_A : float
    """

    params: FloatArray
    flipped: npt.NDArray[np.bool_]
    premultiplied: npt.NDArray[np.bool_]
    pixel_size_A: float

    def __call__(self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Images (m, box, box) of these rows, undone."""
        changed = np.flatnonzero(self.flipped[rows] | self.premultiplied[rows])
        if not changed.size:
            return images
        box = images.shape[-1]
        ctf = ops.ctf(self.params[rows[changed]], box, self.pixel_size_A)
        # Not np.sign: where the CTF is 0 it would take the coefficient away.
        times = np.where(ctf < 0, np.float32(-1), np.float32(1))
        product = self.premultiplied[rows[changed]]
        times[product] = ctf[product] / np.maximum(ctf[product] ** 2, LEAST_CTF**2)
        spectra = fourier.forward(images[changed], 2)
        images[changed] = fourier.inverse(spectra * times, (box, box))
        return images


def for_job(particles: Particles, job: str, *, ctf: bool = True) -> Particles:
    """The particles as a job uses them: :func:`plain_images`, and a warning of what it does not apply.

    Parameters
    ----------
    particles : Particles
    job : str
        What the warning calls it.
    ctf : bool
        Whether the job uses the CTF at all; if not, the images are used as they are stored.

    Warns
    -----
    VerglasWarning
        The metadata hold a beam tilt, Zernike coefficients or anisotropic magnification.
    """
    if not ctf:
        return particles
    ignored = ignored_aberrations(particles)
    if ignored:
        listed = "; ".join(f"{kind} ({', '.join(labels)})" for kind, labels in ignored.items())
        warnings.warn(f"{particles.where}: {job} does not apply {listed}", VerglasWarning, stacklevel=3)
    return plain_images(particles)


def ignored_aberrations(particles: Particles) -> dict[str, list[str]]:
    """Aberrations that the metadata hold and no job applies: what it is -> its columns.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics import ignored_aberrations
    >>> p = vg.Particles.from_images(np.zeros((1, 8, 8)), 2.0)
    >>> ignored_aberrations(p.with_columns(rlnBeamTiltX=0.3, rlnBeamTiltY=0.0, rlnMagMat00=1.0))
    {'beam tilt': ['rlnBeamTiltX']}
    """
    aberrations: dict[str, list[str]] = {}
    for table in (particles.table, particles.optics_table):
        if table is None:
            continue
        for label in map(str, table.columns):
            base = label.partition("[")[0]
            kind = next((kind for kind, labels in _ABERRATIONS.items() if base in labels), None)
            if kind is not None and _differs(table[label], 1.0 if base in ("rlnMagMat00", "rlnMagMat11") else 0.0):
                columns = aberrations.setdefault(kind, [])
                if base not in columns:
                    columns.append(base)
    return aberrations


def _differs(values: pd.Series[Any], from_what: float) -> bool:
    """Whether a column, of numbers or of texts like [0,0.1], holds anything else than this value."""
    for value in pd.unique(values):
        numbers = str(value).strip("[] ").replace(",", " ").split()
        parsed = pd.to_numeric(pd.Series(numbers, dtype=object), errors="coerce").to_numpy(np.float64)
        if (np.isfinite(parsed) & (np.abs(parsed - from_what) > 1e-12)).any():
            return True
    return False
