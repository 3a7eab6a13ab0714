"""What was done to particle images before they were stored, by a microscope or a program, and what a job knows of it.

Everything here fits one model, image = CTF x projection + noise. Images with odd aberrations, anisotropic
magnification or the MTF of a detector are brought to it when they are read (``optics.aberrations``), and so are those
of programs that store images whose phases are flipped, or that are multiplied by their CTF:

- flipped: the transform is multiplied by the sign of the CTF, which undoes the flip exactly.
- premultiplied: y = c x with the CTF c and the image x. x is found as y c / max(c^2, e^2), e = 0.05. Where the CTF is
  larger than e, this is x again, noise included, which is white once more; near the zeros, where y holds next to
  nothing of x, it falls to 0, and no rounding of a stack is blown up more than 1/e times. For a sine that runs evenly
  through all phases, 8 e / (5 pi) = 2.5 % of the noise power is missing then, and 0.002 % of the information on the
  projection, whose weight is c^2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas import fourier, ops
from verglas.errors import InputError, VerglasWarning
from verglas.optics.aberrations import BEAM_TILT, MAGNIFICATION, ODD_ZERNIKE, Aberrations, image_optics
from verglas.optics.one_grid import Grids, ToGrid, common_size, grid_matrix
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types._columns import NO_ABERRATION
from verglas.types.arrays import FloatArray
from verglas.types.even_aberrations import EVEN_COUNT, EVEN_ZERNIKE, coefficient_lists
from verglas.types.images import ChangedSource, GridSource
from verglas.types.mtf import DETECTOR_PIXEL, MTF_FILE, is_mtf_name, table_of
from verglas.types.pose_ranges import warn_of_poses

FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"
LEAST_CTF = 0.05
_ABERRATIONS = (*BEAM_TILT, ODD_ZERNIKE, *MAGNIFICATION, MTF_FILE)

# cryoSPARC's and cisTEM's, whose conventions nothing here has checked
_IGNORED = {
    "beam tilt": ("ctf/tilt_A", "cisTEMBeamTiltX", "cisTEMBeamTiltY"),
    "odd Zernike coefficients": ("ctf/trefoil_A",),
    "even Zernike coefficients": ("ctf/tetra_A",),
    "anisotropic magnification": ("ctf/anisomag",),
    "image shift of the CTF": ("ctf/shift_A",),
}


def plain_images(particles: Particles) -> Particles:
    """Particles whose images are CTF x projection + noise, whatever was done to them before they were stored.

    Reads ``rlnCtfDataArePhaseFlipped`` and ``rlnCtfDataAreCtfPremultiplied`` from the particle or the optics table, and
    beam tilt, odd Zernike coefficients, magnification matrix and the MTF of the detector (``rlnMtfFileName``).
    Particles that have none of this are returned as they are; every job of the package calls this first.

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
    grids = Grids.of(particles)
    if grids is not None:
        return _on_one_grid(particles, grids)
    flipped, premultiplied = (_state(particles, label) for label in (FLIPPED, PREMULTIPLIED))
    if particles.source is None:
        return particles
    aberrations = Aberrations.of(particles)
    stored_ctf = bool(flipped.any() or premultiplied.any())
    if not (stored_ctf or aberrations.any):
        return particles
    pixel_size_A, undo_ctf = particles.pixel_size_A, None
    if stored_ctf:
        # the CTF as it is in the images: a magnification matrix moves it with them
        optics = image_optics(particles.optics, aberrations.matrix[aberrations.kind])
        undo_ctf = CtfUndo(optics.as_params(), flipped & ~premultiplied, premultiplied, pixel_size_A)
    neutral: dict[str, Any] = {FLIPPED: 0, PREMULTIPLIED: 0}
    if aberrations.any:
        neutral |= {label: NO_ABERRATION[label] for label in _ABERRATIONS}
        aberrations.refuse_finer(pixel_size_A, particles.where)
    table = particles.table
    stored = {label: table[label].to_numpy() if label in table else None for label in neutral}
    source = ChangedSource(particles.source, ToModel(undo_ctf, aberrations, pixel_size_A), stored)
    return particles.with_source(source).with_columns(**neutral)


