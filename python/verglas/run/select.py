"""``verglas select`` on files: the particles of classes chosen by number, by a table, by rules, or by the ranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.classification import ClassSelection, SelectionRules, rank_classes, select_classes, select_ranked
from verglas.classification.cores import CORE, STABLE_CORE
from verglas.classification.ranking import particle_scores, ranker_weights
from verglas.errors import InputError
from verglas.heterogeneity.regions import Region, in_regions, regions_of
from verglas.io import check_writable, read_json, read_particles, read_stack, read_star, write_particles
from verglas.run.class2d import GENERAL, NO_RESOLUTION_A
from verglas.types import Particles
from verglas.types.arrays import Float32Array

Ranker = Literal["rules", "learned"]


@dataclass(frozen=True)
class SelectJob:
    """What ``verglas select`` is asked for.

    Attributes
    ----------
    particles : Path
        STAR or CS file with class numbers.
    out : Path
        File to write.
    classes : tuple of int
        Class numbers; empty: those of ``table``, or all that fulfil the rules.
    table : Path, optional
        STAR file with rlnClassNumber: ``classes.star``, by default the one beside the particles, or a selection that
        the page has downloaded.
    min_resolution_A, min_size : float, int, optional
        Rules: at least this resolution (at most this many angstrom) and this many particles.
    auto : bool
        Choose the classes that look like particles.
    regions : Path, optional
        File of regions drawn about values of the particles (``particles_kept.json`` of ``verglas serve``): of the
        classes chosen, or of all particles, those inside.
    core : bool
        Of these, those in the core of their class, at all levels where there are levels (``class2d --core``), or in
        one class in all repeats (``class3d --repeats``).
    ranker : {"rules", "learned"}
        What ``auto`` chooses by (:func:`select_automatically`). "learned" also scores the particles, however their
        classes are chosen.
    """

    particles: Path
    out: Path
    classes: tuple[int, ...] = ()
    table: Path | None = None
    min_resolution_A: float | None = None
    min_size: int | None = None
    auto: bool = False
    regions: Path | None = None
    core: bool = False
    ranker: Ranker = "rules"

    @property
    def by_class(self) -> bool:
        """Whether classes choose."""
        rules = self.min_resolution_A is not None or self.min_size is not None
        return bool(self.classes) or self.table is not None or self.auto or rules or not (self.regions or self.core)


def select_automatically(
    particles: Path,
    table: Path | None = None,
    *,
    rules: SelectionRules | None = None,
    ranker: Ranker = "rules",
) -> tuple[Particles, ClassSelection]:
    """Particles in the classes that look like particles, from the files of ``verglas class2d``.

    Parameters
    ----------
    particles : Path
        particles.star of class2d.
    table : Path, optional
        classes.star; by default the one beside it.
    rules : SelectionRules, optional
        Limits.
    ranker : {"rules", "learned"}
        By limits of size, centre, signal and resolution, or by the trained ranker
        (:func:`verglas.classification.rank_classes`), which gives the particles two columns: verglasClassScore, the
        probability of their class, and verglasParticleScore to sort them by.

    Returns
    -------
    (Particles, ClassSelection)
        Empty where the selection says stop.
    """
    everything = read_particles(particles)
    classified = _Classification.read(everything, particles, table)
    if ranker == "learned":
        everything, chance = classified.score(everything)
        selection = classified.select_ranked(chance, rules)
    else:
        selection = classified.select_by_rules(rules)
    return everything[np.isin(classified.own, selection.classes)], selection


@dataclass(frozen=True, eq=False)
class _Classification:
    """The classes.star of a classification, and the class of every particle."""

    own: npt.NDArray[np.int64]
    path: Path
    classes: pd.DataFrame
    signal: bool
    empty_class: int | None

    @classmethod
    def read(cls, particles: Particles, where: Path, table: Path | None) -> _Classification:
        """The table named, or the one beside the particles' file ``where``."""
        path = table or where.with_name("classes.star")
        classes, own = class_table(path), _own_classes(particles, where)
        # Counted in the file at hand, which may have lost particles since the table was written.
        count = np.bincount(np.maximum(own, 0), minlength=int(classes["class"].max()) + 1)
        classes["particles"] = count[classes["class"]]
        general = read_star(path).get(GENERAL)
        general = general if isinstance(general, dict) else {}
        signal = bool(int(general.get("verglasSignalFound", 1)))
        return cls(own, path, classes, signal, int(general.get("verglasEmptyClass", 0)) or None)

    def score(self, particles: Particles) -> tuple[Particles, pd.Series[float]]:
        """The particles with verglasClassScore and verglasParticleScore, and the chance of every class.

        Raises
        ------
        InputError
            A class that the table lacks, averages or a column of the particles that are missing.
        """
        unknown = np.setdiff1d(self.own, self.classes["class"])
        if len(unknown):
            raise InputError(f"select: particles are in class {unknown[0]}, which {self.path} does not have")
        averages = _averages_of(self.path)
        chance = rank_classes(averages, self.classes, particles.table, empty_class=self.empty_class)
        scored = particles.with_columns(
            verglasClassScore=chance.reindex(self.own).to_numpy(float).round(4),
            verglasParticleScore=particle_scores(particles.table, chance).round(4),
        )
        return scored, chance

    def select_by_rules(self, rules: SelectionRules | None = None) -> ClassSelection:
        """Classes within the limits."""
        return select_classes(self.classes, signal=self.signal, empty_class=self.empty_class, rules=rules)

    def select_ranked(self, chance: pd.Series[float], rules: SelectionRules | None = None) -> ClassSelection:
        """Classes that the trained ranker gives a good chance."""
        least, empty_class = ranker_weights().threshold, self.empty_class
        return select_ranked(self.classes, chance, least, signal=self.signal, empty_class=empty_class, rules=rules)


