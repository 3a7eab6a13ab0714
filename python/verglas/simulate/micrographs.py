"""Micrographs with known truth: particles at random places and poses, Thon rings, tilt, contaminants, carbon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.spatial import cKDTree

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, random_orientations
from verglas.simulate.model import Model
from verglas.simulate.noise import SNR, stream
from verglas.simulate.scattering import atom_table
from verglas.types import Micrograph, Optics, Picks, Poses
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.settings import settings_from

# Numbers of the random streams of one micrograph.
_PLACES, _ICE, _DETECTOR, _JUNK, _CARBON = range(1, 6)
# Change of phase, radians at the finest frequency with signal, over which a tilted specimen's CTF is taken as linear.
_PHASE_STEP = 0.7
_MEAN, _SIGMA = 100.0, 10.0  # grey values of the recorded micrograph
_SNR_REGION = "squares of 1.5 diameters about the particles"
_BATCH = 32


@dataclass(frozen=True)
class Scene:
    """What lies on a simulated micrograph and how it was recorded.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    pixel_size_A : float
    defocus_u_A, defocus_v_A, defocus_angle_deg : float
        At the centre of the micrograph, pixel (shape - 1) / 2; v is u by default.
    voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg : float
        As in :class:`verglas.Optics`.
    b_factor_A2 : float
        Envelope exp(-B k^2/4) of all that scatters.
    tilt_deg, tilt_axis_deg : float
        The specimen is a plane turned about an axis through the centre, at this angle from +x towards +y; underfocus
        grows by tan(tilt) angstrom per angstrom along the axis' direction + 90 degrees.
    n : int
        Particles.
    snr : float
        Variance of the CTF-modulated particles in squares of 1.5 diameters about them, over the variance of all noise.
    diameter_A : float, optional
        Of the particle; by default twice the model's radius.
    distance : float
        Smallest distance of two centres, in diameters.
    ice : float
        Power of the ice (white scatterers, CTF-modulated: the Thon rings) at k = 0 over that of the detector's noise.
    detector : float
        Power of the detector's noise at Nyquist over that at k = 0.
    contaminants : int
        Dark blobs of ``contaminant_radius_A`` (smallest, largest), where no particle lies.
    carbon : float
        Share of the width, from the left, that carbon covers.
    carbon_power, carbon_grey : float
        Scattering power of what lies there over that of ice, and by how many standard deviations of the noise it is
        darker.

    Raises
    ------
    InputError
        A value outside its range.

    Examples
    --------
    >>> from verglas.simulate import Scene
    >>> Scene(shape=(512, 512), defocus_u_A=12000).defocus_v
    12000
    """

    shape: tuple[int, int] = (1024, 1024)
    pixel_size_A: float = 1.5
    defocus_u_A: float = 15000.0
    defocus_v_A: float | None = None
    defocus_angle_deg: float = 0.0
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: float = 0.0
    b_factor_A2: float = 60.0
    tilt_deg: float = 0.0
    tilt_axis_deg: float = 0.0
    n: int = 60
    snr: float = 0.05
    diameter_A: float | None = None
    distance: float = 1.15
    ice: float = 0.6
    detector: float = 0.5
    contaminants: int = 0
    contaminant_radius_A: tuple[float, float] = (80.0, 250.0)
    carbon: float = 0.0
    carbon_power: float = 8.0
    carbon_grey: float = 1.5

    def __post_init__(self) -> None:
        """Check ranges once."""
        if min(self.shape) < 32 or len(self.shape) != 2:
            raise InputError(f"Scene.shape: expected (rows, columns) of at least 32, got {self.shape}")
        if not self.pixel_size_A > 0 or not self.snr > 0:
            raise InputError(f"Scene: expected positive pixel_size_A and snr, got {self.pixel_size_A} and {self.snr}")
        if not 0 <= self.tilt_deg < 80:
            raise InputError(f"Scene.tilt_deg: expected 0 to 80, got {self.tilt_deg}")
        for name in ("n", "ice", "contaminants", "b_factor_A2"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"Scene.{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("detector", "carbon"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Scene.{name}: expected 0 to 1, got {getattr(self, name)}")
        if not (1 <= self.carbon_power < np.inf and np.isfinite(self.carbon_grey)):
            raise InputError(
                f"Scene: expected a carbon_power of at least 1 and a finite carbon_grey, got {self.carbon_power} and "
                f"{self.carbon_grey}"
            )

    @property
    def defocus_v(self) -> float:
        """defocus_v_A, or defocus_u_A where it is None."""
        return self.defocus_u_A if self.defocus_v_A is None else self.defocus_v_A

    @property
    def gradient(self) -> FloatArray:
        """(x, y): change of underfocus per distance, both in angstrom."""
        angle = np.deg2rad(self.tilt_axis_deg + 90)
        return np.tan(np.deg2rad(self.tilt_deg)) * np.array([np.cos(angle), np.sin(angle)])

    @property
    def centre_px(self) -> FloatArray:
        """(x, y) of the micrograph's centre."""
        return (np.array(self.shape[::-1]) - 1) / 2

    def optics(self, xy_px: npt.ArrayLike) -> Optics:
        """CTF at places (n, 2) of the micrograph, without envelope."""
        local = (np.atleast_2d(np.asarray(xy_px, np.float64)) - self.centre_px) * self.pixel_size_A @ self.gradient
        shared = (self.defocus_angle_deg, self.voltage_kV, self.cs_mm, self.amplitude_contrast, self.phase_shift_deg)
        angle, voltage, cs, contrast, phase, pixel = (np.array([value]) for value in (*shared, self.pixel_size_A))
        return Optics(
            self.defocus_u_A + local, self.defocus_v + local, angle, voltage, cs, contrast, phase, pixel_size_A=pixel
        )


