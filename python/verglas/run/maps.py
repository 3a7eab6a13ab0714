"""Jobs on map and particle files: Fourier shell correlation, masks, resampling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas import filters, image, masks
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import FSC, fsc
from verglas.assessment.independence import check_pair, refuse_one_map_twice
from verglas.assessment.phase import PhaseResidual, differential_phase_residual
from verglas.assessment.single_map import SingleMapResolution, single_map_resolution
from verglas.assessment.ssnr import SpectralF, spectral_f
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import symmetry_order
from verglas.io import StackWriter, read_header, read_map, read_particles, read_stack, write_map, write_particles
from verglas.io.mrc import stated_pixel_A
from verglas.io.rules import RECALIBRATED, file_rules, pixel_size_refused
from verglas.types import Map
from verglas.types.arrays import IntArray
from verglas.types.images import ImageSource
from verglas.types.listener import phase_progress
from verglas.types.settings import JobSettings, setting

_ALL = 0.95  # of a box: a mask that hides nothing
_MOST_OF_FACES = 0.2  # of the box that a mask may hold without a warning

Progress = Callable[[int, int], None]

_CHUNK_BYTES = 64 << 20


def fsc_of_files(
    first: Path,
    second: Path,
    mask: Path | None = None,
    pixel_size_A: float | None = None,
    *,
    symmetry: str = "C1",
    listener: ListenerChoice = "screen",
) -> FSC:
    """Fourier shell correlation of two map files.

    Parameters
    ----------
    first, second : Path
        Maps.
    mask : Path, optional
        Mask, multiplied with both.
    pixel_size_A : float, optional
        In place of both headers'.
    symmetry : str
        Point group imposed on both maps; it changes thresholds that count voxels.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    FSC

    Raises
    ------
    InputError
        Shapes or pixel sizes differ, or the mask is none; the message names the files.
    """
    with shown_to(listener) as heard:
        heard.progress("fsc", 0, 3)
        a, b, window = _two_maps(first, second, mask, pixel_size_A, "fsc")
        heard.progress("fsc", 2, 3)
        result = fsc(a, b, window, symmetry_order=symmetry_order(symmetry))
        check_pair(a.data, b.data, first, second, halves=False)
        heard.progress("fsc", 3, 3)
    return result


def phase_residual_of_files(
    first: Path, second: Path, mask: Path | None = None, pixel_size_A: float | None = None, *, symmetry: str = "C1"
) -> PhaseResidual:
    """Differential phase residual of two map files of one grey scale; its ``fsc`` is that of :func:`fsc_of_files`.

    Parameters
    ----------
    first, second : Path
        Maps.
    mask : Path, optional
        Mask, multiplied with both.
    pixel_size_A : float, optional
        In place of both headers'.
    symmetry : str
        Point group imposed on both maps.

    Raises
    ------
    InputError
        As :func:`fsc_of_files`.
    """
    a, b, window = _two_maps(first, second, mask, pixel_size_A, "phase residual")
    result = differential_phase_residual(a, b, window, symmetry_order=symmetry_order(symmetry))
    check_pair(a.data, b.data, first, second, halves=False)
    return result


def ssnr_of_files(first: Path, second: Path, pixel_size_A: float | None = None) -> SpectralF:
    """F statistic of two map files of one grey scale as repeats of one map; see :func:`verglas.assessment.spectral_f`.

    Raises
    ------
    InputError
        As :func:`fsc_of_files`.
    """
    a, b, _ = _two_maps(first, second, None, pixel_size_A, "SSNR")
    return spectral_f(np.stack([a.data, b.data]))


def _two_maps(
    first: Path, second: Path, mask: Path | None, pixel_size_A: float | None, job: str
) -> tuple[Map, Map, npt.NDArray[np.float32] | None]:
    """Maps of one shape that are not one, and the mask."""
    a, b = read_map(first, pixel_size_A), read_map(second, pixel_size_A)
    if a.data.shape != b.data.shape:
        raise InputError(f"{first} has shape {a.data.shape} and {second} {b.data.shape} (z, y, x): resample one")
    refuse_one_map_twice(a.data, b.data, job, f"{first} and {second}")
    warn_of_origins(a, b, first, second)
    return a, b, None if mask is None else read_mask(mask, a, first)


def single_map_resolution_of_file(
    path: Path, mask: Path | None = None, pixel_size_A: float | None = None
) -> SingleMapResolution:
    """What a map without half maps says of its resolution.

    Parameters
    ----------
    path : Path
        Map.
    mask : Path, optional
        Where the molecule is.
    pixel_size_A : float, optional
        In place of the header's.

    Raises
    ------
    InputError
        As :func:`verglas.assessment.single_map_resolution`.
    """
    volume = read_map(path, pixel_size_A)
    return single_map_resolution(volume, None if mask is None else read_mask(mask, volume, path))


def read_half_maps(first: Path, second: Path, pixel_size_A: float | None = None) -> tuple[Map, Map]:
    """Two half maps that go together: cubes of one box, of finite values.

    Raises
    ------
    InputError
        They do not; the message names the file.
    """
    half1, half2 = (read_map(path, pixel_size_A) for path in (first, second))
    for path, half in ((first, half1), (second, half2)):
        if len(set(half.data.shape)) != 1:
            raise InputError(f"{path}: a map of shape {half.data.shape} (z, y, x); expected a cube")
        if bad := np.count_nonzero(~np.isfinite(half.data)):
            raise InputError(f"{path}: {bad} voxels are not finite numbers")
    if half1.data.shape != half2.data.shape:
        raise InputError(
            f"{first} has shape {half1.data.shape} and {second} {half2.data.shape} (z, y, x): resample one"
        )
    check_pair(half1.data, half2.data, first, second)
    warn_of_origins(half1, half2, first, second)
    return half1, half2


def warn_of_origins(a: Map, b: Map, first: Path, second: Path) -> None:
    """Maps are compared voxel by voxel, wherever their headers place them."""
    apart_A = float(np.linalg.norm(np.subtract(a.origin_A, b.origin_A)))
    if apart_A > 0.5 * a.pixel_size_A:
        warnings.warn(
            f"{first} and {second}: their headers place them {apart_A:.4g} A apart; voxels are compared one by one all "
            "the same: were they cut out of different places?",
            VerglasWarning,
            stacklevel=4,
        )


def half_map_suffixes(folder: Path) -> list[str]:
    """What follows the stem in the names of each class's half maps: "" where there is one class; none without any."""
    if (folder / "half1.mrc").is_file():
        return [""]
    classes = [path.stem.removeprefix("half1") for path in folder.glob("half1_class*.mrc")]
    return sorted((s for s in classes if s.removeprefix("_class").isdecimal()), key=lambda s: (len(s), s))


