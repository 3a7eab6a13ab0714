"""relion_postprocess (RELION 3.1, Debian) beside verglas postprocess on the same half maps and mask.

    python bench/compare_relion_postprocess.py [--box 128] [--pixel-size 1.3] [--b-factor 90]

Half maps of a phantom with a known B-factor and independent white noise; mask from verglas. Both commands are timed
from start to end, reading and writing included, verglas with 1 thread beside RELION's one, and with all; each also
draws its figures. Reported: differences of the four FSC curves up to the resolution, resolution, fitted B (10 A to the
resolution) beside that of the map without noise, and the correlation of the sharpened maps with the truth at full
sharpness inside the mask.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from child import VERGLAS, run

import verglas as vg
from verglas import io
from verglas.assessment import guinier, solvent_mask

from common import write

_CURVES = {
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "phase_randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "corrected": "rlnFourierShellCorrelationCorrected",
}


def make_maps(folder: Path, box: int, pixel_size_A: float, b_factor_A2: float) -> vg.Map:
    """Half maps and mask; returns the truth without the B-factor."""
    model = vg.simulate.phantom(box, pixel_size_A, 0.68 * box * pixel_size_A, seed=5)
    blurred = vg.simulate.density(model, box, pixel_size_A, b_factor_A2=b_factor_A2)
    rng = np.random.default_rng(0)
    pair = [blurred.with_data(blurred.data + 3 * blurred.data.std() * rng.normal(size=(box,) * 3)) for _ in range(2)]
    for number, half in enumerate(pair, 1):
        vg.write_map(folder / f"half{number}.mrc", half)
    vg.write_map(folder / "blurred.mrc", blurred)
    vg.write_map(folder / "mask.mrc", solvent_mask(blurred.with_data(0.5 * (pair[0].data + pair[1].data))))
    return vg.simulate.density(model, box, pixel_size_A)


def likeness(path: Path, truth: vg.Map, mask: vg.Map, resolution_A: float) -> float:
    """Correlation with the truth low-passed to the resolution, inside the mask."""
    sharp = vg.filters.apply(truth, vg.filters.low_pass(resolution_A)).data
    inside = mask.data > 0.5
    return float(np.corrcoef(vg.read_map(path, truth.pixel_size_A).data[inside], sharp[inside])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel-size", type=float, default=1.3)
    parser.add_argument("--b-factor", type=float, default=90.0)
    args = parser.parse_args()
    if shutil.which("relion_postprocess") is None:
        raise SystemExit("relion_postprocess is not on PATH (Debian: apt-get install relion)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make_maps(folder, args.box, args.pixel_size, args.b_factor)
        command = [*VERGLAS, "postprocess", "half1.mrc", "half2.mrc"]
        ours = [*command, "--mask", "mask.mrc", "--out"]
        seconds, memory_GB, _ = run([*ours, "ours"], folder)
        seconds_1, *_ = run([*ours, "ours1", "--threads", "1"], folder)
        (folder / "theirs").mkdir()
        theirs = [
            "relion_postprocess",
            "--i",
            "half1.mrc",
            "--i2",
            "half2.mrc",
            "--mask",
            "mask.mrc",
            "--o",
            "theirs/post",
            "--angpix",
            str(args.pixel_size),
            "--auto_bfac",
            "--autob_lowres",
            "10",
        ]
        relion_seconds, relion_memory_GB, _ = run(theirs, folder)
        row = compare(folder, truth)
    row |= {
        "box": args.box,
        "pixel_size_A": args.pixel_size,
        "planted_b_factor_A2": args.b_factor,
        "seconds": seconds,
        "seconds_1_thread": seconds_1,
        "relion_seconds": relion_seconds,
        "memory_MB": 1e3 * memory_GB,
        "relion_memory_MB": 1e3 * relion_memory_GB,
    }
    print(json.dumps(row, indent=2))
    write("compare_relion_postprocess", [row])


def compare(folder: Path, truth: vg.Map) -> dict[str, float]:
    """Differences of curves and numbers."""
    record = io.read_json(folder / "ours" / "postprocess.json")
    table = io.read_csv(folder / "ours" / "fsc.csv")
    tables = io.read_star(folder / "theirs" / "post.star")
    other, general = tables["fsc"], tables["general"]
    resolution = float(general["rlnFinalResolution"])
    shells = slice(1, round(truth.box * truth.pixel_size_A / resolution) + 1)
    row = {}
    for name, label in _CURVES.items():
        difference = np.abs(table[name].to_numpy() - other[label].to_numpy()[: len(table)])
        row[f"{name}_largest_difference"] = float(difference[shells].max())
        row[f"{name}_mean_difference"] = float(difference[shells].mean())
    mask, clean = (vg.read_map(folder / f"{name}.mrc") for name in ("mask", "blurred"))
    row |= {
        "b_factor_without_noise_A2": guinier(clean, band_A=(10.0, resolution)).b_factor_A2,
        "resolution_A": record["resolution_A"],
        "relion_resolution_A": resolution,
        "b_factor_A2": record["fitted_b_factor_A2"],
        "b_factor_error_A2": record["fitted_b_factor_error_A2"],
        "relion_b_factor_A2": -float(general["rlnBfactorUsedForSharpening"]),
        "likeness": likeness(folder / "ours" / "map_sharpened.mrc", truth, mask, resolution),
        "relion_likeness": likeness(folder / "theirs" / "post.mrc", truth, mask, resolution),
    }
    return row


if __name__ == "__main__":
    main()
