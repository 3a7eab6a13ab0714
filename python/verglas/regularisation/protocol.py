"""What a prior is: it learns from the half maps and their FSC, then makes the map of one half set at a time.

The two steps keep the half sets apart. What :meth:`Prior.fit` learns has to be the same whichever half is called the
first, and has to hold no phases: a curve, or a field of correlations. The regulariser that it returns is given the sums
of one half set (or of both, for the final map) and never sees the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from verglas import fourier
from verglas.assessment import ssnr_from_fsc
from verglas.errors import InputError
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray

_RESOLVED = 0.143
FSC_MOST = 0.999  # an FSC of 1 would leave out the prior altogether


@dataclass(frozen=True, eq=False)
class HalfMaps:
    """What a prior is told of a class.

    Attributes
    ----------
    raw : (2, N, N, N) float32
        Half maps, neither filtered, nor masked, nor joined.
    fsc : (radius + 1,) float64
        Between them, in the mask in use.
    radius : int
        Last shell with data.
    T : float
        Factor of the prior's variance.
    mask : (N, N, N) float32
        Where the molecule may be: the solvent mask, or the sphere.
    threads : int, optional
    pixel_size_A : float
    iteration, class_number : int
        Of the refinement; for names of files.
    """

    raw: Float32Array
    fsc: FloatArray
    radius: int
    T: float
    mask: Float32Array
    threads: int | None = None
    pixel_size_A: float = 1.0
    iteration: int = 0
    class_number: int = 0

    @property
    def box(self) -> int:
        """N."""
        return self.raw.shape[-1]

    @property
    def ssnr(self) -> FloatArray:
        """T FSC / (1 - FSC): of one half map, shells 0 to the last with data."""
        return self.T * ssnr_from_fsc(np.minimum(self.fsc, FSC_MOST))

    @property
    def resolved_shell(self) -> int:
        """Last shell before the FSC first falls below 0.143; that of the data if it does not."""
        below = np.flatnonzero(self.fsc[1:] < _RESOLVED)
        return int(below[0]) if below.size else self.radius

    @cached_property
    def spectra(self) -> list[Complex64Array]:
        """Phase-centred half transforms of the half maps."""
        return [fourier.forward(one, 3, threads=self.threads) for one in self.raw]


def no_weights() -> FloatArray:
    """Of maps without sums."""
    raise InputError("this map comes without the weights of its sums")


@dataclass(frozen=True, eq=False)
class MapSource:
    """The sums of one half set, or of both.

    Attributes
    ----------
    name : str
        ``"half1"``, ``"half2"`` or ``"both"``.
    half_sets : int
        How many half sets are in the sums: noise has 1 / half_sets of the power that it has in one.
    raw : (N, N, N) float32
        Their map without regularisation.
    solve : callable
        The map regularised by the SSNR of each shell, (radius + 1,) -> (N, N, N): Wiener's filter with the weight of
        every Fourier voxel (:func:`verglas.reconstruction.sums.solve`).
    weights : callable
        The weights of the padded transform, in the layout of a real FFT, (P, P, P // 2 + 1)
        (:func:`verglas.reconstruction.direct.fft_weights`).
    """

    name: str
    half_sets: int
    raw: Float32Array
    solve: Callable[[FloatArray], Float32Array]
    weights: Callable[[], FloatArray] = no_weights


class Regulariser(Protocol):
    """Makes the regularised map from sums; called for each half set alone."""

    def __call__(self, source: MapSource) -> Float32Array:
        """The map, (N, N, N) float32."""


class Prior(Protocol):
    """What is believed of maps before the data are seen.

    Attributes
    ----------
    name : str
        As ``regularisation`` names it.
    """

    @property
    def name(self) -> str:
        """As ``regularisation`` names it."""

    def fit(self, given: HalfMaps) -> Regulariser:
        """Learn from both halves what is symmetric in them and holds no phases."""


@dataclass(frozen=True)
class Wiener:
    r"""One SSNR for each shell, from the FSC of the whole map: Gaussian Fourier coefficients (Scheres 2012).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.regularisation import HalfMaps, MapSource, Wiener
    >>> flat = np.ones((2, 8, 8, 8), np.float32)
    >>> given = HalfMaps(flat, np.full(4, 0.5), radius=3, T=1.0, mask=flat[0])
    >>> told = []
    >>> made = Wiener().fit(given)(MapSource("half1", 1, flat[0], lambda ssnr: (told.append(ssnr), flat[0])[1]))
    >>> told[0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    name: str = "global"

    def fit(self, given: HalfMaps) -> Regulariser:
        """The SSNR of every shell."""
        ssnr = given.ssnr
        return lambda source: source.solve(source.half_sets * ssnr)
