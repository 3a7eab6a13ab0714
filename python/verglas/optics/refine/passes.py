"""Passes through particles: calibration, sums of the groups, scores of defoci, each against the other half's map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from verglas import fourier, ops
from verglas._array_module import array_module, to_host
from verglas.optics.refine.defocus import DefocusScores, fit_defocus
from verglas.optics.refine.phases import GroupSums
from verglas.optics.refine.pixels import (
    BATCH,
    BATCH_OF_GPU,
    Pixels,
    PixelTerms,
    Reference,
    gather,
    image_spectra,
    pixel_terms,
)
from verglas.optics.stored import plain_images
from verglas.optics.transfer import wavelength_A
from verglas.types import Map, Particles
from verglas.types.arrays import Array, Complex64Array, Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, phase_progress

_SAMPLE = 200  # particles of a half that its amplitudes, and of a group that its noise, are measured on
_LEAST_SIGMA = 4.0  # shells whose amplitude is less certain have no weight in what is fitted per particle


@dataclass(frozen=True, eq=False)
class Setting:
    """Particles as the passes see them.

    Attributes
    ----------
    particles : Particles
        Images brought to the model.
    half, group, fold : (n,) int64
        Half set (0, 1), optics group, and fold of the cross-validation (0, 1).
    references : tuple of Reference
        That of the *other* half for each half.
    pixels : Pixels
    threads : int or None
    device : str
        ``"cpu"``, or a GPU on which images and slices are compared.
    """

    particles: Particles
    half: IntArray
    group: IntArray
    fold: IntArray
    references: tuple[Reference, Reference]
    pixels: Pixels
    threads: int | None = None
    device: str = "cpu"

    @classmethod
    def of(
        cls,
        particles: Particles,
        half: IntArray,
        half_maps: tuple[Map, Map],
        pixels: Pixels,
        threads: int | None = None,
        *,
        image: IntArray | None = None,
        device: str = "cpu",
    ) -> Setting:
        """Of particles as stored, half sets 0 and 1, and the maps of half sets 0 and 1, masked.

        Particles with the same number ``image`` are rows of one image: their noise is the same, and so is their fold.
        """
        group = particles.optics.group
        fold = np.zeros(len(particles), np.int64)
        for g in np.unique(group):  # every second image of a group and half: the same whatever the order of batches
            for h in range(2):
                rows = np.flatnonzero((group == g) & (half == h))
                of_image = rows if image is None else image[rows]
                fold[rows] = np.unique(of_image, return_inverse=True)[1].reshape(-1) % 2
        references = tuple(Reference(half_maps[1 - h], pixels, threads, device) for h in range(2))
        return cls(plain_images(particles), half, group, fold, (references[0], references[1]), pixels, threads, device)

    def spectra(self, particles: Particles) -> Complex64Array:
        """Half transforms of images of some of the particles."""
        return image_spectra(particles, self.threads, self.device)

    def take(self, rows: IntArray) -> Setting:
        """Some of the particles."""
        some = {name: getattr(self, name)[rows] for name in ("particles", "half", "group", "fold")}
        return replace(self, **some)

    def batches(self, rows: IntArray, listener: Listener | None = None, phase: str = "") -> Iterator[IntArray]:
        """Rows of one half and one group at a time."""
        tell = None if listener is None else phase_progress(listener, phase)
        done, batch = 0, BATCH if self.device == "cpu" else BATCH_OF_GPU
        for h in range(2):
            for g in np.unique(self.group[rows]):
                here = rows[(self.half[rows] == h) & (self.group[rows] == g)]
                for begin in range(0, len(here), batch):
                    part = here[begin : begin + batch]
                    yield part
                    done += len(part)
                    if tell is not None:
                        tell(done, len(rows))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the reference has of the signal in each shell, and the noise.

    Attributes
    ----------
    amplitude : (2, shells) float64
        Of the reference of each half; 0 where it is not certain.
    noise : (groups, shells) float64
        Noise power per coefficient.
    """

    amplitude: FloatArray
    noise: FloatArray

    def inverse_noise(self, group: int, pixels: Pixels) -> Float32Array:
        """(m,): one over the noise power on the pixels."""
        return np.asarray(1 / self.noise[group], np.float32)[pixels.shell]

    @property
    def informative(self) -> int:
        """Shells in which both references have signal."""
        return int((self.amplitude > 0).all(axis=0).sum())


