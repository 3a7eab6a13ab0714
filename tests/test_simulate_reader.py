from __future__ import annotations

import gzip

import numpy as np
import pytest

import verglas as vg
from verglas import simulate
from verglas.geometry import symmetry_matrices


@pytest.mark.parametrize(
    ("name", "group", "copies"), [("7a4m.cif.gz", "O", 24), ("5a1a.pdb.gz", "D2", 1), ("1oel.pdb.gz", "D7", 2)]
)
def test_assemblies_of_real_models(data_dir, name, group, copies):
    path = data_dir / "models" / name
    whole = simulate.read_model(path)
    part = simulate.read_model(path, assembly=None)
    assert len(whole) == copies * len(part)
    np.testing.assert_allclose(whole.centre_A, 0, atol=1e-6)
    assert 40 < whole.radius_A < 120
    assert {"C", "N", "O"} <= set(whole.elements)
    if group == "O":  # the deposited frame has its 4-folds on the axes: the assembly obeys verglas' operators
        backbone = whole.xyz_A[whole.elements == "Zn"]
        for operator in symmetry_matrices("O"):
            distance = np.linalg.norm((backbone @ operator.T)[:, None] - backbone, axis=2).min(1)
            assert distance.max() < 0.3


def test_water_is_left_out_unless_asked_for(data_dir):
    path = data_dir / "models" / "7a4m.cif.gz"
    dry, wet = (simulate.read_model(path, None, water=w) for w in (False, True))
    assert len(wet) > len(dry) + 50


def test_density_of_apoferritin_is_a_hollow_shell(data_dir):
    m = simulate.density(simulate.read_model(data_dir / "models" / "7a4m.cif.gz"), 40, 4.0, b_factor_A2=300)
    z, y, x = np.mgrid[:40, :40, :40] - 20
    r = np.sqrt(x**2 + y**2 + z**2) * 4.0
    inner, shell, outer = (m.data[(r > a) & (r < b)].mean() for a, b in ((0, 30), (42, 55), (68, 80)))
    assert shell > 8 * max(inner, abs(outer))


def test_errors_name_file_and_assembly(tmp_path, data_dir):
    with pytest.raises(vg.FormatError, match=r"gone\.pdb: no such file"):
        simulate.read_model(tmp_path / "gone.pdb")
    (tmp_path / "bad.cif").write_text("hello")
    with pytest.raises(vg.FormatError, match=r"bad\.cif"):
        simulate.read_model(tmp_path / "bad.cif")
    (tmp_path / "empty.pdb").write_text("END\n")
    with pytest.raises(vg.FormatError, match=r"empty\.pdb: no atoms"):
        simulate.read_model(tmp_path / "empty.pdb", None)
    (tmp_path / "cut.cif.gz").write_bytes(gzip.compress(b"data_x\nloop_\n_atom_site.id\n")[:-9])
    with pytest.raises(vg.FormatError, match=r"cut\.cif\.gz"):
        simulate.read_model(tmp_path / "cut.cif.gz")
    with pytest.raises(vg.InputError, match=r"7a4m\.cif\.gz: no assembly '7'; the file has '1'"):
        simulate.read_model(data_dir / "models" / "7a4m.cif.gz", "7")
