"""Parts of a model against a map: side chains, secondary structure, FSC-Q; and what models say without a map."""

from __future__ import annotations

import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment import atom_statistics, debye_power, element_z, fsc_q, secondary_structure, side_chain_z
from verglas.assessment.fsc_q import FscQ
from verglas.assessment.model_density import model_density
from verglas.assessment.model_tables import ModelTables
from verglas.io import read_atoms, read_csv
from verglas.report.html import typeset
from verglas.report.map_model import map_model_page
from verglas.types.atoms import Atoms


@pytest.fixture(scope="module")
def haemoglobin(data_dir):
    folder = data_dir / "haemoglobin_3488"
    atoms = read_atoms(folder / "5ni1_updated.cif", water=False)
    return atoms.take(atoms.chains == "A"), vg.read_map(folder / "emd_3488.mrc")


def turned_side_chains(atoms: Atoms, angle_deg: float) -> Atoms:
    """Every side chain turned about its CA-CB axis."""
    xyz = atoms.xyz_A.copy()
    backbone = np.isin(atoms.names, ("N", "CA", "C", "O", "OXT", "CB"))
    for number in range(atoms.residues[-1] + 1):
        rows = atoms.residues == number
        ends = [atoms.xyz_A[rows & (atoms.names == name)] for name in ("CA", "CB")]
        beyond = rows & ~backbone
        if not beyond.any() or not all(len(end) == 1 for end in ends):
            continue
        axis = (ends[1] - ends[0])[0]
        axis *= np.deg2rad(angle_deg) / np.linalg.norm(axis)
        x, y, z = axis
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        angle = np.linalg.norm(axis)
        matrix = np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * cross @ cross
        xyz[beyond] = (xyz[beyond] - ends[0]) @ matrix.T + ends[0]
    return Atoms(
        xyz,
        *(getattr(atoms, name) for name in ("elements", "names", "residue_names", "chains", "residue_numbers")),
        atoms.occupancies,
        atoms.b_factors_A2,
    )


def test_side_chains_stand_out_in_their_own_density_and_not_when_turned_away(haemoglobin):
    atoms, volume = haemoglobin
    own = model_density(atoms, volume)
    right = side_chain_z(own, atoms)
    assert len(right) == atoms.residues[-1] + 1
    known = np.isfinite(right)
    assert known.sum() > 85
    assert (right[known] > 0).mean() > 0.95
    wrong = side_chain_z(own, turned_side_chains(atoms, 120))
    both = known & np.isfinite(wrong)
    assert (wrong[both] < right[both]).mean() > 0.95
    assert np.nanmedian(wrong) < 0
    measured = side_chain_z(volume, atoms)
    assert (measured[np.isfinite(measured)] > 0).mean() > 0.95


def test_helices_are_those_of_the_deposited_model(haemoglobin, data_dir):
    atoms, volume = haemoglobin
    structure = gemmi.read_structure(str(data_dir / "haemoglobin_3488" / "5ni1_updated.cif"))
    annotated = np.zeros(atoms.residues[-1] + 1, bool)
    first = np.flatnonzero(np.diff(atoms.residues, prepend=-1))
    for helix in structure.helices:
        begin, end = helix.start.res_id.seqid.num, helix.end.res_id.seqid.num
        rows = atoms.chains[first] == helix.start.chain_name
        annotated |= rows & (atoms.residue_numbers[first] >= begin) & (atoms.residue_numbers[first] <= end)
    table = secondary_structure(atoms)
    found = np.zeros_like(annotated)
    for row in table[table["kind"] == "helix"].itertuples():
        found[row.start : row.end + 1] = True
    assert (found & annotated).sum() / annotated.sum() > 0.85
    assert (found & annotated).sum() / found.sum() > 0.9
    assert table.loc[table["kind"] == "strand", "residues"].sum() < 0.04 * len(annotated)  # all helical
    scores = element_z(volume, atoms, table)["z"]
    assert (scores > 2).all()
    shifted = element_z(volume, atoms.move(np.eye(3), [4.0, 3.0, 2.0]), table)["z"]
    assert (shifted < scores).all()


def test_helices_that_end_where_the_next_chain_begins_are_two():
    turn = np.deg2rad(100) * np.arange(10)
    xyz = np.column_stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(10)])
    both, n = np.concatenate([xyz, xyz + np.array([12.0, 0, 0])]), 20
    columns = (["C"] * n, ["CA"] * n, ["ALA"] * n, np.repeat(["A", "B"], 10), np.tile(np.arange(10), 2), np.ones(n))
    table = secondary_structure(Atoms(both, *columns, np.full(n, 20.0)))
    assert table[["kind", "chain", "first", "last"]].to_numpy().tolist() == [["helix", "A", 0, 9], ["helix", "B", 0, 9]]


def test_a_model_without_side_chains_has_no_scores_and_no_elements():
    xyz = np.array([[8.0, 8, 8], [9.5, 8, 8]])
    atoms = Atoms(xyz, ["C", "O"], ["C", "O"], ["GLY"] * 2, ["A"] * 2, [1, 1], [1, 1], [20, 20])
    volume = model_density(atoms, vg.Map(np.zeros((16, 16, 16)), 1.0))
    assert np.isnan(side_chain_z(volume, atoms)).all()
    assert element_z(volume, atoms).empty
    assert list(element_z(volume, atoms)) == ["kind", "chain", "first", "last", "residues", "start", "end", "z"]


