"""``verglas process`` from movies: motion correction is the first stage, its micrographs go on."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from process_set import command, environment, states, wait_for, whole_records

import verglas as vg
from verglas import fourier
from verglas.io import read_star
from verglas.pipeline.project import hold_movies
from verglas.pipeline.settings import ProcessSettings
from verglas.pipeline.stages import stages_of
from verglas.pipeline.watch import WatchOptions, watch_folder
from verglas.polishing import add_frames
from verglas.run.polish_inputs import MovieReading, assign, movie_particles, recorded_movies, shows_particles

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

PIXEL_A = 3.0
GIVEN = {"diameter_A": 120.0, "pixel_size_A": PIXEL_A, "dose_per_frame_e_A2": 6.0, "voltage_kV": 300.0, "threads": 1}
QUICK = {"motion.model": "global"}


def write_movie(path, seed, **more):
    """A movie that drifts, and its truth."""
    model, defocus_A = vg.simulate.phantom(32, 6.0, 120.0, seed=1), 15000.0 + 1500 * seed
    movie, truth = vg.simulate.movie(
        model,
        shape=(512, 560),
        pixel_size_A=PIXEL_A,
        n=40,
        frames=6,
        seed=seed,
        dose_per_frame_e_A2=6.0,
        drift_px=(4.0, -3.0),
        defocus_u_A=defocus_A,
        defocus_v_A=defocus_A,
        **more,
    )
    tifffile.imwrite(path, movie.source.data, photometric="minisblack")
    return truth


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Two movies, one that is cut off, and their truth."""
    folder = tmp_path_factory.mktemp("session")
    truth = [write_movie(folder / f"m{seed}.tif", seed) for seed in range(2)]
    data = (folder / "m1.tif").read_bytes()
    (folder / "m2.tif").write_bytes(data[: len(data) // 2])
    return folder, truth


@pytest.fixture(scope="module")
def project(session, tmp_path_factory):
    root = tmp_path_factory.mktemp("projects") / "p"
    return vg.process(root, micrographs=[str(session[0])], set=QUICK, **GIVEN)


def test_movies_become_micrographs_and_particles(session, project):
    folder, truth = session
    assert [r.name for r in project.records] == ["motion", "ctf", "pick", "extract", "centre"]
    moved = project.records[0].verdict
    assert (moved.state, moved.codes) == ("warn", ("set_aside",))
    assert moved.numbers["movies"] == 3
    assert moved.numbers["median_motion_A"] > 5
    assert "m2.tif" in moved.reasons[0]
    assert project.summary()["micrographs_used"] == 2
    assert list(project.summary()["set_aside"]) == [str(folder / "m2.tif")]
    particles = vg.read_particles(project.particles)
    names = particles.table["rlnMicrographName"]
    assert names.str.contains("motion/micrographs/m[01]-").all()
    assert len(particles) > 25
    for seed, true in enumerate(truth):
        mine = names.str.contains(f"/m{seed}-").to_numpy()
        assert np.abs(particles.table.loc[mine, "rlnDefocusU"] - true.scene.defocus_u_A).max() < 400
        xy = particles.table.loc[mine, ["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        near = np.hypot(*(xy[:, None] - true.picks.xy_px[None]).transpose(2, 0, 1)).min(axis=1)
        assert (near < 13).mean() > 0.8  # a third of the diameter


def test_particles_of_a_project_are_found_in_their_movies(session, project):
    """What ``polish`` asks for: motion of every movie, coordinates, and frames that show the particles."""
    micrographs = project.root / "motion" / "micrographs.star"
    recorded = recorded_movies(micrographs, MovieReading())
    particles = vg.read_particles(project.particles)
    assigned, without = assign(particles, recorded)
    assert not without
    assert [Path(one.recorded.trajectory.movie) for one in assigned] == [session[0] / f"m{i}.tif" for i in range(2)]
    for one in assigned:
        movie = movie_particles(particles, one)
        assert np.hypot(*movie.known_px[:, -1].T).min() > 2.4  # of 2.8
        box = particles.box
        sums = add_frames(movie, None, np.ones((len(movie.frames), box, box // 2 + 1)))
        assert shows_particles(particles[one.rows], fourier.low_frequencies(sums, 20), "") > 0.5


def test_nothing_is_done_twice_and_other_settings_are_refused(project):
    again = vg.process(project.root, threads=1)
    assert all(r.done_before for r in again.records)
    with pytest.raises(vg.InputError, match=r"motion was finished with other settings \(bin_factor: was 1, now 2"):
        vg.process(project.root, set={"motion.bin_factor": 2}, threads=1)
    with pytest.raises(vg.InputError, match=r"--set motion\.voltage_kV: is the project's"):
        vg.process(project.root, set={"motion.voltage_kV": 200}, threads=1)


@pytest.mark.slow
def test_epus_files_in_a_tree_of_their_own(tmp_path, data_dir):
    """`verglas process --metadata`: what is not given is taken from there; a folder that is not there is refused."""
    tree = data_dir / "epu" / "emharvest"
    stem = next(tree.rglob("FoilHole_*_Data_*.xml")).stem
    write_movie(tmp_path / f"{stem}_fractions.tif", 0)
    given = {"micrographs": [str(tmp_path / "*.tif")], "set": QUICK, "diameter_A": 120.0, "threads": 1}
    given |= {"pixel_size_A": PIXEL_A, "cs_mm": 2.7, "amplitude_contrast": 0.1}
    with pytest.raises(vg.InputError, match="no such folder; expected one with EPU's XML"):
        vg.process(tmp_path / "p", metadata=str(tmp_path / "none"), **given)
    with pytest.warns(vg.VerglasWarning, match=r"pixel_size_A: 1\.0559 in .*, 3 given, which is used"):
        done = vg.process(tmp_path / "q", metadata=str(tree), **given)
    assert done.records[0].verdict.numbers["set_aside"] == 0
    row = json.loads(next((tmp_path / "q" / "motion" / "micrographs").glob("*.json")).read_text())["row"]
    assert (row["voltage_kV"], row["original_pixel_size_A"]) == (300.0, PIXEL_A)
    optics = read_star(tmp_path / "q" / "motion" / "micrographs.star")["optics"]
    microscope = optics[["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]]
    assert microscope.to_numpy()[0].tolist() == [300.0, 2.7, 0.1]  # for RELION, which may go on from there
    assert row["beam_shift"] == pytest.approx((-0.0944923, -0.0117230), abs=1e-6)


@pytest.mark.slow
def test_a_gain_is_placed_and_sums_have_the_pixel_size_that_they_are_binned_to(tmp_path):
    truth = write_movie(tmp_path / "m.tif", 2, gain_sd=0.04)
    tifffile.imwrite(tmp_path / "gain.tif", truth.gain[:, ::-1].astype(np.float32))
    given = {**GIVEN, "micrographs": [str(tmp_path / "m.tif")], "gain": str(tmp_path / "gain.tif")}
    root = tmp_path / "p"
    binned = vg.process(root, set={**QUICK, "motion.bin_factor": 2}, **given)
    assert json.loads((root / "motion/gain.json").read_text())["placement"] == "0-flip"
    path = next((root / "motion/micrographs").glob("m-??????.mrc"))
    assert vg.read_micrograph(path).pixel_size_A == pytest.approx(2 * PIXEL_A)
    assert "pixel_size" not in binned.records[1].verdict.codes  # 3 A was given for the frames
    redone = vg.process(root, redo=["motion"], set={"motion.bin_factor": None}, force=True, threads=1)
    assert not any(r.done_before for r in redone.records)  # all that follows is of another micrograph
    assert vg.read_particles(redone.particles).pixel_size_A == pytest.approx(PIXEL_A)


def test_what_a_set_of_files_holds(session, tmp_path):
    folder, _ = session
    asked = ProcessSettings((str(folder),), 120.0)
    assert hold_movies(asked)
    vg.io.write_stack(tmp_path / "one.mrc", np.zeros((1, 32, 32), np.float32), PIXEL_A)
    assert not hold_movies(ProcessSettings((str(tmp_path),), 120.0))
    assert not hold_movies(ProcessSettings((str(tmp_path / "none"),), 120.0))
    # as many of one kind as of the other: micrographs, and the movie among them is named
    assert not hold_movies(ProcessSettings((str(tmp_path / "one.mrc"), str(folder / "m0.tif")), 120.0))
    assert "motion" not in [stage.name for stage in stages_of(asked)]
    given = ProcessSettings(asked.micrographs, 120.0, movies=True)
    assert [stage.name for stage in stages_of(given)][:2] == ["motion", "ctf"]


@pytest.mark.slow
def test_movies_are_watched(session, project, tmp_path):
    done = watch_folder(session[0], tmp_path / "w", WatchOptions(0.05, once=True), set=QUICK, force=True, **GIVEN)
    assert done.summary()["micrographs_used"] == 2
    assert done.summary()["set_aside"].keys() == project.summary()["set_aside"].keys()
    mine, theirs = (vg.read_particles(p) for p in (done.particles, project.particles))
    assert np.array_equal(mine.images(), theirs.images())


@pytest.mark.slow
def test_movies_that_grow_are_waited_for_and_a_killed_watch_loses_nothing(session, project, tmp_path):
    """A movie arrives in pieces, the watch is killed while it works, and again: the particles are those of one run."""
    source, folder, root = session[0], tmp_path / "in", tmp_path / "w"
    folder.mkdir()
    options = ["--diameter", 120, "--pixel-size", PIXEL_A, "--dose-per-frame", 6, "--voltage", 300, "--threads", 1]
    options += ["--set", "motion.model=global"]

    def started():
        words = command("--watch", folder, *options, "--out", root, "--settle", 0.5, "--force")
        return subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    child, data = started(), (source / "m0.tif").read_bytes()
    try:
        with open(folder / "m0.tif", "wb") as handle:
            handle.write(data[: len(data) // 2])
            handle.flush()
            wait_for(lambda: states(root).get("m0.tif", ("",))[0] == "growing")
            time.sleep(1.2)  # longer than --settle: the directories say that it is not whole
            assert states(root)["m0.tif"] == ("growing", 0)
            handle.write(data[len(data) // 2 :])
        wait_for(lambda: states(root)["m0.tif"][0] == "running")
    finally:
        child.kill()
        child.wait()
    (folder / "m1.tif").write_bytes((source / "m1.tif").read_bytes())
    child = started()
    try:
        wait_for(lambda: any("motion" in name for name in whole_records(root)))
    finally:
        child.kill()
        child.wait()
    had = whole_records(root)
    done = watch_folder(folder, root, WatchOptions(0.05, once=True), set=QUICK, force=True, **GIVEN)
    now = whole_records(root)
    assert {name: now[name] for name in had} == had  # nothing twice
    assert {state for state, _ in states(root).values()} == {"done"}
    mine, theirs = (vg.read_particles(p) for p in (done.particles, project.particles))
    assert np.array_equal(mine.images(), theirs.images())  # the third movie of that session is set aside
