"""Jobs on files: signal subtraction and its reversal, symmetry expansion and its reversal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.heterogeneity import collapse_symmetry, expand_symmetry, subtract
from verglas.heterogeneity.recentred import MOVED_X, MOVED_Y, boxes_outside, middle_A, recentre_boxes, undo_recentring
from verglas.heterogeneity.subtract import LEAST_SCALE, MOST_SCALE, SCALE
from verglas.io import check_writable, read_map, read_particles, write_particles
from verglas.io.stack import StackSource
from verglas.optics.one_grid import Grids
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Particles
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.images import ImageSource
from verglas.types.listener import Listener

ORIGINAL = "rlnImageOriginalName"


class _Counted:
    """A source that tells how many images have been read."""

    def __init__(self, base: ImageSource, listener: Listener) -> None:
        self.base, self.listener, self.done = base, listener, 0

    def __len__(self) -> int:
        return len(self.base)

    def read(self, rows: IntArray) -> Float32Array:
        """Images of these rows."""
        images = self.base.read(rows)
        self.done += len(images)
        self.listener.progress("images", self.done, len(self.base))
        return images

    def take(self, rows: IntArray) -> ImageSource:
        """A subset."""
        return self.base.take(rows)

    def boxes(self) -> IntArray:
        """Of the images."""
        return self.base.boxes()

    def pixel_sizes_A(self) -> FloatArray:
        """Of the images."""
        return self.base.pixel_sizes_A()


@keeps_inputs("subtract")
def subtract_files(
    particles: Path,
    out: Path,
    map: Path,
    mask: Path,
    *,
    stack: Path | None = None,
    fit_scale: bool = True,
    box: int | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> dict[str, Any]:
    """What ``verglas subtract`` does: a new stack beside the STAR file, which keeps the names of the old images.

    Parameters
    ----------
    particles, out : Path
        STAR or CS file with poses; STAR file to write.
    map, mask : Path
        Of :func:`verglas.heterogeneity.subtract`.
    stack : Path, optional
        Image stack in place of the one that the file names.
    fit_scale : bool
    box : int, optional
        Side of boxes about the middle of the mask (:func:`verglas.heterogeneity.recentre_boxes`); the images as they
        are without.
    dtype : str
        Of the new stack.
    threads : int, optional
    listener : Listener, "screen" or None

    Returns
    -------
    dict
        Particles written, their scales, and with ``box`` under ``set_aside`` the numbers (from 0) of those whose box
        lies outside its image, with the reason: they are not written.
    """
    check_writable(out)
    particle_set = read_particles(particles, stack=stack)
    # Before the work: a set whose images have no names could not be reverted.
    names = original_names(particle_set)
    kept = read_map(mask)
    left = subtract(particle_set, read_map(map), kept, fit_scale=fit_scale, threads=threads)
    cut: dict[str, Any] = {}
    if box is not None:
        if not kept.data.any():
            raise InputError(f"{mask}: the mask is empty: it has no middle to cut boxes about")
        centre_A = middle_A(kept)
        left, names, aside = _with_box_in_image(left, names, centre_A, box)
        left = recentre_boxes(left, centre_A, box)
        cut = {"box": box, "centre_A": centre_A.tolist(), "boxes_beyond_image": _beyond(left, particle_set.box)}
        cut["set_aside"] = aside
    assert left.source is not None
    scale = left.table[SCALE].to_numpy(np.float64)
    # Those of several sizes are on one grid now, of which their old images are not.
    originals = {} if Grids.of(particle_set) is not None else {ORIGINAL: names}
    with shown_to(listener) as heard:
        remainder = left.with_columns(**originals).with_source(_Counted(left.source, heard))
        write_particles(out, remainder, stack=out.with_suffix(".mrcs"), dtype=dtype)
    return {
        "particles": len(left),
        "scale_mean": float(scale.mean()),
        "scale_sd": float(scale.std()),
        "scales_at_bound": int(((scale <= LEAST_SCALE) | (scale >= MOST_SCALE)).sum()),
        **cut,
        "out": str(out),
    }


def _with_box_in_image(
    particles: Particles, names: list[str], centre_A: FloatArray, box: int
) -> tuple[Particles, list[str], dict[int, str]]:
    """Without the particles whose box has no pixel of its image, and why: there is nothing in it to refine."""
    if particles.poses is None or MOVED_X in particles.table:
        return particles, names, {}  # which is refused where boxes are cut
    outside = boxes_outside(particles, centre_A, box)
    if not outside.any() or outside.all():
        return particles, names, {}
    keep = np.flatnonzero(~outside)
    aside = {int(i): f"its box of {box} pixels lies outside its image" for i in np.flatnonzero(outside)}
    return particles[keep], [names[i] for i in keep], aside


def _beyond(recentred: Particles, side: int) -> int:
    """How many boxes reach beyond their image."""
    moved = recentred.table[[MOVED_X, MOVED_Y]].to_numpy(np.int64)
    first = side // 2 + moved - recentred.box // 2
    return int(((first < 0) | (first + recentred.box > side)).any(axis=1).sum())


def original_names(particles: Particles) -> list[str]:
    """``000001@/where/stack.mrcs`` of every image, so that a subtracted set can be reverted from any folder."""
    names = particles.table["rlnImageName"].to_numpy(str).tolist() if "rlnImageName" in particles.table else []
    source = particles.source
    source = getattr(source, "inner", source)
    if not names or not isinstance(source, StackSource):
        raise InputError(f"{particles.where}: the particles name no images in files")
    paths = {number: str(source.paths.find(source.names[number]).resolve()) for number in np.unique(source.stack_of)}
    return [f"{name.split('@')[0]}@{paths[number]}" for name, number in zip(names, source.stack_of, strict=True)]


@keeps_inputs("subtract")
def revert_files(particles: Path, out: Path) -> int:
    """Put the images back that a subtraction started from; poses, CTFs, selection and classes stay as they are now.

    Origins of re-centred boxes become those of the whole particle at the present poses.

    Raises
    ------
    InputError
        The particles were not subtracted.
    """
    check_writable(out)
    particle_set = read_particles(particles)
    if ORIGINAL not in particle_set.table or SCALE not in particle_set.table:
        raise InputError(
            f"{particles}: these particles were not made by verglas subtract, or from images of several sizes, which "
            f"lie on one grid now (no {ORIGINAL}, {SCALE})"
        )
    names = particle_set.table[ORIGINAL].to_numpy(str)
    # Without its source, which reads the subtracted stack whatever names the table has.
    back = undo_recentring(particle_set) if MOVED_X in particle_set.table else particle_set
    back = back.with_source(None).with_columns(rlnImageName=names, **{ORIGINAL: None, SCALE: None})
    write_particles(out, back)
    return len(back)


@keeps_inputs("expand")
def expand_files(particles: Path, out: Path, symmetry: str, *, seed: int = 0) -> tuple[int, int]:
    """What ``verglas expand`` does; rows before and after."""
    check_writable(out)
    particle_set = read_particles(particles)
    expansion = expand_symmetry(particle_set, symmetry, seed=seed)
    write_particles(out, expansion)
    return len(particle_set), len(expansion)


@keeps_inputs("expand")
def collapse_files(particles: Path, out: Path) -> tuple[int, int]:
    """What ``verglas expand --collapse`` does; rows before and after."""
    check_writable(out)
    particle_set = read_particles(particles)
    unique_set = collapse_symmetry(particle_set)
    write_particles(out, unique_set)
    return len(particle_set), len(unique_set)