def read_mask(path: Path, like: Map, source: Path | None = None) -> npt.NDArray[np.float32]:
    """A mask file for a map, checked (:func:`verglas.masks.checked_mask`); the message names the file.

    ``source`` is the map's own file, whose header may give another pixel size than the one that was asked for.
    """
    refuse_other_pixel_size(path, like, source)
    return masks.checked_mask(read_map(path, like.pixel_size_A).data, like.data.shape, f"the mask {path}")


def refuse_other_pixel_size(mask: Path, like: Map, source: Path | None = None) -> None:
    """A mask whose header gives a pixel size of its own was made for another map: voxels would stand elsewhere in it.

    Raises
    ------
    FormatError
        It is more than 1 % off the map's, and off that in the header of the map's file, which a calibrated one may
        take the place of; 0 and 1 A, which programs write for want of a better number, are none.
    """
    stated_A = stated_pixel_A(mask)
    known_A = [like.pixel_size_A] if source is None else [like.pixel_size_A, stated_pixel_A(source)]
    if stated_A in (0.0, 1.0) or file_rules().any_pixel_size:
        return
    if any(abs(stated_A - one) <= RECALIBRATED * one for one in known_A):
        return
    raise pixel_size_refused("the map", like.pixel_size_A, mask, stated_A)


