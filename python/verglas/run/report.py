"""``verglas report``: the page of a folder of any kind, written again from the files that lie in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from verglas.errors import FormatError, InputError, VerglasError
from verglas.io import read_json
from verglas.types.run_state import read_run_state


def rewrite_page(folder: Path) -> Path:
    """Write the page of a folder again.

    Parameters
    ----------
    folder : Path
        Of refine or motion (finished or running), or of class2d, abinitio, postprocess, ctf, pick or extract
        (finished).

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        The folder holds no such run, or one whose page cannot be drawn from files alone.
    FormatError
        Its files hold something else than a job writes.
    """
    run = folder / "run.json"
    record = read_json(run) if run.is_file() else {}
    command = str(record.get("command", "refine")) if run.is_file() else ""
    if command in _AT_THE_END and read_run_state(record).goes_on:
        raise InputError(
            f"{folder}: this run of {command} has not finished, and other files in its folder may be of an "
            "earlier one; its page is written when it ends"
        )
    for holds, write in _WRITERS.items():
        if command == holds or (not command and (folder / holds).is_file()):
            return _write_page(write, folder)
    # Beside a run.json of another job, too: postprocess writes into the folder of a refinement's like.
    if (folder / _POSTPROCESS).is_file():
        return _write_page(_WRITERS[_POSTPROCESS], folder)
    raise InputError(
        f"{folder}: no run whose page can be written again; expected the folder of refine, class2d, abinitio, "
        "postprocess, motion, ctf, pick, extract or process"
    )


def _write_page(write: Callable[[Path], Path], folder: Path) -> Path:
    """Jobs left these files, and anybody may have changed them: what does not fit the page is told, not passed on."""
    try:
        return write(folder)
    except VerglasError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise FormatError(
            f"{folder}: its files do not hold what the page is made of ({type(error).__name__}: {error}); were they "
            "changed since the job ended?"
        ) from error


def _refine(folder: Path) -> Path:
    from verglas.report.refine import write_refine_page

    return write_refine_page(folder)


def _postprocess(folder: Path) -> Path:
    from verglas.report.postprocess import write_postprocess_page

    return write_postprocess_page(folder)


def _class2d(folder: Path) -> Path:
    from verglas.run.class2d_page import write_again

    return write_again(folder)


def _abinitio(folder: Path) -> Path:
    from verglas.run.abinitio_page import write_again

    return write_again(folder)


def _micrographs(folder: Path, kind: str) -> Path:
    from verglas.run import micrograph_pages

    return {
        "motion": micrograph_pages.write_motion_page,
        "ctf": micrograph_pages.write_ctf_page,
        "pick": micrograph_pages.write_pick_page,
        "extract": micrograph_pages.write_extract_page,
    }[kind](folder)


_POSTPROCESS = "postprocess.json"
# What they leave when they finish is all that their pages are made of.
_AT_THE_END = ("abinitio", "pick", "ctf", "extract")
# A command, as run.json has it; or, of jobs that write none, a file that only their folders hold.
_WRITERS: dict[str, Callable[[Path], Path]] = {
    "refine": _refine,
    "class2d": _class2d,
    "abinitio": _abinitio,
    "motion": partial(_micrographs, kind="motion"),
    "pick": partial(_micrographs, kind="pick"),
    "ctf": partial(_micrographs, kind="ctf"),
    "extract": partial(_micrographs, kind="extract"),
    _POSTPROCESS: _postprocess,
    "ctf.csv": partial(_micrographs, kind="ctf"),
    "excluded.csv": partial(_micrographs, kind="extract"),
}
