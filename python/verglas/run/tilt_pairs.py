"""``verglas tilt-pairs``: two sets of micrographs with picks, and a map of each class of particles."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError, VerglasError, VerglasWarning
from verglas.io import (
    check_folder,
    find_micrographs,
    read_picks,
    read_tilt_parameters,
    write_csv,
    write_json,
)
from verglas.io.atomic import write_text
from verglas.io.coordinates import MICROGRAPH, match_names
from verglas.report.html import render
from verglas.report.tilt_page import ClassOfPairs, FoundPairs, tilt_page
from verglas.report.tilt_pairs import write_polar_plot
from verglas.run.extract import ExtractOptions, extract_files
from verglas.run.extract_inputs import Microscope
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.reasons import commonest_kind
from verglas.run.tilt_classes import PAIR, class_maps
from verglas.tilting import (
    ConicalSettings,
    TiltGeometry,
    TiltPairPlot,
    TiltPairs,
    tilt_pairs,
)
from verglas.tilting.validation import validate_with_pairs
from verglas.types import Particles, Picks
from verglas.types.listener import Listener


@dataclass(frozen=True)
class TiltPairsJob:
    """What ``verglas tilt-pairs`` is asked for.

    Attributes
    ----------
    untilted, tilted : sequence of str
        Patterns, folders or files of micrographs, or STAR files that name them.
    untilted_picks, tilted_picks : sequence of Path
        Files of coordinates.
    out : Path
        Folder to write.
    box : int
        Side of the particles' box, pixels of the micrograph.
    pairs : Path, optional
        Which micrographs belong together (:func:`verglas.io.read_tilt_parameters`); by default both lists, sorted by
        name, go together one by one.
    pixel_size_A : float, optional
        Of the micrographs; their headers' by default.
    new_pixel_size_A : float, optional
        Scale particles down to this.
    classes : int
        Classes of untilted particles.
    least : int
        Classes of fewer pairs give no map.
    axis_deg, negative_tilt : float, bool
        See :func:`verglas.tilt_pairs`.
    invert : bool
        Micrographs have dark particles.
    untilted_ctf, tilted_ctf : Path, optional
        CTFs of the micrographs (:func:`verglas.io.read_ctf_table`), where their STAR files do not hold them.
    microscope : Microscope
        Voltage, spherical aberration and amplitude contrast, where no file says them.
    merge : bool
        Also one map of all classes that agree (:func:`verglas.tilting.merge_classes`).
    defocus_gradient : {"auto", "positive", "negative", "none"}
        Whether underfocus grows or falls with the height of a tilted particle, where the CTFs do not say it: which the
        half sets say, or as told; "none" gives each micrograph one defocus.
    map : Path, optional
        A map to test by the pairs instead of making maps; needs CTFs.
    settings : ConicalSettings
    seed : int
    threads : int, optional
    """

    untilted: Sequence[str]
    tilted: Sequence[str]
    untilted_picks: Sequence[Path]
    tilted_picks: Sequence[Path]
    out: Path
    box: int
    pairs: Path | None = None
    pixel_size_A: float | None = None
    new_pixel_size_A: float | None = None
    classes: int = 1
    least: int = 10
    axis_deg: float = 0.0
    negative_tilt: bool = False
    invert: bool = True
    untilted_ctf: Path | None = None
    tilted_ctf: Path | None = None
    microscope: Microscope = field(default_factory=Microscope)
    map: Path | None = None
    merge: bool = True
    defocus_gradient: Literal["auto", "positive", "negative", "none"] = "auto"
    settings: ConicalSettings = field(default_factory=ConicalSettings)
    seed: int = 0
    threads: int | None = None


@keeps_inputs("tilt-pairs")
def tilt_pairs_files(job: TiltPairsJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Match, extract, classify, reconstruct; write maps, particles, pairs.csv, tilt_pairs.json and report.html.

    A pair of micrographs that cannot be used (no picks, picks that do not match) is set aside with its reason and the
    others go on.

    Parameters
    ----------
    job : TiltPairsJob
    listener : Listener, "screen" or None
        Who is told how it goes.

    Returns
    -------
    dict
        What tilt_pairs.json says.

    Raises
    ------
    InputError
        No pair of micrographs can be used, no class has enough pairs, or settings that exclude each other.
    """
    start = time.perf_counter()
    if job.settings.mirrors and job.classes > 1:
        raise InputError(
            "tilt-pairs: --mirrors and --classes: classification puts the two faces in two classes; give one"
        )
    check_folder(job.out)
    with shown_to(listener) as heard:
        pairs, set_aside = _match_all(job, heard)
        job.out.mkdir(parents=True, exist_ok=True)
        untilted, tilted, geometries = _extract_pairs(job, pairs, heard)
        heard.say(f"{len(untilted)} pairs of particles from {len(pairs)} pairs of micrographs")
        if job.map is not None:
            tested, classes = _validate(job, untilted, tilted, geometries, heard), list[ClassOfPairs]()
            summary = _validation_record(job, tested)
        else:
            classes, summary = class_maps(job, untilted, tilted, geometries, heard)
            tested = None
    everything = {
        "micrograph_pairs": [_pair_record(pair) for pair in pairs],
        "set_aside": [{"micrograph": name, "reason": reason} for name, reason in set_aside],
        "particle_pairs": len(untilted),
        **summary,
        "seconds": round(time.perf_counter() - start, 1),
    }
    _write_pairs(job.out / "pairs.csv", pairs)
    write_json(job.out / "tilt_pairs.json", everything)
    page = tilt_page(FoundPairs(pairs, set_aside), classes, everything, tested)
    write_text(job.out / "report.html", render(page))
    return everything


