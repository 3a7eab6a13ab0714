"""Good and spoilt micrographs, for what judges them: each kind as different as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import scipy.fft
from scipy import ndimage

from verglas.errors import InputError
from verglas.simulate.micrographs import Scene, micrograph
from verglas.simulate.model import Model
from verglas.types import Micrograph

_SIGMA = 10.0
_FEWEST = 3  # particles of a micrograph that has any


def _good_scene(model: Model, rng: np.random.Generator, shape: tuple[int, int]) -> Scene:
    """Of a good micrograph: pixel, defocus, dose and crowding as they vary from one to another."""
    pixel = rng.uniform(1.0, 1.75)
    area = shape[0] * shape[1] * pixel**2 / (2 * model.radius_A) ** 2
    return Scene(  # drawn in this order
        shape=shape,
        pixel_size_A=pixel,
        defocus_u_A=rng.uniform(7000, 28000),
        b_factor_A2=rng.uniform(30, 120),
        snr=float(np.exp(rng.uniform(np.log(0.03), np.log(0.3)))),
        n=int(area * rng.uniform(0.12, 0.4)),
        ice=rng.uniform(0.3, 1.0),
        detector=rng.uniform(0.3, 0.8),
        contaminants=int(rng.integers(0, 2)),
        contaminant_radius_A=(50.0, 90.0),
    )


def _plain(model: Model | None, scene: Scene, seed: int) -> Micrograph:
    """With a tenth less particles as often as they do not fit; down to three."""
    while True:
        try:
            return micrograph(model, scene, seed=seed)[0]
        except InputError:
            if model is None or scene.n <= _FEWEST:
                raise
            scene = replace(scene, n=max(_FEWEST, int(0.9 * scene.n)))


def _crystalline(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    """Hexagonal ice in grains: spots between 3.65 and 3.92 A, and grains of unlike grey."""
    one = _plain(model, replace(scene, pixel_size_A=rng.uniform(1.0, 1.6)), seed)
    y, x = np.indices(one.shape) * one.pixel_size_A
    grains = rng.integers(2, 7)
    centres = rng.uniform(0, 1, (grains, 2)) * np.array(one.shape) * one.pixel_size_A
    nearest = np.argmin([np.hypot(y - a, x - b) for a, b in centres], axis=0)
    grey, added = rng.normal(scale=rng.uniform(0.2, 1.2), size=grains), np.zeros(one.shape)
    for grain in range(grains):
        strength, here = rng.uniform(0.15, 0.6), nearest == grain
        for _ in range(rng.integers(2, 7)):
            angle, spacing_A = rng.uniform(0, np.pi), rng.choice([3.67, 3.9, 3.78]) * rng.uniform(0.995, 1.005)
            wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / spacing_A + rng.uniform(0, 6))
            added += strength * here * wave
        added += grey[grain] * here
    return replace(one, data=(one.data + _SIGMA * ndimage.gaussian_filter(added, 0.3)).astype(np.float32))


def _draw_contaminated(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    area = scene.shape[0] * scene.shape[1] * scene.pixel_size_A**2
    radius = rng.uniform(60, 160)
    number = int(rng.uniform(0.35, 0.9) * area / (np.pi * radius**2))
    covered = replace(scene, contaminants=number, contaminant_radius_A=(0.7 * radius, 1.3 * radius))
    try:
        return _plain(model, replace(covered, n=_FEWEST), seed)
    except InputError:  # they leave no room even for three particles
        return _plain(None, covered, seed)


def _empty(_model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    """A hole without ice: the detector's noise alone."""
    return _plain(None, replace(scene, ice=rng.uniform(0.0, 0.01), contaminants=0), seed)


