r"""One forward model: what beside a CTF and its even terms lies between a slice of the map and an image.

.. math:: I(k) = MTF(|k|)\, e^{i\psi(Mk)}\, C(Mk)\, V(Mk) + noise

psi is odd: beam tilt and the odd Zernike polynomials of the optics group. M is its magnification matrix, MTF that of
its detector. C holds the even aberrations (``Particles.optics``). A job sees J(k) = (I / MTF)(M^-1 k) exp(-i psi(k)),
which is CTF x projection + noise whose power is divided by the square of the MTF; where noise is estimated shell by
shell, this weighs what images tell as before. Images are brought there once, where they are read, and images that are
made go the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas import fourier
from verglas.errors import InputError
from verglas.optics.transfer import wavelength_A
from verglas.optics.zernike import zernike_sum
from verglas.types import Optics, Particles
from verglas.types import _columns as col
from verglas.types._columns import NO_ABERRATION
from verglas.types.arrays import Array, Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.even_aberrations import FOURTH_ORDER, coefficient_lists, write_coefficients
from verglas.types.mtf import DETECTOR_PIXEL, FREQUENCY, MTF_FILE, NO_FILE, VALUE, Mtf, mtf_of, read_names, table_of

BEAM_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
ODD_ZERNIKE = "rlnOddZernike"
MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_LARGEST_MAGNIFICATION = 0.2  # a matrix that differs more from 1 is no microscope's anisotropy


@dataclass(frozen=True, eq=False)
class Aberrations:
    """Odd aberrations, magnification and detector of some kinds of image, and the kind of each particle.

    Attributes
    ----------
    kind : (n,) int64
        Row of the arrays below, of each particle.
    beam_tilt_mrad : (g, 2) float64
    odd : (g, m) float64
        Odd Zernike coefficients, radians, k in 1/A, as in ``rlnOddZernike``.
    matrix : (g, 2, 2) float64
        M of the module's formula.
    coma : (g,) float64
        Cs lambda^2 in A^3: what turns a beam tilt into a phase.
    mtf : tuple of (Mtf or None)
        Of each kind; empty where none is known of any.
    """

    kind: IntArray
    beam_tilt_mrad: FloatArray
    odd: FloatArray
    matrix: FloatArray
    coma: FloatArray
    mtf: tuple[Mtf | None, ...] = ()

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, particles: Particles) -> Aberrations:
        """As the metadata of particles have them; none where they have none.

        Raises
        ------
        InputError
            A value is no finite number, or a matrix is none of a microscope.
        """
        tables = col.Tables(particles.table, particles.optics_table, particles.where)
        group = tables.group()

        def value(label: str, default: float) -> FloatArray:
            # the particle table first: images already brought to the model say so there
            values = tables.value(label, optics_first=False)
            return np.full(len(particles), default) if values is None else values

        tilt = np.column_stack([value(label, 0.0) for label in BEAM_TILT])
        matrix = np.column_stack([value(label, float(i in (0, 3))) for i, label in enumerate(MAGNIFICATION)])
        odd = np.zeros((len(particles), 0))
        for table, rows in ((particles.table, slice(None)), (particles.optics_table, group)):
            lists = None if table is None else coefficient_lists(table, ODD_ZERNIKE, particles.where)
            if lists is not None:
                odd = lists[rows]
                break
        coma = np.zeros(len(particles))
        if tilt.any():
            optics = particles.optics
            coma = optics.cs_mm * 1e7 * wavelength_A(optics.voltage_kV) ** 2
        detectors, detector = _detectors(particles, tables)
        every: FloatArray = np.hstack([tilt, matrix, coma[:, None], odd, detector[:, None]])
        first, kind = np.unique(every, axis=0, return_index=True, return_inverse=True)[1:]
        mtf = tuple(detectors[k] for k in detector[first])
        made = cls(
            kind.reshape(-1).astype(np.int64),
            tilt[first],
            odd[first],
            matrix[first].reshape(-1, 2, 2),
            coma[first],
            mtf if any(mtf) else (),
        )
        made._refuse_matrices(particles.where)
        return made

    def _refuse_matrices(self, where: str) -> None:
        far = np.abs(self.matrix - np.eye(2)).max(axis=(1, 2)) > _LARGEST_MAGNIFICATION
        if far.any():
            shown = self.matrix[far][0].round(4).tolist()
            raise InputError(
                f"{where}: rlnMagMat00 to 11: expected a matrix near [[1, 0], [0, 1]], got {shown}; "
                "a matrix of zeros means that there is none: take the columns out"
            )

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.phases.any() or self.warped.any() or self.mtf)

    @property
    def phases(self) -> npt.NDArray[np.bool_]:
        """(g,) whether a kind has odd aberrations."""
        return np.asarray((self.beam_tilt_mrad * self.coma[:, None]).any(axis=1) | self.odd.any(axis=1))

    @property
    def warped(self) -> npt.NDArray[np.bool_]:
        """(g,) whether a kind has a magnification matrix."""
        return np.asarray((self.matrix != np.eye(2)).any(axis=(1, 2)))

    def mtf_of(self, kind: int) -> Mtf | None:
        """That of the detector of a kind."""
        return self.mtf[kind] if self.mtf else None

    def refuse_finer(self, pixel_size_A: float, where: str) -> None:
        """Of images whose pixels are finer than the MTF of their detector goes."""
        for mtf in self.mtf:
            if mtf is not None:
                mtf.refuse_finer(pixel_size_A, where)

    def phase_rad(self, kind: int, kx: npt.ArrayLike, ky: npt.ArrayLike) -> FloatArray:
        r"""Odd phase psi of a kind at k in 1/A.

        .. math:: \psi(k) = -2\pi C_s\lambda^2 |k|^2 (k\cdot b) + \sum_n z_n Z_n(k)
        """
        x, y = np.asarray(kx, np.float64), np.asarray(ky, np.float64)
        bx, by = 1e-3 * self.beam_tilt_mrad[kind]
        tilt = -2 * np.pi * self.coma[kind] * (x**2 + y**2) * (x * bx + y * by)
        return np.asarray(tilt + zernike_sum(self.odd[kind], "odd", x, y))

    def remove(self, images: Float32Array, rows: IntArray, pixel_size_A: float) -> Float32Array:
        """J of images I (m, box, box) of these particles: MTF, odd phase and magnification taken away."""
        return self._change(images, rows, pixel_size_A, forward=False)

    def apply(self, images: Float32Array, rows: IntArray, pixel_size_A: float) -> Float32Array:
        """I of images J: what ``remove`` takes away, put on."""
        return self._change(images, rows, pixel_size_A, forward=True)

    def _change(self, images: Float32Array, rows: IntArray, pixel_size_A: float, *, forward: bool) -> Float32Array:
        kinds, box = self.kind[rows], images.shape[-1]
        for kind in np.unique(kinds):
            here = np.flatnonzero(kinds == kind)
            steps = self._steps(int(kind), box, pixel_size_A, forward=forward)
            part = images[here]
            for step in steps if forward else reversed(steps):
                part = step(part)
            images[here] = part
        return images

    def _steps(self, kind: int, box: int, pixel_size_A: float, *, forward: bool) -> list[_Step]:
        """Phase, magnification, MTF: from the model to the image. Factors are one where nothing lies between them."""
        kx, ky = np.fft.rfftfreq(box, pixel_size_A), np.fft.fftfreq(box, pixel_size_A)[:, None]
        phase = mtf = None
        if self.phases[kind]:
            phase = np.exp((1j if forward else -1j) * self.phase_rad(kind, kx, ky)).astype(np.complex64)
        detector = self.mtf_of(kind)
        if detector is not None:
            values = detector.at(np.hypot(kx, ky))
            mtf = np.asarray(values if forward else 1 / values, np.float32)
        if not self.warped[kind]:
            whole = mtf if phase is None else phase if mtf is None else phase * mtf
            return [] if whole is None else [_Times(whole)]
        matrix = self.matrix[kind] if forward else np.linalg.inv(self.matrix[kind])
        before, after = ([] if factor is None else [_Times(factor)] for factor in (phase, mtf))
        return [*before, partial(magnify, matrix=matrix), *after]


_Step = Callable[[Float32Array], Float32Array]


@dataclass(frozen=True, eq=False)
class _Times:
    """Images whose half transforms are multiplied by a factor."""

    factor: Array

    def __call__(self, images: Float32Array) -> Float32Array:
        """Of (m, box, box)."""
        return np.asarray(fourier.inverse(fourier.forward(images, 2) * self.factor, images.shape[-2:]), np.float32)


def _detectors(particles: Particles, tables: col.Tables) -> tuple[list[Mtf | None], IntArray]:
    """Of the particles: None, then every MTF that is known, and the number in this list of each particle's."""
    names = read_names(particles.table)
    if names is None:
        of_group = read_names(particles.optics_table)
        names = None if of_group is None else of_group[tables.group()]
    if names is None:
        return [None], np.zeros(len(particles), np.int64)
    table, optics = particles.table, particles.optics_table
    pixel_A = np.full(len(particles), np.nan)  # of sets that were joined, groups without an MTF may have none
    if optics is not None and DETECTOR_PIXEL in optics:
        pixel_A = pd.to_numeric(optics[DETECTOR_PIXEL], errors="coerce").to_numpy(np.float64)[tables.group()]
    elif DETECTOR_PIXEL in table:
        pixel_A = pd.to_numeric(table[DETECTOR_PIXEL], errors="coerce").to_numpy(np.float64)
    detectors: list[Mtf | None] = [None]
    numbers = np.zeros(len(particles), np.int64)
    of_name, every_name = pd.factorize(names)
    of_size, every_size = pd.factorize(pixel_A, use_na_sentinel=False)
    pairs = of_name * len(every_size) + of_size
    for pair in np.unique(pairs).tolist():
        name, size = every_name[pair // len(every_size)], float(every_size[pair % len(every_size)])
        mtf = None if name == NO_FILE else mtf_of(name, size, particles.tables)
        if mtf is not None:
            numbers[pairs == pair] = len(detectors)
            detectors.append(mtf)
    return detectors, numbers


def with_aberrations(particles: Particles, aberrations: Aberrations) -> Particles:
    """The same particles whose optics groups say these aberrations, in RELION's columns.

    Parameters
    ----------
    particles : Particles
        With an optics table; their images are taken to have the aberrations.
    aberrations : Aberrations
        Of each of the particles.

    Returns
    -------
    Particles
        Columns of aberrations that none of them has are left out.

    Raises
    ------
    InputError
        Particles of one group differ in their aberrations.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics import Aberrations, with_aberrations
    >>> p = vg.Particles.from_images(np.zeros((2, 8, 8)), 2.0, optics=vg.Optics([9000, 9000], [9000, 9000]))
    >>> one = Aberrations(
    ...     np.zeros(2, int), np.array([[0.1, 0]]), np.zeros((1, 6)), np.eye(2)[None], np.full(1, 2.7e7 * 0.0197**2)
    ... )
    >>> with_aberrations(p, one).optics_table.rlnBeamTiltX.tolist()
    [0.1]
    """
    table = particles.optics_table
    if table is None:
        raise InputError(f"{particles.where}: no optics table to write aberrations into")
    tables = col.Tables(particles.table, table, particles.where)
    group = tables.group()
    kind = np.zeros(len(table), np.int64)
    kind[group] = aberrations.kind
    if (kind[group] != aberrations.kind).any():
        raise InputError(f"{particles.where}: particles of one optics group differ in their aberrations")
    columns: dict[str, Any] = {}
    if aberrations.beam_tilt_mrad.any():
        columns |= dict(zip(BEAM_TILT, aberrations.beam_tilt_mrad[kind].T, strict=True))
    if aberrations.odd.any():
        columns[ODD_ZERNIKE] = write_coefficients(aberrations.odd[kind])
    if aberrations.warped.any():
        columns |= dict(zip(MAGNIFICATION, aberrations.matrix[kind].reshape(-1, 4).T, strict=True))
    curves = dict(particles.tables)
    if aberrations.mtf:
        detectors = [aberrations.mtf[k] for k in kind]
        columns[MTF_FILE] = [NO_FILE if mtf is None else mtf.name for mtf in detectors]
        had = table[DETECTOR_PIXEL] if DETECTOR_PIXEL in table else [np.nan] * len(table)
        sizes = [size if mtf is None else mtf.pixel_size_A for mtf, size in zip(detectors, had, strict=True)]
        columns[DETECTOR_PIXEL] = sizes
        known = [mtf for mtf in detectors if mtf is not None]
        curves |= {table_of(mtf.name): pd.DataFrame(mtf.table, columns=[FREQUENCY, VALUE]) for mtf in known}
    particle_table = particles.table.drop(columns=[c for c in NO_ABERRATION if c in particles.table])
    kept = table.drop(columns=[c for c in NO_ABERRATION if c in table])
    return Particles(
        particle_table,
        particles.source,
        optics_table=kept.assign(**columns),
        tables=curves,
        table_name=particles.table_name,
        where=particles.where,
    )


@lru_cache(maxsize=32)
def _resampling(box: int, scale: float) -> npt.NDArray[np.float32]:
    """(box, box): values at x from values at x of a line whose transform is taken at ``scale`` times the frequency."""
    x = np.arange(box) - box // 2
    k = np.fft.fftfreq(box)
    scaled = np.exp(-2j * np.pi * scale * np.outer(k, x))
    return np.asarray((np.exp(2j * np.pi * np.outer(x, k)) @ scaled).real / box, np.float32)


@any_arrays
def magnify(images: npt.ArrayLike, matrix: npt.ArrayLike) -> Float32Array:
    r"""Images whose transform at k is that of the given ones at M k; exact for what lies inside the box.

    .. math:: J(k) = \sum_r I(r)\, e^{-2\pi i\, r\cdot Mk} = I(Mk)

    The points r go to M^T r: first along x, then along y, each a sum over a line (Fourier interpolation, no kernel).
    What a shear moves over the edge comes in on the other side, so that white noise stays white.

    Parameters
    ----------
    images : (n, box, box) float32
    matrix : (2, 2) array_like
        M, near the identity.

    Returns
    -------
    (n, box, box) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.optics.aberrations import magnify
    >>> x = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    >>> bool(np.allclose(magnify(x, np.eye(2)), x, atol=1e-5))
    True
    """
    data, m = np.asarray(images, np.float32), np.asarray(matrix, np.float64)
    box = data.shape[-1]
    # M^T = [[1, 0], [c, d]] [[a, b], [0, 1]]: x' = a x + b y, then y' = c x' + d y
    a, b = m[0, 0], m[1, 0]
    c = m[0, 1] / a
    d = m[1, 1] - c * b
    data = data @ _resampling(box, a).T
    data = _shear(data, b, axis=-1)
    data = np.matmul(_resampling(box, d), data)
    return _shear(data, c, axis=-2)


def _shear(data: Array, amount: float, axis: int) -> Float32Array:
    """Lines along ``axis`` moved by ``amount`` times their distance from the centre."""
    if amount == 0:
        return np.asarray(data, np.float32)
    box = data.shape[-1]
    k = np.fft.rfftfreq(box)
    factor = np.exp(-2j * np.pi * amount * np.outer(np.arange(box) - box // 2, k)).astype(np.complex64)
    if axis == -2:
        factor = factor.T
    fft, more = fourier.transforms(data)
    return np.asarray(fft.irfft(fft.rfft(data, axis=axis, **more) * factor, n=box, axis=axis, **more), np.float32)


@any_arrays
def image_optics(optics: Optics, matrix: npt.ArrayLike) -> Optics:
    r"""CTF parameters in the frame of the images: C(Mk) as a CTF of k, exact but for the envelope, kept as it is.

    Parameters
    ----------
    optics : Optics
        n images, C of the module's formula.
    matrix : (2, 2) or (n, 2, 2) array_like

    Returns
    -------
    Optics

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics.aberrations import image_optics
    >>> o = image_optics(vg.Optics([10000], [10000]), [[1.1, 0], [0, 1]])
    >>> o.defocus_u_A.round(6).tolist(), o.defocus_v_A.round(6).tolist()
    ([12100.0], [10000.0])
    """
    n = len(optics)
    m = np.broadcast_to(np.asarray(matrix, np.float64), (n, 2, 2))
    angle = np.deg2rad(2 * optics.defocus_angle_deg)
    mean, half = (optics.defocus_u_A + optics.defocus_v_A) / 2, (optics.defocus_u_A - optics.defocus_v_A) / 2
    x, y = half * np.cos(angle), half * np.sin(angle)
    form = np.stack([mean + x, y, y, mean - x], axis=-1).reshape(n, 2, 2)
    form = np.swapaxes(m, 1, 2) @ form @ m
    mean, x, y = (form[:, 0, 0] + form[:, 1, 1]) / 2, (form[:, 0, 0] - form[:, 1, 1]) / 2, form[:, 0, 1]
    half = np.hypot(x, y)
    spherical = -np.pi / 2 * optics.cs_mm * 1e7 * wavelength_A(optics.voltage_kV) ** 3
    # an even quartic has harmonics 0, 2, 4 of the angle: five directions of a half circle give them
    theta = np.pi * np.arange(5) / 5
    moved = np.einsum("nij,jt->nit", m, np.stack([np.cos(theta), np.sin(theta)]))
    u = moved[:, 0] + 1j * moved[:, 1]
    s, ax, ay, tx, ty = (getattr(optics, name)[:, None] for name in FOURTH_ORDER)
    r4, two, four = np.abs(u) ** 4, u**2 * np.abs(u) ** 2, u**4
    values = (spherical[:, None] + s) * r4 + ax * two.real + ay * two.imag + tx * four.real + ty * four.imag
    waves = np.stack([np.full(5, 0.5), np.cos(2 * theta), np.sin(2 * theta), np.cos(4 * theta), np.sin(4 * theta)])
    fourth = values @ waves.T * (2 / 5)
    fourth[:, 0] -= spherical
    fields: dict[str, Any] = {name: getattr(optics, name) for name in optics.__dataclass_fields__}
    fields |= dict(zip(FOURTH_ORDER, fourth.T, strict=True))
    fields |= {"defocus_u_A": mean + half, "defocus_v_A": mean - half}
    return Optics(**fields | {"defocus_angle_deg": np.rad2deg(np.arctan2(y, x)) / 2})
