"""Movies beside each other: those that moved unlike the others, and whether to go on."""

from __future__ import annotations

import pandas as pd

from verglas.types.verdict import Finding, Verdict

OUTLIER = 6.0  # robust standard deviations from the median of all movies
FEWEST = 8  # movies that make a distribution
_JUDGED = {
    "early_px": "moved {:.1f} px early, the others {:.1f}",
    "late_px": "moved {:.1f} px late, the others {:.1f}",
    "shift_error_px": "shifts known to {:.2f} px, the others to {:.2f}",
}
MOST_SET_ASIDE = 0.5  # of all movies: more stop a run


def judge_movies(table: pd.DataFrame) -> tuple[pd.DataFrame, Verdict]:
    """Flags for movies far from the others, and a verdict for the set.

    Parameters
    ----------
    table : DataFrame
        Columns reason and flags ("" where there is none), and of those corrected early_px, late_px, shift_error_px.

    Returns
    -------
    DataFrame, Verdict
        The table with the flags added.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.assessment.movies import judge_movies
    >>> moved = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 9.0]
    >>> rows = pd.DataFrame({"early_px": moved, "late_px": 1.0, "shift_error_px": 0.1, "reason": "", "flags": ""})
    >>> judge_movies(rows)[0]["flags"].iloc[-1]
    'moved 9.0 px early, the others 1.0'
    """
    table = table.copy()
    good = table["reason"] == ""
    if good.sum() >= FEWEST:
        for column, sentence in _JUDGED.items():
            values = table.loc[good, column].astype(float)
            middle = float(values.median())
            # a tenth of the median: movies that hardly differ have no outliers
            spread = max(1.4826 * float((values - middle).abs().median()), 0.1 * abs(middle), 1e-9)
            for row in values.index[(values - middle) > OUTLIER * spread]:
                words = sentence.format(values[row], middle)
                table.loc[row, "flags"] = "; ".join(filter(None, [str(table.loc[row, "flags"]), words]))
    aside, flagged = int((~good).sum()), int((table.loc[good, "flags"] != "").sum())
    findings = []
    if aside:
        share = aside / len(table)
        findings.append(
            Finding(
                "set-aside",
                "stop" if share > MOST_SET_ASIDE else "warn",
                f"{aside} of {len(table)} movies could not be corrected",
                {"set_aside": aside, "movies": len(table)},
            )
        )
    if flagged:
        findings.append(
            Finding(
                "flagged",
                "warn" if flagged > 0.2 * len(table) else "go on",
                f"{flagged} of {len(table)} movies are worth a look",
                {"flagged": flagged},
            )
        )
    return table, Verdict.of(findings)
