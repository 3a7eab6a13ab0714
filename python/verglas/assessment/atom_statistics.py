"""What the atoms of a model say of a map's amplitudes: Debye's sum, Guinier's law, Wilson's statistics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from verglas.assessment.guinier import GuinierLine, fit_guinier
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.atoms import Atoms

_PAIR_BIN_A = 0.02  # of distances between atoms: a fiftieth of the shortest wave that maps hold
_PAIRS = 2**22  # of atoms, held at once


@any_arrays
def radius_of_gyration_A(xyz_A: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    r"""Root mean square distance of weighted atoms from their centre.

    .. math:: R_g^2 = \sum_j w_j |r_j - \bar r|^2 / \sum_j w_j

    Parameters
    ----------
    xyz_A : (n, 3) float
    weights : (n,) float, optional
        Positive, such as electrons; equal if not given.

    Raises
    ------
    InputError
        No atoms, or weights of another number or without a positive sum.

    Examples
    --------
    >>> from verglas.assessment import radius_of_gyration_A
    >>> radius_of_gyration_A([[-3, 0, 0], [3, 0, 0]])
    3.0
    """
    xyz, w = _check_positions(xyz_A, weights, "radius_of_gyration_A")
    centre = w @ xyz / w.sum()
    return float(np.sqrt(w @ ((xyz - centre) ** 2).sum(axis=1) / w.sum()))


@any_arrays
def debye_power(
    xyz_A: npt.ArrayLike, frequency_per_A: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> FloatArray:
    r"""Mean of :math:`|F|^2` over all directions, of point scatterers (Debye's sum).

    .. math:: \langle |F(s)|^2 \rangle = \sum_{ij} w_i w_j \frac{\sin(2\pi s r_{ij})}{2\pi s r_{ij}}

    Distances are counted in bins of 0.02 A: the cost is that of the pairs once, whatever the number of frequencies.

    Parameters
    ----------
    xyz_A : (n, 3) float
    frequency_per_A : (m,) float
        s = 1/d, 0 to 1.
    weights : (n,) float, optional
        Scattering lengths; equal if not given.

    Returns
    -------
    (m,) float64

    Raises
    ------
    InputError
        As :func:`radius_of_gyration_A`; a frequency out of range.

    Examples
    --------
    >>> from verglas.assessment import debye_power
    >>> debye_power([[0, 0, 0], [5, 0, 0]], [0.0, 0.1, 0.2]).round(6).tolist()  # 2 + 2 sinc(2 s r)
    [4.0, 2.0, 2.0]
    """
    xyz, w = _check_positions(xyz_A, weights, "debye_power")
    s = np.atleast_1d(np.asarray(frequency_per_A, np.float64))
    if not ((s >= 0) & (s <= 1)).all():
        raise InputError("debye_power: expected frequencies of 0 to 1 per angstrom")
    reach = float(np.linalg.norm(np.ptp(xyz, axis=0)))
    pairs = np.zeros(int(reach / _PAIR_BIN_A) + 2)
    step = max(1, _PAIRS // len(xyz))
    for start in range(0, len(xyz), step):
        rows = slice(start, start + step)
        bins = (cdist(xyz[rows], xyz[start:]) / _PAIR_BIN_A + 0.5).astype(np.int64)
        weight = w[rows, None] * w[start:]
        weight[:, step:] *= 2  # these pairs come once, those of the rows with each other twice
        pairs += np.bincount(bins.ravel(), weight.ravel(), minlength=len(pairs))
    known = np.flatnonzero(pairs)
    return np.asarray(np.sinc(2 * s[:, None] * known * _PAIR_BIN_A) @ pairs[known])


@any_arrays
def fit_radius_of_gyration(frequency_per_A: npt.ArrayLike, power: npt.ArrayLike) -> tuple[float, GuinierLine]:
    r"""Radius of gyration from the fall of a power spectrum at low resolution (Guinier's law).

    .. math:: |F(s)|^2 \approx F_0^2 \Bigl(1 - \tfrac{(2\pi s)^2 R_g^2}{3}\Bigr)
              \approx F_0^2\, e^{-(2\pi s R_g)^2 / 3}

    with s = 1/d: the scattering vector of the law holds 2 pi. It is valid up to 2 pi s R_g of about 1.

    Parameters
    ----------
    frequency_per_A, power : (n,) float
        At least four points.

    Returns
    -------
    float, GuinierLine
        R_g in angstrom, and the line of ln power over s^2.

    Raises
    ------
    InputError
        Power that does not fall, or is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import debye_power, fit_radius_of_gyration, radius_of_gyration_A
    >>> xyz = np.random.default_rng(0).normal(size=(200, 3)) * 10
    >>> s = np.linspace(1e-4, 0.003, 6)
    >>> bool(abs(fit_radius_of_gyration(s, debye_power(xyz, s))[0] / radius_of_gyration_A(xyz) - 1) < 0.01)
    True
    """
    s, values = np.asarray(frequency_per_A, np.float64), np.asarray(power, np.float64)
    if not (values > 0).all():
        raise InputError("fit_radius_of_gyration: expected positive powers")
    line = fit_guinier(s**2, np.log(values))
    if not line.slope_A2 < 0:
        raise InputError("fit_radius_of_gyration: the power does not fall with frequency there")
    return float(np.sqrt(-3 * line.slope_A2) / (2 * np.pi)), line


class WilsonMoments(NamedTuple):
    r"""Mean and variance of :math:`|F|^2` of randomly placed atoms."""

    mean: float
    variance: float


@any_arrays
def wilson_moments(weights: npt.ArrayLike) -> WilsonMoments:
    r"""What :math:`|F|^2` of randomly placed atoms is expected to be (Wilson's statistics).

    .. math:: E|F|^2 = \sum_j w_j^2 = \Sigma, \qquad \mathrm{Var}\,|F|^2 \approx \Sigma^2

    F is then a sum of independent phases, complex normal for many atoms, and its power exponentially distributed.

    Parameters
    ----------
    weights : (n,) float
        Scattering lengths.

    Examples
    --------
    >>> from verglas.assessment import wilson_moments
    >>> tuple(wilson_moments([6.0, 6.0, 8.0]))
    (136.0, 18496.0)
    """
    total = float((np.asarray(weights, np.float64) ** 2).sum())
    return WilsonMoments(total, total**2)


def model_variability_A(models: list[Atoms]) -> FloatArray:
    r"""How far models of one molecule lie apart at each atom: what a map leaves open.

    .. math:: \mathrm{RMSF}_j = \sqrt{\tfrac{1}{m} \sum_k |r_{jk} - \bar r_j|^2}

    Parameters
    ----------
    models : list of Atoms
        Two or more with the same atoms in the same order, built or refined independently in one map and not
        superposed: their place is what the map says.

    Returns
    -------
    (n,) float64

    Raises
    ------
    InputError
        Fewer than two, or other atoms.

    References
    ----------
    Herzik, Fraser and Lander, Structure 27 (2019) 344.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import model_variability_A
    >>> from verglas.types.atoms import Atoms
    >>> one = Atoms([[8, 8, 8]], ["C"], ["C"], ["GLY"], ["A"], [1], [1], [20])
    >>> model_variability_A([one, one.move(np.eye(3), [2, 0, 0])]).tolist()
    [1.0]
    """
    if len(models) < 2:
        raise InputError(f"model_variability_A: expected two models or more, got {len(models)}")
    first = models[0]
    for model in models[1:]:
        for column in ("names", "residue_names", "chains", "residue_numbers"):
            if not np.array_equal(getattr(model, column), getattr(first, column)):
                raise InputError(
                    f"model_variability_A: {model.name} and {first.name} hold other atoms ({column} differ): expected "
                    "models of the same atoms in the same order"
                )
    places = np.stack([model.xyz_A for model in models])
    return np.asarray(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0)))


def _check_positions(xyz_A: npt.ArrayLike, weights: npt.ArrayLike | None, job: str) -> tuple[FloatArray, FloatArray]:
    xyz = np.asarray(xyz_A, np.float64)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
        raise InputError(f"{job}: expected positions of shape (n, 3), got {xyz.shape}")
    w = np.ones(len(xyz)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(xyz),) or not w.sum() > 0:
        got = f"shape {w.shape}" if w.shape != (len(xyz),) else f"a sum of {w.sum():g}"
        raise InputError(f"{job}: expected {len(xyz)} weights of a positive sum, got {got}")
    return xyz, w
