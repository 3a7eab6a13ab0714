"""``verglas polish``: from movies and refined particles to shiny ones, or to a reason why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from command_line import main

import verglas as vg
from verglas import image
from verglas.errors import FormatError, InputError
from verglas.io import read_particles, read_star, write_map, write_particles, write_star
from verglas.io.motion import read_motion_star, write_motion_star
from verglas.polishing import MovieParticles, add_frames, evidence
from verglas.run.polish import _identity
from verglas.run.polish_inputs import MovieReading, movie_particles, recorded_movies
from verglas.run.polish_passes import Passes
from verglas.types.trajectory import Trajectory

BOX, PIXEL_A, FRAMES, SHAPE = 64, 1.5, 8, (560, 600)
PRIOR = {"velocity_A": 0.4, "correlation_length_A": 1500.0, "acceleration_A": 0.1}


def write_movie(folder, number, model, **settings):
    """A movie, its motion of whole frames, and its particles as extracted from their plain sum."""
    movie, truth = vg.simulate.movie(
        model,
        shape=SHAPE,
        pixel_size_A=PIXEL_A,
        n=16,
        frames=FRAMES,
        dose_per_frame_e_A2=4.5,
        drift_px=(4, -2),
        dome_px=6.0,
        seed=10 + number,
        **settings,
    )
    name = f"m{number}"
    tifffile.imwrite(folder / f"{name}.tif", movie.source.data, photometric="minisblack")
    trajectory = Trajectory(
        truth.field.global_px,
        shape=SHAPE,
        movie=f"{name}.tif",
        pixel_size_A=PIXEL_A,
        dose_per_frame_e_A2=4.5,
        pre_exposure_e_A2=0.0,
        voltage_kV=300.0,
    )
    write_motion_star(folder / f"{name}.star", trajectory)
    centres = np.floor(truth.picks.xy_px + 0.5).astype(int)
    known = np.repeat(truth.field.global_px[None], len(centres), axis=0)
    plan = image.plan_resample(BOX, PIXEL_A, PIXEL_A)
    cut = MovieParticles(movie, np.arange(FRAMES), centres, known, plan)
    sums = add_frames(cut, None, np.ones((FRAMES, BOX, BOX // 2 + 1)))
    poses = vg.Poses(truth.poses.angles_deg, (centres - truth.picks.xy_px) * PIXEL_A)
    table = vg.Particles.from_images(image.normalise(sums), PIXEL_A, optics=truth.optics, poses=poses)
    table = table.with_columns(
        rlnMicrographName=f"{name}.mrc",
        rlnCoordinateX=centres[:, 0].astype(float),
        rlnCoordinateY=centres[:, 1].astype(float),
        rlnRandomSubset=np.arange(len(centres)) % 2 + 1,
    )
    return table, truth, known


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("polish")
    model = vg.simulate.phantom(box=BOX, pixel_size_A=PIXEL_A, diameter_A=80)
    parts = [write_movie(folder, i, model) for i in range(2)]
    tables = [part[0] for part in parts]
    table = pd.concat([t.table for t in tables], ignore_index=True)
    images = np.concatenate([t.images() for t in tables])
    every = vg.Particles(table, vg.types.ArraySource(images, PIXEL_A), optics_table=tables[0].optics_table)
    write_particles(folder / "particles.star", every)
    names = [f"m{i}" for i in range(2)]
    write_star(
        folder / "micrographs.star",
        {
            "micrographs": pd.DataFrame(
                {
                    "rlnMicrographName": [f"{n}.mrc" for n in names],
                    "rlnMicrographMetadata": [f"{n}.star" for n in names],
                }
            )
        },
    )
    write_map(folder / "map.mrc", vg.simulate.density(model, BOX, PIXEL_A))
    noise = vg.Map(np.random.default_rng(0).normal(size=(BOX,) * 3).astype(np.float32), PIXEL_A)
    write_map(folder / "noise.mrc", noise)
    write_map(folder / "ball.mrc", vg.Map(image_ball(), PIXEL_A))
    return folder, [part[1:] for part in parts]


def image_ball():
    return np.ones((BOX,) * 3, np.float32)


def command(folder, out, *more, maps="map.mrc"):
    given = [str(folder / maps)] * 2
    return [
        "polish",
        str(folder / "particles.star"),
        str(folder / "micrographs.star"),
        "--half-maps",
        *given,
        "--mask",
        str(folder / "ball.mrc"),
        "--max-resolution",
        "4",
        "--threads",
        "1",
        "-o",
        str(out),
        *more,
    ]


def options():
    return [word for name, value in PRIOR.items() for word in (f"--{name[:-2].replace('_', '-')}", str(value))]


def test_particles_are_polished_and_written(session, tmp_path, capsys):
    folder, truths = session
    status, out, err = main(command(folder, tmp_path / "p", "--json", *options()), capsys)
    assert status == 0, err
    told = json.loads(out)
    assert told["changed"]
    assert told["tracks"]["gain_nats"] > 3 * told["tracks"]["gain_error_nats"] > 0
    before, after = read_particles(folder / "particles.star"), read_particles(tmp_path / "p" / "shiny.star")
    assert len(after) == len(before) == 32
    assert np.allclose(after.poses.angles_deg, before.poses.angles_deg)
    assert np.allclose(after.poses.shifts_A, before.poses.shifts_A)
    volume = vg.read_map(folder / "map.mrc")
    clean = vg.project(volume, before.poses, before.optics)
    old, new = (signal(p.images(), clean) for p in (before, after))
    assert new > 1.1 * old
    tracks = read_star(tmp_path / "p" / "tracks.star")["tracks"]
    found = tracks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy().reshape(32, FRAMES, 2)
    xy = before.table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)
    true = np.concatenate([np.moveaxis(t.shifts_px, 0, 1) for t, _ in truths])
    known = np.concatenate([k for _, k in truths])
    error, was = found - xy[:, None] - true, known - true
    spread = [np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).mean()) for x in (error, was)]
    assert spread[0] < 0.6 * spread[1]
    weights = read_star(tmp_path / "p" / "bfactors.star")["perframe_bfactors"]
    assert len(weights) == FRAMES


def signal(images, clean):
    """Correlation with noise-free images, in shells from 15 to 6 A."""
    spectra = [vg.fourier.forward(np.asarray(x, np.float32), 2) for x in (images, clean)]
    shell = vg.fourier.shells((BOX, BOX))
    band = (shell >= 7) & (shell <= 16)
    x, y = (s[:, band] for s in spectra)
    return (x * np.conj(y)).real.sum() / np.sqrt((np.abs(x) ** 2).sum() * (np.abs(y) ** 2).sum())


@pytest.mark.parametrize("maps", ["noise.mrc"])
def test_a_wrong_map_changes_nothing(session, tmp_path, capsys, maps):
    folder, _ = session
    status, out, _ = main(command(folder, tmp_path / "p", *options(), maps=maps), capsys)
    assert status == 1
    assert "nothing was changed" in out
    assert not (tmp_path / "p" / "shiny.star").exists()
    assert json.loads((tmp_path / "p" / "polish.json").read_text())["changed"] is False


def test_what_does_not_fit_is_said_in_a_sentence(session, tmp_path):
    folder, _ = session
    work = shutil.copytree(folder, tmp_path / "s")
    particles, maps = work / "particles.star", (work / "map.mrc",) * 2
    asked = {"half_maps": maps, "mask": work / "ball.mrc", "listener": None, **PRIOR}

    def polish(given, **more):
        return vg.polish(given, work / "micrographs.star", tmp_path / "o", **asked, **more)

    table = read_particles(particles)
    lost = vg.Particles(table.table.drop(columns="rlnCoordinateX"), table.source, optics_table=table.optics_table)
    with pytest.raises(InputError, match="polish needs rlnCoordinateX"):
        polish(lost)
    with pytest.raises(InputError, match="lies outside its frames of 600 x 560 px"):
        polish(table.with_columns(rlnCoordinateX=900.0))
    with pytest.raises(InputError, match="none of its 1 micrographs"):
        polish(table.with_columns(rlnMicrographName="other.mrc"))
    with pytest.raises(InputError, match=r"correlate with their images by .* only: rows counted from the other edge"):
        polish(table, reading=MovieReading(flip_y=True))
    with pytest.raises(InputError, match="go together"):
        vg.polish(table, work / "micrographs.star", tmp_path / "o", velocity_A=1.0, listener=None)
    plain = vg.Particles(table.table, table.source)
    with pytest.raises(InputError, match="no optics table"):
        polish(plain)
    data = tifffile.imread(work / "m0.tif")
    tifffile.imwrite(work / "m0.tif", data[:, :500], photometric="minisblack")
    tifffile.imwrite(work / "m1.tif", data[:5], photometric="minisblack")
    with pytest.raises(InputError, match=r"none of 2 movies can be used; the first: .*frames of 600 x 500 px, but"):
        polish(table)
    star = read_star(work / "micrographs.star")["micrographs"].drop(columns="rlnMicrographMetadata")
    write_star(work / "micrographs.star", {"micrographs": star})
    with pytest.raises(FormatError, match="no column rlnMicrographMetadata"):
        polish(table)


@pytest.mark.slow
def test_a_movie_that_cannot_be_read_costs_its_particles_only(session, tmp_path):
    folder, _ = session
    work = shutil.copytree(folder, tmp_path / "s")
    (work / "m1.tif").unlink()
    made = vg.polish(
        work / "particles.star",
        work / "micrographs.star",
        tmp_path / "o",
        half_maps=(work / "map.mrc",) * 2,
        mask=work / "ball.mrc",
        max_resolution_A=4.0,
        listener=None,
        **PRIOR,
    )
    assert sorted(made.excluded) == list(range(16, 32))
    assert "m1.tif" in made.excluded[16]
    if made.changed:
        assert len(made.particles) == 16


def files_of(folder):
    """What a polishing leaves, but for times."""
    names = ("shiny.star", "tracks.star", "excluded.csv", "stacks/m0_shiny.mrcs", "stacks/m1_shiny.mrcs")
    told = {k: v for k, v in json.loads((folder / "polish.json").read_text()).items() if k != "seconds"}
    # headers of stacks hold the time
    contents = [(folder / name).read_bytes()[1024 if name.endswith(".mrcs") else 0 :] for name in names]
    return [content.replace(str(folder).encode(), b"FOLDER") for content in contents], told


def test_what_a_run_that_goes_on_must_find_again(session, tmp_path):
    """Movies that were replaced, another gain and another field of motion: tracks of one, sums of the other."""
    work = shutil.copytree(session[0], tmp_path / "s")
    particles = read_particles(work / "particles.star")

    def identity(**reading):
        return _identity(particles, recorded_movies(work / "micrographs.star", MovieReading(**reading)), None)

    first = identity()
    assert identity() == first
    assert identity(flip_y=True) != first
    assert identity(gain="other.mrc") != first
    motion = read_motion_star(work / "m0.star")
    write_motion_star(work / "m0.star", replace(motion, polynomial=np.full((2, 18), 1e-3)))
    assert {key for key, value in identity().items() if value != first[key]} == {"motion"}
    write_motion_star(work / "m0.star", motion)
    shutil.copyfile(work / "m0.tif", work / "m1.tif")
    assert {key for key, value in identity().items() if value != first[key]} == {"files of movies"}


class Stopped(Exception):
    """In place of a signal."""


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(session, tmp_path, monkeypatch):
    """Stopped at every fourth movie that it opens: among tracks, and among sums."""
    folder, _ = session

    def run(name, **more):
        half_maps = (folder / "map.mrc",) * 2
        given = {"mask": folder / "ball.mrc", "max_resolution_A": 4.0, "threads": 1, "listener": None, **PRIOR, **more}
        return vg.polish(
            folder / "particles.star", folder / "micrographs.star", tmp_path / name, half_maps=half_maps, **given
        )

    assert run("whole").changed
    with pytest.raises(InputError, match="nothing to resume"):
        run("stopped", resume=True)
    opened, load = [], Passes.load

    def stopping(self, number):
        opened.append(number)
        if len(opened) % 4 == 0:
            raise Stopped
        return load(self, number)

    monkeypatch.setattr(Passes, "load", stopping)
    with pytest.raises(Stopped):
        run("stopped")
    with pytest.raises(InputError, match="other settings"):
        run("stopped", reach_A=7.0)
    for _ in range(2):
        with pytest.raises(Stopped):
            run("stopped", resume=True)
    assert run("stopped", resume=True).changed
    # sample 0 1, tracks 0 [1] | tracks 1, weights 0 1, sums [0] | weights 0 1, sums 0 [1] | weights 0 1, sums 1
    assert opened == [0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1]
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")
    assert not (tmp_path / "stopped" / "checkpoint").exists()


def test_a_movie_of_two_frames_has_no_track():
    trajectory = Trajectory(np.zeros((2, 2)), movie="short.tif")
    recorded = SimpleNamespace(trajectory=trajectory, micrograph="short.mrc", open=lambda: np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match=r"short\.tif: its motion is that of 2 frames; expected at least 3"):
        movie_particles(None, SimpleNamespace(recorded=recorded))


@pytest.mark.slow
def test_a_fit_of_the_prior_that_was_stopped_goes_on_to_the_same_bits(session, tmp_path, monkeypatch):
    """Stopped in its second round and again in its third, with the prior from the data."""
    folder, _ = session
    given = {"half_maps": (folder / "map.mrc",) * 2, "mask": folder / "ball.mrc", "max_resolution_A": 4.0, "threads": 1}

    def run(name):
        out = tmp_path / name
        return vg.polish(folder / "particles.star", folder / "micrographs.star", out, listener=None, **given)

    whole = run("whole")
    rounds, next_round = [], evidence._next_round

    def stopping(sample, fit):
        rounds.append(fit.rounds)
        if len(rounds) in (2, 4):
            raise Stopped
        return next_round(sample, fit)

    monkeypatch.setattr(evidence, "_next_round", stopping)
    for _ in range(2):
        with pytest.raises(Stopped):
            run("stopped")
    assert rounds == [0, 1, 1, 2]
    assert run("stopped").prior == whole.prior
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(session, tmp_path, capsys):
    folder, _ = session
    assert main(command(folder, tmp_path / "whole", *options()), capsys)[0] == 0
    out = tmp_path / "killed"
    words = [sys.executable, "-m", "verglas", *command(folder, out, *options())]
    for part in ("prior", "tracks_000000", "sums_000000"):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            for _ in range(1200):
                if (out / "checkpoint" / f"{part}.npz").is_file() or run.poll() is not None:
                    break
                time.sleep(0.02)
            run.kill()
    status, _, err = main(command(folder, out, *options()), capsys)
    assert status == 0, err
    assert files_of(out) == files_of(tmp_path / "whole")


def test_motion_of_motioncor_is_read(session, tmp_path):
    folder, truths = session
    work = shutil.copytree(folder, tmp_path / "s")
    shifts = -truths[0][0].field.global_px
    lines = ["# Movie size: 600 560 8", *(f"{i + 1} {x:.5f} {y:.5f}" for i, (x, y) in enumerate(shifts))]
    (work / "m0-Full.log").write_text("\n".join(lines))
    write_star(
        work / "other.star",
        {
            "micrographs": pd.DataFrame(
                {
                    "rlnMicrographName": ["m0.mrc"],
                    "rlnMicrographMetadata": ["m0-Full.log"],
                    "rlnMicrographMovieName": ["m0.tif"],
                    "rlnMicrographOriginalPixelSize": [PIXEL_A],
                }
            )
        },
    )
    one = recorded_movies(work / "other.star", MovieReading())[0]
    assert np.allclose(one.trajectory.global_px, truths[0][0].field.global_px, atol=1e-4)
    assert one.open().pixel_size_A == PIXEL_A
