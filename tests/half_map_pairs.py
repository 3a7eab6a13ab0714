"""Half maps of noise and of unevenly detailed volumes, and what priors make of them."""

from __future__ import annotations

import numpy as np

import verglas as vg
from verglas import fourier
from verglas.assessment import fsc
from verglas.masks import soft_sphere
from verglas.regularisation import HalfMaps, MapSource
from verglas.types.arrays import Float32Array

BOX, RADIUS, PIXEL_A = 32, 14, 4.0
BALL = soft_sphere(BOX, 13.0, 2.0)


def source_of(raw: Float32Array, name: str = "half1", half_sets: int = 1) -> MapSource:
    """Sums with the same weight everywhere: Wiener's filter is S / (1 + S)."""
    shells = fourier.shells(raw.shape)

    def solved(ssnr):
        ssnr = np.maximum(ssnr, 1e-3)  # as on the grid
        gain = np.where(shells <= RADIUS, (ssnr / (1 + ssnr))[np.minimum(shells, RADIUS)], 0)
        return fourier.inverse((fourier.forward(raw, 3) * gain).astype(np.complex64), raw.shape)

    return MapSource(name, half_sets, raw, solved)


def given(raw: Float32Array, mask: Float32Array = BALL) -> HalfMaps:
    maps = [vg.Map(one, PIXEL_A) for one in raw]
    return HalfMaps(raw, np.nan_to_num(fsc(*maps, mask).curve)[: RADIUS + 1], RADIUS, 1.0, mask)


def regularised(prior, raw: Float32Array, mask: Float32Array = BALL) -> Float32Array:
    regularise = prior.fit(given(raw, mask))
    return np.stack([regularise(source_of(one, f"half{n}")) for n, one in enumerate(raw, 1)])


def noise(seed: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(2, BOX, BOX, BOX)).astype(np.float32)


def uneven(seed: int, sd: float = 1.0) -> tuple[Float32Array, Float32Array]:
    """The truth, all detail on one side and none on the other, and half maps of it."""
    rng = np.random.default_rng(seed)
    detail = vg.filters.apply(vg.Map(rng.normal(size=(BOX,) * 3), PIXEL_A), vg.filters.low_pass(10.0)).data
    side = np.clip((np.arange(BOX) - 13) / 4, 0, 1)[:, None, None]
    truth = (3 * detail * side * BALL).astype(np.float32)
    return truth, truth + np.float32(sd) * noise(seed + 100)


def z_scores(halves: Float32Array) -> np.ndarray:
    """FSC of two maps in standard deviations of noise, shells 1 to the last."""
    curve = fsc(*(vg.Map(one, PIXEL_A) for one in halves))
    return (curve.curve * np.sqrt(curve.independent))[1 : RADIUS + 1]


def error(halves: Float32Array, truth: Float32Array) -> float:
    return float(np.linalg.norm((halves - truth) * BALL) / np.linalg.norm(truth * BALL))
