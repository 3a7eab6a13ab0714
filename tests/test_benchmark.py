"""verglas benchmark: every problem is timed and has a reference."""

from __future__ import annotations

import json

import pytest

from verglas.errors import InputError
from verglas.run import benchmark as bench
from verglas.run.benchmark_reference import MACHINE, SECONDS


def test_every_problem_of_the_processor_and_of_files_has_a_reference():
    machine, timings = bench.benchmark(("processor", "files"), repeats=1)
    assert [one.name for one in timings] == list(SECONDS)
    for one in timings:
        assert one.seconds > 0
        assert one.times_reference == pytest.approx(SECONDS[one.name] / one.seconds)
    assert {part: sum(one.part == part for one in timings) for part in bench.PARTS} == {
        "processor": 5,
        "files": 6,
        "gpu": 0,
    }
    text = bench.report(machine, timings)
    assert str(MACHINE["processor"]) in text
    assert all(name in text for name in SECONDS)


def test_a_rate_is_work_over_time(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 10.5, 20.0, 23.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls = []
    problem = bench._Problem("processor", "count", 100.0, "images/s", lambda: calls.append(1))
    timing = bench._time(problem, 3)
    assert (timing.seconds, timing.rate, timing.reference_seconds, len(calls)) == (0.5, 200.0, None, 4)
    assert "-" in bench.report(dict(MACHINE), [timing]).splitlines()[-1]


def test_unknown_parts_are_refused():
    with pytest.raises(InputError, match="unknown part disk; known are processor, files, gpu"):
        bench.benchmark(("disk",))
    with pytest.raises(InputError, match="repeats"):
        bench.benchmark(repeats=0)


def test_json_of_the_command(run):
    status, out, _ = run("benchmark", "--part", "files", "--repeats", "1", "--json")
    assert status == 0
    result = json.loads(out)
    assert {row["part"] for row in result["timings"]} == {"files"}
    assert result["machine"]["threads"] == 1
    assert result["reference"] == MACHINE
