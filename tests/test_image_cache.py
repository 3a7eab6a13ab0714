"""Images kept in a cache folder: the same pixels, checked; room is made, and what is damaged is read elsewhere."""

from __future__ import annotations

import errno
import os
import pickle

import numpy as np
import pytest

import verglas as vg
from verglas.errors import InputError, VerglasWarning
from verglas.io.image_cache import ImageCache
from verglas.types.profile import counts

BOX = 64


@pytest.fixture
def stored(tmp_path):
    """Particles of two stacks, in an order that is not the files'."""
    rng = np.random.default_rng(0)
    for name, n in (("a", 300), ("b", 100)):
        vg.io.write_stack(tmp_path / f"{name}.mrcs", rng.normal(size=(n, BOX, BOX)).astype(np.float32), 2.0)
    names = [f"{i + 1:06d}@a.mrcs" for i in range(300)] + [f"{i + 1:06d}@b.mrcs" for i in range(100)]
    order = rng.permutation(400)
    lines = "\n".join(f"{names[i]} 10000 10000 0 300 2.7 0.1 2.0" for i in order)
    labels = "ImageName DefocusU DefocusV DefocusAngle Voltage SphericalAberration AmplitudeContrast ImagePixelSize"
    head = "".join(f"_rln{label}\n" for label in labels.split())
    (tmp_path / "p.star").write_text(f"data_\n\nloop_\n{head}{lines}\n")
    return tmp_path, vg.read_particles(tmp_path / "p.star")


def test_a_cache_gives_the_same_pixels_without_the_stacks(stored):
    folder, particles = stored
    told = []
    images = particles.images()
    ImageCache(folder / "cache").open(particles, lambda done, of: told.append((done, of)))
    assert told[-1] == (400, 400)
    before = counts()
    again = ImageCache(folder / "cache").open(vg.read_particles(folder / "p.star"), told.append)
    assert counts().since(before).bytes_read == 0  # the entry is there: nothing is read, and nobody told
    assert told[-1] == (400, 400)
    stacks = folder / "elsewhere"
    stacks.mkdir()
    for name in ("a.mrcs", "b.mrcs"):
        os.rename(folder / name, stacks / name)
    some = np.array([399, 3, 3, 120])
    assert np.array_equal(again.images(), images)
    assert np.array_equal(again[some].images([1, 3]), images[[3, 120]])
    sent = pickle.loads(pickle.dumps(again[some]))
    assert np.array_equal(sent.images(), images[some])
    assert (again.box, again.pixel_size_A) == (BOX, 2.0)


def test_a_changed_stack_is_another_set(stored):
    folder, particles = stored
    ImageCache(folder / "cache").open(particles)
    vg.io.write_stack(folder / "b.mrcs", np.ones((100, BOX, BOX), np.float32), 2.0)
    os.utime(folder / "b.mrcs", ns=(1, 1))
    again = vg.read_particles(folder / "p.star")
    assert np.array_equal(ImageCache(folder / "cache").open(again).images(), again.images())
    assert len(list((folder / "cache").glob("*.images"))) == 2


def test_what_is_damaged_is_read_from_its_own_files(stored):
    folder, particles = stored
    cached = ImageCache(folder / "cache").open(particles)
    path = next((folder / "cache").glob("*.images"))
    with open(path, "r+b") as file:
        file.seek(4 * BOX**2 * 300)
        file.write(b"\xff" * 8)
    assert np.array_equal(cached.images([0, 5]), particles.images([0, 5]))  # of another chunk: sound
    with pytest.warns(VerglasWarning, match="damaged; its images are read from their own files"):
        found = cached.images([301])
    assert np.array_equal(found, particles.images([301]))
    path.unlink()
    assert np.array_equal(cached[10:12].images(), particles[10:12].images())


