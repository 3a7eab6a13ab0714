"""The M-step: from images and a posterior over poses to sums for maps, noise spectra and scales; adjoint of score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session, refuse_non_finite, refuse_non_finite_on
from verglas.ops._images import PolarImages
from verglas.ops.insert import GridSums
from verglas.ops.polar import PolarGrid, polar_harmonics, polar_power
from verglas.ops.polar_insert import polar_insert
from verglas.ops.posterior import Posterior
from verglas.ops.residuals import Residuals
from verglas.types.arrays import FloatArray

_INSERT_BLOCK = 64  # slices made and inserted at a time


class MaximisePlan:
    r"""Sums of the M-step for a block of slices: ``add`` batches of images, then ``insert`` into maps.

    .. math::
        \mathrm{num} = \sum_i \sum_\mathrm{poses} \gamma\, P_\mathrm{pose}^T\Big[\frac{C X S}{\sigma^2}\Big], \qquad
        \mathrm{den} = \sum_i \sum_\mathrm{poses} \gamma\, P_\mathrm{pose}^T\Big[\frac{C^2}{\sigma^2}\Big]

    The sum over images, in-plane angles and shifts is made per slice in the harmonic domain,
    :math:`\sum \gamma e^{-im\psi} b_m`, and one slice per direction is inserted: the transpose of what
    :class:`ScorePlan` computes. Method: docs/engine.md.

    Parameters
    ----------
    grid : PolarGrid
        Rings and harmonics; may reach further than those the posterior was found with, and hold a larger diameter.
    n_slices : int
        Slices of the block.
    first_slice : int
        Candidates of slices outside ``first_slice`` .. ``first_slice + n_slices - 1`` are passed over, so that all
        images can be added to one block after another: memory stays bounded, the sums are the same to the last bit.
    n_power : int
        Even harmonics kept of C^2; by default as many as the grid has, at most 16. With defocus difference dz (A) the
        phase of C^2 swings by :math:`x = \pi \lambda\, dz\, k^2`, and harmonics up to about :math:`x + 2 x^{1/3} + 2`
        count.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: where the sums lie and are made.

    Raises
    ------
    InputError, ValueError
        A setting is out of range.
    DeviceError
        The device cannot be used; the message says why and what to do.

    Notes
    -----
    Memory: :attr:`slice_bytes` for every slice that got a candidate, on a GPU for every slice. Sums are float64,
    bitwise equal for any number of threads, any batches and any order of an image's candidates; another order of the
    images changes rounding only.

    References
    ----------
    Maximisation over poses: Sigworth (1998) J. Struct. Biol. 122, 328-339; Scheres (2012) J. Mol. Biol. 415, 406-418.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> grid = ops.PolarGrid(16, 6)
    >>> images = np.random.default_rng(0).standard_normal((2, 16, 16)).astype(np.float32)
    >>> plan = ops.MaximisePlan(grid, 1)
    >>> posterior = ops.Posterior.from_lists(2, image=[0, 1], slice=[0, 0], psi_deg=[10, 250])
    >>> _ = plan.add(ops.polar(images, grid), posterior, [[0, 0]])
    >>> sums = ops.GridSums.zeros(ops.Grid(16))
    >>> plan.insert(sums, np.eye(3)[None])
    >>> bool(sums.weights.sum() > 0)
    True
    """

    def __init__(
        self, grid: PolarGrid, n_slices: int, *, first_slice: int = 0, n_power: int | None = None, device: str = "cpu"
    ) -> None:
        if n_slices < 1 or first_slice < 0:
            raise InputError(f"MaximisePlan: expected slices from 0 on, got {n_slices} from {first_slice}")
        self.grid, self.n_slices, self.first_slice = grid, int(n_slices), int(first_slice)
        self.n_power = min(16, grid.max_m // 2 + 1) if n_power is None else int(n_power)
        self.device = device
        if device == "cpu":
            self.native: Any = core.MaximisePlan(grid.native, self.n_slices, self.n_power)
        else:
            from verglas.ops._cuda_maximise import CudaMaximisePlan

            self.native = CudaMaximisePlan(cuda_session(device), grid, self.n_slices, self.n_power)
        self._has_reference = False

    @property
    def slice_bytes(self) -> int:
        """Memory of the sums of one slice."""
        return int(self.native.slice_bytes)

    @property
    def touched(self) -> npt.NDArray[np.bool_]:
        """Which slices of the block got a candidate."""
        return self.native.touched()

    def set_reference(self, samples: npt.ArrayLike, *, threads: int | None = None) -> None:
        """Take in the slices A, which residuals are measured against.

        Parameters
        ----------
        samples : (n_slices, n_rings, n_theta // 2) complex64
            :func:`polar_slices` of the map at psi = 0, or :func:`polar` of class averages, on this plan's grid.
        threads : int, optional
            Threads; all by default.

        Raises
        ------
        InputError
            A sample is not finite; the message names the slice.
        """
        values = samples if self.device != "cpu" else as_array(samples, np.complex64)
        harmonics = polar_harmonics(values, self.grid, device=self.device, threads=threads)
        refuse_non_finite_on(self.device, harmonics, "MaximisePlan.set_reference: slice {}")
        power = polar_power(values, self.grid, self.n_power, device=self.device, threads=threads)
        self.native.set_reference(harmonics, power)
        self._has_reference = True

    def add(
        self,
        samples: npt.ArrayLike,
        posterior: Posterior,
        shifts_px: npt.ArrayLike,
        *,
        ctf: npt.ArrayLike | None = None,
        pixel_size_A: float = 1.0,
        inv_sigma2: npt.ArrayLike | None = None,
        centres_px: npt.ArrayLike | None = None,
        image_power: npt.ArrayLike | None = None,
        into: Residuals | None = None,
        first_particle: int = 0,
        threads: int | None = None,
    ) -> Residuals | None:
        r"""Add a batch of images.

        Parameters
        ----------
        samples : (n, n_rings, n_theta // 2) complex64
            :func:`polar` of the images on this plan's grid; better of unmasked images (of masked ones the noise is too
            small, see ``image_power``, and what the CTF spreads beyond the mask is lost).
        posterior : Posterior
            Their candidates.
        shifts_px : (n_shifts, 2) float32
            The table that candidates refer to, x and y: the image is moved by this, as by a STAR file's origin.
        ctf : (n, 14) float64, optional
            CTF parameters (:func:`verglas.ops.ctf`), scale included; none by default.
        pixel_size_A : float
            Pixel size in angstrom, for the CTF.
        inv_sigma2 : (n, n_rings) or (n_rings,) float32, optional
            1 / noise variance of one complex coefficient of the unnormalised transform, per ring; 1 by default.
        centres_px : (n, 2) float32, optional
            Added to every shift of that image.
        image_power : (n, n_rings) float64, optional
            Mean of :math:`|X|^2` of the unmasked images, where ``samples`` are of masked ones; from the samples by
            default.
        into : Residuals, optional
            Added to and returned: of the same images with an earlier block of slices.
        first_particle : int
            Number of the batch's first particle, for messages.
        threads : int, optional
            Threads; all by default. CPU only.

        Returns
        -------
        Residuals or None
            None without a reference; on the host, whatever the device.

        Raises
        ------
        InputError
            An image, its CTF, noise or shift is not finite; the message names the particle.
        ValueError
            Shapes disagree.
        """
        n = len(samples)  # type: ignore[arg-type]
        if len(posterior) != n:
            raise InputError(f"MaximisePlan.add: expected the posterior of {n} images, got that of {len(posterior)}")
        shifts = as_array(np.asarray(shifts_px, np.float32).reshape(-1, 2), np.float32)
        refuse_non_finite(shifts, "maximise: shift {}")
        images: dict[str, Any] = {"inv_sigma2": inv_sigma2, "ctf": ctf, "centres_px": centres_px}
        x, mean_power = self._place_images(samples, images, first_particle, image_power, threads)
        into = self._residuals(posterior, mean_power, into) if self._has_reference else None
        candidates = self._candidates(posterior)
        if self.device == "cpu":
            self.native.add(
                x.samples,
                x.ctf,
                float(pixel_size_A),
                x.inv_sigma2,
                x.centres_px,
                shifts,
                candidates,
                None if into is None else into.cross,
                None if into is None else into.power,
                resolve_threads(threads),
            )
        else:
            from verglas.ops._cuda_maximise import Candidates, CrossPower

            residuals = None if into is None else CrossPower(into.cross, into.power)
            self.native.add(x, float(pixel_size_A), shifts, Candidates(*candidates), residuals)
        return into

    def _candidates(self, posterior: Posterior) -> tuple[npt.NDArray[Any], ...]:
        """As the kernels take them: slices numbered from this plan's first, angles in radians."""
        return (
            posterior.offsets,
            as_array(posterior.slice - self.first_slice, np.int32),
            posterior.opposite.view(np.uint8),
            np.deg2rad(posterior.psi_deg),
            posterior.shift,
            posterior.weight,
        )

    def _place_images(
        self, samples: Any, images: dict[str, Any], first_particle: int, image_power: Any, threads: int | None
    ) -> tuple[PolarImages, FloatArray]:
        """The images where the plan is, and the mean of their |X|^2 on each ring here, (n, n_rings)."""
        if self.device == "cpu":
            x = PolarImages.of(self.grid, samples, **images)
            x.refuse_non_finite("maximise", first_particle)
            if image_power is None and self._has_reference:
                image_power = polar_power(x.samples, self.grid, 1, threads=threads)[:, :, 0].real
        else:
            from verglas.ops._cuda_polar import ring_power

            cuda = self.native.cuda
            with cuda.active():
                x = PolarImages.of(self.grid, samples, **images, cuda=cuda)
                x.refuse_non_finite("maximise", first_particle)
                if image_power is None and self._has_reference:
                    image_power = ring_power(x, self.grid, cuda)
        return x, np.asarray(0 if image_power is None else image_power, np.float64)

    def _residuals(self, posterior: Posterior, mean_power: FloatArray, into: Residuals | None) -> Residuals:
        """What the kernel adds cross and power of this block to: fresh arrays, with those of earlier blocks in them."""
        n, index = len(posterior), posterior.slice - self.first_slice
        ours = (index >= 0) & (index < self.n_slices)
        mass = np.bincount(posterior.image[ours], posterior.weight[ours], minlength=n).astype(np.float64)
        ring_power = mean_power * (self.grid.weights * self.grid.n_theta)
        if into is None:
            return Residuals(mass, ring_power, *(np.zeros((n, self.grid.n_rings)) for _ in range(2)))
        # Copies: the kernel adds to them in place, and the caller's earlier residuals must stay what they were.
        return Residuals(mass + into.mass, ring_power, into.cross.copy(), into.power.copy())

    def slices(
        self, index: npt.ArrayLike | None = None, *, threads: int | None = None
    ) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32]]:
        r"""Sums of slices of the block as polar samples, ring weights w_r included: numerator and denominator.

        For 2D references (one slice each) the new average is ``images_from_polar(num / (den + w_r / tau2), grid)``.

        Parameters
        ----------
        index : (n,) int, optional
            Slices, counted from ``first_slice``; all by default.
        threads : int, optional
            Threads; all by default.

        Returns
        -------
        numerator : (n, n_rings, n_theta // 2) complex64
            Sum of :math:`\gamma\, w_r C X S / \sigma^2`.
        denominator : (n, n_rings, n_theta // 2) float32
            Sum of :math:`\gamma\, w_r C^2 / \sigma^2`. Both lie on the plan's device.
        """
        chosen = as_array(np.arange(self.n_slices) if index is None else index, np.int64)
        if self.device != "cpu":
            return self.native.slices(chosen)
        return self.native.slices(chosen, resolve_threads(threads))

    def insert(self, sums: GridSums, matrices: npt.ArrayLike, *, first: int = 0, threads: int | None = None) -> None:
        """Insert slices ``first``, ``first + 1``, ... of the block, one per matrix, into the sums of a map.

        Parameters
        ----------
        sums : GridSums
            Added to in place, where they lie; :func:`fold` them when all is inserted.
        matrices : (n, 3, 3) float64
            Rotation matrices of the slices at psi = 0, RELION's convention.
        first : int
            First slice, counted from ``first_slice``: where a reference's slices start when there are several.
        threads : int, optional
            Threads; all by default.

        Raises
        ------
        InputError
            More matrices than slices.
        """
        rotations = as_array(matrices, np.float64)
        if first < 0 or first + len(rotations) > self.n_slices:
            raise InputError(
                f"MaximisePlan.insert: slices {first} to {first + len(rotations) - 1} asked of {self.n_slices}"
            )
        touched = np.flatnonzero(self.touched[first : first + len(rotations)])
        for begin in range(0, len(touched), _INSERT_BLOCK):
            block = touched[begin : begin + _INSERT_BLOCK]
            values, weights = self.slices(first + block, threads=threads)
            # Chained: the sums are here and the plan is not.
            if sums.device == "cpu" != self.device:
                values, weights = values.get(), weights.get()  # type: ignore[attr-defined]
            polar_insert(
                sums,
                values,
                weights,
                rotations[block],
                self.grid,
                device=sums.device,
                deterministic=True,
                threads=threads,
            )


