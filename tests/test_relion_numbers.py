"""Numbers stored by RELION in a finished project, computed again: corrected FSC, Guinier lines, local FSC."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verglas.assessment import FSC, corrected_fsc, fit_guinier
from verglas.io import read_star

JOBS = {"job021": 3.033, "job026": 2.976, "job030": 2.818}
SLOPES = {"job021": -8.7809, "job026": -8.7098, "job030": -0.3888}


@pytest.fixture(scope="module")
def project(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The STAR files of postprocessing and local resolution, unpacked."""
    folder = tmp_path_factory.mktemp("relion_project")
    wanted = re.compile(r"PostProcess/(job\d+)/postprocess\.star|LocalRes/job\d+/relion_locres_fscs\.star")
    with tarfile.open(data_dir / "relion_project" / "relion_tutorial_files.tar.xz") as archive:
        for member in archive:
            match = wanted.search(member.name)
            if match:
                content = archive.extractfile(member)
                assert content is not None
                (folder / f"{match[1] or 'local'}.star").write_bytes(content.read())
    return folder


def curve(table: pd.DataFrame, column: str) -> FSC:
    counts = np.ones(len(table), np.int64)
    return FSC(table["rlnResolution"].to_numpy(float), table[column].to_numpy(float), counts, counts, 1.0)


def columns_of(table: pd.DataFrame) -> tuple[FSC, FSC, np.ndarray]:
    masked = curve(table, "rlnFourierShellCorrelationMaskedMaps")
    randomised = curve(table, "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps")
    return masked, randomised, table["rlnFourierShellCorrelationCorrected"].to_numpy(float)


@pytest.mark.parametrize("job", JOBS)
def test_corrected_fsc_and_resolution(project, job):
    tables = read_star(project / f"{job}.star")
    table, general = tables["fsc"], tables["general"]
    masked, randomised, stored = columns_of(table)
    lengths = table["rlnAngstromResolution"].to_numpy(float)
    first = int(np.argmin(np.abs(lengths - float(general["rlnRandomiseFrom"]))))
    made = corrected_fsc(masked, randomised, first).curve
    assert np.abs(made - stored).max() < 1e-5
    passing = np.flatnonzero(made < 0.143)[0] - 1  # RELION's: the last shell before the curve falls
    assert lengths[passing] == pytest.approx(JOBS[job], abs=6e-4)
    assert float(general["rlnFinalResolution"]) == pytest.approx(JOBS[job], abs=6e-4)


@pytest.mark.parametrize("job", JOBS)
def test_guinier_line(project, job):
    tables = read_star(project / f"{job}.star")
    table, general = tables["guinier"], tables["general"]
    s2, values = (table[f"rln{name}"].to_numpy(float) for name in ("ResolutionSquared", "LogAmplitudesWeighted"))
    chosen = (s2 >= 0.01) & (values > -90)
    line = fit_guinier(s2[chosen], values[chosen])
    assert line.slope_A2 == pytest.approx(SLOPES[job], abs=1e-4)
    assert line.slope_A2 == pytest.approx(float(general["rlnFittedSlopeGuinierPlot"]), rel=1e-4)
    assert line.intercept == pytest.approx(float(general["rlnFittedInterceptGuinierPlot"]), abs=1e-4)
    assert -line.b_factor_A2 == pytest.approx(float(general["rlnBfactorUsedForSharpening"]), abs=5e-3)


def test_local_fsc_curves(project):
    blocks = re.findall(r"data_fsc_\S+(.*?)(?=kk=|\Z)", (project / "local.star").read_text(), flags=re.DOTALL)
    assert len(blocks) == 74
    for block in blocks:
        names = re.findall(r"^_(rln\w+)", block, flags=re.MULTILINE)
        # A summary line follows each table without a header of its own: rows are those of seven numbers.
        rows = [line.split() for line in block.splitlines() if re.fullmatch(r"[\s\d.eE+-]+", line) and line.strip()]
        table = pd.DataFrame([r for r in rows if len(r) == len(names)], columns=names).astype(float)
        masked, randomised, stored = columns_of(table)
        differs = np.flatnonzero(np.abs(stored - masked.curve) > 2e-5)
        start = int(differs[0]) if differs.size else len(stored)
        made = corrected_fsc(masked, randomised, start - 2).curve
        # Six stored digits, divided by what 1 - FSC_n leaves.
        assert np.abs(made - stored).max() < 1e-4
