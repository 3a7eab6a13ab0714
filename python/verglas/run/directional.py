"""``verglas directional`` on files: half maps in, resolution in every direction and a verdict out."""

from __future__ import annotations

from pathlib import Path

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.directional import DirectionalFSC, directional_fsc
from verglas.assessment.independence import refuse_one_map_twice
from verglas.assessment.judge import judge_directions
from verglas.errors import InputError
from verglas.io import read_map
from verglas.run.maps import read_mask
from verglas.types.verdict import Verdict


def directional_files(
    half1: Path,
    half2: Path,
    mask: Path | None = None,
    *,
    cone_deg: float = 20.0,
    pixel_size_A: float | None = None,
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
    first, second = read_map(half1, pixel_size_A), read_map(half2, pixel_size_A)
    if first.data.shape != second.data.shape:
        raise InputError(f"{half1} has shape {first.data.shape} and {half2} {second.data.shape} (z, y, x)")
    refuse_one_map_twice(first.data, second.data, "directional", f"{half1} and {half2}")
    window = None if mask is None else read_mask(mask, first)
    with shown_to(listener) as heard:
        heard.progress("directions", 0, 1)
        result = directional_fsc(first, second, window, cone_deg)
        heard.progress("directions", 1, 1)
    return result, Verdict.of([judge_directions(result)])
