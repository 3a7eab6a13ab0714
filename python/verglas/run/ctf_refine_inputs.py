"""Particles as ``verglas ctf-refine`` takes them, and as it gives them back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError, VerglasWarning
from verglas.image.outliers import inspect_images
from verglas.optics import for_job
from verglas.optics.aberrations import BEAM_TILT, MAGNIFICATION, ODD_ZERNIKE, Aberrations
from verglas.optics.one_grid import refuse_several_sizes
from verglas.optics.refine import GroupFit, MicrographFit
from verglas.optics.stored import ctf_in_images, stored_images
from verglas.optics.transfer import wavelength_A
from verglas.reconstruction.half_sets import images_of
from verglas.reconstruction.known_poses import half_sets
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types._columns import NO_ABERRATION
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.even_aberrations import EVEN_COUNT, EVEN_ZERNIKE, coefficient_lists, write_coefficients

_DEFOCI = ("rlnDefocusU", "rlnDefocusV")
_LEAST_B_FACTOR_A2 = -50.0  # what no reader refuses
# What fits to micrographs change beside the defoci, and the field of Optics that holds it.
_OF_MICROGRAPHS = {
    "rlnDefocusAngle": "defocus_angle_deg",
    "rlnPhaseShift": "phase_shift_deg",
    "rlnCtfBfactor": "b_factor_A2",
    "rlnCtfScalefactor": "scale",
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Particles that can be fitted to, as stored.

    Attributes
    ----------
    given : Particles
        All of them.
    rows : (n,) int64
        Those in use.
    particles : Particles
        They, with half sets.
    half : (n,) int64
        0 or 1.
    image : (n,) int64
        The same number for rows of one image: they may not stand on both sides of a judgement.
    excluded : dict of int -> str
        Row of ``given`` -> why it is not used.
    job : str
        What messages call it.
    """

    given: Particles
    rows: IntArray
    particles: Particles
    half: IntArray
    image: IntArray
    excluded: dict[int, str]
    job: str = "ctf-refine"

    @property
    def sentence(self) -> str:
        """What was set aside."""
        row, why = next(iter(self.excluded.items()))
        return (
            f"{self.given.where}: {self.job}: {len(self.excluded)} of {len(self.given)} particles set aside and not "
            f"changed (particle {row}, row from 0: {why})"
        )

    def whole(self, refined: Particles) -> Particles:
        """All particles, those in use as refined; the others belong to groups with new aberrations, too."""
        columns: dict[str, Any] = {}
        for label in _DEFOCI:
            columns[label] = _defoci(self.given, label)
            columns[label][self.rows] = refined.table[label].to_numpy(np.float64)
        # of those set aside, the half of a copy that is none: no job uses them
        subset = np.ones(len(self.given), np.int64)
        subset[self.rows] = self.half + 1
        columns["rlnRandomSubset"] = subset
        for label, name in _OF_MICROGRAPHS.items():
            if label in refined.table:
                columns[label] = getattr(self.given.optics, name).copy()
                columns[label][self.rows] = refined.table[label].to_numpy(np.float64)
        columns |= {str(label): None for label in self.given.table if label not in refined.table}
        everything = self.given.with_columns(**columns)
        return Particles(
            everything.table,
            everything.source,
            optics_table=refined.optics_table,
            tables=everything.tables,
            table_name=everything.table_name,
            where=everything.where,
        )


def prepare(particles: Particles, *, fits_ctf: bool, needs_halves: bool, job: str = "ctf-refine") -> Prepared:
    """Refuse what cannot be refined, set aside what says nothing, split into half sets.

    Parameters
    ----------
    particles : Particles
    fits_ctf : bool
        Something is fitted that changes the CTF.
    needs_halves : bool
        Half maps are given: the particles must say which half is whose.
    job : str
        What messages call it.

    Raises
    ------
    InputError
    """
    given = stored_images(particles)
    refuse_several_sizes(given, job)
    _refuse_unfit(given, fits_ctf, needs_halves, job)
    inspection = inspect_images(for_job(given, job, posed=True))
    excluded = dict(sorted({**inspection.excluded, **given.optics.unusable()}.items()))
    rows = np.setdiff1d(np.arange(len(given)), list(excluded)).astype(np.int64)
    if not len(rows):
        row, why = next(iter(excluded.items()), (0, "there is none"))
        raise InputError(f"{given.where}: {job}: no particle can be used (particle {row}, row from 0: {why})")
    half = half_sets(given, copy_of=inspection.copy_of)[rows]
    defoci = {label: _defoci(given, label)[rows] for label in _DEFOCI}
    used = given[rows].with_columns(rlnRandomSubset=half, **defoci)
    made = Prepared(given, rows, used, half - 1, images_of(given, inspection.copy_of)[rows], excluded, job)
    if excluded:
        warnings.warn(made.sentence, VerglasWarning, stacklevel=3)
    return made


