r"""Which way Ewald's sphere curves, by held-out particles.

The sign follows from how a microscope, its camera and every program since turned the images over, and no file says it.
Each half of the particles gives three maps: flat, and with either sign. The images of the other half are foretold with
each, and their log-likelihood is

.. math:: \sum_s \frac{2 a_s \mathrm{Re} \langle X, M \rangle_s - a_s^2 \|M\|_s^2}{\sigma_s^2}

against a map of zero; the scale :math:`a_s` of each shell is the best one for the held-out images, the same for all of
them, and :math:`\sigma_s^2` is what the flat map leaves. Gains of one model over another are sums over particles, so
their standard errors come from how particles differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from verglas import fourier, gridding, ops
from verglas.geometry import euler_to_matrix
from verglas.reconstruction.accumulate import Accumulator, Insertion
from verglas.reconstruction.ewald import SideBands, Sign, project_bands
from verglas.types.arrays import FloatArray, IntArray

PARTICLES = 20_000  # that the evidence is drawn from, at most
_BATCH_PIXELS = 1 << 22
_SURE = 3.0  # standard errors by which one sign must gain
_FEWEST = 2  # usable particles of a half: a map, and images whose differences give a standard error
_MODELS: tuple[Literal["flat", "positive", "negative"], ...] = ("flat", "positive", "negative")


@dataclass(frozen=True)
class EwaldEvidence:
    """What held-out particles say of the sign.

    Attributes
    ----------
    sign : {"positive", "negative"} or None
        None where neither sign gains over flat slices.
    gain_nats, gain_error_nats : float
        Log-likelihood of the better sign over flat slices, all held-out particles together, and its standard error.
    other_nats, other_error_nats : float
        The same of the better sign over the other one.
    particles : int
        That were held out, each once.
    """

    sign: Sign | None
    gain_nats: float
    gain_error_nats: float
    other_nats: float
    other_error_nats: float
    particles: int

    def sentence(self) -> str:
        """One sentence for the screen.

        Examples
        --------
        >>> from verglas.reconstruction.ewald_sign import EwaldEvidence
        >>> EwaldEvidence("positive", 100.0, 10.0, 300.0, 15.0, 500).sentence()
        'Ewald sphere: sign positive; 500 held-out particles gain 100 +- 10 nats over flat slices, 300 +- 15 over the \
other sign'
        >>> EwaldEvidence(None, 1.0, 1.0, 2.0, 1.5, 500).sentence()
        'Ewald sphere: not corrected; 500 held-out particles gain 1 +- 1 nats over flat slices by the better sign, \
less than 3 standard errors'
        """
        if self.particles == 0:
            return "Ewald sphere: not corrected; too few particles to hold any out"
        gain = f"{self.particles} held-out particles gain {self.gain_nats:.3g} +- {self.gain_error_nats:.2g} nats over"
        if self.sign is None:
            return f"Ewald sphere: not corrected; {gain} flat slices by the better sign, less than 3 standard errors"
        other = f"{self.other_nats:.3g} +- {self.other_error_nats:.2g} over the other sign"
        return f"Ewald sphere: sign {self.sign}; {gain} flat slices, {other}"

    def as_dict(self) -> dict[str, float | int | str | None]:
        """JSON-ready."""
        return {
            "ewald_sign": self.sign,
            "ewald_gain_nats": round(self.gain_nats, 2),
            "ewald_gain_error_nats": round(self.gain_error_nats, 2),
            "ewald_over_other_nats": round(self.other_nats, 2),
            "ewald_over_other_error_nats": round(self.other_error_nats, 2),
            "ewald_particles": self.particles,
        }


@dataclass(frozen=True)
class _Products:
    """Of the held-out images X and the projections M of one model: sums over each shell, (n, shells)."""

    cross: FloatArray
    power: FloatArray
    image: FloatArray

    def log_likelihood(self, noise: FloatArray) -> FloatArray:
        """(n,) against a map of zero; ``noise`` is the mean power of a coefficient, per shell."""
        scale = self.scale
        per_shell = (2 * scale * self.cross - scale**2 * self.power) / np.maximum(noise, 1e-30)
        return np.asarray(per_shell[:, 1:].sum(axis=1))

    @property
    def scale(self) -> FloatArray:
        total = self.power.sum(axis=0)
        return np.divide(self.cross.sum(axis=0), total, out=np.zeros_like(total), where=total > 0)

    def noise(self, coefficients: FloatArray) -> FloatArray:
        scale = self.scale
        left = (self.image - 2 * scale * self.cross + scale**2 * self.power).sum(axis=0)
        return np.asarray(np.maximum(left, 0) / (len(self.image) * coefficients))


def find_sign(insertion: Insertion, *, say: Callable[[str], None] | None = None) -> EwaldEvidence:
    """The sign of the curvature, by the particles of two halves.

    Parameters
    ----------
    insertion : Insertion
        Of the two halves (sets 1 and 2), with ``ewald`` among its settings; its sign is what is asked for.
    say : callable, optional
        Told the sentence of the result.

    Returns
    -------
    EwaldEvidence
    """
    insertion = _some_of(insertion)
    settings = replace(insertion.settings, ewald_sign="auto", method="direct", iterations=None)
    rows = [_usable(insertion, half) for half in (1, 2)]
    if min(map(len, rows)) < _FEWEST:
        return _tell(EwaldEvidence(None, 0.0, 0.0, 0.0, 0.0, 0), say)
    gains: dict[str, FloatArray] = {}
    noise: dict[int, FloatArray] = {}
    for model in _MODELS:
        curved = replace(settings, ewald=False) if model == "flat" else replace(settings, ewald_sign=model)
        sets, excluded = replace(insertion, settings=curved).run()
        rows = [r[~np.isin(r, list(excluded))] for r in rows]
        parts = []
        for half, others in ((1, sets[1]), (2, sets[0])):
            products = _predict(insertion, rows[half - 1], others, curved.curvature_sign)
            if model == "flat":
                noise[half] = products.noise(_coefficients(insertion))
            parts.append(products.log_likelihood(noise[half]))
        gains[model] = np.concatenate(parts)
    return _tell(_judge(gains), say)


def _tell(evidence: EwaldEvidence, say: Callable[[str], None] | None) -> EwaldEvidence:
    if say is not None:
        say(evidence.sentence())
    return evidence


def _some_of(insertion: Insertion) -> Insertion:
    n = len(insertion.particles)
    if n <= PARTICLES:
        return insertion
    chosen = np.sort(np.random.default_rng(0).choice(n, PARTICLES, replace=False))
    place = {int(row): i for i, row in enumerate(chosen)}
    known = {place[row]: reason for row, reason in insertion.known.items() if row in place}
    return replace(
        insertion, particles=insertion.particles[chosen], subset=insertion.subset[chosen], known=known, progress=None
    )


def _usable(insertion: Insertion, half: int) -> IntArray:
    bad = {**insertion.particles.optics.unusable(), **insertion.known}
    rows = np.flatnonzero(insertion.subset == half)
    return np.asarray(rows[~np.isin(rows, list(bad))])


def _coefficients(insertion: Insertion) -> FloatArray:
    """Number of independent complex coefficients of an image in each shell: half of the full plane's."""
    box = insertion.particles.box
    shells = np.minimum(fourier.shells((box, box)), insertion.max_radius + 1)
    weights = np.broadcast_to(fourier.half_weights((box, box)), shells.shape)
    counts = np.bincount(shells.ravel(), weights=weights.ravel())
    return np.asarray(counts[: insertion.max_radius + 1] / 2)


