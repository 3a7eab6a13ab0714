"""A posterior over poses, as the M-step takes it: candidates of all images end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.ops._device import as_array
from verglas.ops.score import Scores, psi_angles_deg
from verglas.types.arrays import FloatArray


@dataclass(frozen=True)
class Posterior:
    """Posterior over poses of a batch of images, as candidates end to end.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Candidates of image i are ``offsets[i]:offsets[i + 1]`` of the arrays below; an image may have none.
    slice : (candidates,) int32
        Slice, of one or of several references end to end.
    opposite : (candidates,) bool
        Whether the opposite of the slice is meant: direction (rot + 180, 180 - tilt).
    psi_deg : (candidates,) float64
        In-plane angle, any value.
    shift : (candidates,) int32
        Row of the table of shifts.
    weight : (candidates,) float64
        Posterior probability, >= 0.

    Raises
    ------
    InputError
        Lengths disagree, or a weight is negative or not finite; the message names the image.

    Examples
    --------
    >>> from verglas import ops
    >>> p = ops.Posterior.from_lists(2, image=[1, 0, 1], slice=[4, 4, 7], psi_deg=[0, 30, 90])
    >>> p.offsets.tolist(), p.slice.tolist(), p.weight.tolist()
    ([0, 1, 3], [4, 4, 7], [1.0, 1.0, 1.0])
    """

    offsets: npt.NDArray[np.int64]
    slice: npt.NDArray[np.int32]
    opposite: npt.NDArray[np.bool_]
    psi_deg: FloatArray
    shift: npt.NDArray[np.int32]
    weight: FloatArray

    def __post_init__(self) -> None:
        """Fix the dtypes and check once."""
        dtypes = {
            "offsets": np.int64,
            "slice": np.int32,
            "opposite": np.bool_,
            "psi_deg": np.float64,
            "shift": np.int32,
            "weight": np.float64,
        }
        for name, dtype in dtypes.items():
            object.__setattr__(self, name, as_array(getattr(self, name), dtype))
        total = int(self.offsets[-1]) if self.offsets.size else 0
        for name in ("slice", "opposite", "psi_deg", "shift", "weight"):
            if getattr(self, name).shape != (total,):
                raise InputError(
                    f"Posterior: {name}: expected {total} candidates as the offsets say, got shape "
                    f"{getattr(self, name).shape}"
                )
        bad = np.flatnonzero(~(np.isfinite(self.weight) & (self.weight >= 0) & np.isfinite(self.psi_deg)))
        if bad.size:
            raise InputError(
                f"Posterior: image {self.image[bad[0]]}, candidate {bad[0]}: expected a finite angle and a weight "
                f">= 0, got psi {self.psi_deg[bad[0]]}, weight {self.weight[bad[0]]}"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def image(self) -> npt.NDArray[np.int64]:
        """Image that each candidate belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @classmethod
    def from_lists(
        cls,
        n: int,
        image: npt.ArrayLike,
        slice: npt.ArrayLike,
        psi_deg: npt.ArrayLike,
        *,
        opposite: npt.ArrayLike | None = None,
        shift: npt.ArrayLike | None = None,
        weight: npt.ArrayLike | None = None,
    ) -> Posterior:
        """From candidates of ``n`` images in any order; not opposite, shift 0 and weight 1 by default."""
        images = np.asarray(image, np.int64)
        if images.size and not (images.min() >= 0 and images.max() < n):
            raise InputError(f"Posterior: image: expected 0 to {n - 1}, got {images.min()} to {images.max()}")
        # Stable: an image's candidates stay in the order given, in which their float sums are made.
        order = np.argsort(images, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(images, minlength=n))])

        def take(value: npt.ArrayLike | None, default: float) -> npt.NDArray:
            return np.full(len(order), default) if value is None else np.asarray(value)[order]

        return cls(
            offsets,
            take(slice, 0),
            take(opposite, 0).astype(bool),
            take(psi_deg, 0).astype(np.float64),
            take(shift, 0),
            take(weight, 1).astype(np.float64),
        )

    @classmethod
    def from_scores(cls, scores: Scores, n_psi: int) -> Posterior:
        """From a search at ``n_psi`` angles: the candidates' probabilities, made to sum to one for every image."""
        weight: FloatArray = np.asarray(scores.probability, np.float64)
        image = np.repeat(np.arange(len(scores.offsets) - 1), np.diff(scores.offsets))
        total = np.bincount(image, weight, minlength=len(scores.offsets) - 1)
        psi_deg = psi_angles_deg(n_psi)[scores.psi]
        return cls(scores.offsets, scores.slice, scores.opposite, psi_deg, scores.shift, weight / total[image])
