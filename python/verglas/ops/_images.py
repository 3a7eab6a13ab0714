"""What the ops on polar samples know of a batch of images, brought to the kernels' dtypes and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas._array_module import array_module
from verglas.ops._device import as_array, optics_rows, refuse_non_finite
from verglas.ops.polar import PolarGrid

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession


@dataclass(frozen=True)
class PolarImages:
    """Samples of n images on the rings of a grid, and their noise, optics and centres; on the host or on a device.

    Attributes
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
    inv_sigma2 : (n, n_rings) float32
    ctf : (n, 14) float64 or None
    centres_px : (n, 2) float32 or None
    """

    samples: Any
    inv_sigma2: Any
    ctf: Any = None
    centres_px: Any = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: slice) -> PolarImages:
        part = [None if a is None else a[rows] for a in (self.samples, self.inv_sigma2, self.ctf, self.centres_px)]
        return PolarImages(*part)

    @classmethod
    def of(
        cls,
        grid: PolarGrid,
        samples: Any,
        *,
        inv_sigma2: Any = None,
        ctf: Any = None,
        centres_px: Any = None,
        cuda: CudaSession | None = None,
    ) -> PolarImages:
        """As an op's caller gave them: ``inv_sigma2`` is 1 without, or (n_rings,), or (n, n_rings).

        With ``cuda`` on its device, wherever they were; inside ``cuda.active()``.
        """
        array = as_array if cuda is None else cuda.array
        x = array(samples, np.complex64)
        inverse = array(np.float32(1) if inv_sigma2 is None else inv_sigma2, np.float32)
        return cls(
            x,
            array(array_module(x).broadcast_to(inverse, (len(x), grid.n_rings)), np.float32),
            None if ctf is None else optics_rows(ctf, array),
            None if centres_px is None else array(centres_px, np.float32),
        )

    def refuse_non_finite(self, op: str, first_particle: int) -> None:
        """Refuse NaN and infinity, naming the particle and what of it."""
        named = {"image": self.samples, "noise spectrum": self.inv_sigma2, "CTF": self.ctf, "shift": self.centres_px}
        for what, array in named.items():
            if array is not None:
                refuse_non_finite(array, f"{op}: particle {{}}: its {what}", first_particle)
