"""Reference of ops.peaks: every pixel asked in turn, the quadratic by a general least-squares solver."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Share of the squared curvatures along x and y below which a determinant is rounding: a ridge, no maximum.
_FLAT = 1e-9


def _vertex(patch: npt.NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Offset x, y and height of the fitted maximum of a 3 x 3 patch; None where the quadratic has none."""
    v, u = (g.ravel() for g in np.mgrid[-1.0:2, -1.0:2])
    a, gx, gy, hxx, hyy, hxy = np.linalg.lstsq(
        np.stack([np.ones(9), u, v, u * u / 2, v * v / 2, u * v], axis=1), patch.ravel(), rcond=None
    )[0]
    hessian = np.array([[hxx, hxy], [hxy, hyy]])
    if not (hxx < 0 and np.linalg.det(hessian) > _FLAT * (hxx**2 + hyy**2)):
        return None
    # A vertex farther off would lie in a neighbour's pixel, which is lower: the fit is then not to be trusted that far.
    x, y = np.clip(-np.linalg.solve(hessian, [gx, gy]), -0.5, 0.5)
    return x, y, a + gx * x + gy * y + hxx * x * x / 2 + hyy * y * y / 2 + hxy * x * y


def peaks(
    image: npt.ArrayLike, radius_px: float, threshold: float = -np.inf, mask: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Rows x, y, value; the arguments of :func:`verglas.ops.peaks`."""
    image = np.asarray(image, np.float64)
    allowed = np.ones(image.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    height, width = image.shape
    maxima = []
    for y in range(height):
        for x in range(width):
            value = image[y, x]
            if not (np.isfinite(value) and value >= threshold and allowed[y, x]):
                continue
            others = [
                (v, u)
                for v in range(max(y - 1, 0), min(y + 2, height))
                for u in range(max(x - 1, 0), min(x + 2, width))
                if (v, u) != (y, x)
            ]
            # Of a plateau of two equal neighbours the first in raster order is the peak, and only that one.
            if any(image[o] >= value if o < (y, x) else image[o] > value for o in others):
                continue
            inner = 0 < y < height - 1 and 0 < x < width - 1
            patch = image[y - 1 : y + 2, x - 1 : x + 2]
            fit = _vertex(patch) if inner and np.isfinite(patch).all() else None
            maxima.append((x, y, value) if fit is None else (x + fit[0], y + fit[1], fit[2]))
    result: list[tuple[float, float, float]] = []
    for peak in sorted(maxima, key=lambda p: -p[2]):
        if all(np.hypot(peak[0] - k[0], peak[1] - k[1]) >= radius_px for k in result):
            result.append(peak)
    return np.array(result, np.float64).reshape(-1, 3)
