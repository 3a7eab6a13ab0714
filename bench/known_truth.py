"""What the refinement benchmarks share: simulated cases on disk, refinements as commands, maps against the truth.

A refinement is timed as the command that a user types, in a process of its own: start-up, reading, pages and files
included; its memory is the largest resident set of that process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from child import command

import verglas as vg
from verglas.assessment import PoseErrors, pose_errors
from verglas.filters import apply, low_pass
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps
from verglas.simulate import Model


@dataclass(frozen=True)
class Case:
    """A simulated set; the truth has the envelope of the images, ``mask_A`` is the diameter told to a refinement."""

    n: int = 3000
    box: int = 128
    pixel_size_A: float = 1.5
    diameter_A: float = 130.0
    symmetry: str = "C1"
    snr: float = 0.05
    b_factor_A2: float = 100.0
    start_A: float = 30.0
    mask_A: float = 165.0
    seed: int = 1
    device: str = "cpu"

    def model(self) -> Model:
        """What is simulated."""
        return vg.simulate.phantom(self.box, self.pixel_size_A, self.diameter_A, self.symmetry, seed=0)

    def density(self, model: Model) -> vg.Map:
        """Its map, as blurred as the images."""
        return vg.simulate.density(model, self.box, self.pixel_size_A, b_factor_A2=self.b_factor_A2)

    def write(self, folder: Path) -> vg.Particles:
        """particles.star, particles.mrcs, truth.mrc, and init.mrc: the truth low-passed to the start's resolution."""
        particles = vg.simulate.particles(
            self.model(),
            self.n,
            self.box,
            self.pixel_size_A,
            self.snr,
            folder,
            seed=self.seed,
            envelope_b_factor_A2=self.b_factor_A2,
        )
        vg.write_map(folder / "init.mrc", apply(vg.read_map(folder / "truth.mrc"), low_pass(self.start_A)))
        return particles


def refine(case: Case, folder: Path, *options: str, stack: str = "particles") -> dict[str, Any]:
    """``verglas refine`` of the set in a folder, into ``run``: seconds, iterations, memory taken and planned."""
    arguments = [
        "refine",
        str(folder / f"{stack}.star"),
        "--symmetry",
        case.symmetry,
        "--diameter",
        f"{case.mask_A:g}",
        "--initial-resolution",
        f"{case.start_A:g}",
        "--out",
        str(folder / "run"),
        "--json",
        "--device",
        case.device,
        *options,
    ]
    if "--reference" not in options:
        arguments += ["--reference", str(folder / "init.mrc")]
    seconds, peak_GB, told = command(arguments)
    found, record = json.loads(told), json.loads((folder / "run" / "run.json").read_text())
    return {
        "seconds": seconds,
        "iterations": found["iterations"],
        "peak_GB": peak_GB,
        "planned_GB": max(record["memory_plan"].values()),
        "resolution_A": found["resolution_A"],
        "populations": found["populations"],
    }


def at_half(a: vg.Map, b: vg.Map, mask: vg.Map | None = None) -> float:
    """Resolution at FSC = 0.5 in angstrom."""
    return vg.fsc(a, b, None if mask is None else mask.data).resolution_A(0.5)


def of_better_hand_A(truth: vg.Map, volume: vg.Map) -> float:
    """FSC 0.5 of a map turned onto the truth, of whichever hand fits better."""
    hands = [vg.Map(v, volume.pixel_size_A) for v in (volume.data, flip_hand(volume.data))]
    best = max((align_maps(truth, m, max_radius=12) for m in hands), key=lambda a: a.correlation)
    return at_half(truth, best.map)


def errors_of(case: Case, found: vg.Particles, true: vg.Particles) -> PoseErrors:
    """Pose errors, particles matched by their names."""
    order = pd.Index(true.table["rlnImageName"]).get_indexer(found.table["rlnImageName"])
    if (order < 0).any():
        names = [pd.Index(p.table["rlnImageName"].str.slice(0, 6)) for p in (true, found)]
        order = names[0].get_indexer(names[1])
    return pose_errors(found.poses, true[order].poses, case.symmetry)


def against_truth(case: Case, volume: vg.Map, errors: PoseErrors, mask: vg.Map | None) -> dict[str, float]:
    """A map against the truth turned into its frame, and errors of its poses."""
    truth = case.density(case.model().move(errors.matrix, errors.offset_A))
    made = {
        "truth_0.5_A": at_half(volume, truth),
        "median_angle_deg": float(np.median(errors.angle_deg)),
        "median_shift_A": float(np.median(errors.shift_A)),
        "far_fraction": float(np.mean(errors.angle_deg > 10)),
        "frame_turned_deg": errors.turn_deg,
    }
    if mask is not None:
        made["truth_0.5_masked_A"] = at_half(volume, truth, mask)
    return made


def results(case: Case, folder: Path, true: vg.Particles) -> dict[str, float]:
    """The run of :func:`refine` against the truth."""
    run = folder / "run"
    errors = errors_of(case, vg.read_particles(run / "particles.star"), true)
    return against_truth(case, vg.read_map(run / "map.mrc"), errors, vg.read_map(run / "mask.mrc"))
