"""Symmetry in a refinement: the reference is put on the group's axes or refused; the particles have the last word."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas.assessment.judge import GroupLead, GroupResolutions, judge_symmetry
from verglas.cli import main
from verglas.errors import InputError
from verglas.geometry import symmetry_matrices
from verglas.initial_model.subgroups import maximal_subgroups
from verglas.map_geometry.axes import upright_map
from verglas.map_geometry.map_alignment import align_maps, turned_map
from verglas.map_geometry.symmetry_search import moved_map
from verglas.reconstruction.sums import Symmetry
from verglas.refinement.settings import RefineSettings
from verglas.run.refine_symmetry import upright_references

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

BOX, PIXEL_A, DIAMETER_A = 32, 5.0, 110.0


def density(symmetry, seed=0):
    return vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=seed), BOX, PIXEL_A)


def imposed(one, group):
    """A map averaged over a group."""
    made = Symmetry.of(symmetry_matrices(group)).apply(one.data.astype(np.float32), (one.box - 1) // 2)
    return one.with_data(made)


def turned(one, angles_deg, by_px=(0.0, 0.0, 0.0)):
    data = turned_map(one.data, vg.euler_to_matrix([angles_deg])[0])
    return one.with_data(moved_map(data, np.array(by_px)))


@pytest.mark.parametrize("group", ["C4", "D2", "D3", "O"])
def test_a_map_on_its_axes_is_left_alone(group):
    assert upright_map(density(group).data, group, 6) is None


@pytest.mark.parametrize("group", ["C4", "D3", *(pytest.param(g, marks=pytest.mark.slow) for g in ("D2", "T", "O"))])
def test_a_map_off_its_axes_is_brought_onto_them(group):
    reference = turned(density(group), (20.0, 30.0, -10.0), (1.5, -1.0, 0.5))
    found = upright_map(reference.data, group, 6)
    assert found.fits
    assert found.after > 0.9
    assert upright_map(found.apply(reference.data), group, 6) is None


def test_the_turn_is_the_smallest_that_will_do():
    found = upright_map(turned(density("C4"), (0.0, 30.0, 0.0)).data, "C4", 6)
    assert abs(found.angle_deg - 30) < 3


def test_a_reference_without_the_group_is_refused_with_what_was_measured():
    with pytest.raises(InputError, match=r"does not have the symmetry D3.*by 0\.\d\d|by -0\.\d\d"):
        upright_references([density("C1", 3)], RefineSettings(symmetry="D3"), mask_given=False)


def test_a_round_reference_and_one_without_a_group_to_have_are_not_judged():
    r = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0)
    ball = vg.Map(np.exp(-((r / 6) ** 2)).astype(np.float32), PIXEL_A)
    assert upright_references([ball], RefineSettings(symmetry="O"), mask_given=False)[0][0] is ball
    one = density("C1")
    assert upright_references([one], RefineSettings(), mask_given=True) == ([one], [])


@pytest.mark.parametrize(("how", "what"), [({"poses": "local"}, "poses"), ({}, "mask")])
def test_what_goes_with_a_reference_is_not_left_behind(how, what):
    reference = turned(density("C4"), (0.0, 30.0, 0.0))
    with pytest.raises(InputError, match=f"{what}.* would no longer go with it"):
        upright_references([reference], RefineSettings(symmetry="C4", **how), mask_given=what == "mask")


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("C4", ["C2 about z"]),
        ("C3", ["C1"]),
        ("D2", ["C2 about x", "C2 about y", "C2 about z"]),
        ("O", ["T", "D4", "D3"]),
    ],
)
def test_maximal_subgroups(group, names):
    assert [s.name for s in maximal_subgroups(group)] == names


@pytest.mark.parametrize("group", ["D2", "D3", "T", "O", "I"])
def test_cosets_of_a_subgroup_make_the_group(group):
    whole = symmetry_matrices(group)
    for part in maximal_subgroups(group):
        made = np.einsum("aij,bjk->abik", part.cosets, part.matrices).reshape(-1, 3, 3)
        assert len(made) == len(whole)
        nearest = np.abs(made[:, None] - whole).max(axis=(2, 3))
        assert sorted(nearest.argmin(axis=1)) == list(range(len(whole)))
        assert nearest.min(axis=1).max() < 1e-6


def test_findings_of_a_contest():
    evidence = {"D2": 3.0, "C2 about z": 2.5, "C1": 2.0}
    kept = judge_symmetry("D2", "D2", evidence, GroupLead(0.5, 0.1), GroupResolutions(8.0, 6.0))
    assert (kept.code, kept.state) == ("symmetry-supported", "go on")
    assert kept.numbers["gain_by_symmetry"] == pytest.approx(4 / 3, abs=1e-3)
    assert kept.numbers["best_subgroup"] == "C2 about z"
    assert judge_symmetry("D2", None, evidence, GroupLead(0.1, 0.1), GroupResolutions(8.0, 6.0)).state == "warn"
    refused = judge_symmetry("D2", "C1", evidence, GroupLead(-0.5, 0.1), GroupResolutions(8.0, 6.0))
    assert (refused.code, refused.state) == ("symmetry-not-supported", "stop")
    assert "--symmetry C1" in refused.sentence


def particles_of(truth, n, snr, seed):
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, truth, seed=seed)
    return vg.simulate.particles(model, n, BOX, PIXEL_A, snr=snr, seed=seed), vg.simulate.density(model, BOX, PIXEL_A)


@pytest.mark.slow
def test_particles_with_the_group_support_it(capsys, monkeypatch):
    monkeypatch.setattr("verglas._screen._LINE_EVERY_S", 0.0)
    made, reference = particles_of("D2", 300, 0.2, 1)
    capsys.readouterr()  # what the simulation said
    found = vg.refine(made, reference, "D2", 125.0, listener=None)
    assert capsys.readouterr().err == ""  # also of the reconstruction without the group
    assert found.verdict["symmetry-supported"].numbers["lead_nats"] > 0
    numbers = found.verdict["symmetry-supported"].numbers
    assert numbers["resolution_without_symmetry_A"] >= numbers["resolution_with_symmetry_A"]


@pytest.mark.slow
def test_particles_without_the_group_refuse_it(tmp_path, capsys):
    made, truth = particles_of("C1", 400, 0.5, 1)
    vg.write_particles(tmp_path / "p.star", made)
    vg.write_map(tmp_path / "ref.mrc", imposed(truth, "D2"))
    command = ["refine", tmp_path / "p.star", "--ref", tmp_path / "ref.mrc", "--out", tmp_path / "run"]
    with pytest.raises(SystemExit) as ended:
        main([str(c) for c in [*command, "--symmetry", "D2", "--diameter", 125, "--json"]])
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    codes = [one["code"] for one in told["verdict"]["findings"]]
    assert "symmetry-not-supported" in codes
    assert "symmetry-not-supported" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_reference_off_its_axes_gives_the_resolution_that_the_truth_confirms():
    made, truth = particles_of("C4", 400, 0.2, 2)
    found = vg.refine(made, turned(truth, (0.0, 30.0, 0.0)), "C4", 125.0, listener=None)
    aligned = align_maps(truth, found.map).map
    curve = vg.fsc(truth, aligned)
    assert curve.resolution_A(0.5) < 1.3 * found.resolution_A
