"""The page of ``verglas postprocess``, from the files that it wrote."""

from __future__ import annotations

from pathlib import Path

from verglas.errors import InputError
from verglas.io import read_map, write_text
from verglas.report import figures
from verglas.report.assessed import b_factor, guinier_section, length, read_assessed, resolution_section
from verglas.report.html import Page, Picture, Section, Table, name_text, render
from verglas.report.volume import viewer_block
from verglas.types.verdict import notes_of


def write_postprocess_page(folder: Path, footer: str = "") -> Path:
    """Write report.html of a folder of ``verglas postprocess``.

    Parameters
    ----------
    folder : Path
        Holds map.mrc, map_sharpened.mrc, mask.mrc, fsc.csv, guinier.csv and postprocess.json.
    footer : str
        Version and time.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        A file is missing.
    """
    assessed = read_assessed(folder)
    if assessed is None:
        raise InputError(f"{folder}: no fsc.csv, guinier.csv and postprocess.json; run verglas postprocess first")
    record = assessed.record
    average, sharpened, mask = (read_map(folder / f"{name}.mrc") for name in ("map", "map_sharpened", "mask"))
    numbers = {
        "resolution (corrected, 0.143)": length(record["resolution_A"]),
        **assessed.claim,
        "unmasked": length(assessed.curves["unmasked"].resolution_A(0.143)),
        "B-factor": b_factor(assessed.guinier),
        "mask": f"{100 * record['mask']['fraction']:.1f} % of the box",
    }
    slices = Picture(
        figures.slices({"map": average, "sharpened map": sharpened}, contour=mask, shared_scale=False),
        "Central slices of the map and the sharpened map with the outline of the mask",
        "Central slices, each map on its own grey scale; the line is where the mask is one half.",
    )
    surface = Picture(
        figures.views(sharpened, mask),
        "The surface of the sharpened map from three sides",
        "The sharpened map, from z, y and x.",
    )
    turning = {"sharpened map": sharpened, "map": average, "mask": mask}
    sections = [
        resolution_section({"map": assessed}),
        Section("Maps", blocks=[viewer_block(turning), surface, slices]),
        guinier_section({"map": assessed}),
    ]
    if notes := notes_of(record):
        rows = [(str(number), note.sentence) for number, note in enumerate(notes, 1)]
        sections.insert(0, Section("Please note", blocks=[Table(("", "what"), rows)]))
    settings = [(name_text(k), v) for k, v in record.get("settings", {}).items()]
    sections.append(Section("Settings", blocks=[Table(("setting", "value"), settings)]))
    page = Page(
        "verglas postprocess",
        f"Half maps of {record['box']} voxels of {record['pixel_size_A']:g} Å.",
        numbers,
        sections,
        footer,
    )
    path = folder / "report.html"
    write_text(path, render(page))
    return path
