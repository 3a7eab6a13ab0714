"""The picture of an archive's entry."""

from __future__ import annotations

import io

import numpy as np

from verglas.image import plan_resample, resample
from verglas.report import surface
from verglas.types import Map

_SIDE_PX = 500  # what EMDB asks for
_LARGEST_BOX = 192
_COLOUR = (0.36, 0.56, 0.72)


def entry_image(volume: Map, level: float, mask: Map | None = None) -> bytes:
    """The surface at a density level on white, inside a mask, 500 x 500 pixels, PNG."""
    from matplotlib import image

    if mask is not None:
        volume = volume.with_data(volume.data * mask.data)
    if volume.box > _LARGEST_BOX:
        volume = resample(volume, plan_resample(volume.box, volume.pixel_size_A, None, _LARGEST_BOX))
    picture = surface.shade_surface(volume, level, colour=_COLOUR, size=_SIDE_PX)
    opaque = picture[..., :3] * picture[..., 3:] + (1 - picture[..., 3:])
    buffer = io.BytesIO()
    image.imsave(buffer, np.clip(opaque, 0, 1), format="png")
    return buffer.getvalue()
