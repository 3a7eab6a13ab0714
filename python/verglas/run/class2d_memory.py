"""How much memory a 2D classification will take, before it begins."""

from __future__ import annotations

from verglas.classification.memory import MEMORY_GB, Class2DMemory
from verglas.classification.settings import Class2DSettings
from verglas.classification.working_set import BLOCK
from verglas.errors import InputError
from verglas.run.refine_memory import MemoryPlan
from verglas.types import Particles


def plan_memory(
    particles: Particles, settings: Class2DSettings, limit_GB: float | None, threads: int | None
) -> MemoryPlan:
    """What the phases will take, with as much kept between passes as the limit allows.

    Parameters
    ----------
    particles : Particles
        On one grid; no image is read.
    settings : Class2DSettings
    limit_GB : float, optional
        Most that the process may take; by default 4, and what it cannot do without where that is more, as on many
        threads.
    threads : int, optional

    Raises
    ------
    InputError
        More than a limit that was given would be taken with nothing kept.
    """
    memory = Class2DMemory(len(particles), particles.box, particles.pixel_size_A, settings, threads)
    if limit_GB is None:
        limit_GB = max(MEMORY_GB, memory.fixed_bytes() / 1e9)
    elif memory.fixed_bytes() > limit_GB * 1e9:
        raise InputError(
            f"class2d: {settings.classes} classes of {memory.geometry.box} px, of images of {particles.box}, need "
            f"{memory.fixed_bytes() / 1e9:.2f} GB, allowed are {limit_GB:.2f}; allow more (--memory), ask for fewer "
            f"classes, threads (of {memory.threads}) or a coarser --max-resolution, or scale the images down (verglas "
            "resample)"
        )
    caches = memory.caches(limit_GB)
    phases = {name: size / 1e9 for name, size in memory.phases(caches).items()}
    return MemoryPlan(phases, limit_GB, min(BLOCK, len(particles)), caches.images)
