"""Maps against models: Q-scores beside the reference program's, densities, refusals, a rigid fit."""

from __future__ import annotations

import gzip
import json
import struct

import gemmi
import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment import q_scores
from verglas.assessment.model_density import frequencies, model_density
from verglas.assessment.model_tables import ModelTables
from verglas.assessment.q_score import sample
from verglas.io import read_atoms, read_csv
from verglas.map_geometry.model_fit import fit_atoms
from verglas.report.map_model import map_model_page
from verglas.types.atoms import Atoms


def chain(n: int = 60, seed: int = 0, box_A: float = 48.0) -> Atoms:
    """A random walk of carbon atoms 1.5 A apart that keeps off itself, about the middle of a box."""
    rng, places = np.random.default_rng(seed), [np.zeros(3)]
    while len(places) < n:
        step = rng.normal(size=3)
        new = places[-1] + 1.5 * step / np.linalg.norm(step)
        if min(np.linalg.norm(new - p) for p in places) > 1.4:
            places.append(new)
    xyz = np.array(places) - np.mean(places, axis=0) + box_A / 2
    numbers = np.arange(n) // 4
    return Atoms(xyz, ["C"] * n, ["CA"] * n, ["ALA"] * n, ["A"] * n, numbers, np.ones(n), np.full(n, 30.0))


def frame(box: int = 48, pixel_size_A: float = 1.0, origin_A: tuple = (0.0, 0.0, 0.0)) -> vg.Map:
    return vg.Map(np.zeros((box,) * 3, np.float32), pixel_size_A, origin_A)


def test_q_scores_are_those_of_the_reference_program(data_dir):
    model = data_dir / "qscore_mapq" / "390_7cec_A__Q__390_emd_30342_A_z4.cif"
    atoms, volume = read_atoms(model), vg.read_map(data_dir / "qscore_mapq" / "390_emd_30342_A_z4.mrc")
    rows = gemmi.cif.read(str(model)).sole_block().find("_atom_site.", ["Q_score", "type_symbol"])
    theirs = np.array([float(row[0]) for row in rows if row[1] != "H"])
    ours = q_scores(volume, atoms)
    assert np.isfinite(ours).all()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.01)


def test_q_of_an_atoms_own_gaussian_is_one():
    atoms = chain(1)
    r2 = ((np.stack(np.meshgrid(*[np.arange(96) * 0.5] * 3, indexing="ij"), -1) - 24.0) ** 2).sum(-1)
    volume = vg.Map(np.exp(-r2 / (2 * 0.6**2)), 0.5)
    assert q_scores(volume, atoms)[0] > 0.99
    assert q_scores(volume.with_data(-volume.data), atoms)[0] < -0.99
    moved = q_scores(volume, atoms.xyz_A + np.array([1.5, 0, 0]))[0]
    assert moved < 0.6


def test_q_is_nan_outside_and_does_not_depend_on_threads():
    atoms = chain(60)
    volume = model_density(atoms, frame())
    outside = np.vstack([atoms.xyz_A, [[-5.0, 10, 10]]])
    scores = q_scores(volume, outside, threads=1)
    assert np.isnan(scores[-1])
    assert np.isfinite(scores[:-1]).all()
    np.testing.assert_array_equal(scores, q_scores(volume, outside, threads=2))


def test_density_is_that_of_exact_sums():
    atoms, like = chain(60), frame()
    made = model_density(atoms, like)
    model = vg.simulate.Model(atoms.xyz_A - 24.0, atoms.elements, atoms.occupancies, atoms.b_factors_A2)
    exact = vg.simulate.density(model, 48, 1.0)
    inside = frequencies((48,) * 3, 1.0) <= 0.45
    a, b = (vg.fourier.forward(m.data, 3)[inside] for m in (made, exact))
    assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(b)


def test_cropped_map_of_another_origin_gives_the_same():
    atoms = chain(60)
    whole = model_density(atoms, frame(pixel_size_A=1.0))
    cut = vg.Map(whole.data[6:42, 8:44, 4:44], 1.0, (4.0, 8.0, 6.0))
    one, other = vg.map_model(whole, atoms), vg.map_model(cut, atoms)
    np.testing.assert_allclose(one.q, other.q, atol=1e-4)
    assert other.correlations["mask"] > 0.99
    assert one.correlations["mask"] > 0.99


def test_a_perfect_model_agrees_to_the_cut_of_its_map():
    atoms = chain(60)
    made = model_density(atoms, frame())
    keep = frequencies((48,) * 3, 1.0) <= 1 / 4.0
    blurred = vg.fourier.inverse(vg.fourier.forward(made.data, 3) * keep, (48,) * 3)
    noise = np.random.default_rng(0).normal(size=blurred.shape) * 0.02 * blurred.std()
    found = vg.map_model(made.with_data(blurred + noise), atoms)
    assert abs(1 / found.d_model_A - 1 / 4.0) <= 1.01 / 48  # to a shell
    assert found.d99_A >= 4.0
    assert min(found.correlations.values()) > 0.97, found.correlations  # what the noise leaves
    assert list(found.correlations) == ["box", "mask", "volume", "peaks", "vr_mask"]
    assert found.d_fsc_A(0.5, masked=False) == pytest.approx(4.0, rel=0.05)


