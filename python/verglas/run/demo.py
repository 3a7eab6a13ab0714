"""The demonstration: simulate particles with a known answer, refine them from a blur, compare, show it on a page."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas import _native, filters, io
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment import FSC, PoseErrors, fsc, full_map_fsc, pose_errors
from verglas.errors import InputError
from verglas.report import html
from verglas.report.demo import THRESHOLD_HALVES, THRESHOLD_TRUTH, DemoFindings, overview, page
from verglas.run.refine import Refinement, refine
from verglas.run.refine_summary import iteration_sentence
from verglas.run.simulate import particles as simulate_particles
from verglas.simulate import Model, density, phantom
from verglas.types import Map, Particles
from verglas.types.listener import Listener
from verglas.types.settings import JobSettings, setting, settings_from

_SHOWN = 9
_RUN = "refine"  # the run folder of the refinement, inside the demo's
_MARGIN = 1.1  # diameter told to the refinement, on that of the model


@dataclass(frozen=True)
class DemoSettings(JobSettings, job="demo"):
    """What is simulated.

    Attributes
    ----------
    n, box : int
        Particles, and their side in pixels.
    pixel_size_A, diameter_A : float
        Pixel size; diameter of the phantom.
    symmetry : str
        Its point group.
    snr : float
        Variance of the CTF-modulated signal over the whole box divided by that of the noise.
    envelope_b_factor_A2 : float
        Envelope of the signal.
    initial_resolution_A : float
        Resolution of the map that the refinement starts from.
    seed : int
        Seed of everything random.
    """

    n: int = setting(2000, "Number of particles", at_least=20)
    box: int = setting(96, "Box side, pixels; of 1.6 A 80 or more hold the phantom", at_least=24)
    pixel_size_A: float = setting(1.6, "Pixel size", more_than=0)
    diameter_A: float = setting(105.0, "Diameter of the phantom", more_than=0)
    symmetry: str = setting("C1", "Point group of the phantom", flags=("--sym",))
    snr: float = setting(0.1, "Signal to noise, a ratio of variances over the whole box", more_than=0)
    envelope_b_factor_A2: float = setting(60.0, "Envelope of the signal", at_least=0, former=("b_factor_A2",))
    initial_resolution_A: float = setting(
        40.0, "Resolution of the map that the refinement starts from", more_than=0, former=("start_A",)
    )
    seed: int = setting(0, "Seed of everything random", at_least=0)


@dataclass(frozen=True)
class Demo:
    """What the demonstration found; the files lie in ``folder``.

    Attributes
    ----------
    folder : Path
        report.html, overview.png, demo.json, map.mrc (filtered to its resolution), start.mrc, truth.mrc,
        particles.star, particles.mrcs, and refine/, the run folder of the refinement with a page of its own.
    refinement : Refinement
        Half maps, curves, poses.
    with_truth, with_truth_unmasked : FSC
        Of the unfiltered map with the truth in the map's frame: in the mask of the half-map curve, and in none.
    errors : PoseErrors
        Poses against those simulated.
    seconds : dict
        Step -> wall time.
    """

    folder: Path
    refinement: Refinement
    with_truth: FSC
    with_truth_unmasked: FSC
    errors: PoseErrors
    seconds: dict[str, float]

    @property
    def between_halves(self) -> FSC:
        """Of the half maps, in the mask, corrected by phase randomisation."""
        return self.refinement.fsc

    @property
    def resolution_A(self) -> float:
        """Resolution against the truth, FSC = 0.5, in the mask."""
        return self.with_truth.resolution_A(THRESHOLD_TRUTH)

    @property
    def half_map_resolution_A(self) -> float:
        """Resolution between the half maps, FSC = 0.143."""
        return self.between_halves.resolution_A(THRESHOLD_HALVES)

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
            "refinement_report": str(self.folder / _RUN / "report.html"),
            "resolution_against_truth_A": round(self.resolution_A, 3),
            "resolution_against_truth_unmasked_A": round(self.with_truth_unmasked.resolution_A(THRESHOLD_TRUTH), 3),
            "resolution_between_halves_A": round(self.half_map_resolution_A, 3),
            "median_angular_error_deg": round(float(np.median(self.errors.angle_deg)), 3),
            "median_shift_error_A": round(float(np.median(self.errors.shift_A)), 3),
            "iterations": len(self.refinement.iterations),
            "seconds": {step: round(value, 2) for step, value in self.seconds.items()},
        }


class _Clock:
    """Wall time per step, said as it goes."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self.seconds = listener, dict[str, float]()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.listener.say(f"{name} ...")
        yield
        self.seconds[name] = time.perf_counter() - start
        self.listener.say(f"{name}: {self.seconds[name]:.1f} s")