def _defoci(particles: Particles, label: str) -> FloatArray:
    """Of every particle, as its row says, or else its optics group; NaN where it is missing."""
    tables = col.Tables(particles.table, particles.optics_table, particles.where)
    values = tables.value(label, optics_first=False, missing=True)
    assert values is not None  # Particles.optics has asked for it
    return values.copy()


def _refuse_unfit(particles: Particles, fits_ctf: bool, needs_halves: bool, job: str) -> None:
    where = particles.where
    if particles.poses is None:
        raise InputError(f"{where}: {job} needs poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi)")
    if particles.source is None:
        raise InputError(f"{where}: these particles have no images")
    if particles.optics_table is None:
        raise InputError(f"{where}: no optics table to write aberrations into; verglas convert writes one (RELION 3.1)")
    if needs_halves and "rlnRandomSubset" not in particles.table:
        raise InputError(
            f"{where}: half maps are given, but no column rlnRandomSubset says which particles made which: each "
            "must be compared with the map of the other half; leave the maps out, and they are reconstructed"
        )
    label = ctf_in_images(particles)
    if label is not None and fits_ctf:
        raise InputError(
            f"{where}: {label} is 1: the images were changed by the CTF of these columns, which another CTF would not "
            "undo; extract the particles again without that, or fit beam tilt and trefoil only (odd; no defocus, even, "
            "magnification)"
        )