def test_the_oldest_makes_room(stored):
    folder, particles = stored
    one_GB = 400 * BOX**2 * 4e-9
    cache = ImageCache(folder / "cache", limit_GB=2.5 * one_GB)
    for rows in (slice(0, 399), slice(1, 400)):
        cache.open(particles[rows])
    first, second = sorted((folder / "cache").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    os.utime(first, ns=(2 * 10**18, 2 * 10**18))  # used since
    cache.open(particles)
    assert first.exists()
    assert not second.exists()
    assert len(list((folder / "cache").glob("*.images"))) == 2
    with pytest.warns(VerglasWarning, match="do not fit; they are read from their files"):
        assert ImageCache(folder / "none", limit_GB=0.5 * one_GB).open(particles) is particles


def test_a_set_that_will_not_fit_takes_no_room_of_others(stored):
    folder, particles = stored
    cache = ImageCache(folder / "cache", limit_GB=100 * BOX**2 * 4e-9)
    cache.open(particles[:50])
    with pytest.warns(VerglasWarning, match="do not fit"):
        cache.open(particles)
    assert len(list((folder / "cache").glob("*.images"))) == 1


def test_room_is_made_of_entries_alone(stored):
    """Not of a user's files, nor of what another run is filling; what a killed run left goes."""
    folder, particles = stored
    cache = ImageCache(folder / "cache", limit_GB=150 * BOX**2 * 4e-9)
    cache.open(particles[:50])
    own = folder / "cache" / "holiday.images"
    filled, left = (folder / "cache" / f".{'a' * 32}.{name}.part.images" for name in ("0a1b2c3d", "1a1b2c3d"))
    for path in (own, filled, left):
        path.write_bytes(bytes(20 * BOX**2 * 4))
    os.utime(left, (1, 1))
    cache.open(particles[50:150])
    names = {path.name for path in (folder / "cache").glob("*.images")}
    assert {own.name, filled.name} < names
    assert len(names) == 3  # and the new entry


def test_a_cache_that_other_runs_work_on(stored, monkeypatch):
    """What is removed or forbidden meanwhile ends no job."""
    folder, particles = stored
    cache = ImageCache(folder / "cache")
    cache.open(particles)

    def refused(path, *args, **kwargs):
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refused)  # another user's entry
        assert np.array_equal(cache.open(particles).images([7]), particles.images([7]))
    record = next((folder / "cache").glob("*.json"))
    for text in ('{"n": 400, "box": 64, "chunk": 0, "hashes": []}', '{"n": 400, "box": 64, "chunk": 9, "hashes": []}'):
        record.write_text(text)
        assert np.array_equal(cache.open(particles).images([399]), particles.images([399]))


def test_a_disk_that_is_full_ends_no_job(stored, monkeypatch):
    folder, particles = stored

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(VerglasWarning, match="No space left on device .*; images are read from their own files"):
        assert ImageCache(folder / "cache").open(particles) is particles
    assert list((folder / "cache").iterdir()) == []


def test_refusals(stored):
    folder, particles = stored
    (folder / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        ImageCache(folder / "file" / "cache").open(particles)
    with pytest.warns(VerglasWarning, match="only particles in stacks of files"):
        ImageCache(folder / "cache").open(vg.Particles.from_images(np.ones((3, 8, 8), np.float32), 2.0))


@pytest.mark.slow
def test_a_refinement_reads_its_images_once(tmp_path):
    """The same map as without a cache; the second run reads the cache, and names the stack in what it writes."""
    model = vg.simulate.phantom(24, 5.0, 90.0, "O")
    made = vg.simulate.particles(model, 48, 24, 5.0, snr=1.0, seed=1)
    vg.write_particles(tmp_path / "p.star", made)
    how = {
        "symmetry": "O",
        "diameter_A": 90.0,
        "iterations": 1,
        "max_resolution_A": 15.0,
        "threads": 1,
        "listener": None,
    }
    reference = vg.simulate.density(model, 24, 5.0)
    plain = vg.refine(tmp_path / "p.star", reference, **how)
    stored = [
        vg.refine(tmp_path / "p.star", reference, cache=tmp_path / "cache", out=tmp_path / f"run{i}", **how)
        for i in (1, 2)
    ]
    assert all(np.array_equal(plain.map.data, one.map.data) for one in stored)
    assert len(list((tmp_path / "cache").glob("*.images"))) == 1
    back = vg.read_particles(tmp_path / "run2" / "particles.star")
    assert back.table["rlnImageName"].str.contains("p.mrcs").all()
    assert np.array_equal(back.images(), vg.read_particles(tmp_path / "p.star").images())
