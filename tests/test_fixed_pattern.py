"""A pattern that lies still in all frames is flagged where it is, and only there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from motion_movies import movie_of, settling

import verglas as vg
from verglas.errors import FormatError
from verglas.motion import PatternOfMovies, RecordedSum, correct_motion
from verglas.motion.binned import bin_movie
from verglas.motion.fixed_pattern import Steering, recorded_sum
from verglas.run.motion import MovieSettings, correct_movies
from verglas.run.movie_pattern import FILE, PatternFile
from verglas.types.motion import Motion

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

STILL = np.random.default_rng(99).standard_normal((320, 352)).astype(np.float32)


def moving(seed, pattern=0.0, shape=(320, 352), n=8, to_px=(12, -8), **more):
    """Grains that move, and a pattern of so many times the noise that does not."""
    movie = movie_of(Motion(shape, settling(n, to_px)), 2 * seed, **more)
    movie.source.data[:] += np.float32(pattern) * STILL[: shape[0], : shape[1]]
    return movie


def sum_of(seed, pattern):
    """A movie's sum, without a search for its motion."""
    shape, n = (128, 144), 6
    rng = np.random.default_rng(seed)
    frames = 10 + rng.standard_normal((n, *shape)) + pattern * STILL[: shape[0], : shape[1]]
    specimen = np.cumsum(rng.standard_normal(shape), axis=0) * 0.05  # another in every movie
    binned = bin_movie(np.float32(frames + specimen), n, shape, 1)
    return recorded_sum(binned, np.arange(n), Steering(50.0, 2.0))


@pytest.mark.parametrize("first_seed", [0, 1000, 2000, 3000, 4000])
def test_movies_of_one_detector_share_its_pattern(first_seed):
    level, still = PatternOfMovies(), PatternOfMovies()
    for i in range(5):
        level.add(str(i), sum_of(first_seed + i, 0.0))
        still.add(str(i), sum_of(first_seed + i, 0.2))
        assert (level.estimate() is None) == (i < 2)
    assert abs(level.estimate().sigmas) < 4
    assert not level.estimate().is_there
    assert still.estimate().is_there
    # power of the pattern in one frame's noise 0.04, times what such a pattern steers, over what is there
    assert still.estimate().share == pytest.approx(0.04 * 50 / 2, rel=0.25)


def test_a_movie_counts_once_and_one_of_another_size_not_at_all():
    movies = PatternOfMovies()
    one = sum_of(0, 0.2)
    for _ in range(3):
        movies.add("a", one)
    movies.add("b", RecordedSum(np.zeros((4, 3), np.complex64), (4, 4), 3))
    assert movies.names == ["a"]
    assert np.array_equal(movies.total, one.transform)


@pytest.mark.parametrize("seed", range(3))
def test_the_pattern_is_told_from_a_specimen_that_moves(seed):
    still = correct_motion(moving(seed, 0.3), model="global", listener=None)
    assert "lies still" in " ".join(still.flags)
    assert "stated errors do not contain that" in " ".join(still.flags)
    level = correct_motion(moving(seed), model="global", listener=None)
    assert not level.flags
    # what the flag says: the shifts are held back
    ends = [float(np.hypot(*done.motion.global_px[-1])) for done in (still, level)]
    assert ends[0] < ends[1]


def test_a_specimen_that_rests_is_no_pattern():
    """Nothing tells one from the other in one movie: nothing is said."""
    assert not correct_motion(moving(7, to_px=(0, 0)), model="global", listener=None).flags


def test_a_lattice_whose_spots_lie_across_the_motion_is_no_pattern():
    """Crystalline ice: in step for longer than the mean of its ring (it was a pattern of 100 standard errors)."""
    y, x = np.mgrid[:192, :208]
    movie = moving(8, shape=(192, 208), to_px=(8, 0))
    for f, shift in enumerate(settling(8, (8, 0))):
        movie.source.data[f] += np.cos(2 * np.pi * (0.25 * (y - shift[1]) + 0.03 * (x - shift[0]))).astype(np.float32)
    assert not correct_motion(movie, model="global", threads=1, listener=None).flags


SETTINGS = MovieSettings(model="global", pixel_size_A=1.8)


@pytest.mark.parametrize(("pattern", "flagged"), [(0.5, True), (0.0, False)])
def test_the_command_says_it_of_the_set(tmp_path, pattern, flagged):
    for i in range(3):
        movie = moving(i, pattern, (128, 144), 6, (3, -2))
        tifffile.imwrite(tmp_path / f"m{i}.tif", movie.source.data, photometric="minisblack")
    out = tmp_path / "out"
    made = correct_movies(str(tmp_path / "*.tif"), out, SETTINGS, listener=None)
    assert made.fixed_pattern["movies"] == 3
    assert made.fixed_pattern["is_there"] == flagged
    assert json.loads((out / "motion.json").read_text())["fixed_pattern"] == made.fixed_pattern
    assert ("verglas gain" in made.fixed_pattern["sentence"]) == flagged
    assert ("lies still on the detector" in (out / "report.html").read_text()) == flagged
    again = correct_movies(str(tmp_path / "*.tif"), out, SETTINGS, listener=None)
    assert (again.kept, again.fixed_pattern) == (3, made.fixed_pattern)


def test_sums_are_kept_in_a_file_for_movies_that_were_read_alike(tmp_path):
    file = PatternFile.of(tmp_path, {"gain": None})
    for i in range(3):
        file.add(f"m{i}", sum_of(i, 0.2))
    file.add("m2", sum_of(9, 0.2))
    kept, whole = file.read(), PatternOfMovies()
    for i in range(3):
        whole.add(f"m{i}", sum_of(i, 0.2))
    assert kept.names == ["m0", "m1", "m2"]
    assert kept.estimate() == whole.estimate()
    assert replace(file, reading="another gain").summary() is None
    whole = (tmp_path / FILE).read_bytes()
    for broken in (b"PK no", whole[: len(whole) // 2]):
        (tmp_path / FILE).write_bytes(broken)
        with pytest.raises(FormatError, match="remove it"):
            file.read()


def test_frames_of_one_colour_have_no_pattern():
    movies = PatternOfMovies()
    for i in range(3):
        binned = bin_movie(np.ones((2, 64, 64), np.float32), 2, (64, 64), 1)
        movies.add(str(i), recorded_sum(binned, np.arange(2), Steering()))
    assert not movies.estimate().is_there
    assert isinstance(vg.motion.FixedPattern(0.1, 2.0).sentence, str)
