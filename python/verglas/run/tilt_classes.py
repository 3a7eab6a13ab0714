"""Classes of tilt pairs and their maps: what ``verglas tilt-pairs`` does when particles are matched and cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas.assessment.fsc import fsc
from verglas.classification import classify2d
from verglas.errors import InputError
from verglas.io import write_map, write_particles, write_stack
from verglas.io.coordinates import MICROGRAPH
from verglas.report.tilt_page import ClassOfPairs
from verglas.run.tilt_defocus import choose_sign, heights_A, micrograph_frame, with_defocus_moved
from verglas.run.tilt_merge import NumberedClass, write_merged
from verglas.tilting import ConicalTilt, TiltGeometry, conical_tilt, fsc_outside_cone
from verglas.tilting.projections import reconstruct_tilted
from verglas.types import Particles
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import Listener

if TYPE_CHECKING:
    from verglas.run.tilt_pairs import TiltPairsJob

PAIR = "verglasTiltPair"  # number of the particle among the pairs of the field: joins both images
_WORDS = {
    0: "one for each micrograph, halves agree no better otherwise",
    1: "grows with height",
    -1: "falls with height",
}


def class_maps(
    job: TiltPairsJob, untilted: Particles, tilted: Particles, geometries: Sequence[TiltGeometry], heard: Listener
) -> tuple[list[ClassOfPairs], dict[str, Any]]:
    """Classify the untilted particles, make a map of each class and one of all; write them, and say what was done."""
    numbered = untilted.with_columns(**{PAIR: np.arange(len(untilted))})
    if job.classes > 1:
        classes = classify2d(
            numbered,
            classes=job.classes,
            ctf=job.settings.ctf,
            diameter_A=job.settings.diameter_A,
            seed=job.seed,
            threads=job.threads,
            listener=heard,
        )
        labels, placed = classes.labels, classes.particles
    else:
        labels, placed = np.zeros(len(numbered), np.int64), numbered
    records: list[dict[str, Any]] = []
    members: list[Members] = []
    for label in range(job.classes):
        one = placed[labels == label]
        rows = one.table[PAIR].to_numpy(np.int64) if len(one) else np.zeros(0, np.int64)
        if len(rows) < job.least:
            records.append({"class": label + 1, "pairs": len(rows), "map": None})
            continue
        members.append(Members(label + 1, one, rows))
    if not members:
        raise InputError(f"tilt-pairs: no class has {job.least} pairs or more of the {len(untilted)} there are")
    tilted, done, told = _reconstruct_classes(job, members, tilted, geometries, heard)
    made = [_write_class(job, one.number, tilt) for one, tilt in zip(members, done, strict=True)]
    records = sorted(records + [one.record for one in made], key=lambda record: int(record["class"]))
    write_stack(job.out / "averages.mrcs", np.stack([one.average for one in made]), untilted.pixel_size_A)
    summary: dict[str, Any] = {"classes": records, **told}
    if len(made) > 1 and job.merge and job.settings.symmetry.upper() == "C1":
        with_rows = [NumberedClass(one.number, tilt, one.rows) for one, tilt in zip(members, done, strict=True)]
        summary["merged"] = write_merged(job.out, with_rows, tilted, job.settings, job.threads)
    return made, summary


@dataclass(frozen=True)
class Members:
    """Untilted particles of one class, and their rows among the pairs."""

    number: int
    untilted: Particles
    rows: IntArray


def _reconstruct_classes(
    job: TiltPairsJob,
    members: Sequence[Members],
    tilted: Particles,
    geometries: Sequence[TiltGeometry],
    heard: Listener,
) -> tuple[Particles, list[ConicalTilt], dict[str, Any]]:
    """Maps of the classes, again with the defocus of each particle's place where that makes halves agree better."""

    def every_class(images: Particles) -> list[ConicalTilt]:
        return [
            conical_tilt(
                one.untilted,
                images[one.rows],
                [geometries[int(i)] for i in one.rows],
                job.settings,
                threads=job.threads,
                listener=heard,
            )
            for one in members
        ]

    z = None if job.defocus_gradient == "none" or not job.settings.ctf else tilted_heights_A(job, tilted, geometries)
    if z is None:
        return tilted, every_class(tilted), {}
    sign = {"positive": 1, "negative": -1}.get(job.defocus_gradient, 0)
    done = every_class(with_defocus_moved(tilted, sign * z))
    told: dict[str, Any] = {"sign": sign, "highest_A": round(float(np.abs(z).max()), 1)}
    if job.defocus_gradient == "auto":
        sign, agreement = choose_sign(done, [z[one.rows] for one in members], job.settings, threads=job.threads)
        told |= {"sign": sign, "mean_fsc": {str(k): round(v, 4) for k, v in agreement.items()}}
        heard.say(f"defocus across tilted micrographs: {_WORDS[sign]}")
        if sign:
            done = every_class(with_defocus_moved(tilted, sign * z))
    return with_defocus_moved(tilted, sign * z), done, {"defocus_gradient": told}


def tilted_heights_A(job: TiltPairsJob, tilted: Particles, geometries: Sequence[TiltGeometry]) -> FloatArray | None:
    """Heights of the tilted particles; None where their files say a defocus for each particle already."""
    table = tilted.table
    spread = table.groupby(MICROGRAPH)["rlnDefocusU"].agg(np.ptp)
    if (spread > 0).any():
        return None
    names = table[MICROGRAPH].astype(str)
    frames = {name: micrograph_frame(name, job.pixel_size_A) for name in names.unique()}
    centres = np.stack([frames[name][0] for name in names])
    positions = table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64)
    pixels = {pixel for _, pixel in frames.values()}
    if len(pixels) > 1:
        raise InputError(f"tilt-pairs: tilted micrographs of {len(pixels)} pixel sizes; give --pixel-size")
    return heights_A(positions, centres, geometries, pixels.pop())


def _write_class(job: TiltPairsJob, number: int, done: ConicalTilt) -> ClassOfPairs:
    name = f"class_{number:02d}"
    write_map(job.out / f"{name}.mrc", done.map)
    write_particles(job.out / f"{name}_tilted.star", done.tilted)
    halves = [reconstruct_tilted(done.tilted[start::2], job.settings, threads=job.threads) for start in (0, 1)]
    outside = fsc_outside_cone(halves[0], halves[1], done.missing.half_angle_deg)
    resolution = outside.resolution_A(0.143)
    record = {
        "class": number,
        "pairs": len(done.tilted),
        "on_faces": int(done.mirrored.sum()),
        "map": str(job.out / f"{name}.mrc"),
        "missing_cone_deg": round(done.missing.half_angle_deg, 2),
        "missing_share": round(done.missing.share, 4),
        "largest_gap_deg": round(done.missing.largest_gap_deg, 2),
        "half_set_resolution_A": round(resolution, 2) if np.isfinite(resolution) else None,
        "shift_rms_A": round(float(np.sqrt((_shifts(done.tilted) ** 2).mean())), 2),
    }
    return ClassOfPairs(done.map, done.average, record, fsc(halves[0], halves[1]))


def _shifts(particles: Particles) -> np.ndarray:
    assert particles.poses is not None
    return particles.poses.shifts_A
