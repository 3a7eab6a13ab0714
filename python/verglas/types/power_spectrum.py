"""Mean power spectrum of the tiles of an image, as a CTF fit takes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.display import one_line


@one_line
@dataclass(frozen=True, eq=False)
class PowerSpectrum:
    """Mean power of tiles under a window.

    Attributes
    ----------
    power : (n, n // 2 + 1) float32
        Half transform of tiles of n x n pixels, frequency 0 first.
    pixel_size_A : float
        Of the tiles.
    tiles : int
        How many were averaged, each of power 1 in the band of the fit.

    Raises
    ------
    InputError
        Another shape, a negative power or one that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.power_spectrum import PowerSpectrum
    >>> PowerSpectrum(np.ones((64, 33)), 1.5, 20).side
    64
    """

    power: npt.NDArray[np.float32]
    pixel_size_A: float
    tiles: int

    def __post_init__(self) -> None:
        """Check once."""
        power = np.ascontiguousarray(self.power, np.float32)
        if power.ndim != 2 or len(power) < 64 or power.shape[1] != len(power) // 2 + 1:
            raise InputError(f"power spectrum: expected (n, n // 2 + 1) with n of 64 or more, got shape {power.shape}")
        if not np.isfinite(power).all() or (power < 0).any():
            raise InputError("power spectrum: a value is negative or not finite")
        if not 0 < self.pixel_size_A < np.inf or self.tiles < 1:
            raise InputError(
                f"power spectrum: expected a positive pixel size and a tile or more, got {self.pixel_size_A:g} A and "
                f"{self.tiles} tiles"
            )
        object.__setattr__(self, "power", power)

    @property
    def side(self) -> int:
        """Side n of the tiles in pixels."""
        return len(self.power)

    def centred_amplitude(self) -> npt.NDArray[np.float32]:
        """Square root of the power of the whole plane, frequency 0 at pixel (n // 2, n // 2): (n, n) float32."""
        n = self.side
        amplitude = np.sqrt(self.power)
        whole = np.empty((n, n), np.float32)
        whole[:, : n // 2 + 1] = amplitude
        # the other half is the mirror image through the origin: row -y, column -x
        rest = np.arange(n // 2 + 1, n)
        whole[:, rest] = amplitude[-np.arange(n) % n][:, n - rest]
        return np.asarray(np.fft.fftshift(whole), np.float32)
