"""Pictures to judge the CTF of a micrograph by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from verglas import ops
from verglas.optics.fit import CtfFit
from verglas.optics.fit.curves import chi_turns
from verglas.report.style import COLOURS, FAINT, INK, new_figure, png, style_context
from verglas.types.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_DPI = 90  # one picture per micrograph: 100 kB each rather than 400
_ANGLE_DEG, _MEAN_OF = 1.5, 16  # step of the polar grid, and how many steps are averaged


def halves(fit: CtfFit) -> FloatArray:
    """Measured spectrum on the left, model on the right, both 0 without and 1 on the top of a ring.

    The background is taken off, the rings are brought to one height, and the measured half is averaged over 24 degrees
    along the rings; frequency 0 is in the middle, ky downwards. Outside the band the picture is 0.5.

    Returns
    -------
    (n, n) float64
    """
    band, tile = fit.spectra.band, fit.spectra.band.tile
    reach = int(band.high / band.step)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius = np.hypot(x, y) * band.step
    # the half transform holds kx >= 0; a power spectrum is its own mirror image
    sign = np.where(x < 0, -1, 1)
    rows, columns = (sign * y) % tile, np.abs(x)
    flat = map_coordinates(
        _along_rings(fit, reach),
        [np.hypot(x, y), np.rad2deg(np.arctan2(y, x)) % 180 / _ANGLE_DEG],
        order=1,
        mode="grid-wrap",
    )
    model = ops.ctf(fit.optics.as_params(), tile, band.pixel_size_A)[0].astype(np.float64) ** 2
    out = np.where(x < 0, flat, model[rows, columns])
    out[(radius < band.low) | (radius > band.high)] = 0.5
    return out


def _along_rings(fit: CtfFit, reach: int) -> FloatArray:
    """Flattened spectrum on a polar grid (Fourier pixels, angles of half a turn), averaged over angles."""
    band = fit.spectra.band
    r = np.arange(reach + 2, dtype=np.float64)
    angle = np.deg2rad(np.arange(0, 180, _ANGLE_DEG))
    # full plane from the half transform, origin in the middle of the rows
    half = np.fft.fftshift(fit.spectra.mean, axes=0).astype(np.float64)
    dx, dy = r[:, None] * np.cos(angle), r[:, None] * np.sin(angle)
    flip = np.where(dx < 0, -1, 1)
    sampled = map_coordinates(half, [half.shape[0] // 2 + flip * dy, flip * dx], order=1, mode="nearest")
    k = np.clip(r * band.step, band.low, band.high)
    background = fit.envelopes.background(k)
    flat = (sampled - background[:, None]) / _height(fit, k)[:, None]
    return uniform_filter1d(flat, _MEAN_OF, axis=1, mode="wrap")


def _height(fit: CtfFit, k: FloatArray) -> FloatArray:
    """Ring amplitude to divide by; where no ring is left, the noise is not blown up."""
    amplitude = fit.envelopes.amplitude(k)
    return np.maximum(amplitude, 0.03 * fit.envelopes.background(k) + 0.02 * amplitude.max())


def ctf_figure(fit: CtfFit) -> bytes:
    """Spectrum half measured, half model; equiphase average, model and local correlation over frequency; as a PNG.

    Parameters
    ----------
    fit : CtfFit
    """
    with style_context():
        figure = new_figure(8.6, 3.3)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.75))
        left.imshow(halves(fit), cmap="gray", vmin=-0.4, vmax=1.4, interpolation="bilinear")
        left.set_axis_off()
        left.text(0.02, 0.02, "measured", transform=left.transAxes, fontsize=8, color="white")
        left.text(0.98, 0.02, "model", transform=left.transAxes, fontsize=8, color="white", ha="right")
        _curves(right, fit)
        figure.suptitle(_title(fit), fontsize=9, color=COLOURS[1] if fit.reason else INK)
        return png(figure, _DPI)


def _curves(axes: Axes, fit: CtfFit) -> None:
    k, rings = fit.rings.k, fit.rings
    axes.plot(k, np.sin(2 * np.pi * chi_turns(fit.optics, k)) ** 2, color=FAINT, lw=1.2, label="CTF²")
    shown = np.clip((rings.power - fit.envelopes.background(k)) / _height(fit, k), -0.6, 1.6)
    axes.plot(k, shown, color=COLOURS[0], lw=1.2, label="equiphase average")
    axes.plot(k, fit.local_correlation, color=COLOURS[2], lw=1.2, label="local correlation")
    axes.axhline(0.5, color=FAINT, lw=0.7, ls=(0, (4, 3)))
    if np.isfinite(fit.resolution_A):
        axes.axvline(1 / fit.resolution_A, color=COLOURS[1], lw=1.2)
    axes.set_xlim(k[0], k[-1])
    axes.set_ylim(-0.65, 1.95)
    ticks = np.linspace(k[0], k[-1], 6)
    axes.set_xticks(ticks, [f"{1 / t:.1f}" for t in ticks])
    axes.set_xlabel("resolution (Å)")
    axes.legend(loc="upper center", ncols=3, fontsize=8)


def _title(fit: CtfFit) -> str:
    o = fit.optics
    text = (
        f"{fit.name}   defocus {o.defocus_u_A[0]:.0f}, {o.defocus_v_A[0]:.0f} Å at {o.defocus_angle_deg[0]:.0f}°   "
        f"merit {fit.merit:.2f}   rings to {fit.resolution_A:.1f} Å"
    )
    if o.phase_shift_deg[0]:
        text += f"   phase shift {o.phase_shift_deg[0]:.0f}°"
    if fit.gradient.any():
        text += f"   tilt {fit.tilt_deg:.1f}°"
    return text + (f"\n{fit.reason}" if fit.reason else "")
