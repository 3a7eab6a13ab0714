"""``verglas report``: the page of a folder of any kind, written again from the files that lie in it."""

from __future__ import annotations

from pathlib import Path

from verglas.errors import InputError
from verglas.io import read_json


def rewrite_page(folder: Path) -> Path:
    """Write the page of a folder again.

    Parameters
    ----------
    folder : Path
        Of refine (finished or running), class2d (finished), postprocess or process.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        The folder holds no such run, or one whose page cannot be drawn from files alone.
    """
    run = folder / "run.json"
    command = str(read_json(run).get("command", "refine")) if run.is_file() else ""
    if command == "refine":
        from verglas.report.refine import write_refine_page

        return write_refine_page(folder)
    if (folder / "postprocess.json").is_file():
        from verglas.report.postprocess import write_postprocess_page

        return write_postprocess_page(folder)
    if command == "class2d":
        from verglas.run.class2d_page import write_again

        return write_again(folder)
    if command == "abinitio":
        raise InputError(
            f"{folder}: the page of abinitio shows the maps of all starts, which only the job has; the one it wrote is "
            f"{folder / 'report.html'}, and the same command given again writes it anew"
        )
    raise InputError(
        f"{folder}: no run whose page can be written again; expected the folder of refine, class2d, "
        "postprocess or process"
    )