def test_tables_of_residues_and_chains():
    atoms = chain(60)
    found = vg.map_model(model_density(atoms, frame()), atoms)
    residues = found.residues()
    assert len(residues) == 15
    assert residues["q"].iloc[3] == pytest.approx(found.q[12:16].mean())
    assert found.chains()["atoms"].tolist() == [60]


def test_models_elsewhere_are_refused():
    atoms = chain(60)
    volume = model_density(atoms, frame())
    with pytest.raises(vg.InputError, match="only 0 of 60 atoms"):
        vg.map_model(volume, atoms.move(np.eye(3), [200, 0, 0]))
    far = frame(96)
    far.data[:48, :48, :48] = volume.data
    with pytest.raises(vg.InputError, match="has no density"):
        vg.map_model(far, atoms.move(np.eye(3), [48, 48, 48]))
    with pytest.raises(vg.InputError, match="constant"):
        vg.map_model(frame(), atoms)


def test_shifted_model_is_refused_and_the_right_one_is_not(data_dir):
    volume = vg.read_map(data_dir / "ntd_21457" / "emd_21457_seg.mrc")
    with pytest.raises(vg.InputError, match="lie inside the map"):
        vg.map_model(volume, read_atoms(data_dir / "ntd_21457" / "6vyb_Ndom_shifted.pdb"))
    right = vg.map_model(volume, read_atoms(data_dir / "ntd_21457" / "6vyb_Ndom.pdb"))
    assert right.correlations["mask"] > 0.45


def test_correlation_of_a_published_model(data_dir):
    folder = data_dir / "haemoglobin_3488"
    found = vg.map_model(vg.read_map(folder / "emd_3488.mrc"), read_atoms(folder / "5ni1_updated.cif"))
    assert found.correlations["mask"] > 0.8
    assert found.d_fsc_A(0.5) == pytest.approx(3.2, abs=0.15)  # the resolution of the entry


def test_atoms_land_on_the_density_of_a_map_that_begins_elsewhere(data_dir, tmp_path):
    """EMD-5625 says where it lies by the number of its first voxel, not by an origin."""
    path = data_dir / "emd_5625" / "emd_5625.map.gz"
    with gzip.open(path) as file:
        header = file.read(1024)
    first, origin = struct.unpack("<3i", header[16:28]), struct.unpack("<3f", header[196:208])
    step_A = struct.unpack("<f", header[40:44])[0] / 56
    assert first == (-28, -28, -28)
    assert origin == (0, 0, 0)
    volume = vg.read_map(path)
    values = volume.data
    dense = np.argwhere(values > 2 * values.std())[::4]  # residues have four digits
    xyz = (dense[:, ::-1] + first) * step_A
    text = "".join(
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00400.00           C\n"
        for i, (x, y, z) in enumerate(xyz, 1)
    )
    (tmp_path / "dense.pdb").write_text(text)
    read = read_atoms(tmp_path / "dense.pdb")
    np.testing.assert_allclose(sample(volume, read.xyz_A), values[tuple(dense.T)], atol=0.01)
    assert vg.map_model(volume, read).correlations["mask"] > 0.4
    with pytest.raises(vg.InputError, match="atoms"):
        vg.map_model(volume, read.move(np.eye(3), -np.multiply(first, step_A)))


def test_part_of_a_published_map_has_the_scores_of_the_whole(data_dir, tmp_path):
    folder = data_dir / "haemoglobin_3488"
    whole, atoms = vg.read_map(folder / "emd_3488.mrc"), read_atoms(folder / "5ni1_updated.cif")
    low, high = np.array([30, 35, 35]), np.array([65, 70, 68])  # voxels x, y, z
    cut = np.ascontiguousarray(whole.data[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))])
    place = tuple(np.asarray(whole.origin_A) + low * whole.pixel_size_A)
    vg.write_map(tmp_path / "part.mrc", vg.Map(cut, whole.pixel_size_A, place))
    part = vg.read_map(tmp_path / "part.mrc")
    voxels = (atoms.xyz_A - np.asarray(whole.origin_A)) / whole.pixel_size_A
    inside = ((voxels > low + 3) & (voxels < high - 4)).all(axis=1)
    chosen = atoms.xyz_A[inside]
    assert len(chosen) > 500
    np.testing.assert_allclose(sample(part, chosen), sample(whole, chosen), atol=1e-4)
    np.testing.assert_allclose(q_scores(part, chosen), q_scores(whole, chosen), atol=1e-3)


