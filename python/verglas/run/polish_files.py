"""What a polishing writes: stacks, particles, tracks, weights of frames, and its account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from verglas import image
from verglas.io import StackWriter, read_particles, write_json, write_particles, write_star
from verglas.io.coordinates import unique_stems
from verglas.io.rules import written_name
from verglas.optics.stored import FLIPPED, PREMULTIPLIED
from verglas.polishing import add_frames
from verglas.run.ctf_refine_inputs import Prepared
from verglas.run.polish_inputs import frame_centres_px, micrograph_places_px
from verglas.run.set_aside import write_set_aside
from verglas.types import Particles, Snapshot
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener

if TYPE_CHECKING:
    from verglas.polishing import FrameWeights, MovieParticles
    from verglas.run.polish_passes import MicrographTracks, Passes, WeightsFit


@dataclass(frozen=True)
class PolishedFolder:
    """Where a polishing writes.

    Attributes
    ----------
    folder : Path
    dtype : str
        Of the stacks.
    """

    folder: Path
    dtype: str

    def write_stacks(
        self,
        work: Passes,
        moves: Mapping[int, Float32Array],
        weights: FrameWeights,
        diameter_A: float | None,
        heard: Listener,
    ) -> tuple[IntArray, list[str]]:
        """Sum the frames of every movie and write its particles; their rows, and the names of the images."""
        (self.folder / "stacks").mkdir(exist_ok=True)
        names = unique_stems([one.recorded.micrograph for one in work.assigned], "_shiny.mrcs")
        rows, images = list[IntArray](), list[str]()
        for number, one in enumerate(work.assigned):
            heard.progress("movies, sums", number, len(work.assigned))
            stack = self.folder / "stacks" / names[number]
            kept = work.part(f"sums_{number:06d}")
            if kept.load() is None or not stack.is_file():
                movie = work.load(number)
                if movie is None:
                    continue
                self._write_stack(stack, movie, moves.get(number), weights, work.other.window.pixel_size_A, diameter_A)
                kept.save(Snapshot({}), needed=True)  # after the stack, which is there under its name when it is whole
            name = written_name(stack, self.folder)
            images += [f"{i:06d}@{name}" for i in range(1, len(one.rows) + 1)]
            rows.append(one.rows)
        heard.progress("movies, sums", len(work.assigned), len(work.assigned))
        return np.concatenate(rows), images

    def _write_stack(
        self,
        path: Path,
        movie: MovieParticles,
        moves: Float32Array | None,
        weights: FrameWeights,
        pixel_A: float,
        diameter_A: float | None,
    ) -> None:
        box = movie.plan.new_box
        sums = add_frames(movie, moves, weights_on(weights, len(movie.frames), box, pixel_A))
        radius = None if diameter_A is None else 1.1 * diameter_A / 2 / pixel_A
        polished = image.normalise(sums, radius, ramp=True)
        with StackWriter(path, len(polished), box, pixel_A, self.dtype) as writer:
            writer.append(polished)

    def write_particles(self, prepared: Prepared, rows: IntArray, names: list[str]) -> Particles:
        """``shiny.star``: all columns as they were, with the new images; in the order of the given particles."""
        order = np.argsort(rows, kind="stable")
        used = prepared.given[prepared.rows[rows[order]]]
        drop = [label for label in (FLIPPED, PREMULTIPLIED) if label in used.table]
        subset = prepared.half[rows[order]] + 1
        table = used.table.drop(columns=drop).assign(
            rlnImageName=[names[i] for i in order], rlnRandomSubset=subset.astype(np.int64)
        )
        optics = used.optics_table
        assert optics is not None
        optics = optics.assign(**{label: 0 for label in (FLIPPED, PREMULTIPLIED) if label in optics})
        path = self.folder / "shiny.star"
        made = Particles(
            table, None, optics_table=optics, tables=used.tables, table_name=used.table_name, where=str(path)
        )
        write_particles(path, made)
        return read_particles(path)

    def write_tracks(self, work: Passes, tracks: list[MicrographTracks], moves: Mapping[int, Float32Array]) -> None:
        """``tracks.star``: where every particle lies in every frame, pixels of the movie."""
        parts = []
        for one in tracks:
            assigned = work.assigned[one.number]
            t = assigned.recorded.trajectory
            centres = frame_centres_px(micrograph_places_px(work.particles, assigned.rows), t.binning)
            pixel_A = t.pixel_size_A or work.other.window.pixel_size_A / t.binning
            places = centres[:, None] + t.at(*centres.T)
            if one.number in moves:
                places = places + moves[one.number] / pixel_A
            n, frames = places.shape[:2]
            parts.append(
                pd.DataFrame(
                    {
                        "rlnMicrographName": assigned.recorded.micrograph,
                        "vgParticle": np.repeat(np.arange(n) + 1, frames),
                        "rlnMicrographFrameNumber": np.tile(np.arange(frames) + 1 + t.first_frame, n),
                        "rlnCoordinateX": places[..., 0].ravel().round(4),
                        "rlnCoordinateY": places[..., 1].ravel().round(4),
                        "vgTrackUsed": int(one.number in moves),
                    }
                )
            )
        if parts:
            write_star(self.folder / "tracks.star", {"tracks": pd.concat(parts, ignore_index=True)})

    def write_weights(self, fit: WeightsFit) -> None:
        """``bfactors.star``: of every frame, in RELION's columns (its B-factors are minus the decay), and smooth."""
        if fit.own is None:
            return
        columns = {
            "rlnMovieFrameNumber": np.arange(len(fit.own.scale)),
            "rlnBfactorUsedForSharpening": -fit.own.b_factor_A2,
            "rlnFittedInterceptGuinierPlot": fit.own.scale,
            "vgBfactorError": fit.own.b_factor_error_A2,
            "vgInterceptError": fit.own.scale_error,
        }
        if fit.smooth is not None:
            columns |= {"vgBfactorSmooth": -fit.smooth.b_factor_A2, "vgInterceptSmooth": fit.smooth.scale}
        write_star(self.folder / "bfactors.star", {"perframe_bfactors": pd.DataFrame(columns)})

    def write_account(self, particles: Particles, told: Mapping[str, Any], excluded: Mapping[int, str]) -> None:
        """``polish.json`` and ``excluded.csv``."""
        write_json(self.folder / "polish.json", dict(told))
        write_set_aside(self.folder, particles, excluded)


def weights_on(weights: FrameWeights, frames: int, box: int, pixel_size_A: float) -> FloatArray:
    """(frames, box, box // 2 + 1) weights on half transforms; frames beyond those that were fitted weigh as the last.

    Beyond the last shell with signal B-factors are extrapolated, as every program does.
    """
    ky, kx = np.fft.fftfreq(box, pixel_size_A)[:, None], np.fft.rfftfreq(box, pixel_size_A)
    values = weights.at(np.asarray(kx**2 + ky**2))
    if frames <= len(values):
        values = values[:frames]
    else:
        values = np.concatenate([values, np.repeat(values[-1:], frames - len(values), axis=0)])
    return np.asarray(values / np.sqrt((values**2).sum(axis=0)))
