"""Several lists of picks made one, duplicates removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.picking.particles import MERIT
from verglas.types import Picks


def remove_duplicates(picks: Picks, distance_px: float) -> Picks:
    """Keep each pick that has no better one within a distance.

    Parameters
    ----------
    picks : Picks
        Taken from the highest rlnAutopickFigureOfMerit down; without it, in their order.
    distance_px : float
        No two of the result are closer than this.

    Returns
    -------
    Picks
        In the order they came in.

    Examples
    --------
    >>> from verglas.picking import remove_duplicates
    >>> from verglas.types import Picks
    >>> remove_duplicates(Picks([[0, 0], [3, 0], [9, 0]], columns={"rlnAutopickFigureOfMerit": [1, 2, 3]}), 5).xy_px
    array([[3., 0.],
           [9., 0.]])
    """
    merit = np.asarray(picks.columns.get(MERIT, np.zeros(len(picks))), np.float64)
    return picks[np.sort(spread_places(picks.xy_px, np.argsort(-merit, kind="stable"), distance_px))]


def spread_places(xy: npt.NDArray[np.float64], order: npt.NDArray[np.int64], distance: float) -> npt.NDArray[np.int64]:
    """Rows, in the given order, each kept if no kept one is closer than the distance."""
    if not len(xy):
        return np.zeros(0, np.int64)
    neighbours = cKDTree(xy).query_ball_point(xy, distance)
    dropped = np.zeros(len(xy), bool)
    kept = []
    for row in order:
        if dropped[row]:
            continue
        kept.append(row)
        near = np.array(neighbours[row])
        dropped[near[np.hypot(*(xy[near] - xy[row]).T) < distance]] = True
    return np.array(kept, np.int64)


def _ranks(picks: Picks) -> npt.NDArray[np.float64]:
    """Figure of merit as a rank in (0, 1], so that scales of different pickers can be compared."""
    merit = np.asarray(picks.columns.get(MERIT, np.zeros(len(picks))), np.float64)
    rank = np.empty(len(merit))
    rank[np.argsort(merit, kind="stable")] = np.arange(1, len(merit) + 1)
    return rank / max(len(merit), 1)


def consensus(lists: Sequence[Picks], radius_px: float, mode: str | int = "and") -> Picks:
    """Agreement of several pickers.

    Every pick of every list is a candidate and has a vote of each list that has a pick within the radius. Candidates
    with enough votes are taken in the order of votes, then of mean rank, one within a radius.

    Parameters
    ----------
    lists : sequence of Picks
        Of one micrograph.
    radius_px : float
        Picks within it mean the same particle.
    mode : {"and", "or"} or int
        All lists have to agree, one is enough, or this many.

    Returns
    -------
    Picks
        Positions are those of one of the pickers. rlnAutopickFigureOfMerit is the share of lists that agree times the
        mean rank there; ``votes`` counts the lists. No two are closer than the radius; every pick of "and" lies within
        the radius of one in each list, and every pick of a list within the radius of one of "or".

    Raises
    ------
    InputError
        No lists, or more votes asked for than there are lists.

    Examples
    --------
    >>> from verglas.picking import consensus
    >>> from verglas.types import Picks
    >>> a, b = Picks([[0, 0], [50, 0]]), Picks([[2, 0], [90, 0]])
    >>> [len(consensus([a, b], 5, mode)) for mode in ("and", "or", 2)]
    [1, 3, 1]
    """
    needed = {"and": len(lists), "or": 1}.get(mode) if isinstance(mode, str) else int(mode)
    if not lists or needed is None or not 1 <= needed <= len(lists):
        raise InputError(f"consensus of {len(lists)} lists: expected 'and', 'or' or a number of votes, got {mode!r}")
    if not radius_px > 0:
        raise InputError(f"radius_px: expected a positive number of pixels, got {radius_px}")
    xy = np.concatenate([p.xy_px for p in lists])
    votes, merit = np.zeros(len(xy), np.int64), np.zeros(len(xy))
    for one in lists:
        if not len(one) or not len(xy):
            continue
        distance, nearest = cKDTree(one.xy_px).query(xy)
        near = distance <= radius_px
        votes += near
        merit += np.where(near, _ranks(one)[nearest], 0.0)
    merit /= len(lists)
    order = np.lexsort((-merit, -votes))
    kept = spread_places(xy, order[votes[order] >= needed], radius_px)
    return Picks(xy[kept], lists[0].micrograph, {MERIT: merit[kept], "votes": votes[kept]})
