"""A map for the viewer of the pages: coarse enough to be sent, in whole numbers, with a level to begin at.

The viewer makes the surface itself, so one packed map serves every level of the slider, the slices, and the colours of
another map. ``viewer.js`` reads what :func:`pack_volume` writes: four bytes with the length of a JSON header, the
header, and the grey values, z slowest, compressed by zlib.
"""

from __future__ import annotations

import base64
import html
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.image.resample import plan_resample, resample
from verglas.report.html import Fragment, page_frame
from verglas.types import Map

_SPIKES, _LEAST = 4.0, 3.0  # deviations of the solvent: below the first a surface shows noise, below the second mostly
_ENOUGH = 0.5  # of the volume wanted: less of a molecule than this is not recognised


def display_level(volume: Map, mask: Map | None = None) -> float:
    """A level at which the surface shows the molecule: a fifth of the mask's volume, or 4 % of the box, lies above it.

    It is not below four deviations of the corners outside the inscribed sphere, where noise would stand about as
    spikes, unless less than half of that volume lies above: of a noisy sharpened map too little of the molecule would
    be seen to know it. Then half of it lies above the level, which is never below three deviations.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.volume import display_level
    >>> noise = vg.Map(np.random.default_rng(0).normal(size=(32, 32, 32)), 1.0)
    >>> 2.8 < display_level(noise) < 3.2
    True
    """
    data, fraction = volume.data, 0.04
    if mask is not None and mask.data.shape == data.shape:
        data = data * mask.data
        fraction = max(float(mask.data.mean(dtype=np.float64)) / 5.0, 1e-4)
    wanted, half = (float(one) for one in np.quantile(data, (1.0 - fraction, 1.0 - _ENOUGH * fraction)))
    solvent = _corner_deviation(volume.data)
    level = max(wanted, min(_SPIKES * solvent, max(half, _LEAST * solvent)))
    # Of pure noise no voxel may lie so high: an empty picture would say less than a few specks.
    return min(level, 0.95 * float(data.max()))


