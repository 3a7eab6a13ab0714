"""verglas tilt-pairs: from two sets of micrographs with picks to maps; parameter files; the test of a map."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import read_picks, read_tilt_parameters, write_micrograph
from verglas.report.tilt_pairs import write_polar_plot
from verglas.tilting import TiltGeometry, tilt_pair_plot, validate_with_pairs

BOX, PIXEL, SIDE = 24, 6.0, 420
STAGE = TiltGeometry(50.0, 8.0, 5.0, [20.0, -10.0])


@pytest.fixture(scope="module")
def truth():
    return vg.simulate.density(vg.simulate.phantom(BOX, PIXEL, 100.0, "C1", 3), BOX, PIXEL, b_factor_A2=500.0)


@pytest.fixture(scope="module")
def fields(truth, tmp_path_factory):
    """Two fields at two tilts, dark particles of one view; picks as tables, one pair of which is of another field."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(1)
    grid = np.stack(np.meshgrid(np.arange(40, SIDE - 30, 45.0), np.arange(40, SIDE - 30, 45.0)), -1).reshape(-1, 2)
    tables: dict[str, list] = {"untilted": [], "tilted": []}
    for number in range(2):
        x = grid[rng.permutation(len(grid))[:32]] + rng.uniform(-8, 8, (32, 2))
        angles = np.column_stack([np.zeros(32), np.zeros(32), rng.uniform(0, 360, 32)])
        views = (angles, STAGE.tilted_angles_deg(angles))
        for side, places, view in zip(tables, (x, STAGE.map_px(x)), views, strict=True):
            image = rng.normal(0, 0.2, (SIDE, SIDE))
            whole = np.round(places).astype(int)
            images = vg.project(truth, vg.Poses(view, (whole - places) * PIXEL), threads=1)
            for (cx, cy), one in zip(whole, images, strict=True):
                rows, columns = (slice(max(c - 12, 0), min(c + 12, SIDE)) for c in (cy, cx))
                part = one[rows.start - cy + 12 : rows.stop - cy + 12, columns.start - cx + 12 : columns.stop - cx + 12]
                image[rows, columns] -= part / images.std()
            name = f"{side}{number}.mrc"
            write_micrograph(folder / name, vg.Micrograph(image.astype(np.float32), PIXEL, name))
            kept = rng.permutation(32)[:29]
            tables[side].append(pd.DataFrame({"micrograph": name, "x": places[kept, 0], "y": places[kept, 1]}))
    for side, parts in tables.items():
        pd.concat(parts).to_csv(folder / f"{side}.csv", index=False)
    return folder


def arguments(folder, out, *more):
    return [
        *("tilt-pairs", folder / "untilted?.mrc", "--tilted", folder / "tilted?.mrc"),
        *("--untilted-picks", folder / "untilted.csv", "--tilted-picks", folder / "tilted.csv"),
        *("--box", BOX, "--pixel-size", PIXEL, "--out", out, "--threads", 1, "--diameter", 110, *more),
    ]


def test_the_command_makes_a_map_of_the_class(run, fields, truth, tmp_path):
    status, out, error = run(*arguments(fields, tmp_path / "rct", "--iterations", 0, "--json"))
    assert status == 0, error
    told = json.loads(out)
    assert [Path(one["untilted"]).name for one in told["micrograph_pairs"]] == ["untilted0.mrc", "untilted1.mrc"]
    for one in told["micrograph_pairs"]:
        assert abs(one["tilt_deg"] - 50) < 1
        assert abs(one["axis_untilted_deg"] - 8) < 1
        assert one["pairs"] >= 25
    only = told["classes"][0]
    assert only["missing_cone_deg"] == pytest.approx(40, abs=1)
    made = vg.read_map(only["map"])
    # The class is turned about z against the truth by an angle that nothing fixes.
    scores = []
    for psi in range(0, 360, 6):
        turned = vg.project(truth, vg.Poses([[psi, 0, 0], [psi, 90, 0], [psi + 90, 90, 0]]), threads=1)
        mine = vg.project(made, vg.Poses([[0, 0, 0], [0, 90, 0], [90, 90, 0]]), threads=1)
        scores.append(np.corrcoef(turned.ravel(), mine.ravel())[0, 1])
    assert max(scores) > 0.75
    page = (tmp_path / "rct" / "report.html").read_text(encoding="utf-8")
    assert "a cone of" in page
    table = pd.read_csv(tmp_path / "rct" / "pairs.csv")
    assert len(table) == sum(one["pairs"] for one in told["micrograph_pairs"])
    tilted = vg.read_particles(tmp_path / "rct" / "class_01_tilted.star")
    assert len(tilted) == only["pairs"]
    assert tilted.poses is not None


