from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas import fourier
from verglas.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["simulate", *map(str, arguments)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


SMALL = ("--diameter", 80, "--box", 40, "--pixel-size", 3, "--n", 30)


def test_phantom_to_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("verglas._screen._LINE_EVERY_S", 0.0)  # short phases have no line of their own otherwise
    status, out, err = run(capsys, "--phantom", "D2", *SMALL, "--snr", 0.1, "--out", tmp_path / "sim")
    assert status == 0
    assert "SNR 0.1 (variance of the noise-free image / variance of the noise, whole box)" in out
    assert "projections: 30 of 30" in err
    p = vg.read_particles(tmp_path / "sim" / "particles.star")
    assert len(p) == 30
    assert p.images([29]).shape == (1, 40, 40)
    assert p.poses is not None
    assert (tmp_path / "sim" / "montage.png").stat().st_size > 1000


def test_json_seed_and_hidden_poses(tmp_path, capsys):
    found = []
    for name, threads in (("a", 1), ("b", 3)):
        status, out, _ = run(
            capsys,
            *SMALL,
            "--seed",
            4,
            "--hinge",
            25,
            "--hide-poses",
            "--noise",
            "coloured",
            "--threads",
            threads,
            "--json",
            "--out",
            tmp_path / name,
        )
        assert status == 0
        found.append(json.loads(out))
    assert found[0]["n"] == 30
    assert {"truth.star", "truth_class002.mrc"} <= set(found[0]["files"])
    a, b = (vg.read_particles(tmp_path / name / "particles.star") for name in "ab")
    assert a.poses is None
    assert np.array_equal(a.images(), b.images())


def test_atomic_model(tmp_path, capsys, data_dir):
    path = data_dir / "models" / "7a4m.cif.gz"
    status, out, _ = run(
        capsys, "--model", path, "--box", 48, "--pixel-size", 4, "--n", 3, "--snr", "inf", "--out", tmp_path
    )
    assert status == 0
    assert "7a4m.cif.gz assembly 1" in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--snr", "0"], 2, "--snr"),
        (["--noise", "pink"], 2, "coloured"),
        (["--defocus", "2", "1"], 2, "smallest, largest"),
        (["--phantom", "O", "--model", "x.pdb"], 2, "not both"),
        (["--hinge", "5", "--model", "x.pdb"], 2, "only with --phantom"),
        (["--n", "0"], 2, "--n"),
        (["--model", "gone.pdb"], 1, "gone.pdb: no such file"),
        (["--box", "16"], 1, "use a box of at least"),
        (["--phantom", "C0"], 1, "symmetry 'C0'"),
        (["--phantom", "gone.txt"], 2, "gone.txt: no such file"),
    ],
)
def test_errors_are_one_sentence(tmp_path, capsys, arguments, status, words):
    got, _, err = run(capsys, "--out", tmp_path / "sim", *arguments)
    assert got == status
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_help_has_units_and_an_example(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for words in ("Example: verglas simulate", "pixels", "kV", "mm"):
        assert words in out


def test_bodies_of_a_text_file(tmp_path, capsys):
    """Images are what the true map projects to, with its CTF; a file that is none is not taken for a point group."""
    (tmp_path / "bodies.txt").write_text(
        "64 64 64 0\nell + 1  0 0 4  10 7 5  20 40 0\nsph + 2  6 -4 0  4\ngau + 1  -8 0 0  1.5\n"
    )
    small = ("--box", 24, "--pixel-size", 5, "--n", 3, "--snr", "inf")
    status, out, _ = run(capsys, "--phantom", tmp_path / "bodies.txt", *small, "--out", tmp_path / "sim")
    assert status == 0
    assert "bodies.txt (3 bodies)" in out
    p, truth = vg.read_particles(tmp_path / "sim" / "particles.star"), vg.read_map(tmp_path / "sim" / "truth.mrc")
    expected = vg.project(truth, p.poses, p.optics, threads=1)
    inside = fourier.radius((24, 24)) < 10  # project() knows no corners of the square
    one, other = (fourier.forward(v, 2)[:, inside] for v in (p.images(), expected))
    # edges of bodies are sampled, in both
    assert np.linalg.norm(one - other) < 0.025 * np.linalg.norm(other)
    (tmp_path / "large.txt").write_text("20 20 20 0\nsph + 1  0 0 5  5\n")
    arguments = ("--box", 40, "--pixel-size", 3, "--n", 2, "--out", tmp_path / "no")
    assert "large.txt reaches 60.0 A" in run(capsys, "--phantom", tmp_path / "large.txt", *arguments)[2]
    (tmp_path / "none.txt").write_text("20 20 20 0\n")
    assert "none.txt has no bodies" in run(capsys, "--phantom", tmp_path / "none.txt", *arguments)[2]
    own = run(capsys, "--phantom", tmp_path / "bodies.txt", "--diameter", 90, *arguments)[2]
    assert "states its own sizes" in " ".join(own.replace("│", " ").split())
    assert "no hinge" in run(capsys, "--phantom", tmp_path / "bodies.txt", "--hinge", 20, *arguments)[2]
