"""The page of ``verglas map-model``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from verglas.assessment.map_model import MapModel
from verglas.assessment.model_tables import ModelTables
from verglas.report.chart import (
    Chart,
    Line,
    Series,
    chart_block,
    charts_block,
    column_numbers,
    fsc_chart,
    histogram_chart,
)
from verglas.report.html import Block, Page, Section, Table, render
from verglas.report.model import pack_model
from verglas.report.volume import viewer_block
from verglas.types import Map

_MOST_CHAINS = 12  # drawn
_WORST = 25  # residues listed
_REGIONS = {
    "box": "all voxels",
    "mask": "about the atoms",
    "volume": "the highest of the model's density",
    "peaks": "the highest of either",
    "vr_mask": "about the atoms, by resolution and B-factor",
}


def _chart(fit: MapModel) -> Chart:
    columns = {"frequency_per_A": fit.frequency_per_A, "box": fit.fsc, "about the atoms": fit.fsc_masked}
    return fsc_chart("FSC of map and model", pd.DataFrame(columns))


def _along_chains(fit: MapModel, table: pd.DataFrame) -> list[Chart]:
    """Mean Q-score of every residue along its chain, a chart each."""
    expected = [Line(fit.expected_q, "expected")] if np.isfinite(fit.expected_q) else []
    charts = []
    for name in list(dict.fromkeys(table["chain"]))[:_MOST_CHAINS]:
        rows = table[table["chain"] == name]
        scores = Series(f"chain {name}", column_numbers(rows["residue_number"]), column_numbers(rows["q"]))
        charts.append(Chart(f"Q-scores of chain {name}", "residue", "Q-score", [scores], expected, zero=True))
    return charts


def _feature_sections(tables: ModelTables) -> list[Section]:
    """Side chains, secondary structure, and FSC-Q where half maps were given."""
    charts = [
        histogram_chart("Z-score", {"side chains": tables.residues["side_chain_z"].to_numpy()}, "residues"),
        histogram_chart("Z-score", {"helices and strands": tables.elements["z"].to_numpy()}, "elements"),
    ]
    elements = [
        (f"{r.kind} {r.chain} {r.first} to {r.last}", f"{r.residues}", f"{r.z:.2f}")
        for r in tables.elements.itertuples()
    ]
    sections = [
        Section(
            "Side chains and secondary structure",
            "How far the map at a part's atoms lies above that at displaced copies of it, in standard deviations of "
            "the copies: side chains turned about the axis from CA to CB, helices and strands shifted by 3 to 6 Å. "
            "Below 0 the map shows the part elsewhere, or not at all.",
            [charts_block(charts), Table(("element", "residues", "Z"), elements, sortable=True)],
        )
    ]
    if tables.fsc_q is not None:
        values = tables.atoms["fsc_q_A"].to_numpy()
        worst = tables.residues.dropna(subset="fsc_q_A").sort_values("fsc_q_A", ascending=False).head(_WORST)
        rows = [(f"{r.chain} {r.residue_name} {r.residue_number}", f"{r.fsc_q_A:+.2f}") for r in worst.itertuples()]
        sections.append(
            Section(
                "FSC-Q: the model against what the half maps know",
                "Local resolution of map and model (FSC 0.5) less that of the half maps (0.143), at every atom: 0 "
                "where the model says what the map knows, above 0 where it says less or something else, below 0 "
                "where it agrees with noise.",
                [
                    charts_block([histogram_chart("FSC-Q (Å)", {"atoms": values}, "atoms")]),
                    Table(("residue", "FSC-Q (Å)"), rows, sortable=True),
                ],
            )
        )
    return sections


def map_model_page(
    fit: MapModel, tables: ModelTables, said: Sequence[str] = (), footer: str = "", *, volume: Map | None = None
) -> str:
    """report.html as text.

    Parameters
    ----------
    fit : MapModel
    tables : ModelTables
    said : sequence of str
        What the resolutions say together.
    footer : str
        Version and time.
    volume : Map, optional
        Shown with the model inside.
    """
    mean = fit.q_mean
    quality = f"Mean Q-score {mean:.2f}" if np.isfinite(mean) else "No atom has a Q-score"
    agree_A = fit.d_fsc_A(0.5)
    agree = f"agree to {agree_A:.2f} Å" if np.isfinite(agree_A) else "agree at no scale"
    summary = (
        f"{quality}; maps of {fit.resolution_A:.2f} Å support {fit.expected_q:.2f} for proteins. "
        f"Map and model {agree} (FSC 0.5 about the atoms)."
    )
    numbers = {
        "Q-score": f"{mean:.3f}" if np.isfinite(mean) else "none",
        "CC mask": f"{fit.correlations['mask']:.3f}",
        "d model": f"{fit.d_model_A:.2f} Å",
        "d 99": f"{fit.d99_A:.2f} Å",
    }
    correlations = Table(
        ("correlation over", "value"), [(_REGIONS[name], f"{value:.3f}") for name, value in fit.correlations.items()]
    )
    chain_rows = [(r.chain, r.atoms, f"{r.q:.3f}", f"{r.density_sd:.2f}") for r in tables.chains.itertuples()]
    worst = tables.residues.dropna(subset="q").sort_values("q").head(_WORST)
    worst_rows = [
        (f"{r.chain} {r.residue_name} {r.residue_number}", f"{r.q:.3f}", f"{r.density_sd:.2f}")
        for r in worst.itertuples()
    ]
    chains = len(chain_rows)
    drawn = f"The first {_MOST_CHAINS} of {chains} chains are drawn. " if chains > _MOST_CHAINS else ""
    sections = [
        Section(
            "Fourier shell correlation",
            " ".join(said),
            [chart_block(_chart(fit))],
        ),
        Section(
            "Q-scores along the chains",
            f"The line across is what proteins have at this resolution. {drawn}atoms.csv and residues.csv hold all.",
            [charts_block(_along_chains(fit, tables.residues))],
        ),
        Section("Chains", blocks=[Table(("chain", "atoms", "Q", "density (sd)"), chain_rows, sortable=True)]),
        Section("Look at these residues first", blocks=[Table(("residue", "Q", "density (sd)"), worst_rows)]),
        *_feature_sections(tables),
        Section("Real space", blocks=[correlations]),
    ]
    if volume is not None:
        shown: list[Block] = [viewer_block({"map": volume}, models={fit.atoms.name: pack_model(fit.atoms)})]
        sections.insert(0, Section("Map and model", "Choose the model beside the map to see its chains inside.", shown))
    return render(Page(f"verglas map-model: {fit.atoms.name}", summary, numbers, sections, footer))
