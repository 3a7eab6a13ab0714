"""How often verdicts are wrong, and whether credible radii hold what they state, on simulated sets.

``python bench/bench_verdict.py [--kinds ...] [--seeds 0 1 ...] [--minutes 9] [--name verdict]`` refines small sets (160
images of 32 px of 6 A) of three kinds of object (no symmetry, C2, D2; another phantom for every seed) and keeps a row
per set in bench/results/<name>.json after every one; what is there already is not made again. ``rates`` in the file
holds what the rows amount to. Kinds of set:

``clean-<SNR>``
    Even views. Any finding but "go on" is a false alarm; ``uncertain-orientations`` is none where more than a fifth of
    the particles are off by over 30 degrees.
``noise``, ``copies``
    No particle in any image, from a reference that looks like one; a third of the images stand twice, under other
    names. Right: ``noise``.
``cone``
    All views within 25 degrees of one direction. Right: ``restricted-views``.
``wrong-symmetry``
    C1 refined as C2. Right: ``symmetry-not-supported``.
``symmetric-in-C1``
    C2 refined without symmetry. Right: ``looks-symmetric``.
``junk``
    Half of the images hold no particle. Right: ``unexplained-particles`` or
    ``uncertain-orientations``.
``tight-mask``
    The mask given cuts into the molecule. Right: a stated resolution that the truth bears out in a loose mask (FSC 0.5
    with it at most 1.3 times coarser), or a note on the mask.
``weak``
    SNR of 0.05: many particles lie wrong. Right: a warning where more than a fifth are off by over 30 degrees, or FSC
    0.5 with the truth is 1.3 times coarser than what the half maps state; no ``noise`` where neither is so.
``class2d-clean``, ``class2d-noise``, ``abinitio-clean``, ``abinitio-noise``
    The verdicts of these stages.

Every row also holds the share of true orientations within the stated 95 % radius (``within_radius``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common import RESULTS, write

BOX, PIXEL_A, DIAMETER_A, MASK_A, START_A = 32, 6.0, 125.0, 150.0, 30.0
OBJECTS = ("C1", "C2", "D2")
PARTICLES = 160
ITERATIONS = 4
CLEAN = (0.4, 0.2, 0.1)
WEAK = 0.05
WORSE = 1.3
FAR_SHARE = 0.2  # beyond 30 degrees, above which many orientations are wrong
RIGHT = {
    "noise": "noise",
    "copies": "noise",
    "cone": "restricted-views",
    "wrong-symmetry": "symmetry-not-supported",
    "symmetric-in-C1": "looks-symmetric",
    "junk": "unexplained-particles or uncertain-orientations",
    "class2d-noise": "noise",
    "abinitio-noise": "noise",
}
ALARMS = (
    "noise",
    "weak-signal",
    "restricted-views",
    "symmetry-not-supported",
    "symmetry-undecided",
    "looks-symmetric",
    "uncertain-orientations",
    "unexplained-particles",
)
REFINED = (*(f"clean-{snr:g}" for snr in CLEAN), "weak", "tight-mask", *list(RIGHT)[:6])
OTHERS = ("class2d-clean", "class2d-noise", "abinitio-clean", "abinitio-noise")


def cone(n: int, seed: int) -> Any:
    """Views within 25 degrees of z."""
    import verglas as vg

    rng = np.random.default_rng(seed)
    tilt = np.rad2deg(np.arccos(1 - (1 - np.cos(np.deg2rad(25.0))) * rng.random(n)))
    return vg.Poses(np.column_stack([360 * rng.random(n), tilt, 360 * rng.random(n)]))


def simulated(symmetry: str, seed: int, snr: float, n: int, **more: Any) -> tuple[Any, Any, Any]:
    """Particles, the phantom and its density."""
    import verglas as vg

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=1000 + seed)
    particles = vg.simulate.particles(model, n, BOX, PIXEL_A, snr, seed=seed, shift_sd_A=3.0, **more)
    return particles, model, vg.simulate.density(model, BOX, PIXEL_A)


def refined(kind: str, object_symmetry: str, seed: int) -> dict[str, Any]:
    """A refinement, its verdict and its figures against the truth."""
    import verglas as vg
    from verglas.assessment import pose_errors
    from verglas.filters import apply, low_pass

    snr = float(kind.split("-")[1]) if kind.startswith("clean") else {"weak": WEAK}.get(kind, 0.2)
    symmetry = {"wrong-symmetry": "C1", "symmetric-in-C1": "C2"}.get(kind, object_symmetry)
    under = {"wrong-symmetry": "C2", "symmetric-in-C1": "C1"}.get(kind, symmetry)
    more = {"poses": cone(PARTICLES, seed)} if kind == "cone" else {}
    particles, model, truth = simulated(symmetry, seed, 1e-8 if kind in ("noise", "copies") else snr, PARTICLES, **more)
    if kind == "copies":
        particles = with_images(particles, lambda images: images[np.r_[:120, :40]])
    if kind == "junk":
        empty, *_ = simulated(symmetry, seed + 500_000, 1e-8, PARTICLES)
        # Three of six: halves are drawn at random, but objects, views and optics have no such period.
        gone = np.arange(PARTICLES)[:, None, None] % 6 < 3
        noise = empty.images() / empty.images().std()
        particles = with_images(particles, lambda images: np.where(gone, noise * images.std(), images))
    if kind == "tight-mask":
        more["mask"] = tight_mask(truth)
    begun = time.process_time()
    found = vg.refine(
        particles,
        symmetrised(apply(truth, low_pass(START_A)), under),
        under,
        diameter_A=MASK_A,
        initial_resolution_A=START_A,
        iterations=ITERATIONS,
        shift_range_A=9.0,
        mask=more.get("mask"),
        seed=seed,
        listener=None,
    )
    errors = pose_errors(found.particles.poses, particles.poses, symmetry if under == "C1" else under)
    turned = vg.simulate.density(model.move(errors.matrix, errors.offset_A), BOX, PIXEL_A)
    radius = found.particles.table["verglasCredibleRadius"].to_numpy()
    sharp = found.particles.table["rlnMaxValueProbDistribution"].to_numpy() >= 0.99
    near = errors.angle_deg <= 10
    post = found.postprocessed
    return {
        "state": found.verdict.state,
        "codes": " ".join(found.verdict.codes),
        "stated_A": found.resolution_A,
        "five_sigma_A": post.trusted.resolution_A("5sigma"),
        "half_bit_A": post.trusted.resolution_A("half-bit"),
        "truth_A": vg.fsc(found.map, turned, None if "mask" in more else post.mask).resolution_A(0.5),
        "notes": " ".join(note.code for note in post.notes),
        "b_factor_A2": post.b_factor_A2 or 0.0,
        "median_error_deg": float(np.median(errors.angle_deg)),
        "far": float(1 - near.mean()),
        "beyond_30": float(np.mean(errors.angle_deg > 30)),
        "within_radius": float(np.mean(errors.angle_deg <= radius)),
        "stated_beyond_30": float(found.particles.table["verglasProbabilityFar"].mean()),
        "median_radius_deg": float(np.median(radius)),
        "wide": float(np.mean(radius > 30)),
        "sharp": float(sharp.mean()),
        "sharp_and_near": float(near[sharp].mean()) if sharp.any() else 1.0,
        "gain_nats": found.verdict.findings[0].numbers.get("gain_nats", 0.0),
        "numbers": json.dumps({f.code: dict(f.numbers) for f in found.verdict.findings}),
        "processor_seconds": time.process_time() - begun,
    }


def with_images(particles: Any, change: Callable[[Any], Any]) -> Any:
    """The particles with other images."""
    import verglas as vg

    return particles.with_source(vg.ArraySource(change(particles.images()).astype(np.float32), PIXEL_A))


def tight_mask(truth: Any) -> Any:
    """The densest third of what the molecule takes."""
    import verglas as vg

    level = np.quantile(truth.data[truth.data > 0.05 * truth.data.max()], 2 / 3)
    return vg.Map((truth.data > level).astype(np.float32), PIXEL_A)


def symmetrised(volume: Any, symmetry: str) -> Any:
    """The mean over a group, or the map as it is under C1."""
    import verglas as vg
    from verglas.geometry import symmetry_matrices
    from verglas.map_geometry.map_alignment import turned_map

    turned = [turned_map(volume.data, g) for g in symmetry_matrices(symmetry)]
    return vg.Map(np.mean(turned, axis=0, dtype=np.float64).astype(np.float32), volume.pixel_size_A)


def classified(kind: str, symmetry: str, seed: int) -> dict[str, Any]:
    """2D classes of particles, or of noise."""
    import verglas as vg

    particles, *_ = simulated(symmetry, seed, 0.2 if kind.endswith("clean") else 1e-8, 400)
    begun = time.process_time()
    found = vg.classify2d(particles, classes=6, diameter_A=MASK_A, seed=seed, listener=None)
    code = "signal" if found.signal else "noise"
    return {
        "state": "go on" if found.signal else "stop",
        "codes": code,
        "processor_seconds": time.process_time() - begun,
    }


def started(kind: str, symmetry: str, seed: int) -> dict[str, Any]:
    """A first map from particles, or from noise; against the truth."""
    import verglas as vg

    from known_truth import of_better_hand_A

    particles, _, truth = simulated(symmetry, seed, 0.4 if kind.endswith("clean") else 1e-8, 300)
    begun = time.process_time()
    found = vg.abinitio(particles, symmetry, MASK_A, starts=3, seed=seed, listener=None)
    row = {"state": found.verdict.kind, "codes": found.verdict.kind, "agreeing": found.verdict.agreeing}
    row |= {"starts": found.verdict.starts}
    seconds = time.process_time() - begun
    return row | {"truth_A": of_better_hand_A(truth, found.map), "processor_seconds": seconds}


MAKERS: dict[str, Callable[[str, str, int], dict[str, Any]]] = {
    **dict.fromkeys(REFINED, refined),
    **dict.fromkeys(OTHERS[:2], classified),
    **dict.fromkeys(OTHERS[2:], started),
}


def is_wrong(row: dict[str, Any]) -> bool:
    """Whether a refined map or its poses are worse than stated."""
    return bool(row["beyond_30"] > FAR_SHARE or row["truth_A"] > WORSE * row["stated_A"])


def rates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """False alarms of every finding on clean sets; misses of every kind that is spoiled; credible sets."""
    clean = [r for r in rows if r["kind"].startswith("clean")]
    alarms = {code: [r for r in clean if code in r["codes"].split()] for code in ALARMS}
    alarms["uncertain-orientations"] = [r for r in alarms["uncertain-orientations"] if r["beyond_30"] <= FAR_SHARE]
    made: dict[str, Any] = {
        "clean_sets": len(clean),
        "false_alarms": {code: len(of) for code, of in alarms.items()},
        "misses": {},
        "misses_without_any_warning": {},
        "within_95_percent_radius": {},
    }
    for kind in dict.fromkeys(r["kind"] for r in rows):
        of = [r for r in rows if r["kind"] == kind]
        if kind in RIGHT:
            missed = [r for r in of if not set(RIGHT[kind].split(" or ")) & set(r["codes"].split())]
            made["misses"][kind] = f"{len(missed)} of {len(of)}"
            made["misses_without_any_warning"][kind] = sum(r["state"] == "go on" for r in missed)
        elif kind == "tight-mask":
            bad = [r for r in of if r["truth_A"] > WORSE * r["stated_A"] and "mask" not in r["notes"]]
            made["misses"][kind] = f"{len(bad)} of {len(of)}"
        elif kind == "weak":
            wrong = [r for r in of if is_wrong(r)]
            made["misses"]["weak, wrong maps"] = f"{sum(r['state'] == 'go on' for r in wrong)} of {len(wrong)}"
            said = sum("noise" in r["codes"].split() for r in of if not is_wrong(r))
            made["weak_maps_that_hold_called_noise"] = f"{said} of {len(of) - len(wrong)}"
        if kind.startswith("clean") or kind == "weak":
            made["within_95_percent_radius"][kind] = round(float(np.mean([r["within_radius"] for r in of])), 4)
    for stage in ("class2d-clean", "abinitio-clean"):
        of = [r for r in rows if r["kind"] == stage]
        made["false_alarms"][f"{stage}: noise"] = f"{sum(r['codes'] == 'noise' for r in of)} of {len(of)}"
    return made


def rows_of(name: str) -> list[dict[str, Any]]:
    """What was measured already."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=[*REFINED, *OTHERS], choices=[*REFINED, *OTHERS])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--minutes", type=float, default=1e9, help="Begin no further set after so many")
    parser.add_argument("--name", default="verdict")
    options = parser.parse_args()
    begun = time.monotonic()
    rows = rows_of(options.name)
    for seed in options.seeds:
        for kind in options.kinds:
            symmetry = OBJECTS[seed % len(OBJECTS)]
            if any((r["kind"], r["seed"]) == (kind, seed) for r in rows):
                continue
            if time.monotonic() - begun > 60 * options.minutes:
                return
            rows.append({"kind": kind, "object": symmetry, "seed": seed, **MAKERS[kind](kind, symmetry, seed)})
            write(options.name, rows, quiet=True, rates=rates(rows))
            print({k: v for k, v in rows[-1].items() if k != "numbers"}, flush=True)


if __name__ == "__main__":
    main()
