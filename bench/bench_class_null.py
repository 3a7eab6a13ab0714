"""Classes over all poses where there is one structure, or none: what ``--classes auto`` claims.

Every trial is one case and one seed, which draws phantom, poses and noise; none of the seeds was used in development
(``--first-seed``). Trials are kept after each, and a run goes on where the last one stopped::

    python bench/bench_class_null.py one noise --seeds 20 --minutes 4.5

48 px of 4 A, 150 particles without poses, data to 18 A, one map given (the true one, which the job low-passes).

one     one structure, SNR 0.1 over the whole box
noise   images of white noise alone
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas.simulate import phantom

from common import run_cases

BOX, PIXEL_A, N = 48, 4.0, 150
RESULT = Path(__file__).parent / "results" / "class_null.json"
POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def judged(particles: vg.Particles, start: vg.Map) -> dict[str, Any]:
    """Classes that auto chooses, and what the second of them gains."""
    begun = time.process_time()
    how: dict[str, Any] = {"resolution_A": 18.0, "diameter_A": 150.0, "listener": None}
    made = vg.classify3d(particles, start, classes="auto", most_classes=2, **how)
    second = next(row for row in made.trials if row["classes"] == 2)  # the last row is the one that was chosen
    return {
        "classes": made.classes,
        "gain_nats": second["gain_nats"],
        "gain_error_nats": second["error_nats"],
        "processor_seconds": round(time.process_time() - begun, 1),
    }


def drawn(seed: int) -> tuple[vg.Particles, vg.Map]:
    """Particles of one structure, without poses, and its map."""
    model = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    particles = vg.simulate.particles(model, N, BOX, PIXEL_A, snr=0.1, seed=seed, listener=None)
    return particles.with_columns(**dict.fromkeys(POSE_COLUMNS)), vg.simulate.density(model, BOX, PIXEL_A)


def one(seed: int) -> dict[str, Any]:
    """One structure."""
    return judged(*drawn(seed))


def noise(seed: int) -> dict[str, Any]:
    """Nothing in the images."""
    particles, start = drawn(seed)
    images = np.random.default_rng(seed).standard_normal((N, BOX, BOX), dtype=np.float32)
    return judged(particles.with_source(vg.ArraySource(images, PIXEL_A)), start)


CASES = {f.__name__: f for f in (one, noise)}


def main() -> None:
    """Run what is not there yet."""
    known = {"verglas": vg.__version__, "particles": N, "box": BOX, "pixel_size_A": PIXEL_A}
    run_cases(__doc__, CASES, RESULT, seeds=20, first_seed=7000, minutes=4.5, **known)


if __name__ == "__main__":
    main()
