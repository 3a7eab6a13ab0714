"""``verglas directional`` on files: half maps in, resolution in every direction and a verdict out."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment.directional import DirectionalFSC, directional_fsc
from verglas.assessment.independence import check_pair, refuse_one_map_twice
from verglas.assessment.judge import judge_directions
from verglas.errors import InputError
from verglas.io import check_folder, make_folder, read_map, write_csv, write_json, write_map, write_text
from verglas.report.directional import directional_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import read_mask, warn_of_origins
from verglas.types import Map
from verglas.types.verdict import Verdict


@keeps_inputs("directional")
def directional_files(
    half1: Path,
    half2: Path,
    mask: Path | None = None,
    *,
    cone_deg: float = 20.0,
    pixel_size_A: float | None = None,
    out: Path | None = None,
    listener: ListenerChoice = "screen",
) -> tuple[DirectionalFSC, Verdict]:
    """Conical FSC of two half map files.

    Parameters
    ----------
    half1, half2, mask : Path
        MRC.
    cone_deg : float
        Half-angle of the cones.
    pixel_size_A : float, optional
        In place of the headers'.
    out : Path, optional
        Folder to write: fsc3d.mrc (the conical FSC as a body in Fourier space), directions.csv, curves.csv,
        directional.json and report.html.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    DirectionalFSC, Verdict

    Raises
    ------
    InputError
        The files do not go together, or are one map.
    """
    if out is not None:
        check_folder(out)
    first, second = read_map(half1, pixel_size_A), read_map(half2, pixel_size_A)
    if first.data.shape != second.data.shape:
        raise InputError(f"{half1} has shape {first.data.shape} and {half2} {second.data.shape} (z, y, x)")
    refuse_one_map_twice(first.data, second.data, "directional", f"{half1} and {half2}")
    check_pair(first.data, second.data, half1, half2)
    warn_of_origins(first, second, half1, half2)
    window = None if mask is None else read_mask(mask, first, half1)
    with shown_to(listener) as heard:
        heard.progress("directions", 0, 1)
        result = directional_fsc(first, second, window, cone_deg)
        heard.progress("directions", 1, 1)
    verdict = Verdict.of([judge_directions(result)])
    if out is not None:
        _write(out, result, verdict, first)
    return result, verdict


def _write(out: Path, directional: DirectionalFSC, verdict: Verdict, like: Map) -> None:
    make_folder(out)
    write_map(out / "fsc3d.mrc", Map(directional.volume(like.box), like.pixel_size_A))
    x, y, z = directional.directions.T
    resolution_A = np.where(np.isfinite(directional.resolution_A), directional.resolution_A, np.nan)
    write_csv(
        out / "directions.csv", {"x": x, "y": y, "z": z, "resolution_A": resolution_A, "signal": directional.signal}
    )
    low, middle, high = np.quantile(directional.curves, (0.0, 0.5, 1.0), axis=0)
    curves = {"least": low, "median": middle, "largest": high}
    write_csv(out / "curves.csv", {"frequency_per_A": directional.frequency_per_A, **curves})
    numbers: dict[str, Any] = {
        "area_ratio": round(directional.area_ratio, 4),
        "chance_ratio": round(directional.chance_ratio, 4),
        "sphericity": round(directional.sphericity, 4),
        "cone_deg": directional.cone_deg,
        "coarse_axis": directional.coarse_axis.round(4).tolist(),
        "missing_cone": {
            "found": directional.missing.found,
            "axis": directional.missing.axis.round(4).tolist(),
            "half_angle_deg": directional.missing.half_angle_deg,
            "log_ratio": round(directional.missing.log_ratio, 1),
            "signal_share": round(directional.missing.share, 4),
        },
    }
    for name, (direction, resolution) in {"worst": directional.worst, "best": directional.best}.items():
        told_A = round(resolution, 3) if np.isfinite(resolution) else None
        numbers[name] = {"direction": direction.round(4).tolist(), "resolution_A": told_A}
    write_json(out / "directional.json", {"verglas": __version__, **numbers, "verdict": verdict.as_dict()})
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write_text(out / "report.html", directional_page(directional, verdict, f"verglas {__version__}, {now}"))