@dataclass(frozen=True)
class MicrographTruth:
    """What is known of a simulated micrograph.

    Attributes
    ----------
    scene : Scene
        All settings.
    picks : Picks
        True, fractional centres.
    poses : Poses
        Orientation of every particle; shifts are zero, the centre is in ``picks``.
    optics : Optics
        CTF at every particle.
    snr : SNR
        With the region it is defined in; 0 without particles.
    contaminants : (m, 3) float64
        x, y and radius in pixels.
    carbon : (y, x) bool
        True where carbon lies.
    clean : (y, x) float32
        The particles alone, CTF-modulated and dark, in the micrograph's grey values.
    """

    scene: Scene
    picks: Picks
    poses: Poses
    optics: Optics
    snr: SNR
    contaminants: FloatArray
    carbon: npt.NDArray[np.bool_]
    clean: Float32Array


def micrograph(
    model: Model | None = None,
    scene: Scene | None = None,
    *,
    seed: int = 0,
    name: str = "simulated",
    threads: int | None = None,
    **changes: Any,
) -> tuple[Micrograph, MicrographTruth]:
    """Simulate one micrograph.

    Particles are exact projections (:func:`verglas.ops.scatter`) at random poses and fractional places, each with the
    CTF of its place. Ice scatters white noise through the same optics, which makes the Thon rings; of a tilted specimen
    the CTF follows the place. The detector adds noise. Grey values have mean 100 and, without particles, standard
    deviation 10; protein is dark.

    Parameters
    ----------
    model : Model, optional
        The particle; None for a micrograph without particles.
    scene : Scene, optional
        Everything else; further keywords change its fields.
    seed : int
        Of all that is random.
    name : str
        Of the micrograph.
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    Micrograph, MicrographTruth

    Raises
    ------
    InputError
        The particles do not fit, or a setting is unknown or out of range.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(box=48, pixel_size_A=3.0, diameter_A=90)
    >>> m, truth = vg.simulate.micrograph(model, shape=(256, 300), pixel_size_A=3.0, n=12, snr=0.1, tilt_deg=20)
    >>> m.shape, len(truth.picks), len(truth.optics)
    ((256, 300), 12, 12)
    """
    scene = settings_from("simulate.micrograph", Scene, scene, **changes)
    diameter_px = _diameter_px(model, scene)
    centres, junk = _places(scene, 0 if model is None else scene.n, diameter_px, seed)
    poses = Poses(random_orientations(len(centres), seed), np.zeros((len(centres), 2)))
    picks = Picks(centres, name)
    signal = np.zeros(scene.shape, np.float32)
    if model is not None and len(centres):
        _add_particles(signal, model, scene, centres, poses, threads)
    carbon = np.broadcast_to(np.arange(scene.shape[1]) < scene.carbon * scene.shape[1], scene.shape)
    noise = _noise(scene, carbon, seed)
    power = _signal_variance(signal, centres, diameter_px)
    gain = _SIGMA * np.sqrt(scene.snr / power) if power > 0 else 0.0
    # Minus: particles are dark in micrographs as recorded.
    clean = (-gain * signal).astype(np.float32)
    data = _MEAN + clean + _SIGMA * noise - _SIGMA * (_blobs(scene, junk) + scene.carbon_grey * carbon)
    snr = SNR(scene.snr if power > 0 else 0.0, _SNR_REGION)
    truth = MicrographTruth(scene, picks, poses, _optics(scene, centres), snr, junk, carbon.copy(), clean)
    return Micrograph(data.astype(np.float32), scene.pixel_size_A, name), truth


