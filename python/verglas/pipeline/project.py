"""A project folder: its micrographs, the results of each, and one process at a time that works in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verglas._devices import device_names
from verglas.cluster import Workers
from verglas.errors import InputError
from verglas.io import find_micrographs, find_movies, open_movie, read_json, write_json
from verglas.io.micrographs import MICROGRAPH, PATH, PIXEL, SHARED
from verglas.pipeline.settings import ProcessSettings
from verglas.pipeline.stage import StageRecord, digest
from verglas.run.assumed import assumed_sentence
from verglas.types.listener import Listener, Silence

# Folders are named by their stage. Projects that an earlier version began have these, and keep them.
_FORMER_FOLDERS = {
    "ctf": "01_ctf",
    "pick": "02_pick",
    "extract": "03_extract",
    "centre": "04_centre",
    "class2d": "05_class2d",
    "abinitio": "06_abinitio",
    "refine": "07_refine",
    "postprocess": "08_postprocess",
}
_KNOWN = (PIXEL, *SHARED)
_LOOKED_INTO = 10  # files of a set, to see whether it is one of movies


@dataclass(frozen=True)
class Shot:
    """One micrograph file.

    Attributes
    ----------
    key : str
        Name of its files in the project: the file's stem and a mark of its whole path.
    name : str
        What STAR files call it.
    path : Path
    fingerprint : str
        Of size and time of change.
    known : mapping of label -> value
        What a STAR file says of it: pixel size, voltage, Cs, amplitude contrast.
    """

    key: str
    name: str
    path: Path
    fingerprint: str
    known: Mapping[str, float] = field(default_factory=dict)


def shot_of(path: str | Path, name: str | None = None, known: Mapping[str, float] | None = None) -> Shot:
    """The shot of a file, which may be missing (its stage will say so)."""
    whole = os.path.abspath(path)
    # Of the path: two micrographs of one name in different folders would share their files.
    mark = hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()[:6]
    try:
        state = os.stat(whole)
        print_ = digest([state.st_size, state.st_mtime_ns])
    except OSError:
        print_ = "missing"
    return Shot(f"{Path(whole).stem}-{mark}", name or str(path), Path(whole), print_, known or {})


def find_shots(process_settings: ProcessSettings) -> list[Shot]:
    """All micrographs that a project is asked to work on, in order."""
    if process_settings.movies:
        return [shot_of(path) for path in find_movies(list(process_settings.micrographs))]
    table = find_micrographs(list(process_settings.micrographs))
    labels = [label for label in _KNOWN if label in table]
    shots = []
    for row in table.to_dict("records"):
        values = {label: float(row[label]) for label in labels if np.isfinite(row[label])}
        shots.append(shot_of(row[PATH], str(row[MICROGRAPH]), values))
    return shots


def hold_movies(process_settings: ProcessSettings) -> bool:
    """Whether most of the files that a project is asked to work on, of up to ten looked into, hold several frames."""
    try:
        every = find_micrographs(list(process_settings.micrographs))[PATH].tolist()
    except InputError:  # EER files, or a STAR file of movies
        try:
            every = [str(path) for path in find_movies(list(process_settings.micrographs))]
        except InputError:
            return False  # nothing at all, which is said where micrographs are looked for
    several = []
    for path in every[:: max(1, len(every) // _LOOKED_INTO)][:_LOOKED_INTO]:
        try:
            several.append(len(open_movie(path, pixel_size_A=1.0, dose_per_frame_e_A2=1.0)) > 1)
        except (InputError, OSError):  # one frame, or a file that its stage will name
            several.append(False)
    return sum(several) > len(several) / 2


class Results:
    """Results of single micrographs of one stage: a JSON file each, replaced as a whole; kept in memory once read.

    Parameters
    ----------
    folder : Path
        Of the stage; the files lie in ``records/`` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "records"
        self.records_by_key: dict[str, dict[str, Any]] | None = None

    def _read_all(self) -> dict[str, dict[str, Any]]:
        if self.records_by_key is None:
            self.records_by_key = {}
            for path in self.folder.glob("[!.]*.json") if self.folder.is_dir() else ():
                record = _read_whole_record(path)
                if record is not None:
                    self.records_by_key[path.stem] = record
        return self.records_by_key

    def get(self, key: str, required_digest: str | None = None) -> dict[str, Any] | None:
        """The result of a micrograph, if it is there (and of the digest wanted)."""
        record = self._read_all().get(key)
        return record if record is None or required_digest is None or record["digest"] == required_digest else None

    def read(self, key: str) -> dict[str, Any] | None:
        """The result of one micrograph, without reading all others."""
        if self.records_by_key is None:
            self.records_by_key = {}
            path = self.folder / f"{key}.json"
            record = _read_whole_record(path) if path.is_file() else None
            if record is not None:
                self.records_by_key[key] = record
        return self.records_by_key.get(key)

    def remember(self, key: str, record: Mapping[str, Any]) -> None:
        """Have a result in memory that another process or thread writes."""
        if self.records_by_key is None:
            self.records_by_key = {}
        self.records_by_key[key] = json.loads(json.dumps(record))

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{key}.json", record)
        # Through JSON, as it will be read: tuples become lists now, not only after a restart.
        self._read_all()[key] = json.loads(json.dumps(record))


