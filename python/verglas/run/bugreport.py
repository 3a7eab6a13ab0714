"""``verglas bugreport``: one file with what somebody needs who looks for a fault, and no image or map."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from verglas.errors import InputError
from verglas.io import check_writable, write_bytes
from verglas.run.doctor import doctor
from verglas.run.machine import info

_TEXTS = (".json", ".csv", ".log")
_MOST_BYTES = 1 << 20  # of one text: the end of it is what tells


def bugreport(out: Path, folder: Path | None = None) -> list[str]:
    """Write a ZIP archive: versions, machine, self-test, and of a run its settings, verdicts, logs, last error.

    Parameters
    ----------
    out : Path
        Archive to write.
    folder : Path, optional
        Of a run or a project; its small texts (.json, .csv, .log) are taken, no images, maps or particle tables.

    Returns
    -------
    list of str
        Names in the archive.

    Raises
    ------
    InputError
        The folder is not there, or the archive cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from verglas.run.bugreport import bugreport
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "run.json").write_text("{}") and None
    ...     bugreport(Path(folder) / "bug.zip", Path(folder))
    ['info.json', 'doctor.json', 'run/run.json']
    """
    check_writable(out)
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a run or a project")
    checks = [{"name": c.name, "status": c.status, "detail": c.detail} for c in doctor()]
    texts = {"info.json": json.dumps(info(), indent=1), "doctor.json": json.dumps(checks, indent=1)}
    if folder is not None:
        for path in _texts(folder):
            texts[f"run/{path.relative_to(folder)}"] = _end_of(path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    write_bytes(out, buffer.getvalue())
    return list(texts)


def _texts(folder: Path) -> Iterator[Path]:
    """Small texts of a folder and of its stages, in order; not the records of single micrographs."""
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and path.suffix in _TEXTS and not path.name.startswith("."):
                yield path


def _end_of(path: Path) -> str:
    content = path.read_bytes()
    header = f"... the last {_MOST_BYTES} of {len(content)} bytes\n" if len(content) > _MOST_BYTES else ""
    return header + content[-_MOST_BYTES:].decode("utf-8", errors="replace")
