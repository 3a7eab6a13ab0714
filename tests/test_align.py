"""vg.align: poses from nothing but the images and a map."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas.cli import main
from verglas.geometry import angular_distance
from verglas.search import AlignSettings, align_plan


@pytest.fixture(scope="module")
def case():
    model = vg.simulate.phantom(48, 3.0, 100.0, seed=3)
    particles = vg.simulate.particles(model, 40, 48, 3.0, snr=0.5, seed=4)
    return particles, vg.simulate.density(model, 48, 3.0)


def errors(found, truth, symmetry="C1"):
    angle = angular_distance(found.poses.angles_deg, truth.poses.angles_deg, symmetry)
    shift = np.linalg.norm(found.poses.shifts_A - truth.poses.shifts_A, axis=1)
    return angle, shift


def test_finds_the_poses(case):
    particles, volume = case
    found = vg.align(particles, volume, diameter_A=110)
    angle, shift = errors(found, particles)
    assert np.median(angle) < 1.0
    assert np.median(shift) < 1.0
    assert (angle < 10).mean() > 0.9


def test_grid_poses_are_within_half_a_step(case):
    """Without the final refinement the median error is below half a step."""
    particles, volume = case
    angle, _ = errors(vg.align(particles, volume, diameter_A=110, refine=False), particles)
    assert np.median(angle) < 7.5 / 2 * np.sqrt(3)  # a pose has three angles, each within half a step


def test_grey_scale_of_the_map_does_not_matter(case):
    particles, volume = case
    few = particles[:10]
    one = vg.align(few, volume, diameter_A=110)
    other = vg.align(few, volume.with_data(volume.data * 50), diameter_A=110)
    np.testing.assert_allclose(one.poses.shifts_A, other.poses.shifts_A, atol=1e-2)
    assert angular_distance(one.poses.angles_deg, other.poses.angles_deg).max() < 1e-1


def test_symmetric_map():
    model = vg.simulate.phantom(40, 4.0, 110.0, symmetry="D2", seed=5)
    particles = vg.simulate.particles(model, 20, 40, 4.0, snr=1.0, seed=6)
    found = vg.align(particles, vg.simulate.density(model, 40, 4.0), "D2", diameter_A=120)
    angle, _ = errors(found, particles, "D2")
    assert np.median(angle) < 2.0
    unit = vg.geometry.to_asymmetric_unit(found.poses.angles_deg, "D2")
    assert angular_distance(unit, found.poses.angles_deg, "D2").max() < 1e-6


def test_exact_data(data_dir):
    """Real conventions: the true poses of the exact set come out, to a fraction of a degree and of a pixel."""
    particles = vg.read_particles(data_dir / "exact" / "truth.star")[:40]
    truth = vg.read_map(data_dir / "exact" / "truth.mrc")
    angle, shift = errors(vg.align(particles, truth), particles)
    assert np.median(angle) < 0.1
    assert np.median(shift) < 0.1


@pytest.fixture(scope="module")
def faint():
    """So little signal that the coarse search, which sees low resolution, takes some particles for others."""
    model = vg.simulate.phantom(64, 3.0, 110.0, seed=3)
    particles = vg.simulate.particles(model, 40, 64, 3.0, snr=0.03, seed=4)
    return particles, vg.simulate.density(model, 64, 3.0)


@pytest.mark.slow
def test_fine_steps_by_branch_and_bound_find_what_the_exhaustive_search_finds(faint):
    """Poses as good, and better than those of the coarse step."""
    particles, volume = faint[0][np.arange(24)], faint[1]
    coarse, fine, everything = (
        vg.align(particles, volume, diameter_A=120, refine=False, **how)
        for how in ({}, {"step_deg": 3.75}, {"step_deg": 3.75, "exhaustive": True})
    )
    # Neighbouring cells of grids that differ at the poles and in their lattice of shifts
    apart = angular_distance(fine.poses.angles_deg, everything.poses.angles_deg)
    assert (apart < 3 * 3.75).mean() > 0.95
    (by_coarse, _), (by_fine, _) = errors(coarse, particles), errors(fine, particles)
    assert (by_fine < 10).mean() >= (by_coarse < 10).mean()
    assert np.median(by_fine) < np.median(by_coarse)


@pytest.mark.slow
def test_fine_steps_do_not_depend_on_threads(faint):
    particles, volume = faint
    how = {"diameter_A": 120, "step_deg": 3.75}
    one, two = (vg.align(particles[:8], volume, threads=t, **how) for t in (1, 2))
    assert np.array_equal(one.poses.angles_deg, two.poses.angles_deg)
    assert np.array_equal(one.poses.shifts_A, two.poses.shifts_A)


def test_images_are_read_twice_besides_two_samples(case, monkeypatch):
    """A pass finds images far out of the others; 128 set the grey scale, 512 of each group the noise; a pass aligns."""
    particles, volume = case
    seen = []
    images = vg.Particles.images

    def counted(self, rows):
        made = images(self, rows)
        seen.append(len(made))
        return made

    monkeypatch.setattr(vg.Particles, "images", counted)
    vg.align(particles, volume, diameter_A=110, step_deg=30)
    assert sum(seen) == 4 * len(particles)  # here the samples are all


def test_the_plan_is_stated_before_the_run(case):
    particles, _ = case
    plain = align_plan(particles, AlignSettings(diameter_A=110))
    assert "directions at 7.33 degrees" in plain
    assert "all " in plain
    fine = align_plan(particles, AlignSettings(diameter_A=110, step_deg=1.875))
    assert "directions at 1.83 degrees" in fine
    assert "branch and bound over 3 levels: memory" in fine
    for step_deg, words in ((5, "all "), (4, "over 2 levels"), (2, "over 3 levels"), (1, "over 4 levels")):
        assert words in align_plan(particles, AlignSettings(diameter_A=110, step_deg=step_deg))
    assert "all " in align_plan(particles, AlignSettings(diameter_A=110, step_deg=2, exhaustive=True))


def test_columns_and_threads(case):
    particles, volume = case
    few = particles[:6]
    one = vg.align(few, volume, diameter_A=110, threads=1)
    two = vg.align(few, volume, diameter_A=110, threads=2)
    assert np.array_equal(one.poses.angles_deg, two.poses.angles_deg)
    probability = one.table["rlnMaxValueProbDistribution"].to_numpy()
    assert np.all((probability > 0) & (probability <= 1 + 1e-6))
    assert np.isfinite(one.table["rlnLogLikeliContribution"].to_numpy()).all()


def test_bad_input_is_named(case):
    particles, volume = case
    few = particles[:4]
    with pytest.raises(vg.InputError, match="48"):
        vg.align(few, vg.Map(np.zeros((32, 32, 32)), 3.0))
    with pytest.raises(vg.InputError, match="A/px"):
        vg.align(few, vg.Map(volume.data, 3.2))
    with pytest.raises(vg.InputError, match="empty"):
        vg.align(few, volume.with_data(np.zeros_like(volume.data)))
    with pytest.raises(vg.InputError, match="step_deg"):
        vg.align(few, volume, step_deg=-1)
    images = few.images(np.arange(4)).copy()
    images[2, 3, 4] = np.nan
    broken = vg.Particles.from_images(images, 3.0, poses=few.poses, optics=few.optics)
    with pytest.warns(vg.VerglasWarning, match="particle 2: not finite"):
        assert len(vg.align(broken, volume, diameter_A=110, step_deg=30)) == 3
    with pytest.raises(vg.InputError, match="none of the 4"):
        vg.align(vg.Particles.from_images(images * np.nan, 3.0, optics=few.optics), volume)


def test_command(case, tmp_path, capsys):
    particles, volume = case
    vg.write_particles(tmp_path / "p.star", particles[:12], stack=tmp_path / "p.mrcs")
    vg.write_map(tmp_path / "ref.mrc", volume)
    arguments = ["align", tmp_path / "p.star", "--reference", tmp_path / "ref.mrc", "--diameter", "110"]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--out", str(tmp_path / "out.star"), "--json"])
    assert not stop.value.code
    summary = json.loads(capsys.readouterr().out)
    assert summary["particles_aligned"] == 12
    assert summary["median_change_deg"] < 2
    assert len(vg.read_particles(tmp_path / "out.star").poses) == 12
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--out", "x.star", "--step", "-1"])
    assert stop.value.code == 2
