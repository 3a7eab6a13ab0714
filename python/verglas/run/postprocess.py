"""Jobs on half maps: postprocessing, and the files it leaves."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice
from verglas._version import __version__
from verglas.assessment.judge import resolution_withheld_by, withheld_claim
from verglas.assessment.postprocess import Postprocessed, PostprocessSettings, mtf_gain, postprocess
from verglas.errors import InputError
from verglas.filters import Gain
from verglas.io import check_folder, make_folder, read_json, write_csv, write_json, write_map
from verglas.io.mtf import read_mtf_table
from verglas.report.postprocess import write_postprocess_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import read_half_maps, read_mask
from verglas.types.verdict import Verdict


@dataclass(frozen=True)
class PostprocessJob:
    """What ``verglas postprocess`` is asked for.

    Attributes
    ----------
    half1, half2 : Path
        Unfiltered, unmasked half maps.
    out : Path
        Folder to write; it is made.
    mask : Path, optional
        Soft mask; made from the map if not given.
    mtf : Path, optional
        STAR file with rlnResolutionInversePixel and rlnMtfValue, or a text file of two columns.
    mtf_pixel_size_A : float, optional
        Detector pixel that the MTF counts in; the map's if not given.
    b_factor_A2 : float, optional
        B of the map, to be undone; fitted if not given.
    pixel_size_A : float, optional
        In place of the headers'.
    settings : PostprocessSettings
        The rest.
    threads : int, optional
        Threads; the result does not depend on it.
    """

    half1: Path
    half2: Path
    out: Path
    mask: Path | None = None
    mtf: Path | None = None
    mtf_pixel_size_A: float | None = None
    b_factor_A2: float | None = None
    pixel_size_A: float | None = None
    settings: PostprocessSettings = field(default_factory=PostprocessSettings)
    threads: int | None = None


@dataclass(frozen=True)
class PostprocessSummary:
    """What ``verglas postprocess`` reports.

    Attributes
    ----------
    result : Postprocessed
        Curves, maps, B-factor.
    files : list of Path
        What was written.
    seconds : float
        Wall time.
    withheld_by : str or None
        Code of the finding of the refinement that made the half maps, under which no resolution is to be stated.
    """

    result: Postprocessed
    files: list[Path]
    seconds: float
    withheld_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.result.as_dict(),
            **withheld_claim(self.withheld_by),
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 2),
        }


def read_mtf(path: Path, pixel_size_A: float) -> Gain:
    """A detector's MTF from a STAR file (RELION's labels) or a text file of frequency in 1/pixel and value.

    Raises
    ------
    FormatError
        The file holds no such table.
    InputError
        It is no MTF.
    """
    return mtf_gain(read_mtf_table(path), pixel_size_A)


def _refuse_second_mtf(job: PostprocessJob) -> None:
    """Of half maps of a refinement whose images had theirs divided out."""
    run = job.half1.parent / "run.json"
    names = read_json(run).get("settings", {}).get("mtf") if run.is_file() else None
    if names:
        raise InputError(
            f"{job.half1}: the MTF of the detector ({', '.join(names)}) was divided out of the images when they were "
            f"refined ({run}), and would be divided out twice; leave --mtf out"
        )


def write_postprocessed(
    folder: Path,
    result: Postprocessed,
    *,
    suffix: str = "",
    with_map: bool = True,
    record: dict[str, Any] | None = None,
) -> list[Path]:
    """Write what postprocessing made.

    Parameters
    ----------
    folder : Path
        Must be there.
    result : Postprocessed
        From :func:`verglas.postprocess`.
    suffix : str
        After each stem, e.g. '_class1'.
    with_map : bool
        Also map.mrc, the mean of the half maps; a refinement writes a better one.
    record : dict, optional
        Added to postprocess.json.

    Returns
    -------
    list of Path
        map_sharpened.mrc, mask.mrc, fsc.csv, guinier.csv, postprocess.json, with the suffix.
    """
    maps = {"map_sharpened": result.sharpened, "mask": result.mask}
    if with_map:
        maps = {"map": result.map, **maps}
    files = []
    for name, volume in maps.items():
        files.append(folder / f"{name}{suffix}.mrc")
        write_map(files[-1], volume)
    random = result.phase_randomised
    columns = {
        "unmasked": result.unmasked.curve,
        "masked": result.masked.curve,
        # Empty rather than left out: the tables of all runs have the same columns.
        "phase_randomised": np.full_like(result.masked.curve, np.nan) if random is None else random.curve,
        "corrected": result.corrected.curve,
    }
    counts = {"n_unmasked": result.unmasked.n, "n_masked": result.masked.n}
    files.append(folder / f"fsc{suffix}.csv")
    write_csv(files[-1], {"frequency_per_A": result.unmasked.frequency_per_A, **columns, **counts})
    plot = result.guinier
    files.append(folder / f"guinier{suffix}.csv")
    points = {"s2_per_A2": plot.s2_per_A2, "ln_amplitude": plot.ln_amplitude, "ln_weighted": plot.ln_weighted}
    write_csv(files[-1], {**points, "fit": plot.fit})
    files.append(folder / f"postprocess{suffix}.json")
    write_json(files[-1], {"verglas": __version__, **result.as_dict(), **(record or {})})
    return files


def _withheld_by(job: PostprocessJob) -> str | None:
    """The finding that withholds the claim where the half maps lie in the folder of a refinement."""
    path = job.half1.parent / "run.json"
    run = read_json(path) if path.is_file() else {}
    if run.get("command") != "refine" or not run.get("verdict"):
        return None
    return resolution_withheld_by(Verdict.from_dict(run["verdict"]))


@keeps_inputs("postprocess")
def postprocess_files(job: PostprocessJob, *, listener: ListenerChoice = "screen") -> PostprocessSummary:
    """Read half maps, postprocess, write maps, tables and a page.

    Parameters
    ----------
    job : PostprocessJob
        What to do.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    PostprocessSummary

    Raises
    ------
    InputError
        Maps or mask do not go together; the message names the files.
    """
    check_folder(job.out)
    start_time = time.perf_counter()
    half1, half2 = read_half_maps(job.half1, job.half2, job.pixel_size_A)
    mask = None if job.mask is None else half1.with_data(read_mask(job.mask, half1, job.half1))
    mtf = None
    if job.mtf is not None:
        _refuse_second_mtf(job)
        mtf = read_mtf(job.mtf, job.mtf_pixel_size_A or half1.pixel_size_A)
    # After reading and before the work: a bad file leaves no folder, a bad folder costs no work.
    make_folder(job.out)
    result = postprocess(
        half1,
        half2,
        mask,
        mtf=mtf,
        b_factor_A2=job.b_factor_A2,
        settings=job.settings,
        threads=job.threads,
        listener=listener,
    )
    settings = {
        "half_map_1": str(job.half1),
        "half_map_2": str(job.half2),
        "mask": str(job.mask or "made from the map"),
        "mtf": str(job.mtf or "none"),
        **asdict(job.settings),
    }
    withheld_by = _withheld_by(job)
    files = write_postprocessed(job.out, result, record={"settings": settings, **withheld_claim(withheld_by)})
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    files.append(write_postprocess_page(job.out, f"verglas {__version__}, {now}"))
    return PostprocessSummary(result, files, time.perf_counter() - start_time, withheld_by)
