"""``verglas orientations`` on a file: how evenly the views of particles sample the map, and what a tilt would add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.assessment.orientations import orientation_efficiency
from verglas.assessment.sampling import ENOUGH, fourier_sampling, propose_tilt
from verglas.assessment.view_proposal import ViewProposal, propose_views
from verglas.errors import InputError
from verglas.io import check_folder, make_folder, read_particles, write_csv, write_json, write_particles, write_text
from verglas.report.html import Page, Section, Table, render
from verglas.report.view_chart import views_block
from verglas.run.kept_inputs import keeps_inputs
from verglas.types.verdict import Finding


@keeps_inputs("orientations")
def orientations_file(particles: Path, out: Path, symmetry: str = "C1") -> dict[str, Any]:
    """Judge the views of a particle file.

    Writes orientations.json, sampling.csv, tilts.csv and report.html; of uneven views collect.csv and kept.star, too.

    Parameters
    ----------
    particles : Path
        STAR or .cs with poses.
    out : Path
        Folder to write; it is made.
    symmetry : str
        Point group of the map.

    Returns
    -------
    dict
        What orientations.json holds.

    Raises
    ------
    InputError
        The file has no poses.
    """
    check_folder(out)
    table = read_particles(particles)
    poses = table.poses
    if poses is None:
        raise InputError(f"{particles}: no orientations; refine the particles first")
    angles = poses.angles_deg
    sampling, efficiency = fourier_sampling(angles, symmetry), orientation_efficiency(angles, symmetry)
    tilts, views = propose_tilt(angles, symmetry), propose_views(angles, symmetry)
    numbers: dict[str, Any] = {
        "particles": len(angles),
        "sampling_compensation_factor": round(sampling.compensation_factor, 4),
        "efficiency": round(efficiency.efficiency, 4),
        "unsampled_share": round(sampling.empty, 4),
        "worst_direction": [round(float(v), 3) for v in sampling.worst_direction],
        "proposed_tilt_deg": tilts.proposed_deg,
        "keep": int(views.keep.sum()),
        "share_of_signal_kept": round(views.share_of_signal, 4),
        "sampling_compensation_factor_kept": round(views.compensation_factor_kept, 4),
        "collect": int(views.collect_particles.sum()),
        "sampling_compensation_factor_collected": round(views.compensation_factor_collected, 4),
    }
    finding = judge_sampling(numbers)
    record = {"verglas": __version__, "symmetry": symmetry, **numbers, "finding": finding.as_dict()}
    make_folder(out)
    x, y, z = sampling.directions.T
    write_csv(out / "sampling.csv", {"x": x, "y": y, "z": z, "density": sampling.density})
    write_csv(out / "tilts.csv", {"tilt_deg": tilts.tilts_deg, "compensation_factor": tilts.compensation_factor})
    write_json(out / "orientations.json", record)
    _write_views(out, views)
    kept = out / "kept.star"
    kept.unlink(missing_ok=True)  # of an earlier call
    if not views.keep.all():
        write_particles(kept, table[np.flatnonzero(views.keep)])
    rows = [(f"{t:.0f}", f"{f:.2f}") for t, f in zip(tilts.tilts_deg, tilts.compensation_factor, strict=True)]
    figures = {
        "sampling compensation": f"{sampling.compensation_factor:.2f}",
        "efficiency": f"{efficiency.efficiency:.2f}",
        "unsampled": f"{100 * sampling.empty:.1f} %",
    }
    sections = [
        Section("Views", blocks=[views_block(angles, symmetry)]),
        *_views_section(numbers, views),
        Section("If the stage were tilted", blocks=[Table(("tilt (degrees)", "sampling compensation"), rows)]),
    ]
    write_text(out / "report.html", render(Page("verglas orientations", finding.sentence, figures, sections)))
    return record


def _write_views(out: Path, views: ViewProposal) -> None:
    """collect.csv, or none where nothing is to be collected."""
    path = out / "collect.csv"
    path.unlink(missing_ok=True)
    if len(views.collect):
        x, y, z = views.collect.T
        rot, tilt = np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arccos(np.clip(z, -1, 1)))
        columns = {"rot_deg": rot, "tilt_deg": tilt, "x": x, "y": y, "z": z, "particles": views.collect_particles}
        write_csv(path, columns)


def _views_section(numbers: dict[str, Any], views: ViewProposal) -> list[Section]:
    if views.keep.all() and not len(views.collect):
        return []
    rows = [
        ("all", str(numbers["particles"]), "1.00", f"{numbers['sampling_compensation_factor']:.2f}"),
        (
            "kept (kept.star)",
            str(numbers["keep"]),
            f"{views.share_of_signal:.2f}",
            f"{views.compensation_factor_kept:.2f}",
        ),
        (
            "with those to collect (collect.csv)",
            str(numbers["particles"] + numbers["collect"]),
            "",
            f"{views.compensation_factor_collected:.2f}",
        ),
    ]
    head = ("particles", "number", "signal to noise", "sampling compensation")
    return [Section("Views to keep and to collect", blocks=[Table(head, rows)])]


def judge_sampling(numbers: dict[str, Any]) -> Finding:
    """Whether the views sample the map evenly enough: ``sampling`` or ``uneven-sampling``, with what to do."""
    factor, tilt = numbers["sampling_compensation_factor"], numbers["proposed_tilt_deg"]
    measures = f"sampling compensation factor {factor:.2f}, efficiency {numbers['efficiency']:.2f}"
    if factor >= ENOUGH:
        return Finding("sampling", "go on", f"Views sample all directions well enough: {measures}.", numbers)
    advice = (
        "no tilt up to 60 degrees evens them out: change the grid or the buffer"
        if tilt is None
        else f"collect at a stage tilt of about {tilt:.0f} degrees"
    )
    if numbers["keep"] < numbers["particles"]:
        left_out, lost = numbers["particles"] - numbers["keep"], 1 - numbers["share_of_signal_kept"]
        advice += f"; {left_out} particles of the commonest views hold {100 * lost:.0f} % of the signal (kept.star)"
    sentence = f"Views are uneven: {measures} (below {ENOUGH:g}); {advice}."
    return Finding("uneven-sampling", "warn", sentence, numbers)