# ---- pairs of micrographs


def _match_all(job: TiltPairsJob, heard: Listener) -> tuple[list[TiltPairs], list[tuple[str, str]]]:
    untilted, tilted = (
        _list_coordinates(job.untilted, job.untilted_picks),
        _list_coordinates(job.tilted, job.tilted_picks),
    )
    together, set_aside = _together(job, untilted, tilted)
    pairs: list[TiltPairs] = []
    used: set[tuple[str, int]] = set()
    for number, (one, other) in enumerate(together, 1):
        name = untilted.names[one]
        first, second = untilted.picks.get(one), tilted.picks.get(other)
        try:
            if first is None or second is None:
                side = "the untilted" if first is None else "the tilted"
                raise InputError(f"{side} micrograph has no picks")
            pair = tilt_pairs(
                name,
                tilted.names[other],
                first,
                second,
                axis_deg=job.axis_deg,
                negative_tilt=job.negative_tilt,
                seed=job.seed,
            )
            # Twice in a map its particles would count for more than they say.
            if {("untilted", one), ("tilted", other)} & used:
                raise InputError(f"{job.pairs} names one of the two images twice; the pair that matched first is used")
            used |= {("untilted", one), ("tilted", other)}
            pairs.append(pair)
        except VerglasError as error:
            set_aside.append((name, str(error)))
        heard.progress("pairs of micrographs", number, len(together))
    if not pairs:
        said = f"; the first: {set_aside[0][0]}: {set_aside[0][1]}" if set_aside else ""
        raise InputError(f"tilt-pairs: none of {len(together)} pairs of micrographs can be used{said}")
    if set_aside:
        warnings.warn(
            f"tilt-pairs: {len(set_aside)} micrographs were set aside; the first: {set_aside[0][0]}: {set_aside[0][1]}",
            VerglasWarning,
            stacklevel=3,
        )
    return pairs, set_aside


@dataclass(frozen=True)
class _Listed:
    names: list[str]
    picks: dict[int, Picks]