def places(particles: Particles) -> tuple[IntArray, FloatArray | None]:
    """Micrograph of every particle, and where it lies there, where the table says so."""
    table = particles.table
    if "rlnMicrographName" not in table:
        return np.zeros(len(table), np.int64), None
    micrograph = np.unique(table["rlnMicrographName"].to_numpy(str), return_inverse=True)[1].astype(np.int64)
    if not {"rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        return micrograph, None
    xy = [col.number_column(table[c], c, particles.where) for c in ("rlnCoordinateX", "rlnCoordinateY")]
    return micrograph, np.column_stack(xy)


def with_micrograph_fit(particles: Particles, fit: MicrographFit, micrograph: IntArray) -> Particles:
    """Particles with a term of their micrographs, in RELION's columns."""
    optics, change = particles.optics, fit.change[micrograph]
    if fit.term == "phase_shift":
        return particles.with_columns(rlnPhaseShift=optics.phase_shift_deg + np.rad2deg(change[:, 0]))
    if fit.term == "b_factor":
        scale = optics.scale * np.exp(change[:, 0])
        b_factor = np.maximum(optics.b_factor_A2 + change[:, 1], _LEAST_B_FACTOR_A2)
        return particles.with_columns(rlnCtfBfactor=b_factor, rlnCtfScalefactor=scale)
    twice = np.deg2rad(2 * optics.defocus_angle_deg)
    mean, half = (optics.defocus_u_A + optics.defocus_v_A) / 2, (optics.defocus_u_A - optics.defocus_v_A) / 2
    x, y = half * np.cos(twice) + change[:, 0], half * np.sin(twice) + change[:, 1]
    half = np.hypot(x, y)
    angle = np.rad2deg(np.arctan2(y, x)) / 2
    return particles.with_columns(rlnDefocusU=mean + half, rlnDefocusV=mean - half, rlnDefocusAngle=angle)


@dataclass(frozen=True, eq=False)
class _GroupValues:
    """Aberrations of every row of an optics table, to be changed."""

    tilt_mrad: FloatArray
    odd: FloatArray
    even: FloatArray
    matrix: FloatArray

    @classmethod
    def of(cls, particles: Particles) -> _GroupValues:
        table = particles.optics_table
        assert table is not None
        known, rows = Aberrations.of(particles), len(table)
        kind, group = np.zeros(rows, np.int64), particles.optics.group
        kind[group] = known.kind
        if (kind[group] != known.kind).any():
            raise InputError(
                f"{particles.where}: particles of one optics group differ in beam tilt, odd Zernike coefficients or "
                "magnification; give each kind its own group"
            )
        odd = np.zeros((rows, max(6, known.odd.shape[1])))
        odd[:, : known.odd.shape[1]] = known.odd[kind]
        stored = coefficient_lists(table, EVEN_ZERNIKE, particles.where)
        even = np.zeros((rows, EVEN_COUNT if stored is None else max(EVEN_COUNT, stored.shape[1])))
        if stored is not None:
            even[:, : stored.shape[1]] = stored
        return cls(known.beam_tilt_mrad[kind].copy(), odd, even, known.matrix[kind].copy())


def with_group_fits(
    particles: Particles,
    odd: dict[int, GroupFit] | None = None,
    even: dict[int, GroupFit] | None = None,
    magnification: dict[int, GroupFit] | None = None,
) -> Particles:
    """Particles whose optics groups have the kept fits of a round, in RELION's columns.

    Raises
    ------
    InputError
        Particles of one group differ in their aberrations.
    """
    table, values, optics = particles.optics_table, _GroupValues.of(particles), particles.optics
    assert table is not None
    columns: dict[str, Any] = {}
    for g, fit in _fits_kept(odd):
        one = int(np.flatnonzero(optics.group == g)[0])
        coma = float(optics.cs_mm[one] * 1e7 * wavelength_A(optics.voltage_kV[one]) ** 2)
        values.odd[g, :6] += fit.change
        values.odd[g], values.tilt_mrad[g] = _as_beam_tilt(values.odd[g], values.tilt_mrad[g], coma)
        columns |= dict(zip(BEAM_TILT, values.tilt_mrad.T, strict=True)) | {ODD_ZERNIKE: write_coefficients(values.odd)}
    for g, fit in _fits_kept(even):
        values.even[g, :EVEN_COUNT] -= fit.change
        columns[EVEN_ZERNIKE] = write_coefficients(values.even)
    for g, fit in _fits_kept(magnification):
        values.matrix[g] = (np.eye(2) + fit.change.reshape(2, 2)) @ values.matrix[g]
        columns |= dict(zip(MAGNIFICATION, values.matrix.reshape(-1, 4).T.copy(), strict=True))
    columns = {label: _unused_kept(table, label, column, optics.group) for label, column in columns.items()}
    own = particles.table.drop(columns=[c for c in columns if c in particles.table])
    return Particles(
        own,
        particles.source,
        optics_table=table.assign(**columns),
        tables=particles.tables,
        table_name=particles.table_name,
        where=particles.where,
    )


def _unused_kept(table: pd.DataFrame, label: str, column: Any, group: IntArray) -> list[Any]:
    """A new column of the optics table; groups without a particle here keep what they have."""
    new = list(column)
    for row in np.setdiff1d(np.arange(len(table)), group).tolist():
        new[row] = table[label].iloc[row] if label in table else NO_ABERRATION.get(label, "[0]")
    return new


def _fits_kept(fits: dict[int, GroupFit] | None) -> list[tuple[int, GroupFit]]:
    return [(g, fit) for g, fit in (fits or {}).items() if fit.kept]


def _as_beam_tilt(odd: FloatArray, tilt_mrad: FloatArray, coma_A3: float) -> tuple[FloatArray, FloatArray]:
    """Coma written as a beam tilt, as RELION does: k^2 kx = (Z(3,1) + 2 Z(1,1)) / 3."""
    if coma_A3 < 1.0:  # a corrected Cs: no tilt of any size would make this coma
        return odd, tilt_mrad
    per_mrad = -2e-3 * np.pi * coma_A3 / 3
    tilt, rest = tilt_mrad.copy(), odd.copy()
    for axis, (first, third) in enumerate(((1, 4), (0, 3))):
        tilt[axis] += odd[third] / per_mrad
        rest[first] -= 2 * odd[third]
        rest[third] = 0.0
    return rest, tilt