def _carbon(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    share = rng.uniform(0.5, 0.85)
    n = max(1, int(0.6 * scene.n * (1 - share)))
    film = replace(scene, n=n, carbon=share, carbon_power=rng.uniform(4, 10), carbon_grey=rng.uniform(0.8, 2.5))
    return _turn(_plain(model, film, seed), rng)


def _turn(one: Micrograph, rng: np.random.Generator) -> Micrograph:
    return replace(one, data=np.ascontiguousarray(np.rot90(one.data, int(rng.integers(0, 4)))))


def _drift(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    """What scatters is smeared along one direction, the detector's noise is not."""
    ice = scene.ice
    one = _plain(model, replace(scene, ice=60.0), seed)  # hardly any noise of the detector
    length_A, angle = rng.uniform(12, 30), rng.uniform(0, np.pi)
    ky, kx = (f(n) / one.pixel_size_A for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), one.shape, strict=True))
    smear = np.sinc((kx[None] * np.cos(angle) + ky[:, None] * np.sin(angle)) * length_A)
    blurred = scipy.fft.irfft2(scipy.fft.rfft2(one.data - 100) * smear, one.shape)
    noise = _plain(None, replace(scene, ice=0.0, contaminants=0), seed + 1).data
    return replace(one, data=(noise + np.sqrt(0.35 * ice) * blurred).astype(np.float32))


def _draw_defocused(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    """Far too much defocus, or none at all."""
    far = rng.uniform() < 0.7
    defocus_A = rng.uniform(65000, 110000) if far else rng.uniform(-200, 800)
    return _plain(model, replace(scene, defocus_u_A=defocus_A), seed)


def _draw_broken(model: Model, scene: Scene, rng: np.random.Generator, seed: int) -> Micrograph:
    """Part of the film is gone: bright, with noise of the detector alone, and a dark rolled edge."""
    one = _plain(model, scene, seed)
    bare = _plain(None, replace(scene, ice=0.0, contaminants=0), seed + 1)
    rough = ndimage.gaussian_filter(rng.normal(size=one.shape), min(one.shape) / 6, mode="wrap")
    share = rng.uniform(0.2, 0.7)
    depth = ndimage.gaussian_filter(rough, 2) - np.quantile(rough, 1 - share)
    gone = depth > 0
    rim = np.exp(-((ndimage.distance_transform_edt(~gone) / (rng.uniform(20, 80) / one.pixel_size_A)) ** 2))
    bright = rng.uniform(1.5, 6) * _SIGMA
    film = one.data - rng.uniform(1, 4) * _SIGMA * rim
    return replace(one, data=np.where(gone, bare.data + bright, film).astype(np.float32))


_MADE: Mapping[str, Callable[[Model, Scene, np.random.Generator, int], Micrograph]] = {
    "good": lambda model, scene, _rng, seed: _plain(model, scene, seed),
    "crystalline": _crystalline,
    "contaminated": _draw_contaminated,
    "empty": _empty,
    "carbon": _carbon,
    "drift": _drift,
    "defocus": _draw_defocused,
    "broken": _draw_broken,
}


def spoilt_micrograph(kind: str, model: Model, *, seed: int = 0, shape: tuple[int, int] = (768, 768)) -> Micrograph:
    """A micrograph of one kind: good, or spoilt as many are.

    Parameters
    ----------
    kind : str
        "good", "crystalline", "contaminated", "empty", "carbon", "drift", "defocus" or "broken".
    model : Model
        The particle.
    seed : int
        Of the settings, too: pixel size 1 to 1.75 A, defocus, signal, crowding, and how it is spoilt.
    shape : (int, int)

    Returns
    -------
    Micrograph

    Raises
    ------
    InputError
        Another kind.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(box=48, pixel_size_A=3.0, diameter_A=100)
    >>> m = vg.simulate.spoilt_micrograph("broken", model, seed=2, shape=(256, 256))
    >>> m.shape
    (256, 256)
    """
    if kind not in _MADE:
        raise InputError(f"simulate.spoilt_micrograph: expected one of {', '.join(_MADE)}, got {kind!r}")
    rng = np.random.default_rng([seed, list(_MADE).index(kind)])
    made = _MADE[kind](model, _good_scene(model, rng, shape), rng, 2 * seed)
    return replace(made, name=f"{kind} {seed}")
