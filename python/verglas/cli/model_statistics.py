"""``verglas model-statistics``: what models say without a map."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("model-statistics", epilog="Example: verglas model-statistics one.cif two.cif --out apart.csv")
    def model_statistics(
        models: list[Path] = typer.Argument(..., help="Models, mmCIF or PDB; several: of the same atoms."),
        out: Path = typer.Option(None, "--out", "-o", help="CSV of how far several models lie apart at each atom."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Radius of gyration (from the atoms, and by Guinier's law), Wilson's mean power, and how far models lie apart.

        Models built independently in one map differ where the map leaves them free: the root mean square fluctuation
        of each atom, without superposition, in A.
        """
        from verglas.run.model_statistics import model_statistics as statistics_of

        told = statistics_of(models, out)
        if as_json:
            typer.echo(json.dumps(told, indent=1))
            return
        for one in told["models"]:
            law = one["radius_of_gyration_guinier_A"]
            typer.echo(
                f"{one['model']}: {one['atoms']} atoms, {one['mass_without_hydrogen_kDa']:.1f} kDa without hydrogen, "
                f"radius of gyration {one['radius_of_gyration_A']:.2f} A"
                + ("" if law is None else f" (by Guinier's law {law:.2f} A)")
                + f", mean power at high resolution {one['wilson_mean_electrons2']:.4g} electrons^2 (Wilson)"
            )
        if told["variability"] is not None:
            apart = told["variability"]
            typer.echo(
                f"{len(models)} models lie {apart['mean_A']:.2f} A apart in the mean (RMSF; 95 % of the atoms within "
                f"{apart['q95_A']:.2f} A), most at {apart['largest']}"
            )
