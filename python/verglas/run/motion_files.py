"""The files of one corrected movie, and how a run knows that they are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.io import read_json, write_bytes, write_json, write_micrograph, write_motion_star
from verglas.io.movies import summed_labels
from verglas.io.power_spectra import write_power_spectrum
from verglas.io.star import writable
from verglas.motion import CorrectedMovie, MotionSettings
from verglas.report.motion import ShownMotion, motion_figure
from verglas.types import Movie
from verglas.types.acquisition import Acquisition
from verglas.types.trajectory import Trajectory

FOLDERS = ("micrographs", "png", "curves")
EARLY_E_A2 = 4.0  # RELION's limit between early and late motion
# Label in the STAR file -> what follows the movie's name: RELION's endings
PARTS = {
    "rlnMicrographName": ".mrc",
    "rlnMicrographNameNoDW": "_noDW.mrc",
    "rlnMicrographNameEven": "_EVN.mrc",
    "rlnMicrographNameOdd": "_ODD.mrc",
    "rlnCtfPowerSpectrum": "_PS.mrc",
    "rlnMicrographMetadata": ".star",
}


@dataclass(frozen=True)
class MovieFiles:
    """Where the files of a movie go.

    Attributes
    ----------
    folder : Path
        Of the run.
    movie : Path
    stem : str
        What the files are called.
    """

    folder: Path
    movie: Path
    stem: str

    def part(self, ending: str) -> Path:
        """A file in ``micrographs``."""
        return self.folder / "micrographs" / f"{self.stem}{ending}"

    @property
    def picture(self) -> Path:
        """Its tracks."""
        return self.folder / "png" / f"{self.stem}.png"

    @property
    def curves(self) -> Path:
        """The numbers of its tracks that the page draws."""
        return self.folder / "curves" / f"{self.stem}.json"

    def check_names(self) -> None:
        """Refuse names that no STAR file can hold, before any work is done.

        Raises
        ------
        InputError
            Of the movie, or of its files.
        """
        for name in (str(self.movie), self.stem):
            if not writable(name):
                raise InputError(
                    f"{self.movie}: a name with a quote, a #, a tab or a line break would be misread in a STAR file; "
                    "rename the movie or its folder"
                )

    def _identity(self) -> dict[str, Any]:
        about = self.movie.stat()
        return {"movie": str(self.movie), "bytes": about.st_size, "modified_ns": about.st_mtime_ns}

    def kept_row(self) -> dict[str, Any] | None:
        """The row of a movie that was corrected before, if it is still the same file and its files are there."""
        record = self.part(".json")
        if not record.is_file() or not self.movie.is_file():
            return None
        had = read_json(record)
        row = had.get("row", {})
        whole = all(self.part(ending).is_file() for label, ending in PARTS.items() if label in row.get("parts", []))
        return dict(row) if whole and had.get("identity") == self._identity() else None

    def write(
        self,
        movie: Movie,
        corrected: CorrectedMovie,
        settings: MotionSettings,
        gain: str | None,
        dtype: str,
        acquisition: Acquisition | None = None,
    ) -> dict[str, Any]:
        """Write what belongs to the movie, the record last; its row of the table."""
        identity = self._identity()
        sums = {
            "rlnMicrographName": corrected.dose_weighted or corrected.micrograph,
            "rlnMicrographNameNoDW": corrected.micrograph if corrected.dose_weighted is not None else None,
            "rlnMicrographNameEven": corrected.even,
            "rlnMicrographNameOdd": corrected.odd,
        }
        images = {label: image for label, image in sums.items() if image is not None}
        for label, image in images.items():
            write_micrograph(self.part(PARTS[label]), image, dtype)
        names = [*images]
        if corrected.spectrum is not None:
            write_power_spectrum(self.part(PARTS["rlnCtfPowerSpectrum"]), corrected.spectrum)
            names.append("rlnCtfPowerSpectrum")
        described = settings.of(movie)
        trajectory = Trajectory.from_motion(
            corrected.motion,
            hot_pixels=movie.defects,
            movie=str(movie.path),
            binning=float(settings.bin_factor),
            gain=gain,
            pixel_size_A=described.pixel_size_A,
            dose_per_frame_e_A2=described.dose_per_frame_e_A2,
            pre_exposure_e_A2=described.pre_exposure_e_A2,
            voltage_kV=described.voltage_kV,
            more=summed_labels(movie.source),  # polishing must make the same frames of the file
        )
        write_motion_star(self.part(PARTS["rlnMicrographMetadata"]), trajectory)
        write_bytes(self.picture, motion_figure(corrected.motion, self.movie.name))
        write_bytes(self.curves, ShownMotion.of_motion(corrected.motion).as_bytes())
        row = self._row(movie, corrected, described, trajectory)
        row |= {
            "beam_shift": None if acquisition is None or acquisition.beam_shift is None else [*acquisition.beam_shift],
            "hole": None if acquisition is None else acquisition.group,
        }
        row |= {
            "parts": [*names, "rlnMicrographMetadata"],
            "rlnMicrographPixelSize": corrected.micrograph.pixel_size_A,
        }
        # Last: where the record is, all else of this movie is too, and a later run keeps it.
        write_json(self.part(".json"), {"identity": identity, "row": row})
        return row

    def _row(self, movie: Movie, corrected: CorrectedMovie, described: Movie, trajectory: Trajectory) -> dict[str, Any]:
        motion = corrected.motion
        steps = np.hypot(*np.diff(trajectory.global_px, axis=0).T)
        exposure_e_A2 = described.pre_exposure_e_A2 + np.arange(1, len(steps) + 1) * (
            described.dose_per_frame_e_A2 or np.nan
        )
        total, early = float(steps.sum()), float(steps[exposure_e_A2 <= EARLY_E_A2].sum())
        places = (np.linspace(0, n - 1, 7) for n in motion.shape)
        y, x = np.meshgrid(*places, indexing="ij")
        gain_nats = next((g.gain_nats for g in corrected.gains if g.model == motion.model), None)
        errors = motion.global_error_px
        return {
            "movie": str(self.movie),
            "model": corrected.model,
            "frames": len(movie),
            "width_px": movie.shape[1],
            "height_px": movie.shape[0],
            "bad_pixels": len(movie.defects),
            "early_px": early,
            "late_px": total - early,
            "total_px": total,
            "local_px": float(np.hypot(*np.moveaxis(motion.local(x, y), -1, 0)).max()),
            "shift_error_px": None if errors is None else float(errors.mean()),
            "gain_nats": gain_nats,
            "original_pixel_size_A": described.pixel_size_A,
            "voltage_kV": described.voltage_kV,
            "flags": "; ".join(corrected.flags),
        }
