"""verglas reconstruct and verglas project: files in, files out, exit statuses and sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas.assessment.fsc import ssnr_from_fsc
from verglas.cli import main
from verglas.ops import Grid
from verglas.reconstruction.least_squares import kernel_grid
from verglas.run.reconstruct import memory_plan_GB


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    model = vg.simulate.phantom(24, 5.0, 80.0, symmetry="D2", seed=1)
    vg.simulate.particles(model, 150, 24, 5.0, snr=1.0, out=folder, seed=2)
    return folder


def test_reconstruct_writes_maps_and_says_so(simulated, tmp_path, capsys):
    out = tmp_path / "map.mrc"
    status, text, _ = run(
        capsys, "reconstruct", simulated / "particles.star", "--out", out, "--symmetry", "D2", "--halves", "--json"
    )
    assert status == 0
    summary = json.loads(text)
    assert summary["particles_used"] == 150
    assert summary["particles_excluded"] == {}
    assert [vg.read_map(path).box for path in summary["files"]] == [24, 24, 24]
    truth = vg.read_map(simulated / "truth.mrc")
    assert vg.fsc(vg.read_map(out), truth).curve[1:6].min() > 0.8


def test_wiener_and_methods(simulated, tmp_path, capsys):
    star = simulated / "particles.star"
    for extra in (["--wiener"], ["--method", "direct"], ["--method", "gridding", "--iterations", "3"], ["--no-ctf"]):
        out = tmp_path / f"{extra[0].strip('-')}.mrc"
        status, text, err = run(capsys, "reconstruct", star, "-o", out, "--max-resolution", "12", *extra)
        assert status == 0, err
        assert "150 particles" in text
        assert np.isfinite(vg.read_map(out).data).all()


def test_wiener_reads_no_more_than_any_reconstruction(simulated, tmp_path, capsys, monkeypatch):
    """Images: once to find those far out, once to insert; the weighted map is that of a run that is told the SSNR."""
    opened, seen = [], []
    read, images = vg.read_particles, vg.Particles.images
    monkeypatch.setattr("verglas.run.reconstruct.read_particles", lambda *a, **k: opened.append(a) or read(*a, **k))

    def counted(self, rows=None):
        made = images(self, rows)
        seen.append(len(made))
        return made

    monkeypatch.setattr(vg.Particles, "images", counted)
    out = tmp_path / "map.mrc"
    status, _, err = run(capsys, "reconstruct", simulated / "particles.star", "-o", out, "--wiener")
    assert status == 0, err
    assert "150 particles of 24 px" in err
    assert len(opened) == 1
    assert sum(seen) == 2 * 150
    halves = [vg.read_map(tmp_path / f"map_half{k}.mrc") for k in (1, 2)]
    ssnr = 2 * ssnr_from_fsc(np.clip(vg.fsc(*halves).curve[:12], 0, 0.9999))
    again = vg.reconstruct(read(simulated / "particles.star"), ssnr=ssnr)
    np.testing.assert_allclose(vg.read_map(out).data, again.data, atol=1e-5 * np.abs(again.data).max())


def test_project_round_trip(simulated, tmp_path, capsys):
    """Projections at the particles' poses are the clean images: they correlate with the noisy ones as the SNR says."""
    out = tmp_path / "views.mrcs"
    status, text, _ = run(
        capsys, "project", simulated / "truth.mrc", "--particles", simulated / "particles.star", "--out", out
    )
    assert status == 0
    assert "150 projections" in text
    clean = vg.read_particles(out.with_suffix(".star")).images(np.arange(150))
    noisy = vg.read_particles(simulated / "particles.star").images(np.arange(150))
    correlation = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(clean, noisy, strict=True)])
    assert correlation == pytest.approx(np.sqrt(1 / 2), abs=0.03)


def test_project_over_a_grid(simulated, tmp_path, capsys):
    out = tmp_path / "grid.mrcs"
    status, text, _ = run(capsys, "project", simulated / "truth.mrc", "--step", "30", "-o", out, "--json")
    assert status == 0
    directions, _ = vg.orientation_grid(30)
    assert json.loads(text)["images"] == len(directions) == len(vg.read_particles(out.with_suffix(".star")))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["reconstruct", "{star}", "-o", "{out}", "--method", "magic"], 2, "least-squares"),
        (["reconstruct", "{star}", "-o", "{out}", "--max-resolution", "-3"], 2, "more than 0"),
        (["reconstruct", "{star}", "-o", "{out}", "--symmetry", "Z3"], 1, "Z3"),
        (["reconstruct", "nowhere.star", "-o", "{out}"], 1, "nowhere.star"),
        (["reconstruct", "{folder}", "-o", "{out}"], 1, "is a folder"),
        (["reconstruct", "{star}", "-o", "{folder}"], 1, "is a folder"),
        (["reconstruct", "{star}", "-o", "/proc/map.mrc"], 1, "cannot write /proc/map.mrc"),
        (["project", "{map}", "-o", "{out}", "--step", "0"], 2, "degrees"),
        (["project", "{map}", "-o", "views.png"], 2, ".mrcs"),
    ],
)
def test_bad_arguments(simulated, tmp_path, capsys, arguments, status, words):
    names = {
        "star": simulated / "particles.star",
        "map": simulated / "truth.mrc",
        "out": tmp_path / "x.mrc",
        "folder": tmp_path,
    }
    got, _, err = run(capsys, *[a.format(**names) for a in arguments])
    assert got == status
    assert words in err
    assert "Traceback" not in err


def test_memory_plan_counts_the_sums():
    """The plan is what the arrays of the run add up to."""
    box, radius = 64, 31
    sums = np.prod(Grid(box).shape) * 16 + np.prod(kernel_grid(box, radius).shape) * 8
    assert memory_plan_GB(box, radius, "least-squares", halves=False) * 1e9 > sums
    assert memory_plan_GB(box, radius, "direct", halves=True) > memory_plan_GB(box, radius, "direct", halves=False)