@dataclass(frozen=True)
class MaskShape(JobSettings, job="mask"):
    """What a mask is made of, lengths in angstrom.

    Attributes
    ----------
    diameter_A : float, optional
        Of a sphere about the map's centre.
    threshold : float, optional
        Density at which a mask from a map begins, after the low-pass filter.
    low_pass_A : float, optional
        Resolution of that filter.
    extend_A, soft_edge_A : float
        Dilation and width of the raised-cosine edge.
    largest : bool
        Keep the largest connected part only.
    dark : bool
        What lies below the threshold is inside.
    """

    diameter_A: float | None = setting(None, "Sphere of this diameter about the centre", more_than=0)
    threshold: float | None = setting(None, "Or: what reaches this density")
    low_pass_A: float | None = setting(None, "Low-pass filter before the threshold", more_than=0, former=("lowpass_A",))
    extend_A: float = setting(0.0, "Dilation before the edge", at_least=0)
    soft_edge_A: float = setting(9.0, "Width of the raised-cosine edge", at_least=0, former=("edge_A",))
    largest: bool = setting(False, "Keep the largest connected part only")
    dark: bool = setting(False, "The particle is dark: what lies below the threshold")

    def _impossible(self) -> Iterator[tuple[str, str]]:
        if (self.diameter_A is None) == (self.threshold is None):
            yield "", "give either --diameter or --threshold"
        elif self.diameter_A is not None and (self.low_pass_A is not None or self.largest or self.dark):
            yield "", "--low-pass, --largest and --dark go with --threshold"


def make_mask(like: Map, shape: MaskShape) -> Map:
    """Mask of the size of a map, a sphere or from its density.

    Parameters
    ----------
    like : Map
        Gives box, pixel size, origin, and the density for a threshold.
    shape : MaskShape

    Returns
    -------
    Map
        Values in [0, 1].

    Raises
    ------
    InputError
        Both or neither of ``diameter_A`` and ``threshold``, or nothing passes the threshold.
    """
    apix = like.pixel_size_A
    if (shape.diameter_A is None) == (shape.threshold is None):
        raise InputError("mask: give either a diameter or a threshold")
    if shape.diameter_A is not None:
        radius = shape.diameter_A / 2 + shape.extend_A
        return like.with_data(masks.soft_sphere(like.data.shape, radius / apix, shape.soft_edge_A / apix))
    assert shape.threshold is not None
    smooth = like if shape.low_pass_A is None else filters.apply(like, filters.low_pass(shape.low_pass_A))
    return like.with_data(
        masks.from_threshold(
            smooth.data,
            shape.threshold,
            extend_px=shape.extend_A / apix,
            edge_px=shape.soft_edge_A / apix,
            largest=shape.largest,
            above=not shape.dark,
        )
    )


