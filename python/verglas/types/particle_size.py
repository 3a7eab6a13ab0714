"""Diameters of particles that no image can be asked about: mostly given in another unit."""

from __future__ import annotations

from verglas.errors import InputError

FEWEST_PIXELS = 4.0  # across a particle: below, a circle of its size holds next to no shells


def refuse_tiny_particle(job: str, diameter_A: float, pixel_size_A: float) -> None:
    """Refuse a particle of less than four pixels across, before the verdict calls the images noise.

    Raises
    ------
    InputError
        It is.

    Examples
    --------
    >>> from verglas.types.particle_size import refuse_tiny_particle
    >>> refuse_tiny_particle("refine", 12.0, 6.0)
    Traceback (most recent call last):
    verglas.errors.InputError: refine: a particle of 12 A has 2.0 pixels of 6 A across; expected at least 4: is its ...
    """
    across = diameter_A / pixel_size_A
    if across < FEWEST_PIXELS:
        raise InputError(
            f"{job}: a particle of {diameter_A:g} A has {across:.1f} pixels of {pixel_size_A:g} A across; expected at "
            f"least {FEWEST_PIXELS:g}: is its diameter in nanometres, or the pixel size that of other images?"
        )
