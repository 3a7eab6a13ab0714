"""A batch of images as every search takes it: pixels on a device, and what is known of each on the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import array_module, on_device
from verglas.search.grid_search import PolarBatch, Where
from verglas.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class ImageBatch:
    """Some images with all that scores and sums need; the one batch of every search.

    Attributes
    ----------
    rows : (m,) int64
        Which particles.
    images : (m, N, N) float32
        On the device that works on them; all else is small and on the host.
    params : (m, 14) float64, optional
        CTF parameters, the micrograph's scale included; without, the CTF is 1.
    inv_sigma2 : (m, shells) float32 or float64
        1 / noise variance by shell.
    origin_px : (m, 2) float64
        Present shifts, as in a STAR file, around which is searched.
    pixel_size_A : float
        For the CTF.
    where : Where
        The device and the threads that polar samples are made with.
    """

    rows: IntArray
    images: npt.NDArray[np.float32]
    params: FloatArray | None
    inv_sigma2: npt.NDArray[np.floating]
    origin_px: FloatArray
    pixel_size_A: float
    where: Where = field(default_factory=Where)
    _samples: dict[tuple[int, int, int], npt.NDArray[np.complex64]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.rows)

    def samples(self, polar: ops.PolarGrid, at: IntArray | None = None) -> npt.NDArray[np.complex64]:
        """Polar samples of the images as they are, or of some of them; made at the first use of a grid and kept."""
        # Two grids may end at one radius with other rings: the layout of the samples is the key.
        key = (polar.radius, polar.n_rings, polar.n_theta)
        if key not in self._samples:
            self._samples[key] = ops.polar(self.images, polar, **self.where.of_ops)
        every = self._samples[key]
        return every if at is None else every[array_module(every).asarray(at)]

    def ring_weights(self, polar: ops.PolarGrid) -> npt.NDArray[np.float32]:
        """1 / sigma2 on each ring, (m, n_rings)."""
        return np.ascontiguousarray(self.inv_sigma2[:, polar.shells], np.float32)

    def per_image(self, polar: ops.PolarGrid, at: IntArray) -> dict[str, Any]:
        """Keyword arguments of the score ops for some of the images."""
        return {
            "ctf": None if self.params is None else self.params[at],
            "pixel_size_A": self.pixel_size_A,
            "inv_sigma2": self.ring_weights(polar)[at],
            "threads": self.where.threads,
        }

    def ctf(self, **of_ops: Any) -> npt.NDArray[np.float32]:
        """The CTF of every image, half transforms, (m, N, N // 2 + 1); ``of_ops``: device and threads."""
        assert self.params is not None, "images of a reconstruction have CTF parameters"
        return ops.ctf(self.params, self.images.shape[-1], self.pixel_size_A, **of_ops)

    def on_rings(self, samples: npt.NDArray, polar: ops.PolarGrid, *, centres: bool = False) -> PolarBatch:
        """Polar samples of these images with what else their model needs; with ``centres``, of images not centred."""
        return PolarBatch(
            samples,
            self.ring_weights(polar),
            self.params,
            self.pixel_size_A,
            self.centre_px.astype(np.float32) if centres else None,
            int(self.rows[0]),
        )

    @cached_property
    def centre_px(self) -> FloatArray:
        """Present shifts, rounded to whole pixels."""
        return np.rint(self.origin_px)

    def apply_mask(self, mask: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Images inside a mask that stands where the particle is."""
        if on_device(self.images):
            rows, columns = self._roll_indices(-self.centre_px)
            return self.images * array_module(self.images).asarray(mask)[rows, columns]
        out = np.empty_like(self.images)
        for image, (x, y), target in zip(self.images, self.centre_px.astype(int), out, strict=True):
            np.multiply(image, np.roll(mask, (-y, -x), (0, 1)), out=target)
        return out

    def centre_images(self, mask: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Images moved by ``centre_px``, then masked."""
        if on_device(self.images):
            xp = array_module(self.images)
            rows, columns = self._roll_indices(self.centre_px)
            return self.images[xp.arange(len(self))[:, None, None], rows, columns] * xp.asarray(mask)
        out = np.empty_like(self.images)
        for image, (x, y), target in zip(self.images, self.centre_px.astype(int), out, strict=True):
            np.multiply(np.roll(image, (y, x), (0, 1)), mask, out=target)
        return out

    def _roll_indices(self, by_px: FloatArray) -> tuple[npt.NDArray, npt.NDArray]:
        """Rows and columns, as indices on the device, that move every image by whole pixels (x, y), as np.roll does."""
        xp, n = array_module(self.images), self.images.shape[-1]
        x, y = ((np.arange(n) - by_px[:, i].astype(np.int64)[:, None]) % n for i in range(2))
        return xp.asarray(y)[:, :, None], xp.asarray(x)[:, None, :]