def _diameter_px(model: Model | None, scene: Scene) -> float:
    diameter_A = scene.diameter_A or (100.0 if model is None else 2 * model.radius_A)
    return diameter_A / scene.pixel_size_A


def _optics(scene: Scene, centres: FloatArray) -> Optics:
    return scene.optics(centres) if len(centres) else scene.optics(scene.centre_px)[:0]


def _places(scene: Scene, n: int, diameter_px: float, seed: int) -> tuple[FloatArray, FloatArray]:
    """Centres of particles and (x, y, radius) of contaminants: none overlap, none of the particles lie on carbon."""
    size = np.array(scene.shape[::-1], np.float64)
    junk_rng = stream(seed, _JUNK)
    radii = junk_rng.uniform(*scene.contaminant_radius_A, scene.contaminants) / scene.pixel_size_A
    junk = np.column_stack([junk_rng.uniform(0, 1, (scene.contaminants, 2)) * size, radii])
    centres = _spread(scene, n, junk, diameter_px, stream(seed, _PLACES))
    if len(centres) < n:
        raise InputError(
            f"simulate.micrograph: only {len(centres)} of {n} particles of {diameter_px:.0f} px fit {scene.shape[1]} x "
            f"{scene.shape[0]} px at {scene.distance:g} diameters; ask for fewer"
        )
    return centres, junk


def _spread(scene: Scene, n: int, junk: FloatArray, diameter_px: float, rng: np.random.Generator) -> FloatArray:
    """Up to n random places, each far enough from all before it; gives up when 5 rounds in a row find none."""
    size, apart = np.array(scene.shape[::-1]), scene.distance * diameter_px
    places: list[FloatArray] = []
    barren = 0
    while len(places) < n and barren < 5:
        tries = rng.uniform((scene.carbon * size[0], 0), size - 1, (max(4 * n, 64), 2))
        free = np.ones(len(tries), bool)
        for x, y, radius in junk:
            free &= np.hypot(tries[:, 0] - x, tries[:, 1] - y) > radius + diameter_px / 2
        if places:
            free &= cKDTree(np.array(places)).query(tries)[0] >= apart
        before = len(places)
        for one in tries[free]:
            if len(places) < n and all(np.hypot(*(one - other)) >= apart for other in places[before:]):
                places.append(one)
        barren = barren + 1 if len(places) == before else 0
    return np.array(places).reshape(-1, 2)


