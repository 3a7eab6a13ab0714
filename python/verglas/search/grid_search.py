"""The one grid step: scores of images at every pose of a grid, and the sums that their posterior gives, on a device.

Refinement, first maps, alignment and 2D classes differ in where slices come from and in what they keep of a posterior;
what is sent to the kernels, and where they run, is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import all_to_host, to_host
from verglas.types.arrays import FloatArray, IntArray


def shift_disc(radius: float) -> IntArray:
    """Whole-number shifts x, y within a radius of the centre, (n, 2), row by row.

    Examples
    --------
    >>> from verglas.search.grid_search import shift_disc
    >>> shift_disc(1.0).tolist()
    [[0, -1], [-1, 0], [0, 0], [1, 0], [0, 1]]
    """
    # A radius of 5 may arrive as 4.9999999: the rim belongs to the disc on every machine.
    reach = int(radius + 1e-9)
    k = np.arange(-reach, reach + 1)
    xy = np.stack(np.meshgrid(k, k), axis=-1).reshape(-1, 2)
    return np.asarray(xy[np.hypot(*xy.T) <= radius + 1e-9], np.int64)


def log_shift_prior(shifts_px: npt.NDArray, sigma_px: float) -> FloatArray:
    """Log of a Gaussian prior of the shifts of a table, (n,) float64, summing to one over the table."""
    log_prior = -np.sum(shifts_px.astype(np.float64) ** 2, axis=1) / (2 * sigma_px**2)
    return np.asarray(log_prior - np.log(np.exp(log_prior).sum()))


@dataclass(frozen=True)
class Where:
    """The one device that kernels run on, and the threads of the host.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"cuda:<number>"``.
    threads : int, optional
        Threads; all by default. Results do not depend on it.
    """

    device: str = "cpu"
    threads: int | None = None

    @property
    def of_ops(self) -> dict[str, Any]:
        """Arguments of every op."""
        return {"device": self.device, "threads": self.threads}


@dataclass(frozen=True)
class PoseGrid:
    """In-plane angles and shifts of a search; directions are the slices of its reference.

    Attributes
    ----------
    n_psi : int
        In-plane angles, centres of equal cells.
    shifts_px : (n, 2) float32
        Added to the centre of each image.
    log_shift : (n,) float64, optional
        Log prior of the shifts; equal and summing to one by default.
    """

    n_psi: int
    shifts_px: npt.NDArray[np.float32]
    log_shift: FloatArray | None = None

    def psi_deg(self, number: npt.NDArray[np.signedinteger]) -> FloatArray:
        """In-plane angles by number."""
        return ops.psi_angles_deg(self.n_psi)[number]


@dataclass(frozen=True)
class PolarBatch:
    """Polar samples of some images, with what the model of an image needs of each.

    Attributes
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        On the device that works on them; all else is on the host.
    inv_sigma2 : (n, n_rings) float32, optional
        1 / noise variance of one coefficient, by ring; 1 by default.
    ctf : (n, 14) float64, optional
        CTF parameters, scale included.
    pixel_size_A : float
        For the CTF.
    centres_px : (n, 2) float32, optional
        Added to the shifts.
    first_particle : int
        Number of the first image, for messages.
    """

    samples: npt.NDArray[np.complex64]
    inv_sigma2: npt.NDArray[np.float32] | None = None
    ctf: FloatArray | None = None
    pixel_size_A: float = 1.0
    centres_px: npt.NDArray[np.float32] | None = None
    first_particle: int = 0

    def __len__(self) -> int:
        return len(self.samples)


class GridSearch:
    """Scores of images at every pose of a grid.

    Parameters
    ----------
    polar : PolarGrid
        Rings scored.
    poses : PoseGrid
    where : Where
    score : {"likelihood", "correlation"}
    n_power : int
        Even harmonics of the power term.
    max_candidates : int
        Of one image.
    epsilon : float
        Posterior mass that its candidates may lack.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> from verglas.search.grid_search import GridSearch, PolarBatch, PoseGrid, shift_disc
    >>> image = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32)
    >>> grid = ops.PolarGrid(16, 6)
    >>> search = GridSearch(grid, PoseGrid(32, shift_disc(1.0).astype(np.float32)))
    >>> search.set_reference(ops.polar(image, grid))
    >>> result = search.run(PolarBatch(ops.polar(np.roll(image, 1, axis=2), grid)))
    >>> search.poses.shifts_px[result.best_shift].tolist()
    [[-1.0, 0.0]]
    """

    def __init__(
        self,
        polar: ops.PolarGrid,
        poses: PoseGrid,
        where: Where | None = None,
        *,
        score: Literal["likelihood", "correlation"] = "likelihood",
        n_power: int = 3,
        max_candidates: int = 65536,
        epsilon: float = 1e-3,
    ) -> None:
        self.polar, self.poses, self.where = polar, poses, where or Where()
        self.plan = ops.ScorePlan(
            polar,
            poses.n_psi,
            n_power=n_power,
            score=score,
            epsilon=epsilon,
            max_candidates=max_candidates,
            device=self.where.device,
        )

    def set_reference(self, slices: npt.NDArray, log_prior: npt.ArrayLike | None = None) -> None:
        """Slices to search, (n, n_rings, n_theta // 2), and the log prior of each and of its opposite, (n, 2)."""
        self.plan.set_reference(slices, log_prior=log_prior, threads=self.where.threads)

    def run(self, batch: PolarBatch) -> ops.Scores:
        """Search a batch; what is found is on the host."""
        return self.plan.run(
            batch.samples,
            self.poses.shifts_px,
            ctf=batch.ctf,
            pixel_size_A=batch.pixel_size_A,
            inv_sigma2=batch.inv_sigma2,
            centres_px=batch.centres_px,
            log_shift=self.poses.log_shift,
            first_particle=batch.first_particle,
            threads=self.where.threads,
        )

    def posterior(self, scores: ops.Scores) -> ops.Posterior:
        """The candidates of each image, with probabilities that sum to one."""
        return ops.Posterior.from_scores(scores, self.poses.n_psi)


class SliceSums:
    """Sums of images over their posteriors, slice by slice: the transpose of :class:`GridSearch`.

    Parameters
    ----------
    polar : PolarGrid
        Rings summed.
    n_slices : int
    poses : PoseGrid
        Of the search that the posteriors come from.
    where : Where
    n_power : int, optional
        Even harmonics of C^2; as many as the grid has by default.
    """

    def __init__(
        self, polar: ops.PolarGrid, n_slices: int, poses: PoseGrid, where: Where, *, n_power: int | None = None
    ) -> None:
        self.polar, self.poses, self.where = polar, poses, where
        self.plan = ops.MaximisePlan(polar, n_slices, n_power=n_power, device=where.device)

    def set_reference(self, slices: npt.NDArray) -> None:
        """Slices that residuals are measured against."""
        self.plan.set_reference(slices, threads=self.where.threads)

    def add(self, batch: PolarBatch, posterior: ops.Posterior) -> None:
        """Add a batch."""
        self._add(batch, posterior, None)

    def add_measured(
        self, batch: PolarBatch, posterior: ops.Posterior, image_power: npt.NDArray | None = None
    ) -> ops.Residuals:
        """Add a batch, and measure it against the reference; residuals are on the host.

        ``image_power`` (n, n_rings) is the mean of abs(X)^2 of whole images where the samples are of masked ones.
        """
        residuals = self._add(batch, posterior, image_power)
        assert residuals is not None, "set_reference comes first"
        sums: ops.Residuals = all_to_host(residuals)
        return sums

    def _add(
        self, batch: PolarBatch, posterior: ops.Posterior, image_power: npt.NDArray | None
    ) -> ops.Residuals | None:
        return self.plan.add(
            batch.samples,
            posterior,
            self.poses.shifts_px,
            ctf=batch.ctf,
            pixel_size_A=batch.pixel_size_A,
            inv_sigma2=batch.inv_sigma2,
            centres_px=batch.centres_px,
            image_power=image_power,
            first_particle=batch.first_particle,
            threads=self.where.threads,
        )

    def insert(self, sums: ops.GridSums, matrices: FloatArray, *, first: int = 0) -> None:
        """Insert slices ``first``, ``first + 1``, ..., one per matrix, into the sums of a map."""
        self.plan.insert(sums, matrices, first=first, threads=self.where.threads)

    def slices(self) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32]]:
        """Numerator and denominator of every slice, on the host."""
        numerator, denominator = self.plan.slices(threads=self.where.threads)
        return to_host(numerator), to_host(denominator)
