"""Alignment of images to each other, without a reference from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.classification.align2d import align2d, in_reference_frame
from verglas.errors import InputError
from verglas.masks import distance_from
from verglas.types.arrays import Float32Array, any_arrays


@dataclass(frozen=True)
class MutualAlignment:
    """Images brought into one common frame.

    Attributes
    ----------
    average : (box, box) float32
        Mean of the aligned images.
    angles_deg : (n,) float32
    shifts_px : (n, 2) float32
        Pose of each image in the frame of the average, as in :class:`Alignment2D`.
    history : list of float
        Correlation of the average with that of the cycle before, cycle by cycle (reference-free alignment only).
    """

    average: Float32Array
    angles_deg: Float32Array
    shifts_px: Float32Array
    history: list[float]


def _check_stack(images: npt.ArrayLike) -> Float32Array:
    stack = np.ascontiguousarray(images, np.float32)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not len(stack):
        raise InputError(f"expected square images (n, box, box), at least one, got shape {stack.shape}")
    return stack


def _average(stack: Float32Array, angles: Float32Array, shifts: Float32Array, threads: int | None) -> Float32Array:
    return in_reference_frame(stack, angles, shifts, threads=threads).mean(axis=0, dtype=np.float64).astype(np.float32)


@any_arrays
def align_reference_free(
    images: npt.ArrayLike,
    *,
    max_shift_px: int = 6,
    radius_px: tuple[float, float] | None = None,
    cycles: int = 10,
    tolerance: float = 1e-3,
    seed: int = 0,
    threads: int | None = None,
) -> MutualAlignment:
    r"""Reference-free alignment in two phases.

    (a) In random order, each image is aligned to the average of those before it,
    :math:`a_m = (p_m \oplus (m - 1)\, a_{m-1}) / m`. (b) In cycles over all images, each is taken out of the average,
    aligned to the rest and put back, until the average no longer changes.

    Parameters
    ----------
    images : (n, box, box) float32
        Images of one view; the box is a product of 2, 3, 5 and 7.
    max_shift_px : int
        Largest shift on each axis.
    radius_px : (float, float), optional
        First and last ring, as in :func:`align2d`.
    cycles : int
        Most cycles of phase (b); 0 leaves phase (a)'s average.
    tolerance : float
        Ends when the average correlates with that of the cycle before to 1 - tolerance.
    seed : int
        Order of phase (a), which the result depends on.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    MutualAlignment

    Raises
    ------
    InputError
        As :func:`align2d`.

    References
    ----------
    Penczek, Radermacher and Frank (1992) Ultramicroscopy 40, 33-53.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import align_reference_free
    >>> y, x = np.indices((32, 32)) - 16
    >>> image = np.exp(-((x - 4.0) ** 2 + y**2) / 8) + np.exp(-(x**2 + (y - 3.0) ** 2) / 4)
    >>> result = align_reference_free(np.stack([image, np.rot90(image)[:, :]]), max_shift_px=2)
    >>> turn = float(result.angles_deg[1] - result.angles_deg[0]) % 360
    >>> bool(min(abs(turn - 90), abs(turn - 270)) < 2)
    True
    """
    stack = _check_stack(images)
    work = _OneView(stack, max_shift_px, radius_px, threads)
    average = work.average_one_by_one(np.random.default_rng(seed).permutation(len(stack)))
    history: list[float] = []
    for _ in range(cycles if len(stack) > 1 else 0):
        before, average = average, work.realign_all(average)
        history.append(float(np.corrcoef(before.ravel(), average.ravel())[0, 1]))
        if history[-1] > 1 - tolerance:
            break
    return MutualAlignment(_average(stack, work.angles, work.shifts, threads), work.angles, work.shifts, history)


class _OneView:
    """Images of one view on their way to a common average: where each lies, and each as it was put there."""

    def __init__(
        self, stack: Float32Array, max_shift_px: int, radius_px: tuple[float, float] | None, threads: int | None
    ) -> None:
        n = len(stack)
        self.stack = stack
        self.angles, self.shifts = np.zeros(n, np.float32), np.zeros((n, 2), np.float32)
        self.placed: dict[int, npt.NDArray[np.float64]] = {}
        self.search: dict[str, Any] = {
            "max_shift_px": max_shift_px,
            "step_px": 2 if max_shift_px % 2 == 0 else 1,
            "radius_px": radius_px,
            "cycles": 2,
            "threads": threads,
        }

    def average_one_by_one(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Phase (a): the average of all, each aligned to that of those before it."""
        first = int(order[0])
        average = self.placed[first] = self.stack[first].astype(np.float64)
        for m, k in enumerate(map(int, order[1:]), start=2):
            average = average + (self._align_and_place(k, average) - average) / m
        return average

    def realign_all(self, average: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """A cycle of phase (b): each is taken out, aligned to the rest, put back."""
        n = len(self.stack)
        total = average * n
        for k in range(n):
            # Out of the average first: an image matches best the place where its own noise stands already.
            rest = total - self.placed[k]
            total = rest + self._align_and_place(k, rest / (n - 1))
        return total / n

    def _align_and_place(self, k: int, reference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        one = slice(k, k + 1)
        alignment = align2d(self.stack[one], reference.astype(np.float32), **self.search)
        self.angles[k], self.shifts[k] = alignment.angles_deg[0], alignment.shifts_px[0]
        in_frame = in_reference_frame(self.stack[one], self.angles[one], self.shifts[one], threads=1)
        self.placed[k] = in_frame[0].astype(float)
        return self.placed[k]


@any_arrays
def align_pyramid(
    images: npt.ArrayLike,
    *,
    max_shift_px: int = 6,
    radius_px: tuple[float, float] | None = None,
    threads: int | None = None,
) -> MutualAlignment:
    r"""Pyramidal alignment: neighbours are aligned in pairs and averaged, then pairs of averages, up to one.

    No image is first and no order is drawn, so there is no seed. A pose is the product of those along its branch: of
    :math:`g_1(r) = f(R_1 r - s_1)` and :math:`g_2(r) = g_1(R_2 r - s_2)`, angle :math:`\psi_1 + \psi_2` and shift
    :math:`s_1 + R_1 s_2`. The average is made from the images themselves, interpolated once.

    Parameters
    ----------
    images : (n, box, box) float32
        Images of one view; the box is a product of 2, 3, 5 and 7.
    max_shift_px : int
        Largest shift of one alignment on each axis.
    radius_px : (float, float), optional
        First and last ring, as in :func:`align2d`.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    MutualAlignment

    Raises
    ------
    InputError
        As :func:`align2d`.

    References
    ----------
    Marco, Chagoyen, de la Fraga, Carazo and Carrascosa (1996) Ultramicroscopy 66, 5-10.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import align_pyramid
    >>> y, x = np.indices((32, 32)) - 16
    >>> image = np.exp(-((x - 4.0) ** 2 + y**2) / 8) + np.exp(-(x**2 + (y - 3.0) ** 2) / 4)
    >>> result = align_pyramid(np.stack([image, image, image]), max_shift_px=2)
    >>> bool(np.abs(result.shifts_px).max() < 0.1)
    True
    """
    stack = _check_stack(images)
    n = len(stack)
    angles, shifts = np.zeros(n), np.zeros((n, 2))
    nodes = [(stack[i].astype(np.float64), [i]) for i in range(n)]
    step = 2 if max_shift_px % 2 == 0 else 1
    while len(nodes) > 1:
        above = []
        for (first, left), (second, right) in zip(nodes[::2], nodes[1::2], strict=False):
            alignment = align2d(
                second[None].astype(np.float32),
                first.astype(np.float32),
                max_shift_px=max_shift_px,
                step_px=step,
                radius_px=radius_px,
                cycles=3,
                threads=threads,
            )
            in_frame = in_reference_frame(second[None], alignment.angles_deg, alignment.shifts_px, threads=1)[0]
            _compose(angles, shifts, right, float(alignment.angles_deg[0]), alignment.shifts_px[0])
            a, b = len(left), len(right)
            above.append(((a * first + b * in_frame) / (a + b), left + right))
        # The odd one moves up as it is, at the end: pairs are the same whatever the number of threads.
        if len(nodes) % 2:
            above.append(nodes[-1])
        nodes = above
    # Float64 until here: a pose is the sum of as many steps as the pyramid is high.
    psi = ((angles + 180) % 360 - 180).astype(np.float32)
    totals = shifts.astype(np.float32)
    return MutualAlignment(_average(stack, psi, totals, threads), psi, totals, [])


def _compose(angles: npt.NDArray, shifts: npt.NDArray, members: list[int], psi: float, s: npt.NDArray) -> None:
    """Follow the poses of these images by one more, in place."""
    t = np.deg2rad(angles[members])
    shifts[members, 0] += np.cos(t) * s[0] + np.sin(t) * s[1]
    shifts[members, 1] += -np.sin(t) * s[0] + np.cos(t) * s[1]
    angles[members] += psi


@any_arrays
def einstein_from_noise(
    reference: npt.ArrayLike,
    numbers: npt.ArrayLike = (128, 256, 512, 1024, 2048),
    *,
    max_shift_px: int = 4,
    radius_px: float | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> dict[int, tuple[float, Float32Array]]:
    r"""Averages of pure noise, aligned to a reference: they look like it, the more so the more images there are.

    Image i is white noise that depends on the seed and i alone. Each is turned and moved to where it correlates best
    with the reference; the signal that this selects adds up while the noise averages out, so that the correlation rises
    as :math:`\rho / \sqrt{1 + b/N}`. Its limit is below 1: what turned and moved copies of the reference have in common
    helps no pose to win, and only what is distinctive in the reference appears.

    Parameters
    ----------
    reference : (box, box) float32
        The box is a product of 2, 3, 5 and 7.
    numbers : sequence of int
        Sizes of the sets, each the first so many images.
    max_shift_px : int
        Largest shift on each axis, even.
    radius_px : float, optional
        Radius of the particle in pixels; by default what fits the box with the shifts.
    seed : int
        Seed of the noise.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    dict of int -> (float, (box, box) float32)
        Correlation with the reference inside the radius, and the average, for each number.

    References
    ----------
    Henderson (2013) Proc. Natl Acad. Sci. USA 110, 18037-18041; Shatsky et al. (2009) J. Struct. Biol. 166, 67-78.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import einstein_from_noise
    >>> y, x = np.indices((32, 32)) - 16
    >>> face = np.exp(-((x - 4.0) ** 2 + y**2) / 8) + np.exp(-(x**2 + (y - 5.0) ** 2) / 4)
    >>> result = einstein_from_noise(face, [16, 64])
    >>> result[16][0] < result[64][0]
    True
    """
    target = np.asarray(reference, np.float32)
    if target.ndim != 2 or target.shape[0] != target.shape[1]:
        raise InputError(f"einstein_from_noise: expected one square image, got shape {target.shape}")
    sizes = sorted({int(k) for k in np.atleast_1d(numbers)})
    if sizes[0] < 1:
        raise InputError(f"einstein_from_noise: expected positive numbers, got {sizes[0]}")
    box = target.shape[0]
    last = (box + 1) // 2 - 3 - max_shift_px if radius_px is None else float(radius_px)
    disc = distance_from((box, box)) <= last
    total, count, result = np.zeros((box, box)), 0, {}
    for stop in sizes:
        for begin in range(count, stop, 256):
            some = range(begin, min(begin + 256, stop))
            noise = np.stack(
                [
                    np.random.Generator(np.random.Philox(key=[seed, i])).standard_normal((box, box), dtype=np.float32)
                    for i in some
                ]
            )
            alignment = align2d(
                noise, target, max_shift_px=max_shift_px, radius_px=(1.0, last), cycles=1, threads=threads
            )
            # One image after the other: the sum does not depend on the batches.
            for image in in_reference_frame(noise, alignment.angles_deg, alignment.shifts_px, threads=threads):
                total += image
        count = stop
        average = (total / count).astype(np.float32)
        result[stop] = (float(np.corrcoef(average[disc], target[disc])[0, 1]), average)
    return result
