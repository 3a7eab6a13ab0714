"""``verglas plan``: what an experiment takes before it is begun."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import typer

from verglas.cli.options import with_settings
from verglas.run.plan import Plan, PlanSettings, Range, plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", epilog="Example: verglas plan --mass 480 --symmetry O --resolution 2.5 --dose 40")(plan_command)


@with_settings(PlanSettings)
def plan_command(
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Particles, micrographs and hours that a resolution takes, and the resolution that particles give.

    By the law of Rosenthal and Henderson (2003); ranges are those of the B-factor less and plus its spread.
    """
    made = plan(**settings)
    typer.echo(json.dumps(made.as_dict(), indent=2) if as_json else "\n".join(_lines(made)))


def _lines(made: Plan) -> list[str]:
    chosen = made.settings
    return [
        f"{chosen.resolution_A:g} A at a B-factor of {chosen.b_factor_A2:g} +- {chosen.b_factor_spread_A2:g} A^2 takes",
        f"  particles in the map   {_text(made.particles)}",
        f"  micrographs            {_text(made.micrographs)}, with {made.per_micrograph:.0f} particles each, of which "
        f"{100 * chosen.used:.0f} % are used",
        f"  hours of microscope    {_text(made.hours)}",
        f"  box                    {made.box} px of {made.pixel_size_A:.2f} A; diameter {made.diameter_A:.0f} A",
        f"  refinement here        {_text(made.refinement_hours, 'h')} by the processor, threads: {made.threads};"
        " extrapolated",
        f"  views about one axis   {made.views} or more",
        f"of {chosen.dose_e_A2:g} e/A^2 the damage leaves {made.useful_dose_e_A2:.1f} of use there, frames weighted",
        f"one particle in focus: {100 * made.contrast:.2g} % of scattering contrast, seen from "
        f"{_number(made.detection_dose_e_A2)} e/A^2; defocus shows more",
        "particles give",
        *(f"  {n:>10,d}             {_text(r, 'A')}" for n, r in made.resolution_A.items()),
    ]


def _text(value: Range, unit: str = "") -> str:
    unit = f" {unit}" if unit else ""
    return f"{_number(value.value)}{unit} ({_number(value.best)} to {_number(value.worst)})"


def _number(value: float) -> str:
    """Three digits at most: the law knows no more."""
    if not np.isfinite(value):
        return "none"
    if value >= 1e7:
        return f"{value:.1e}"
    return f"{float(f'{value:.3g}'):,.3g}" if value < 1000 else f"{round(float(f'{value:.2g}')):,d}"