def _predict(insertion: Insertion, rows: IntArray, sums: Accumulator, sign: Sign | None) -> _Products:
    """Products of images with what a map of the other half says of them, under one model."""
    particles, radius, threads = insertion.particles, insertion.max_radius, insertion.threads
    poses, params = particles.poses, particles.optics.as_params()
    assert poses is not None
    volume = insertion.symmetry.apply(sums.solve(None)[0], radius, threads=threads)
    box, pixel_size_A = particles.box, particles.pixel_size_A
    grid = ops.Grid(box, max_radius=radius)
    spectrum = gridding.to_grid(volume, grid, threads=threads)
    parts: list[tuple[FloatArray, ...]] = []
    step = max(1, _BATCH_PIXELS // box**2)
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        matrices, shifts = euler_to_matrix(poses.angles_deg[some]), -poses.shifts_A[some] / pixel_size_A
        ctf = ops.ctf(params[some], box, pixel_size_A, threads=threads)
        if sign is None:
            slices = ops.project(spectrum, grid, matrices, shifts_px=shifts, ctf=ctf, threads=threads)
        else:
            bands = SideBands.of(params[some], box, pixel_size_A, sign, insertion.settings.diameter_A, threads=threads)
            slices = project_bands(spectrum, grid, matrices, bands, ctf, shifts_px=shifts, threads=threads)
        images = fourier.forward(particles.images(some), 2, threads=threads)
        slices = np.ascontiguousarray(slices, np.complex64)
        # over half the plane: a coefficient and its mate are one measurement
        parts.append(
            tuple(
                ops.shell_dot(a, b, max_radius=radius, threads=threads) / 2
                for a, b in ((images, slices), (slices, None), (images, None))
            )
        )
    return _Products(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def _judge(log_likelihoods: dict[str, FloatArray]) -> EwaldEvidence:
    """The better sign, if it gains over flat slices and over the other by more than chance would give."""

    def gain(one: str, other: str) -> tuple[float, float]:
        difference = log_likelihoods[one] - log_likelihoods[other]
        return float(difference.sum()), float(np.sqrt(len(difference)) * difference.std(ddof=1))

    better: Sign = "positive" if gain("positive", "negative")[0] >= 0 else "negative"
    worse = "negative" if better == "positive" else "positive"
    over_flat, over_other = gain(better, "flat"), gain(better, worse)
    sure = all(value > _SURE * error for value, error in (over_flat, over_other))
    n = len(log_likelihoods["flat"])
    return EwaldEvidence(better if sure else None, *over_flat, *over_other, n)