def _corner_deviation(data: npt.NDArray[np.float32]) -> float:
    axes = [((np.arange(n) - n // 2) / (n / 2)) ** 2 for n in data.shape]
    outside = axes[0][:, None, None] + axes[1][:, None] + axes[2] > 1.0
    return float(data[outside].std(dtype=np.float64)) if outside.any() else 0.0


def pack_volume(volume: Map, *, most_box: int = 96, mask: Map | None = None, name: str = "map", bits: int = 8) -> bytes:
    """A map as the viewer reads it.

    Parameters
    ----------
    volume : Map
        Larger cubes are made coarser in Fourier space, other shapes by means of blocks.
    most_box : int
        Longest side sent.
    mask : Map, optional
        Where the molecule is: chooses the level to begin at.
    name : str
        For people.
    bits : {8, 16}
        Of a grey value.

    Returns
    -------
    bytes

    Raises
    ------
    InputError
        Another number of bits, or a map without a finite value.
    """
    if bits not in (8, 16):
        raise InputError(f"pack_volume: expected bits 8 or 16, got {bits}")
    if not np.isfinite(volume.data).all():
        volume = volume.with_data(np.nan_to_num(volume.data, posinf=0.0, neginf=0.0))
    coarse = _coarse(volume, most_box)
    # Of what is shown: a coarser map has lost its finest waves, and the level of the whole one would cut it to threads.
    level = display_level(coarse, None if mask is None else _coarse(mask, max(coarse.data.shape)))
    low, high = float(coarse.data.min()), float(coarse.data.max())
    # The few brightest voxels would take half of the steps, and depths below zero show no surface: both are cut.
    high = max(float(np.quantile(coarse.data, 0.9998)), min(1.5 * level, high))
    low = max(low, -0.5 * high) if high > 0 else low
    high = high if high > low else low + 1.0
    whole = np.clip((coarse.data - low) / (high - low), 0, 1) * ((1 << bits) - 1)
    grey = np.rint(whole).astype("<u2" if bits == 16 else "u1")
    header = {
        "name": name,
        "shape": list(coarse.data.shape[::-1]),
        "pixel_size_A": float(f"{coarse.pixel_size_A:.6g}"),
        "origin_A": [float(f"{v:.6g}") for v in coarse.origin_A],  # where models lie
        "low": float(f"{low:.6g}"),
        "high": float(f"{high:.6g}"),
        "level": float(f"{level:.6g}"),
        "bits": bits,
    }
    return packed_bytes(header, grey.tobytes())


def packed_bytes(header: Mapping[str, Any], values: bytes) -> bytes:
    """A header and values as the viewer reads them."""
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + zlib.compress(values, 6)


def _coarse(volume: Map, most_box: int) -> Map:
    longest = max(volume.data.shape)
    if longest <= most_box:
        return volume
    if len(set(volume.data.shape)) == 1:
        return resample(volume, plan_resample(volume.box, volume.pixel_size_A, None, most_box), ndim=3)
    step = -(-longest // most_box)
    z, y, x = (max(1, n // step) for n in volume.data.shape)
    cut = volume.data[: z * step, : y * step, : x * step]
    steps = [n // m for n, m in zip(cut.shape, (z, y, x), strict=True)]
    means = cut.reshape(z, steps[0], y, steps[1], x, steps[2]).mean(axis=(1, 3, 5), dtype=np.float64)
    x0, y0, z0 = (o + volume.pixel_size_A * (n - 1) / 2 for o, n in zip(volume.origin_A, steps[::-1], strict=True))
    return Map(means.astype(np.float32), volume.pixel_size_A * step, (x0, y0, z0))


def viewer_html(
    packed: Mapping[str, bytes], *, models: Mapping[str, bytes] | None = None, still: str = "", colour_by: str = ""
) -> str:
    """A viewer that holds its maps itself: for pages that stand alone.

    Parameters
    ----------
    packed : mapping of name -> bytes
        From :func:`pack_volume`; the first is shown, "mask" is offered as an outline.
    models : mapping of name -> bytes, optional
        From :func:`verglas.report.model.pack_model`: offered as tubes inside the maps.
    still : str
        HTML shown where there is no WebGL2 or no script.
    colour_by : str
        The map by whose values the surface is coloured when the page opens.
    """
    blocks = "".join(
        f'<script type="application/octet-stream" data-name="{html.escape(name)}"{kind}>'
        f"{base64.b64encode(one).decode('ascii')}</script>"
        for kind, group in (("", packed), (' data-kind="model"', models or {}))
        for name, one in group.items()
    )
    coloured = f' data-colour="{html.escape(colour_by)}"' if colour_by else ""
    return f'<div class="volume"{coloured}>{blocks}<div class="still">{still}</div></div>'


def viewer_block(
    maps: Mapping[str, Map],
    *,
    models: Mapping[str, bytes] | None = None,
    most_bytes: int = 1_000_000,
    still: str = "",
    colour_by: str = "",
) -> Fragment:
    """The viewer as a block of a page.

    Parameters
    ----------
    maps : mapping of name -> Map
        The first is shown, "mask" is offered as an outline.
    models : mapping of name -> bytes, optional
        From :func:`verglas.report.model.pack_model`.
    most_bytes : int
        Of all maps and models in the page.
    still : str
        HTML shown where there is no WebGL2 or no script.
    colour_by : str
        The map by whose values the surface is coloured when the page opens.
    """
    taken = sum(map(len, (models or {}).values())) * 4 // 3
    packed = pack_volumes(maps, most_bytes=max(most_bytes - taken, most_bytes // 4))
    body = viewer_html(packed, models=models, still=still, colour_by=colour_by)
    return Fragment(body, scripts=("viewer.js",))


def pack_volumes(maps: Mapping[str, Map], *, most_bytes: int = 1_000_000) -> dict[str, bytes]:
    """Maps for a page that holds them itself, as fine as its size allows.

    Parameters
    ----------
    maps : mapping of name -> Map
        The first is sent finer than the others.
    most_bytes : int
        Of all of them in the page, where three bytes take four.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.volume import pack_volumes
    >>> noise = np.random.default_rng(0).normal(size=(2, 64, 64, 64))
    >>> packed = pack_volumes({"map": vg.Map(noise[0], 1.0), "half1": vg.Map(noise[1], 1.0)}, most_bytes=200_000)
    >>> list(packed), sum(map(len, packed.values())) * 4 / 3 < 200_000
    (['map', 'half1'], True)
    """
    mask = maps.get("mask")
    packed: dict[str, bytes] = {}
    for box in (128, 112, 96, 80, 64, 48, 32, 24, 16):
        for number, (name, one) in enumerate(maps.items()):
            side = box if number == 0 else max(16, min(48, box * 2 // 3))
            packed[name] = pack_volume(one, most_box=side, mask=None if name == "mask" else mask, name=name)
        if sum(map(len, packed.values())) * 4 / 3 < most_bytes:
            break
    return packed


def show_volumes(maps: Mapping[str, Map], *, models: Mapping[str, bytes] | None = None, height_px: int = 640) -> str:
    """The viewer as a frame of a notebook: a page of its own inside, so that no script or style meets another's."""
    body = viewer_html(pack_volumes(maps), models=models, still="This browser has no WebGL2.")
    return page_frame(body, ("viewer.js",), "maps", height_px)