def _sample(setting: Setting) -> IntArray:
    """Rows of at most _SAMPLE particles of each half and group, spread evenly."""
    chosen = []
    for h in range(2):
        for g in np.unique(setting.group):
            rows = np.flatnonzero((setting.half == h) & (setting.group == g))
            chosen.append(rows[:: max(1, len(rows) // _SAMPLE)][:_SAMPLE])
    return np.sort(np.concatenate(chosen))


def recalibrate(
    setting: Setting, calibration: Calibration, range_A: float, micrograph: IntArray, places: FloatArray | None = None
) -> Calibration:
    """Calibration with the sample's own defoci fitted: wrong ones take amplitude from fine shells, and their weight.

    ``micrograph`` is that of every particle, ``places`` where it lies there, as for :func:`fit_defocus`.
    """
    rows = _sample(setting)
    part = setting.take(rows)
    for _ in range(2):
        optics, number = setting.particles.optics[rows], np.unique(micrograph[rows], return_inverse=True)[1]
        scores = defocus_pass(part, calibration, range_A)
        mean = (optics.defocus_u_A + optics.defocus_v_A) / 2
        fit = fit_defocus(scores, mean, number.astype(np.int64), None if places is None else places[rows])
        table = setting.particles.table.iloc[rows]
        columns = {c: table[c].to_numpy(np.float64) + fit.change_A for c in ("rlnDefocusU", "rlnDefocusV")}
        calibration = calibrate(replace(part, particles=part.particles.with_columns(**columns)))
    return calibration


def calibrate(setting: Setting) -> Calibration:
    """Amplitudes and noise power from a sample of the particles, by least squares in each shell."""
    pixels, params = setting.pixels, setting.particles.optics.as_params()
    groups = len(setting.particles.optics_table) if setting.particles.optics_table is not None else 1
    sums = np.zeros((2, groups, 3, pixels.shells))  # of cross, power of the model, power of the images
    counts = np.zeros((2, groups))
    one = np.ones(len(pixels), np.float32)
    for rows in setting.batches(_sample(setting)):
        h, g = setting.half[rows[0]], setting.group[rows[0]]
        some = setting.particles[rows]
        spectra = setting.spectra(some)
        slices = setting.references[h].slices(some)
        batch = pixel_terms(spectra, slices, params[rows], one, pixels, setting.threads)
        image_power = abs(gather(spectra, pixels)) ** 2
        terms = ((batch.cross.real * batch.sine), batch.power * batch.sine**2, image_power)
        sums[h, g] += pixels.shell_sums(np.stack([to_host(t.sum(axis=0)) for t in terms]))
        counts[h, g] += len(rows)
    per_shell = np.maximum(np.bincount(pixels.shell, minlength=pixels.shells), 1)
    cross, power, total = (sums[:, :, i] for i in range(3))
    a = cross.sum(axis=1) / np.maximum(power.sum(axis=1), 1e-30)
    rest = total - 2 * a[:, None] * cross + a[:, None] ** 2 * power
    noise = rest.sum(axis=0) / np.maximum(counts.sum(axis=0)[:, None] * per_shell, 1)
    spread = np.sqrt(np.maximum((power * noise).sum(axis=1), 1e-30) / 2)
    certain = cross.sum(axis=1) > _LEAST_SIGMA * spread
    return Calibration(np.where(certain, a, 0.0), np.maximum(noise, 1e-6 * noise.max()))


def evaluate(
    setting: Setting, calibration: Calibration, rows: IntArray, params: FloatArray
) -> tuple[PixelTerms, Array]:
    """Images and model of particles of one half and group on the pixels of the fit, and their slices."""
    some, h, g = setting.particles[rows], setting.half[rows[0]], int(setting.group[rows[0]])
    spectra = setting.spectra(some)
    slices = setting.references[h].slices(some)
    inverse = calibration.inverse_noise(g, setting.pixels)
    return pixel_terms(spectra, slices, params[rows], inverse, setting.pixels, setting.threads), slices


def group_pass(
    setting: Setting, calibration: Calibration, magnification: bool, listener: Listener | None = None
) -> GroupSums:
    """Sums for the phases of every group."""
    params = setting.particles.optics.as_params()
    sums = GroupSums(len(calibration.noise), setting.pixels, magnification)
    for rows in setting.batches(np.arange(len(setting.particles)), listener, "particles for the groups"):
        batch, slices = evaluate(setting, calibration, rows, params)
        gradients = None
        if magnification:
            spectra = setting.spectra(setting.particles[rows])
            model = _GroupModel(spectra, slices, params[rows], batch.cosine)
            gradients = _gradients(setting, calibration, int(setting.group[rows[0]]), model)
        sums.add(batch, setting.group[rows], setting.fold[rows], gradients)
    return sums


class _GroupModel(NamedTuple):
    """Of particles of one group: their spectra, the slices of the reference, CTF parameters, and cos chi."""

    spectra: Array
    slices: Complex64Array
    params: FloatArray
    cosine: Array


def _gradients(setting: Setting, calibration: Calibration, group: int, of: _GroupModel) -> Float32Array:
    """(9, n, m): products of the gradient of C P along kx and ky with itself, the image, C P, and P cos chi."""
    pixels, box, pixel_A = setting.pixels, setting.pixels.box, setting.pixels.pixel_size_A
    xp = array_module(of.slices)
    model = of.slices * ops.ctf(of.params, box, pixel_A, device=setting.device, threads=setting.threads)
    image = fourier.inverse(model, (box, box), threads=setting.threads)
    place = xp.asarray(((np.arange(box) - box // 2) * pixel_A).astype(np.float32))
    # the derivative of sum f exp(-2 pi i k r) along k is the transform of -2 pi i r f
    gx = gather(fourier.forward(image * place, 2, threads=setting.threads), pixels)
    gy = gather(fourier.forward(image * place[:, None], 2, threads=setting.threads), pixels)
    gx, gy = -2j * np.pi * gx, -2j * np.pi * gy
    x, m = gather(of.spectra, pixels), gather(model, pixels)
    inverse = xp.asarray(calibration.inverse_noise(group, pixels))
    a, b = gx.conj(), gy.conj()
    beside = gather(of.slices, pixels) * of.cosine
    terms = [a * gx, a * gy, b * gy, a * x, b * x, a * m, b * m, a * beside, b * beside]
    return xp.stack([xp.asarray(t.real, np.float32) * inverse for t in terms])


def defocus_pass(
    setting: Setting, calibration: Calibration, range_A: float, listener: Listener | None = None
) -> DefocusScores:
    """Scores of changes of every particle's defocus."""
    optics = setting.particles.optics
    params, wavelength = optics.as_params(), wavelength_A(optics.voltage_kV)
    last = max((int(np.flatnonzero(a)[-1]) for a in calibration.amplitude if a.any()), default=0)
    # shells beyond the last that the reference explains weigh nothing: leave them out
    setting = _narrow(setting, setting.pixels.first + last)
    amplitude = calibration.amplitude[:, : setting.pixels.shells]
    scores = DefocusScores(len(setting.particles), setting.pixels, range_A)
    narrow = Calibration(amplitude, calibration.noise[:, : setting.pixels.shells])
    for rows in setting.batches(np.arange(len(setting.particles)), listener, "particles for their defocus"):
        batch, _ = evaluate(setting, narrow, rows, params)
        of_pixels = amplitude[setting.half[rows[0]]][setting.pixels.shell].astype(np.float32)
        scores.add(rows, batch, of_pixels, float(wavelength[rows[0]]))
    return scores


def _narrow(setting: Setting, last: int) -> Setting:
    pixels = setting.pixels
    if last >= pixels.last:
        return setting
    fewer = Pixels(pixels.box, pixels.pixel_size_A, pixels.first, max(last, pixels.first + 1))
    first, second = (reference.on(fewer) for reference in setting.references)
    return replace(setting, references=(first, second), pixels=fewer)
