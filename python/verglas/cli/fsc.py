"""``verglas fsc``: Fourier shell correlation of two maps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from verglas.run.maps import FSC, PhaseResidual, SpectralF

_LIMITS_DEG = (45.0, 85.0)  # usual for the phase residual
_CHANCE = 0.05


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas fsc half1.mrc half2.mrc --mask mask.mrc --plot fsc.png")
    def fsc(
        first: Path = typer.Argument(..., help="Map (MRC)."),
        second: Path = typer.Argument(..., help="Map of the same shape and pixel size."),
        mask: Path = typer.Option(None, "--mask", help="Mask, multiplied with both maps."),
        threshold: float = typer.Option(0.143, "--threshold", help="FSC at which the resolution is read first."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Imposed on both maps: for voxel counts."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
        hands: bool = typer.Option(
            False, "--hands", help="Turn the second map and its mirror image onto the first: which hand fits?"
        ),
        phase_residual: bool = typer.Option(
            False, "--phase-residual", help="Also the differential phase residual, for maps of one grey scale."
        ),
        ssnr: bool = typer.Option(
            False, "--ssnr", help="Also the SSNR of their mean by the F statistic, for maps of one grey scale."
        ),
        plot: Path = typer.Option(None, "--plot", help="Write a figure: .png, .svg or .pdf."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, with the curve."),
    ) -> None:
        """Fourier shell correlation of two maps, and the resolution in A at which it falls below thresholds.

        Two half maps: 0.143. A map against a model or a better map: 0.5. A mask raises the curve by itself: verglas
        postprocess corrects for that.
        """
        _refuse_impossible(threshold, pixel_size, plot)
        if hands:
            if mask or symmetry != "C1" or phase_residual or ssnr:
                what = "takes none of --mask, --symmetry, --phase-residual and --ssnr"
                raise typer.BadParameter(what, param_hint="--hands")
            _both_hands(first, second, threshold, pixel_size, plot, as_json=as_json)
            return
        if ssnr and (mask or symmetry != "C1"):
            what = "counts every voxel as one of its own: it takes neither --mask nor --symmetry"
            raise typer.BadParameter(what, param_hint="--ssnr")
        from verglas.run.maps import fsc_of_files, phase_residual_of_files, ssnr_of_files

        repeats = ssnr_of_files(first, second, pixel_size) if ssnr else None
        phases = None
        if phase_residual:
            phases = phase_residual_of_files(first, second, mask, pixel_size, symmetry=symmetry)
        fsc = phases.fsc if phases else fsc_of_files(first, second, mask, pixel_size, symmetry=symmetry)
        if plot is not None:
            from verglas.report.curves import write_fsc

            write_fsc({"masked" if mask else "unmasked": fsc}, plot, ("half-bit", "3sigma", 0.5, threshold))
        if as_json:
            more = {"phase_residual": _phases_as_dict(phases)} if phases else {}
            more |= {"ssnr": _ssnr_as_dict(repeats)} if repeats else {}
            typer.echo(json.dumps(_as_dict(fsc, threshold) | more, indent=2))
            return
        typer.echo(_sentence(fsc, threshold, masked=mask is not None))
        typer.echo(_all_thresholds(fsc))
        if phases:
            typer.echo(_phases_sentence(phases))
        if repeats:
            typer.echo(_ssnr_sentence(repeats, fsc))


def _refuse_impossible(threshold: float, pixel_size: float | None, plot: Path | None) -> None:
    if not 0 < threshold < 1:
        raise typer.BadParameter(f"expected a number between 0 and 1, got {threshold:g}", param_hint="--threshold")
    if pixel_size is not None and not pixel_size > 0:
        raise typer.BadParameter(f"expected a positive number of A, got {pixel_size:g}", param_hint="--pixel-size")
    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"expected .png, .svg or .pdf, got {plot}", param_hint="--plot")


def _both_hands(
    first: Path, second: Path, threshold: float, pixel_size: float | None, plot: Path | None, *, as_json: bool
) -> None:
    from verglas.run.hands import fsc_of_hands_files

    both = fsc_of_hands_files(first, second, pixel_size)
    if plot is not None:
        from verglas.report.curves import write_fsc

        write_fsc({"as given": both.as_given, "mirrored": both.mirrored}, plot, (0.5, threshold))
    if as_json:
        record = {
            "same_hand": both.same_hand,
            "decided": both.is_decided,
            "margin": both.margin,
            "correlation": {"as_given": both.correlation_as_given, "mirrored": both.correlation_mirrored},
            "as_given": _as_dict(both.as_given, threshold),
            "mirrored": _as_dict(both.mirrored, threshold),
        }
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"as given: {_sentence(both.as_given, threshold, masked=False)}")
    typer.echo(f"mirrored: {_sentence(both.mirrored, threshold, masked=False)}")
    if not both.is_decided:
        typer.echo(f"which hand {second} has cannot be told: it and its mirror image fit alike ({both.margin:+.3f})")
        return
    hand = "the same hand" if both.same_hand else "the other hand: verglas flip-hand mirrors it"
    side = "above" if both.same_hand else "below"
    typer.echo(f"{second} has {hand} (mean FSC {abs(both.margin):.3f} {side} its mirror image's)")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_dict(fsc: FSC, threshold: float) -> dict[str, Any]:
    return {
        "resolution_A": _finite(fsc.resolution_A(threshold)),
        "threshold": threshold,
        "resolutions_A": {name: _finite(value) for name, value in fsc.resolutions_A().items()},
        "untestable_thresholds": [name for name, value in fsc.resolutions_A().items() if math.isnan(value)],
        "limited_by_sampling": not fsc.crosses(threshold),
        "pixel_size_A": fsc.pixel_size_A,
        "frequency_per_A": fsc.frequency_per_A.tolist(),
        "fsc": fsc.curve.tolist(),
        "counts": fsc.counts.tolist(),
        "independent_counts": fsc.n.tolist(),
    }


def _phases_as_dict(phases: PhaseResidual) -> dict[str, Any]:
    bound = phases.noise_bound_deg(_CHANCE)
    return {
        "resolutions_A": {f"{limit:g}": _finite(phases.resolution_A(limit)) for limit in _LIMITS_DEG},
        "beyond_chance_A": _finite(phases.resolution_A(bound)),
        "residual_deg": phases.residual_deg.tolist(),
        "noise_bound_deg": bound.tolist(),
    }


def _ssnr_as_dict(repeats: SpectralF) -> dict[str, Any]:
    return {"f": repeats.f.tolist(), "p_value": repeats.p_value.tolist(), "of_mean": repeats.ssnr_of_mean.tolist()}


def _ssnr_sentence(repeats: SpectralF, fsc: FSC) -> str:
    """Where the SSNR of the mean falls below 1, and where F is first what noise alone would give."""
    ends = {"SSNR 1": repeats.ssnr_of_mean < 1, f"chance (p {_CHANCE:g})": repeats.p_value > _CHANCE}
    said = []
    for name, fallen in ends.items():
        shells = [shell for shell in range(1, len(fallen)) if fallen[shell]]
        end_A = 1 / fsc.frequency_per_A[shells[0]] if shells else 2 * fsc.pixel_size_A
        said.append(_at_threshold(name, float(end_A)) + ("" if shells else " or better"))
    return f"by the F statistic of the two: {', '.join(said)}"


def _phases_sentence(phases: PhaseResidual) -> str:
    limits: list[tuple[str, Any]] = [(f"{limit:g} degrees", limit) for limit in _LIMITS_DEG]
    limits.append((f"chance ({_CHANCE:g} of shells of noise at most)", phases.noise_bound_deg(_CHANCE)))
    said = ", ".join(_at_threshold(name, phases.resolution_A(limit)) for name, limit in limits)
    return f"by phase residual: {said}"


def _sentence(fsc: FSC, threshold: float, *, masked: bool) -> str:
    resolution = fsc.resolution_A(threshold)
    kind = "masked" if masked else "unmasked"
    if not math.isfinite(resolution):
        return f"no resolution: the FSC ({kind}) is below {threshold:g} from its first shell"
    if not fsc.crosses(threshold):
        return f"{resolution:.2f} A or better: the FSC ({kind}) stays above {threshold:g} up to the last shell"
    return f"{resolution:.2f} A at FSC {threshold:g} ({kind})"


def _all_thresholds(fsc: FSC) -> str:
    """One line with the resolution at each of the usual thresholds."""
    return "by threshold: " + ", ".join(_at_threshold(*one) for one in fsc.resolutions_A().items())


def _at_threshold(name: str, resolution_A: float) -> str:
    if math.isnan(resolution_A):
        return f"{name} not testable (too few voxels in every shell)"
    return f"{name} {resolution_A:.2f} A" if math.isfinite(resolution_A) else f"{name} none"