def test_of_alternatives_the_first_is_read(tmp_path):
    """Alternatives B and C of one atom; B before A; two residues in one place; hydrogen; a second model."""
    rows = [
        ("N", " ", "SER", 1),
        ("CB", "B", "SER", 1),
        ("CB", "C", "SER", 1),
        ("N", "B", "SER", 2),
        ("N", "A", "SER", 2),
        ("N", "A", "SER", 3),
        ("N", "B", "THR", 3),
        ("H", " ", "GLY", 4),
        ("N", " ", "GLY", 4),
    ]
    text = "".join(
        f"ATOM  {i:5d} {name:^4s}{alternative}{residue} A{number:4d}    {i:8.3f}   0.000   0.000  1.00 20.00          "
        f"{name[:1]:>2s}\n"
        for i, (name, alternative, residue, number) in enumerate(rows)
    )
    (tmp_path / "m.pdb").write_text(f"MODEL        1\n{text}ENDMDL\nMODEL        2\n{text}ENDMDL\n")
    read = read_atoms(tmp_path / "m.pdb")
    assert read.xyz_A[:, 0].tolist() == [0, 1, 3, 5, 8]
    assert read.residue_names.tolist() == ["SER", "SER", "SER", "SER", "GLY"]


def test_fit_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr("verglas.map_geometry.model_fit._SEARCH_DEG", 60.0)
    atoms, calls = chain(30, box_A=24.0), []
    fit_atoms(model_density(atoms, frame(16, 1.5)), atoms, threads=1, progress=lambda *call: calls.append(call))
    last = {phase: (done, total) for phase, done, total in calls}
    assert list(last) == ["fit, rotations", "fit, places"]
    assert all(done == total > 0 for done, total in last.values())


@pytest.mark.slow
def test_fit_puts_a_model_back():
    atoms = chain(250, seed=3, box_A=60.0)
    volume = model_density(atoms, frame(40, 1.5))
    away = atoms.move(vg.euler_to_matrix([[40, 70, -20.0]])[0], [90, -30, 20])
    placed = fit_atoms(volume, away, threads=1)
    assert np.sqrt(((placed.atoms.xyz_A - atoms.xyz_A) ** 2).sum(axis=1).mean()) < 0.5


def test_a_chain_outside_the_map_has_no_q_in_json_and_page(tmp_path):
    atoms = chain(60)
    away = Atoms([[200.0, 0, 0]], ["C"], ["CA"], ["ALA"], ["B"], [1], [1], [30])
    columns = ("xyz_A", "elements", "names", "residue_names", "chains", "residue_numbers", "occupancies")
    both = [np.concatenate([getattr(a, name) for a in (atoms, away)]) for name in (*columns, "b_factors_A2")]
    found = vg.map_model(model_density(atoms, frame()), Atoms(*both))
    assert found.q_mean == pytest.approx(np.nanmean(found.q))
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["chains"][1]["q"] is None
    tables = ModelTables.of(found, model_density(atoms, frame()))
    assert "Q-scores along the chains" in map_model_page(found, tables)


def test_a_map_that_cannot_be_fitted_to_is_refused():
    for value, said in ((np.nan, "not finite"), (1.0, "constant")):
        with pytest.raises(vg.InputError, match=f"fit: .*{said}"):
            fit_atoms(vg.Map(np.full((16, 16, 16), value), 2.0), chain(20, box_A=16.0))


def test_command_writes_tables_and_page(tmp_path, capsys):
    pdb = "".join(
        f"ATOM  {i + 1:5d}  CA  ALA A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00           C\n"
        for i, (number, (x, y, z)) in enumerate(zip(chain().residue_numbers, chain().xyz_A, strict=True))
    )
    (tmp_path / "model.pdb").write_text(pdb)
    vg.write_map(tmp_path / "map.mrc", model_density(chain(), frame()))
    out = tmp_path / "out"
    files = [str(tmp_path / name) for name in ("map.mrc", "model.pdb")]
    status, printed, _ = main(["map-model", *files, "--out", str(out), "--resolution", "3", "--json"], capsys)
    record = json.loads(printed)
    assert status == 0
    assert record["correlations"]["mask"] > 0.95
    assert record["resolution_A"] == 3.0
    assert len(read_csv(out / "atoms.csv")) == record["atoms"]
    assert read_csv(out / "chains.csv")["q"][0] == pytest.approx(record["q_mean"], abs=1e-3)
    page = (out / "report.html").read_text()
    assert "Look at these residues first" in page
    assert 'data-name="model.pdb" data-kind="model"' in page
    assert len(page) < 1_300_000
    status, _, said = main(["map-model", *files, "--out", str(out), "--half1", files[0]], capsys)
    assert status == 2
    assert "both half maps" in said
