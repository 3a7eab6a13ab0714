"""Files are written whole or not at all, and what goes wrong is said of the file that was asked for."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

import verglas as vg
from verglas.io import atomic, write_stack, write_text


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Content, then name, then folder: after a power cut the old file or the new one is there."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        real_fsync(handle)

    def replace(source, target):
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(tmp_path / "a.txt", "all of it")
    assert [calls[0].endswith(".part.txt"), *calls[1:]] == [True, "rename", tmp_path.name]
    assert (tmp_path / "a.txt").read_text() == "all of it"


def test_a_full_disk_names_the_path(tmp_path, monkeypatch):
    """The system names no file, NumPy does not even say why."""

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(vg.InputError, match=r"cannot write .*map\.mrc: No space left on device \(folder .*\)"):
        vg.write_map(tmp_path / "map.mrc", vg.Map(np.ones((4, 4, 4), np.float32), 2.0))
    with pytest.raises(vg.InputError, match=r"cannot write .*s\.mrcs: No space"):
        write_stack(tmp_path / "s.mrcs", np.ones((2, 4, 4), np.float32), 2.0)
    with pytest.raises(vg.InputError, match=r"cannot write .*t\.txt: No space"):
        write_text(tmp_path / "t.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_of_numpy_names_the_path(tmp_path):
    expected = r"cannot write .*a\.bin: 64 requested and 3 written; is the disk full\?"
    with pytest.raises(vg.InputError, match=expected), atomic.atomic_path(tmp_path / "a.bin"):
        raise OSError("64 requested and 3 written")


def test_errors_of_other_files_stay_theirs(tmp_path):
    other = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=r"nowhere"), atomic.atomic_path(tmp_path / "a.txt"):
        other.read_text()
