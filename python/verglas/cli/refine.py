"""``verglas refine``: from particles and a reference to half maps, a sharpened map and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop
from verglas.cli.usage import refuse_unless_positive
from verglas.run.cluster import cluster_request, image_cache
from verglas.run.refine import RefineSettings, refine_files
from verglas.run.refine_summary import summary


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas refine particles.star --reference init.mrc --symmetry O --diameter 140 --out run1"
    app.command(epilog=f"Example: {example}")(refine)


@with_settings(RefineSettings)
def refine(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    reference: list[Path] = typer.Option(
        None, "--reference", "--ref", help="Start map; give it several times for several classes."
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Run folder."),
    mask: Path = typer.Option(None, "--mask", help="Soft solvent mask, 0 to 1 [made from the map]."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all [auto: cpu]."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    memory: float = typer.Option(None, "--memory", help="Most memory to use, GB [0.8 of what there is]."),
    cluster: str = typer.Option(
        None, "--cluster", help="Workers that share the particles: local:4, slurm:16 or tcp://host:8786."
    ),
    cluster_profile: Path = typer.Option(
        None, "--cluster-profile", help="TOML file: queue, walltime, cores, memory, extra lines ..."
    ),
    cache: Path = typer.Option(
        None, "--cache", help="Folder on a quick disk that keeps images for this and later runs."
    ),
    cache_size: float = typer.Option(100.0, "--cache-size", help="Most that the cache may hold, GB."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last iteration of the run in --out."),
    allow_changes: bool = typer.Option(False, "--allow-changes", help="Resume although settings differ."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Refine poses and map of particles with two independent half sets.

    Writes map.mrc, map_sharpened.mrc, half1.mrc, half2.mrc, mask.mrc, fsc.csv, particles.star, iterations.csv and
    report.html into the run folder; the page can be opened while the run goes on. It ends with a verdict: whether each
    half map explains particles of the other half, whether all directions are resolved alike, whether the particles
    support the symmetry. Exit status 1 if it is to stop: nothing but noise, or a symmetry that is not there.
    """
    refuse_unless_positive({"--memory": memory, "--cache-size": cache_size})
    result = refine_files(
        particles,
        reference or None,
        settings=settings,
        stack=stack,
        out=out,
        mask=mask,
        device=device,
        memory_GB=memory,
        resume=resume,
        allow_changes=allow_changes,
        threads=threads,
        cluster=cluster_request(cluster, cluster_profile),
        cache=image_cache(cache, cache_size),
    )
    _print(summary(result), out, as_json)
    exit_if_stop(result.verdict.state)


def _print(told: Mapping[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(
        f"resolution {_resolution(told)}; {told['particles']} "
        f"particles, {told['iterations']} iterations, {told['seconds']:.0f} s: {out}/report.html"
    )
    for finding in told["verdict"]["findings"]:
        typer.echo(f"verdict: {finding['state']} ({finding['code']}): {finding['sentence']}")


def _resolution(told: Mapping[str, Any]) -> str:
    """What to state first, and the crossing where that is another."""
    crossing, claimed = told["resolution_A"], told["claimed_resolution_A"]
    how = "FSC 0.143, in the mask, corrected by phase randomisation"
    if crossing is None:
        return f"no resolution: the half maps agree nowhere ({how})"
    if told.get("resolution_withheld_by"):
        return f"not to be stated: {told['resolution_withheld_by']} (half maps cross at {crossing:.2f} A; {how})"
    if claimed is None:
        return f"cannot be stated: few voxels leave it open (crossing at {crossing:.2f} A; {how})"
    if claimed > crossing:
        return f"to be stated {claimed:.2f} A, crossing at {crossing:.2f} A, which few voxels leave open ({how})"
    return f"{crossing:.2f} A ({how})"
