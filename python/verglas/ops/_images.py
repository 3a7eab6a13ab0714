"""What the ops on polar samples know of a batch of images, brought to the kernels' dtypes and checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.ops._device import as_array, refuse_non_finite
from verglas.ops.polar import PolarGrid


@dataclass(frozen=True)
class PolarImages:
    """Samples of n images on the rings of a grid, and their noise, optics and centres.

    Attributes
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
    inv_sigma2 : (n, n_rings) float32
    ctf : (n, 9) float64 or None
    centres_px : (n, 2) float32 or None
    """

    samples: npt.NDArray[np.complex64]
    inv_sigma2: npt.NDArray[np.float32]
    ctf: npt.NDArray[np.float64] | None = None
    centres_px: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def of(
        cls, grid: PolarGrid, samples: npt.ArrayLike, *, inv_sigma2: npt.ArrayLike | None = None,
        ctf: npt.ArrayLike | None = None, centres_px: npt.ArrayLike | None = None,
    ) -> PolarImages:  # fmt: skip
        """As an op's caller gave them: ``inv_sigma2`` is 1 without, or (n_rings,), or (n, n_rings)."""
        x = as_array(samples, np.complex64)
        inverse = np.float32(1) if inv_sigma2 is None else np.asarray(inv_sigma2, np.float32)
        return cls(
            x, as_array(np.broadcast_to(inverse, (len(x), grid.n_rings)), np.float32),
            None if ctf is None else as_array(ctf, np.float64),
            None if centres_px is None else as_array(centres_px, np.float32),
        )  # fmt: skip

    def refuse_non_finite(self, op: str, first_particle: int) -> None:
        """Refuse NaN and infinity, naming the particle and what of it."""
        named = {"image": self.samples, "noise spectrum": self.inv_sigma2, "CTF": self.ctf, "shift": self.centres_px}
        for what, array in named.items():
            if array is not None:
                refuse_non_finite(array, f"{op}: particle {{}}: its {what}", first_particle)
