"""Branch and bound from a coarse exhaustive search to the final resolution, or within windows around known poses."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from verglas import gridding, ops
from verglas._array_module import array_module, to_host
from verglas._devices import to_device
from verglas.errors import InputError
from verglas.geometry import (
    direction_vectors,
    euler_to_matrix,
    healpix_directions,
    healpix_index,
    symmetry_matrices,
    to_asymmetric_unit,
    unit_pixels,
)
from verglas.search.bound import Bounds, lattice_quarter, lattice_unit_px, make_bounds
from verglas.search.cells import CHILDREN, Cells, Level, opposite_pixels, slices_of_pixels, split, untwisted_psi_deg
from verglas.search.evaluate import Evaluator, Reference
from verglas.search.grid_search import Where
from verglas.search.image_batch import ImageBatch
from verglas.search.posterior import (
    Found,
    ImagePosterior,
    LevelStatistics,
    SearchResult,
    best_of_each,
    by_falling_score,
    collect,
    image_posterior,
    segments,
)
from verglas.search.search_settings import LocalWindow, SearchSettings, first_level_shifts, slices_per_block
from verglas.types.arrays import FloatArray, IntArray

# Nats below the best: a window of the first level that holds few cells of a sharp posterior.
_NARROW_NATS = 30.0


class PoseSearch:
    """A map, levels and bounds, ready to search batches of images.

    Parameters
    ----------
    volume : (N, N, N) float32
        The map, on the images' grey scale.
    levels : list of Level
        :func:`verglas.search.search_levels`.
    symmetry : str
        Point group: directions are searched in its asymmetric unit.
    diameter_px : float, optional
        Diameter of the mask that images carry; the box by default.
    settings : SearchSettings, optional
    threads : int, optional
        Threads; all by default. Results do not depend on it.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: where cells are scored. Bounds, lists of cells and posteriors are the host's.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.search import PoseSearch, SearchSettings, search_levels
    >>> rng = np.random.default_rng(0)
    >>> volume = np.zeros((16, 16, 16), np.float32); volume[5:11, 6:10, 7:12] = 1; volume[9, 4, 8] = 3
    >>> search = PoseSearch(volume, search_levels([4, 6], order=0), settings=SearchSettings(shift_range_px=1))
    >>> result = search.run(volume.sum(0)[None], inv_sigma2=np.full(9, 0.1))
    >>> result.angles_deg.shape, int(result.level[0])
    ((1, 3), 1)
    """

    def __init__(
        self,
        volume: npt.ArrayLike,
        levels: list[Level],
        *,
        symmetry: str = "C1",
        diameter_px: float | None = None,
        settings: SearchSettings | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.settings, self.levels, self.threads = settings or SearchSettings(), levels, threads
        self.device = device
        self.symmetry = symmetry
        data = np.asarray(volume, np.float32)
        box = data.shape[0]
        grid3 = ops.Grid(box, max_radius=levels[-1].radius)
        spectrum = gridding.to_grid(data, grid3, threads=threads)
        self.reference = Reference(to_device(spectrum, device), grid3, device)
        self.polar = [
            ops.PolarGrid(box, v.radius, diameter_px=diameter_px, spacing=self.settings.spacing) for v in levels
        ]
        self.bounds: Bounds = make_bounds(spectrum, grid3, levels, self.polar, threads=threads)
        self.unit_px = lattice_unit_px(levels)
        self.pixels, self.group = unit_pixels(levels[0].order, symmetry), symmetry_matrices(symmetry)
        self.shifts = first_level_shifts(levels, self.settings)
        self.evaluators = [
            Evaluator(v, g, self.unit_px, self.settings.n_power, slices_per_block(g, self.settings))
            for v, g in zip(levels, self.polar, strict=True)
        ]

    def poses_per_image(self, level: int) -> int:
        """Poses of the whole grid of a level."""
        v = self.levels[level]
        return len(self.pixels) * 4**level * v.n_psi * len(self.shifts) * 4**level

    def run(
        self,
        images: npt.ArrayLike,
        inv_sigma2: npt.ArrayLike,
        *,
        ctf: npt.ArrayLike | None = None,
        pixel_size_A: float = 1.0,
        centres_px: npt.ArrayLike | None = None,
        window: LocalWindow | None = None,
        first_particle: int = 0,
        known_deg: npt.ArrayLike | None = None,
    ) -> SearchResult:
        """Search images.

        Parameters
        ----------
        images : (n, N, N) float32
            Masked images, particles white; a NumPy array, or a CuPy array on the search's device.
        inv_sigma2 : (n, shells) or (shells,)
            1 / noise variance of one coefficient of the unnormalised transform, by shell round(|k|).
        ctf : (n, 14) float64, optional
            CTF parameters, as in :func:`verglas.ops.ctf`.
        pixel_size_A : float
            For the CTF.
        centres_px : (n, 2), optional
            Shifts around which to search.
        window : LocalWindow, optional
            Search only near these orientations.
        first_particle : int
            Number of the first image, for messages.
        known_deg : (n, 3), optional
            Orientations from before, such as those of the last iteration; the window's by default. Images are batched
            by direction, so that neighbours share slices. What is found does not depend on it.

        Returns
        -------
        SearchResult

        Raises
        ------
        InputError
            An image, its CTF or noise is not finite; the message names the particle.
        """
        x = images if self.device != "cpu" else np.ascontiguousarray(images, np.float32)
        x = to_device(x, self.device)
        n = len(x)
        inv = np.broadcast_to(np.asarray(inv_sigma2, np.float64), (n, np.shape(inv_sigma2)[-1]))
        if inv.shape[1] <= self.levels[-1].radius:
            raise InputError(
                f"PoseSearch: inv_sigma2: expected {self.levels[-1].radius + 1} shells or more, got {inv.shape[1]}"
            )
        params = None if ctf is None else np.asarray(ctf, np.float64)
        centres = np.zeros((n, 2)) if centres_px is None else np.asarray(centres_px, np.float64)
        prior_deg = known_deg if known_deg is not None or window is None else window.angles_deg
        inputs: dict[str, npt.NDArray | None] = {
            "pixels": x,
            "noise spectrum": inv,
            "CTF parameters": params,
            "centre": centres,
            "window": None if window is None else np.asarray(window.angles_deg),
            "known orientation": None if prior_deg is None else np.asarray(prior_deg),
        }
        self._refuse(inputs, n, first_particle)
        statistics = [
            LevelStatistics(v.radius, v.order, n * self.poses_per_image(k)) for k, v in enumerate(self.levels)
        ]
        posteriors: list[ImagePosterior | None] = [None] * n
        constants = np.zeros(n)
        # Slices are made per batch: neighbours in direction share them, particles in the order of the file do not.
        order = np.arange(n) if prior_deg is None else self._by_direction(prior_deg)
        for begin in range(0, n, self.settings.batch):
            rows = order[begin : begin + self.settings.batch]
            batch = ImageBatch(
                rows,
                x[array_module(x).asarray(rows)],
                None if params is None else params[rows],
                inv[rows],
                centres[rows],
                pixel_size_A,
                Where(self.device, self.threads),
            )
            local = None if window is None else LocalWindow(np.asarray(window.angles_deg)[rows], window.width_deg)
            batch_posteriors, log_cells = self._run_batch(batch, local, statistics)
            for row, posterior in zip(rows, batch_posteriors, strict=True):
                posteriors[row] = posterior
            # A cell's prior is that of the first level's cell shared among its descendants: images that stop at
            # different levels stay comparable.
            constants[rows] = -log_cells - np.log(CHILDREN) * np.array([p.level for p in batch_posteriors])
        return collect([p for p in posteriors if p is not None], centres, constants, statistics)

    def _by_direction(self, angles_deg: npt.ArrayLike) -> IntArray:
        """Order in which neighbours in direction share a batch, and so the slices that are made for it."""
        order = self.levels[0].order
        nearest = to_asymmetric_unit(angles_deg, self.symmetry)
        pixel = healpix_index(order, nearest[:, :2])
        return np.argsort(slices_of_pixels(order, pixel)[0], kind="stable")

    @staticmethod
    def _refuse(inputs: dict[str, npt.NDArray | None], n: int, first: int) -> None:
        for what, array in inputs.items():
            if array is None:
                continue
            if len(array) != n:
                raise InputError(f"PoseSearch: {n} images but {len(array)} rows of {what}")
            good = array_module(array).isfinite(array.reshape(n, -1)).all(axis=1)
            bad = np.flatnonzero(~to_host(good))
            if bad.size:
                raise InputError(
                    f"PoseSearch: particle {first + bad[0]}: its {what} are not finite; mend it or leave it out"
                )

    # -- levels --------------------------------------------------------------------------------------------------

    def _shift_prior(self, cells: Cells, level: int, *, highest: bool) -> FloatArray:
        """Log prior of the centres' shifts, or the highest inside each cell; without the constant."""
        sigma = self.settings.shift_sigma_px
        if sigma is None:
            return np.zeros(len(cells))
        away = np.abs(cells.shift * self.unit_px)
        if highest:
            away = np.maximum(away - self.levels[level].shift_step_px / 2, 0)
        return -np.sum(away**2, axis=1) / (2 * sigma**2)

    def _score(self, batch: ImageBatch, cells: Cells, level: int) -> Found:
        likelihood = self.evaluators[level].scores(self.reference, batch, cells)
        return Found(cells, likelihood + self._shift_prior(cells, level, highest=False))

    def _gains(self, batch: ImageBatch) -> list[FloatArray]:
        grid = self.polar[-1]
        power = ops.polar_ctf_power(
            batch.ring_weights(grid), grid, 1, ctf=batch.params, pixel_size_A=batch.pixel_size_A, threads=self.threads
        )
        return self.bounds.gains(power[..., 0].real.astype(np.float64), self.settings.kappa)

    @cached_property
    def _first_slices(self) -> tuple[IntArray, npt.NDArray, FloatArray]:
        """Of the first level, made once: pixels, samples, and the log prior of each and its opposite."""
        order, grid = self.levels[0].order, self.polar[0]
        slices_made, opposite = slices_of_pixels(order, self.pixels)
        slices, row = np.unique(slices_made, return_inverse=True)
        log_prior = np.full((len(slices), 2), -np.inf)
        log_prior[row, opposite.astype(int)] = 0.0
        return slices, self.reference.slices(order, slices, grid, self.threads), log_prior

    def _exhaustive(self, batch: ImageBatch, window_nats: float, rows: IntArray | None = None) -> Found:
        """All poses of the first level within a window of the best, of all images or of some.

        ``rest`` counts the mass outside the list.
        """
        level, grid = self.levels[0], self.polar[0]
        plan = ops.ScorePlan(
            grid,
            level.n_psi,
            n_power=self.settings.n_power,
            epsilon=min(self.settings.epsilon, 1e-3),
            window_nats=window_nats,
            # One more than may go on: a list that is full tells that the posterior is too broad.
            max_candidates=self.settings.max_cells + 1,
            device=self.device,
        )
        slices, samples, log_prior = self._first_slices
        plan.set_reference(samples, log_prior=log_prior, threads=self.threads)
        at = np.arange(len(batch)) if rows is None else rows
        posterior = plan.run(
            batch.samples(grid, at),
            self.shifts * self.unit_px,
            centres_px=batch.origin_px[at],
            log_shift=self._shift_prior(self._shift_cells(), 0, highest=False),
            **batch.per_image(grid, at),
        )
        pixel = slices[posterior.slice]
        pixel = np.where(posterior.opposite, opposite_pixels(level.order, pixel), pixel)
        cells = Cells(at[posterior.image], pixel, posterior.psi.astype(np.int64), self.shifts[posterior.shift])
        constant, rest = np.log(level.n_psi), np.full(len(batch), -np.inf)
        # the constant is the plan's uniform prior of psi, taken off again
        with np.errstate(divide="ignore"):
            # 'kept' is a float32 sum and may pass 1 by rounding, which would make the rest's mass negative.
            rest[at] = posterior.log_evidence + constant + np.log(np.maximum(1 - np.minimum(posterior.kept, 1), 0))
        return Found(cells, posterior.score + constant, rest)

    def _first_cells(self, batch: ImageBatch, margin_nats: FloatArray) -> Found:
        """Cells of the first level within so many nats of each image's best, or the ``max_cells + 1`` best.

        A wide window costs more than the search. With ``keep_best`` an image of which a narrow one holds more cells
        than go on needs no wider one.
        """
        if not self.settings.keep_best or margin_nats.max() <= _NARROW_NATS:
            return self._exhaustive(batch, float(margin_nats.max()))
        narrow = self._exhaustive(batch, _NARROW_NATS)
        counts = np.bincount(narrow.cells.image, minlength=len(batch))
        # An image with more cells than go on is cut to its best anyway: a wider window would not change which.
        few = np.flatnonzero((counts <= self.settings.max_cells) & (margin_nats > _NARROW_NATS))
        if not len(few):
            return narrow
        wide = self._exhaustive(batch, float(margin_nats[few].max()), few)
        others = np.flatnonzero(~np.isin(narrow.cells.image, few))
        image = np.concatenate([narrow.cells.image[others], wide.cells.image])
        order = np.argsort(image, kind="stable")
        parts = [narrow.cells[others], wide.cells]
        cells = Cells(image, *(np.concatenate([getattr(p, k) for p in parts]) for k in ("pixel", "psi", "shift")))
        assert narrow.rest is not None
        assert wide.rest is not None
        rest = narrow.rest.copy()
        rest[few] = wide.rest[few]
        return Found(cells[order], np.concatenate([narrow.score[others], wide.score])[order], rest)

    def _window_cells(self, window: LocalWindow) -> Cells:
        """Cells of the first level whose centres lie in the window of an image, or of one of its symmetry mates.

        The nearest direction is always among them: a window may be narrower than the grid.
        """
        level = self.levels[0]
        vectors = direction_vectors(healpix_directions(level.order, self.pixels))
        # The search visits one asymmetric unit only: a window at its border reaches in through a symmetry mate.
        mates = euler_to_matrix(window.angles_deg)[:, None] @ self.group
        cosine = mates[:, :, 2] @ vectors.T  # the third row is the viewing direction; (n, mates, pixels)
        # The cell that holds the nearest direction always counts; the margin of 1e-12 keeps it through rounding of the
        # cosine.
        step = 360 / level.n_psi
        least = np.minimum(np.cos(np.deg2rad(window.width_deg + step / 2)), cosine.max(axis=(1, 2)) - 1e-12)
        image, mate, which = np.nonzero(cosine >= least[:, None, None])
        centre = untwisted_psi_deg(mates[image, mate], healpix_directions(level.order, self.pixels[which]))
        reach = min(int(np.ceil(window.width_deg / step)), level.n_psi // 2)
        psi = np.round(centre / step - 0.5).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        key = (image * len(self.pixels) + which)[:, None] * level.n_psi + psi % level.n_psi
        at = np.unique(key)  # mates may meet beside an axis
        image, which = at // level.n_psi // len(self.pixels), at // level.n_psi % len(self.pixels)
        image, pixel, psi = (np.repeat(v, len(self.shifts)) for v in (image, self.pixels[which], at % level.n_psi))
        return Cells(image, pixel, psi, np.tile(self.shifts, (len(at), 1)))

    def _search_first_level(
        self, batch: ImageBatch, window: LocalWindow | None, gains: FloatArray, statistics: list[LevelStatistics]
    ) -> tuple[Found, FloatArray, FloatArray]:
        """The first level with every cell that may survive; scores to beat; log of the prior's sum over cells."""
        if window is not None:
            scores = self._score(batch, self._window_cells(window), 0)
            statistics[0].evaluated += len(scores.cells)
            log_cells = np.log(
                np.bincount(scores.cells.image, np.exp(self._shift_prior(scores.cells, 0, highest=False)), len(batch))
            )
            return scores, self._probe(batch, scores, statistics), log_cells
        statistics[0].evaluated += len(batch) * self.poses_per_image(0)
        directions = len(self.pixels) * self.levels[0].n_psi
        shifts = np.exp(self._shift_prior(self._shift_cells(), 0, highest=False)).sum()
        log_cells = np.full(len(batch), np.log(directions * shifts))
        margin = np.log(1 / self.settings.epsilon) + self._prior_slack() + gains
        # Expecting that the score to beat is no lower than the best so far; checked, and mended, below.
        scores = self._first_cells(batch, margin)
        lowest = self._probe(batch, scores, statistics)
        best = np.full(len(batch), -np.inf)
        np.maximum.at(best, scores.cells.image, scores.score)
        margin_needed = best - lowest + margin
        # The guess was wrong for some image: once more, one nat wider, so that rounding does not decide.
        if margin_needed.max() > margin.max():
            scores = self._first_cells(batch, margin_needed + 1.0)
        return scores, lowest, log_cells

    def _shift_cells(self) -> Cells:
        return Cells(*(np.zeros(len(self.shifts), np.int64),) * 3, shift=self.shifts)

    def _prior_slack(self) -> float:
        """How much higher the shift prior may be inside a first-level cell than at its centre."""
        cells = self._shift_cells()
        return float(np.max(self._shift_prior(cells, 0, highest=True) - self._shift_prior(cells, 0, highest=False)))

    def _probe(self, batch: ImageBatch, scores: Found, statistics: list[LevelStatistics]) -> FloatArray:
        """Greedy descent along the best few cells: a score that the final best cannot be below."""
        for level in range(len(self.levels) - 1):
            top = best_of_each(scores, self.settings.beam)
            scores = self._score(
                batch, split(scores.cells[top], self.levels[level], lattice_quarter(self.levels, level)), level + 1
            )
            statistics[level + 1].probed += len(scores.cells)
        best = np.full(len(batch), -np.inf)
        np.maximum.at(best, scores.cells.image, scores.score)
        return best

    def _run_batch(
        self, batch: ImageBatch, window: LocalWindow | None, statistics: list[LevelStatistics]
    ) -> tuple[list[ImagePosterior], FloatArray]:
        gains = self._gains(batch)
        scores, lowest, log_cells = self._search_first_level(batch, window, gains[0], statistics)
        result: dict[int, ImagePosterior] = {}
        last = len(self.levels) - 1
        for level in range(last):
            keep = self._survivors(scores, level, lowest, gains[level])
            counts = np.bincount(scores.cells.image[keep], minlength=len(batch))
            broad = counts > self.settings.max_cells
            if self.settings.keep_best:
                rows = np.flatnonzero(keep)
                best = best_of_each(Found(scores.cells[rows], scores.score[rows]), self.settings.max_cells)
                keep[:] = False
                keep[rows[best]] = True
                statistics[level].cut += int(broad.sum())
            else:
                self._finish(scores, level, broad, result)
                keep &= ~broad[scores.cells.image]
                statistics[level].stopped += int(broad.sum())
            statistics[level].survived += int(keep.sum())
            children = split(scores.cells[keep], self.levels[level], lattice_quarter(self.levels, level))
            scores = self._score(batch, children, level + 1)
            statistics[level + 1].evaluated += len(children)
        self._finish(scores, last, np.ones(len(batch), bool), result)
        return [result[i] for i in range(len(batch))], log_cells

    def _survivors(self, scores: Found, level: int, lowest: FloatArray, gains: FloatArray) -> npt.NDArray[np.bool_]:
        """Cells that may hold a pose of mass epsilon: score + bound >= score to beat - log(1 / epsilon)."""
        inside = self._shift_prior(scores.cells, level, highest=True)
        highest = scores.score + inside - self._shift_prior(scores.cells, level, highest=False)
        least = lowest - np.log(1 / self.settings.epsilon) - gains
        keep = highest >= least[scores.cells.image]
        keep[best_of_each(scores, self.settings.beam)] = True  # what the greedy descent followed
        return keep

    def _finish(
        self, scores: Found, level: int, which: npt.NDArray[np.bool_], result: dict[int, ImagePosterior]
    ) -> None:
        """Posteriors of the images in ``which`` from the cells of this level."""
        for rows in segments(scores.cells.image):
            image = int(scores.cells.image[rows.start])
            if which[image]:
                order = rows.start + by_falling_score(scores.score[rows])
                result[image] = image_posterior(
                    scores, order, level, self.levels[level], self.unit_px, self.settings.epsilon
                )
