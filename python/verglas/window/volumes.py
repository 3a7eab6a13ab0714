"""Maps of a job, packed for the viewer and kept until their files change."""

from __future__ import annotations

import os
from pathlib import Path

from verglas.io import read_map
from verglas.report.volume import pack_volume
from verglas.window.job import Job
from verglas.window.kept import Kept

_STEMS = ("map_sharpened", "map", "half1", "half2", "mask", "local_resolution", "truth", "start")
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
_KEPT = 24
_MOST_CLASSES = 50
MOST_BOX = 128


class Volumes:
    """Packed maps, the last ones used."""

    def __init__(self) -> None:
        self._packed: Kept[bytes] = Kept(_KEPT)

    def paths(self, job: Job) -> dict[str, Path]:
        """Files of maps by the names that pages use."""
        names = dict(_RELION) if job.package == "RELION" else {stem: f"{stem}.mrc" for stem in _STEMS}
        if job.package == "verglas":
            for k in range(1, _MOST_CLASSES + 1):
                names |= {
                    f"{stem}_class{k}": f"{stem}_class{k}.mrc" for stem in ("map_sharpened", "map", "half1", "half2")
                }
        return {name: path for name, file in names.items() if (path := job.folder / file).is_file()}

    def names(self, job: Job) -> list[str]:
        """Names of the maps that there are."""
        return list(self.paths(job))

    def packed(self, job: Job, name: str) -> bytes | None:
        """A map for the viewer; None where there is none of that name."""
        path = self.paths(job).get(name)
        if path is None:
            return None

        def pack() -> bytes:
            mask = None if name == "mask" else self.paths(job).get("mask")
            over = read_map(mask) if mask is not None else None
            return pack_volume(read_map(path), most_box=MOST_BOX, mask=over, name=name)

        state = os.stat(path)
        return self._packed.get((path, state.st_mtime_ns, state.st_size), pack)
