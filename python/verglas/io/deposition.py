"""Files that EMDB and OneDep take beside maps: the FSC curve as XML, metadata as mmCIF."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import gemmi
import numpy.typing as npt

from verglas.io.atomic import write_bytes, write_text


def write_fsc_xml(
    path: str | os.PathLike[str], frequency_per_A: npt.NDArray, curve: npt.NDArray, *, title: str = "FSC"
) -> None:
    """Write one FSC curve in the schema of EMDB: ``<fsc>`` with a ``<coordinate>`` (x in 1/A, y) for every shell.

    Parameters
    ----------
    path : path
    frequency_per_A, curve : (shells,) float64
    title : str
        Of the curve.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from verglas.io.deposition import write_fsc_xml
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fsc_xml(pathlib.Path(folder, "fsc.xml"), np.array([0.0, 0.1]), np.array([1.0, 0.5]))
    ...     pathlib.Path(folder, "fsc.xml").read_text().count("<coordinate>")
    2
    """
    root = ET.Element("fsc", title=title, xaxis="Resolution (A-1)", yaxis="Correlation Coefficient")
    for x, y in zip(frequency_per_A, curve, strict=True):
        point = ET.SubElement(root, "coordinate")
        ET.SubElement(point, "x").text = f"{x:.8g}"
        ET.SubElement(point, "y").text = f"{y:.6g}"
    ET.indent(root)
    write_bytes(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def write_em_metadata(
    path: str | os.PathLike[str],
    pairs: Mapping[str, str | float | int | None],
    loops: Mapping[str, Sequence[Mapping[str, str | float | int | None]]],
) -> None:
    """Write metadata in the words of the mmCIF dictionary for electron microscopy.

    Parameters
    ----------
    path : path
    pairs : mapping
        Item, such as ``_em_3d_reconstruction.resolution``, to its value; None is written as ``?``, not known.
    loops : mapping
        Category, such as ``_em_software.``, to rows of items and values; all rows have the same items.
    """
    document = gemmi.cif.Document()
    block = document.add_new_block("deposition")
    for item, value in pairs.items():
        block.set_pair(item, _text(value))
    for category, rows in loops.items():
        if rows:
            loop = block.init_loop(category, list(rows[0]))
            for row in rows:
                loop.add_row([_text(value) for value in row.values()])
    write_text(path, document.as_string())


def _text(value: str | float | int | None) -> str:
    if value is None:
        return "?"
    return (
        gemmi.cif.quote(value) if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
