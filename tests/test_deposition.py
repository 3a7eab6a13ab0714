"""Files for a public archive: what it would refuse is named, what it takes can be read back."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET

import gemmi
import mrcfile
import numpy as np
import pandas as pd
import pytest
from command_line import main
from run_folder import APIX, BOX, make_run_folder

import verglas as vg
from verglas.assessment.deposition import (
    contour_for_mass,
    judge_belonging,
    judge_contrast,
    judge_grid,
    judge_untouched,
    mean_of,
)
from verglas.errors import InputError
from verglas.map_geometry import flip_hand
from verglas.run.deposit import _read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run_folder(tmp_path_factory.mktemp("runs") / "refine1", iterations=1)


@pytest.fixture(scope="module")
def deposited(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "dep"
    verdict = vg.deposit(run, out, mass_kDa=60.0, dose_e_A2=40.0, hand="helices are right-handed")
    return out, verdict


def test_a_clean_run_is_ready(deposited):
    _, verdict = deposited
    assert verdict.state == "go on", verdict.reasons
    assert set(verdict.codes) == {
        "same-grid",
        "independent-halves",
        "untouched-halves",
        "map-of-halves",
        "sampling",
        "hand",
        "contrast",
    }


def test_the_files_say_what_the_run_says(run, deposited):
    out, _ = deposited
    table = pd.read_csv(run / "fsc.csv")
    root = ET.parse(out / "fsc.xml").getroot()
    assert (root.tag, root.get("xaxis")) == ("fsc", "Resolution (A-1)")
    points = [(float(c.find("x").text), float(c.find("y").text)) for c in root.iter("coordinate")]
    assert np.allclose(points, table[["frequency_per_A", "corrected"]], atol=1e-5)
    block = gemmi.cif.read(str(out / "metadata.cif")).sole_block()
    stated = json.loads((run / "postprocess.json").read_text())["claimed_resolution_A"]
    assert float(block.find_value("_em_3d_reconstruction.resolution")) == round(stated, 2)
    assert float(block.find_value("_em_imaging.accelerating_voltage")) == 300
    assert block.find_value("_em_3d_reconstruction.num_particles") == str(
        len(vg.read_particles(run / "particles.star"))
    )
    assert block.find_loop("_em_software.name").str(0) == "verglas"
    for name in ("map", "half1", "half2", "mask"):
        assert mrcfile.validate(str(out / f"{name}.mrc"))
        assert vg.read_map(out / f"{name}.mrc").pixel_size_A == pytest.approx(APIX)
    assert np.array_equal(vg.read_map(out / "half1.mrc").data, vg.read_map(run / "half1.mrc").data)


def test_the_picture_is_500_px(deposited):
    from matplotlib import image

    picture = image.imread(deposited[0] / "image.png")
    assert picture.shape[:2] == (500, 500)
    assert 0.02 < np.mean(picture[..., :3].min(axis=2) < 0.99) < 0.9


def test_the_contour_encloses_the_mass():
    rng = np.random.default_rng(0)
    volume = vg.Map(rng.normal(size=(20, 20, 20)), 2.0)
    level = contour_for_mass(volume, 10.0)
    enclosed_A3 = np.count_nonzero(volume.data > level) * 8.0
    assert enclosed_A3 == pytest.approx(10_000 * 1.21, rel=0.01)


def test_masked_and_filtered_halves_are_named():
    noise = vg.Map(np.random.default_rng(1).normal(size=(32, 32, 32)), 2.0)
    sphere = vg.masks.soft_sphere(32, 10.0, 2.0)
    assert judge_untouched(noise.with_data(noise.data * sphere), "half1", 8.0).state == "stop"
    filtered = vg.filters.apply(noise, vg.filters.low_pass(10.0))
    assert judge_untouched(filtered, "half1", 10.0).state == "warn"
    assert judge_untouched(noise, "half1", 8.0).state == "go on"


def test_another_map_and_the_mirror_image_are_named(run):
    mean = mean_of(*(vg.read_map(run / f"half{k}.mrc") for k in (1, 2)))
    halves = mean, mean.with_data(flip_hand(mean.data))
    primary = vg.read_map(run / "map_sharpened.mrc")
    assert judge_belonging(primary, *halves, 8.0).state == "go on"
    mirrored = primary.with_data(flip_hand(primary.data))
    assert "mirror image" in judge_belonging(mirrored, *halves, 8.0).sentence
    other = primary.with_data(np.random.default_rng(0).normal(size=(BOX,) * 3))
    assert judge_belonging(other, *halves, 8.0).state == "stop"


def test_grid_and_contrast():
    one = vg.Map(np.zeros((8, 8, 8)), 1.0)
    assert judge_grid({"map": one, "half1": vg.Map(np.zeros((9, 9, 9)), 1.0)}).state == "stop"
    assert "1.0100" in judge_grid({"map": one, "half1": vg.Map(np.zeros((8, 8, 8)), 1.01)}).sentence
    moved = vg.Map(np.zeros((8, 8, 8)), 1.0, (4.0, 0.0, 0.0))
    assert "superimpose" in judge_grid({"map": one, "half1": moved}).sentence
    dark = np.ones((8, 8, 8))
    dark[2:6, 2:6, 2:6] = -1
    assert judge_contrast(vg.Map(dark, 1.0), (dark < 0).astype(float)).state == "stop"


def test_the_command_warns_of_an_unknown_hand_and_stops_at_a_masked_half(run, tmp_path, capsys):
    status, printed, _ = main(["deposit", str(run), "--out", str(tmp_path / "dep"), "--json"], capsys)
    said = json.loads(printed)
    assert (status, said["state"]) == (0, "warn")
    assert [f["code"] for f in said["findings"] if f["state"] == "warn"] == ["hand"]
    masked = tmp_path / "masked"
    shutil.copytree(run, masked)
    half = vg.read_map(masked / "half1.mrc")
    vg.write_map(masked / "half1.mrc", half.with_data(half.data * vg.masks.soft_sphere(BOX, 12.0, 3.0)))
    status, printed, _ = main(["deposit", str(masked), "--out", str(tmp_path / "bad")], capsys)
    assert status == 1
    assert "half1 are 0: it was masked" in printed


def test_what_is_no_finished_run_is_refused(run, tmp_path):
    with pytest.raises(InputError, match=r"no half1\.mrc"):
        vg.deposit(tmp_path, tmp_path / "dep")
    with pytest.raises(InputError, match="there is one class"):
        vg.deposit(run, tmp_path / "dep", class_number=2)
    several = make_run_folder(tmp_path / "classes", n_classes=2, iterations=1)
    with pytest.raises(InputError, match=r"classes 1, 2: give --class-number"):
        vg.deposit(several, tmp_path / "dep")
    assert vg.deposit(several, tmp_path / "dep", class_number=2, hand="known").state in ("go on", "warn")


def test_a_resolution_that_chance_leaves_open_is_not_stated(run, tmp_path):
    """A coarse end beyond the first shell is no reason to state the crossing; records of before have no claim."""
    shutil.copytree(run, tmp_path / "open")
    path = tmp_path / "open" / "postprocess.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"claimed_resolution_A": None}))
    with pytest.raises(InputError, match="states no resolution"):
        vg.deposit(tmp_path / "open", tmp_path / "dep")
    record.pop("claimed_resolution_A")
    path.write_text(json.dumps(record | {"resolution_A": 21.25}))
    assert _read_run(tmp_path / "open", None).resolution_A == 21.25


def test_files_of_a_run_are_never_replaced(run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    other = make_run_folder(tmp_path / "refine2", iterations=1)
    for target in (run, run / ".." / run.name, other):
        with pytest.raises(InputError, match=r"holds a run, whose map\.mrc"):
            vg.deposit(run, target)
    (run / "run.json").rename(tmp_path / "run.json")  # a postprocessing has none
    with pytest.raises(InputError, match=r"holds a run, whose map\.mrc"):
        vg.deposit(run, run)
    (tmp_path / "run.json").rename(run / "run.json")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="it is a file"):
        vg.deposit(run, tmp_path / "file")


def test_a_point_group_is_that_of_the_postprocessing_or_none(run, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    (alone / "run.json").unlink()
    record = json.loads((alone / "postprocess.json").read_text())

    def stated() -> str:
        vg.deposit(alone, tmp_path / "dep")
        block = gemmi.cif.read(str(tmp_path / "dep/metadata.cif")).sole_block()
        return str(block.find_value("_em_single_particle_entity.point_symmetry"))

    assert stated() == "?"
    (alone / "postprocess.json").write_text(json.dumps({**record, "settings": {"symmetry": "D7"}}))
    assert stated() == "D7"
    (alone / "fsc.csv").write_text("frequency_per_A,masked\n0,1\n")
    with pytest.raises(vg.FormatError, match="no column 'corrected'"):
        vg.deposit(alone, tmp_path / "dep")


def test_a_postprocessing_is_deposited_with_its_half_maps(run, tmp_path, monkeypatch, capsys, blank_figures):
    monkeypatch.chdir(run.parent)
    halves = [f"{run.name}/half{k}.mrc" for k in (1, 2)]
    status, _, said = main(["postprocess", *halves, "--out", str(tmp_path / "post"), "--symmetry", "C1"], capsys)
    assert status == 0, said
    assert vg.deposit(tmp_path / "post", tmp_path / "dep", hand="known").state == "go on"
    for name in ("half1", "half2"):
        assert np.array_equal(vg.read_map(tmp_path / f"dep/{name}.mrc").data, vg.read_map(run / f"{name}.mrc").data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"refine1/half1\.mrc: no such file, though .*postprocess\.json was made from it"
    ):
        vg.deposit(tmp_path / "post", tmp_path / "dep")
