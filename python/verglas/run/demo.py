"""The demonstration: simulate particles with a known answer, reconstruct, compare, and show it on a page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas import _native, filters, io
from verglas._version import __version__
from verglas.assessment.fsc import FSC, fsc, full_map_fsc
from verglas.errors import InputError
from verglas.reconstruction import Method, Reconstruction, reconstruct_report
from verglas.report import html
from verglas.report.known_poses import THRESHOLD_HALVES, THRESHOLD_TRUTH, KnownPoses, overview, page
from verglas.run.simulate import particles as simulate_particles
from verglas.simulate import phantom
from verglas.types import Map, Particles

Say = Callable[[str], None]
_SHOWN = 9


@dataclass(frozen=True)
class DemoSettings:
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
    b_factor_A2 : float
        Envelope of the signal.
    seed : int
        Seed of everything random.
    threads : int, optional
        Threads; all by default.
    """

    n: int = 2000
    box: int = 96
    pixel_size_A: float = 1.6
    diameter_A: float = 105.0
    symmetry: str = "C1"
    snr: float = 0.1
    b_factor_A2: float = 60.0
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        """Half maps and their FSC need a few particles and shells."""
        if self.n < 20:
            raise InputError(f"demo: expected at least 20 particles, got {self.n}")
        if self.box < 24:
            raise InputError(f"demo: expected a box of at least 24 pixels, got {self.box}")


@dataclass(frozen=True)
class Demo:
    """What the demonstration found; the files lie in ``folder``.

    Attributes
    ----------
    folder : Path
        report.html, overview.png, map.mrc (filtered to its resolution), half1.mrc, half2.mrc, truth.mrc,
        particles.star, particles.mrcs, demo.json.
    between_halves, with_truth : FSC
        Of the half maps, and of the unfiltered map with the truth.
    seconds : dict
        Step -> wall time.
    """

    folder: Path
    between_halves: FSC
    with_truth: FSC
    seconds: dict[str, float]

    @property
    def resolution_A(self) -> float:
        """Resolution against the truth, FSC = 0.5."""
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
            "resolution_against_truth_A": round(self.resolution_A, 3),
            "resolution_between_halves_A": round(self.half_map_resolution_A, 3),
            "mean_fsc_with_truth": round(float(np.mean(self.with_truth.curve[1:])), 4),
            "seconds": {step: round(value, 2) for step, value in self.seconds.items()},
        }


class _Clock:
    """Wall time per step, said as it goes."""

    def __init__(self, say: Say) -> None:
        self.say, self.seconds = say, dict[str, float]()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.say(f"{name}: {self.seconds[name]:.1f} s")


def demo(out: str | os.PathLike[str] = "demo", settings: DemoSettings | None = None, say: Say | None = None) -> Demo:
    """Simulate, reconstruct at the known poses, compare with the truth, write a page.

    Parameters
    ----------
    out : path
        Folder to write; it is made.
    settings : DemoSettings, optional
        What is simulated.
    say : callable, optional
        Called with one line per step.

    Returns
    -------
    Demo

    Raises
    ------
    InputError
        A setting cannot be.

    Examples
    --------
    >>> import tempfile
    >>> from verglas.run.demo import DemoSettings, demo
    >>> small = DemoSettings(n=40, box=24, pixel_size_A=5.0, diameter_A=80.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(p.name for p in demo(folder, small).folder.glob("*.html"))
    ['report.html']
    """
    chosen, folder = settings or DemoSettings(), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    clock = _Clock(say or (lambda line: None))
    with clock.step("simulate particles"):
        particles = _simulate(chosen, folder)
    with clock.step("reconstruct map and half maps"):
        method = Method("least-squares", threads=chosen.threads)
        made = reconstruct_report(particles, chosen.symmetry, halves=True, method=method)
    assert made.half_maps is not None
    with clock.step("compare"):
        truth = io.read_map(folder / "truth.mrc")
        between = fsc(*made.half_maps, threads=chosen.threads)
        with_truth = fsc(made.map, truth, threads=chosen.threads)
        gain = filters.from_curve(between.frequency_per_A, _wiener(between))
        shown = filters.apply(made.map, gain, threads=chosen.threads)
    found = Demo(folder, between, with_truth, clock.seconds)
    with clock.step("write maps and page"):
        _write(found, chosen, particles, made, (filters.apply(truth, gain, threads=chosen.threads), shown))
    return found


def _simulate(chosen: DemoSettings, folder: Path) -> Particles:
    model = phantom(chosen.box, chosen.pixel_size_A, chosen.diameter_A, chosen.symmetry, chosen.seed)
    return simulate_particles(
        model, chosen.n, chosen.box, chosen.pixel_size_A, chosen.snr, folder, seed=chosen.seed, threads=chosen.threads,
        envelope_b_factor_A2=chosen.b_factor_A2,
    )  # fmt: skip


def _wiener(between_halves: FSC) -> np.ndarray:
    """SSNR / (1 + SSNR) of the full map, 0 from the first shell on that the halves do not share."""
    gain = full_map_fsc(np.clip(between_halves.curve, 0.0, 1.0))
    below = np.flatnonzero(between_halves.curve[1:] < THRESHOLD_HALVES)
    if below.size:
        gain[below[0] + 1 :] = 0.0
    return gain


def _rows(chosen: DemoSettings, made: Reconstruction) -> dict[str, object]:
    """The settings table of the page."""
    return {
        "particles": f"{made.used:,} of {chosen.n:,} used",
        "box": f"{chosen.box} px of {chosen.pixel_size_A:g} Å",
        "model": f"procedural, {chosen.diameter_A:g} Å across, symmetry {chosen.symmetry}",
        "signal to noise": f"{chosen.snr:g} (ratio of variances over the whole box)",
        "envelope": f"B = {chosen.b_factor_A2:g} Å²",
        "seed": chosen.seed,
        "reconstruction": f"least squares with CTF, relative residual {made.residual:.1e}",
        "processor": f"{_native.core.isa} build, {_native.resolve_threads(chosen.threads)} threads",
    }


def _write(
    found: Demo, chosen: DemoSettings, particles: Particles, made: Reconstruction, filtered: tuple[Map, Map]
) -> None:
    assert made.half_maps is not None
    assert particles.poses is not None
    folder = found.folder
    io.write_map(folder / "map.mrc", filtered[1])
    for number, half in enumerate(made.half_maps, 1):
        io.write_map(folder / f"half{number}.mrc", half)
    shown = KnownPoses(
        particles.images(np.arange(min(_SHOWN, len(particles)))), particles.poses.angles_deg, *filtered,
        made.half_maps, found.between_halves, found.with_truth, _rows(chosen, made), dict(found.seconds),
    )  # fmt: skip
    _replace(folder / "overview.png", overview(shown))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    _replace(folder / "report.html", html.render(page(shown, f"verglas {__version__}, {now}")).encode())
    _replace(folder / "demo.json", (json.dumps(found.summary(), indent=2) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    with io.atomic_path(path) as temporary:
        temporary.write_bytes(content)
