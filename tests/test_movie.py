import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from verglas.errors import InputError
from verglas.types import FrameSource, Movie
from verglas.types.defects import DefectRepair, as_defects


class Counted:
    """Frames of their own number; remembers what was read, and in which thread."""

    shape = (4, 5)

    def __init__(self, n=10, wrong=None):
        self.n, self.wrong, self.reads, self.threads = n, wrong, [], set()

    def __len__(self):
        return self.n

    def read(self, index):
        self.reads.append(index)
        self.threads.add(threading.get_ident())
        if index == self.wrong:
            raise InputError("frame of lead")
        return np.full(self.shape, index, np.uint8)


def test_frame_is_the_recorded_one_times_the_gain():
    frames = np.random.default_rng(0).poisson(3.0, (3, 6, 7)).astype(np.uint8)
    gain = np.random.default_rng(1).uniform(0.8, 1.2, (6, 7)).astype(np.float32)
    movie = Movie.from_array(frames, 1.2, gain=gain, dose_per_frame_e_A2=1.1, voltage_kV=300)
    assert len(movie) == 3
    assert movie.shape == (6, 7)
    assert movie.path is None
    assert movie.pre_exposure_e_A2 == 0
    np.testing.assert_array_equal(movie.frame(2), frames[2].astype(np.float32) * gain)
    np.testing.assert_array_equal(movie[-1], movie.frame(2))
    assert movie.frame(0).dtype == np.float32


def test_a_frame_is_the_callers_own():
    frames = np.zeros((2, 4, 4), np.float32)
    movie = Movie.from_array(frames)
    movie.frame(0)[:] = 7
    assert not frames.any()


def test_reading_ahead_is_bounded_and_in_order():
    source = Counted()
    assert isinstance(source, FrameSource)
    reader = Movie(source).frames(ahead=3)
    assert next(reader)[0, 0] == 0
    reader.close()
    assert max(source.reads) <= 3
    assert threading.get_ident() not in source.threads
    for ahead, threads in ((0, 1), (1, 1), (4, 3), (50, 2)):
        got = [int(f[0, 0]) for f in Movie(Counted()).frames([4, 2, 9], ahead=ahead, threads=threads)]
        assert got == [4, 2, 9]
    assert [int(f[0, 0]) for f in Movie(Counted())] == list(range(10))


def test_an_error_of_a_frame_reaches_the_caller():
    reader = iter(Movie(Counted(wrong=1)))
    assert next(reader)[0, 0] == 0
    with pytest.raises(InputError, match="frame of lead"):
        list(reader)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"pixel_size_A": -1.0}, "pixel_size_A"),
        ({"dose_per_frame_e_A2": 0.0}, "dose_per_frame_e_A2, got 0"),
        ({"voltage_kV": float("nan")}, "voltage_kV"),
        ({"pre_exposure_e_A2": -2.0}, "pre_exposure_e_A2"),
        ({"gain": np.ones((3, 3))}, "the gain has 3 x 3 pixels, the frames have 5 x 4"),
        ({"gain": np.zeros((4, 5))}, "zero everywhere"),
        ({"gain": np.full((4, 5), np.nan)}, "20 values of the gain"),
        ({"defects": [[4, 0]]}, "row 4, column 0 lies outside"),
        ({"defects": np.ones((2, 2), bool)}, "mask of defects"),
        ({"defects": [[0.5, 1]]}, "whole rows"),
    ],
)
def test_what_is_refused(known, words):
    with pytest.raises(InputError, match=words):
        Movie(Counted(), name="a.tif", **known)


def test_nan_is_named_with_its_place_and_may_be_a_defect():
    frames = np.ones((2, 4, 5), np.float32)
    frames[1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"frame 1 \(from 0\) has nan at row 2, column 3"):
        list(Movie.from_array(frames))
    assert all((f == 1).all() for f in Movie.from_array(frames, defects=[[2, 3]]))
    with pytest.raises(InputError, match="frame 2 asked for"):
        Movie.from_array(frames).frame(2)


def test_defects_as_rows_and_as_mask_are_the_same():
    mask = np.zeros((4, 5), bool)
    mask[[3, 0], [1, 4]] = True
    a, b = Movie(Counted(), defects=mask), Movie(Counted(), defects=[[3, 1], [0, 4], [3, 1]])
    assert a.defects.tolist() == b.defects.tolist() == [[0, 4], [3, 1]]
    np.testing.assert_array_equal(a.defect_mask, mask)


def test_a_repaired_pixel_has_the_noise_of_its_neighbourhood():
    rng = np.random.default_rng(3)
    frames = rng.poisson(2.0, (400, 12, 12)).astype(np.uint16)
    frames[:, 5, 6] = 5000
    frames[:, :, 2] = 0  # a dead column
    movie = Movie.from_array(frames, defects=np.vstack([[[5, 6]], [[y, 2] for y in range(12)]]), name="a")
    repaired = np.array([f for f in movie])
    here = repaired[:, 5, 6]
    assert abs(here.mean() - 2) < 5 * np.sqrt(2 / 400)
    assert abs(here.var() - 2) < 0.8
    column = repaired[:, :, 2]
    assert abs(column.mean() - 2) < 5 * np.sqrt(2 / column.size)
    good = np.ones((12, 12), bool)
    good[5, 6] = good[:, 2] = False
    np.testing.assert_array_equal(repaired[:, good], frames[:, good])
    # the same again, from another process and in another order; another draw under another name
    again = pickle.loads(pickle.dumps(movie))
    np.testing.assert_array_equal(again.frame(7), repaired[7])
    other = Movie.from_array(frames, defects=movie.defects, name="b")
    assert np.mean(np.array([f for f in other])[:, 5, 6] == here) < 0.7


def test_the_draw_does_not_depend_on_other_defects():
    frame = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    one, two = frame.copy(), frame.copy()
    DefectRepair(np.array([[10, 10]]), (40, 40), 5).apply(one, 3)
    DefectRepair(np.array([[10, 10], [30, 30]]), (40, 40), 5).apply(two, 3)
    assert one[10, 10] == two[10, 10] != frame[10, 10]


@settings(deadline=None)
@given(arrays(bool, (9, 11)))
def test_every_defect_gets_the_value_of_a_good_pixel(mask):
    frame = np.arange(99, dtype=np.float32).reshape(9, 11)
    rows = as_defects(mask, (9, 11))
    if mask.all():
        with pytest.raises(InputError, match="no good pixel"):
            DefectRepair(rows, (9, 11))
        return
    good = set(frame[~mask].tolist())
    DefectRepair(rows, (9, 11), seed=1).apply(frame, 0)
    assert set(frame.ravel().tolist()) == good


def test_recycled_frames_are_the_frames():
    """Each is right until the one after the next is asked for, and no more arrays are made than wait."""
    data = np.random.default_rng(3).integers(0, 255, (9, 12, 20)).astype(np.uint8)
    movie = Movie.from_array(data, gain=np.full((12, 20), 2.0))
    places = set()
    for index, frame in enumerate(movie.frames(ahead=2, threads=2, recycle=True)):
        assert np.array_equal(frame, 2.0 * data[index])
        places.add(frame.ctypes.data)
    assert len(places) <= 4
    out = np.empty((12, 20), np.float32)
    assert movie.frame(3, out) is out
    assert np.array_equal(out, 2.0 * data[3])
