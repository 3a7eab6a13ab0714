r"""How likely each class of a 2D classification shows the particle: descriptors of its average, and a small network.

Descriptors are those that class rankers go by: size, resolution, contrast inside the circle, distance of the centre,
power by bands, how far it is one connected thing, how round and how wide it is, and what its particles' likelihoods
say; those with a unit are taken relative to the set's middle class (by particles), so that scale and box do not matter.
The network has one hidden layer (:class:`verglas.learned.Perceptron`), trained on simulated classifications
(``tools/train_class_ranker.py``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from verglas import fourier
from verglas.errors import InputError
from verglas.masks import distance_from
from verglas.types.arrays import FloatArray, any_arrays

if TYPE_CHECKING:
    from verglas.learned import Perceptron

_BANDS = (0.5, 2.5, 4.5, 7.5, 12.5)  # cycles per box
_UNRESOLVED = 4.0  # times the coarsest resolution found stands for none
_LEAST_SIDE = 16


@any_arrays
def class_descriptors(
    averages: npt.ArrayLike,
    table: pd.DataFrame,
    particles: pd.DataFrame,
    empty_class: int | None = None,
) -> pd.DataFrame:
    """Descriptors of every class but the empty one and those without particles or signal, one row each.

    Parameters
    ----------
    averages : (K, y, y) float
        Image i is of class i + 1.
    table : DataFrame
        class, resolution_A, signal, offset: as :attr:`verglas.classification.Classes2D.table`.
    particles : DataFrame
        rlnClassNumber, rlnMaxValueProbDistribution, rlnLogLikeliContribution of every particle.
    empty_class : int, optional
        Number of the class for what noise explains.

    Returns
    -------
    DataFrame
        Indexed by class number.

    Raises
    ------
    InputError
        A column is missing, no classes, averages of fewer than 16 pixels, fewer than the classes or with values that
        are not finite, particles with a negative class number or a likelihood that is not finite.
    """
    images = np.asarray(averages, np.float64)
    _check(images, table, particles)
    number = table["class"].to_numpy(np.int64)
    own = particles["rlnClassNumber"].to_numpy(np.int64)
    size = np.bincount(own, minlength=int(number.max()) + 1)[number]
    shown = (number != (-1 if empty_class is None else empty_class)) & (size > 0)
    shown[shown] &= images[number[shown] - 1].std(axis=(1, 2)) > 0
    if not shown.any():
        return pd.DataFrame(index=pd.Index([], name="class"))
    kept, count = table[shown], size[shown]
    found = _of_table(kept, count) | _of_particles(particles, own, number[shown], count)
    found |= {
        name: np.array(values)
        for name, values in _columns([_of_image(images[one - 1]) for one in number[shown]]).items()
    }
    out = pd.DataFrame(found, index=pd.Index(number[shown], name="class"))
    for name in ("log power", "log likelihood", "width", "log resolution"):
        out[f"{name} against the middle"] = out[name] - _middle(out[name].to_numpy(float), count)
    # What depends on the set's grey scale, SNR or box alone tells nothing of a class.
    return out.drop(columns=["log power", "log likelihood", "log resolution"])


def ranker_weights() -> Perceptron:
    """Those that come with the package; its threshold is what :func:`select_ranked` is given by ``verglas select``."""
    from verglas.learned import packaged_perceptron  # not before it is asked for

    return packaged_perceptron("class_ranker")


@any_arrays
def rank_classes(
    averages: npt.ArrayLike,
    table: pd.DataFrame,
    particles: pd.DataFrame,
    *,
    empty_class: int | None = None,
    ranker: Perceptron | None = None,
) -> pd.Series[float]:
    """Probability of every class that it shows the particle; of the empty class and of one without particles, 0.

    Parameters
    ----------
    averages, table, particles, empty_class
        As for :func:`class_descriptors`.
    ranker : Perceptron, optional
        The shipped one by default.

    Returns
    -------
    Series
        Indexed by class number.
    """
    used = ranker or ranker_weights()
    found = class_descriptors(averages, table, particles, empty_class)
    out = pd.Series(0.0, index=pd.Index(table["class"].to_numpy(np.int64), name="class"), name="probability_good")
    if len(found):
        out.loc[found.index] = used.probabilities(found[used.names].to_numpy(np.float64))
    return out


def particle_scores(particles: pd.DataFrame, chance: pd.Series[float]) -> FloatArray:
    r"""One number to sort particles by: the chance that their class is good, times their place by likelihood.

    .. math:: s = p_c \; \mathrm{rank}(l) / n

    with l the logarithm of the likelihood against no particle, ranked over all n particles from the least up.

    Parameters
    ----------
    particles : DataFrame
        rlnClassNumber and rlnLogLikeliContribution.
    chance : Series
        Of every class, from :func:`rank_classes`.

    Returns
    -------
    (n,) float64
        0 to 1.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.classification.ranking import particle_scores
    >>> rows = pd.DataFrame({"rlnClassNumber": [1, 1, 1, 2], "rlnLogLikeliContribution": [9.0, 10.0, 11.0, 5.0]})
    >>> particle_scores(rows, pd.Series({1: 0.8, 2: 0.1})).round(3).tolist()
    [0.4, 0.6, 0.8, 0.025]
    """
    place = particles["rlnLogLikeliContribution"].astype(float).rank(pct=True).to_numpy()
    return np.asarray(chance.loc[particles["rlnClassNumber"]].to_numpy(float) * place, np.float64)


def _check(images: FloatArray, table: pd.DataFrame, particles: pd.DataFrame) -> None:
    needed = (
        (table, "table has", ("class", "resolution_A", "signal", "offset")),
        (particles, "particles have", ("rlnClassNumber", "rlnMaxValueProbDistribution", "rlnLogLikeliContribution")),
    )
    for rows, name, columns in needed:
        missing = [column for column in columns if column not in rows]
        if missing:
            raise InputError(f"class ranker: the {name} no column {missing[0]}")
    if not len(table):
        raise InputError("class ranker: the table holds no class")
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < _LEAST_SIDE:
        raise InputError(
            f"class ranker: expected square averages of at least {_LEAST_SIDE} pixels, got shape {images.shape}"
        )
    if int(table["class"].max()) > len(images):
        raise InputError(f"class ranker: {len(images)} averages, but a class {int(table['class'].max())}")
    known = np.isfinite(images[table["class"].to_numpy(np.int64) - 1]).all(axis=(1, 2))
    if not known.all():
        number = table["class"].to_numpy(np.int64)[~known][0]
        raise InputError(f"class ranker: the average of class {number} holds values that are not finite numbers")
    _check_particles(particles)


def _check_particles(particles: pd.DataFrame) -> None:
    for name in ("rlnClassNumber", "rlnMaxValueProbDistribution", "rlnLogLikeliContribution"):
        values = particles[name].to_numpy(float)
        wrong = ~np.isfinite(values) if name != "rlnClassNumber" else ~(values >= 0)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"class ranker: {int(wrong.sum())} particles have no usable {name}, the first is {first + 1} with "
                f"{values[first]:g}"
            )


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _middle(values: FloatArray, weight: npt.NDArray[np.int64]) -> float:
    """The value of the middle particle's class."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)])