def maximise(
    sums: GridSums | Sequence[GridSums],
    samples: npt.ArrayLike,
    posterior: Posterior,
    matrices: npt.ArrayLike,
    grid: PolarGrid,
    shifts_px: npt.ArrayLike,
    *,
    reference: npt.ArrayLike | None = None,
    memory_bytes: int = 1 << 30,
    n_power: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    **images: object,
) -> Residuals | None:
    """Add the M-step of images to the sums of one or several maps: :class:`MaximisePlan` over blocks of slices.

    Parameters
    ----------
    sums : GridSums, or a sequence of them
        One per reference; added to in place. :func:`fold` them at the end.
    samples : (n, n_rings, n_theta // 2) complex64
        :func:`polar` of the images.
    posterior : Posterior
        Candidates; slice = reference * len(matrices) + direction.
    matrices : (n_directions, 3, 3) float64
        Directions at psi = 0, the same for every reference.
    grid : PolarGrid
        Of the samples.
    shifts_px : (n_shifts, 2)
        Shifts that candidates refer to.
    reference : (n_references * n_directions, n_rings, n_theta // 2) complex64, optional
        Slices to measure residuals against.
    memory_bytes : int
        Most that the sums of a block of slices may take. The result does not depend on it.
    n_power, device
        As in :class:`MaximisePlan`.
    threads : int, optional
        Threads; all by default. The sums do not depend on it.
    **images
        ``ctf``, ``pixel_size_A``, ``inv_sigma2``, ``centres_px``, ``image_power``, ``first_particle``, as in
        :meth:`MaximisePlan.add`.

    Returns
    -------
    Residuals or None
        None without a reference.

    Raises
    ------
    InputError
        As :meth:`MaximisePlan.add`; or a candidate names a slice that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> grid = ops.PolarGrid(16, 6)
    >>> x = ops.polar(np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32), grid)
    >>> sums = ops.GridSums.zeros(ops.Grid(16))
    >>> ops.maximise(sums, x, ops.Posterior.from_lists(1, [0], [0], [45]), np.eye(3)[None], grid, [[1, 0]])
    >>> bool(sums.weights.sum() > 0)
    True
    """
    maps = [sums] if isinstance(sums, GridSums) else list(sums)
    rotations = as_array(matrices, np.float64)
    directions, total = len(rotations), len(maps) * len(rotations)
    if posterior.slice.size and not (posterior.slice.min() >= 0 and posterior.slice.max() < total):
        raise InputError(
            f"maximise: expected slices 0 to {total - 1} ({len(maps)} references of {directions} directions), got "
            f"{posterior.slice.min()} to {posterior.slice.max()}"
        )
    a = None if reference is None else as_array(reference, np.complex64)
    per_slice = MaximisePlan(grid, 1, n_power=n_power, device=device).slice_bytes
    block = max(1, min(directions, int(memory_bytes // per_slice)))
    residuals = None
    for k, target in enumerate(maps):
        for begin in range(0, directions, block):
            count = min(block, directions - begin)
            first = k * directions + begin
            plan = MaximisePlan(grid, count, first_slice=first, n_power=n_power, device=device)
            if a is not None:
                plan.set_reference(a[first : first + count], threads=threads)
            residuals = plan.add(samples, posterior, shifts_px, into=residuals, threads=threads, **images)  # type: ignore[arg-type]
            plan.insert(target, rotations[begin : begin + count], threads=threads)
    return residuals
