"""A set of particles: one table, images read when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError, RowError, VerglasWarning
from verglas.types import _columns as col
from verglas.types.ctf_ranges import check_ctf
from verglas.types.display import drawers
from verglas.types.even_aberrations import (
    EVEN_ZERNIKE,
    FOURTH_ORDER,
    coefficient_lists,
    even_zernikes,
    fold_even,
    write_coefficients,
)
from verglas.types.frozen import FrozenTable
from verglas.types.images import ArraySource, ImageSource
from verglas.types.optics import Optics
from verglas.types.poses import Poses

_WARNED = "_warned"

# cryoSPARC's contrast of the stored image: multiplying by it makes particles white.
SIGN_COLUMN = "blob/sign"


class Particles:
    """Particles: metadata in columns, images read lazily; every method returns a new object.

    Parameters
    ----------
    table : DataFrame
        One row per particle, RELION labels as column names (``rlnDefocusU``); other columns are kept.
    source : ImageSource, optional
        The images, row by row; None for metadata without images.
    optics_table : DataFrame, optional
        One row per optics group (``rlnOpticsGroup``); its values go to the particles of the group.
    tables : mapping, optional
        All other tables of the file, kept for writing. Its keys give the order; the keys ``table_name`` and
        ``"optics"``, if present, mark the places of the two tables above.
    table_name : str
        Name of the particle table in the file.
    where : str
        What messages call this set, usually the path of its file.

    Raises
    ------
    InputError
        The source holds another number of images than the table has rows.

    Notes
    -----
    ``table`` and ``optics_table`` cannot be changed in place; :meth:`with_columns` makes a changed set. Iterating gives
    sets of one particle each: for loops over a handful; arrays (``poses``, ``optics``, ``table``) are for the rest.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> p = vg.Particles.from_images(np.zeros((3, 8, 8), np.float32), pixel_size_A=2.0)
    >>> p = p.with_poses(vg.Poses([[10, 20, 30], [0, 0, 0], [90, 90, 0]]))
    >>> len(p), p.box, p.pixel_size_A, p[[2, 0]].poses.angles_deg[:, 0].tolist(), p.images([1]).shape
    (3, 8, 2.0, [90.0, 10.0], (1, 8, 8))
    """

    _table: pd.DataFrame
    source: ImageSource | None
    _optics_table: pd.DataFrame | None
    tables: Mapping[str, Any]
    table_name: str
    where: str

    def __init__(
        self,
        table: pd.DataFrame,
        source: ImageSource | None = None,
        *,
        optics_table: pd.DataFrame | None = None,
        tables: Mapping[str, Any] | None = None,
        table_name: str = "particles",
        where: str = "particles",
    ) -> None:
        if source is not None and len(source) != len(table):
            raise InputError(f"{where}: {len(table)} rows but {len(source)} images")
        # shallow copies: a column added to the caller's frame later does not appear here
        fields = {
            "_table": table.reset_index(drop=True),
            "source": source,
            "_optics_table": None if optics_table is None else optics_table.reset_index(drop=True),
            "tables": dict(tables or {}),
            "table_name": table_name,
            "where": where,
        }
        # Which fields of the CTF were warned of: copies share it, so that a job does not hear the same of each.
        self.__dict__.update(fields | {_WARNED: set()})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Particles are frozen: cannot set {name}; use with_columns, with_poses or with_source")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Particles are frozen: cannot delete {name}")

    @classmethod
    def from_images(
        cls, images: npt.ArrayLike, pixel_size_A: float, *, poses: Poses | None = None, optics: Optics | None = None
    ) -> Particles:
        """Particles whose images lie in memory.

        Parameters
        ----------
        images : (n, box, box) array
        pixel_size_A : float
        poses : Poses, optional
            n poses.
        optics : Optics, optional
            n CTFs; its groups become optics groups 1, 2, ...; the pixel size is that of the images.
        """
        source = ArraySource(images, float(pixel_size_A))
        groups = pd.DataFrame(
            {
                "rlnOpticsGroupName": ["opticsGroup1"],
                "rlnOpticsGroup": [1],
                "rlnImagePixelSize": [float(pixel_size_A)],
                "rlnImageSize": [source.data.shape[1]],
                "rlnImageDimensionality": [2],
            }
        )
        table = pd.DataFrame({"rlnOpticsGroup": np.ones(len(source), dtype=np.int64)})
        made = cls(table, source, optics_table=groups)
        if optics is not None:
            made = made.with_optics(replace(optics, pixel_size_A=np.full(len(optics), float(pixel_size_A))))
        return made if poses is None else made.with_poses(poses)

    # ---- shape and slices

    @property
    def table(self) -> pd.DataFrame:
        """One row per particle; a frame of one's own, whose columns cannot be set."""
        return FrozenTable.of(self._table)

    @property
    def optics_table(self) -> pd.DataFrame | None:
        """One row per optics group, likewise; None without."""
        return None if self._optics_table is None else FrozenTable.of(self._optics_table)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Particles({len(self)} from {self.where}, {self._table.shape[1]} columns)"

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return drawers[0](self) if drawers else None

    def __iter__(self) -> Iterator[Particles]:
        """Sets of one particle each, in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Particles:
        """A subset by boolean mask, indices, slice or one integer; the images stay where they are."""
        rows = self._rows(index)
        source = None if self.source is None else self.source.take(rows)
        return self._replace(table=self._table.iloc[rows], source=source)

    def _rows(self, index: Any) -> npt.NDArray[np.int64]:
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype != bool:
                index = index.astype(np.int64)
            if index.dtype == bool and index.shape != (len(self),):
                raise InputError(f"{self.where}: a mask of shape {index.shape} for {len(self)} particles")
            if index.dtype != bool and index.dtype.kind not in "iu":
                raise InputError(f"{self.where}: expected a mask, integers or a slice, got {index.dtype}")
            if index.dtype != bool and index.size and (index.max() >= len(self) or index.min() < -len(self)):
                beyond = index.max() if index.max() >= len(self) else index.min()
                raise RowError(f"{self.where}: index {beyond} beyond {len(self)} particles")
        return np.atleast_1d(np.arange(len(self), dtype=np.int64)[index])

    def _replace(self, **changes: Any) -> Particles:
        fields = {name.removeprefix("_"): value for name, value in self.__dict__.items() if name != _WARNED} | changes
        made = Particles(fields.pop("table"), fields.pop("source"), **fields)
        made.__dict__[_WARNED] = self.__dict__[_WARNED]
        return made

    # ---- images

    def images(self, index: Any = slice(None)) -> npt.NDArray[np.float32]:
        """Images in the order asked.

        Parameters
        ----------
        index : indices, mask or slice
            All particles by default.

        Returns
        -------
        (m, box, box) float32
            Particles white: cryoSPARC's ``blob/sign``, where the table has it, is applied.

        Raises
        ------
        InputError
            There are no images, or they have several sizes.
        FormatError
            A stack is missing, truncated, or contradicts the metadata.
        """
        if self.source is None:
            raise InputError(f"{self.where}: these particles have no images, only metadata")
        rows = self._rows(index)
        images = self.source.read(rows)
        if SIGN_COLUMN in self.table:
            sign = self.table[SIGN_COLUMN].to_numpy(dtype=np.float32)[rows]
            if (sign != 1).any():
                images *= sign[:, None, None]
        return images

    @property
    def box(self) -> int:
        """Side of the images in pixels.

        Raises
        ------
        InputError
            Unknown, or not the same for all.
        """
        label = col.GRID_BOX if col.GRID_BOX in self._table else "rlnImageSize"
        sizes = self._tables().value(label, optics_first=True)
        if sizes is None:
            if self.source is None or not len(self):
                raise InputError(f"{self.where}: the box is unknown: no images and no column rlnImageSize")
            sizes = self.source.boxes().astype(np.float64)
        if (sizes < 1).any():
            raise InputError(f"{self.where}: rlnImageSize: expected at least 1 pixel, got {sizes.min():g}")
        return int(col.one_value(sizes, "box sizes", self.where, "Select those of one size first"))

    @property
    def pixel_size_A(self) -> float:
        """Pixel size in angstrom, from the metadata, else from the stacks.

        Raises
        ------
        InputError
            Unknown, or not the same for all (then see ``p.pixel_sizes_A``).
        """
        return float(col.one_value(self.pixel_sizes_A, "pixel sizes", self.where, "p.pixel_sizes_A has one value each"))

    @property
    def pixel_sizes_A(self) -> col.FloatArray:
        """Pixel size of every particle in angstrom, (n,); CTFs need not be known.

        Raises
        ------
        InputError
            Unknown.
        """
        sizes = self._pixel_sizes_A()
        if sizes is None:
            raise InputError(
                f"{self.where}: the pixel size is unknown: the metadata have no rlnImagePixelSize, nor do the stacks"
            )
        return sizes

    def _pixel_sizes_A(self) -> col.FloatArray | None:
        sizes = col.pixel_sizes_A(self._tables())
        if sizes is None and self.source is not None and len(self):
            known = self.source.pixel_sizes_A()
            sizes = np.broadcast_to(known, len(self)) if np.isfinite(known).all() else None
        return sizes

    # ---- metadata as arrays

    def _tables(self) -> col.Tables:
        return col.Tables(self._table, self._optics_table, self.where)

    @property
    def poses(self) -> Poses | None:
        """Orientations and shifts, or None where the table has no three Euler angles.

        Shifts: rlnOriginX/YAngst, else rlnOriginX/Y (pixels, RELION 3.0) times the pixel size, else zero.
        """
        tables = self._tables()
        if not all(label in self.table for label in col.ANGLES):
            return None
        angles = np.column_stack([col.number_column(self.table[a], a, self.where) for a in col.ANGLES])
        shifts = np.zeros((len(self), 2))
        for axis, (in_A, in_px) in enumerate(zip(col.SHIFTS_A, col.SHIFTS_PX, strict=True)):
            origin = tables.value(in_A, optics_first=False)
            if origin is None and in_px in self.table:
                pixel = self._pixel_sizes_A()
                if pixel is None:
                    raise InputError(
                        f"{self.where}: {in_px} is in pixels and the pixel size is unknown; "
                        "give rlnImagePixelSize, or rlnMagnification and rlnDetectorPixelSize"
                    )
                origin = col.number_column(self.table[in_px], in_px, self.where) * pixel
            if origin is not None:
                shifts[:, axis] = origin
        return Poses(angles, shifts)

    @property
    def optics(self) -> Optics:
        """CTF parameters of every particle, with its optics group (from 0) and pixel size.

        Even aberrations of the group (``rlnEvenZernike``) are in them, exactly, up to the fourth order.

        Raises
        ------
        InputError
            A column that a CTF needs is in neither table; all that are missing are named. A value no microscope has.

        Notes
        -----
        A row whose value is missing or not finite has NaN there; jobs set its particle aside.
        """
        tables = self._tables()
        missing = [label for label, needed, _ in col.OPTICS_LABELS.values() if needed and not tables.has(label)]
        if missing:
            kind = "no optics table and " if self.optics_table is None else ""
            raise InputError(
                f"{self.where}: a CTF is asked for, but there is {kind}no column {', '.join(missing)}; "
                "add them to the optics or particle table"
            )
        columns: dict[str, Any] = {}
        for field, (label, _, default) in col.OPTICS_LABELS.items():
            shared = label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
            values = tables.value(label, optics_first=shared, missing=True)
            columns[field] = np.full(len(self), default) if values is None else values
        pixel = self._pixel_sizes_A()
        columns["pixel_size_A"] = np.full(len(self), np.nan) if pixel is None else pixel
        check_ctf(columns, self.where, warned=self.__dict__[_WARNED])
        even = None if self._optics_table is None else coefficient_lists(self._optics_table, EVEN_ZERNIKE, self.where)
        if even is not None and even.any():
            volt = columns["voltage_kV"] * 1e3
            wavelength = 12.2643247 / np.sqrt(volt * (1 + 0.978466e-6 * volt))
            columns = fold_even(columns, even[tables.group()], wavelength)
        return Optics(**columns, group=tables.group())

    @property
    def half_sets(self) -> npt.NDArray[np.int64] | None:
        """Half set of each particle, 1 or 2 (rlnRandomSubset); None without the column.

        Values other than 1 and 2 make the column invalid: None, with a warning that says so.
        """
        if "rlnRandomSubset" not in self.table:
            return None
        values = pd.to_numeric(self.table["rlnRandomSubset"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.flatnonzero(~np.isin(values, (1, 2)))
        if bad.size:
            warnings.warn(
                f"{self.where}: rlnRandomSubset of particle {bad[0]} is {values[bad[0]]:g}, not 1 or 2 "
                f"({bad.size} rows): the half sets of this file are not used",
                VerglasWarning,
                stacklevel=2,
            )
            return None
        return values.astype(np.int64)

    # ---- changed copies

    def with_columns(self, **columns: Any) -> Particles:
        """The same particles with columns replaced or added (at the end); None drops a column.

        Labels that are no Python names go in with ``**{"ctf/scale": values}``.
        """
        table = self._table.copy(deep=False)
        dropped = [name for name, value in columns.items() if value is None]
        table = table.drop(columns=dropped, errors="ignore")
        for name, value in columns.items():
            if value is not None:
                if np.ndim(value) and len(value) != len(table):
                    raise InputError(f"{self.where}: column {name}: {len(value)} values for {len(table)} particles")
                table[name] = np.asarray(value) if np.ndim(value) else value
        made = self._replace(table=table)
        new = {field for field, (label, _, _) in col.OPTICS_LABELS.items() if label in columns}
        if new:  # other values, to be judged by themselves
            made.__dict__[_WARNED] = self.__dict__[_WARNED] - new
        return made

    def with_poses(self, poses: Poses) -> Particles:
        """The same particles with these orientations and shifts (origins in pixels, if any, are dropped)."""
        if len(poses) != len(self):
            raise InputError(f"{self.where}: {len(poses)} poses for {len(self)} particles")
        columns: dict[str, Any] = dict(zip(col.ANGLES, poses.angles_deg.T, strict=True))
        columns.update(zip(col.SHIFTS_A, poses.shifts_A.T, strict=True))
        return self.with_columns(**columns, **dict.fromkeys(col.SHIFTS_PX))

    def with_optics(self, optics: Optics) -> Particles:
        """The same particles with these CTFs; one optics group per group number of ``optics``.

        Raises
        ------
        InputError
            Voltage, Cs, amplitude contrast, pixel size or aberrations of fourth order differ inside a group.
        """
        if len(optics) != len(self):
            raise InputError(f"{self.where}: {len(optics)} CTFs for {len(self)} particles")
        numbers, first, group = np.unique(optics.group, return_index=True, return_inverse=True)
        made: dict[str, Any] = {
            "rlnOpticsGroupName": [f"opticsGroup{i + 1}" for i in range(len(numbers))],
            "rlnOpticsGroup": np.arange(1, len(numbers) + 1),
        }
        shared = {
            "rlnVoltage": optics.voltage_kV,
            "rlnSphericalAberration": optics.cs_mm,
            "rlnAmplitudeContrast": optics.amplitude_contrast,
        }
        pixel = optics.pixel_size_A if np.isfinite(optics.pixel_size_A).all() else self._pixel_sizes_A()
        if pixel is not None:
            shared["rlnImagePixelSize"] = pixel
        for label, values in shared.items():
            if not np.array_equal(values, values[first][group]):
                raise InputError(f"{self.where}: {label} differs between particles of one optics group")
            made[label] = values[first]
        if self.source is not None and len(self):
            made["rlnImageSize"] = np.broadcast_to(self.source.boxes(), len(self))[first]
            made["rlnImageDimensionality"] = 2
        fourth = np.column_stack([getattr(optics, name) for name in FOURTH_ORDER])
        if fourth.any():
            if not np.array_equal(fourth, fourth[first][group]):
                raise InputError(f"{self.where}: aberrations of fourth order differ between particles of one group")
            made[EVEN_ZERNIKE] = write_coefficients(even_zernikes(fourth[first]))
        own = {
            label: getattr(optics, field) for field, (label, _, _) in col.OPTICS_LABELS.items() if label not in shared
        }
        changed = self.with_columns(rlnOpticsGroup=group + 1, **own)
        return changed._replace(optics_table=pd.DataFrame(made))

    def with_source(self, source: ImageSource | None) -> Particles:
        """The same metadata with images from elsewhere (denoised, recentred, in memory)."""
        return self._replace(source=source)