def _on_one_grid(particles: Particles, grids: Grids) -> Particles:
    """Particles of several boxes and pixel sizes: each kind made plain by itself, then all on one grid."""
    models: list[Change | None] = []
    place = np.zeros(len(particles), np.int64)
    stored: dict[str, Any] = {col.GRID_BOX: None, col.GRID_PIXEL: None}
    neutral: dict[str, Any] = {col.GRID_BOX: grids.box, col.GRID_PIXEL: grids.pixel_size_A}
    for kind in range(len(grids.boxes)):
        rows = np.flatnonzero(grids.kind == kind)
        place[rows] = np.arange(len(rows))
        source = plain_images(particles[rows]).source
        models.append(source.change if isinstance(source, ChangedSource) else None)
    if any(models):
        names = (FLIPPED, PREMULTIPLIED, *_ABERRATIONS)
        neutral |= {label: NO_ABERRATION.get(label, 0) for label in names}
        stored |= {label: particles.table[label].to_numpy() if label in particles.table else None for label in names}
    matrices = [
        np.asarray(grid_matrix(n, p, grids.box, grids.pixel_size_A), np.float32)
        for n, p in zip(grids.boxes, grids.pixel_sizes_A, strict=True)
    ]
    change = ToGrid(grids.kind, models, place, matrices)
    assert particles.source is not None
    source = GridSource(
        particles.source, change, stored, kind=grids.kind, box=grids.box, pixel_size_A=grids.pixel_size_A
    )
    return particles.with_source(source).with_columns(**neutral)


def stored_images(particles: Particles) -> Particles:
    """What :func:`plain_images` was given: images as they are stored, and the labels that say what they are.

    For jobs that write what is stored on, with other optics: a finished refinement holds plain images.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics.stored import plain_images, stored_images
    >>> p = vg.Particles.from_images(np.ones((2, 8, 8)), 2.0, optics=vg.Optics([15000, 9000], [15000, 9000]))
    >>> p = p.with_columns(rlnBeamTiltX=0.4)
    >>> stored_images(plain_images(p)).table.rlnBeamTiltX.tolist()
    [0.4, 0.4]
    """
    while isinstance(particles.source, ChangedSource):
        source = particles.source
        particles = particles.with_source(source.inner).with_columns(**source.labels())
    return particles


Change = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def to_stored(plain: Particles) -> Change | None:
    """Of particles of :func:`plain_images`: what takes images of the model, and their rows, to the state of the stored.

    None where the two are the same.
    """
    source = plain.source
    if not isinstance(source, ChangedSource):
        return None
    if isinstance(source, GridSource):
        raise InputError(
            f"{plain.where}: images of several sizes cannot be written back as they were stored; take the optics "
            "groups of one size at a time (verglas select)"
        )
    change, rows = source.change, source.rows
    assert isinstance(change, ToModel)
    return change.redo if rows is None else _OfRows(change, rows)