@pytest.mark.slow
def test_a_micrograph_without_picks_and_one_of_another_field_stop_nothing(run, fields, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("untilted,tilted\nuntilted0.mrc,tilted0.mrc\nuntilted1.mrc,tilted0.mrc\nno.mrc,tilted1.mrc\n")
    out = tmp_path / "rct"
    status, said, error = run(*arguments(fields, out, "--pairs", pairs, "--iterations", 0, "--json"))
    assert status == 0, error
    told = json.loads(said)
    assert len(told["micrograph_pairs"]) == 1
    reasons = {Path(one["micrograph"]).name: one["reason"] for one in told["set_aside"]}
    assert "do not match" in reasons["untilted1.mrc"]
    assert "not both images are given" in reasons["no.mrc"]
    assert "2 micrographs were set aside" in error


@pytest.mark.slow
def test_pairs_that_share_a_micrograph_picks_in_two_files_and_a_sign_are_not_lost_in_silence(run, fields, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("untilted,tilted,tilt_deg\n" + 2 * "untilted0.mrc,tilted0.mrc,-50\n")
    status, said, error = run(*arguments(fields, tmp_path / "a", "--pairs", pairs, "--iterations", 0, "--json"))
    assert status == 0, error
    told = json.loads(said)
    assert len(told["micrograph_pairs"]) == 1
    assert told["particle_pairs"] >= told["micrograph_pairs"][0]["pairs"] - 5
    assert "names one of the two images twice" in told["set_aside"][0]["reason"]
    assert "has negative tilts for 2 of 2 pairs" in error
    again = tmp_path / "more.csv"
    again.write_text("micrograph,x,y\nuntilted0.mrc,5,6\n")
    status, _, error = run(*arguments(fields, tmp_path / "b", "--untilted-picks", again))
    assert status == 1
    assert "two sets of picks for micrograph" in error
    pairs.write_text("untilted,tilted\n,tilted0.mrc\n")
    status, _, error = run(*arguments(fields, tmp_path / "c", "--pairs", pairs))
    assert status == 1
    assert "does not name both micrographs" in error


@pytest.mark.slow
def test_ctfs_that_lack_or_are_left_out_are_named(run, fields, tmp_path):
    table = tmp_path / "ctf.csv"
    table.write_text("micrograph,defocus_A\ntilted0.mrc,15000\ntilted1.mrc,15000\n")
    status, _, error = run(*arguments(fields, tmp_path / "a", "--ctf"))
    assert status == 1
    assert "CTFs of the tilted micrographs are needed" in error
    assert "give --tilted-ctf" in error
    microscope = ("--tilted-ctf", table, "--voltage", 300, "--cs", 2.7, "--amplitude-contrast", 0.1)
    status, _, error = run(*arguments(fields, tmp_path / "b", "--iterations", 0, *microscope))
    assert status == 0, error
    assert "maps are made without; give --ctf" in error


@pytest.fixture(scope="module")
def fields_with_ctfs(fields, tmp_path_factory):
    """Options that give the micrographs, made without, CTFs of 1 to a thousandth."""
    folder = tmp_path_factory.mktemp("ctfs")
    options = []
    for side in ("untilted", "tilted"):
        table = folder / f"{side}.csv"
        table.write_text("micrograph,defocus_A\n" + "".join(f"{side}{i}.mrc,100\n" for i in range(2)))
        options += [f"--{side}-ctf", table]
    return [*options, "--voltage", 300, "--cs", 0.01, "--amplitude-contrast", 1.0]


@pytest.mark.slow
def test_classes_through_the_command(run, fields, truth, tmp_path):
    """Each particle lies in one class; every class has a map of the right object and hand."""
    status, out, error = run(*arguments(fields, tmp_path / "k", "--classes", 2, "--iterations", 1, "--json"))
    assert status == 0, error
    told = json.loads(out)
    assert sum(one["pairs"] for one in told["classes"]) == told["particle_pairs"]
    merged = told["merged"]
    assert merged["classes"] == [1, 2], merged
    assert merged["pairs"] == told["particle_pairs"] == len(vg.read_particles(tmp_path / "k" / "merged_tilted.star"))
    assert vg.read_map(merged["map"]).box == vg.read_map(told["classes"][0]["map"]).box
    mirrored = truth.with_data(np.roll(truth.data[::-1], 1, axis=0))
    for one in told["classes"]:
        made = vg.read_map(one["map"])
        mine = vg.project(made, vg.Poses([[0, 0, 0], [0, 90, 0], [90, 90, 0]]), threads=1).ravel()
        right, wrong = (
            max(
                np.corrcoef(vg.project(m, vg.Poses([[p, 0, 0], [p, 90, 0], [p + 90, 90, 0]]), threads=1).ravel(), mine)[
                    0, 1
                ]
                for p in range(0, 360, 6)
            )
            for m in (truth, mirrored)
        )
        assert right > 0.9
        assert right > wrong


@pytest.mark.slow
def test_a_map_is_tested_through_the_command(run, fields, fields_with_ctfs, truth, tmp_path):
    file = tmp_path / "truth.mrc"
    vg.write_map(file, truth)
    verdicts = []
    for sign in ((), ("--negative-tilt",)):
        out = tmp_path / f"test{len(sign)}"
        status, said, error = run(*arguments(fields, out, "--map", file, "--json", *sign, *fields_with_ctfs))
        assert status == 0, error
        verdicts.append(json.loads(said)["validation"])
        assert (out / "tilt_pair_plot.svg").is_file()
        assert verdicts[-1]["verdict"] in html.unescape((out / "report.html").read_text(encoding="utf-8"))
    assert "agree" in verdicts[0]["verdict"]
    assert "wrong hand" in verdicts[1]["verdict"]
    assert verdicts[0]["within_share"] == verdicts[1]["mirrored_share"]


def test_refusals(run, fields, tmp_path):
    status, _, error = run(*arguments(fields, tmp_path / "d", "--mirrors", "--classes", 2))
    assert status == 1
    assert "--mirrors and --classes" in error
    status, _, error = run(*arguments(fields, tmp_path / "a", "--least", 500))
    assert status == 1
    assert "no class has 500 pairs" in error
    few = [a if a != fields / "tilted?.mrc" else fields / "tilted0.mrc" for a in arguments(fields, tmp_path / "b")]
    status, _, error = run(*few)
    assert status == 1
    assert "2 untilted but 1 tilted micrographs" in error
    status, _, error = run(*arguments(fields, fields / "untilted.csv"))
    assert "it is a file" in error
    status, _, error = run(*arguments(fields, tmp_path / "c", "--method", "other"))
    assert status == 2


def test_parameter_files_of_other_programs(tmp_path, data_dir):
    xmipp = tmp_path / "tilted_pairs.xmd"
    xmipp.write_text(
        "# XMIPP_STAR_1 *\ndata_noname\nloop_\n _micrograph\n _micrographTilted\n _angleY\n _angleY2\n _angleTilt\n"
        "u/a.mrc t/a.mrc 3.5 -2.0 49.0\n"
    )
    row = read_tilt_parameters(xmipp).iloc[0]
    assert row.tolist() == ["u/a.mrc", "t/a.mrc", 49.0, -3.5, 2.0]
    eman = tmp_path / "a_info.json"
    eman.write_text(json.dumps({"tiltparams_micrographs/a.hdf": [45.0, 2.0, 1.0], "boxes_rct": [[10, 20, "tilted"]]}))
    assert read_tilt_parameters(eman).iloc[0].tolist() == ["", "a.hdf", 45.0, -1.0, -2.0]
    assert read_picks(eman)["a"].xy_px.tolist() == [[10.0, 20.0]]
    for name, text, words in (
        ("b.xmd", "data_\nloop_\n_x\n_y\n1 2\n", "no table with micrograph"),
        ("b.json", '{"a": 1}', "no entry tiltparams_micrographs"),
        ("c.json", '{"tiltparams_micrographs/a": [1, 2]}', "expected \\[tilt"),
        ("b.csv", "untilted,tilted,tilt_deg\na,b,steep\n", "expected degrees, got 'steep'"),
        ("c.csv", "x,y\n1,2\n", "no column 'untilted'"),
        ("d.csv", "untilted,tilted,tilt_deg\na,b,inf\n", "expected degrees, got 'inf'"),
        ("d.json", '{"tiltparams_micrographs/a": [1' + 400 * "0" + ", 1, 2]}", "expected \\[tilt"),
        ("e.json", '{"tiltparams_micrographs/a": [NaN, 1, 2]}', "expected \\[tilt"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(vg.FormatError, match=words):
            read_tilt_parameters(tmp_path / name)
    names = tmp_path / "names.csv"
    names.write_text("untilted,tilted,tilt_deg\n001,02,\n,b,40\n")  # names are no numbers, and none is no float
    assert read_tilt_parameters(names)[["untilted", "tilted"]].to_numpy().tolist() == [["001", "02"], ["", "b"]]
    for text in ('{"boxes": [[1' + 400 * "0" + ", 1]]}", '{"boxes": [{"x": 1}]}', '{"boxes": [[1, null]]}'):
        (tmp_path / "f.json").write_text(text)
        with pytest.raises(vg.FormatError, match=r"box 0 \(from 0\): expected"):
            read_picks(tmp_path / "f.json")


def test_spider_fitted_the_same_geometry(data_dir):
    """Markers that a person set in SPIDER's WEB, and what WEB fitted to them: signs as ours, angles within a degree."""
    folder = data_dir / "rct_spider" / "TP1_makedata"
    theirs = read_tilt_parameters(folder / "dcb001.hbl").iloc[0]
    first, second = (next(iter(read_picks(folder / f"{name}.hbl").values())) for name in ("dcu001", "dct001"))
    mine = vg.tilt_pairs("u", "t", first, second)
    assert len(mine) == 76
    assert abs(mine.tilt_deg - 48) < 1  # as the images were made; WEB's own fit is 48.95
    assert abs(theirs.tilt_deg - mine.tilt_deg) < 1
    assert abs(theirs.axis_untilted_deg - mine.axis_untilted_deg) < 3 * mine.geometry.axis_untilted_error_deg
    assert abs(theirs.axis_tilted_deg - mine.axis_tilted_deg) < 3 * mine.geometry.axis_tilted_error_deg
    with pytest.raises(vg.FormatError, match="without key 124"):
        read_tilt_parameters(folder / "doctlt002.hbl")


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_turns_of_planted_poses(symmetry, tmp_path):
    """15 degrees planted, poses 1 degree off: 90 % of the points within 5 degrees; the hand is told."""
    stage = TiltGeometry(15.0, 40.0, 40.0)
    rng = np.random.default_rng(0)
    first = vg.geometry.random_orientations(100, seed=3)
    group = vg.symmetry_matrices(symmetry)
    copies = group[rng.integers(0, len(group), 100)]
    second = vg.matrix_to_euler(stage.rotation @ vg.euler_to_matrix(first) @ copies)
    noisy = [vg.Poses(a + rng.normal(0, 1, a.shape)) for a in (first, second)]
    plot = tilt_pair_plot(*noisy, stage, symmetry)
    assert plot.within_share >= 0.9
    assert plot.chance_share < 0.05
    assert "agree" in plot.verdict
    assert abs(np.median(plot.tilt_deg) - 15) < 1
    mirrored = tilt_pair_plot(*noisy, TiltGeometry(-15.0, 40.0, 40.0), symmetry)
    assert mirrored.mirrored_share >= 0.9
    assert "wrong hand" in mirrored.verdict
    random = tilt_pair_plot(noisy[0], vg.Poses(vg.geometry.random_orientations(100, seed=9)), stage, symmetry)
    assert "does not explain" in random.verdict
    write_polar_plot(plot, tmp_path / "a.svg")
    write_polar_plot(plot, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(vg.InputError, match="expected the suffix"):
        write_polar_plot(plot, tmp_path / "a.txt")
    with pytest.raises(vg.InputError, match="expected pairs"):
        tilt_pair_plot(noisy[0], noisy[1][:5], stage)


@pytest.mark.slow
def test_a_map_is_tested_by_images(truth):
    stage = TiltGeometry(15.0, 20.0, 20.0)
    first = vg.geometry.random_orientations(20, seed=2)
    sets = []
    for angles in (first, stage.tilted_angles_deg(first)):
        poses = vg.Poses(angles)
        optics = vg.Optics(np.full(20, 15000.0), np.full(20, 15000.0), pixel_size_A=PIXEL)
        images = vg.project(truth, poses, optics, threads=1)
        images = images + np.random.default_rng(5).normal(0, images.std(), images.shape)
        sets.append(vg.Particles.from_images(images.astype(np.float32), PIXEL, optics=optics))
    plot = validate_with_pairs(*sets, truth, stage, threads=1, step_deg=7.5, shift_range_A=6.0)
    assert plot.within_share > 0.8
    assert "agree" in plot.verdict
