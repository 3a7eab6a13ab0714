"""Exhaustive search of images against central slices: log-likelihood of every direction, psi and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session, refuse_non_finite_on
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid, polar_harmonics, polar_power

# Log prior of what is excluded: the kernel's own finite stand-in for -inf.
_NEVER = -1e30


@dataclass(frozen=True)
class Scores:
    """What a search found, one row per image; candidates of all images end to end.

    Attributes
    ----------
    best_score : (n,) float32
        Largest score: log-likelihood plus log priors, or correlation.
    best_slice, best_psi, best_shift : (n,) int32
        Where it stands: index of the slice, of the in-plane angle (:func:`psi_angles_deg`), of the shift.
    best_opposite : (n,) bool
        Whether the opposite of the slice was meant: direction (rot + 180, 180 - tilt) at the same psi.
    log_evidence : (n,) float64
        Log of the sum over all poses of exp(score): the log marginal likelihood up to pose-independent terms when the
        priors sum to one. NaN for correlations.
    kept : (n,) float64
        Share of the posterior that the candidates hold.
    offsets : (n + 1,) int64
        Candidates of image i are ``offsets[i]:offsets[i + 1]`` of the arrays below, by falling score.
    score, slice, opposite, psi, shift : (candidates,)
        The candidates.
    """

    best_score: npt.NDArray[np.float32]
    best_slice: npt.NDArray[np.int32]
    best_opposite: npt.NDArray[np.bool_]
    best_psi: npt.NDArray[np.int32]
    best_shift: npt.NDArray[np.int32]
    log_evidence: npt.NDArray[np.float64]
    kept: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    slice: npt.NDArray[np.int32]
    opposite: npt.NDArray[np.bool_]
    psi: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.best_score)

    @property
    def image(self) -> npt.NDArray[np.int64]:
        """Image that each candidate belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def probability(self) -> npt.NDArray[np.float64]:
        """Posterior probability of each candidate, exp(score - log_evidence)."""
        return np.exp(self.score.astype(np.float64) - self.log_evidence[self.image])


@dataclass(frozen=True)
class ScoreSettings:
    """What the kernels of both backends are told; its fields are those of cpp/math/score_settings.h."""

    n_psi: int
    n_power: int
    correlation: bool
    epsilon: float
    window_nats: float
    max_candidates: int


def psi_angles_deg(n_psi: int) -> npt.NDArray[np.float64]:
    """In-plane angles of the search: centres of ``n_psi`` cells, which halve into the cells of 2 ``n_psi``.

    Examples
    --------
    >>> from verglas import ops
    >>> ops.psi_angles_deg(8)[:3].tolist()
    [22.5, 67.5, 112.5]
    """
    return (np.arange(n_psi) + 0.5) * 360.0 / n_psi