def _averages_of(path: Path) -> Float32Array:
    """The averages that classes.star names, image i of class i + 1."""
    table = _star_table(path)
    if "rlnReferenceImage" not in table:
        raise InputError(f"select: {path} names no averages (rlnReferenceImage), which --ranker learned looks at")
    stacks = {str(name).rpartition("@")[2] for name in table["rlnReferenceImage"]}
    if len(stacks) != 1:
        raise InputError(f"select: {path} names averages in {len(stacks)} stacks; expected one, as class2d writes it")
    stack = path.parent / stacks.pop()
    if not stack.is_file():
        raise InputError(f"select: {path} names averages in {stack}, and there is no such file")
    return read_stack(stack)


def class_table(path: Path) -> pd.DataFrame:
    """classes.star with the columns of :attr:`verglas.classification.Classes2D.table` that it has."""
    table = _star_table(path)
    names = {
        "rlnClassNumber": "class",
        "rlnEstimatedResolution": "resolution_A",
        "verglasSignal": "signal",
        "verglasOffset": "offset",
        "verglasParticles": "particles",
    }
    columns = pd.DataFrame({ours: table[label].to_numpy(float) for label, ours in names.items() if label in table})
    if "resolution_A" not in columns:
        raise InputError(f"select: {path} has no column rlnEstimatedResolution; give --table classes.star")
    columns["resolution_A"] = columns["resolution_A"].where(columns["resolution_A"] < NO_RESOLUTION_A, np.inf)
    return columns.astype({"class": np.int64})


def _own_classes(particles: Particles, path: Path) -> npt.NDArray[np.int64]:
    if "rlnClassNumber" not in particles.table:
        raise InputError(f"{path}: no column rlnClassNumber, so there are no classes to select from")
    return particles.table["rlnClassNumber"].to_numpy(np.int64)


