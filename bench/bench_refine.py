"""``verglas refine`` on simulated particles: against the truth, against overfitting, against size, and with classes.

    python bench/bench_refine.py [--only truth,overfit,scaling,classes] [--n 3000] [--box 128] ...

writes bench/results/refine_<part>.json, and docs/figures/refine_scaling.png from the JSON of "scaling" (``--plot``
alone draws it again). Every refinement is a command of its own: seconds and peak memory are those a user sees.

- truth: SNR 0.05 and 0.02, C1 and D2, from the truth low-passed to 30 A. FSC = 0.5 with the truth of the refined map
  and of the map from the true poses (``vg.reconstruct``, same particles), in no mask and in the refinement's; ratio.
- overfit: phases of the images beyond 10 A are random; half maps must not agree there. The set untouched beside it.
- scaling: number of particles at one box, box at one number of particles and one field of view.
- classes: three phantoms that share most of their density, 50/30/20 percent, from one blurred reference.

``--device cuda:0`` refines on a GPU and writes bench/results/refine_cuda_<part>.json. The figure of the CUDA issue:
``--device cuda:0 --only truth --n 100000 --box 128 --snr 0.05 --symmetry C1``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.simulate import Model
from verglas.types.images import ArraySource

from common import RESULTS, ROOT, write
from known_truth import Case, at_half, refine, results

_FIELD_A = 192.0  # of the scaling series
_SHARES = (0.5, 0.3, 0.2)


def truth_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for symmetry, snr in itertools.product(args.symmetry, args.snr):
        case = Case(
            args.n, args.box, args.pixel_size, args.diameter, symmetry, snr, mask_A=args.mask, device=args.device
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            particles = case.write(folder)
            told = refine(case, folder)
            found = results(case, folder, particles)
            mask, truth = vg.read_map(folder / "run" / "mask.mrc"), vg.read_map(folder / "truth.mrc")
            best = vg.reconstruct(particles, symmetry)
            row = {"symmetry": symmetry, "snr": snr, "n": args.n, "box": args.box} | told | found
            row.pop("populations")
            row["true_poses_0.5_A"] = at_half(best, truth)
            row["true_poses_0.5_masked_A"] = at_half(best, truth, mask)
            row["ratio_masked"] = row["truth_0.5_masked_A"] / row["true_poses_0.5_masked_A"]
            row["ratio"] = row["truth_0.5_A"] / row["true_poses_0.5_A"]
            rows.append(row)
    return rows


def randomised(particles: vg.Particles, finest_A: float, folder: Path, seed: int = 0) -> None:
    """``noise.star``: the images with random phases beyond a resolution, amplitudes kept (Chen et al. 2013)."""
    images, box = particles.images(), particles.box
    radius = np.hypot(np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)) / particles.pixel_size_A
    rng = np.random.default_rng(seed)
    for image in images:
        spectrum = np.fft.rfft2(image)
        random = np.fft.rfft2(rng.standard_normal((box, box)))  # phases of a real image
        beyond = radius > 1 / finest_A
        spectrum[beyond] = np.abs(spectrum[beyond]) * random[beyond] / np.abs(random[beyond])
        image[:] = np.fft.irfft2(spectrum, (box, box))
    made = particles.with_source(ArraySource(images, particles.pixel_size_A))
    vg.write_particles(folder / "noise.star", made, stack=folder / "noise.mrcs")


def overfit_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    case = Case(args.n, args.box, args.pixel_size, args.diameter, snr=args.snr[0], mask_A=args.mask, device=args.device)
    for stack, what in (("noise", f"phases random beyond {args.randomise:g} A"), ("particles", "untouched")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            particles = case.write(folder)
            if stack == "noise":
                randomised(particles, args.randomise, folder)
            told = refine(case, folder, stack=stack)
            table = np.genfromtxt(folder / "run" / "fsc.csv", delimiter=",", names=True)
            beyond = table["frequency_per_A"] > 1.1 / args.randomise
            row = {"what": what, "n": args.n, "box": args.box, "snr": case.snr} | told
            row.pop("populations")
            for curve in ("unmasked", "masked", "corrected"):
                row[f"mean_{curve}_beyond"] = float(table[curve][beyond].mean())
                row[f"largest_{curve}_beyond"] = float(table[curve][beyond].max())
            rows.append(row)
    for row in rows:
        row["resolution_ratio"] = (row["resolution_A"] or np.nan) / args.randomise
    return rows


def scaling_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    sizes = [("particles", n, args.scale_box) for n in args.scale_n]
    sizes += [("box", args.scale_n[0], box) for box in args.boxes]
    rows = []
    for series, n, box in sizes:
        case = Case(n, box, _FIELD_A / box, args.diameter, snr=args.snr[0], mask_A=args.mask, device=args.device)
        with tempfile.TemporaryDirectory() as name:
            case.write(Path(name))
            told = refine(case, Path(name))
        told.pop("populations")
        rows.append(
            {
                "series": series,
                "n": n,
                "box": box,
                "ms_per_particle_and_iteration": 1e3 * told["seconds"] / n / told["iterations"],
            }
            | told
        )
    for row in rows:
        first = next(r for r in rows if r["series"] == row["series"])
        row["seconds_on_first"] = row["seconds"] / first["seconds"]
        row["peak_on_planned"] = row["peak_GB"] / row["planned_GB"]
    return rows


def conformations(box: int, pixel_size_A: float) -> list[Model]:
    """A body; the body with one domain; with another elsewhere."""
    body = vg.simulate.phantom(box, pixel_size_A, 100.0, seed=0)
    domains = [vg.simulate.phantom(box, pixel_size_A, 45.0, seed=s) for s in (11, 12)]
    places = ((60.0, 0.0, 10.0), (-20.0, 55.0, -15.0))
    made = [body]
    for domain, place in zip(domains, places, strict=True):
        parts = (body, domain.move(np.eye(3), place))
        made.append(
            Model(
                *(
                    np.concatenate([getattr(p, f) for p in parts])
                    for f in ("xyz_A", "elements", "weights", "b_factors_A2")
                ),
                name="body with a domain",
            )
        )
    return made


def class_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    box, pixel_A = args.class_box, _FIELD_A / args.class_box
    case = Case(args.n, box, pixel_A, snr=args.class_snr, mask_A=180.0, device=args.device)
    models = conformations(box, pixel_A)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        true = vg.simulate.particles(
            models,
            args.n,
            box,
            pixel_A,
            args.class_snr,
            folder,
            seed=1,
            populations=_SHARES,
            envelope_b_factor_A2=case.b_factor_A2,
        )
        densities = [case.density(m).data for m in models]
        mean = vg.Map(np.average(densities, axis=0, weights=_SHARES).astype("f4"), pixel_A)
        vg.write_map(folder / "init.mrc", apply(mean, low_pass(case.start_A)))
        told = refine(case, folder, "--classes", str(len(models)))
        found = vg.read_particles(folder / "run" / "particles.star").table["rlnClassNumber"].to_numpy(int) - 1
    truth = true.table["rlnClassNumber"].to_numpy(int) - 1
    k = len(models)
    table = np.bincount(truth * k + found, minlength=k * k).reshape(k, k)
    order = list(max(itertools.permutations(range(k)), key=lambda p: sum(table[i, p[i]] for i in range(k))))
    populations, shares = np.array(told.pop("populations"))[order], np.bincount(truth, minlength=k) / args.n
    row = {"n": args.n, "box": box, "snr": args.class_snr} | told
    for i in range(k):
        row[f"share_{i + 1}"], row[f"found_{i + 1}"] = float(shares[i]), float(populations[i])
    row["largest_difference_points"] = 100 * float(np.abs(populations - shares).max())
    row["right_class"] = float(sum(table[i, order[i]] for i in range(k)) / args.n)
    row["ratio_to_90_percent"] = row["right_class"] / 0.9
    return [row]


def plot() -> Path:
    """docs/figures/refine_scaling.png from bench/results/refine_scaling.json."""
    from verglas.report.style import COLOURS, FAINT, new_figure, png, style_context

    rows = json.loads((RESULTS / "refine_scaling.json").read_text())["rows"]
    with style_context():
        figure = new_figure(9.0, 3.2)
        for axes, series in zip(figure.subplots(1, 2), ("particles", "box"), strict=True):
            some = [r for r in rows if r["series"] == series]
            x = [r["n" if series == "particles" else "box"] for r in some]
            other = axes.twinx()
            axes.semilogx(x, [r["seconds"] for r in some], "o-", color=COLOURS[0])
            other.semilogx(x, [r["peak_GB"] for r in some], "s-", color=COLOURS[1], label="taken")
            other.semilogx(x, [r["planned_GB"] for r in some], "s--", color=FAINT, label="planned")
            axes.set_xticks(x, [f"{v:,}" for v in x])
            axes.minorticks_off()
            axes.set_ylim(0)
            other.set_ylim(0)
            axes.set_xlabel("particles" if series == "particles" else "box (px), same field of view")
            axes.set_ylabel("seconds", color=COLOURS[0])
            other.set_ylabel("peak memory (GB)", color=COLOURS[1])
            other.spines["right"].set_visible(True)
            other.legend(fontsize=8, loc="lower right")
            fixed = f"{some[0]['box']} px" if series == "particles" else f"{some[0]['n']:,} particles"
            axes.set_title(fixed)
        path = ROOT / "docs" / "figures" / "refine_scaling.png"
        path.write_bytes(png(figure))
    return path


def numbers(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=numbers(str), default=["truth", "overfit", "scaling", "classes"])
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel-size", type=float, default=1.5)
    parser.add_argument("--diameter", type=float, default=130.0, help="of the phantom, A")
    parser.add_argument("--mask", type=float, default=165.0, help="diameter that the refinement is told, A")
    parser.add_argument("--snr", type=numbers(float), default=[0.05, 0.02], help="overfit and scaling take the first")
    parser.add_argument("--symmetry", type=numbers(str), default=["C1", "D2"])
    parser.add_argument("--randomise", type=float, default=10.0, help="overfit: finest resolution left, A")
    parser.add_argument("--scale-n", type=numbers(int), default=[1000, 2000, 4000, 8000])
    parser.add_argument("--scale-box", type=int, default=64)
    parser.add_argument("--boxes", type=numbers(int), default=[64, 128, 192])
    parser.add_argument("--class-box", type=int, default=64)
    parser.add_argument("--class-snr", type=float, default=0.1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, cuda:0,cuda:1 or cuda")
    parser.add_argument("--plot", action="store_true", help="only draw the figure of the last results")
    args = parser.parse_args()
    parts = {"truth": truth_rows, "overfit": overfit_rows, "scaling": scaling_rows, "classes": class_rows}
    unknown = sorted(set(args.only) - set(parts))
    if unknown:
        raise SystemExit(f"--only: expected some of {', '.join(parts)}, got {', '.join(unknown)}")
    for part in () if args.plot else args.only:
        name = f"refine_{part}" if args.device == "cpu" else f"refine_cuda_{part}"
        write(name, parts[part](args), device=args.device)
    if args.plot or ("scaling" in args.only and args.device == "cpu"):
        print(f"wrote {plot()}")


if __name__ == "__main__":
    main()
