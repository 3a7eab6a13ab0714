"""Columns of STAR files: the values of read_star, opened from a file beside them, made anew when it changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.errors import FormatError
from verglas.io import open_columns, read_star, star_columns, write_star
from verglas.io import particles as particles_file
from verglas.io.stack import StackSource
from verglas.io.star_columns import columns_path


def frame_of(path: Path, name: str = "particles") -> pd.DataFrame:
    found = read_star(path)[name]
    assert isinstance(found, pd.DataFrame)
    return found


def table(n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    micrograph = np.arange(n) // 7
    return pd.DataFrame(
        {
            "rlnImageName": [f"{i % 7 + 1:06d}@Extract/m{m:03d} 50%.mrcs" for i, m in enumerate(micrograph)],
            "rlnMicrographName": [f"{m:03d}" for m in micrograph],  # names that look like numbers
            "rlnDefocusU": rng.normal(2e4, 3e3, n),
            "rlnClassNumber": rng.integers(1, 9, n),
            "rlnAnglePsi": np.where(np.arange(n) < n - 1, 30.0, 0.25),  # whole numbers but for the last
            "rlnBeamTiltX": np.where(np.arange(n) < n // 2, 0.5, np.nan),
            "rlnRemark": ["12"] * (n - 1) + ["see the log"],  # numbers in all pieces but the last
            "rlnBodyName": [np.nan] * (n - 2) + ["head", "tail"],
        }
    )


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(star_columns, "_PIECE_BYTES", 4096)  # a dozen pieces
    path = tmp_path / "p.star"
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnImagePixelSize": [1.5]})
    write_star(path, {"optics": optics, "general": {"rlnNote": "007", "rlnCount": 3}, "particles": table()})
    return path


def test_columns_are_those_of_read_star(star: Path) -> None:
    plain = read_star(star)
    for columns in (open_columns(star), open_columns(star)):  # made, then opened
        assert list(columns.tables) == list(plain)
        assert columns.as_tables()["general"] == plain["general"]
        for name in ("optics", "particles"):
            pd.testing.assert_frame_equal(columns.frame(table=name), frame_of(star, name), check_exact=True)
    assert columns.largest == "particles"
    assert columns.n_rows() == 500
    codes, names = columns.codes("rlnMicrographName")
    assert names[codes].tolist() == table()["rlnMicrographName"].tolist()
    parts = columns.images()
    assert parts is not None
    stacks, stack_of, number = parts.stacks, parts.stack_of, parts.frame
    assert len(stacks) == 72
    assert (stacks[stack_of[8]], number[8]) == ("Extract/m001 50%.mrcs", 1)


def test_the_second_time_reads_no_text(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_columns(star)
    monkeypatch.setattr(star_columns, "scan", None)
    assert open_columns(star).numbers("rlnDefocusU").shape == (500,)


def test_a_changed_file_has_new_columns(star: Path) -> None:
    open_columns(star)
    state = star.stat()
    text = star.read_bytes()
    changed = text.replace(b"see the log", b"hear thelog")
    assert len(changed) == len(text)
    star.write_bytes(changed)
    os.utime(star, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size and time: the hash tells
    assert open_columns(star).frame(["rlnRemark"]).iloc[-1, 0] == "hear thelog"


def test_writing_to_a_column_changes_no_file(star: Path) -> None:
    open_columns(star).numbers("rlnDefocusU")[:] = 0
    assert open_columns(star).numbers("rlnDefocusU").min() > 0


def test_damaged_columns_are_named(star: Path) -> None:
    open_columns(star)
    kept = columns_path(star)
    data = bytearray(kept.read_bytes())
    at = data.find(np.float64(read_star(star)["particles"]["rlnDefocusU"][5]).tobytes())
    data[at] ^= 1
    kept.write_bytes(data)
    with pytest.raises(FormatError, match=r"\.p\.star\.columns: damaged; remove it"):
        open_columns(star).numbers("rlnDefocusU")
    kept.write_bytes(b"half of")
    assert open_columns(star).numbers("rlnDefocusU").min() > 0


def test_a_folder_that_cannot_be_written(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    pd.testing.assert_frame_equal(open_columns(star).frame(), frame_of(star), check_exact=True)
    assert not columns_path(star).exists()


def test_what_a_killed_process_left_is_removed(star: Path) -> None:
    old, new = (star.with_name(f"..p.star.{word}.part.columns") for word in ("0123abcd", "4567abcd"))
    for part in (old, new):
        part.write_bytes(b"half of")
    os.utime(old, (0, 0))
    open_columns(star)
    assert not old.exists()
    assert new.exists()


def test_errors_of_columns(star: Path) -> None:
    columns = open_columns(star)
    with pytest.raises(FormatError, match="table 'particles' has no column rlnNone"):
        columns.numbers("rlnNone")
    with pytest.raises(FormatError, match="rlnMicrographName is text"):
        columns.numbers("rlnMicrographName")
    star.write_text(star.read_text() + "1 2\n")
    with pytest.raises(FormatError, match="2 values for 8 labels"):
        open_columns(star)


def test_integers_beyond_64_bits_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.star"
    path.write_text("data_particles\n\nloop_\n_rlnImageName\n_rlnUid\n1@a.mrcs 18446744073709551615\n")
    monkeypatch.setattr(particles_file, "LARGE_BYTES", 1)
    assert vg.read_particles(path).table["rlnUid"].tolist() == [18446744073709551615]
    assert not columns_path(path).exists()


def test_large_particle_files_are_opened_by_columns(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = vg.read_particles(star)
    monkeypatch.setattr(particles_file, "LARGE_BYTES", 1)
    mapped = vg.read_particles(star)
    assert columns_path(star).is_file()
    pd.testing.assert_frame_equal(mapped.table, plain.table, check_exact=True)
    assert isinstance(mapped.source, StackSource)
    assert isinstance(plain.source, StackSource)
    assert list(mapped.source.names) == list(plain.source.names)
    np.testing.assert_array_equal(mapped.source.stack_of, plain.source.stack_of)
    np.testing.assert_array_equal(mapped.source.frame, plain.source.frame)
    changed = mapped[np.arange(499, -1, -2)].with_columns(rlnClassNumber=np.ones(250, np.int64))
    vg.write_particles(star.with_name("q.star"), changed)
    assert len(vg.read_particles(star.with_name("q.star"))) == 250


def test_an_image_number_of_zero_is_still_an_error(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(particles_file, "LARGE_BYTES", 1)
    star.write_text(star.read_text().replace("000003@Extract/m001", "000000@Extract/m001"))
    with pytest.raises(FormatError, match="expected index@stack with an index from 1"):
        vg.read_particles(star)
