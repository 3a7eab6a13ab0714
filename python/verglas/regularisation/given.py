"""A prior that others bring along: a function, or a program, from a half map to a better one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.regularisation.protocol import HalfMaps, MapSource, Prior, Regulariser, Wiener
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

Denoiser = Callable[[Map, FloatArray], npt.ArrayLike]  # half map, its FSC with the other -> map
_EDGE = 2  # shells


@dataclass(frozen=True)
class DenoisedBy:
    """The prior that a function stands for, called for each half map alone.

    What it makes of shells that the half maps do not agree on (FSC below 0.143) is not taken: there the map is that of
    the global prior, so that details which it adds by itself cannot become references.

    Attributes
    ----------
    function : callable
        Takes a :class:`verglas.Map`, neither filtered nor masked, and the FSC, (radius + 1,); returns an array of the
        map's shape.
    name : str
        As runs record it.

    Examples
    --------
    >>> from verglas.regularisation import DenoisedBy
    >>> DenoisedBy(lambda half, fsc: 0.5 * half.data, "half of it").name
    'half of it'
    """

    function: Denoiser
    name: str

    def fit(self, given: HalfMaps) -> Regulariser:
        """The FSC."""
        plain = Wiener().fit(given)

        def regularise(source: MapSource) -> Float32Array:
            # A copy: what works in place would change the half map that is written, and the mean of both.
            half = Map(source.raw.copy(), given.pixel_size_A)
            made = checked_map(self.function(half, given.fsc.copy()), half.data.shape, f"the prior {self.name}")
            return join_maps(made, plain(source), given)

        return regularise


def checked_map(values: npt.ArrayLike, shape: tuple[int, ...], who: str) -> Float32Array:
    """What was given back as a map, or a sentence on why it is none.

    Raises
    ------
    InputError
        No numbers, another shape, or some that are not finite.
    """
    data = values.data if isinstance(values, Map) else values
    try:
        made = np.asarray(data)
        if np.iscomplexobj(made):
            raise TypeError("complex numbers")
        made = made.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that still has its gradient
        raise InputError(f"refine: {who} gave back {type(values).__name__}; expected an array ({error})") from error
    if made.shape != shape:
        raise InputError(f"refine: {who} gave back a map of shape {made.shape}; expected {shape}, as it was given")
    if bad := int(np.count_nonzero(~np.isfinite(made))):
        raise InputError(f"refine: {who} gave back a map with {bad} voxels that are not finite numbers")
    return made


def join_maps(made: Float32Array, plain: Float32Array, given: HalfMaps) -> Float32Array:
    """A map up to the resolution of the half maps, another beyond it."""
    radius = fourier.radius(made.shape)
    share = fourier.raised_cosine(radius - (given.resolved_shell - _EDGE), _EDGE)
    spectra = [fourier.forward(one, 3, threads=given.threads) for one in (made, plain)]
    mixed = (share * spectra[0] + (1 - share) * spectra[1]).astype(np.complex64)
    return np.asarray(fourier.inverse(mixed, made.shape, threads=given.threads), np.float32)


def prior_of(given: Prior | Denoiser) -> Prior:
    """A caller's prior: with a ``fit`` as it is, another callable as :class:`DenoisedBy`.

    Raises
    ------
    InputError
        Neither.
    """
    if hasattr(given, "fit") and hasattr(given, "name"):
        return given
    if callable(given):
        # An object that can be called goes by its class.
        named = given if hasattr(given, "__qualname__") else type(given)
        return DenoisedBy(given, f"{named.__module__}.{named.__qualname__}")
    raise InputError(
        f"refine: prior: expected a function of a half map and its FSC, or an object with name and fit, got "
        f"{type(given).__name__}"
    )
