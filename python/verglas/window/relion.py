"""A RELION project folder as jobs to look at: ``default_pipeline.star``, and what single jobs left."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from verglas.errors import VerglasError
from verglas.io import read_star
from verglas.io.star import parse_block, scan
from verglas.window.job import Job, key_of

PIPELINE = "default_pipeline.star"
_STATES = {"0": "running", "1": "scheduled", "2": "finished", "3": "failed", "4": "stopped"}
_LABELS = {"running": "running", "scheduled": "scheduled", "succeeded": "finished", "failed": "failed"}


def relion_jobs(root: Path) -> list[Job]:
    """Jobs of a RELION project (3.0 to 5).

    Parameters
    ----------
    root : Path
        Folder with ``default_pipeline.star``.

    Raises
    ------
    FormatError
        It is no pipeline.
    """
    tables = read_star(root / PIPELINE)
    processes = _table(tables, "pipeline_processes")
    maker = dict(_pairs(tables, "pipeline_output_edges", "rlnPipeLineEdgeToNode", "rlnPipeLineEdgeProcess"))
    sources: dict[str, list[str]] = {}
    for process, node in _pairs(tables, "pipeline_input_edges", "rlnPipeLineEdgeProcess", "rlnPipeLineEdgeFromNode"):
        if node in maker and maker[node] not in sources.setdefault(process, []):
            sources[process].append(maker[node])
    jobs = []
    for row in processes.astype(str).to_dict("records"):
        name = row["rlnPipeLineProcessName"]
        alias = row.get("rlnPipeLineProcessAlias", "None")
        jobs.append(_job(root, name, alias, _state(row), [key_of(root, one) for one in sources.get(name, [])]))
    return jobs


def _table(tables: dict[str, Any], name: str) -> pd.DataFrame:
    table = tables.get(name)
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame()


def _pairs(tables: dict[str, Any], name: str, first: str, second: str) -> list[tuple[str, str]]:
    table = _table(tables, name)
    if not {first, second} <= set(table.columns):
        return []
    return list(zip(table[first].astype(str), table[second].astype(str), strict=True))


def _state(row: Mapping[Any, Any]) -> str:
    label = row.get("rlnPipeLineProcessStatusLabel", "").lower()
    return _LABELS.get(label, "stopped") if label else _STATES.get(row.get("rlnPipeLineProcessStatus", ""), "stopped")


def _job(root: Path, name: str, alias: str, state: str, parents: list[str]) -> Job:
    folder = root / name.strip("/")
    inside = folder.resolve().is_relative_to(root.resolve())
    sentence = f"RELION's {name.partition('/')[0]}, {state}"
    if not inside:  # by ".." or a link: who may see the project may not see what lies elsewhere
        folder = root / "outside" / key_of(root, name)
        sentence += "; its folder lies outside the project and is not shown"
    shown = name.strip("/") + ("" if alias in ("None", "") else f" ({alias.strip('/').rpartition('/')[2]})")
    return Job(
        key_of(root, name),
        shown,
        folder,
        "RELION",
        name.partition("/")[0],
        state,
        sentence,
        parents=parents,
        project=key_of(root),
        settings=_options(folder),
        numbers=_numbers(folder),
    )


def _options(folder: Path) -> dict[str, Any]:
    path = folder / "job.star"
    try:
        # The help texts that follow the values hold quotes, which no other table may.
        values = path.read_bytes().partition(b"data_joboptions_full_definition")[0] if path.is_file() else b""
        tables = {}
        if values:
            text = mmap.mmap(-1, len(values))
            text[:] = values  # not by write(), after which searches begin at the end
            tables = {block.name: parse_block(path, block, text) for block in scan(path, text)}
    except (VerglasError, OSError):
        return {}
    table = tables.get("joboptions_values")
    if not isinstance(table, pd.DataFrame) or table.shape[1] < 2:
        return {}
    # RELION writes the spaces of a value as two underscores.
    texts = table.iloc[:, 1].astype(str).str.replace("__", " ")
    return dict(zip(table.iloc[:, 0].astype(str), texts, strict=True))


def _read(path: Path) -> dict[str, Any]:
    """A STAR file that may be missing; one that cannot be read is as good as missing in a project of others."""
    try:
        return read_star(path) if path.is_file() else {}
    except (VerglasError, OSError):
        return {}


_COUNTED = {
    "particles.star": "particles",
    "run_data.star": "particles",
    "shiny.star": "particles",
    "micrographs_ctf.star": "micrographs",
    "micrographs_selected.star": "micrographs",
    "corrected_micrographs.star": "micrographs",
    "movies.star": "micrographs",
}


_PICKING = ("AutoPick", "ManualPick")
_PICKED = "rlnGroupNrParticles"
_PICK_FILES = ("_autopick.star", "_manualpick.star")
_OF_JOB = "coords_suffix_"  # names the micrographs' list, and holds no table
_MOST_PICK_FILES = 2000  # read one by one, whenever the project is looked at


def _rows(path: Path) -> int | None:
    """Rows of the first table but optics, counted without reading them: there may be millions."""
    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        with open(path, "rb") as handle:
            # not closed here: of a file that is none, the traceback still holds views of it
            text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            loops = [block for block in scan(path, text) if block.loop and block.name != "optics"]
    except (VerglasError, OSError):
        return None
    return loops[0].n_rows if loops else None


def _picked(folder: Path) -> dict[str, int]:
    """Picks of a picking job, and micrographs that have some: of its summary, else counted in a file for each."""
    table = next((t for t in _read(folder / "summary.star").values() if isinstance(t, pd.DataFrame)), None)
    if table is not None and _PICKED in table:
        counts = pd.to_numeric(table[_PICKED], errors="coerce").fillna(0).astype(int)
        return {"picks": int(counts.sum()), "micrographs": int((counts > 0).sum())}
    files = [path for ending in _PICK_FILES for path in sorted(folder.rglob(f"*{ending}"))[:_MOST_PICK_FILES]]
    files = [path for path in files if not path.name.startswith(_OF_JOB)]
    rows = [n for path in files if (n := _rows(path))]
    return {"picks": sum(rows), "micrographs": len(rows)} if rows else {}


def _numbers(folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = dict(_picked(folder)) if folder.parent.name in _PICKING else {}
    for name, what in _COUNTED.items():
        rows = _rows(folder / name)
        if rows is not None:
            numbers[what] = rows
    if (folder / "postprocess.star").is_file():
        general = _read(folder / "postprocess.star").get("general", {})
        for label, what in (("rlnFinalResolution", "resolution_A"), ("rlnBfactorUsedForSharpening", "b_factor_A2")):
            if isinstance(general, dict) and label in general:
                numbers[what] = float(general[label])
    elif (folder / "run_model.star").is_file():
        model = _read(folder / "run_model.star").get("model_general", {})
        if isinstance(model, dict) and "rlnCurrentResolution" in model:
            numbers["resolution_A"] = float(model["rlnCurrentResolution"])
    return numbers


def relion_fsc(folder: Path) -> pd.DataFrame | None:
    """FSC curves of PostProcess or Refine3D: frequency_per_A, and a column per curve; None where there are none."""
    for name, block, columns in (
        (
            "postprocess.star",
            "fsc",
            {
                "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
                "rlnFourierShellCorrelationMaskedMaps": "masked",
                "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "phase_randomised",
                "rlnFourierShellCorrelationCorrected": "corrected",
            },
        ),
        ("run_model.star", "model_class_1", {"rlnGoldStandardFsc": "between half maps"}),
    ):
        table = _read(folder / name).get(block)
        if isinstance(table, pd.DataFrame) and "rlnResolution" in table:
            return pd.DataFrame(
                {"frequency_per_A": pd.to_numeric(table["rlnResolution"])}
                | {ours: pd.to_numeric(table[label]) for label, ours in columns.items() if label in table}
            )
    return None
