"""Cross-correlation of images with references: translation, and rotation by polar rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, require_cpu

Score = Literal["ncc", "phase", "product"]
Fit = Literal["newton", "parabola", "none"]
Pairing = Literal["best", "all", "paired"]


@dataclass(frozen=True)
class Correlation:
    """What was found for each image (``best``, ``paired``: shapes (n, ..)) or each pair (``all``: (n, m, ..)).

    Attributes
    ----------
    shifts_px : (..., 2) float32
        x, y in pixels: added to the image, it lays the image on the reference (conventions.md: the origin).
    scores : (...,) float32
        The score at that place.
    references : (...,) int32
        Number of the reference.
    angles_deg : (...,) float32 or None
        In-plane angle psi, where one was searched.
    searches : int
        Rotational searches made per pair: the shifts tried.
    """

    shifts_px: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    references: npt.NDArray[np.int32]
    angles_deg: npt.NDArray[np.float32] | None = None
    searches: int = 0


def _next_smooth(n: int) -> int:
    """Least product of 2, 3, 5 and 7 that is at least n."""

    def smooth(k: int) -> bool:
        for p in (2, 3, 5, 7):
            while k % p == 0:
                k //= p
        return k == 1

    return next(k for k in range(max(n, 1), 2 * max(n, 1) + 1) if smooth(k))


def _stack(value: npt.ArrayLike, name: str, box: int | None = None) -> npt.NDArray[np.float32]:
    """A stack of square images as float32; one image (y, x) is a stack of one."""
    array = as_array(value, np.float32)
    if array.ndim == 2:
        array = array[None]
    want = f"(n, {box}, {box})" if box else "(n, box, box) with a square box"
    if array.ndim != 3 or array.shape[1] != array.shape[2] or (box and array.shape[1] != box):
        raise InputError(f"{name}: expected shape {want}, got {np.shape(value)}")
    return array


def _references(value: npt.ArrayLike, box: int) -> npt.NDArray[np.float32]:
    array = _stack(value, "references", box)
    if len(array) == 0:
        raise InputError("references: expected at least one, got none")
    return array


def _smooth_box(box: int) -> int:
    if box < 1 or _next_smooth(box) != box:
        raise InputError(
            f"images: expected a box that is a product of 2, 3, 5 and 7 (2-3-5-7-smooth), got {box} px; "
            f"the next good size is {_next_smooth(box)} px (pad, or Fourier-crop, images and references alike)"
        )
    return box


def correlate(
    images: npt.ArrayLike,
    references: npt.ArrayLike,
    *,
    score: Score = "ncc",
    pairing: Pairing = "best",
    max_shift_px: int | None = None,
    weights: npt.ArrayLike | None = None,
    fit: Fit = "newton",
    device: str = "cpu",
    threads: int | None = None,
) -> Correlation:
    r"""Find the shift that lays each image on a reference, by Fourier cross-correlation.

    .. math::
        C(s) = \sum_x f(x - s)\, g(x)
             = \frac{1}{N^2} \sum_k w_{|k|}\, \overline{F(k)}\, G(k)\, e^{2\pi i\, k \cdot s / N}

    over periodic images ``f`` and references ``g`` of ``N`` x ``N`` pixels. The largest value on integer shifts is
    refined to a fraction of a pixel.

    Parameters
    ----------
    images : (n, box, box) or (box, box) float32
        Boxes to any product of 2, 3, 5 and 7, even or odd.
    references : (m, box, box) or (box, box) float32
        Centred references; ``m = n`` for ``pairing="paired"``.
    score : {"ncc", "phase", "product"}
        ``"ncc"``: Pearson's coefficient (means removed, divided by both norms, in [-1, 1]); with ``weights``, of the
        images filtered by their square root. ``"phase"``: the same after dividing each transform by its modulus
        (whitening; moduli below 1e-6 of the rms count as zero). ``"product"``: C itself, means kept.
        An image of no variance scores 0 at shift 0 (``"product"``: the product of the means).
    pairing : {"best", "all", "paired"}
        Each image with the best of all references; with every one of them; or with its own.
    max_shift_px : int, optional
        Integer shifts searched: ``|x|, |y| <= max_shift_px``; the whole box by default.
    weights : (shells,) float32, optional
        ``w`` of shell ``round(|k|)``, not negative; shells beyond the last one weigh 0 (a band limit, which also saves
        time). E.g. 1 / noise power.
    fit : {"newton", "parabola", "none"}
        ``"newton"``: on the exact trigonometric polynomial, started from the parabolas; noise-free error below
        0.01 px. ``"parabola"``: through three points per axis; up to 0.25 px off for spectra that do not fall off.
        A peak at the limit of the search is not refined.
    device : str
        ``"cpu"``.
    threads : int, optional
        Threads; all processors of this process by default. The result does not depend on it.

    Returns
    -------
    Correlation
        ``shifts_px`` added to the image brings it onto the reference; the particle sits at minus the shift.

    Raises
    ------
    InputError
        Shapes, sizes or options are wrong, or an image holds NaN or infinity (the message names it).

    References
    ----------
    van Heel, Schatz and Orlova (1992) Ultramicroscopy 46, 307-316 (correlation functions, phase correlation).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> reference = np.zeros((32, 32), np.float32); reference[14:18, 15:17] = 1
    >>> image = np.roll(reference, (6, -8), axis=(0, 1))      # the particle sits at x = -8, y = +6
    >>> match = ops.correlate(image, reference)
    >>> match.shifts_px.round(3).tolist(), round(float(match.scores[0]), 5)
    ([[8.0, -6.0]], 1.0)
    """
    require_cpu(device, "correlate")
    stack = _stack(images, "images")
    box = _smooth_box(stack.shape[1])
    refs = _references(references, box)
    if pairing == "paired" and len(refs) != len(stack):
        raise InputError(f"references: expected {len(stack)}, one per image (pairing='paired'), got {len(refs)}")
    reach = box if max_shift_px is None else int(max_shift_px)
    try:
        shift, value, reference = core.correlate(
            stack, refs, reach, score, fit, pairing, _check_weights(weights), resolve_threads(threads)
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    shape = (len(stack), len(refs)) if pairing == "all" else (len(stack),)
    return Correlation(shift.reshape(*shape, 2), value.reshape(shape), reference.reshape(shape))


def _check_weights(weights: npt.ArrayLike | None) -> npt.NDArray[np.float32] | None:
    if weights is None:
        return None
    w = as_array(weights, np.float32)
    if w.ndim != 1 or len(w) == 0 or not np.all(np.isfinite(w)) or (w < 0).any():
        raise InputError(
            f"weights: expected one finite, non-negative number per shell, got shape {w.shape} "
            f"with values from {w.min() if w.size else 'none'} to {w.max() if w.size else 'none'}"
        )
    return w


def correlate_rotations(
    images: npt.ArrayLike,
    references: npt.ArrayLike,
    *,
    max_shift_px: int = 0,
    step_px: int = 1,
    radius_px: tuple[float, float] | None = None,
    pairing: Literal["best", "all"] = "best",
    device: str = "cpu",
    threads: int | None = None,
) -> Correlation:
    r"""Find the in-plane angle, and the shift on a small grid, that lay each image on a reference.

    .. math::
        C(s, \psi) = \frac{\sum_r r \sum_\theta f_s(r, \theta)\, g(r, \theta + \psi)}{\|f_s\|\, \|g\|}

    over polar rings about pixel ``box // 2``, means removed. A rotation is a cyclic shift of the unravelled rings, so
    all angles of a shift come from one product of their harmonics. With ``k = max_shift_px / step_px``, exactly
    ``(2 k + 1)**2`` shifts of the image are each searched over all angles; the best of this grid is returned, its angle
    refined by a parabola (the shift is not refined: ``correlate`` does that).

    Parameters
    ----------
    images : (n, box, box) or (box, box) float32
        Any box.
    references : (m, box, box) or (box, box) float32
        Centred references.
    max_shift_px : int
        Shifts tried on each axis, ``-max_shift_px .. max_shift_px``; a multiple of ``step_px``.
    step_px : int
        Pixels between them.
    radius_px : (float, float), optional
        First and last ring, spacing 1 px. By default from 1 to the largest that stays inside the box at every shift,
        ``(box + 1) // 2 - 3 - max_shift_px``. Choose the particle's radius.
    pairing : {"best", "all"}
        Each image with the best of all references, or with every one of them.
    device : str
        ``"cpu"``.
    threads : int, optional
        Threads; all processors of this process by default. The result does not depend on it.

    Returns
    -------
    Correlation
        ``angles_deg`` is psi as in conventions.md: a feature at (x, y) of the reference, from the centre, stands at
        ``(x cos + y sin, -x sin + y cos) - shift`` in the image. ``searches`` counts the shifts tried per pair.

    Raises
    ------
    InputError
        Shapes or sizes are wrong, or an image holds NaN or infinity (the message names it).

    References
    ----------
    Crowther and Amos (1971) J. Mol. Biol. 60, 123-130 (rotational harmonics); Penczek, Radermacher and Frank (1992)
    Ultramicroscopy 40, 33-53 (joint search).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> reference = np.zeros((64, 64), np.float32); reference[28:40, 32:36] = 1; reference[32:36, 32:44] += 2
    >>> image = np.roll(np.rot90(reference, 1)[::1], 1, axis=0)         # about pixel 32: from +y towards +x
    >>> match = ops.correlate_rotations(image, reference)
    >>> round(float(match.angles_deg[0]), 1), match.searches
    (90.0, 1)
    """
    require_cpu(device, "correlate_rotations")
    stack = _stack(images, "images")
    refs = _references(references, stack.shape[1])
    if pairing not in ("best", "all"):
        raise InputError(f"pairing: expected one of 'best', 'all', got {pairing!r}")
    last = (stack.shape[1] + 1) // 2 - 3 - max_shift_px
    r_min, r_max = radius_px if radius_px is not None else (1.0, float(last))
    try:
        shift, angle, value, reference, searches = core.correlate_rotations(
            stack,
            refs,
            int(max_shift_px),
            int(step_px),
            float(r_min),
            float(r_max),
            pairing == "best",
            resolve_threads(threads),
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    shape = (len(stack), len(refs)) if pairing == "all" else (len(stack),)
    return Correlation(
        shift.reshape(*shape, 2), value.reshape(shape), reference.reshape(shape), angle.reshape(shape), searches
    )