def _share_of_faces(mask: Map) -> float:
    """How much of the six faces of the box a mask holds."""
    faces = [np.take(mask.data, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    return float(np.mean(np.concatenate(faces), dtype=np.float64))


def mask_file(source: Path, target: Path, shape: MaskShape, pixel_size_A: float | None = None) -> Map:
    """Make a mask from a map file, write it and return it: see :func:`make_mask`."""
    mask = make_mask(read_map(source, pixel_size_A), shape)
    inside = float(mask.data.mean(dtype=np.float64))
    if inside > _ALL:
        warnings.warn(
            f"{target}: the mask holds {100 * inside:.1f} % of the box, so that there is next to nothing outside it: "
            "choose a higher threshold, or a smaller diameter",
            VerglasWarning,
            stacklevel=3,
        )
    elif _share_of_faces(mask) > _MOST_OF_FACES:
        warnings.warn(
            f"{target}: the mask holds {100 * _share_of_faces(mask):.0f} % of the faces of the box, as where the "
            "threshold is in the noise, or the particle is dark (--dark): look at it",
            VerglasWarning,
            stacklevel=3,
        )
    write_map(target, mask)
    return mask


@dataclass(frozen=True)
class Wanted:
    """Pixel size and box of a resampled file; at least one.

    Attributes
    ----------
    pixel_size_A : float, optional
    box : int, optional
    resolution_A : float, optional
        A resolution that the result has to hold: refused if the new pixel size cannot.
    old_pixel_size_A : float, optional
        In place of the file's.
    dtype : str
        Of what is written.
    """

    pixel_size_A: float | None = None
    box: int | None = None
    resolution_A: float | None = None
    old_pixel_size_A: float | None = None
    dtype: str = "float32"

    def plan(self, box: int, pixel_size_A: float) -> image.ResamplePlan:
        """The plan for a file of this box and pixel size."""
        plan = image.plan_resample(box, pixel_size_A, self.pixel_size_A, self.box)
        if self.resolution_A is not None:
            image.check_sampling(plan.pixel_size_A, self.resolution_A)
        return plan


class _Counted:
    """An image source that reports how many images were read."""

    def __init__(self, base: ImageSource, progress: Progress) -> None:
        self.base, self.progress, self.done = base, progress, 0

    def __len__(self) -> int:
        return len(self.base)

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        images = self.base.read(rows)
        self.done += len(rows)
        self.progress(self.done, len(self))
        return images

    def take(self, rows: IntArray) -> ImageSource:
        return self.base.take(rows)

    def boxes(self) -> IntArray:
        return self.base.boxes()

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        return self.base.pixel_sizes_A()


def resample_file(
    source: Path, target: Path, goal: Wanted, *, listener: ListenerChoice = "screen"
) -> image.ResamplePlan:
    """Resample a map, an image stack (.mrcs), or particles (.star, .cs: the images go into a new stack).

    Parameters
    ----------
    source, target : Path
        Both of one kind; particles may change between .star and .cs.
    goal : Wanted
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    ResamplePlan
        What was done; ``.pixel_size_A`` is the realised pixel size.

    Raises
    ------
    InputError
        Kinds that do not go together, a map that is no cube, sizes that differ inside a set.
    """
    kinds = {".star": "particles", ".cs": "particles", ".mrcs": "stack"}
    kind, other = (kinds.get(p.suffix.lower(), "map") for p in (source, target))
    if kind != other:
        raise InputError(f"{source} is a file of kind {kind!r}, {target} of kind {other!r}: expected the same kind")
    if kind != "map":
        with shown_to(listener) as heard:
            resample_images = _resample_particles if kind == "particles" else _resample_stack
            return resample_images(source, target, goal, phase_progress(heard, "images"))
    volume = read_map(source, goal.old_pixel_size_A)
    plan = goal.plan(volume.box, volume.pixel_size_A)
    write_map(target, image.resample(volume, plan), dtype=goal.dtype)
    return plan


def _resample_particles(source: Path, target: Path, goal: Wanted, progress: Progress) -> image.ResamplePlan:
    particles = read_particles(source)
    plan = goal.plan(particles.box, goal.old_pixel_size_A or particles.pixel_size_A)
    small = image.resample_particles(particles, plan)
    assert small.source is not None
    write_particles(target, small.with_source(_Counted(small.source, progress)), dtype=goal.dtype)
    return plan


def _resample_stack(source: Path, target: Path, goal: Wanted, progress: Progress) -> image.ResamplePlan:
    header = read_header(source)
    n, ny, nx = header.shape
    if ny != nx:
        raise InputError(f"{source}: images of {nx} x {ny} pixels; expected square ones")
    old = goal.old_pixel_size_A or header.pixel_size_A
    if not old > 0:
        raise InputError(f"{source}: the header has no pixel size; give it (--old-pixel-size)")
    plan = goal.plan(nx, old)
    step = max(1, _CHUNK_BYTES // (4 * plan.work_box**2))
    with StackWriter(target, n, plan.new_box, plan.pixel_size_A, goal.dtype) as writer:
        for start in range(0, n, step):
            stop = min(n, start + step)
            writer.append(image.resample(read_stack(source, np.arange(start, stop)), plan))
            progress(stop, n)
    return plan