@pytest.fixture(scope="module")
def planted():
    """Half maps of a model with noise, and the model with one of its two halves moved by 3 A."""
    rng = np.random.default_rng(21)
    xyz, n = rng.uniform(-24, 24, (900, 3)), 900
    xyz = xyz[np.linalg.norm(xyz, axis=1) < 24] + 36
    n = len(xyz)
    names = (["C"] * n, ["CA"] * n, ["ALA"] * n, ["A"] * n, np.arange(n), np.ones(n), np.full(n, 40.0))
    atoms = Atoms(xyz, *names)
    truth = model_density(atoms, vg.Map(np.zeros((48, 48, 48)), 1.5))
    noise = 1.5 * truth.data.std() * rng.normal(size=(2, 48, 48, 48))
    halves = [truth.with_data(truth.data + one) for one in noise]
    moved = xyz[:, 0] > 36
    return halves, atoms, Atoms(xyz + 3.0 * moved[:, None] * np.array([0, 0.6, 0.8]), *names), moved


def test_fsc_q_is_nought_for_the_right_model_and_tells_the_part_that_was_moved(planted):
    halves, atoms, wrong, moved = planted
    right = fsc_q(*halves, atoms, window_radius_A=8.0, listener=None)
    away = np.abs(atoms.xyz_A[:, 0] - 36) > 8
    assert abs(right.median_A) < 0.3
    found = fsc_q(*halves, wrong, window_radius_A=8.0, listener=None)
    assert np.nanmedian(found.difference_A[moved & away]) > 1.0
    assert abs(np.nanmedian(found.difference_A[~moved & away])) < 0.4
    np.testing.assert_allclose(found.relative, found.difference_A / found.halves_A)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["q95_A"] > 1


def test_map_model_command_writes_features(planted, tmp_path, capsys):
    halves, atoms, *_ = planted
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 40.00           C\n"
        for i, (x, y, z) in enumerate(atoms.xyz_A)
    ]
    (tmp_path / "model.pdb").write_text("".join(lines))
    for name, volume in zip(("half1", "half2"), halves, strict=True):
        vg.write_map(tmp_path / f"{name}.mrc", volume)
    vg.write_map(tmp_path / "map.mrc", halves[0].with_data(0.5 * (halves[0].data + halves[1].data)))
    place = [str(tmp_path / name) for name in ("map.mrc", "model.pdb", "half1.mrc", "half2.mrc")]
    out = tmp_path / "check"
    order = ["map-model", *place[:2], "--half1", place[2], "--half2", place[3], "--out", str(out)]
    status, printed, _ = main(order, capsys)
    assert status == 0
    assert "FSC-Q: median" in printed
    assert abs(json.loads((out / "map_model.json").read_text())["fsc_q"]["median_A"]) < 0.5
    assert len(read_csv(out / "atoms.csv")["fsc_q_A"]) == len(atoms)
    assert (out / "elements.csv").exists()
    assert "FSC-Q: the model against what the half maps know" in (out / "report.html").read_text()


def test_model_statistics_command(data_dir, tmp_path, capsys):
    moved = gemmi.read_structure(str(data_dir / "haemoglobin_3488" / "5ni1_updated.cif"))
    for chain in "BCD":
        moved[0].remove_chain(chain)
    source = tmp_path / "alpha.cif"
    moved.make_mmcif_document().write_file(str(source))
    for atom in (cra.atom for cra in moved[0].all()):
        atom.pos.x += 2.0
    moved.make_mmcif_document().write_file(str(tmp_path / "moved.cif"))
    table = tmp_path / "apart.csv"
    order = ["model-statistics", str(source), str(tmp_path / "moved.cif"), "--out", str(table)]
    status, printed, _ = main(order, capsys)
    assert status == 0
    assert "2 models lie 1.00 A apart" in printed
    np.testing.assert_allclose(read_csv(table)["rmsf_A"], 1.0, atol=1e-3)
    _, printed, _ = main(["model-statistics", str(source), "--json"], capsys)
    one = json.loads(printed)["models"][0]
    assert one["radius_of_gyration_guinier_A"] == pytest.approx(one["radius_of_gyration_A"], rel=0.02)
    status, _, said = main(["model-statistics", str(source), "--out", str(table)], capsys)
    assert status == 1
    assert "two or more" in said


