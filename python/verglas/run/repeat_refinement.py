"""Half sets of a finished run refined again, each by itself: how far they agree then, against what the run states."""

from __future__ import annotations

from typing import Any

from verglas.assessment import postprocess
from verglas.assessment.validation import judge_repeat
from verglas.errors import InputError
from verglas.filters import apply, low_pass
from verglas.run.refine import refine
from verglas.types import Map, Particles
from verglas.types.verdict import Finding

_START_A = 30.0  # what refinements begin at
_START_RESOLUTIONS = 2.0  # of the stated one, at least: something finer has to be left to find


def judge_repeat_refinement(
    particles: Particles,
    half_maps: tuple[Map, Map],
    *,
    symmetry: str = "C1",
    threads: int | None = None,
    **settings: Any,
) -> Finding:
    """Whether the resolution of half maps comes again when their half sets are refined apart.

    Both curves are those under masks made from the maps: one that the run was given may cut into the molecule, which
    is asked elsewhere.

    Parameters
    ----------
    particles : Particles
        With images and half sets.
    half_maps : (Map, Map)
        Of the run, of the particles' box.
    symmetry : str
        Point group.
    threads : int, optional
        Threads; the result does not depend on it.
    **settings
        Of the refinement.

    Raises
    ------
    InputError
        No half sets or images, maps of another size.
    """
    if particles.half_sets is None:
        raise InputError("validate: the particles have no half sets (rlnRandomSubset), which a repeat keeps apart")
    stated = postprocess(*half_maps, symmetry=symmetry, threads=threads, listener=None)
    start_A = max(_START_A, _START_RESOLUTIONS * min(stated.resolution_A, _START_A))
    reference = apply(stated.map, low_pass(start_A))
    settings = {"initial_resolution_A": start_A, "listener": None, "threads": threads, **settings}
    repeated = refine(particles, reference, symmetry, **settings)
    return judge_repeat(stated.trusted, repeated.postprocessed.trusted, start_A)
