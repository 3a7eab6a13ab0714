"""Small simulated micrographs for the tests of ``verglas process``, and a child process that runs it."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile

import verglas as vg
from verglas import simulate
from verglas.cli import main

from blank_figures import child

PIXEL_A, DIAMETER_A, SHAPE = 3.0, 120.0, (480, 480)
OPTIONS = ["--diameter", "120", "--pixel-size", "3", "--threads", "1"]
GIVEN = {"diameter_A": DIAMETER_A, "pixel_size_A": PIXEL_A, "threads": 1}


def scene(seed: int, model=None, **more):
    """One micrograph with 30 particles at a defocus of its own, and its truth."""
    model = model or simulate.phantom(32, 6.0, DIAMETER_A, seed=1)
    chosen = {
        "shape": SHAPE,
        "pixel_size_A": PIXEL_A,
        "n": 30,
        "snr": 0.5,
        "ice": 0.4,
        "b_factor_A2": 80.0,
        "defocus_u_A": 15000.0 + 1500 * seed,
    } | more
    return simulate.micrograph(model, seed=seed, **chosen)


def write_set(folder: Path, count: int) -> dict[str, object]:
    """Micrographs m0.mrc, m1.mrc, ... and their truth by path."""
    model = simulate.phantom(32, 6.0, DIAMETER_A, seed=1)
    truth = {}
    for seed in range(count):
        m, truth_of_m = scene(seed, model)
        path = folder / f"m{seed}.mrc"
        vg.io.write_stack(path, m.data[None], PIXEL_A)
        truth[str(path)] = truth_of_m
    return truth


def write_bad(folder: Path) -> dict[str, str]:
    """What can be wrong with a file of a micrograph -> a word of the reason it must be given."""
    rng = np.random.default_rng(5)
    image = scene(40, defocus_u_A=18000.0)[0].data
    tifffile.imwrite(folder / "whole.tif", image)
    (folder / "cut.tif").write_bytes((folder / "whole.tif").read_bytes()[: image.nbytes // 2])
    (folder / "whole.tif").unlink()
    tifffile.imwrite(folder / "colour.tif", rng.integers(0, 255, (96, 96, 3)).astype(np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "movie.tif", np.stack([image] * 3), photometric="minisblack")
    vg.io.write_stack(folder / "movie.mrc", np.stack([image] * 2), PIXEL_A)
    holed = image.copy()
    holed[100:140, 200:260] = np.nan
    vg.io.write_stack(folder / "nan.mrc", holed[None], PIXEL_A)
    vg.io.write_stack(folder / "zero.mrc", np.zeros((1, *SHAPE), np.float32), PIXEL_A)
    vg.io.write_stack(folder / "pixel.mrc", scene(41, defocus_u_A=18000.0)[0].data[None], 2 * PIXEL_A)
    return {
        "cut.tif": "cannot be read|can be read|cut off",
        "colour.tif": "samples",
        "movie.tif": "movie",
        "movie.mrc": "movie",
        "nan.mrc": "not finite",
        "zero.mrc": "constant",
        "pixel.mrc": "pixel size 6 A",
    }


def command(*arguments: object) -> list[str]:
    """``verglas process`` in a process of its own, its figures left blank."""
    return child("process", *arguments)


def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One call of ``verglas process`` inside this process: a new one would load the package again."""
    words, out, err = ["process", *map(str, arguments)], io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main(words)
    done = subprocess.CompletedProcess(words, int(stopped.value.code or 0), out.getvalue(), err.getvalue())
    if check:
        assert done.returncode == 0, done.stderr
    return done


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def states(root: Path) -> dict[str, tuple[str, int]]:
    """File name -> (state, attempts), as another process sees them; none before there is a table."""
    if not (root / "watch.sqlite").is_file():
        return {}
    base = sqlite3.connect(f"file:{root}/watch.sqlite?mode=ro", uri=True, timeout=10)
    try:
        rows = base.execute("SELECT path, state, attempts FROM micrographs").fetchall()
    except sqlite3.OperationalError:  # not made yet
        rows = []
    base.close()
    return {Path(path).name: (state, attempts) for path, state, attempts in rows}


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def whole_records(root: Path) -> dict[str, int]:
    """Results of single micrographs and when they were written."""
    return {f"{p.parent.parent.name}/{p.name}": p.stat().st_mtime_ns for p in root.glob("*/records/[!.]*.json")}
