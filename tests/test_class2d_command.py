"""verglas class2d and select: folder, page and selections; levels and cores as columns."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command_line import main
from planted_classes import planted, share_right

import verglas as vg

pytestmark = pytest.mark.drawn


def test_command_line(tmp_path, capsys):
    particles, truth = planted(120, snr=0.3)
    vg.write_particles(tmp_path / "p.star", particles)
    out = tmp_path / "out"
    status, text, _ = main(
        [
            "class2d",
            str(tmp_path / "p.star"),
            "-K",
            "4",
            "--diameter",
            "170",
            "--max-resolution",
            "18",
            "--out",
            str(out),
            "--repeats",
            "1",
            "--json",
        ],
        capsys,
    )
    assert status == 0
    summary = json.loads(text)
    assert summary["signal"]
    assert sum(c["particles"] for c in summary["classes"]) == 120
    assert all(0 <= c["stability"] <= 1 for c in summary["classes"])
    page = (out / "classes.html").read_text()
    assert page.count('type="checkbox"') == 5
    assert "http" not in page.replace("http-equiv", "")
    (out / "classes.html").unlink()
    assert main(["report", str(out)], capsys)[0] == 0  # the page again, from the files of the folder
    again = (out / "classes.html").read_text()
    without_time = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+")
    assert without_time.sub("", again) == without_time.sub("", page)
    assert (out / "classes.png").read_bytes()[1:4] == b"PNG"
    assert len(vg.io.read_stack(out / "averages.mrcs")) == 5
    written = vg.read_particles(out / "particles.star")
    assert share_right(written.table["rlnClassNumber"].to_numpy(int) - 1, truth) >= 0.8

    own = written.table["rlnClassNumber"].to_numpy(int)
    status, text, _ = main(
        ["select", str(out / "particles.star"), "--classes", "1,3-4", "--out", str(tmp_path / "s.star")], capsys
    )
    assert status == 0
    assert len(vg.read_particles(tmp_path / "s.star")) == np.isin(own, (1, 3, 4)).sum()
    best = summary["classes"][0]["resolution_A"]
    main(
        [
            "select",
            str(out / "particles.star"),
            "--min-resolution",
            f"{best + 0.01}",
            "--min-size",
            "2",
            "--out",
            str(tmp_path / "r.star"),
        ],
        capsys,
    )
    assert 1 in vg.read_particles(tmp_path / "r.star").table["rlnClassNumber"].to_numpy(int)
    (tmp_path / "selection.star").write_text("\ndata_selection\n\nloop_\n_rlnClassNumber #1\n2\n3\n\n")
    main(
        [
            "select",
            str(out / "particles.star"),
            "--table",
            str(tmp_path / "selection.star"),
            "--out",
            str(tmp_path / "t.star"),
        ],
        capsys,
    )
    assert len(vg.read_particles(tmp_path / "t.star")) == np.isin(own, (2, 3)).sum()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--classes", "x"], 2), ([], 2), (["--classes", "9"], 1), (["--min-resolution", "-1"], 2)],
)
def test_select_refuses(arguments, status, tmp_path, capsys):
    particles = vg.Particles.from_images(np.random.default_rng(0).standard_normal((4, 8, 8)), 4.0)
    vg.write_particles(tmp_path / "p.star", particles.with_columns(rlnClassNumber=[1, 1, 2, 2]))
    got, _, err = main(["select", str(tmp_path / "p.star"), "--out", str(tmp_path / "o.star"), *arguments], capsys)
    assert got == status
    assert err


@pytest.mark.slow
def test_levels_and_cores_are_columns_and_select_takes_cores(tmp_path, capsys):
    vg.write_particles(tmp_path / "p.star", planted(160, snr=0.5, seed=4)[0])
    out = tmp_path / "out"
    arguments = [
        "--classes",
        "4",
        "--diameter",
        "170",
        "--max-resolution",
        "18",
        "--start",
        "split",
        "--iterations",
        "6",
    ]
    status, _, _ = main(["class2d", str(tmp_path / "p.star"), *arguments, "--core", "--out", str(out)], capsys)
    assert status == 0
    table = vg.read_particles(out / "particles.star").table
    assert set(table["verglasLevel1"]) <= {1, 2, 3}  # two classes, and the empty one
    assert {"verglasLevel2", "verglasCore", "verglasStableCore"} <= set(table)
    in_class = table["rlnClassNumber"].to_numpy(int) <= 4
    core = table["verglasCore"].to_numpy(int)
    assert core[in_class].mean() > 0.85
    assert not core[~in_class].any()
    kept = tmp_path / "kept.star"
    assert main(["select", str(out / "particles.star"), "--core", "--out", str(kept)], capsys)[0] == 0
    both = (core > 0) & (table["verglasStableCore"].to_numpy(int) > 0)
    assert len(vg.read_particles(kept)) == both.sum()
    assert (
        "no column verglasCore" in main(["select", str(tmp_path / "p.star"), "--core", "--out", str(kept)], capsys)[2]
    )
