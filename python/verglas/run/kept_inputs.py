"""Files that a job is given are not written over by it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from verglas.errors import InputError
from verglas.io.atomic import inputs_kept

# What jobs with a folder of their own write into it under names that users give their files, too: told at the start,
# not when the first of them would be written, hours later.
_JOBS = ("refine", "abinitio", "class2d", "class3d", "multibody")
_PRODUCTS = ("particles.star", "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "map_sharpened.mrc")


@contextmanager
def keep_inputs(command: str, inputs: Sequence[Path], out: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Inside, no file among ``inputs`` can be written over.

    Parameters
    ----------
    command : str
    inputs : sequence of path
    out : path, optional
        Folder that the command writes.

    Raises
    ------
    InputError
        An input lies in the folder under the name of one of the job's results.

    Examples
    --------
    >>> from pathlib import Path
    >>> from verglas.run.kept_inputs import keep_inputs
    >>> with keep_inputs("refine", [Path("run/map.mrc")], "run"):
    ...     pass
    Traceback (most recent call last):
    verglas.errors.InputError: refine: run/map.mrc is given, and refine writes a map.mrc into run: yours would be ...
    """
    for path in inputs:
        if (
            out is not None
            and command in _JOBS
            and path.name in _PRODUCTS
            and path.absolute().parent.resolve() == Path(out).resolve()
        ):
            raise InputError(
                f"{command}: {path} is given, and {command} writes a {path.name} into {out}: yours would be lost; name "
                "another folder (--out)"
            )
    with inputs_kept(inputs):
        yield
