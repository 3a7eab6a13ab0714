"""Names and call forms that other people's scripts rely on: each is called as it is written in docs/api."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest

import verglas as vg
from verglas.heterogeneity import VariabilitySettings
from verglas.reconstruction import solvers

BOX, PIXEL_A = 24, 5.0
QUIET = {"listener": None}


@pytest.fixture(scope="module")
def set_of(tmp_path_factory):
    """Particles, their map, half maps, and the folder that they lie in."""
    folder = tmp_path_factory.mktemp("contract")
    model = vg.simulate.phantom(BOX, PIXEL_A, 80, seed=11)
    truth = vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=100)
    p = vg.simulate.particles(model, 80, BOX, PIXEL_A, 0.5, folder, seed=3, **QUIET)
    halves = vg.reconstruct(p, halves=True, **QUIET)[1]
    vg.write_map(folder / "map.mrc", truth)
    return p, truth, halves, folder


CALLS = {
    "correct_motion": (("movie",), {"dose_per_frame_e_A2": 1.0, "voltage_kV": 300, "model": "auto"}),
    "refine_ctf": (("particles",), {"half_maps": ("h1", "h2"), "mask": None, "fit": ("defocus", "beam_tilt")}),
    "polish": (("particles", "movies.star"), {"half_maps": ("h1", "h2"), "mask": None}),
    "reconstruct": (("particles",), {"ewald": True}),
    "project": (("map", "poses"), {"ewald": True}),
    "classify3d": (("particles",), {"references": None, "classes": 3, "symmetry": "C1"}),
    "subtract": (("particles", "map", "mask"), {}),
    "expand_symmetry": (("particles", "D2"), {}),
    "multibody": (("particles", "map", "masks"), {}),
    "variability": (("particles",), {"mean": None, "mask": None, "components": "auto", "resolution_A": 10.0}),
    "heterogeneity_test": (("particles", "map"), {}),
    "local_resolution": (("h1", "h2"), {"mask": None, "method": "fsc"}),
    "directional_fsc": (("h1", "h2"), {"mask": None, "cone_deg": 20}),
    "map_model": (("map", "model.cif"), {"resolution_A": 3.0}),
    "refine": (("particles", "map"), {"regularisation": "auto", "iterations": None, "poses": "local", "out": "run"}),
    "validate": (("run",), {}),
    "sieve": (("particles", "half_maps"), {}),
    "tilt_pairs": (("untilted", "tilted", "untilted_picks", "tilted_picks"), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_forms_bind(name):
    given, named = CALLS[name]
    inspect.signature(getattr(vg, name)).bind(*given, **named)


def test_variability_about_a_given_mean(set_of):
    p, truth, _, folder = set_of
    how = {"components": 1, "resolution_A": 25, "iterations": 2}
    made = vg.variability(p, mean=folder / "map.mrc", mask=None, **how, **QUIET)
    assert made.n_components == 1
    assert made.map_at(made.coordinates[0]).box == BOX
    assert (len(made.components), made.eigenvalues.shape, made.covariances.shape) == (1, (1,), (80, 1, 1))
    smooth = vg.filters.apply(truth, vg.filters.low_pass(25)).data.ravel()
    held, own = (m.mean.data.ravel() for m in (made, vg.variability(p, **how, **QUIET)))
    assert np.corrcoef(held, smooth)[0, 1] > np.corrcoef(own, smooth)[0, 1]
    with pytest.raises(vg.InputError, match="poses of another map"):
        vg.variability(p, truth.with_data(-truth.data), **how, **QUIET)
    assert {f.name for f in fields(VariabilitySettings)} >= {"components", "resolution_A"}


def test_heterogeneity_against_the_map_of_the_poses(set_of):
    p, truth, _, _ = set_of
    how = {"resolution_A": 30, "iterations": 2, "most_classes": 2, "most_components": 1}
    made = vg.heterogeneity_test(p, truth, **how, **QUIET)
    assert made.verdict in ("none", "classes", "continuous", "poses")
    assert {"model", "gain_nats", "error_nats"} <= set(made.gains)
    with pytest.raises(vg.InputError, match="poses of another map"):
        vg.heterogeneity_test(p, truth.with_data(-truth.data), **how, **QUIET)


def test_results_by_their_public_names(set_of):
    p, truth, (h1, h2), folder = set_of
    local = vg.local_resolution(h1, h2, mask=None, method="fsc", **QUIET)
    assert np.array_equal(np.asarray(local), local.data)
    assert local.pixel_size_A == PIXEL_A
    vg.write_map(folder / "local.mrc", local)
    assert np.array_equal(vg.read_map(folder / "local.mrc").data, local.map.data)
    by_direction = vg.directional_fsc(h1, h2, mask=None, cone_deg=20)
    (x, y, z), worst_A = by_direction.worst
    assert np.hypot(np.hypot(x, y), z) == pytest.approx(1)
    assert worst_A == pytest.approx(by_direction.resolution_A.max())
    assert 0 <= by_direction.sphericity <= 1
    assert 0 <= by_direction.area_ratio <= 1
    fitted = vg.refine_ctf(p, half_maps=(h1, h2), mask=None, fit=("defocus",), **QUIET)
    assert {"round", "term", "gain_nats", "gain_error_nats"} <= set(fitted.gains)
    assert len(fitted.optics_groups) == 1
    kept = vg.sieve(p, (h1, h2), **QUIET)
    assert len(kept.scores) == len(p)
    left = vg.subtract(p, truth, truth.with_data(np.zeros_like(truth.data)))
    assert isinstance(left, vg.Particles)
    assert len(vg.expand_symmetry(p, "D2")) == 4 * len(p)
    for made in (local, by_direction, fitted, kept, left, truth, p, p.poses, p.optics, vg.fsc(h1, h2)):
        assert len(repr(made)) < 250
        assert "\n" not in repr(made)


def test_a_model_by_its_path(set_of, tmp_path):
    import gemmi

    structure, chain, residue = gemmi.Structure(), gemmi.Chain("A"), gemmi.Residue()
    residue.name, residue.seqid = "GLY", gemmi.SeqId("1")
    for name, place in (("N", 0.0), ("CA", 1.4), ("C", 2.5)):
        atom = gemmi.Atom()
        atom.name, atom.element, atom.b_iso = name, gemmi.Element(name[0]), 20.0
        atom.pos = gemmi.Position(14 + place, 15, 16)
        residue.add_atom(atom)
    chain.add_residue(residue)
    model = (
        gemmi.Model(1) if gemmi.Model.__init__.__doc__ and "int" in gemmi.Model.__init__.__doc__ else gemmi.Model("1")
    )
    model.add_chain(chain)
    structure.add_model(model)
    structure.make_mmcif_document().write_file(str(tmp_path / "model.cif"))
    from verglas.assessment.model_density import model_density

    volume = model_density(vg.read_atoms(tmp_path / "model.cif"), vg.Map(np.zeros((32, 32, 32)), 1.0))
    vg.write_map(tmp_path / "map.mrc", volume)
    made = vg.map_model(str(tmp_path / "map.mrc"), str(tmp_path / "model.cif"), resolution_A=3.0)
    assert len(made.q_scores) == 3
    assert made.cc_mask > 0.9
    assert all(np.isfinite([made.cc_box, made.cc_volume, made.cc_peaks, made.d_model_A, made.d99_A]))
    assert len(made.fsc) == len(made.frequency_per_A)


@pytest.mark.slow
def test_a_run_by_its_name(set_of, tmp_path):
    p, truth, _, _ = set_of
    run = tmp_path / "run"
    vg.refine(p, truth, diameter_A=90, out=str(run), poses="local", iterations=1, threads=1, **QUIET)
    assert vg.validate(str(run)).findings


def test_every_method_solves_a_tilt_series():
    """By name, whatever it works on: its filter, its rows, its normal equations."""
    images = np.zeros((9, 2, 16), np.float32)
    for axis_deg in (0.0, 7.0):
        A = vg.reconstruction.operators.tilt_series(images, np.linspace(-60, 60, 9), axis_deg, thickness_px=8)
        entries = A.entries()
        x, y = (np.random.default_rng(0).normal(size=n).astype(np.float32) for n in A.shape[::-1])
        assert np.allclose(entries @ x, A @ x, atol=1e-5)
        assert np.allclose(entries.T @ y, A.rmatvec(y), atol=1e-5)
    A = vg.reconstruction.operators.tilt_series(images, np.linspace(-60, 60, 9), thickness_px=8)
    truth = np.zeros(A.map_shape, np.float32)
    truth[3:6, :, 5:11] = 1
    data = A @ truth.ravel()
    own_prior = ("fista", "admm", "primal-dual", "preconditioned-primal-dual", "projected-subgradient", "superiorised")
    for method in sorted(set(solvers.METHODS) - {*own_prior, "omp"}):
        choices = {"relaxation": 0.1} if method == "jacobi" else {}
        made = vg.reconstruction.solve(A, data, method=method, iterations=20, prior=None, callback=None, **choices)
        alike = np.corrcoef(made.x, truth.ravel())[0, 1]
        assert alike > (0.55 if method == "gauss-seidel" else 0.7), method
    with pytest.raises(vg.InputError, match="turn the images first"):
        vg.reconstruction.solve(vg.reconstruction.operators.tilt_series(images, np.zeros(9), 7.0), data, "wbp")
    large = vg.reconstruction.operators.tilt_series(np.zeros((60, 512, 512)), np.arange(60.0))
    with pytest.raises(vg.InputError, match=r"slice by slice along y"):
        vg.reconstruction.solve(large, np.zeros(large.shape[0]), "art")


def test_methods_on_particles(set_of):
    p, truth, _, _ = set_of
    A = vg.reconstruction.operators.particles(p[:30], symmetry="C1")
    data = A @ truth.data.ravel()
    for method in ("sirt", "cg", "tv"):
        made = vg.reconstruction.solve(A, data, method=method, iterations=5)
        assert np.corrcoef(made.x, truth.data.ravel())[0, 1] > 0.7, method
    with pytest.raises(vg.InputError, match="known by its action only"):
        vg.reconstruction.solve(A, data, "art")
