"""How much of what an alignment to a reference shows, noise alone would have shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._devices import to_device, work_on
from verglas._screen import ListenerChoice, shown_to
from verglas.classification.em2d import plan_stage
from verglas.classification.settings import BiasSettings
from verglas.classification.working_set import Geometry, WorkingSet
from verglas.errors import InputError
from verglas.image import fourier_resample
from verglas.search.grid_search import GridSearch, PolarBatch, SliceSums, Where
from verglas.types import Particles
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.display import one_line
from verglas.types.listener import Listener
from verglas.types.settings import settings_from

_BATCH = 128
_SKIP_RINGS = 3  # beyond the alignment, which the mask lets it see
_SEEN_SIGMA = 5.0
_BIASED_SHARE = 0.5


@one_line
@dataclass(frozen=True)
class BiasReport:
    r"""Result of :func:`check_bias`.

    Attributes
    ----------
    frequency_per_A : (rings,) float64
    data, noise : (rings,) float64
        Agreement of the aligned images with the reference on each ring: the sum of their cross terms
        :math:`\mathrm{Re}[(C A)^* X S] / \sigma^2` per particle, the reference on the data's grey scale.
    share : float
        Noise's agreement over the data's, within the resolution of the alignment: what part noise reproduces.
    share_per_ring : (rings,) float64
        The same ring by ring, NaN where the data do not agree.
    unseen_sigma : float
        Agreement of the data with the reference on rings finer than the alignment used, in standard errors: no
        alignment of noise reaches it.
    alignment_resolution_A : float
        Finest data the alignment used.
    averages, noise_averages : (m, box, box) float32
        Averages of aligned data and noise per reference, CTF-corrected, masked.
    biased : bool
    verdict : str
    """

    frequency_per_A: FloatArray
    data: FloatArray
    noise: FloatArray
    share: float
    share_per_ring: FloatArray
    unseen_sigma: float
    alignment_resolution_A: float
    averages: Float32Array
    noise_averages: Float32Array
    biased: bool
    verdict: str


@dataclass(frozen=True)
class _Aligned:
    """Sums over one set of images at their best poses."""

    cross: FloatArray
    power: FloatArray
    averages: Float32Array


class _Aligner:
    """The one alignment that data and noise go through."""

    def __init__(self, work: WorkingSet, references: Float32Array, settings: BiasSettings, listener: Listener) -> None:
        self.work, self.settings, self.listener = work, settings, listener
        geo = work.geometry
        self.grid = ops.PolarGrid(geo.box, geo.last_ring, diameter_px=geo.box)
        self.search = ops.PolarGrid(geo.box, geo.search_limit, diameter_px=geo.diameter_px)
        self.stage = plan_stage(geo, geo.search_limit, settings.shift_range_A / geo.pixel_size_A, settings.step_deg)
        self.references = references * geo.mask
        self.power, self.sigma2 = self._spectra()

    def _spectra(self) -> tuple[FloatArray, FloatArray]:
        """Mean power per group and ring; it stands for the noise variance, too, the signal being small."""
        total = np.zeros((self.work.n_groups, self.grid.n_rings))
        number = np.zeros(self.work.n_groups)
        # Two thousand images give the power of a ring to a few parts in a thousand.
        rows = self.work.usable[:: max(1, len(self.work.usable) // 2000)]
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            x = ops.polar(self.work.images(some), self.grid, threads=self.work.where.threads)
            np.add.at(total, self.work.group[some], (np.abs(x) ** 2).mean(axis=2, dtype=np.float64))
            np.add.at(number, self.work.group[some], 1)
        power = total / np.maximum(number, 1)[:, None]
        return power, np.maximum(power, 1e-6 * power.max())

    def noise(self, rows: IntArray) -> Float32Array:
        """Noise images with the spectrum of their groups; image i depends on the seed and i alone."""
        box = self.work.geometry.box
        ky, kx = np.fft.fftfreq(box)[:, None] * box, np.arange(box // 2 + 1)
        radius = np.hypot(ky, kx)
        out = np.empty((len(rows), box, box), np.float32)
        for j, i in enumerate(rows.tolist()):
            key = [self.settings.seed, i]
            white = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 77])).standard_normal((box, box))
            # An unnormalised transform of white noise has power box^2 in every coefficient.
            amplitude = np.sqrt(np.interp(radius, self.grid.radii, self.power[self.work.group[i]])) / box
            out[j] = np.fft.irfft2(np.fft.rfft2(white) * amplitude, (box, box))
        return out

    def _samples(self, images: Float32Array, polar: ops.PolarGrid) -> npt.NDArray[np.complex64]:
        where = self.work.where
        return ops.polar(to_device(images, where.device), polar, **where.of_ops)

    def run(self, *, noise: bool) -> _Aligned:
        """Align all usable particles, or as many noise images, and add them up."""
        with work_on(self.work.where.device):
            return self._run(noise=noise)

    def _run(self, *, noise: bool) -> _Aligned:
        geo = self.work.geometry
        n_power = 1 if self.work.ctf is None else 3
        poses, where = self.stage.poses(), self.work.where
        # Correlation, no likelihood: the references' grey scale on these data is not known, and for noise there is
        # none.
        search = GridSearch(self.search, poses, where, n_power=n_power, score="correlation")
        search.set_reference(ops.polar(self.references, self.search, **where.of_ops))
        sums = SliceSums(self.grid, len(self.references), poses, where)
        sums.set_reference(ops.polar(self.references, self.grid, **where.of_ops))
        cross, power = np.zeros(self.grid.n_rings), np.zeros(self.grid.n_rings)
        rows = self.work.usable
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            images = self.noise(some) if noise else self.work.images(some)
            inv = (1 / self.sigma2[self.work.group[some]]).astype(np.float32)
            ctf = None if self.work.ctf is None else self.work.ctf[some]
            masked, whole = (
                PolarBatch(self._samples(pixels, polar), noise, ctf, geo.pixel_size_A, first_particle=int(some[0]))
                for pixels, polar, noise in (
                    (images * geo.mask, self.search, inv[:, : geo.search_limit]),
                    (images, self.grid, inv),
                )
            )
            posterior = search.run(masked)
            best = ops.Posterior.from_lists(
                len(some),
                np.arange(len(some)),
                posterior.best_slice,
                poses.psi_deg(posterior.best_psi),
                shift=posterior.best_shift,
            )
            residuals = sums.add_measured(whole, best)
            cross += (residuals.cross * inv).sum(axis=0)
            power += (residuals.power * inv).sum(axis=0)
            self.listener.progress("noise aligned" if noise else "images aligned", begin + len(some), len(rows))
        num, den = sums.slices()
        # Of the mean weight: near zeros of the CTF the division would show noise only.
        floor = 0.05 * np.maximum(den.mean(axis=(1, 2), keepdims=True), 1e-30)
        averages = ops.images_from_polar(num / (den + floor), self.grid) * geo.mask
        return _Aligned(cross, power, averages)


def _resample_references(references: npt.ArrayLike, particles: Particles, geo: Geometry) -> Float32Array:
    stack = np.asarray(references, np.float32)
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3 or stack.shape[1:] != (particles.box, particles.box):
        raise InputError(
            f"check_bias: expected references of {particles.box} px, the particles' box, got shape {stack.shape}; "
            "resample the reference first"
        )
    if not np.isfinite(stack).all() or not np.ptp(stack, axis=(1, 2)).all():
        raise InputError("check_bias: a reference is constant or holds values that are not finite")
    if geo.box != particles.box:
        stack = fourier_resample(stack, (geo.box, geo.box))
    return stack


@any_arrays
def check_bias(
    particles: Particles,
    references: npt.ArrayLike,
    settings: BiasSettings | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> BiasReport:
    """Align particles to references, and as many noise images of the same spectrum, and compare what comes out.

    Every noise image takes the place of a particle: same optics, same spectrum (of all images of its optics group, so
    rather too strong than too weak), same alignment (best correlation over references, in-plane angles and shifts).

    Parameters
    ----------
    particles : Particles
        With images and optics.
    references : (m, box, box) or (box, box) float32
        Class averages, or projections of a map, without CTF.
    settings : BiasSettings, optional
        All choices at once; what is given beside them goes before.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are aligned.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **changes
        Single choices, as the fields of :class:`BiasSettings`.

    Returns
    -------
    BiasReport

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
    InputError
        Boxes differ, or a reference is constant.

    References
    ----------
    Henderson (2013) Proc. Natl Acad. Sci. USA 110, 18037-18041.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.classification import check_bias
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> poses = vg.Poses(np.column_stack([np.zeros(60), np.full(60, 90), np.arange(60) * 6.0]))
    >>> p = vg.simulate.particles(model, 60, 32, 5.0, snr=1.0, poses=poses)
    >>> view = vg.project(vg.simulate.density(model, 32, 5.0), vg.Poses([[0, 90, 0]]))
    >>> check_bias(p, view, diameter_A=140).share < 0.5
    True
    """
    settings = settings_from("check_bias", BiasSettings, settings, **changes)
    if particles.source is None:
        raise InputError(f"check_bias: {particles.where} has no images, only metadata")
    work = WorkingSet(particles, settings, Where(device, threads))
    images = _resample_references(references, particles, work.geometry)
    with shown_to(listener) as heard:
        aligner = _Aligner(work, images, settings, heard)
        return _report(aligner, aligner.run(noise=False), aligner.run(noise=True), particles.box)


def _report(aligner: _Aligner, data: _Aligned, noise: _Aligned, box: int) -> BiasReport:
    geo, n = aligner.work.geometry, len(aligner.work.usable)
    searched_shells = slice(0, geo.search_limit)
    unseen = slice(geo.search_limit + _SKIP_RINGS, None)
    # The reference on the data's grey scale: the factor that fits best, from the rings of the alignment.
    scale = max(float(data.cross[searched_shells].sum() / data.power[searched_shells].sum()), 0.0)
    agreement = float(data.cross[searched_shells].sum())
    share = float(noise.cross[searched_shells].sum() / agreement) if agreement > 0 else 1.0
    variance = float(data.power[unseen].sum())
    sigma = float(data.cross[unseen].sum() / np.sqrt(variance)) if variance > 0 else 0.0
    per_ring = np.divide(noise.cross, data.cross, out=np.full_like(data.cross, np.nan), where=data.cross > 0)
    biased = share >= _BIASED_SHARE
    limit = geo.resolution_A(geo.search_limit)
    percent = f"{100 * min(share, 1.0):.0f} %"
    if not biased:
        verdict = f"In the data: noise reproduces {percent} of the agreement with the reference."
    elif sigma >= _SEEN_SIGMA:
        verdict = (
            f"Mixed: noise reproduces {percent} of the agreement with the reference to {limit:.0f} A, but the "
            "finer data, which the alignment has not used, agree with it, too."
        )
    else:
        verdict = (
            f"Model bias: noise reproduces {percent} of the agreement with the reference, and nothing finer "
            f"than {limit:.0f} A, which the alignment has not used, confirms it."
        )
    verdict += f" Unseen data agree by {sigma:.1f} standard errors (5 would be signal)."
    averages, other = data.averages, noise.averages
    if geo.box != box:
        averages, other = (fourier_resample(a, (box, box)) for a in (averages, other))
    return BiasReport(
        aligner.grid.radii / (geo.box * geo.pixel_size_A),
        scale * data.cross / n,
        scale * noise.cross / n,
        share,
        per_ring,
        sigma,
        limit,
        averages,
        other,
        biased and sigma < _SEEN_SIGMA,
        verdict,
    )