def demo(
    out: str | os.PathLike[str] = "demo",
    settings: DemoSettings | None = None,
    *,
    threads: int | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Demo:
    """Simulate particles, refine them from a blurred start, compare with the truth, write a page.

    Parameters
    ----------
    out : path
        Folder to write; it is made. A demonstration that it holds is replaced.
    settings : DemoSettings, optional
        What is simulated; further keywords (``n=500``) change its fields.
    threads : int, optional
        Threads; all by default.
    device : str
        What the refinement runs on.
    listener : Listener, "screen" or None
        Who is told how it goes, as of :func:`verglas.refine`.

    Returns
    -------
    Demo

    Raises
    ------
    InputError
        A setting cannot be, or the folder holds a refinement that no demonstration made.

    Examples
    --------
    >>> import tempfile
    >>> from verglas.run.demo import DemoSettings, demo
    >>> small = DemoSettings(n=40, box=24, pixel_size_A=5.0, diameter_A=80.0, snr=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(str(p.relative_to(folder)) for p in demo(folder, small).folder.rglob("*.html"))
    ['refine/report.html', 'report.html']
    """
    with shown_to(listener, iteration_sentence) as heard:
        resolved_settings = settings_from("demo", DemoSettings, settings, **changes)
        return _demonstrate(resolved_settings, Path(out), heard, threads, device)


def _demonstrate(settings: DemoSettings, folder: Path, listener: Listener, threads: int | None, device: str) -> Demo:
    _clear(folder)
    clock = _Clock(listener)
    model = phantom(settings.box, settings.pixel_size_A, settings.diameter_A, settings.symmetry, settings.seed)
    with clock.step("simulate particles"):
        particles = _simulate(model, settings, folder, threads)
    with clock.step("refine"):
        refinement = refine(
            particles,
            folder / "start.mrc",
            settings.symmetry,
            _MARGIN * settings.diameter_A,
            out=folder / _RUN,
            listener=listener,
            initial_resolution_A=settings.initial_resolution_A,
            seed=settings.seed,
            threads=threads,
            device=device,
        )
    with clock.step("compare with the truth"):
        assert particles.poses is not None
        assert refinement.particles.poses is not None
        usable = np.setdiff1d(np.arange(len(particles)), list(refinement.excluded))
        errors = pose_errors(refinement.particles.poses, particles.poses[usable], settings.symmetry)
        truth = density(
            # The model goes to the map: the map, turned, would be blurred by interpolation.
            model.move(errors.matrix, errors.offset_A),
            settings.box,
            settings.pixel_size_A,
            b_factor_A2=settings.envelope_b_factor_A2,
            threads=threads,
        )
        mask = refinement.postprocessed.mask.data
        masked, unmasked = (fsc(refinement.map, truth, m, threads=threads) for m in (mask, None))
    result = Demo(folder, refinement, masked, unmasked, errors, clock.seconds)
    with clock.step("write the page"):
        _write(result, settings, particles, truth, threads)
    _write_summary(result)
    return result


def _clear(folder: Path) -> None:
    """Remove the run folder of an earlier demonstration, and nothing else."""
    run = folder / _RUN
    if run.exists():
        if not (folder / "demo.json").is_file():
            raise InputError(f"{run}: is there already, and no finished demonstration made it; name another folder")
        shutil.rmtree(run)
    folder.mkdir(parents=True, exist_ok=True)
    # Gone until the end: a folder that has one holds a finished demonstration, which may be replaced.
    (folder / "demo.json").unlink(missing_ok=True)


def _simulate(model: Model, settings: DemoSettings, folder: Path, threads: int | None) -> Particles:
    """Particles with their truth, and the blurred start map."""
    simulation = simulate_particles(
        model,
        settings.n,
        settings.box,
        settings.pixel_size_A,
        settings.snr,
        folder,
        seed=settings.seed,
        threads=threads,
        listener=None,
        envelope_b_factor_A2=settings.envelope_b_factor_A2,
    )
    truth = io.read_map(folder / "truth.mrc")
    start = filters.apply(truth, filters.low_pass(settings.initial_resolution_A), threads=threads)
    io.write_map(folder / "start.mrc", start)
    return simulation


def _wiener(between_halves: FSC) -> np.ndarray:
    """SSNR / (1 + SSNR) of the full map, 0 from the first shell on that the halves do not share."""
    gain = full_map_fsc(np.clip(between_halves.curve, 0.0, 1.0))
    below = np.flatnonzero(between_halves.curve[1:] < THRESHOLD_HALVES)
    if below.size:
        # Where the curve rises again beyond its first fall, that is chance.
        gain[below[0] + 1 :] = 0.0
    return gain


def _rows(result: Demo, settings: DemoSettings, threads: int | None) -> dict[str, object]:
    """The settings table of the page."""
    return {
        "particles": f"{len(result.refinement.particles):,} of {settings.n:,} used",
        "box": f"{settings.box} px of {settings.pixel_size_A:g} Å",
        "model": f"procedural, {settings.diameter_A:g} Å across, symmetry {settings.symmetry}",
        "signal to noise": f"{settings.snr:g} (ratio of variances over the whole box)",
        "envelope": f"B = {settings.envelope_b_factor_A2:g} Å²",
        "start": f"the true map, low-passed to {settings.initial_resolution_A:g} Å",
        "seed": settings.seed,
        "processor": f"{_native.core.isa} build, {_native.resolve_threads(threads)} threads",
    }


def _write(result: Demo, settings: DemoSettings, particles: Particles, truth: Map, threads: int | None) -> None:
    folder, refinement = result.folder, result.refinement
    between = result.between_halves
    gain = filters.from_curve(between.frequency_per_A, _wiener(between))
    filtered_map = filters.apply(refinement.map, gain, threads=threads)
    io.write_map(folder / "map.mrc", filtered_map)
    findings = DemoFindings(
        images=particles.images(np.arange(min(_SHOWN, len(particles)))),
        start=io.read_map(folder / "start.mrc"),
        start_A=settings.initial_resolution_A,
        truth=filters.apply(truth, gain, threads=threads),
        map=filtered_map,
        between_halves=between,
        with_truth=result.with_truth,
        with_truth_unmasked=result.with_truth_unmasked,
        errors=result.errors,
        iterations=refinement.iterations,
        settings=_rows(result, settings, threads),
        seconds=dict(result.seconds),
        refinement_page=f"{_RUN}/report.html",
    )
    io.write_bytes(folder / "overview.png", overview(findings))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    io.write_text(folder / "report.html", html.render(page(findings, f"verglas {__version__}, {now}")))


def _write_summary(result: Demo) -> None:
    io.write_text(result.folder / "demo.json", json.dumps(result.summary(), indent=2) + "\n")