def _read_whole_record(path: Path) -> dict[str, Any] | None:
    """A record; None for one that cannot be read, whose micrograph is then done again."""
    try:
        record = read_json(path)
    except InputError:
        return None
    return record if "digest" in record else None


class Project:
    """A project folder in use.

    Parameters
    ----------
    root : Path
    asked : ProcessSettings
    shots : list of Shot
        The micrographs to work on.
    listener : Listener, optional
        Who is told how it goes.
    threads : int, optional
        Micrographs at a time, and threads of later stages.
    memory_GB : float, optional
        Not to be passed by later stages.
    device : str
        Where classes and maps are made; stages that use one GPU take the first.
    workers : Workers, optional
        Of a cluster, that micrographs and the passes of refinements go to.
    """

    def __init__(
        self,
        root: Path,
        process_settings: ProcessSettings,
        shots: list[Shot],
        listener: Listener | None = None,
        *,
        threads: int | None = None,
        memory_GB: float | None = None,
        device: str = "cpu",
        workers: Workers | None = None,
    ) -> None:
        self.root, self.settings, self.shots = root, process_settings, shots
        self.listener: Listener = listener or Silence()
        self.threads, self.memory_GB, self.workers = threads, memory_GB, workers
        self.device = ",".join(device_names(device))
        self.records: dict[str, StageRecord] = {}
        self._page_is_due = False
        self._results: dict[str, Results] = {}
        # One kind of folder throughout: names of files in records, and so what is done again, depend on it.
        self._numbered = (root / _FORMER_FOLDERS["ctf"]).is_dir()

    @property
    def assumptions(self) -> str:
        """What is taken for granted of the microscope; empty if all of it has been said."""
        sources = [
            name for name in ("voltage_kV", "cs_mm", "amplitude_contrast") if getattr(self.settings, name) is not None
        ]
        sources += [name for name in self.settings.of_stage("ctf") if name not in sources]
        return assumed_sentence(sources, [self.metadata_of(shot) for shot in self.shots])

    def _motion_of(self, shot: Shot) -> Mapping[str, Any] | None:
        """What became of the movie of a shot; None where there is none, or not yet."""
        return self.results("motion").get(shot.key) if self.settings.movies else None

    def micrograph_of(self, shot: Shot) -> Path:
        """The micrograph that stages work on: the file itself, or what motion correction has made of it."""
        motion = self._motion_of(shot)
        return self.root / motion["result"]["micrograph"] if motion and not motion["reason"] else shot.path

    def mark_of(self, shot: Shot) -> str:
        """Fingerprint of the micrograph that stages work on."""
        motion = self._motion_of(shot)
        return str(motion["digest"]) if motion else shot.fingerprint

    def metadata_of(self, shot: Shot) -> Mapping[str, float]:
        """What a STAR file, or the metadata of a movie, says of a micrograph, by RELION's labels."""
        motion = self._motion_of(shot)
        values = {} if motion is None else {label: motion["result"].get(label) for label in _KNOWN}
        return {**shot.known, **{label: float(value) for label, value in values.items() if value is not None}}

    @property
    def pixel_size_A(self) -> float | None:
        """What was given for the micrographs; of movies it is that of their frames, and micrographs say theirs."""
        return None if self.settings.movies else self.settings.pixel_size_A

    def folder(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.root / self.folder_name(stage)

    def folder_name(self, stage: str) -> str:
        """Of a stage: its name, or the number and name that a project of an earlier version has."""
        return _FORMER_FOLDERS.get(stage, stage) if self._numbered else stage

    def results(self, stage: str) -> Results:
        """Results of single micrographs of a stage."""
        if stage not in self._results:
            self._results[stage] = Results(self.folder(stage))
        return self._results[stage]

    def stage_done(self, record: StageRecord) -> None:
        """Remember, and write the page again; for a stage that stands the page waits for what follows it."""
        self.records[record.name] = record
        self._page_is_due = True
        if not record.done_before:
            self.update_page()

    def update_page(self) -> None:
        """Write the page if a stage has been remembered since it was written."""
        from verglas.pipeline.page import write_page

        if self._page_is_due:
            write_page(self)
            self._page_is_due = False

    def show_stop(self, record: StageRecord) -> None:
        """The page of a project that stops here."""
        self.stage_done(record)
        self.update_page()
