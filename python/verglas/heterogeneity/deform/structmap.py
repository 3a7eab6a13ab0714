"""Distances between maps by how far one must be deformed to become the other, and maps as points at such distances.

In the manner of StructMap (Sorzano et al. 2016, Biophys. J. 110, 1753-1765), with deformations in a Zernike basis in
place of normal modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.heterogeneity.deform.zernike3d import fit_deformation
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, map_of
from verglas.types.display import one_line
from verglas.types.listener import Listener


@one_line
@dataclass(frozen=True, eq=False)
class StructMap:
    """Maps at their elastic distances.

    Attributes
    ----------
    distances_A : (n, n) float64
        Root mean square displacement of the density, mean of both directions; symmetric, 0 on the diagonal.
    correlations : (n, n) float64
        Of map j with map i deformed to it: below, what no deformation explains.
    coordinates_A : (n, d) float64
        Places whose distances are these as nearly as can be (multidimensional scaling), centred, the first axis the
        longest.
    stress : float
        Square root of the squared misfit of distances on their squared sum: 0 is exact.
    """

    distances_A: FloatArray
    correlations: FloatArray
    coordinates_A: FloatArray
    stress: float


def structmap(
    maps: Sequence[MapLike], *, dimensions: int = 2, degree: int = 3, listener: Listener | None = None, **fit: Any
) -> StructMap:
    """Elastic distances of maps from each other, and their embedding.

    Parameters
    ----------
    maps : sequence of Map or path
        Three or more, on one grid, laid on each other (a rigid motion counts as a displacement).
    dimensions : int
        Of the embedding.
    degree : int
        Of the deformations.
    listener : Listener, optional
        Who is told how many pairs of maps are done.
    **fit
        What :func:`verglas.heterogeneity.deform.fit_deformation` takes besides: ``diameter_A``, ``resolutions_A``.

    Raises
    ------
    InputError
        Fewer than three maps, more dimensions than maps less one.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity.deform import structmap
    >>> model = vg.simulate.phantom(16, 8.0, 90.0)
    >>> maps = [vg.simulate.density(vg.simulate.hinge(model, a), 16, 8.0) for a in (0, 10, 20)]
    >>> made = structmap(maps, dimensions=1, degree=2, resolutions_A=[25.0])
    >>> bool(made.distances_A[0, 2] > made.distances_A[0, 1] > 0)
    True
    """
    volumes = [map_of(one, f"structmap: map {number}") for number, one in enumerate(maps, 1)]
    n = len(volumes)
    if n < 3:
        raise InputError(f"structmap: {n} maps; three or more have distances to compare")
    if not 1 <= dimensions < n:
        raise InputError(f"structmap: {dimensions} dimensions of {n} maps; expected 1 to {n - 1}")
    one_way, correlations = np.zeros((n, n)), np.eye(n)
    pairs = list(permutations(range(n), 2))
    for done, (i, j) in enumerate(pairs, 1):
        made = fit_deformation(volumes[i], volumes[j], degree=degree, **fit)
        field = made.field_A(volumes[j].box, volumes[j].pixel_size_A)
        density = np.clip(volumes[j].data, 0, None).astype(np.float64)
        one_way[i, j] = np.sqrt(np.average(np.square(field).sum(axis=-1), weights=density))
        correlations[i, j] = made.correlation
        if listener is not None:
            listener.progress("pairs of maps", done, len(pairs))
    distances = (one_way + one_way.T) / 2
    coordinates, stress = embed(distances, dimensions)
    return StructMap(distances, correlations, coordinates, stress)


def embed(distances: FloatArray, dimensions: int) -> tuple[FloatArray, float]:
    """Places at these distances, and the stress: scikit-learn's SMACOF, from the classical solution.

    Parameters
    ----------
    distances : (n, n) float64
    dimensions : int

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.deform.structmap import embed
    >>> x = np.array([0.0, 1.0, 3.0])
    >>> places, stress = embed(abs(x[:, None] - x), 1)
    >>> np.abs(np.diff(places[:, 0])).round(3).tolist(), round(stress, 3)
    ([1.0, 2.0], 0.0)
    """
    from sklearn.manifold import smacof  # takes a second to load

    n = len(distances)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ np.square(distances) @ centring)
    start = vectors[:, ::-1][:, :dimensions] * np.sqrt(np.maximum(values[::-1][:dimensions], 0))
    places = smacof(distances, metric=True, n_components=dimensions, init=start, n_init=1, normalized_stress=False)[0]
    places = places - places.mean(axis=0)
    _, _, axes = np.linalg.svd(places, full_matrices=False)
    places = places @ axes.T
    embedded = np.linalg.norm(places[:, None] - places[None], axis=2)
    stress = np.sqrt(np.square(embedded - distances).sum() / max(float(np.square(distances).sum()), 1e-30))
    return places, float(stress)
