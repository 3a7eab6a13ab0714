"""``verglas plan``: particles, micrographs and time that an experiment takes, from the laws of signal and damage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verglas._native import resolve_threads
from verglas.assessment.planner import (
    Imaging,
    detection_dose_e_A2,
    least_diameter_A,
    particles_for_resolution,
    particles_per_micrograph,
    refinement_operations,
    resolution_of_particles_A,
    scattering_contrast,
    useful_dose_e_A2,
    views_about_one_axis,
)
from verglas.errors import InputError
from verglas.geometry import symmetry_order
from verglas.refinement.settings import RefineSettings
from verglas.run.forecast import planned_refine_forecast
from verglas.types.display import one_line
from verglas.types.settings import JobSettings, setting, settings_from

_NYQUIST_ROOM = 1.25  # the resolution is kept this factor from Nyquist
_BOX_OVER_DIAMETER = 1.5
_THOROUGHNESS = 7
_FEWEST, _MOST_PARTICLES = 20, 1e9  # that a refinement takes, and beyond which nobody would begin one
_COUNTS = (1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True)
class PlanSettings(JobSettings, job="plan"):
    """What is planned.

    Attributes
    ----------
    mass_kDa, resolution_A, particles, symmetry, dose_e_A2, voltage_kV, b_factor_A2, b_factor_spread_A2, ...
        See ``verglas plan --help``.
    """

    mass_kDa: float = setting(help="Mass of the particle.", more_than=0)
    resolution_A: float = setting(3.5, "Resolution wanted.", more_than=0)
    particles: int | None = setting(None, "Particles in hand: what resolution they can give.", at_least=1)
    symmetry: str = setting("C1", "Point group of the particle.")
    diameter_A: float | None = setting(
        None, "Diameter of the particle.", more_than=0, default_words="twice that of a ball of the mass"
    )
    dose_e_A2: float = setting(40.0, "Dose of an exposure, in all.", more_than=0)
    voltage_kV: float = setting(300.0, "Acceleration voltage.", at_least=80, at_most=350)
    b_factor_A2: float = setting(
        100.0, "Of all blur: 60 is a rigid particle on a good day, 200 a hard case.", more_than=0
    )
    b_factor_spread_A2: float = setting(
        40.0, "How far the B-factor may be off: gives the range of all answers.", at_least=0
    )
    field_px: int = setting(4096, "Side of the detector.", at_least=64)
    pixel_size_A: float | None = setting(
        None, "Pixel size.", more_than=0, default_words="the resolution wanted over 2.5"
    )
    micrographs_per_hour: float = setting(200.0, "Exposures that the microscope makes.", more_than=0)
    used: float = setting(0.5, "Share of the picked particles that goes into the map.", more_than=0, at_most=1)
    threads: int | None = setting(None, "Threads of the refinement.", at_least=1, default_words="all")


@dataclass(frozen=True)
class Range:
    """A number with those that a better and a worse B-factor give."""

    value: float
    best: float
    worst: float

    def as_dict(self) -> dict[str, float | None]:
        """JSON-ready; None for what is never reached."""
        return {k: float(f"{v:.4g}") if np.isfinite(v) else None for k, v in vars(self).items()}


@one_line
@dataclass(frozen=True)
class Plan:
    """What an experiment takes.

    Attributes
    ----------
    settings : PlanSettings
    pixel_size_A, diameter_A, per_micrograph : float
        As given, or as follows from what was.
    particles, micrographs, hours : Range
        For the resolution wanted: particles in the map, micrographs for them, hours of the microscope.
    resolution_A : dict of int -> Range
        That so many particles give; those in hand among them.
    useful_dose_e_A2 : float
        Of the dose, at the resolution wanted, with frames weighted.
    contrast, detection_dose_e_A2 : float
        Of the particle as a ball of its mass, by what it scatters out of an aperture, without any defocus: its contrast
        against ice, and the dose that shows one (99 %, with 1 % of false alarms).
    views : int
        About one axis: fewer leave gaps however good they are.
    box : int
    operations : float
        Of one exhaustive search of all the particles.
    refinement_hours : Range
        Of ``verglas refine`` of the particles, on this machine's processor.
    threads : int
        Of that refinement.
    """

    settings: PlanSettings
    pixel_size_A: float
    diameter_A: float
    per_micrograph: float
    particles: Range
    micrographs: Range
    hours: Range
    resolution_A: dict[int, Range]
    useful_dose_e_A2: float
    contrast: float
    detection_dose_e_A2: float
    views: int
    box: int
    operations: float
    refinement_hours: Range
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """What ``verglas plan --json`` prints."""
        return {
            "resolution_A": self.settings.resolution_A,
            "b_factor_A2": self.settings.b_factor_A2,
            "b_factor_spread_A2": self.settings.b_factor_spread_A2,
            "diameter_A": round(self.diameter_A, 1),
            "pixel_size_A": round(self.pixel_size_A, 3),
            "box": self.box,
            "particles": self.particles.as_dict(),
            "particles_per_micrograph": round(self.per_micrograph, 1),
            "micrographs": self.micrographs.as_dict(),
            "hours": self.hours.as_dict(),
            "resolution_of_particles_A": {str(n): r.as_dict() for n, r in self.resolution_A.items()},
            "useful_dose_e_A2": round(self.useful_dose_e_A2, 2),
            "scattering_contrast": float(f"{self.contrast:.3g}"),
            "detection_dose_e_A2": float(f"{self.detection_dose_e_A2:.3g}"),
            "views_about_one_axis": self.views,
            "operations_of_an_exhaustive_search": float(f"{self.operations:.3g}"),
            "refinement_hours_here": {**self.refinement_hours.as_dict(), "threads": self.threads},
        }


def plan(settings: PlanSettings | None = None, **changes: Any) -> Plan:
    """Plan an experiment by the law of Rosenthal and Henderson (:mod:`verglas.assessment.planner`).

    Parameters
    ----------
    settings : PlanSettings, optional
        All choices at once; what is given beside them goes before.
    **changes
        Single choices, as the fields of :class:`PlanSettings`.

    Returns
    -------
    Plan
        Every answer with those of the B-factor less and plus its spread: nothing else moves them as much.

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
    InputError
        The point group is none, or the resolution is finer than the pixels hold.

    Examples
    --------
    >>> import verglas as vg
    >>> made = vg.plan(mass_kDa=480, symmetry="O", resolution_A=2.5, b_factor_A2=80)
    >>> made.particles.best < made.particles.value < made.particles.worst
    True
    """
    chosen = settings_from("plan", PlanSettings, settings, **changes)
    imaging = Imaging(chosen.b_factor_A2, chosen.dose_e_A2, chosen.voltage_kV, symmetry_order(chosen.symmetry))
    pixel = chosen.pixel_size_A or chosen.resolution_A / (2 * _NYQUIST_ROOM)
    if chosen.resolution_A < 2 * pixel:
        raise InputError(
            f"plan: pixels of {pixel:g} A end at {2 * pixel:g} A, no finer resolution than that can be reached; got "
            f"{chosen.resolution_A:g} A"
        )
    diameter = chosen.diameter_A or 2 * least_diameter_A(chosen.mass_kDa)
    per_micrograph = particles_per_micrograph(diameter, (chosen.field_px * pixel,) * 2)
    particles = _range(chosen, imaging, lambda how: particles_for_resolution(chosen.resolution_A, how))
    micrographs = _whole(_scale(particles, 1 / (chosen.used * per_micrograph)))
    ball_A = least_diameter_A(chosen.mass_kDa)
    contrast = scattering_contrast(2 * ball_A / 3, chosen.voltage_kV)  # a ball's mean thickness
    counts = sorted({*map(int, _COUNTS), *([] if chosen.particles is None else [chosen.particles])})
    box = 2 * int(np.ceil(_BOX_OVER_DIAMETER * diameter / pixel / 2))
    return Plan(
        chosen,
        pixel,
        diameter,
        per_micrograph,
        particles,
        micrographs,
        _scale(micrographs, 1 / chosen.micrographs_per_hour),
        {n: _range(chosen, imaging, lambda how, n=n: resolution_of_particles_A(n, how)) for n in counts},
        useful_dose_e_A2(chosen.dose_e_A2, chosen.resolution_A, chosen.voltage_kV),
        contrast,
        detection_dose_e_A2(ball_A * np.sqrt(np.pi) / 2, contrast),
        views_about_one_axis(diameter, chosen.resolution_A),
        box,
        refinement_operations(max(1, round(min(particles.value, 1e12))), box, _THOROUGHNESS),
        _refinement_hours(chosen, particles, diameter, pixel, box),
        resolve_threads(chosen.threads),
    )


def _refinement_hours(chosen: PlanSettings, particles: Range, diameter_A: float, pixel_A: float, box: int) -> Range:
    """Times of a refinement here; those that no machine ends are infinite."""
    settings = RefineSettings(symmetry=chosen.symmetry, diameter_A=diameter_A)

    def hours(n: float) -> float:
        if n > _MOST_PARTICLES:
            return float("inf")
        planned = planned_refine_forecast(max(_FEWEST, round(n)), box, pixel_A, settings, chosen.threads)
        return planned.seconds / 3600

    return Range(*(hours(n) for n in (particles.value, particles.best, particles.worst)))


def _range(chosen: PlanSettings, imaging: Imaging, law: Any) -> Range:
    """A law at the B-factor, and at those a spread below and above it."""
    # A B-factor of zero is no experiment: ten of them is better than anything published.
    low = max(chosen.b_factor_A2 - chosen.b_factor_spread_A2, min(10.0, chosen.b_factor_A2))
    high = chosen.b_factor_A2 + chosen.b_factor_spread_A2
    return Range(*(float(law(replace(imaging, b_factor_A2=b))) for b in (chosen.b_factor_A2, low, high)))


def _scale(value: Range, factor: float) -> Range:
    return Range(value.value * factor, value.best * factor, value.worst * factor)


def _whole(value: Range) -> Range:
    return Range(*(float(np.ceil(v)) for v in (value.value, value.best, value.worst)))
