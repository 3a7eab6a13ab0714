"""How much memory a 2D classification takes, phase by phase; and what of it may be kept between passes."""

from __future__ import annotations

from dataclasses import dataclass

from verglas import ops
from verglas._native import resolve_threads
from verglas.classification.em2d import CANDIDATES, plan_stage
from verglas.classification.settings import Class2DSettings
from verglas.classification.stages import first_radii, seed_count, shift_range_px
from verglas.classification.working_set import BLOCK, IMAGES_SHARE, SAMPLES_SHARE, Geometry, plan_geometry

MEMORY_GB = 4.0
"""Most that a classification takes where nothing else is said."""
# Measured in processes of their own (tests/test_memory_plan.py): the interpreter with its libraries, matplotlib
# included; and what a page takes while it is drawn.
_BASE_BYTES = 0.175e9
_PAGE_BYTES = 0.065e9
# Per pixel of a block of images as they are read: raw, the background in float64, and what is made of both.
_READ_BYTES = 24
# Per working pixel of a batch: images, masked ones, their transforms.
_PIXEL_BYTES = 40
# Per entry of an image's list of candidates, with the posterior, its copy by half set, and weights on the way.
_LISTED_BYTES = 70
_SAMPLE_BYTES = 8
_LANES = 16  # images or shifts that a thread searches together
_MODEL_COPIES = 6  # of the averages: before, after, of each half, filtered, of the page


@dataclass(frozen=True)
class Caches:
    """What is kept between passes, by the memory that is allowed.

    Attributes
    ----------
    images : bool
        Prepared images.
    whole, masked : bool
        Polar samples that the sums take, and those that the search takes.
    """

    images: bool
    whole: bool
    masked: bool


class Class2DMemory:
    """Bytes of a classification on the CPU.

    Parameters
    ----------
    n, box : int
        Particles, and the side of their images.
    pixel_size_A : float
    settings : Class2DSettings
    threads : int, optional
    """

    def __init__(
        self, n: int, box: int, pixel_size_A: float, settings: Class2DSettings, threads: int | None = None
    ) -> None:
        self.n, self.box, self.settings = n, box, settings
        self.threads = resolve_threads(threads)
        self.geometry: Geometry = plan_geometry(box, pixel_size_A, settings)
        self.whole = ops.PolarGrid(self.geometry.box, self.geometry.last_ring, diameter_px=self.geometry.box)

    def cache_bytes(self) -> tuple[float, float, float]:
        """Of images, of whole samples and of masked ones, with the power of each ring."""
        narrow = self._narrow(self.geometry.search_limit)
        images = 4.0 * self.n * self.geometry.box**2
        whole, masked = (_SAMPLE_BYTES * g.n_rings * g.n_theta / 2 + 8 * g.n_rings for g in (self.whole, narrow))
        return images, self.n * whole, self.n * masked

    def room_GB(self, limit_GB: float) -> float:
        """What caches may take under a limit."""
        return max(0.0, limit_GB - self.fixed_bytes() / 1e9)

    def caches(self, limit_GB: float) -> Caches:
        """What is kept under a limit: what fits its share of the room (:class:`WorkingSet`)."""
        room = 1e9 * self.room_GB(limit_GB)
        images, whole, masked = self.cache_bytes()
        return Caches(images <= IMAGES_SHARE * room, whole <= SAMPLES_SHARE * room, masked <= SAMPLES_SHARE * room)

    def fixed_bytes(self) -> float:
        """The peak without anything kept."""
        return max(self.phases(Caches(False, False, False)).values())

    def phases(self, caches: Caches) -> dict[str, float]:
        """Peak of each phase, everything included."""
        kept = sum(
            size
            for size, is_kept in zip(self.cache_bytes(), (caches.images, caches.whole, caches.masked), strict=True)
            if is_kept
        )
        always = _BASE_BYTES + kept
        classes = self.settings.classes
        seeds = seed_count(self.n, classes) if self.settings.start == "seeds" else classes
        radii = first_radii(self.geometry, self.settings)
        return {
            "images": always + _READ_BYTES * min(BLOCK, self.n) * self.box**2,
            "seeds": always + max(self._pass_bytes(seeds, radius) for radius in set(radii)),
            "classes": always + self._pass_bytes(classes, self.geometry.search_limit),
            "page": always + _PAGE_BYTES + self._model_bytes(classes),
        }

    def _narrow(self, radius: int) -> ops.PolarGrid:
        return ops.PolarGrid(self.geometry.box, radius, diameter_px=self.geometry.diameter_px)

    def _model_bytes(self, classes: int) -> float:
        return 4.0 * _MODEL_COPIES * classes * self.geometry.box**2

    def _pass_bytes(self, classes: int, radius: int) -> float:
        """One iteration: a batch, its lists where posteriors are broad, slices and their sums, what threads hold."""
        stage = plan_stage(self.geometry, radius, shift_range_px(self.geometry, self.settings), self.settings.step_deg)
        narrow, batch, shifts = self._narrow(radius), min(BLOCK, self.n), len(stage.shifts_px)
        samples = sum(_SAMPLE_BYTES * g.n_rings * g.n_theta / 2 for g in (self.whole, narrow))
        lists = min(CANDIDATES, classes * stage.n_psi * shifts) * _LISTED_BYTES
        sums = 2 * classes * (ops.MaximisePlan(self.whole, 1, n_power=None).slice_bytes)
        # Numerators and denominators by half set in double precision, of two iterations.
        sums += 2 * 2 * classes * self.whole.n_rings * (self.whole.n_theta // 2) * 24
        vectors = shifts + -(-shifts // _LANES)
        threads = self.threads * 4.0 * vectors * narrow.size * 2 * _LANES
        return (
            batch * (_PIXEL_BYTES * self.geometry.box**2 + 3 * samples + lists)
            + sums
            + threads
            + self._model_bytes(classes)
        )
