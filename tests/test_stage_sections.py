"""What the page of a project says of its stages: words for names of fields, links, columns that hold something."""

from __future__ import annotations

import numpy as np

import verglas as vg
from verglas.pipeline.stage import StageRecord
from verglas.pipeline.stage_sections import number_rows, stage_sections
from verglas.report.html import Page, render
from verglas.report.process import ProcessShown, SetRow, process_page
from verglas.types.verdict import Verdict


def test_numbers_of_a_verdict_are_words():
    numbers = {
        "particles": 90,
        "of_particles": 182,
        "way": "picks",
        "moved": False,
        "rms_shift_A": 1.25,
        "resolutions_A": {"0.5": {"masked": 9.0}},
        "directions.worst_direction": [-0.1, 0.9, 0.15],
        "something.new_px": 115.50000000000001,
    }
    assert number_rows(numbers) == [
        ("particles", "90 of 182"),
        ("centred by", "the picks as they are"),
        ("boxes cut anew", "no"),
        ("root mean square shift (Å)", "1.25"),
        ("worst direction (x, y, z)", "(-0.1, 0.9, 0.15)"),
        ("something, new (px)", "115.5"),
    ]


def test_the_last_map_turns_and_all_files_are_linked(tmp_path):
    records = {}
    for name in ("abinitio", "refine"):
        (tmp_path / name).mkdir()
        noise = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
        vg.io.write_map(tmp_path / name / "map.mrc", vg.Map(noise, 2.0))
        verdict = Verdict.of((), "report.html")
        records[name] = StageRecord(name, name, {}, {}, {}, 1.0, verdict)
    page = render(Page("t", "s", sections=stage_sections(tmp_path, records)))
    assert page.count('<div class="volume">') == 1
    assert page.index("Refinement") < page.index('<div class="volume">')
    assert 'href="refine/map.mrc"' in page
    assert "Ab initio map" not in page  # it has nothing to show but the map, which is shown of the last stage


def test_half_maps_alone_turn_nothing(tmp_path):
    noise = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    (tmp_path / "refine").mkdir()
    vg.io.write_map(tmp_path / "refine" / "half1.mrc", vg.Map(noise, 2.0))
    records = {"refine": StageRecord("refine", "refine", {}, {}, {}, 1.0, Verdict.of((), "report.html"))}
    assert stage_sections(tmp_path, records) == []


def test_columns_without_a_value_are_left_out_and_the_command_is_there():
    rows = [SetRow("a/m1.mrc", "used", "", 15000.0, picks=3), SetRow("a/m2.mrc", "used", "", 16000.0, picks=4)]
    page = process_page(ProcessShown("t", "s", {}, rows, [], keep_command="verglas process --out p --keep k.star"))
    heads = [part.split("<")[0] for part in page.split('<th scope="col">')[1:]]
    assert heads == ["keep", "micrograph", "state", "defocus µm", "picks"]
    assert "<code>verglas process --out p --keep k.star</code>" in page
