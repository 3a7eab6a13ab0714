"""Files of a run folder that are numbered: of an earlier run with more of them, none may stay beside the new ones."""

from __future__ import annotations

import re
from pathlib import Path

from verglas.io.atomic import remove_file


def remove_numbered(folder: Path, name: str, last: int) -> None:
    """Remove files whose number is beyond the last.

    Parameters
    ----------
    folder : Path
    name : str
        Regular expression of the whole file name, with a group ``number``.
    last : int
        Files up to this number stay.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from verglas.run.numbered_files import remove_numbered
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for k in (1, 2, 3):
    ...         Path(folder, f"map_class{k}.mrc").touch()
    ...     remove_numbered(Path(folder), r"map_class(?P<number>[0-9]+)[.]mrc", 2)
    ...     sorted(f.name for f in Path(folder).iterdir())
    ['map_class1.mrc', 'map_class2.mrc']
    """
    for path in folder.iterdir():
        match = re.fullmatch(name, path.name)
        if match is not None and int(match["number"]) > last:
            remove_file(path)