def select_files(job: SelectJob) -> tuple[Particles, list[int], int]:
    """Read, choose, write.

    Returns
    -------
    (Particles, list of int, int)
        The particles chosen, their classes, and how many there were.

    Raises
    ------
    InputError
        No class numbers, no rule can be applied, or nothing is left.
    """
    check_writable(job.out)
    particles = read_particles(job.particles)
    classified = chance = None
    if (job.auto and not job.classes) or job.ranker == "learned":
        classified = _Classification.read(particles, job.particles, job.table)
    if classified is not None and job.ranker == "learned":
        particles, chance = classified.score(particles)
    subset, selection = particles, []
    if job.by_class:
        own = _own_classes(particles, job.particles)
        selection = _choose_classes(job, own, classified, chance)
        subset = particles[np.isin(own, selection)]
        if not len(subset):
            said = selection or "that fulfil the rules"
            raise InputError(f"select: no particle of {job.particles} is in classes {said}")
    if job.regions is not None:
        subset = subset[in_regions(subset.table, read_regions(job.regions))]
        if not len(subset):
            raise InputError(f"select: no particle of {job.particles} lies in the regions of {job.regions}")
    if job.core:
        subset = _in_cores(subset, job.particles)
    write_particles(job.out, subset)
    return subset, selection, len(particles)


def _in_cores(particles: Particles, path: Path) -> Particles:
    if not {CORE, STABLE_CORE} & set(particles.table):
        raise InputError(
            f"{path}: no column {CORE} or {STABLE_CORE}; verglas class2d --core or class3d --repeats writes it"
        )
    inside = np.ones(len(particles), bool)
    for name in (CORE, STABLE_CORE):
        if name in particles.table:
            inside &= particles.table[name].to_numpy(np.int64) > 0
    if not inside.any():
        raise InputError(f"select: no particle chosen of {path} is in the core of its class")
    return particles[inside]


def read_regions(path: Path) -> list[Region]:
    """The steps of a file of regions.

    Raises
    ------
    InputError
        No such file, or one of another kind.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one of regions, as the page of particles writes it")
    record = read_json(path)
    return regions_of(record.get("steps") if isinstance(record, dict) else None, str(path))


def _choose_classes(
    job: SelectJob,
    own: npt.NDArray[np.int64],
    classified: _Classification | None,
    chance: pd.Series[float] | None,
) -> list[int]:
    present = set(np.unique(own).tolist())
    rules = job.min_resolution_A is not None or job.min_size is not None
    table = _class_table(job) if (job.table is not None or rules) else None
    if job.classes:
        unknown = sorted(set(job.classes) - present)
        if unknown:
            raise InputError(f"select: no particle of {job.particles} is in class {unknown[0]}")
        numbers = set(job.classes)
    elif job.auto:
        assert classified is not None
        selection = classified.select_by_rules() if chance is None else classified.select_ranked(chance)
        if selection.state == "stop":
            raise InputError(f"select: {selection.sentence}")
        numbers = set(selection.classes)
    elif table is not None:
        numbers = set(table["rlnClassNumber"].to_numpy(int).tolist())
    else:
        raise InputError(
            "select: expected classes, a table or a rule (--auto, --classes, --table, --min-resolution, --min-size)"
        )
    if job.min_resolution_A is not None:
        assert table is not None
        if "rlnEstimatedResolution" not in table:
            raise InputError(f"select: {job.table} has no column rlnEstimatedResolution; give --table classes.star")
        fine = table["rlnEstimatedResolution"].to_numpy(float) <= job.min_resolution_A
        numbers &= set(table["rlnClassNumber"].to_numpy(int)[fine].tolist())
    if job.min_size is not None:
        numbers &= {c for c in present if int((own == c).sum()) >= job.min_size}
    return sorted(numbers & present)


def _class_table(job: SelectJob) -> pd.DataFrame:
    return _star_table(job.table or job.particles.with_name("classes.star"))


def _star_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"select: no table of classes at {path}; name it with --table")
    for table in read_star(path).values():
        if isinstance(table, pd.DataFrame) and "rlnClassNumber" in table:
            return table
        if not isinstance(table, pd.DataFrame) and "rlnClassNumber" in table:
            return pd.DataFrame({k: [v] for k, v in table.items()})
    raise InputError(f"select: {path} has no table with the column rlnClassNumber")