def _of_table(table: pd.DataFrame, size: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
    resolution = table["resolution_A"].to_numpy(float)
    finite = np.isfinite(resolution)
    worst = _UNRESOLVED * (resolution[finite].max() if finite.any() else 1.0)
    return {
        "log size": np.log(size / size.mean()),
        "log resolution": np.log(np.where(finite, resolution, worst)),
        "log signal": np.log(np.clip(np.nan_to_num(table["signal"].to_numpy(float), nan=1.0), 0.05, 200)),
        "offset": np.nan_to_num(table["offset"].to_numpy(float)),
    }


def _of_particles(
    particles: pd.DataFrame, own: npt.NDArray[np.int64], number: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
) -> dict[str, FloatArray]:
    """What the likelihoods of its particles say of a class."""
    values = {
        "probability": particles["rlnMaxValueProbDistribution"].to_numpy(float),
        "likelihood": particles["rlnLogLikeliContribution"].to_numpy(float),
    }
    mean = {name: np.bincount(own, one, number.max() + 1)[number] / size for name, one in values.items()}
    square = np.bincount(own, values["likelihood"] ** 2, number.max() + 1)[number] / size
    spread = np.sqrt(np.maximum(square - mean["likelihood"] ** 2, 0))
    return {
        "probability": mean["probability"],
        "log likelihood": np.log(np.maximum(mean["likelihood"], 0.1)),
        "spread of likelihoods": spread / np.maximum(np.abs(mean["likelihood"]), 0.1),
    }


def _of_image(image: FloatArray) -> dict[str, float]:
    """Descriptors of one average; lengths in box sides."""
    side = len(image)
    y, x = (np.indices(image.shape) - side // 2) / side
    r = distance_from(image.shape) / side
    energy = image**2
    total = float(energy.sum())
    width = float(np.sqrt((energy * r**2).sum() / total))
    mass = np.maximum(image, 0)
    weight = max(float(mass.sum()), 1e-30)
    centre = np.array([(mass * y).sum(), (mass * x).sum()]) / weight
    spread = np.cov(np.stack([y.ravel(), x.ravel()]), aweights=mass.ravel() + 1e-12)
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 1e-12))
    rings = np.minimum((r * side).astype(np.int64), side)
    about = np.bincount(rings.ravel(), image.ravel()) / np.maximum(np.bincount(rings.ravel()), 1)
    z = (image - image.mean()) / image.std()
    return {
        "log power": float(np.log(total / image.size)),
        "width": float(np.log(width)),
        "centre of mass": float(np.hypot(*centre)) / width,
        "elongation": float(np.log(axes[1] / axes[0])),
        "round": float((about[rings] ** 2).sum() / total),
        "dark": float((np.minimum(image, 0) ** 2).sum() / total),
        "skewness": float(np.cbrt((z**3).mean())),
        "kurtosis": float(np.log((z**4).mean())),
        "at the rim": float(np.log(1e-3 + energy[(r > 1.5 * width) & (r < 2 * width)].mean() * image.size / total)),
        **_connectivity(image),
        **_powers(image),
    }


def _connectivity(image: FloatArray) -> dict[str, float]:
    """How far what stands out is one thing, and how much of the box it fills."""
    smooth = ndimage.gaussian_filter(image, len(image) / 64)
    over = smooth > 0.35 * np.percentile(smooth, 99)
    pieces, count = ndimage.label(over)
    areas = np.bincount(pieces.ravel())[1:]
    largest = float(areas.max()) if count else 0.0
    return {
        "largest piece": largest / max(float(areas.sum()), 1.0),
        "pieces": float(np.log(max(count, 1))),
        "area": largest / image.size,
    }


def _powers(image: FloatArray) -> dict[str, float]:
    """Shares of the power by bands, as logarithms."""
    power = np.abs(fourier.forward(image.astype(np.float32), 2, threads=1)) ** 2 * fourier.half_weights(image.shape)
    k = fourier.radius(image.shape)
    whole = float(power[k > _BANDS[0]].sum())
    return {
        f"power in band {n + 1}": float(np.log(1e-5 + power[(k >= low) & (k < high)].sum() / whole))
        for n, (low, high) in enumerate(pairwise(_BANDS))
    }
