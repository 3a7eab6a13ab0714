"""``verglas select``: the particles of some classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import typer


def _numbers(text: str) -> tuple[int, ...]:
    """``1,4-6`` as (1, 4, 5, 6)."""
    numbers: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise typer.BadParameter(f"expected numbers such as 1,4-6, got {text!r}", param_hint="--classes")
        numbers += range(int(low), int(high or low) + 1)
    return tuple(numbers)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas select class2d/particles.star --auto --out good.star")
    def select(
        particles: Path = typer.Argument(..., help="Particles with class numbers (particles.star of class2d)."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR or CS file to write."),
        auto: bool = typer.Option(False, "--auto", help="The classes that look like particles."),
        ranker: str = typer.Option(
            "rules", "--ranker", help="rules or learned: what --auto chooses by; learned also scores the particles."
        ),
        classes: str = typer.Option(None, "--classes", help="Class numbers, such as 1,4-6."),
        table: Path = typer.Option(None, "--table", help="classes.star [beside the particles] or selection.star."),
        min_resolution: float = typer.Option(None, "--min-resolution", help="At least this resolution, A."),
        min_size: int = typer.Option(None, "--min-size", min=1, help="At least this many particles in the class."),
        regions: Path = typer.Option(
            None, "--regions", help="particles_kept.json of `verglas serve`: particles inside lines drawn round values."
        ),
        core: bool = typer.Option(
            False, "--core", help="Those in the core of their class (class2d --core, class3d --repeats)."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Keep the particles of classes: by number, by a selection from a page, or by rules; or those in regions.

        --auto keeps classes that are large enough, centred, with more inside the circle than outside, and resolved;
        with --ranker learned those whose averages a small network takes for particles. That also writes two columns:
        verglasClassScore, the probability of the class, and verglasParticleScore, 0 to 1, to sort particles by. Rules
        narrow what numbers or a selection have chosen; alone they choose among all classes. --regions needs no classes;
        with them it narrows what they have chosen.
        """
        if min_resolution is not None and not min_resolution > 0:
            raise typer.BadParameter(
                f"expected a positive number, got {min_resolution:g}", param_hint="--min-resolution"
            )
        numbers = () if classes is None else _numbers(classes)
        if not (auto or numbers or table or min_resolution or min_size or regions or core):
            raise typer.BadParameter(
                "give --auto, --classes, --table, --min-resolution, --min-size, --regions or --core",
                param_hint="select",
            )
        if auto and numbers:
            raise typer.BadParameter("give --auto or --classes, not both", param_hint="--auto")
        if ranker not in ("rules", "learned"):
            raise typer.BadParameter(f"expected rules or learned, got {ranker!r}", param_hint="--ranker")
        from verglas.run.select import SelectJob, select_files

        by: Literal["rules", "learned"] = "learned" if ranker == "learned" else "rules"
        asked = SelectJob(particles, out, numbers, table, min_resolution, min_size, auto, regions, core, by)
        kept, chosen, read = select_files(asked)
        if as_json:
            typer.echo(json.dumps({"particles_read": read, "particles_kept": len(kept), "classes": chosen}, indent=2))
            return
        sources = [f"classes {', '.join(map(str, chosen))}"] if chosen else []
        sources += ["cores"] if core else []
        sources += [f"the regions of {regions}"] if regions else []
        typer.echo(f"{len(kept)} of {read} particles, from {' and '.join(sources)}: {out}")
