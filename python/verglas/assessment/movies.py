"""Movies beside each other: those that moved unlike the others, and whether to go on."""

from __future__ import annotations

import numpy as np
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
_PIXEL_SIZE = "original_pixel_size_A"
_RECORDED = {"width_px": "columns", "height_px": "rows", "frames": "frames", _PIXEL_SIZE: "A a pixel"}
_SAME_PIXEL = 1e-3  # of a pixel size: headers of one session may round theirs differently


def judge_movies(table: pd.DataFrame) -> tuple[pd.DataFrame, Verdict]:
    """Flags for movies far from the others, and a verdict for the set.

    Parameters
    ----------
    table : DataFrame
        Columns reason and flags ("" where there is none), and of those corrected early_px, late_px, shift_error_px;
        where they are there, width_px, height_px, frames and original_pixel_size_A say whether the set is a mixture.

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
            values = pd.to_numeric(table.loc[good, column], errors="coerce").astype(float)  # some have no error
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
    mixture = mixture_of(table[good])
    if mixture is not None:
        findings.append(mixture)
    return table, Verdict.of(findings)


def mixture_of(table: pd.DataFrame) -> Finding | None:
    """Whether corrected movies were recorded alike: their size, number of frames and pixel size.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.assessment.movies import mixture_of
    >>> rows = pd.DataFrame({"movie": ["a.tif", "b.tif", "c.tif"], "frames": [40, 40, 39]})
    >>> mixture_of(rows).sentence
    'not all movies were recorded alike: 1 of 3 (c.tif) differ from the most common kind, 40 frames'
    >>> mixture_of(rows.assign(movie=["a.eer", "b.eer", "c.eer"])) is None  # a last fraction that is there, or is not
    True
    """
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in _RECORDED if name in table}
    known = [name for name, values in numbers.items() if values.notna().all()]
    if not known or not len(table):
        return None
    rows = pd.DataFrame({name: numbers[name] for name in known}).astype(float)
    if _PIXEL_SIZE in rows:
        rows[_PIXEL_SIZE] = _without_rounding(rows[_PIXEL_SIZE])
    if "frames" in rows and "movie" in table:
        rows["frames"] = _as_most_fractions(rows["frames"], table["movie"].astype(str).str.lower().str.endswith(".eer"))
    kinds = pd.Series([*rows.itertuples(index=False, name=None)], index=table.index)
    most_common = kinds.value_counts().index[0]
    others = table.index[[kind != most_common for kind in kinds]]
    if not len(others):
        return None
    names = ", ".join(str(table.loc[row, "movie"]) for row in others[:3]) + (", ..." if len(others) > 3 else "")
    kind = ", ".join(f"{value:g} {_RECORDED[name]}" for name, value in zip(known, most_common, strict=True))
    return Finding(
        "mixture",
        "warn",
        f"not all movies were recorded alike: {len(others)} of {len(table)} ({names}) differ from the most common "
        f"kind, {kind}",
        {"different": len(others), "movies": len(table)},
    )


def _as_most_fractions(frames: pd.Series[float], eer: pd.Series[bool]) -> pd.Series[float]:
    """Numbers of frames, those of EER movies one off the most common as that one.

    Frames of the camera are as many as the shutter let through, some more or fewer in each movie of one session: the
    last fraction is there or not.
    """
    if not eer.any():
        return frames
    usual = frames[eer].mode().iloc[0]
    return frames.where(~(eer & ((frames - usual).abs() <= 1)), usual)


def _without_rounding(sizes_A: pd.Series[float]) -> pd.Series[float]:
    """Sizes that lie within a thousandth of the next smaller one, as that one."""
    ordered = sizes_A.sort_values()
    steps = np.diff(ordered, prepend=ordered.iloc[:1]) > _SAME_PIXEL * ordered
    return ordered.groupby(steps.cumsum()).transform("first").reindex(sizes_A.index)
