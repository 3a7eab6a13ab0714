"""Which hand of a map fits another: Fourier shell correlation with the map and with its mirror image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import FSC, fsc
from verglas.errors import InputError
from verglas.io import read_map
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps
from verglas.types import Map
from verglas.types.convert import MapLike, map_of


@dataclass(frozen=True)
class TwoHands:
    """A map beside another and beside its mirror image.

    Attributes
    ----------
    as_given, mirrored : FSC
        With the first map, of the second one turned onto it, and of its mirror image turned onto it.
    correlation_as_given, correlation_mirrored : float
        Of the turned maps over the shells that turned them.
    """

    as_given: FSC
    mirrored: FSC
    correlation_as_given: float
    correlation_mirrored: float

    @property
    def same_hand(self) -> bool:
        """Whether the map as it is fits better, by the mean FSC of all shells but the first."""
        return self.margin > 0

    @property
    def margin(self) -> float:
        """Mean FSC of the map as it is less that of its mirror image; near 0 both fit alike, and nothing is known."""
        return float(np.mean(self.as_given.curve[1:]) - np.mean(self.mirrored.curve[1:]))

    @property
    def is_decided(self) -> bool:
        r"""Whether the margin exceeds chance: twice :math:`\sqrt{\sum_k 2 / n_k} / K` of K shells of n_k voxels."""
        counts = self.as_given.counts[1:]
        return abs(self.margin) > 2 * float(np.sqrt((2 / counts).sum())) / len(counts)


def fsc_of_hands(
    first: MapLike, second: MapLike, *, max_radius: int | None = None, threads: int | None = None
) -> TwoHands:
    """Fourier shell correlation of a map with another one in both hands, each turned onto it first.

    Parameters
    ----------
    first, second : Map
        Cubes of one box and pixel size, centred: nothing is shifted.
    max_radius : int, optional
        Last shell that turns the maps; a quarter of the box by default. The FSC is that of all shells.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    TwoHands

    Raises
    ------
    InputError
        The boxes or pixel sizes differ.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.run.hands import fsc_of_hands
    >>> m = vg.simulate.density(vg.simulate.phantom(24, 4.0, 70.0), 24, 4.0)
    >>> other = vg.Map(vg.map_geometry.flip_hand(m.data), 4.0)
    >>> fsc_of_hands(m, other, threads=1).same_hand
    False
    """
    one, two = map_of(first, "fsc: the first map"), map_of(second, "fsc: the second map")
    if abs(one.pixel_size_A / two.pixel_size_A - 1) > 1e-3:
        raise InputError(f"fsc: pixel sizes of {one.pixel_size_A:g} and {two.pixel_size_A:g} A: resample one")
    made = []
    for volume in (two.data.astype(np.float32), flip_hand(two.data.astype(np.float32))):
        aligned = align_maps(one, Map(volume, two.pixel_size_A), max_radius=max_radius, threads=threads)
        made.append((fsc(one, aligned.map), aligned.correlation))
    (as_given, near), (mirrored, far) = made
    return TwoHands(as_given, mirrored, near, far)


def fsc_of_hands_files(
    first: Path, second: Path, pixel_size_A: float | None = None, *, listener: ListenerChoice = "screen"
) -> TwoHands:
    """:func:`fsc_of_hands` of two map files."""
    with shown_to(listener) as heard:
        heard.progress("fsc of both hands", 0, 1)
        made = fsc_of_hands(read_map(first, pixel_size_A), read_map(second, pixel_size_A))
        heard.progress("fsc of both hands", 1, 1)
    return made
