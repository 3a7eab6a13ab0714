"""Particle images of models: exact projections, CTF, shifts, noise, with the truth beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.simulate.density import check_fits
from verglas.simulate.model import Model
from verglas.simulate.noise import SNR, coloured_power, map_images, noise, noise_sigma, stream
from verglas.simulate.scattering import atom_table
from verglas.simulate.text import TextPhantom, check_phantom_fits, spectra_of
from verglas.types import Optics, Particles, Poses
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import Listener
from verglas.types.settings import JobSettings, setting

# Keys of the tables' streams, beyond every particle number (noise streams have the particle's number as key).
_PARTICLE_TABLE, _MICROGRAPH_TABLE = 2**63, 2**63 + 1
_BATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class Imaging(JobSettings, job="simulate"):
    """The microscope and how the particles lie: everything about the images but the model.

    Attributes
    ----------
    voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg : float
        As in :class:`verglas.Optics`.
    ctf : bool
        False: no CTF, images are plain projections, and the particles' metadata are those of a CTF that is 1
        everywhere (defocus and Cs 0, amplitude contrast 1).
    defocus_A : (float, float)
        Mean underfocus of a micrograph, uniform between the two.
    defocus_spread_A : float
        Standard deviation of the particles' defocus about their micrograph's.
    astigmatism_A : float
        Largest difference of the two defoci; uniform from 0, one axis per micrograph.
    envelope_b_factor_A2 : float
        Fall-off of the signal, exp(-B k^2/4), in no CTF column: as in real data it becomes part of the map.
    shift_sd_A : float
        Standard deviation of the origins in x and in y.
    preferred_axis : (float, float, float)
        Direction in the model that tends to lie along the beam, where ``concentration`` is above 0.
    concentration : float
        0: uniform orientations. Otherwise the von Mises-Fisher concentration of viewing directions about the axis;
        in-plane angles stay uniform.
    particles_per_micrograph : int
        Particle i lies on micrograph i // this.
    optics_groups : int
        Micrographs are dealt to this many groups (equal microscopes, separate noise and rlnOpticsGroup).
    populations : tuple of float
        Shares of the conformations; equal where empty.
    noise_power : None, "coloured" or (shells,) array_like
        White, :func:`verglas.simulate.noise.coloured_power`, or a relative power per shell.

    Raises
    ------
    InputError
        A value outside its range.

    Examples
    --------
    >>> from verglas.simulate import Imaging
    >>> Imaging(defocus_A=(5000, 12000), noise_power="coloured").voltage_kV
    300.0
    """

    voltage_kV: float = setting(300.0, "Accelerating voltage", at_least=1)
    cs_mm: float = setting(2.7, "Spherical aberration", at_least=0)
    amplitude_contrast: float = setting(0.1, "Amplitude contrast, a fraction", at_least=0, at_most=1)
    phase_shift_deg: float = setting(0.0, "Phase shift of a phase plate")
    ctf: bool = setting(True, "Apply the CTF")
    defocus_A: tuple[float, float] = setting((8000.0, 20000.0), "Range of the underfocus of micrographs")
    defocus_spread_A: float = setting(200.0, "Standard deviation of defocus within a micrograph", at_least=0)
    astigmatism_A: float = setting(300.0, "Largest difference of the two defoci", at_least=0)
    envelope_b_factor_A2: float = setting(0.0, "Envelope B of the signal", at_least=0)
    shift_sd_A: float = setting(3.0, "Standard deviation of the origins in x and y", at_least=0)
    preferred_axis: tuple[float, float, float] = setting(
        (0.0, 0.0, 1.0), "Direction that tends to lie along the beam, where the concentration is above 0"
    )
    concentration: float = setting(0.0, "Concentration of views about the preferred axis; 0: uniform", at_least=0)
    particles_per_micrograph: int = setting(100, "Particles of one micrograph", at_least=1)
    optics_groups: int = setting(1, "Number of optics groups", at_least=1)
    populations: tuple[float, ...] = setting((), "Shares of the conformations", on_command_line=False)
    noise_power: npt.ArrayLike | str | None = setting(
        None, "White, coloured, or a relative power per shell", on_command_line=False
    )

    def _impossible(self) -> Iterator[tuple[str, str]]:
        low, high = self.defocus_A
        if low > high:
            yield "defocus_A", f"expected (smallest, largest), got ({low:g}, {high:g})"
        for name in ("defocus_spread_A", "astigmatism_A", "shift_sd_A", "concentration", "envelope_b_factor_A2"):
            if getattr(self, name) == np.inf:
                yield name, "expected a finite number"
        if not np.linalg.norm(self.preferred_axis) > 0:
            yield "preferred_axis", f"expected a direction, got {self.preferred_axis}"
        if isinstance(self.noise_power, str) and self.noise_power != "coloured":
            yield "noise_power", f"expected None, 'coloured' or an array, got {self.noise_power!r}"
        if any(not share > 0 for share in self.populations):
            yield "populations", f"expected positive shares, got {self.populations}"


@dataclass(frozen=True)
class Truth:
    """What was drawn for each of n particles.

    Attributes
    ----------
    poses : Poses
        Orientations and origins.
    optics : Optics
        CTF parameters, without the envelope.
    conformation : (n,) int64
        Index of the model, from 0.
    micrograph : (n,) int64
        Micrograph number, from 0.
    half_set : (n,) int64
        1 or 2.
    """

    poses: Poses
    optics: Optics
    conformation: IntArray
    micrograph: IntArray
    half_set: IntArray


def draw_truth(n: int, models: int, imaging: Imaging, seed: int, poses: Poses | None = None) -> Truth:
    """Poses, defoci, conformations and half sets of n particles; those of particle i do not depend on n.

    Parameters
    ----------
    n, models : int
        Particles and conformations.
    imaging : Imaging
        Distributions.
    seed : int
        Seed of the run.
    poses : Poses, optional
        Given instead of drawn.

    Examples
    --------
    >>> from verglas.simulate import Imaging, draw_truth
    >>> a, b = (draw_truth(n, 1, Imaging(), seed=1) for n in (10, 20))
    >>> bool((a.poses.angles_deg == b.poses.angles_deg[:10]).all())
    True
    """
    # One row of 8 uniform numbers per particle, 4 per micrograph: row i stands at a fixed place of the stream.
    u = stream(seed, _PARTICLE_TABLE).random((n, 8))
    micrograph = np.arange(n) // imaging.particles_per_micrograph
    v = stream(seed, _MICROGRAPH_TABLE).random((int(micrograph[-1]) + 1, 4))[micrograph]
    if poses is None:
        poses = Poses(_orientations(u[:, :3], imaging), imaging.shift_sd_A * _normal(u[:, 3:5]))
    elif len(poses) != n:
        raise InputError(f"{len(poses)} poses for {n} particles")
    low, high = imaging.defocus_A
    mean = low + (high - low) * v[:, 0] + imaging.defocus_spread_A * _normal(u[:, 5])
    half_difference = imaging.astigmatism_A * v[:, 1] / 2
    optics = Optics(
        mean + half_difference,
        mean - half_difference,
        180 * v[:, 2],
        np.full(n, imaging.voltage_kV),
        np.full(n, imaging.cs_mm),
        np.full(n, imaging.amplitude_contrast),
        np.full(n, imaging.phase_shift_deg),
        group=micrograph % imaging.optics_groups,
    )
    shares = np.array(imaging.populations or [1.0] * models)
    if len(shares) != models:
        raise InputError(f"Imaging.populations: {len(shares)} shares for {models} models")
    bounds = np.cumsum(shares / shares.sum())[:-1]
    return Truth(poses, optics, np.searchsorted(bounds, u[:, 6], side="right"), micrograph, 1 + (u[:, 7] < 0.5))


def _normal(u: FloatArray) -> FloatArray:
    """Normal deviates by inversion, so that each takes one random number; 0 is moved to the middle of its interval."""
    return ndtri(np.maximum(u, 2.0**-54))


def _orientations(u: FloatArray, imaging: Imaging) -> FloatArray:
    """Rot, tilt, psi: uniform, or with viewing directions concentrated about an axis.

    Cosine of the angle to the axis by inversion of the von Mises-Fisher distribution on the sphere (Ulrich 1984,
    Appl. Statist. 33, 158-163; closed form in three dimensions), which tends to the uniform one at concentration 0.
    """
    kappa, azimuth = imaging.concentration, 2 * np.pi * u[:, 0]
    cosine = 2 * u[:, 1] - 1 if kappa < 1e-6 else 1 + np.log(u[:, 1] + (1 - u[:, 1]) * np.exp(-2 * kappa)) / kappa
    cosine = np.clip(cosine, -1, 1)
    sine = np.sqrt(1 - cosine**2)
    direction = np.column_stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine])
    if kappa >= 1e-6:
        axis = np.asarray(imaging.preferred_axis, np.float64) / np.linalg.norm(imaging.preferred_axis)
        rot, tilt = np.rad2deg(np.arctan2(axis[1], axis[0])), np.rad2deg(np.arccos(np.clip(axis[2], -1, 1)))
        # The view of pose A is A^T z: rows of A bring the pole to the axis.
        direction = direction @ euler_to_matrix([[rot, tilt, 0.0]])[0]
    rot = np.rad2deg(np.arctan2(direction[:, 1], direction[:, 0]))
    tilt = np.rad2deg(np.arccos(np.clip(direction[:, 2], -1, 1)))
    return np.column_stack([rot, tilt, 360 * u[:, 2] - 180])


class Simulation:
    """Images of n particles, made when asked for; particle i depends on the seed and i alone.

    An image is CTF x projection + noise. The projection is the exact transform of the atoms
    (:func:`verglas.ops.scatter`) on the scale of :func:`verglas.simulate.density`: the sum of the voxels along the
    ray; of a :class:`~verglas.simulate.text.TextPhantom`, scaled to the box, the exact line integrals. All noise
    has one level: the mean over the particles of the variance of their noise-free image over the whole box, divided
    by the SNR.

    Parameters
    ----------
    model : Model or TextPhantom, or a sequence of them
        Atoms or bodies; several are conformations (rlnClassNumber 1, 2, ...).
    n : int
        Number of particles.
    box : int
        Image side in pixels.
    pixel_size_A : float
        Pixel size.
    imaging : Imaging, optional
        Microscope and distributions.
    seed : int
        Seed of the run.
    poses : Poses, optional
        Given instead of drawn.
    threads : int, optional
        Threads; no image depends on it.

    Raises
    ------
    InputError
        A model does not fit the box, or numbers disagree.

    Examples
    --------
    >>> from verglas import simulate
    >>> model = simulate.phantom(box=32, pixel_size_A=4.0, diameter_A=80)
    >>> simulation = simulate.Simulation(model, n=100, box=32, pixel_size_A=4.0)
    >>> simulation.clean([5, 99]).shape
    (2, 32, 32)
    """

    def __init__(
        self,
        model: Model | TextPhantom | Sequence[Model | TextPhantom],
        n: int,
        box: int,
        pixel_size_A: float,
        *,
        imaging: Imaging | None = None,
        seed: int = 0,
        poses: Poses | None = None,
        threads: int | None = None,
    ) -> None:
        if n < 1:
            raise InputError(f"simulate: expected at least 1 particle, got {n}")
        self.models = (model,) if isinstance(model, (Model, TextPhantom)) else tuple(model)
        self.n, self.box, self.pixel_size_A = int(n), int(box), float(pixel_size_A)
        self.imaging, self.seed, self.threads = imaging or Imaging(), seed, threads
        self.truth = draw_truth(n, len(self.models), self.imaging, seed, poses)
        farthest = float(np.linalg.norm(self.truth.poses.shifts_A, axis=1).max())
        for one in self.models:
            if isinstance(one, TextPhantom):
                check_phantom_fits(one, box, pixel_size_A, farthest)
            else:
                check_fits(one, box, pixel_size_A, farthest, rotated=True)
        atoms = [m for m in self.models if isinstance(m, Model)]
        self._tables = {id(m): atom_table(m, pixel_size_A, self.imaging.envelope_b_factor_A2) for m in atoms}
        colour = self.imaging.noise_power
        self._power = coloured_power(box, pixel_size_A) if isinstance(colour, str) else colour

    def clean(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """CTF-modulated images without noise, (m, box, box), of these particle numbers in the order asked."""
        numbers = np.atleast_1d(np.asarray(rows, np.int64))
        spectra = np.empty((len(numbers), self.box, self.box // 2 + 1), np.complex64)
        for conformation, model in enumerate(self.models):
            own = np.flatnonzero(self.truth.conformation[numbers] == conformation)
            if len(own):
                spectra[own] = self._projections(model, self.truth.poses[numbers[own]])
        if self.imaging.ctf:
            params = self.truth.optics[numbers].as_params()
            spectra *= ops.ctf(params, self.box, self.pixel_size_A, threads=self.threads)
        shape = (self.box, self.box)
        return map_images(
            lambda i: fourier.inverse(spectra[i], shape, threads=1), range(len(numbers)), self.box, self.threads
        )

    def _projections(self, model: Model | TextPhantom, poses: Poses) -> npt.NDArray[np.complex64]:
        """Transforms of the projections, with envelope and shifts."""
        envelope = self.imaging.envelope_b_factor_A2
        if isinstance(model, TextPhantom):
            return spectra_of(model, poses, self.box, self.pixel_size_A, envelope, threads=self.threads)
        table = self._tables[id(model)]
        matrices = euler_to_matrix(poses.angles_deg)
        return ops.scatter(*table, matrices, poses.shifts_A, self.box, self.pixel_size_A, threads=self.threads)

    def noise(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Noise of unit variance, (m, box, box), of these particle numbers."""
        numbers = np.atleast_1d(np.asarray(rows, np.int64))
        return noise(numbers.tolist(), self.box, seed=self.seed, power=self._power, threads=self.threads)

    def batches(self) -> Iterator[slice]:
        """Consecutive runs of particle numbers whose work space stays below 100 MB."""
        size = int(np.clip(_BATCH_BYTES // (8 * self.box**2), 1, 256))
        for start in range(0, self.n, size):
            yield slice(start, min(start + size, self.n))

    def render(self, out: npt.NDArray[np.float32], snr: float, listener: Listener | None = None) -> SNR:
        """Fill ``out`` (n, box, box), in memory or mapped to a file, with the noisy images.

        Parameters
        ----------
        out : (n, box, box) float32
            Written, twice per image: first without noise, then, when the mean signal is known, with it.
        snr : float
            Power ratio over the whole box; infinity for no noise.
        listener : Listener, optional
            Who is told how far it is.

        Returns
        -------
        SNR
            What was asked, with its region.
        """
        noise_sigma(1.0, snr)  # refuse a bad SNR before the work
        variance = np.empty(self.n)
        for batch in self.batches():
            images = self.clean(np.arange(batch.start, batch.stop))
            # The noise-free images first, since the noise of all has one level, which is known when the last one is
            # made.
            out[batch] = images
            variance[batch] = images.var(axis=(1, 2), dtype=np.float64)
            if listener is not None:
                listener.progress("projections", batch.stop, self.n)
        sigma = np.float32(noise_sigma(float(variance.mean()), snr))
        if sigma > 0:
            for batch in self.batches():
                out[batch] += sigma * self.noise(np.arange(batch.start, batch.stop))
                if listener is not None:
                    listener.progress("noise", batch.stop, self.n)
        return SNR(float(snr))

    def particles(self, images: npt.NDArray[np.float32]) -> Particles:
        """The images with their true metadata as :class:`verglas.types.Particles`."""
        truth = self.truth
        # Without a CTF the metadata say so, in terms that every program reads: a CTF of 1 at every frequency.
        optics = replace(truth.optics, pixel_size_A=np.full(self.n, self.pixel_size_A))
        if not self.imaging.ctf:
            zero, one = np.zeros(self.n), np.ones(self.n)
            optics = replace(
                optics, defocus_u_A=zero, defocus_v_A=zero, cs_mm=zero, amplitude_contrast=one, phase_shift_deg=zero
            )
        particles = Particles.from_images(images, self.pixel_size_A, poses=truth.poses, optics=optics)
        return particles.with_columns(
            rlnMicrographName=[f"micrographs/simulated_{m + 1:05d}.mrc" for m in truth.micrograph],
            rlnClassNumber=truth.conformation + 1,
            rlnRandomSubset=truth.half_set,
        )
