"""FSC-Q: where a model agrees with a map less, or more, than the half maps agree with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas import masks
from verglas._screen import ListenerChoice
from verglas.assessment.local_resolution import local_resolution
from verglas.assessment.model_density import model_density, near_atoms
from verglas.assessment.q_score import sample
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.atoms import Atoms
from verglas.types.convert import MapLike, map_of
from verglas.types.display import Shown

_HALVES, _MODEL = 0.143, 0.5  # sqrt(2 F / (1 + F)) of 1/7 is 1/2: a perfect model crosses where the halves do
_RADIUS_A = 3.0
_EDGE_A = 6.0
_APART_PX = 0.1  # of origins: headers round them


@dataclass(frozen=True, eq=False, repr=False)
class FscQ(Shown):
    """Local resolutions at the atoms of a model.

    Attributes
    ----------
    halves_A : (n,) float64
        Of the half maps with each other; NaN for atoms outside the map.
    model_A : (n,) float64
        Of the map with the model's density.
    """

    halves_A: FloatArray
    model_A: FloatArray

    def __repr__(self) -> str:
        return f"FscQ({len(self.halves_A)} atoms: median {self.median_A:+.2f} A)"

    @property
    def difference_A(self) -> FloatArray:
        """FSC-Q of every atom: above 0 the model explains less than the map shows, below 0 more than it can know."""
        return self.model_A - self.halves_A

    @property
    def relative(self) -> FloatArray:
        """FSC-Q over the local resolution, which can be compared between maps."""
        return self.difference_A / self.halves_A

    @property
    def median_A(self) -> float:
        """Of the atoms inside the map; NaN without any."""
        known = self.difference_A[np.isfinite(self.difference_A)]
        return float(np.median(known)) if known.size else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        known = np.isfinite(self.difference_A)
        low, high = np.quantile(self.difference_A[known], (0.05, 0.95)) if known.any() else (np.nan, np.nan)
        numbers = {"median_A": self.median_A, "q05_A": low, "q95_A": high}
        return {name: round(float(v), 3) if np.isfinite(v) else None for name, v in numbers.items()}


def fsc_q(
    half1: MapLike,
    half2: MapLike,
    atoms: Atoms,
    volume: MapLike | None = None,
    *,
    window_radius_A: float | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> FscQ:
    r"""Hold a model against what the half maps support, atom by atom.

    Two windowed FSCs under one window: of the half maps, read at 0.143, and of the map with the model's density, read
    at 0.5. A model as good as the map is crosses both at one frequency, because the correlation of a map with its
    truth is

    .. math:: C_{ref} = \sqrt{\frac{2 F}{1 + F}}, \qquad C_{ref}(1/7) = 1/2

    so that the difference of the two resolutions, in angstrom, is 0 there.

    Parameters
    ----------
    half1, half2 : Map or path
        Cubes, unfiltered and unmasked.
    atoms : Atoms
        In the maps' frame.
    volume : Map or path, optional
        The map that was modelled; the mean of the half maps if not given. Its sharpening does not matter, masks do.
    window_radius_A : float, optional
        As :func:`local_resolution` has it.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    FscQ

    Raises
    ------
    InputError
        As :func:`local_resolution`, also where no atom lies inside the map; maps of other origins, in one of which the
        model would lie elsewhere.

    References
    ----------
    Ramirez-Aportela et al., Nat. Commun. 12 (2021) 42; Rosenthal and Henderson, J. Mol. Biol. 333 (2003) 721 (C_ref).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import fsc_q
    >>> from verglas.assessment.model_density import model_density
    >>> rng = np.random.default_rng(0)
    >>> xyz, n = rng.uniform(14, 34, (120, 3)), 120
    >>> atoms = vg.types.atoms.Atoms(xyz, *(["C"] * n,) * 2, ["ALA"] * n, ["A"] * n, range(n), [1] * n, [30] * n)
    >>> truth = model_density(atoms, vg.Map(np.zeros((32, 32, 32)), 1.5))
    >>> halves = [truth.with_data(truth.data + 0.4 * truth.data.std() * rng.normal(size=(32, 32, 32))) for _ in "ab"]
    >>> abs(fsc_q(*halves, atoms, listener=None).median_A) < 0.3
    True
    """
    first, second = map_of(half1, "fsc_q: half1"), map_of(half2, "fsc_q: half2")
    whole = first.with_data(0.5 * (first.data + second.data)) if volume is None else map_of(volume, "fsc_q: the map")
    _check_frame(first, second, whole)
    near = near_atoms(atoms, first, _RADIUS_A)
    mask = first.with_data(masks.soft_edge(near, _EDGE_A / first.pixel_size_A))
    common: dict[str, Any] = {"threads": threads, "listener": listener}
    of_halves = local_resolution(first, second, mask, threshold=_HALVES, window_radius_A=window_radius_A, **common)
    density = model_density(atoms, first, threads=threads)
    of_model = local_resolution(
        whole, density, mask, threshold=_MODEL, window_radius_A=of_halves.window_radius_A, **common
    )
    return FscQ(*(sample(local.map, atoms.xyz_A) for local in (of_halves, of_model)))


def _check_frame(first: Map, second: Map, whole: Map) -> None:
    """The model is put into the half maps by their origin, and read from the map by its own."""
    apart_A = float(np.ptp([one.origin_A for one in (first, second, whole)], axis=0).max())
    if apart_A > _APART_PX * first.pixel_size_A:
        raise InputError(
            f"fsc_q: the origins of map and half maps lie {apart_A:.2f} A apart, so that the model would lie elsewhere "
            "in one of them; mend their headers"
        )