def test_residues_that_differ_by_their_insertion_code_are_two(haemoglobin, tmp_path):
    atoms, volume = haemoglobin
    own = atoms.take((atoms.residue_numbers >= 98) & (atoms.residue_numbers <= 102))
    first = own.residue_numbers == 100  # two leucines follow one another
    assert set(own.residue_names[first | (own.residue_numbers == 101)]) == {"LEU"}
    lines = [
        f"ATOM  {i + 1:5d}  {name:<3s} {kind} A{100 if number == 101 else number:4d}{'A' if number == 101 else ' '}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 40.00          {element:>2s}\n"
        for i, (name, kind, number, element, (x, y, z)) in enumerate(
            zip(own.names, own.residue_names, own.residue_numbers, own.elements, own.xyz_A, strict=True)
        )
    ]
    (tmp_path / "model.pdb").write_text("".join(lines))
    read = read_atoms(tmp_path / "model.pdb")
    assert read.residues.tolist() == own.residues.tolist()
    assert set(read.insertion_codes) == {"", "A"}
    np.testing.assert_allclose(side_chain_z(volume, read), side_chain_z(volume, own), atol=0.02)


@pytest.fixture
def small(tmp_path):
    """A map and a model of forty atoms on disk; half maps with a change of theirs."""
    rng = np.random.default_rng(3)
    xyz = rng.uniform(12, 30, (40, 3))
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 40.00           C\n"
        for i, (x, y, z) in enumerate(xyz)
    ]
    (tmp_path / "model.pdb").write_text("".join(lines))

    def write(shape, signal=1.0, pixel_size_A=1.5, origin_A=(0, 0, 0)):
        truth = model_density(read_atoms(tmp_path / "model.pdb"), vg.Map(np.zeros(shape), 1.5))
        noise = truth.data.std() * rng.normal(size=(2, *shape))
        vg.write_map(tmp_path / "map.mrc", truth.with_data(truth.data + noise.mean(axis=0)))
        for name, one in zip(("half1", "half2"), noise, strict=True):
            vg.write_map(tmp_path / f"{name}.mrc", vg.Map(signal * truth.data + one, pixel_size_A, origin_A))
        return [str(tmp_path / name) for name in ("map.mrc", "model.pdb")] + [
            "--half1",
            str(tmp_path / "half1.mrc"),
            "--half2",
            str(tmp_path / "half2.mrc"),
            "--out",
            str(tmp_path / "check"),
        ]

    return write


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": (28, 30, 28)}, "no cubes"),
        ({"shape": (28, 28, 28), "origin_A": (-21.0, -21, -21)}, "origins of map and half maps lie 21.00 A apart"),
        ({"shape": (28, 28, 28), "signal": 0.0}, "agree at no scale"),
    ],
)
def test_half_maps_that_tell_nothing_leave_the_rest_and_are_named(small, changes, said, tmp_path, capsys):
    status, printed, _ = main(["map-model", *small(**changes)], capsys)
    assert status == 0
    assert said in printed
    record = json.loads((tmp_path / "check" / "map_model.json").read_text())
    assert record["q_mean"] > 0.5
    assert (record["fsc_q"] is None) == (record["fsc_q_missing"] is not None) == ("signal" not in changes)
    assert typeset(said) in (tmp_path / "check" / "report.html").read_text()


def test_half_maps_of_another_pixel_size_or_one_map_twice_are_refused(small, capsys):
    order = small((28, 28, 28), pixel_size_A=1.0)
    status, _, said = main(["map-model", *order], capsys)
    assert status == 1
    assert "half1.mrc has a pixel size of 1 A" in said
    order = small((28, 28, 28))
    order[5] = order[3]
    status, _, said = main(["map-model", *order], capsys)
    assert status == 1
    assert "identical" in said


def test_the_page_says_in_words_what_has_no_number(small, tmp_path):
    order = small((28, 28, 28))
    volume = vg.read_map(order[0])
    fit = vg.map_model(volume, read_atoms(order[1]))
    nothing = np.full(len(fit.atoms), np.nan)
    none = replace(fit, q=nothing, fsc_masked=np.zeros_like(fit.fsc_masked))
    page = map_model_page(none, ModelTables.of(none, volume, FscQ(nothing, nothing)))
    assert "No atom has a Q-score" in page
    assert "Map and model agree at no scale" in page


def test_models_of_one_atom_and_of_none_that_is_occupied(tmp_path, capsys):
    line = "ATOM      1  CA  ALA A   1       8.000   8.000   8.000  {}.00 40.00           C\n"
    for occupancy in (0, 1):
        (tmp_path / f"{occupancy}.pdb").write_text(line.format(occupancy))
    status, printed, _ = main(["model-statistics", str(tmp_path / "1.pdb"), "--json"], capsys)
    assert status == 0
    assert json.loads(printed)["models"][0]["radius_of_gyration_guinier_A"] is None
    status, _, said = main(["model-statistics", str(tmp_path / "0.pdb")], capsys)
    assert status == 1
    assert "no atom of 0.pdb has an element and an occupancy above 0" in said


def test_debyes_sum_is_that_of_all_pairs_however_many_are_held_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    xyz, weight, s = rng.uniform(0, 30, (50, 3)), rng.uniform(1, 8, 50), np.array([0.0, 0.02, 0.1])
    distance = np.linalg.norm(xyz[:, None] - xyz, axis=-1)
    truth = [(weight[:, None] * weight * np.sinc(2 * one * distance)).sum() for one in s]
    monkeypatch.setattr(atom_statistics, "_PAIRS", 7 * 50)
    np.testing.assert_allclose(debye_power(xyz, s, weight), truth, rtol=1e-3)
