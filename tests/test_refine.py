"""vg.refine and verglas refine: results, run folder, resume, bad input."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.cli import main
from verglas.geometry import angular_distance
from verglas.io import read_json, write_json
from verglas.run.checkpoint import Checkpoint, checkpoint_path, read_checkpoint, write_checkpoint
from verglas.run.refine_folder import refuse_changes
from verglas.run.refine_verdict import judge_refinement
from verglas.types.listener import Silence

pytestmark = pytest.mark.usefixtures("blank_figures_of_module", "no_verdict_of_module")

BOX, PIXEL_A, DIAMETER_A = 32, 4.0, 90.0
CHOICES = {"diameter_A": DIAMETER_A, "initial_resolution_A": 25.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, vg.Particles, vg.Map]:
    """A stack on disk with its truth."""
    folder = tmp_path_factory.mktemp("refine")
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A)
    particles = vg.simulate.particles(model, 120, BOX, PIXEL_A, snr=1.0, out=folder, seed=1)
    return folder, particles, vg.read_map(folder / "truth.mrc")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, vg.run.refine.Refinement] | tuple:
    """As every run ends, with its verdict."""
    out = tmp_path_factory.mktemp("runs") / "run1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.run.refine.judge_refinement", judge_refinement)
        return out, vg.refine(data[1], data[2], out=out, **CHOICES)


@pytest.fixture(scope="module")
def begun(data):
    """Two iterations, in memory: enough to see what a reference does."""
    return vg.refine(data[1], data[2], iterations=2, listener=None, **CHOICES)


def expected_after(iterations, request):
    """What the true reference gives after as many iterations."""
    return request.getfixturevalue("begun") if iterations else request.getfixturevalue("finished")[1]


def agreement(found, truth: vg.Map) -> float:
    return vg.fsc(found.map, truth).resolution_A(0.5)


def test_from_a_blurred_start_to_the_truth(data, finished):
    _, particles, truth = data
    _, found = finished
    error = angular_distance(found.particles.poses.angles_deg, particles.poses.angles_deg)
    shift = np.hypot(*(found.particles.poses.shifts_A - particles.poses.shifts_A).T)
    assert np.median(error) < 3
    assert np.median(shift) < 1.0
    known = vg.reconstruct(particles)
    assert agreement(found, truth) < 1.15 * vg.fsc(known, truth).resolution_A(0.5)
    assert found.iterations["phase"].iloc[0] == "grid"
    assert found.iterations["phase"].iloc[-1] == "local"
    # Angles become better known from iteration to iteration, posteriors sharper.
    assert found.iterations["effective_poses"].iloc[-1] <= found.iterations["effective_poses"].iloc[0]


def test_run_folder_is_the_contract(data, finished):
    out, found = finished
    names = {p.name for p in out.iterdir()}
    assert names >= {
        "run.json",
        "iterations.csv",
        "map.mrc",
        "map_sharpened.mrc",
        "half1.mrc",
        "half2.mrc",
        "mask.mrc",
        "fsc.csv",
        "guinier.csv",
        "postprocess.json",
        "particles.star",
        "excluded.csv",
        "checkpoint",
        "history",
        "report.html",
    }
    run = read_json(out / "run.json")
    assert (run["state"], run["run_state"], run["converged"]) == ("converged", "finished", True)
    assert run["settings"]["diameter_A"] == DIAMETER_A
    assert run["n_particles"] == 120
    assert set(run["memory_plan"]) == {"grid", "poses", "reconstruction", "credible radii", "page"}
    assert run["forecast"]["processor_seconds"] > 1
    assert run["eta_seconds"] is None  # nothing is left of a finished run
    assert [note["code"] for note in run["notes"] if note["state"] == "go on"] == ["grey_scale"]
    rows = pd.read_csv(out / "iterations.csv")
    assert list(rows["iteration"]) == list(range(1, len(rows) + 1))
    assert len(list((out / "history").glob("*.npz"))) == len(rows)
    written = vg.read_particles(out / "particles.star")
    for column in (
        "rlnMaxValueProbDistribution",
        "rlnLogLikeliContribution",
        "rlnNormCorrection",
        "rlnGroupNumber",
        "rlnRandomSubset",
        "rlnClassNumber",
    ):
        assert column in written.table
    assert np.allclose(written.poses.angles_deg, found.particles.poses.angles_deg, atol=1e-4)
    assert written.table["rlnMaxValueProbDistribution"].between(0, 1).all()
    halves = [vg.read_map(out / f"half{n}.mrc") for n in (1, 2)]
    assert np.array_equal(halves[0].data, found.half_maps[0].data)
    assert "data:image/png;base64" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [2, None])  # None: to convergence
def test_the_grey_scale_of_the_reference_does_not_matter(data, request, iterations):
    """Without matching, a reference 50 times too strong gives flat posteriors elsewhere and a walk away."""
    _, particles, truth = data
    said = []
    how = CHOICES | {"iterations": iterations} if iterations else CHOICES
    found = vg.refine(particles, vg.Map(50 * truth.data, PIXEL_A), listener=_Told(said), **how)
    # float32 products with 50 round otherwise than without
    expected = expected_after(iterations, request)
    assert found.resolution_A == pytest.approx(expected.resolution_A, rel=0.01)
    if iterations:
        assert found.particles.poses.angles_deg == pytest.approx(expected.particles.poses.angles_deg, abs=0.1)
    assert any("multiplied by 0.02" in line or "multiplied by 0.019" in line for line in said)


class _Told(Silence):
    """Keeps what a refinement says; may stop it after an iteration."""

    def __init__(self, said: list[str], stop_after: int | None = None) -> None:
        self.said, self.stop_after = said, stop_after

    def say(self, line: str) -> None:
        self.said.append(line)

    def progress(self, phase: str, done: int, total: int) -> None:
        name, _, number = phase.split(",")[0].partition(" ")
        if self.stop_after is not None and name == "iteration" and int(number) > self.stop_after and done >= total // 2:
            raise KeyboardInterrupt

    def iteration(self, figures) -> None:
        self.said.append(str(figures["iteration"]))


@pytest.mark.parametrize("stop_after", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1)), 3])
def test_a_stopped_run_goes_on_to_the_same_map(data, finished, tmp_path, stop_after):
    _, particles, truth = data
    with pytest.raises(KeyboardInterrupt):
        vg.refine(particles, truth, out=tmp_path / "run", listener=_Told([], stop_after), **CHOICES)
    assert read_json(tmp_path / "run" / "run.json")["state"] == "stopped"
    said: list[str] = []
    found = vg.refine(particles, truth, out=tmp_path / "run", resume=True, listener=_Told(said), **CHOICES)
    numbers = [line for line in said if line.isdigit()]
    assert numbers[0] == str(stop_after + 1)  # the first iteration that was not complete
    assert np.array_equal(found.map.data, finished[1].map.data)
    assert np.array_equal(found.particles.poses.angles_deg, finished[1].particles.poses.angles_deg)
    assert read_json(tmp_path / "run" / "run.json")["state"] == "converged"


@pytest.mark.slow
def test_resume_refuses_other_settings_and_other_particles(data, tmp_path):
    _, particles, truth = data
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        vg.refine(particles, truth, out=out, listener=_Told([], 1), **CHOICES)
    with pytest.raises(vg.InputError, match=r"shift_range_A: was 12\.0, now 9\.0"):
        vg.refine(particles, truth, out=out, resume=True, shift_range_A=9.0, **CHOICES)
    with pytest.raises(vg.InputError, match="n_particles: was 120, now 100"):
        vg.refine(particles[:100], truth, out=out, resume=True, **CHOICES)
    with pytest.raises(vg.InputError, match="holds a run already"):
        vg.refine(particles, truth, out=out, **CHOICES)
    images = particles.images()
    images[-1] += 1
    turned = np.array([1, 0, *range(2, 120)])
    others = {
        "other images": particles.with_source(vg.ArraySource(images, PIXEL_A)),
        "other values or order in column rlnDefocusU": particles.with_columns(rlnDefocusU=np.full(120, 2e4)),
        "other values or order in column": particles[turned],
    }
    for said, other in others.items():
        with pytest.raises(vg.InputError, match=f"started with other particles .*{said}"):
            vg.refine(other, truth, out=out, resume=True, **CHOICES)
    run = read_json(out / "run.json")
    write_json(out / "run.json", run | {"verglas": "0.0.1"})
    with pytest.raises(vg.InputError, match=r"verglas: was 0\.0\.1, now"):
        vg.refine(particles, truth, out=out, resume=True, **CHOICES)
    write_json(out / "run.json", run)
    with pytest.raises(vg.InputError, match="nothing to resume"):
        vg.refine(particles, truth, out=tmp_path / "other", resume=True, **CHOICES)
    found = vg.refine(
        particles, truth, out=out, resume=True, allow_changes=True, shift_range_A=9.0, iterations=2, **CHOICES
    )
    assert len(found.iterations) <= 3
    notes = {note["code"]: note["sentence"] for note in read_json(out / "run.json")["notes"]}
    assert "shift_range_A" in notes["changed_settings"]
    assert refuse_changes(out, {"iterations": 7}, allowed=False) == []
    # Written when regularisation was the factor T.
    write_json(out / "run.json", run | {"settings": {"regularisation": 2.0}})
    now = {"regularisation": "global", "prior_factor": 2.0}
    assert refuse_changes(out, now, allowed=False) == []
    with pytest.raises(vg.InputError, match=r"prior_factor: was 2\.0, now 1\.0"):
        refuse_changes(out, now | {"prior_factor": 1.0}, allowed=False)


@pytest.mark.slow
def test_bad_particles_are_named_and_set_aside(data, tmp_path):
    _, particles, truth = data
    images = particles.images()
    images[3, 5, 5] = np.nan
    images[7] = 2.0
    table = particles.table.assign(rlnCtfScalefactor=np.where(np.arange(120) == 11, 0.0, 1.0))
    broken = vg.Particles(table, vg.ArraySource(images, PIXEL_A), optics_table=particles.optics_table)
    found = vg.refine(broken, truth, out=tmp_path / "run", iterations=2, **CHOICES)
    assert set(found.excluded) == {3, 7, 11}
    assert len(found.particles) == 117
    listed = pd.read_csv(tmp_path / "run" / "excluded.csv")
    assert listed["particle"].tolist() == [3, 7, 11]
    assert listed["reason"].str.len().min() > 5
    assert listed["image"].str.contains("@").all()
    assert np.isfinite(found.map.data).all()


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [2, None])  # None: to convergence
def test_reference_of_another_pixel_size_or_box_is_fitted_and_said(data, request, iterations):
    _, particles, truth = data
    said: list[str] = []
    larger = vg.image.crop_or_pad(truth.data, (40,) * 3)
    coarse = vg.Map(vg.image.fourier_resample(larger, (36,) * 3), PIXEL_A * 40 / 36)
    how = CHOICES | {"iterations": iterations} if iterations else CHOICES
    found = vg.refine(particles, coarse, listener=_Told(said), **how)
    assert any("resampled from 4.44444 to 4 A" in line for line in said)
    assert found.resolution_A == pytest.approx(expected_after(iterations, request).resolution_A, rel=0.1)
    said.clear()
    vg.refine(particles, vg.Map(larger, PIXEL_A), listener=_Told(said), iterations=1, **CHOICES)
    assert any("cropped from 40 to 32 px" in line for line in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diameter_A": 500.0}, "does not fit a box"),
        ({"device": "gpu"}, "expected .cpu. or .cuda:<number>."),
        ({"speed": 3}, "unknown setting speed"),
        ({"memory_GB": 0.05}, "allow more"),
        ({"mode": "max-cc", "classes": 2}, "one reference for each"),
        ({"iterations": 0}, "iterations: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(data, change, message):
    _, particles, truth = data
    with pytest.raises(vg.VerglasError, match=message) as caught:
        vg.refine(particles, truth, **CHOICES | change)
    assert "\n" not in str(caught.value)


def test_wrong_input(data):
    _, particles, truth = data
    with pytest.raises(vg.InputError, match=r"5 of 5 particles can be used.*need 20"):
        vg.refine(particles[:5], truth, **CHOICES)
    with pytest.raises(vg.InputError, match="needs a reference"):
        vg.refine(particles, None, **CHOICES)
    with pytest.raises(vg.InputError, match="empty"):
        vg.refine(particles, vg.Map(np.zeros((BOX,) * 3, np.float32), PIXEL_A), **CHOICES)
    with pytest.raises(vg.InputError, match="inverted reference"):
        vg.refine(particles, vg.Map(-truth.data, PIXEL_A), **CHOICES)
    with pytest.raises(vg.InputError, match="no images"):
        vg.refine(particles.with_source(None), truth, **CHOICES)
    with pytest.raises(vg.InputError, match="the mask has values"):
        vg.refine(particles, truth, mask=vg.Map(truth.data * 9, PIXEL_A), **CHOICES)


def test_local_refinement_starts_from_the_given_poses(data):
    """No reference, no search: poses a few degrees off climb to the truth."""
    _, particles, truth = data
    rng = np.random.default_rng(0)
    off = particles.poses.angles_deg + rng.normal(0, 2.0, (120, 3)) * [0, 1, 1]
    start = particles.with_poses(vg.Poses(off, particles.poses.shifts_A + rng.normal(0, 1, (120, 2))))
    found = vg.refine(start, None, poses="local", **CHOICES)
    before, after = (
        np.median(angular_distance(p.poses.angles_deg, particles.poses.angles_deg)) for p in (start, found.particles)
    )
    assert after < 0.6 * before
    assert set(found.iterations["phase"]) == {"local"}
    assert agreement(found, truth) < 14


@pytest.mark.slow
def test_max_cc_mode(data):
    _, particles, truth = data
    found = vg.refine(particles, truth, mode="max-cc", **CHOICES)
    error = angular_distance(found.particles.poses.angles_deg, particles.poses.angles_deg)
    assert np.median(error) < 4
    assert agreement(found, truth) < 14


@pytest.mark.slow
def test_max_cc_from_20_A_reaches_the_limit_of_the_pixels():
    """Best correlations, then the Wiener sum: all shells below that of two pixels, from a start at 20 A."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A)
    particles = vg.simulate.particles(model, 300, BOX, PIXEL_A, snr=3.0, seed=12, listener=None)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    how = {"mode": "max-cc", "diameter_A": DIAMETER_A, "initial_resolution_A": 20.0, "listener": None}
    found = vg.refine(particles, truth, **how)
    assert found.resolution_A <= 2 * PIXEL_A
    assert vg.fsc(found.map, truth).curve[1 : BOX // 2].min() > 0.7
    error = angular_distance(found.particles.poses.angles_deg, particles.poses.angles_deg)
    assert np.median(error) < 1.0


@pytest.mark.parametrize("iterations", [3, pytest.param(None, marks=pytest.mark.slow)])  # None: to convergence
def test_symmetric_map_is_invariant(iterations):
    """The refined map does not change under the operations of its group."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, "D2")
    particles = vg.simulate.particles(model, 80, BOX, PIXEL_A, snr=1.0, seed=2)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    found = vg.refine(particles, truth, "D2", **(CHOICES | {"iterations": iterations} if iterations else CHOICES))
    inner = found.map.data[1:, 1:, 1:]
    for axes in ((0, 1), (0, 2), (1, 2)):
        turned = np.flip(inner, axes)
        ball = vg.masks.soft_sphere(BOX, 14)[1:, 1:, 1:] > 0.5
        assert np.abs(turned - inner)[ball].max() < 1e-4 * np.abs(inner).max()
    error = angular_distance(found.particles.poses.angles_deg, particles.poses.angles_deg, "D2")
    assert np.median(error) < 3


@pytest.mark.parametrize("iterations", [3, pytest.param(None, marks=pytest.mark.slow)])  # None: to convergence
def test_data_end_at_max_resolution(data, iterations):
    _, particles, truth = data
    how = CHOICES | {"iterations": iterations} if iterations else CHOICES
    found = vg.refine(particles, truth, max_resolution_A=16.0, **how)
    assert found.resolution_A > BOX * PIXEL_A / 9  # shell 8 is the last; the curve is interpolated to 0 at shell 9
    spectrum = np.abs(vg.fourier.forward(found.map.data, 3))
    shells = vg.fourier.shells((BOX,) * 3)
    assert spectrum[shells > 9].max() < 1e-3 * spectrum[shells <= 8].max()


def test_checkpoint_round_trip_and_damage(finished, tmp_path):
    out, _ = finished
    saved = read_checkpoint(out)
    (tmp_path / "checkpoint").mkdir()
    write_checkpoint(tmp_path, saved)
    again = read_checkpoint(tmp_path)
    assert again.step == saved.step
    assert again.state.figures == saved.state.figures
    assert np.array_equal(again.state.halves[1].volumes, saved.state.halves[1].volumes)
    path = checkpoint_path(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(vg.FormatError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path)


def test_checkpoint_of_100000_particles_loads_quickly(finished, tmp_path):
    """Seconds of processor time, so that a busy machine does not matter; the limit is ten."""
    saved = read_checkpoint(finished[0])
    poses = type(saved.state.poses).unknown(100_000)
    saved.state.poses = poses
    many = Checkpoint(saved.state, saved.step, np.ones(100_000, np.int64), {}, saved.inputs)
    write_checkpoint(tmp_path, many)
    begun = time.process_time()
    assert len(read_checkpoint(tmp_path).state.poses.norm) == 100_000
    assert time.process_time() - begun < 10


def test_command_line(data, tmp_path, capsys):
    folder = data[0]
    arguments = [
        "refine",
        str(folder / "particles.star"),
        "--reference",
        str(folder / "truth.mrc"),
        "--diameter",
        "90",
        "--initial-resolution",
        "25",
        "--iterations",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["particles"] == 120
    assert 8 <= told["resolution_A"] < 20
    assert told["claimed_resolution_A"] >= told["resolution_A"]
    assert "iteration  1" in printed.err
    assert "memory: at most" in printed.err
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "holds a run already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--poses", "nowhere"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(["refine", str(folder / "missing.star"), "--reference", str(folder / "truth.mrc"), "--out", "x"])
    assert ended.value.code == 1
    assert "missing.star" in capsys.readouterr().err


def test_unreadable_stack_is_named(data, tmp_path):
    folder = data[0]
    (tmp_path / "particles.star").write_text((folder / "particles.star").read_text())
    (tmp_path / "particles.mrcs").write_bytes((folder / "particles.mrcs").read_bytes()[:20000])
    with pytest.raises(vg.FormatError, match=r"particles\.mrcs"):
        vg.refine(tmp_path / "particles.star", data[2], **CHOICES)
