"""Pictures and curves to judge the CTF of a micrograph by."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from verglas import ops
from verglas.optics.fit import CtfFit
from verglas.optics.fit.curves import chi_turns
from verglas.report.chart import Chart, Line, Series, round_or_none
from verglas.report.grey import bin_to
from verglas.report.style import COLOURS, FAINT, INK, new_figure, png, style_context
from verglas.types.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_DPI = 90  # one picture per micrograph: 100 kB each rather than 400
_SPECTRUM_PX = 260  # longest side of the spectrum in a page
_SHOWN = (-0.6, 1.6)  # where the equiphase average is cut: noise beyond the last ring would set the scale
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
    k = fit.rings.k
    axes.plot(k, _squared_ctf(fit), color=FAINT, lw=1.2, label="CTF²")
    axes.plot(k, _flat_average(fit), color=COLOURS[0], lw=1.2, label="equiphase average")
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


def _squared_ctf(fit: CtfFit) -> FloatArray:
    return np.asarray(np.sin(2 * np.pi * chi_turns(fit.optics, fit.rings.k)) ** 2)


def _flat_average(fit: CtfFit) -> FloatArray:
    k = fit.rings.k
    return np.clip((fit.rings.power - fit.envelopes.background(k)) / _height(fit, k), *_SHOWN)


def _title(fit: CtfFit) -> str:
    return f"{fit.name}   {_facts(fit)}" + (f"\n{fit.reason}" if fit.reason else "")


def _facts(fit: CtfFit) -> str:
    o = fit.optics
    text = (
        f"defocus {o.defocus_u_A[0]:.0f}, {o.defocus_v_A[0]:.0f} Å at {o.defocus_angle_deg[0]:.0f}°   "
        f"merit {fit.merit:.2f}   rings to {fit.resolution_A:.1f} Å"
    )
    if o.phase_shift_deg[0]:
        text += f"   phase shift {o.phase_shift_deg[0]:.0f}°"
    if fit.gradient.any():
        text += f"   tilt {fit.tilt_deg:.1f}°"
    return text


@dataclass(frozen=True)
class ShownCtf:
    """What a page shows of the CTF of one micrograph, small enough to be kept of all.

    Attributes
    ----------
    name, facts : str
        Of the micrograph; defocus, merit and where the rings end.
    curves : mapping of str -> (n,) float64
        Equiphase average, squared CTF and their local correlation at ``frequency_per_A``.
    frequency_per_A : (n,) float64
    resolution_A, nyquist_A : float
        Where the rings end, NaN where there are none; the finest that the pixels hold.
    spectrum : bytes
        JPEG: measured on the left, model on the right (:func:`halves`).
    """

    name: str
    facts: str
    curves: Mapping[str, FloatArray]
    frequency_per_A: FloatArray
    resolution_A: float
    nyquist_A: float
    spectrum: bytes

    @classmethod
    def of_fit(cls, fit: CtfFit) -> ShownCtf:
        """Of a fit with its spectra."""
        from PIL import Image

        small, _ = bin_to(halves(fit), _SPECTRUM_PX)
        grey = np.rint(np.clip((small + 0.4) / 1.8, 0, 1) * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "JPEG", quality=80)
        return cls(
            fit.name,
            _facts(fit),
            {
                "equiphase average": _flat_average(fit),
                "CTF²": _squared_ctf(fit),
                "local correlation": np.asarray(fit.local_correlation, np.float64),
            },
            np.asarray(fit.rings.k, np.float64),
            float(fit.resolution_A),
            2 * fit.spectra.band.pixel_size_A,
            buffer.getvalue(),
        )

    def as_bytes(self) -> bytes:
        """JSON."""
        record = {
            "name": self.name,
            "facts": self.facts,
            "frequency_per_A": round_or_none(self.frequency_per_A),
            "curves": {name: round_or_none(values, 4) for name, values in self.curves.items()},
            "resolution_A": self.resolution_A if np.isfinite(self.resolution_A) else None,
            "nyquist_A": self.nyquist_A,
            "spectrum": base64.b64encode(self.spectrum).decode("ascii"),
        }
        return json.dumps(record, ensure_ascii=True).encode()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ShownCtf:
        """Of what :meth:`as_bytes` wrote, read again."""
        return cls(
            str(record["name"]),
            str(record["facts"]),
            {str(name): np.array(values, np.float64) for name, values in record["curves"].items()},
            np.array(record["frequency_per_A"], np.float64),
            float("nan") if record["resolution_A"] is None else float(record["resolution_A"]),
            float(record["nyquist_A"]),
            base64.b64decode(record["spectrum"]),
        )

    def chart(self) -> Chart:
        """The curves over resolution, with the end of the rings and the Nyquist frequency."""
        k = self.frequency_per_A
        series = [Series(name, k, values) for name, values in self.curves.items()]
        marks = [Line(1 / self.nyquist_A, f"Nyquist {self.nyquist_A:.2f} Å")]
        if np.isfinite(self.resolution_A):
            marks.append(Line(1 / self.resolution_A, f"rings to {self.resolution_A:.1f} Å"))
        return Chart(
            self.name,
            "resolution (Å)",
            "power, background taken off",
            series,
            [Line(0.5, "0.5")],
            marks,
            inverse=True,
            limits=(float(k[0]), float(k[-1]), _SHOWN[0] - 0.05, _SHOWN[1] + 0.05),
        )