def _list_coordinates(micrographs: Sequence[str], files: Sequence[Path]) -> _Listed:
    table = find_micrographs(list(micrographs))
    names = [str(name) for name in table[MICROGRAPH]]
    sets = [(name, p) for file in files for name, p in read_picks(file).items()]
    rows = match_names([name for name, _ in sets], names)
    if len(names) == 1 and len(sets) == 1:
        rows[0] = 0  # one micrograph and one set of picks, whatever they are called
    picks: dict[int, Picks] = {}
    for row, (_, p) in zip(rows.tolist(), sets, strict=True):
        if row in picks:
            raise InputError(f"tilt-pairs: two sets of picks for micrograph {names[row]}; give one")
        if row >= 0 and len(p):
            picks[row] = p
    lost = [name for (name, _), row in zip(sets, rows, strict=True) if row < 0]
    if lost:
        warnings.warn(
            f"tilt-pairs: picks of {len(lost)} micrographs that are not given were left out; the first: {lost[0]}",
            VerglasWarning,
            stacklevel=4,
        )
    return _Listed(names, picks)


def _together(
    job: TiltPairsJob, untilted: _Listed, tilted: _Listed
) -> tuple[list[tuple[int, int]], list[tuple[str, str]]]:
    if job.pairs is None:
        if len(untilted.names) != len(tilted.names):
            raise InputError(
                f"tilt-pairs: {len(untilted.names)} untilted but {len(tilted.names)} tilted micrographs; say which "
                "belong together with --pairs"
            )
        return [(i, i) for i in range(len(untilted.names))], []
    table = read_tilt_parameters(job.pairs)
    if (table["untilted"] == "").any() or (table["tilted"] == "").any():
        raise InputError(f"tilt-pairs: {job.pairs} does not name both micrographs of each pair")
    rows = [match_names(table[side].tolist(), one.names) for side, one in (("untilted", untilted), ("tilted", tilted))]
    _say_other_sign(job, table)
    known = (rows[0] >= 0) & (rows[1] >= 0)
    lost = [
        (str(table["untilted"][i]), f"{job.pairs} names it, but not both images are given")
        for i in np.flatnonzero(~known)
    ]
    return [(int(a), int(b)) for a, b in zip(rows[0][known], rows[1][known], strict=True)], lost


def _say_other_sign(job: TiltPairsJob, table: pd.DataFrame) -> None:
    """The tilt of a file is not used, but its sign would mirror the maps."""
    known = table["tilt_deg"][table["tilt_deg"].notna()]
    other = int((known < 0).sum()) if not job.negative_tilt else 0
    if other:
        warnings.warn(
            f"tilt-pairs: {job.pairs} has negative tilts for {other} of {len(known)} pairs, but all are taken for "
            "positive ones; if the file means the same sign, give --negative-tilt, or maps are mirrored",
            VerglasWarning,
            stacklevel=5,
        )


def _pair_record(pair: TiltPairs) -> dict[str, Any]:
    g = pair.geometry
    numbers = {
        "tilt_deg": g.tilt_deg,
        "tilt_error_deg": g.tilt_error_deg,
        "axis_untilted_deg": g.axis_untilted_deg,
        "axis_untilted_error_deg": g.axis_untilted_error_deg,
        "axis_tilted_deg": g.axis_tilted_deg,
        "axis_tilted_error_deg": g.axis_tilted_error_deg,
        "residual_px": g.residual_px,
        "magnification": pair.magnification,
    }
    return {
        "untilted": pair.untilted,
        "tilted": pair.tilted,
        "pairs": len(pair),
        "untilted_picks": pair.n_untilted,
        "tilted_picks": pair.n_tilted,
        **{name: round(value, 4) if np.isfinite(value) else None for name, value in numbers.items()},
    }


def _write_pairs(path: Path, pairs: Sequence[TiltPairs]) -> None:
    tables = [p.pairs.assign(untilted_micrograph=p.untilted, tilted_micrograph=p.tilted) for p in pairs]
    table = pd.concat(tables, ignore_index=True)
    write_csv(path, {str(name): table[name].to_numpy() for name in table})


