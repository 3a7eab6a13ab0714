"""Maps of a job, and models beside it, packed for the viewer and kept until their files change."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from verglas.errors import VerglasError
from verglas.io import read_atoms, read_json, read_map
from verglas.report.model import pack_model
from verglas.report.volume import pack_volume
from verglas.window.job import Job
from verglas.window.kept import Kept

_STEMS = ("map_sharpened", "map", "half1", "half2", "mask", "local_resolution", "truth", "start", "mean")
_RELION = {
    "postprocess": "postprocess.mrc",
    "postprocess_masked": "postprocess_masked.mrc",
    "map": "run_class001.mrc",
    "half1": "run_half1_class001_unfil.mrc",
    "half2": "run_half2_class001_unfil.mrc",
    "mask": "mask.mrc",
    "local_resolution": "relion_locres.mrc",
    "local_resolution_filtered": "relion_locres_filtered.mrc",
}
# Of the iteration that ended last: names begin with those of job and iteration, J4_005_.
_CRYOSPARC = {
    "map_sharpened": "*_volume_map_sharp.mrc",
    "map": "*_volume_map.mrc",
    "half1": "*_volume_map_half_A.mrc",
    "half2": "*_volume_map_half_B.mrc",
    "mask": "*_volume_mask_fsc.mrc",
    "local_resolution": "*_map_locres.mrc",
}
_CRYOSPARC_CLASSES = re.compile(r"_class_(\d+)_(?:final|\d+)_volume\.mrc$")
_RELION_CLASSES = re.compile(r"_it(\d+)_class(\d+)\.mrc$")
_STATES = "component*_state*.mrc"  # of variability
_MODELS = (".cif", ".pdb", ".ent", ".cif.gz", ".pdb.gz", ".ent.gz")
_KEPT = 24
_MOST_CLASSES = 50
_MOST_MODELS = 20
MOST_BOX = 128


class Volumes:
    """Packed maps and models, the last ones used.

    Parameters
    ----------
    roots : sequence of Path
        Folders that are served: a model that lies in one of them, or in the folder about a job, is offered to the job.
    """

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        self.roots = tuple(roots)
        self._packed: Kept[bytes] = Kept(_KEPT)

    def paths(self, job: Job) -> dict[str, Path]:
        """Files of maps by the names that pages use."""
        if job.package == "cryoSPARC":
            return _of_cryosparc(job.folder)
        names = dict(_RELION) if job.package == "RELION" else {stem: f"{stem}.mrc" for stem in _STEMS}
        if job.package == "verglas":
            for k in range(1, _MOST_CLASSES + 1):
                names |= {
                    f"{stem}_class{k}": f"{stem}_class{k}.mrc" for stem in ("map_sharpened", "map", "half1", "half2")
                }
            names |= {path.stem: path.name for path in sorted(job.folder.glob(_STATES))[:_MOST_CLASSES]}
        paths = {name: path for name, file in names.items() if (path := job.folder / file).is_file()}
        if job.package == "RELION" and "map" not in paths:
            paths |= _relion_classes(job.folder)
        if job.command == "map-model" and (judged := _judged_map(job)) is not None:
            paths = {"map": judged} | paths
        return paths

    def models(self, job: Job) -> dict[str, Path]:
        """Models in the folder of a job, in that about it, and in the folders that are served, by name."""
        about = [job.folder.parent] if any(job.folder.parent.is_relative_to(root) for root in self.roots) else []
        models: dict[str, Path] = {}
        for folder in (job.folder, *about, *self.roots):
            for path in _model_files(folder):
                models.setdefault(path.name, path)
        return dict(list(models.items())[:_MOST_MODELS])

    def names(self, job: Job) -> list[str]:
        """Names of the maps that there are."""
        return list(self.paths(job))

    def packed_model(self, job: Job, name: str) -> bytes | None:
        """A model for the viewer; None where there is none of that name."""
        path = self.models(job).get(name)
        if path is None:
            return None
        return self._packed.of_file(path, lambda: pack_model(read_atoms(path), name))

    def map_bytes(self, job: Job, name: str) -> bytes | None:
        """A map for the viewer; None where there is none of that name."""
        path = self.paths(job).get(name)
        if path is None:
            return None

        def pack() -> bytes:
            mask = None if name == "mask" else self.paths(job).get("mask")
            over = read_map(mask) if mask is not None else None
            return pack_volume(read_map(path), most_box=MOST_BOX, mask=over, name=name)

        return self._packed.of_file(path, pack)


def _of_cryosparc(folder: Path) -> dict[str, Path]:
    """Maps of a job of cryoSPARC, or those of its classes."""
    found = {name: max(folder.glob(pattern), default=None) for name, pattern in _CRYOSPARC.items()}
    paths = {name: path for name, path in found.items() if path is not None}
    classes = sorted(path for path in folder.glob("*_volume.mrc") if _CRYOSPARC_CLASSES.search(path.name))
    for path in classes:  # "final" comes after numbers
        match = _CRYOSPARC_CLASSES.search(path.name)
        assert match is not None
        paths[f"map_class{int(match[1]) + 1}"] = path
    return dict(list(paths.items())[: len(found) + _MOST_CLASSES])


def _relion_classes(folder: Path) -> dict[str, Path]:
    """Maps of the classes of the last iteration of a job of RELION."""
    numbered = [
        (int(match[1]), int(match[2]), path)
        for path in folder.glob("run_it*_class*.mrc")
        if (match := _RELION_CLASSES.search(path.name))
    ]
    last = max((iteration for iteration, _, _ in numbered), default=0)
    of_last = sorted((number, path) for iteration, number, path in numbered if iteration == last)
    return {f"map_class{number}": path for number, path in of_last[:_MOST_CLASSES]}


def _model_files(folder: Path) -> list[Path]:
    """Models in a folder; links that lead out of it are none."""
    try:
        here = folder.resolve(strict=True)
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(_MODELS))
        # One that is no UTF-8 can stand in no page and no address.
        names = [name for name in names if name.isascii() or os.fsencode(name).decode("utf-8", "ignore") == name]
        return [path for name in names if (path := folder / name).is_file() and path.resolve().parent == here]
    except OSError:  # it has just gone, or is another's
        return []


def _judged_map(job: Job) -> Path | None:
    """The map that a model was judged by, where it still is."""
    try:
        name = Path(str(read_json(job.folder / "map_model.json").get("map", "")))
    except (VerglasError, OSError, AttributeError):
        return None
    tried = (folder / name for folder in (job.folder, *job.folder.parents[:3]))
    return next((path for path in tried if path.suffix in (".mrc", ".map") and path.is_file()), None)
