"""Whether the maps of several classes are one structure: the homogeneity check of a run of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from scipy import special

from verglas import fourier
from verglas.assessment.fsc import fsc
from verglas.errors import InputError
from verglas.geometry import symmetry_order
from verglas.masks import soft_sphere
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.verdict import Finding

_FALSE_ALARM = 1e-3
_SIGNAL = 0.143  # FSC of a class's half maps, up to which maps are compared
_FEWEST_SHELLS = 3
_SAME_PIXEL = 1e-3  # share by which pixel sizes in headers may differ

HalfMaps = tuple[Map, Map]


def judge_homogeneity(classes: Mapping[str, HalfMaps], *, symmetry: str = "C1", threads: int | None = None) -> Finding:
    r"""Whether class maps differ by more than noise, from their half maps: ``homogeneity``.

    The maps A and B of two classes of one structure differ by scale, filter (fewer particles, poorer poses) and noise.
    So B is scaled to A in every shell by what both have in common, c, and what is left is compared between the halves,
    which share no noise:

    .. math:: c = \frac{\langle A_1, B_2\rangle + \langle A_2, B_1\rangle}{2 \langle B_1, B_2\rangle}, \quad
              D_i = A_i - c B_i

    The correlation of D_1 with D_2, over the shells in which both classes have signal, is that of noise where the
    structures are one; it is tested at 1e-3 by its number of voxels. Classes of homogeneous particles pass: so does a
    difference that noise hides. Maps that lie differently in their boxes differ, whatever they show, and so do maps of
    opposite sign: c is not below 0.

    Parameters
    ----------
    classes : mapping of str to (Map, Map)
        Half maps of each class, by its name.
    symmetry : str
        Point group that all were made under.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Finding
        "go on" either way: whether particles are of one structure is an answer, not a fault. ``numbers`` holds
        pairs, pairs_alike and the largest share of a map's power that differs.

    Raises
    ------
    InputError
        Classes have different boxes or pixel sizes.

    References
    ----------
    The question, asked by eye: Zubcevic et al., Nat. Struct. Mol. Biol. 23 (2016) 180.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.homogeneity import judge_homogeneity
    >>> truth = vg.simulate.density(vg.simulate.phantom(32, 4.0, 80.0), 32, 4.0)
    >>> noise = np.random.default_rng(0).normal(size=(4, 32, 32, 32)) * truth.data.std()
    >>> halves = [truth.with_data(scale * truth.data + n) for n, scale in zip(noise, (1, 1, 0.6, 0.6))]
    >>> judge_homogeneity({"1": tuple(halves[:2]), "2": tuple(halves[2:])}).numbers["pairs_alike"]
    1
    """
    order = symmetry_order(symmetry)
    _check_sampling(classes)
    shares, differing = {}, []
    for one, other in combinations(classes, 2):
        share, correlation, limit = _difference(classes[one], classes[other], order, threads)
        shares[one, other] = share
        if correlation > limit:
            differing.append((one, other))
    untold = [pair for pair, share in shares.items() if not np.isfinite(share)]
    known = [share for share in shares.values() if np.isfinite(share)]
    numbers = {
        "pairs": len(shares),
        "pairs_alike": len(shares) - len(differing) - len(untold),
        "largest_share_that_differs": round(max(known), 4) if known else None,
    }
    return Finding("homogeneity", "go on", _sentence(list(classes), differing, untold, shares), numbers)


def _check_sampling(classes: Mapping[str, HalfMaps]) -> None:
    (first, (a, _)), *others = classes.items()
    for name, (b, _) in others:
        if a.data.shape != b.data.shape or abs(a.pixel_size_A / b.pixel_size_A - 1) > _SAME_PIXEL:
            raise InputError(
                f"homogeneity: the maps of class {first} have {a.box} voxels of {a.pixel_size_A:g} A, those of class "
                f"{name} {b.box} of {b.pixel_size_A:g} A; expected the classes of one run: resample one of them"
            )


def _sentence(
    names: list[str],
    differing: list[tuple[str, str]],
    untold: list[tuple[str, str]],
    shares: dict[tuple[str, str], float],
) -> str:
    alike = [pair for pair in shares if pair not in differing and pair not in untold]
    ends = []
    if alike:
        ends.append(f"one structure: {', '.join(' and '.join(pair) for pair in alike)}")
    if untold and differing:
        ends.append(f"too little signal in common to tell: {', '.join(' and '.join(pair) for pair in untold)}")
    end = "".join(f"; {said}" for said in ends) + "."
    if untold and not differing:
        pairs = ", ".join(" and ".join(pair) for pair in untold)
        return f"Whether classes {pairs} are one structure cannot be told: they have too little signal in common{end}"
    if not differing:
        return f"All {len(names)} classes are one structure: their maps differ by scale, filter and chance alone."
    worst = max(differing, key=lambda pair: shares[pair])
    return (
        f"{len(differing)} of {len(shares)} pairs of classes differ by more than chance, most classes {worst[0]} and "
        f"{worst[1]}: {100 * shares[worst]:.1f} % of the power up to their resolution{end}"
    )


def _difference(a: HalfMaps, b: HalfMaps, order: int, threads: int | None) -> tuple[float, float, float]:
    """Share of a's power that b does not have, the correlation of what differs between halves, and its limit."""
    shape = a[0].data.shape
    sphere = soft_sphere(a[0].box, 0.42 * a[0].box, 0.06 * a[0].box)
    curves = [fsc(*pair, sphere, symmetry_order=order, threads=threads) for pair in (a, b)]
    n = curves[0].n
    ends = [np.flatnonzero(curve.curve[1:] < _SIGNAL) for curve in curves]
    last = min(int(end[0]) if end.size else len(n) - 1 for end in ends)  # the last shell with signal
    if last < _FEWEST_SHELLS:
        return float("nan"), 0.0, 1.0
    a1, a2, b1, b2 = (fourier.forward(half.data * sphere, 3, threads=threads) for half in (*a, *b))

    def product(x: np.ndarray, y: np.ndarray) -> FloatArray:
        return np.asarray(fourier.radial_mean((x * y.conj()).real.astype(np.float64), shape))

    shells = np.arange(1, last + 1)
    c = np.zeros(len(n))
    # A filter has no negative values: what is inverted in some shells differs there.
    c[shells] = np.maximum((0.5 * (product(a1, b2) + product(a2, b1)))[shells] / product(b1, b2)[shells], 0.0)
    radius = np.minimum(np.rint(fourier.radius(shape)).astype(np.int64), len(c) - 1)
    first, second = a1 - c[radius] * b1, a2 - c[radius] * b2
    common, power1, power2 = product(first, second), product(first, first), product(second, second)
    power = np.sqrt(power1 * power2)
    # of a copy of a map nothing is left
    correlation = np.divide(common, power, out=np.zeros_like(common), where=power > 0)[shells]
    weight = n[shells]
    # Under the sphere neighbouring shells are correlated, over about two.
    limit = -float(special.ndtri(_FALSE_ALARM)) * float(np.sqrt(2.0 / weight.sum()))
    # Each shell's mean counts as often as it has voxels.
    share = float((common[shells] * weight).sum() / (product(a1, a2)[shells] * weight).sum())
    return share, float(np.average(correlation, weights=weight)), limit