class ScorePlan:
    r"""A search, made once per polar grid: ``set_reference``, then ``run`` on batches of images.

    .. math::
        L(d, \psi, t) = \sum_k \frac{\mathrm{Re}[(C A_{d\psi})^* X S_t]}{\sigma^2}
                        - \frac12 \sum_k \frac{C^2 |A_{d\psi}|^2}{\sigma^2} + \log p(d) + \log p(\psi) + \log p(t)

    over the full Fourier plane 0 < \|k\| < R + 1/2, S_t moving the image by t; terms that do not depend on the pose are
    left out. Method: docs/engine.md.

    Parameters
    ----------
    grid : PolarGrid
        Rings and harmonics.
    n_psi : int
        In-plane angles, a multiple of 8 (of 16 to waste nothing), centres of equal cells.
    n_power : int
        Even harmonics of the power term: 1 without astigmatism, 3 by default.
    score : {"likelihood", "correlation"}
        The log-likelihood, or the correlation coefficient :math:`X\cdot R / (|X||R|)` of FREALIGN with R = C A, both
        weighted by :math:`1/\sigma^2`; correlations use no priors, and the only candidate is the best pose.
    epsilon : float
        Posterior mass that the candidates of an image may lack.
    window_nats : float, optional
        Instead: candidates are all poses within this of the best.
    max_candidates : int
        Most candidates of one image; the best ones are kept and :attr:`Scores.kept` says what they hold.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: where the reference is kept and the search runs. Results are on the host
        either way.

    Raises
    ------
    ValueError
        A setting is out of range.
    DeviceError
        The device cannot be used; the message says why and what to do.

    Notes
    -----
    The result for an image does not depend on threads, on the batch or on its place in it, to the last bit. Scores are
    float32 (relative error about 1e-6 of the largest term), sums over poses float64. On a GPU the products run on
    tensor cores, operands split into two TF32 numbers each; scores differ from the CPU's by rounding.

    References
    ----------
    Likelihood: Sigworth (1998) J. Struct. Biol. 122, 328-339; Scheres (2012) J. Mol. Biol. 415, 406-418. Polar
    harmonics: Penczek et al. (1992) Ultramicroscopy 40, 33-53; correlation: Grigorieff (2007) J. Struct. Biol. 157,
    117-125.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> rng = np.random.default_rng(0)
    >>> references = rng.standard_normal((3, 32, 32)).astype(np.float32)
    >>> grid = ops.PolarGrid(32, 10)
    >>> plan = ops.ScorePlan(grid, 32)
    >>> plan.set_reference(ops.polar(references, grid))
    >>> scores = plan.run(ops.polar(np.roll(references[[2]], (1, 2), (1, 2)), grid), [[0, 0], [-2, -1]])
    >>> scores.best_slice.tolist(), scores.best_shift.tolist()
    ([2], [1])
    """

    def __init__(
        self,
        grid: PolarGrid,
        n_psi: int,
        *,
        n_power: int = 3,
        score: str = "likelihood",
        epsilon: float = 1e-3,
        window_nats: float | None = None,
        max_candidates: int = 65536,
        device: str = "cpu",
    ) -> None:
        if score not in ("likelihood", "correlation"):
            raise InputError(f"ScorePlan: score: expected 'likelihood' or 'correlation', got {score!r}")
        self.grid, self.n_psi, self.score = grid, int(n_psi), score
        self.n_power = min(int(n_power), grid.max_m // 2 + 1, grid.n_theta // 2)
        settings = ScoreSettings(
            n_psi=self.n_psi,
            n_power=self.n_power,
            correlation=score == "correlation",
            epsilon=float(epsilon),
            window_nats=float(window_nats or 0.0),
            max_candidates=int(max_candidates),
        )
        self.device = device
        self.native: Any = core.ScorePlan(grid.native, settings)  # checks the settings, whatever the device
        if device != "cpu":
            from verglas.ops import _cuda_score

            self.native = _cuda_score.CudaScorePlan(cuda_session(device), grid, settings)

    def set_reference(
        self,
        samples: npt.ArrayLike,
        *,
        log_prior: npt.ArrayLike | None = None,
        opposite: bool = False,
        threads: int | None = None,
    ) -> None:
        """Take in the slices to search, of one or of several references end to end.

        Parameters
        ----------
        samples : (n, n_rings, n_theta // 2) complex64
            :func:`polar_slices` of a map, or :func:`polar` of class averages, at psi = 0; on the host, or on the plan's
            device.
        log_prior : (n, 2) float, optional
            Log prior of each slice and of its opposite (column 1), cell volume and class prior included; -inf leaves an
            entry out. By default equal for all.
        opposite : bool
            Without ``log_prior``: whether the opposite direction of every slice is searched too, at half the cost of
            another slice.
        threads : int, optional
            Threads; all by default.

        Raises
        ------
        InputError
            A sample is not finite; the message names the slice.
        """
        harmonics = polar_harmonics(samples, self.grid, device=self.device, threads=threads)
        refuse_non_finite_on(self.device, harmonics, "ScorePlan.set_reference: slice {}")
        if log_prior is None:
            sides = 2 if opposite else 1
            log_prior = np.full((len(harmonics), 2), -np.inf)
            log_prior[:, :sides] = -np.log(max(1, sides * len(harmonics)))
        power = polar_power(samples, self.grid, self.n_power, device=self.device, threads=threads)
        self.native.set_reference(harmonics, power, as_array(log_prior, np.float32))

    def run(
        self,
        samples: npt.ArrayLike,
        shifts_px: npt.ArrayLike,
        *,
        ctf: npt.ArrayLike | None = None,
        pixel_size_A: float = 1.0,
        inv_sigma2: npt.ArrayLike | None = None,
        centres_px: npt.ArrayLike | None = None,
        log_shift: npt.ArrayLike | None = None,
        log_psi: npt.ArrayLike | None = None,
        first_particle: int = 0,
        threads: int | None = None,
    ) -> Scores:
        """Search a batch of images.

        Parameters
        ----------
        samples : (n, n_rings, n_theta // 2) complex64
            :func:`polar` of the images; on the host, or on the plan's device.
        shifts_px : (n_shifts, 2) float32
            x, y: the image is moved by this, as by a STAR file's origin.
        ctf : (n, 14) float64, optional
            CTF parameters (:func:`verglas.ops.ctf`), scale included; none by default.
        pixel_size_A : float
            Pixel size in angstrom, for the CTF.
        inv_sigma2 : (n, n_rings) or (n_rings,) float32, optional
            1 / noise variance of one complex coefficient of the unnormalised transform, per ring; 1 by default.
        centres_px : (n, 2) float32, optional
            Added to every shift of that image.
        log_shift : (n_shifts,), optional
            Log prior of the shifts; equal and summing to one by default.
        log_psi : (n_psi,), optional
            Log prior of the in-plane angles; equal and summing to one by default.
        first_particle : int
            Number of the batch's first particle, for messages.
        threads : int, optional
            Threads; all by default. The result does not depend on it. CPU only.

        Returns
        -------
        Scores
            On the host.

        Raises
        ------
        InputError
            An image, its CTF or its noise is not finite; the message names the particle. Or a shape is wrong.
        """
        shifts = as_array(np.atleast_2d(np.asarray(shifts_px, np.float32)), np.float32)
        # A uniform psi prior is one constant; it is added to the shifts' priors, which every pose has one of.
        constant = -np.log(self.n_psi) if log_psi is None else 0.0
        by_shift = np.full(len(shifts), -np.log(max(1, len(shifts)))) if log_shift is None else np.asarray(log_shift)
        by_psi = None if log_psi is None else as_array(np.maximum(log_psi, _NEVER), np.float32)
        priors = as_array(np.maximum(by_shift + constant, _NEVER), np.float32), by_psi
        images: dict[str, Any] = {"inv_sigma2": inv_sigma2, "ctf": ctf, "centres_px": centres_px}
        if self.device == "cpu":
            x = PolarImages.of(self.grid, samples, **images)
            x.refuse_non_finite("score", first_particle)
            scores = self.native.run(
                x.samples,
                x.ctf,
                float(pixel_size_A),
                x.inv_sigma2,
                x.centres_px,
                shifts,
                *priors,
                resolve_threads(threads),
            )
        else:
            scores = self._run_cuda(samples, images, float(pixel_size_A), (shifts, *priors), first_particle)
        lost = np.flatnonzero(scores["best_entry"] < 0)
        if lost.size:
            raise InputError(
                f"score: particle {first_particle + lost[0]}: no pose has a finite score; check the priors (every "
                "direction, psi or shift excluded?) and the scale of its pixels and noise"
            )
        return _as_scores(scores, self.score == "correlation")

    def _run_cuda(
        self, samples: Any, images: dict[str, Any], pixel_size_A: float, shifts: tuple, first_particle: int
    ) -> dict[str, Any]:
        cuda = self.native.cuda
        with cuda.active():
            x = PolarImages.of(self.grid, samples, **images, cuda=cuda)
            x.refuse_non_finite("score", first_particle)
        return self.native.run(x, pixel_size_A, *shifts)


def _as_scores(fields: dict, correlation: bool) -> Scores:
    entry, best = fields["entry"], fields["best_entry"]
    n = len(best)
    return Scores(
        best_score=fields["best_score"],
        best_slice=best // 2,
        best_opposite=best % 2 == 1,
        best_psi=fields["best_psi"],
        best_shift=fields["best_shift"],
        log_evidence=np.full(n, np.nan) if correlation else fields["log_sum"],
        kept=np.full(n, np.nan) if correlation else fields["kept"],
        offsets=fields["offsets"],
        score=fields["score"],
        slice=entry // 2,
        opposite=entry % 2 == 1,
        psi=fields["psi"],
        shift=fields["shift"],
    )


def score(
    samples: npt.ArrayLike,
    reference: npt.ArrayLike,
    grid: PolarGrid,
    shifts_px: npt.ArrayLike,
    n_psi: int,
    *,
    opposite: bool = False,
    n_power: int = 3,
    epsilon: float = 1e-3,
    device: str = "cpu",
    threads: int | None = None,
    **images: object,
) -> Scores:
    """Search images against slices once: :class:`ScorePlan` made, filled and run.

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        :func:`polar` of the images.
    reference : (n_slices, n_rings, n_theta // 2) complex64
        :func:`polar_slices` of a map, or :func:`polar` of class averages.
    grid : PolarGrid
        Rings and angles of both.
    shifts_px : (n_shifts, 2) float32
        Shifts to try.
    n_psi : int
        In-plane angles, a multiple of 8.
    opposite : bool
        Whether the opposite of every slice is searched too.
    n_power, epsilon, device
        As in :class:`ScorePlan`.
    threads : int, optional
        Threads; all by default.
    **images
        ``ctf``, ``pixel_size_A``, ``inv_sigma2``, ``centres_px``, priors, as in :meth:`ScorePlan.run`.

    Returns
    -------
    Scores

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> x = np.random.default_rng(1).standard_normal((2, 32, 32)).astype(np.float32)
    >>> grid = ops.PolarGrid(32, 8)
    >>> s = ops.polar(x, grid)
    >>> ops.score(s, s, grid, [[0, 0]], 24).best_slice.tolist()
    [0, 1]
    """
    plan = ScorePlan(grid, n_psi, n_power=n_power, epsilon=epsilon, device=device)
    plan.set_reference(reference, opposite=opposite, threads=threads)
    return plan.run(samples, shifts_px, threads=threads, **images)  # type: ignore[arg-type]