def _add_particles(
    out: Float32Array, model: Model, scene: Scene, centres: FloatArray, poses: Poses, threads: int | None
) -> None:
    """Add the CTF-modulated projections; a box holds what the CTF spreads down to 4 A."""
    pixel_A = scene.pixel_size_A
    optics = scene.optics(centres)
    wavelength_A = 0.02  # near 300 kV; only for the size of the box
    spread_A = wavelength_A * float(np.abs(optics.defocus_u_A).max()) / max(4.0, 2 * pixel_A)
    box = fourier.fast_size(int(2 * np.ceil((model.radius_A + spread_A) / pixel_A)) + 4)
    table = atom_table(model, pixel_A, scene.b_factor_A2)
    # Not np.round, which takes halves to the even number.
    whole = np.floor(centres + 0.5).astype(np.int64)
    shifts_A = (whole - centres) * pixel_A  # the particle sits at minus the shift
    matrices = euler_to_matrix(poses.angles_deg)
    for start in range(0, len(centres), _BATCH):
        part = slice(start, start + _BATCH)
        spectra = ops.scatter(*table, matrices[part], shifts_A[part], box, pixel_A, threads=threads)
        spectra *= ops.ctf(optics[part].as_params(), box, pixel_A, threads=threads)
        images = fourier.inverse(spectra, (box, box), threads=threads)
        for one, (x, y) in zip(images, whole[part] - box // 2, strict=True):
            y0, x0 = max(y, 0), max(x, 0)
            y1, x1 = min(y + box, out.shape[0]), min(x + box, out.shape[1])
            out[y0:y1, x0:x1] += one[y0 - y : y1 - y, x0 - x : x1 - x]


def _signal_variance(signal: Float32Array, centres: FloatArray, diameter_px: float) -> float:
    """Mean variance in squares of 1.5 diameters about the particles that lie inside as a whole, else about all."""
    side = max(4, round(1.5 * diameter_px))
    low = np.floor(centres + 0.5).astype(np.int64) - side // 2
    inside = ((low >= 0) & (low + side <= np.array(signal.shape[::-1]))).all(axis=1) if len(low) else np.zeros(0, bool)
    parts = [
        signal[max(y, 0) : y + side, max(x, 0) : x + side].var(dtype=np.float64)
        for x, y in (low[inside] if inside.any() else low)
    ]
    return float(np.mean(parts)) if parts else 0.0


# ---- noise


def _noise(scene: Scene, carbon: npt.NDArray[np.bool_], seed: int) -> Float32Array:
    """Ice through the optics plus detector noise; variance 1 where no carbon lies."""
    side = fourier.fast_size(max(scene.shape))
    k = fourier.radius((side, side)) / (side * scene.pixel_size_A)
    nyquist = 0.5 / scene.pixel_size_A
    detector = np.sqrt(scene.detector ** (k / nyquist)).astype(np.float32)
    white = stream(seed, _DETECTOR).standard_normal((side, side), dtype=np.float32)
    # A fast square that holds the frame, cut down afterwards: its shape does not change the statistics.
    noise = scipy.fft.irfft2(scipy.fft.rfft2(white) * detector, (side, side))[: scene.shape[0], : scene.shape[1]]
    scatterers = stream(seed, _ICE).standard_normal((side, side), dtype=np.float32) * np.float32(np.sqrt(scene.ice))
    if scene.carbon > 0:
        extra = stream(seed, _CARBON).standard_normal(scene.shape, dtype=np.float32) * np.float32(
            np.sqrt((scene.carbon_power - 1) * scene.ice)
        )
        scatterers[: scene.shape[0], : scene.shape[1]] += extra * carbon
    noise = noise + apply_optics(scene, scatterers)
    variance = float(noise[~carbon].var(dtype=np.float64)) if not carbon.all() else float(noise.var(dtype=np.float64))
    return (noise / np.sqrt(variance)).astype(np.float32)


def apply_optics(scene: Scene, scatterers: Float32Array) -> Float32Array:
    """Modulate by the CTF of every place: linear between a few defoci across a tilted specimen."""
    side = len(scatterers)
    spectrum = scipy.fft.rfft2(scatterers)
    shape = scene.shape
    offset = np.zeros(shape)
    if scene.tilt_deg > 0:
        y, x = np.ogrid[: shape[0], : shape[1]]
        gx, gy = scene.gradient * scene.pixel_size_A
        offset = gx * (x - scene.centre_px[0]) + gy * (y - scene.centre_px[1])
    finest = min(0.5 / scene.pixel_size_A, np.sqrt(18.0 / max(scene.b_factor_A2, 1e-3)))  # envelope exp(-4.5)
    step_A = _PHASE_STEP / (np.pi * 0.02 * finest**2)
    low, high = float(offset.min()), float(offset.max())
    defoci = np.linspace(low, high, int(np.ceil((high - low) / step_A)) + 1)
    out = np.zeros(shape, np.float32)
    base = scene.optics(scene.centre_px)
    for number, extra in enumerate(defoci):
        here = replace(
            base,
            defocus_u_A=base.defocus_u_A + extra,
            defocus_v_A=base.defocus_v_A + extra,
            b_factor_A2=np.array([scene.b_factor_A2]),
        )
        transfer = ops.ctf(here.as_params(), side, scene.pixel_size_A, threads=1)[0]
        image = scipy.fft.irfft2(spectrum * transfer, (side, side))[: shape[0], : shape[1]]
        if len(defoci) == 1:
            return image.astype(np.float32)
        # Images of neighbouring defoci, mixed linearly: a CTF that changes from place to place is no convolution.
        weight = np.clip(1 - np.abs((offset - low) / (high - low) * (len(defoci) - 1) - number), 0, 1)
        out += weight.astype(np.float32) * image
    return out


def _blobs(scene: Scene, junk: FloatArray) -> Float32Array:
    """Contaminants in standard deviations of the noise: flat inside, with a soft edge."""
    out = np.zeros(scene.shape, np.float32)
    y, x = np.ogrid[: scene.shape[0], : scene.shape[1]]
    for cx, cy, radius in junk:
        edge = max(2.0, 0.15 * radius)
        distance = np.hypot(x - cx, y - cy)
        out = np.maximum(out, 4 * np.clip((radius - distance) / edge + 0.5, 0, 1)).astype(np.float32)
    return out
