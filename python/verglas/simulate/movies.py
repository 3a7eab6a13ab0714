"""Movies with known truth: particles and ice that move and fade under the beam, counted by a detector with faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import map_coordinates

from verglas import fourier, ops
from verglas._native import resolve_threads
from verglas.errors import InputError, SettingError
from verglas.geometry import euler_to_matrix, random_orientations
from verglas.optics import critical_exposure_e_A2, wavelength_A
from verglas.simulate.micrographs import Scene, _diameter_px, _optics, _places
from verglas.simulate.model import Model
from verglas.simulate.motion_field import MotionField, Recording
from verglas.simulate.noise import stream
from verglas.simulate.scattering import VOLT_PER_LENGTH_A2, atom_table, factor
from verglas.types import Movie, Optics, Picks, Poses
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.display import one_line
from verglas.types.settings import unknown_settings

_ICE, _COUNTS, _GAIN, _DEFECTS = range(71, 75)  # numbers of random streams
_REST_KV = 510.99895  # m c^2 / e
_BATCH = 32
_WATER_PER_A3 = 0.0314  # molecules of low-density amorphous ice, 0.94 g/cm^3
_PROTEIN_V = 8.1  # mean inner potential of the phantom's helices (and of proteins): 9.1 carbon atoms in 135 A^3
# Gaussian by which an atom displaces water (Fraser, MacRae and Suzuki 1978, J. Appl. Cryst. 11, 693-694), 16 A^3.
_DISPLACED_B_A2 = 80.0
# Of a Scene: what a movie has otherwise.
_UNUSED = ("snr", "ice", "detector", "contaminants", "carbon", "carbon_power", "carbon_grey", "tilt_deg")


@one_line
@dataclass(frozen=True)
class MovieTruth:
    """What is known of a simulated movie.

    Attributes
    ----------
    scene : Scene
    recording : Recording
    picks : Picks
        Centres of the particles in the reference, where nothing has moved.
    poses : Poses
    optics : Optics
        CTF at every particle.
    field : MotionField
        Of ice and particles; ``field.at(x, y)`` is (..., frames, 2).
    shifts_px : (frames, n, 2) float64
        Displacement of every particle in every frame, x then y: the field at its centre and its own walk.
    gain : (y, x) float32
        What the recorded frames are to be multiplied by.
    defects : (m, 2) int64
        Rows (y, x) of hot and dead pixels.
    clean : (y, x) float32
        Relative contrast of the particles alone in the reference, without damage.
    """

    scene: Scene
    recording: Recording
    picks: Picks
    poses: Poses
    optics: Optics
    field: MotionField
    shifts_px: FloatArray
    gain: Float32Array
    defects: npt.NDArray[np.int64]
    clean: Float32Array


def movie(
    model: Model | None = None,
    scene: Scene | None = None,
    recording: Recording | None = None,
    *,
    seed: int = 0,
    name: str = "simulated",
    threads: int | None = None,
    **changes: Any,
) -> tuple[Movie, MovieTruth]:
    r"""Simulate one movie.

    The expected counts of frame f are :math:`D\,[1 - 2(\varphi_f + \psi_f)]`: D electrons per pixel, the phase
    :math:`\varphi_f` of the particles (exact projections, displaced water taken off, CTF of their place) and
    :math:`\psi_f` of the ice, both moved by the field and faded by the exposure so far; a particle moves as a whole.
    What is recorded are Poisson counts of that over the gain, with hot and dead pixels. The mean exposure of a frame
    counts for its damage; motion within a frame is not blurred.

    Parameters
    ----------
    model : Model, optional
        The particle; None for empty ice.
    scene : Scene, optional
        Geometry and optics. Its ``snr``, ``ice``, ``detector``, ``contaminants``, ``carbon`` and ``tilt_deg`` must
        stay as they are: counting statistics and ``recording`` stand for them.
    recording : Recording, optional
        Exposure, motion, detector.
    seed : int
        Of all that is random.
    name : str
    threads : int, optional
        Threads; the result does not depend on it.
    **changes
        Change fields of ``scene`` and ``recording``.

    Returns
    -------
    Movie, MovieTruth
        The movie knows its gain and its defects; its frames as recorded are ``movie.source.data``.

    Raises
    ------
    InputError
        The particles do not fit, or a setting is unknown, unused or out of range.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> model = vg.simulate.phantom(box=48, pixel_size_A=3.0, diameter_A=90)
    >>> movie, truth = vg.simulate.movie(model, shape=(160, 200), pixel_size_A=3.0, n=4, frames=5, drift_px=(4, -2))
    >>> len(movie), movie.shape, truth.shifts_px.shape, movie.source.data.dtype.name
    (5, (160, 200), (5, 4, 2), 'uint8')
    >>> float(np.mean([f.mean() for f in movie]).round(0))  # 1 e/A^2 in pixels of 9 A^2
    9.0
    """
    scene, recording = _settings(scene, recording, changes)
    centres, _ = _places(scene, 0 if model is None else scene.n, _diameter_px(model, scene), seed)
    poses = Poses(random_orientations(len(centres), seed), np.zeros((len(centres), 2)))
    field = recording.field(scene.shape, seed)
    shifts = np.moveaxis(field.at(*centres.T), 1, 0) + recording.walks(len(centres), seed, centres)
    specimen = _Specimen(model, scene, recording, centres, poses, threads)
    gain, defects, hot = _detector(scene.shape, recording, seed)
    frames = _record(specimen, field, shifts, _Detector(gain, defects, hot, recording, scene, seed), threads)
    clean = np.zeros(scene.shape, np.float32)
    specimen.add_particles(clean, np.zeros((len(centres), 2)), None)
    truth = MovieTruth(
        scene, recording, Picks(centres, name), poses, _optics(scene, centres), field, shifts, gain, defects, -2 * clean
    )
    result = Movie.from_array(
        frames,
        scene.pixel_size_A,
        dose_per_frame_e_A2=recording.dose_per_frame_e_A2,
        pre_exposure_e_A2=recording.pre_exposure_e_A2,
        voltage_kV=scene.voltage_kV,
        gain=gain,
        defects=defects,
        name=name,
    )
    return result, truth


def _settings(scene: Scene | None, recording: Recording | None, changes: dict[str, Any]) -> tuple[Scene, Recording]:
    """Scene and recording with the fields that keywords name changed."""
    names = {kind: {f.name for f in fields(kind)} for kind in (Scene, Recording)}
    unknown = unknown_settings(set(changes) - set(_UNUSED), (names[Scene] | names[Recording]) - set(_UNUSED))
    if unknown:
        raise SettingError("simulate.movie", unknown)
    scene = replace(scene or Scene(), **{k: v for k, v in changes.items() if k in names[Scene]})
    recording = replace(recording or Recording(), **{k: v for k, v in changes.items() if k in names[Recording]})
    plain = Scene()
    for name in _UNUSED:
        if getattr(scene, name) != getattr(plain, name):
            raise InputError(
                f"simulate.movie: {name} has no meaning in a movie: its noise are counts, its ice is "
                "ice_thickness_A; leave it out"
            )
    return scene, recording


def _interaction(voltage_kV: float) -> float:
    """Phase in radians per volt and angstrom: lambda gamma / (h^2 / (2 pi m0 e)); 6.53e-4 at 300 kV."""
    return float(wavelength_A(voltage_kV)) * (1 + voltage_kV / _REST_KV) / VOLT_PER_LENGTH_A2


# ---- what is imaged


class _Specimen:
    """Phases of particles and ice in any frame, by place, move and exposure."""

    def __init__(
        self,
        model: Model | None,
        scene: Scene,
        recording: Recording,
        centres: FloatArray,
        poses: Poses,
        threads: int | None,
    ) -> None:
        self.scene, self.recording, self.centres = scene, recording, centres
        self.box, self.spectra = 0, np.zeros((0, 1, 1), np.complex64)
        if model is not None and len(centres):
            self._project(model, poses, threads)

    def _project(self, model: Model, poses: Poses, threads: int | None) -> None:
        """Half transforms of all particles through their CTFs, without move and damage."""
        scene, pixel_A = self.scene, self.scene.pixel_size_A
        optics = scene.optics(self.centres)
        lam = float(wavelength_A(scene.voltage_kV))
        spread_A = lam * float(np.abs(optics.defocus_u_A).max()) / max(4.0, 2 * pixel_A)  # what the CTF spreads to 4 A
        self.box = fourier.fast_size(int(2 * np.ceil((model.radius_A + spread_A) / pixel_A)) + 4)
        table = _in_water(model, pixel_A, scene.b_factor_A2)
        # a pixel of a projection is the sum of voxels: times the pixel size, an integral along the ray
        scale = np.float32(_interaction(scene.voltage_kV) * pixel_A)
        matrices = euler_to_matrix(poses.angles_deg)
        self.spectra = np.empty((len(self.centres), self.box, self.box // 2 + 1), np.complex64)
        for start in range(0, len(self.centres), _BATCH):
            part = slice(start, start + _BATCH)
            shifts_A = np.zeros((len(matrices[part]), 2))
            spectra = ops.scatter(*table, matrices[part], shifts_A, self.box, pixel_A, threads=threads)
            transfer = ops.ctf(optics[part].as_params(), self.box, pixel_A, threads=threads)
            np.multiply(spectra, transfer * scale, out=self.spectra[part])

    def add_particles(self, out: Float32Array, shifts_px: FloatArray, exposure_e_A2: float | None) -> None:
        """Add the particles' phases in one frame."""
        if not self.box:
            return
        places = self.centres + shifts_px
        whole = np.floor(places + 0.5).astype(np.int64)
        size = np.array(out.shape[::-1])
        near = np.flatnonzero(((whole > -self.box) & (whole < size + self.box)).all(axis=1))
        faded = None if exposure_e_A2 is None else self._fade(self.box, exposure_e_A2)
        for start in range(0, len(near), _BATCH):
            rows = near[start : start + _BATCH]
            spectra = self.spectra[rows] * fourier.shift_phases((self.box, self.box), (places - whole)[rows])
            if faded is not None:
                spectra *= faded
            images = fourier.inverse(spectra, (self.box, self.box), threads=1)
            for one, (x, y) in zip(images, whole[rows] - self.box // 2, strict=True):
                x0, y0 = max(x, 0), max(y, 0)
                x1, y1 = min(x + self.box, out.shape[1]), min(y + self.box, out.shape[0])
                if x1 > x0 and y1 > y0:
                    out[y0:y1, x0:x1] += one[y0 - y : y1 - y, x0 - x : x1 - x]

    def _fade(self, side: int, exposure_e_A2: float) -> Float32Array:
        """Amplitude that is left on a half transform."""
        k = fourier.radius((side, side)) / (side * self.scene.pixel_size_A)
        with np.errstate(divide="ignore"):
            amplitude = np.exp(-exposure_e_A2 / (2 * critical_exposure_e_A2(k, self.scene.voltage_kV)))
        return amplitude.astype(np.float32)

    def ice(self, seed: int) -> Iterator[Float32Array]:
        """Of each frame, spline coefficients of the phase of the ice on a periodic square that holds the frame.

        Half pixels apart: cubic splines through whole pixels would pull shifts of the finest detail to whole pixels.
        """
        scene, side = self.scene, fourier.fast_size(max(self.scene.shape))
        fine = (2 * side, 2 * side)
        k = fourier.radius((side, side)) / (side * scene.pixel_size_A)
        transfer = self._ice_transfer(k, side)
        variance = self.recording.ice_motion_A2_per_e * self.recording.dose_per_frame_e_A2
        # a molecule moved by r keeps exp(2 pi i k.r) of its part: on average exp(-2 pi^2 k^2 variance)
        share = np.exp(-2 * np.pi**2 * k**2 * variance).astype(np.float32)
        # Fresh noise fills up what moved away, so that the power of the ice stays the same in all frames.
        fresh = np.sqrt(1 - share**2)
        spectrum: Any = None
        for f in range(self.recording.frames):
            white = scipy.fft.rfft2(stream(seed, f, _ICE).standard_normal((side, side), dtype=np.float32))
            spectrum = white if spectrum is None else spectrum * share + white * fresh
            amplitude = self._fade(side, self.exposure(f)) if self.recording.damage else 1.0
            # 4: irfft2 divides by four times as many pixels
            yield scipy.fft.irfft2(fourier.resize(spectrum * (4 * transfer * amplitude), (side, side), fine), fine)

    def exposure(self, frame: int) -> float:
        """Mean exposure of the specimen during a frame, e/A^2."""
        return self.recording.pre_exposure_e_A2 + (frame + 0.5) * self.recording.dose_per_frame_e_A2

    def _ice_transfer(self, k: FloatArray, side: int) -> Float32Array:
        """From white noise of variance 1 to the phase of water, prefiltered for cubic splines."""
        scene, pixel_A = self.scene, self.scene.pixel_size_A
        molecule = factor("O", k) + 2 * factor("H", k)
        per_pixel = _WATER_PER_A3 * self.recording.ice_thickness_A * pixel_A**2
        # structure factor of water, roughly: 0.08 at low k, 1 beyond the ring at 3.7 A
        q4 = (3.7 * k) ** 4
        structure = 0.08 + 0.92 * q4 / (1 + q4)
        amplitude = _interaction(scene.voltage_kV) * VOLT_PER_LENGTH_A2 * molecule / pixel_A**2
        optics = replace(scene.optics(scene.centre_px), b_factor_A2=np.array([scene.b_factor_A2]))
        transfer = ops.ctf(optics.as_params(), side, pixel_A, threads=1)[0]
        ky, kx = (np.pi / side * axis for axis in fourier.half_grid((side, side)))
        spline = (2 + np.cos(ky)) * (2 + np.cos(kx)) / 9
        return (np.sqrt(per_pixel * structure) * amplitude * transfer / spline).astype(np.float32)


def _in_water(model: Model, pixel_A: float, b_factor_A2: float) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    """Atoms as arguments of ``ops.scatter``, each with the water it displaces taken off in proportion."""
    atoms, types, terms = atom_table(model, pixel_A, b_factor_A2)
    water_V = _WATER_PER_A3 * float(factor("O", 0.0) + 2 * factor("H", 0.0)) * VOLT_PER_LENGTH_A2
    displaced = np.zeros((len(terms), 1, 2))
    displaced[:, 0, 0] = -terms[:, :, 0].sum(axis=1) * water_V / _PROTEIN_V
    displaced[:, 0, 1] = _DISPLACED_B_A2
    return atoms, types, np.concatenate([terms, displaced], axis=1)


# ---- what the detector makes of it


@dataclass(frozen=True)
class _Detector:
    gain: Float32Array
    defects: npt.NDArray[np.int64]
    hot: npt.NDArray[np.bool_]
    recording: Recording
    scene: Scene
    seed: int

    def counts(self, phase: Float32Array, frame: int) -> npt.NDArray[np.uint16]:
        """One recorded frame."""
        electrons = np.float32(self.recording.dose_per_frame_e_A2 * self.scene.pixel_size_A**2)
        # Weak phase through the CTF: the intensity is 1 - 2 phase; recorded counts are divided by what the gain
        # multiplies.
        expected = np.maximum(1 - 2 * phase, 0) * electrons / self.gain
        at = tuple(self.defects.T)
        expected[at] = np.where(self.hot, expected[at] + np.float32(self.recording.hot_counts), 0)
        counts = stream(self.seed, frame, _COUNTS).poisson(expected)
        return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def _detector(
    shape: tuple[int, int], recording: Recording, seed: int
) -> tuple[Float32Array, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Gain of mean 1, defects as sorted rows (y, x), and which of them are hot."""
    seed = seed if recording.detector_seed is None else recording.detector_seed
    rng = stream(seed, 0, _GAIN)
    gain = np.ones(shape)
    if recording.gain_sd:
        gain += recording.gain_sd * rng.standard_normal(shape)
        blocks = rng.standard_normal(8)[np.arange(shape[1]) * 8 // shape[1]]
        slope = (np.arange(shape[0])[:, None] / shape[0] - 0.5) * np.sign(rng.standard_normal())
        gain = np.maximum(gain + recording.gain_sd / 2 * (blocks + slope), 0.1)
        gain /= gain.mean()
    rng = stream(seed, 0, _DEFECTS)
    kind = np.zeros(shape, np.uint8)
    kind[:, rng.choice(shape[1], recording.dead_columns, replace=False)] = 1
    singles = rng.choice(kind.size, recording.dead_pixels + recording.hot_pixels, replace=False)
    kind.reshape(-1)[singles] = 1 + (np.arange(len(singles)) >= recording.dead_pixels)
    defects = np.argwhere(kind)
    return gain.astype(np.float32), defects, kind[tuple(defects.T)] == 2


def _record(
    specimen: _Specimen, field: MotionField, shifts: FloatArray, detector: _Detector, threads: int | None
) -> npt.NDArray[Any]:
    """All frames; a few at a time, each in a thread of its own."""
    recording, shape = specimen.recording, specimen.scene.shape
    frames = np.empty((recording.frames, *shape), np.uint16)

    def one(f: int, ice: Float32Array | None) -> None:
        phase = np.zeros(shape, np.float32) if ice is None else _move(ice, field, f)
        specimen.add_particles(phase, shifts[f], specimen.exposure(f) if recording.damage else None)
        frames[f] = detector.counts(phase, f)

    workers = resolve_threads(threads)
    ices: Iterator[Float32Array | None] = (
        specimen.ice(detector.seed) if recording.ice_thickness_A else iter([None] * recording.frames)
    )
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for f, ice in enumerate(ices):
            waiting.append(pool.submit(one, f, ice))
            if len(waiting) > workers:
                # Wait for the oldest: no more than a frame for each thread is held, and errors surface at once.
                waiting.popleft().result()
        for job in waiting:
            job.result()
    return frames.astype(np.uint8) if frames.max() <= np.iinfo(np.uint8).max else frames


def _move(coefficients: Float32Array, field: MotionField, frame: int) -> Float32Array:
    """Ice of one frame, given on half pixels: pixel p shows the place x with x + u(x) = p, found by two steps."""
    y, x = (axis.astype(np.float64) for axis in np.ogrid[: field.shape[0], : field.shape[1]])
    ux, uy = field.frame(frame, x, y)
    ux, uy = field.frame(frame, x - ux, y - uy)
    at = np.empty((2, *field.shape))
    at[0], at[1] = 2 * (y - uy), 2 * (x - ux)
    moved = map_coordinates(coefficients, at, order=3, mode="grid-wrap", prefilter=False, output=np.float32)
    return np.asarray(moved)
