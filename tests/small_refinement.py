"""A short refinement of a small phantom without symmetry, from its own density."""

from __future__ import annotations

from pathlib import Path

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.run.refine import Refinement
from verglas.types.listener import Listener

BOX, PIXEL_A, DIAMETER_A = 32, 6.0, 125.0


def refined_phantom(
    n: int, snr: float, seed: int, symmetry: str = "C1", listener: Listener | None = None, out: Path | None = None
) -> tuple[vg.Particles, Refinement]:
    """The particles with their true poses, and what three iterations make of them."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=seed)
    particles = vg.simulate.particles(model, n, BOX, PIXEL_A, snr, seed=seed, shift_sd_A=3.0)
    reference = apply(vg.simulate.density(model, BOX, PIXEL_A), low_pass(30.0))
    settings = {"diameter_A": 150.0, "initial_resolution_A": 30.0, "iterations": 3, "shift_range_A": 9.0}
    return particles, vg.refine(particles, reference, listener=listener, out=out, **settings)