@dataclass(frozen=True, eq=False)
class _OfRows:
    """``ToModel.stored`` of a subset."""

    change: ToModel
    rows: npt.NDArray[np.int64]

    def __call__(self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.change.redo(images, self.rows[rows])


def ctf_in_images(particles: Particles) -> str | None:
    """The label that says that stored images were flipped or multiplied by the CTF of their columns; None without."""
    return next((label for label in (FLIPPED, PREMULTIPLIED) if _state(particles, label).any()), None)


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
    params : (n, 14) float64
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
        images[changed] = self._times(images[changed], rows[changed], forward=False)
        return images

    def reapply(self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Images (m, box, box) that nothing was done to, as the program would store them."""
        changed = np.flatnonzero(self.flipped[rows] | self.premultiplied[rows])
        images[changed] = self._times(images[changed], rows[changed], forward=True)
        return images

    def _times(
        self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], *, forward: bool
    ) -> npt.NDArray[np.float32]:
        box = images.shape[-1]
        ctf = ops.ctf(self.params[rows], box, self.pixel_size_A)
        # Not np.sign: where the CTF is 0 it would take the coefficient away.
        times = np.where(ctf < 0, np.float32(-1), np.float32(1))
        product = self.premultiplied[rows]
        times[product] = ctf[product] if forward else ctf[product] / np.maximum(ctf[product] ** 2, LEAST_CTF**2)
        return np.asarray(fourier.inverse(fourier.forward(images, 2) * times, (box, box)), np.float32)


@dataclass(frozen=True, eq=False)
class ToModel:
    """Brings stored images to the model; see the module.

    Attributes
    ----------
    ctf : CtfUndo or None
    aberrations : Aberrations
    pixel_size_A : float
    """

    ctf: CtfUndo | None
    aberrations: Aberrations
    pixel_size_A: float

    def __call__(self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Images (m, box, box) of these rows, as the model has them."""
        if self.ctf is not None:
            images = self.ctf(images, rows)
        return self.aberrations.remove(images, rows, self.pixel_size_A) if self.aberrations.any else images

    def redo(self, images: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Images (m, box, box) of these rows, as the model has them, in the state of those that are stored."""
        if self.aberrations.any:
            images = self.aberrations.apply(images, rows, self.pixel_size_A)
        return images if self.ctf is None else self.ctf.reapply(images, rows)


def for_job(particles: Particles, job: str, *, ctf: bool = True, posed: bool = False) -> Particles:
    """The particles as a job uses them: :func:`plain_images`, and a warning of what it does not apply.

    Parameters
    ----------
    particles : Particles
    job : str
        What the warning calls it.
    ctf : bool
        Whether the job uses the CTF at all; if not, the images are used as they are stored.
    posed : bool
        Whether the job uses the poses.

    Raises
    ------
    InputError
        There is no particle.

    Warns
    -----
    VerglasWarning
        The metadata hold what :func:`ignored_aberrations` lists, or poses that are likely in another unit.
    """
    if not len(particles):
        raise InputError(f"{particles.where}: {job}: there are no particles in it")
    poses = particles.poses if posed else None
    if poses is not None:
        box, pixel_size_A = common_size(particles)  # of sets of several sizes, the grid that they are brought to
        warn_of_poses(poses, box * pixel_size_A, f"{particles.where}: {job}")
    grids = Grids.of(particles)
    if grids is not None:
        grids.warn(f"{particles.where}: {job}")
    if not ctf and grids is None:
        return particles
    ignored = ignored_aberrations(particles)
    if ignored:
        listed = "; ".join(f"{kind} ({', '.join(labels)})" for kind, labels in ignored.items())
        warnings.warn(f"{particles.where}: {job} does not apply {listed}", VerglasWarning, stacklevel=3)
    return plain_images(particles)


def ignored_aberrations(particles: Particles) -> dict[str, list[str]]:
    """Aberrations that the metadata hold and no job applies: what it is -> its columns.

    Those of cryoSPARC and cisTEM, even Zernike coefficients beyond the fourth order, and any outside the optics table;
    an MTF whose file is not found, or of a detector whose pixel size the metadata do not tell.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics import ignored_aberrations
    >>> p = vg.Particles.from_images(np.zeros((1, 8, 8)), 2.0)
    >>> ignored_aberrations(p.with_columns(**{"rlnBeamTiltX": 0.3, "ctf/tetra_A[0]": 0.1}))
    {'even Zernike coefficients': ['ctf/tetra_A']}
    """
    aberrations: dict[str, list[str]] = {}
    for table in (particles.table, particles.optics_table):
        if table is None:
            continue
        for label in map(str, table.columns):
            base = label.partition("[")[0]
            kind = next((kind for kind, labels in _IGNORED.items() if base in labels), None)
            if kind is not None and _differs(table[label], 0.0):
                columns = aberrations.setdefault(kind, [])
                if base not in columns:
                    columns.append(base)
    own = coefficient_lists(particles.table, EVEN_ZERNIKE, particles.where)
    optics = particles.optics_table
    even = None if optics is None else coefficient_lists(optics, EVEN_ZERNIKE, particles.where)
    if (own is not None and own.any() and even is None) or (even is not None and even[:, EVEN_COUNT:].any()):
        aberrations.setdefault("even Zernike coefficients", []).append(EVEN_ZERNIKE)
    _add_unknown_mtf(particles, aberrations)
    return aberrations


def _add_unknown_mtf(particles: Particles, aberrations: dict[str, list[str]]) -> None:
    table, optics = particles.table, particles.optics_table
    named = table if MTF_FILE in table else optics
    if named is None or MTF_FILE not in named:
        return
    names = [str(name).strip() for name in pd.unique(named[MTF_FILE]) if is_mtf_name(name)]
    missing = [name for name in names if table_of(name) not in particles.tables]
    if missing:
        aberrations["the detector's MTF, whose file is not found"] = [f"{MTF_FILE} {name}" for name in missing]
    elif names and not any(t is not None and DETECTOR_PIXEL in t for t in (table, optics)):
        aberrations[f"the detector's MTF, as nothing says the size of its pixels ({DETECTOR_PIXEL})"] = [MTF_FILE]


def _differs(values: pd.Series[Any], from_what: float) -> bool:
    """Whether a column, of numbers or of texts like [0,0.1], holds anything else than this value."""
    for value in pd.unique(values):
        numbers = str(value).strip("[] ").replace(",", " ").split()
        parsed = pd.to_numeric(pd.Series(numbers, dtype=object), errors="coerce").to_numpy(np.float64)
        if (np.isfinite(parsed) & (np.abs(parsed - from_what) > 1e-12)).any():
            return True
    return False
