"""What stays fixed during a refinement, and the images in batches."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas._array_module import to_host
from verglas._devices import to_device, upload_pieces, work_on
from verglas.errors import InputError
from verglas.geometry import symmetry_matrices
from verglas.image import find_unusable_images
from verglas.image.outliers import GreyValues, groups_of, wild_images
from verglas.masks import soft_circle, soft_sphere
from verglas.reconstruction.ewald import Sign
from verglas.reconstruction.known_poses import half_sets
from verglas.reconstruction.sums import Symmetry
from verglas.search.grid_search import Where
from verglas.search.image_batch import ImageBatch
from verglas.search.state import HalfModel, PoseTable
from verglas.types import Particles
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.particle_size import refuse_tiny_particle

if TYPE_CHECKING:
    from typing_extensions import Self

_EDGE_PX = 5.0
_WITHOUT_NEIGHBOURS = 1.2  # diameters
_BATCH_PIXELS = 1 << 22
_FEWEST = 20
_PARTICLE = re.compile(r"\bparticle (\d+)\b")
BLOCK_PARTICLES = 1000


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Particles that can be used, with what is derived from them once, and what is searched for.

    Attributes
    ----------
    particles : Particles
        Without those set aside.
    half : (n,) int64
        Half set of each particle, 1 or 2.
    group : (n,) int64
        Noise group (optics group), from 0.
    micrograph : (n,) int64
        Scale group, from 0.
    params : (n, 14) float64
        CTF parameters (:func:`verglas.ops.ctf`).
    symmetry : str
        Point group, RELION's orientation.
    diameter_A : float, optional
        Diameter of the particle; four fifths of the box by default.
    max_resolution_A : float, optional
        No finer data are used; Nyquist by default.
    correlation : bool
        Poses by the largest correlation coefficient; by default by likelihood.
    prior_deg, prior_A : float, optional
        Width of a Gaussian prior about the poses that the particles have: of each component of the rotation vector, of
        each shift. None without.
    threads : int, optional
        Threads; all by default. Results do not depend on it.
    batch : int
        Images read and worked on at a time; results do not depend on it.
    devices : tuple of str
        ``("cpu",)``, or the GPUs that share the particles of a half set in contiguous blocks.
    first_origin_px : (n, 2) float64, optional
        Shifts that a search without known poses starts from.
    edge_px : float
        Width of the soft edges of circle and sphere, outside the particle's diameter.
    block_particles : int
        Particles whose sums are made together (:mod:`verglas.search.blocks`): results depend on it in their last bits.
    whole : (int, int), optional
        Noise and scale groups of the set that these particles are part of; their own by default.
    numbers : (n,) int64, optional
        Of the particles in that set, for messages; counted from 0 by default.
    job : str
        Who asks, for messages.
    ewald_sign : {"positive", "negative"}, optional
        Maps are made of side bands on Ewald's sphere, curved this way, where poses are continuous; flat slices without.
    """

    particles: Particles
    half: IntArray
    group: IntArray
    micrograph: IntArray
    params: FloatArray
    symmetry: str = "C1"
    diameter_A: float | None = None
    max_resolution_A: float | None = None
    correlation: bool = False
    prior_deg: float | None = None
    prior_A: float | None = None
    threads: int | None = None
    batch: int = 0
    devices: tuple[str, ...] = ("cpu",)
    first_origin_px: FloatArray | None = None
    edge_px: float = _EDGE_PX
    block_particles: int = BLOCK_PARTICLES
    whole: tuple[int, int] | None = None
    numbers: IntArray | None = None
    job: str = "search"
    ewald_sign: Sign | None = None

    @classmethod
    def of(cls, particles: Particles, excluded: dict[int, str], *, job: str, seed: int = 0, **fields: Any) -> Self:
        """The particles that can be used, as a problem; ``fields`` are those that do not follow from the particles."""
        # Half sets are drawn after the unusable ones are gone: a half of duds would be no half.
        usable = np.ones(len(particles), bool)
        usable[list(excluded)] = False
        if usable.sum() < _FEWEST:
            first = next(iter(excluded.items()), None)
            why = "" if first is None else f" (particle {first[0]}: {first[1]})"
            raise InputError(
                f"{job}: {usable.sum()} of {len(particles)} particles can be used{why}; two half sets need {_FEWEST} "
                "or more"
            )
        members = particles if usable.all() else particles[usable]
        micrograph = np.zeros(len(members), np.int64)
        if "rlnMicrographName" in members.table:
            micrograph = np.unique(members.table["rlnMicrographName"].to_numpy(str), return_inverse=True)[1]
        return cls(
            particles=members,
            half=half_sets(members, seed=seed),
            group=np.unique(members.optics.group, return_inverse=True)[1],
            micrograph=micrograph,
            params=members.optics.as_params(),
            job=job,
            **fields,
        )

    def __post_init__(self) -> None:
        """Fill in the batch that is quickest where memory is no concern."""
        if self.batch < 1:
            object.__setattr__(self, "batch", max(8, _BATCH_PIXELS // self.box**2))

    def __len__(self) -> int:
        return len(self.half)

    @property
    def device(self) -> str:
        """Where maps are made from sums: the first device."""
        return self.devices[0]

    @property
    def where(self) -> Where:
        """The device of batches and sums, and the threads."""
        return Where(self.device, self.threads)

    @property
    def n_groups(self) -> int:
        """Noise groups."""
        return int(self.group.max()) + 1 if self.whole is None else self.whole[0]

    @property
    def n_micrographs(self) -> int:
        """Scale groups."""
        return int(self.micrograph.max()) + 1 if self.whole is None else self.whole[1]

    @cached_property
    def box(self) -> int:
        """Side of images and maps."""
        return self.particles.box

    @cached_property
    def pixel_size_A(self) -> float:
        """Pixel size."""
        return self.particles.pixel_size_A

    @cached_property
    def diameter_px(self) -> float:
        """Diameter of the particle."""
        if self.diameter_A is None:
            return 0.8 * self.box
        refuse_tiny_particle(self.job, self.diameter_A, self.pixel_size_A)
        diameter = self.diameter_A / self.pixel_size_A
        if diameter > self.box:
            raise InputError(
                f"{self.job}: a diameter of {self.diameter_A:g} A does not fit a box of {self.box} px of "
                f"{self.pixel_size_A:g} A ({self.box * self.pixel_size_A:g} A)"
            )
        return diameter

    @cached_property
    def last_radius(self) -> int:
        """Last shell that may be used."""
        largest = (self.box - 1) // 2
        finest = self.max_resolution_A
        return largest if finest is None else min(largest, max(1, self.shell_of(finest)))

    @cached_property
    def operators(self) -> Symmetry:
        """The point group, split into what the grid does exactly and what insertion does."""
        return Symmetry.of(symmetry_matrices(self.symmetry))

    @cached_property
    def image_mask(self) -> npt.NDArray[np.float32]:
        """Circle of the particle's diameter with a soft edge outside it."""
        radius = min(self.diameter_px, self.box - 2 * self.edge_px) / 2
        return soft_circle(self.box, radius, self.edge_px).astype(np.float32)

    @cached_property
    def neighbour_mask(self) -> npt.NDArray[np.float32] | None:
        """Wider circle that keeps neighbours out of the exact score; None where it would reach the border.

        Wider than the particle because the CTF spreads it; what lies beyond belongs to the particle next to it.
        """
        diameter = _WITHOUT_NEIGHBOURS * self.diameter_px
        if diameter + 2 * _EDGE_PX >= self.box:
            return None
        return soft_circle(self.box, diameter / 2, _EDGE_PX).astype(np.float32)

    @cached_property
    def sphere(self) -> npt.NDArray[np.float32]:
        """Sphere of the particle's diameter with a soft edge outside it."""
        radius = min(self.diameter_px, self.box - 2 * self.edge_px) / 2
        return soft_sphere(self.box, radius, self.edge_px).astype(np.float32)

    def shell_of(self, resolution_A: float) -> int:
        """Shell of a resolution, rounded."""
        return round(self.box * self.pixel_size_A / resolution_A)

    def resolution_of_A(self, shell: float) -> float:
        """Resolution of a shell."""
        return self.box * self.pixel_size_A / shell

    def under(self, symmetry: str) -> Self:
        """The same particles under a point group."""
        return replace(self, symmetry=symmetry)

    def rows_of_half(self, half: int) -> IntArray:
        """Particles of a half set, in order."""
        return np.flatnonzero(self.half == half)

    def part(self, rows: IntArray) -> Self:
        """Some of the particles, with the noise and scale groups of the whole set."""
        origin = self.first_origin_px
        return replace(
            self,
            particles=self.particles[rows],
            half=self.half[rows],
            group=self.group[rows],
            micrograph=self.micrograph[rows],
            params=self.params[rows],
            first_origin_px=None if origin is None else origin[rows],
            whole=(self.n_groups, self.n_micrographs),
            numbers=rows if self.numbers is None else self.numbers[rows],
        )

    @contextlib.contextmanager
    def naming(self, rows: IntArray) -> Iterator[None]:
        """Errors about a particle of a batch, which ops know by its place there, name it.

        Parameters
        ----------
        rows : (b,) int64
            Of the batch.
        """
        try:
            yield
        except InputError as error:
            place = _PARTICLE.search(str(error))
            if place is None or int(place[1]) >= len(rows):
                raise
            row = int(rows[int(place[1])])
            number = row if self.numbers is None else int(self.numbers[row])
            names = self.particles.table.get("rlnImageName")
            name = f"particle {number}" + ("" if names is None else f" ({names.iloc[row]})")
            sentence = str(error)[: place.start()] + name + str(error)[place.end() :]
            raise InputError(f"{self.job}: {sentence}") from error


def image_batches(problem: Problem, rows: IntArray, model: HalfModel, poses: PoseTable) -> Iterator[ImageBatch]:
    """Images of these particles in order, brought to one noise level, on the problem's device.

    On a GPU the next batch is read and sent while one is worked on.
    """
    # Noise and scale come from this half's model alone: the other half's would make the halves dependent.
    inv = (1.0 / model.sigma2).astype(np.float32)
    pieces = [rows[begin : begin + problem.batch] for begin in range(0, len(rows), problem.batch)]
    shape = (min(problem.batch, len(rows)), problem.box, problem.box)
    for some, images in upload_pieces(problem.particles.images, pieces, problem.device, shape):
        images /= to_device(poses.norm[some, None, None].astype(np.float32), problem.device)
        params = problem.params[some].copy()
        # Column 8 is the grey scale, a factor of the model: scaling the image instead would scale its noise.
        params[:, 8] *= model.scale[problem.micrograph[some]]
        yield ImageBatch(some, images, params, inv[problem.group[some]], poses.origin_px[some], problem.pixel_size_A)


@dataclass(frozen=True)
class Survey:
    """One pass over all images.

    Attributes
    ----------
    excluded : dict
        Particle number -> reason.
    power : (n, shells) float32
        Mean of abs(X)^2 over each shell of each image.
    copy_of : (n,) int64
        For every particle the first one with the same pixels.
    """

    excluded: dict[int, str]
    power: npt.NDArray[np.float32]
    copy_of: IntArray


def survey(
    particles: Particles,
    *,
    threads: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Find images that cannot be used, and the power spectrum of each.

    Parameters
    ----------
    particles : Particles
        All of them.
    threads : int, optional
        Threads; all by default.
    device : str
        Where the spectra are made.
    progress : callable, optional
        Called with images done, in all.

    Returns
    -------
    Survey
    """
    box = particles.box
    count = (box - 1) // 2 + 1
    power = np.zeros((len(particles), count), np.float32)
    reasons: dict[int, str] = {}
    grey: list[GreyValues] = []
    step = max(8, _BATCH_PIXELS // box**2)
    number = fourier.shell_counts((box, box))[0][:count]

    def read(piece: slice) -> npt.NDArray[np.float32]:
        images = particles.images(piece)
        grey.append(GreyValues.of(images))
        bad = find_unusable_images(images)
        reasons.update({piece.start + i: reason for i, reason in bad.items()})
        # Zeros, not NaN: the transform of a batch is one call, and a NaN image would only be seen here.
        images[list(bad)] = 0
        return images

    pieces = [slice(begin, begin + step) for begin in range(0, len(particles), step)]
    with work_on(device):
        for piece, images in upload_pieces(read, pieces, device, (min(step, len(particles)), box, box)):
            spectra = fourier.forward(images, 2, threads=threads)
            power[piece] = to_host(ops.shell_dot(spectra, device=device, threads=threads)) / number
            if progress is not None:
                progress(min(piece.stop, len(particles)), len(particles))
    values = GreyValues.concatenate(grey)
    wild = wild_images(values, groups_of(particles))
    # Later reasons win: an image of NaN is wild as well, but that is not what its user has to mend.
    return Survey({**wild, **particles.optics.unusable(), **reasons}, power, values.first_copies())