# ---- particles


def _extract_pairs(
    job: TiltPairsJob, pairs: Sequence[TiltPairs], heard: Listener
) -> tuple[Particles, Particles, list[TiltGeometry]]:
    """Images of both sides in one order, with the geometry of each."""
    ends = np.cumsum([0, *(len(p) for p in pairs)])
    sets = []
    losses: list[tuple[str, str]] = []
    sides = (("untilted", job.untilted, job.untilted_ctf), ("tilted", job.tilted, job.tilted_ctf))
    for side, sources, ctf in sides:
        names = [getattr(p, side) for p in pairs]
        picks = {
            name: Picks(
                p.pairs[[f"x_{side}_px", f"y_{side}_px"]].to_numpy(), name, {PAIR: np.arange(ends[i], ends[i + 1])}
            )
            for i, (p, name) in enumerate(zip(pairs, names, strict=True))
        }
        options = ExtractOptions(
            job.pixel_size_A,
            job.microscope.voltage_kV,
            job.microscope.cs_mm,
            job.microscope.amplitude_contrast,
            new_pixel_size_A=job.new_pixel_size_A,
            invert=job.invert,
        )
        done = extract_files(
            list(sources), picks, job.box, options, job.out / side, ctf=ctf, threads=job.threads, listener=heard
        )
        _check_ctfs(job, side, done.particles)
        sets.append(done.particles)
        losses += [(name, reason) for name, *_, reason in done.excluded]
    ids = [p.table[PAIR].to_numpy(np.int64) for p in sets]
    both, mine, theirs = np.intersect1d(ids[0], ids[1], return_indices=True)
    if len(both) < ends[-1]:
        heard.say(
            f"{ends[-1] - len(both)} pairs set aside, of which one of the two images could not be cut out; most often: "
            f"{commonest_kind(losses)} (all in untilted/excluded.csv and tilted/excluded.csv)"
        )
    field_of = np.searchsorted(ends, both, side="right") - 1
    return sets[0][mine], sets[1][theirs], [pairs[int(i)].geometry for i in field_of]


def _check_ctfs(job: TiltPairsJob, side: str, particles: Particles) -> None:
    """Say at once, and in the command's words, where CTFs lack or are left out."""
    needed = job.map is not None or (job.settings.ctf and (side == "tilted" or job.classes > 1))
    if needed:
        try:
            _ = particles.optics
        except InputError as error:
            raise InputError(
                f"tilt-pairs: CTFs of the {side} micrographs are needed: {error}; give --{side}-ctf, and --voltage, "
                "--cs and --amplitude-contrast where it does not hold them"
            ) from None
    elif side == "tilted" and not job.settings.ctf and "rlnDefocusU" in particles.table:
        warnings.warn(
            "tilt-pairs: the tilted micrographs have CTFs, but maps are made without; give --ctf",
            VerglasWarning,
            stacklevel=4,
        )


def _validate(
    job: TiltPairsJob, untilted: Particles, tilted: Particles, geometries: Sequence[TiltGeometry], heard: Listener
) -> TiltPairPlot:
    assert job.map is not None
    plot = validate_with_pairs(
        untilted, tilted, str(job.map), geometries, job.settings.symmetry, threads=job.threads, listener=heard
    )
    write_polar_plot(plot, job.out / "tilt_pair_plot.svg")
    return plot


def _validation_record(job: TiltPairsJob, plot: TiltPairPlot) -> dict[str, Any]:
    return {
        "map": str(job.map),
        "validation": {
            "pairs": len(plot.tilt_deg),
            "within_share": round(plot.within_share, 4),
            "mirrored_share": round(plot.mirrored_share, 4),
            "chance_share": round(plot.chance_share, 4),
            "verdict": plot.verdict,
        },
    }
