"""Which classes to keep: what a person looks for in a sheet of averages, as rules with their reasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray

_COLUMNS = ("class", "particles", "resolution_A")
_EMPTY = "noise explains these as well as any average"


@dataclass(frozen=True)
class SelectionRules:
    """Limits of :func:`select_classes`.

    Attributes
    ----------
    min_particles : int
        Fewer tell nothing of a class, its resolution least of all.
    min_share_of_mean : float
        Least size against the mean of all classes.
    max_offset : float
        Farthest that an average may have been moved to its centre, in diameters of the mask. Further out lie edges,
        aggregates, and pairs of neighbours with the circle between them.
    min_signal : float
        Least mean square inside the circle against outside.
    resolution_factor, resolution_always_A : float
        A class may be this many times coarser than the median particle's class; one of at least
        ``resolution_always_A`` is fine enough in any case.
    few_left : float
        A selection of less than this share of the particles is worth a look.
    """

    min_particles: int = 10
    min_share_of_mean: float = 0.05
    max_offset: float = 0.125
    min_signal: float = 1.5
    resolution_factor: float = 2.0
    resolution_always_A: float = 20.0
    few_left: float = 0.25


@dataclass(frozen=True)
class ClassSelection:
    """What :func:`select_classes` chose.

    Attributes
    ----------
    classes : list of int
        Numbers of the classes kept.
    left_out : dict of int -> str
        Every other class, with the first rule that it breaks.
    particles, of_particles : int
        Particles in the classes kept, and in all.
    state : "go on", "warn" or "stop"
        Whether to go on with them.
    sentence : str
        The same in words.
    code : {"noise", "none_kept", "few_kept", "kept"}
        The same in a word for programs.
    """

    classes: list[int]
    left_out: dict[int, str]
    particles: int
    of_particles: int
    state: str
    sentence: str
    code: str

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "state": self.state,
            "code": self.code,
            "reasons": [self.sentence],
            "classes": self.classes,
            "particles": self.particles,
            "of_particles": self.of_particles,
            "left_out": {str(k): v for k, v in self.left_out.items()},
        }


def select_classes(
    table: pd.DataFrame, *, signal: bool = True, empty_class: int | None = None, rules: SelectionRules | None = None
) -> ClassSelection:
    """Choose the classes that show particles, by size, centre, signal and resolution.

    Parameters
    ----------
    table : DataFrame
        As :attr:`verglas.classification.Classes2D.table`: class, particles, resolution_A; and where known signal and
        offset (NaN or absent: not judged).
    signal : bool
        Whether the classification found any; if not, nothing is chosen.
    empty_class : int, optional
        Number of the class for what noise explains.
    rules : SelectionRules, optional
        Limits.

    Returns
    -------
    ClassSelection

    Raises
    ------
    InputError
        A column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.classification import select_classes
    >>> table = pd.DataFrame({"class": [1, 2, 3], "particles": [400, 90, 4], "resolution_A": [9.0, 12.0, 30.0],
    ...                       "offset": [0.01, 0.3, 0.02]})
    >>> chosen = select_classes(table)
    >>> chosen.classes, chosen.left_out[2]
    ([1], 'its average lies 0.30 diameters off the centre (at most 0.125)')
    """
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise InputError(f"select_classes: the table has no column {missing[0]}")
    limits = rules or SelectionRules()
    reason = _reasons(table, empty_class, limits)
    return _select(table, reason, signal, limits)


def select_ranked(
    table: pd.DataFrame,
    chance: pd.Series[float],
    threshold: float,
    *,
    signal: bool = True,
    empty_class: int | None = None,
    rules: SelectionRules | None = None,
) -> ClassSelection:
    """Choose the classes that a ranker (:func:`verglas.classification.rank_classes`) is sure enough of.

    Parameters
    ----------
    table : DataFrame
        class and particles.
    chance : Series
        Probability of showing the particle, by class.
    threshold : float
        Least probability of a class that is kept.
    signal, empty_class
        As for :func:`select_classes`.
    rules : SelectionRules, optional
        Its ``few_left``.

    Returns
    -------
    ClassSelection

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.classification import select_ranked
    >>> table = pd.DataFrame({"class": [1, 2], "particles": [400, 90]})
    >>> select_ranked(table, pd.Series({1: 0.98, 2: 0.07}), 0.5).left_out
    {2: 'shows the particle with a probability of 0.07 (at least 0.5)'}
    """
    reason = []
    for number in table["class"].to_numpy(np.int64):
        low = not chance.get(number, 0.0) >= threshold
        said = f"shows the particle with a probability of {chance.get(number, 0.0):.2f} (at least {threshold:g})"
        reason.append(_EMPTY if number == empty_class else said if low else "")
    return _select(table, reason, signal, rules or SelectionRules())


def _select(table: pd.DataFrame, reason: list[str], signal: bool, limits: SelectionRules) -> ClassSelection:
    """The selection that these reasons leave."""
    number, size = table["class"].to_numpy(np.int64), table["particles"].to_numpy(np.int64)
    if not signal:
        reason = [r or "the classification found nothing but noise" for r in reason]
    passes = np.array([not r for r in reason], bool)
    total, n_selected = int(size.sum()), int(size[passes].sum())
    rejections = {int(n): r for n, r in zip(number, reason, strict=True) if r}
    code, state, sentence = _state(signal, int(passes.sum()), n_selected, total, limits)
    return ClassSelection(number[passes].tolist(), rejections, n_selected, total, state, sentence, code)


def _reasons(table: pd.DataFrame, empty_class: int | None, limits: SelectionRules) -> list[str]:
    """The first rule that each class breaks; empty text for none."""
    size = table["particles"].to_numpy(np.int64)
    real = table["class"].to_numpy(np.int64) != (-1 if empty_class is None else empty_class)
    blank = np.full(len(table), np.nan)
    offset = table["offset"].to_numpy(float) if "offset" in table else blank
    inside = table["signal"].to_numpy(float) if "signal" in table else blank
    resolution = table["resolution_A"].to_numpy(float)
    # Against the mean of the real classes: the empty class may hold most of a poor set.
    least = max(limits.min_particles, int(np.ceil(limits.min_share_of_mean * size[real].sum() / max(real.sum(), 1))))
    rules = (
        (~real, lambda i: _EMPTY),
        (size < least, lambda i: f"{size[i]} particles (at least {least})"),
        (
            offset > limits.max_offset,
            lambda i: f"its average lies {offset[i]:.2f} diameters off the centre (at most {limits.max_offset:g})",
        ),
        (
            inside < limits.min_signal,
            lambda i: f"{inside[i]:.1f} times as much inside the circle as outside (at least {limits.min_signal:g})",
        ),
    )
    reason = [""] * len(table)
    for broken, text in rules:
        for i in np.flatnonzero(broken):
            reason[i] = reason[i] or text(int(i))
    open_ = np.array([not r for r in reason], bool)
    # Over particles, not classes: many small classes of junk would set the standard for the large good ones.
    limit = max(limits.resolution_always_A, limits.resolution_factor * _weighted_median(resolution[open_], size[open_]))
    for i in np.flatnonzero(open_ & ~(resolution <= limit)):
        resolution_text = f"resolved to {resolution[i]:.0f} A" if np.isfinite(resolution[i]) else "not resolved at all"
        reason[i] = f"{resolution_text} (at least {limit:.0f} A)"
    return reason


def _weighted_median(values: FloatArray, weight: npt.NDArray[np.int64]) -> float:
    """The value of the middle particle; 0 of nothing, or where that one is not finite."""
    if not weight.sum():
        return 0.0
    order = np.argsort(values)
    middle = values[order][np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)]
    return float(middle) if np.isfinite(middle) else 0.0


def _state(signal: bool, classes: int, n_selected: int, total: int, limits: SelectionRules) -> tuple[str, str, str]:
    """Code, state and sentence."""
    if not signal:
        return "noise", "stop", "The classification found nothing but noise: there is nothing to select."
    if not n_selected:
        sentence = f"None of the classes looks like a particle: look at them. {total} particles were classified."
        return "none_kept", "stop", sentence
    text = f"{n_selected} of {total} particles, in {classes} {'class' if classes == 1 else 'classes'}"
    if n_selected < limits.few_left * total:
        return "few_kept", "warn", f"Only {text}, look like particles: look at the others."
    return "kept", "go on", f"{text}, look like particles."
