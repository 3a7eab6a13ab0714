"""Ab initio runs stopped half way, and how far a map agrees with the truth."""

from __future__ import annotations

import verglas as vg
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps


class Stop(Exception):
    """What ends a run in these tests."""


def stop_at(stage, iteration, seen=None):
    def progress(name, done, total):
        if seen is not None:
            seen.append((name, done))
        if name.startswith(stage) and done == iteration:
            raise Stop("by the test")

    return progress


def agreement_A(truth, volume):
    """FSC 0.5 with the truth after alignment, of the better hand."""
    hands = [vg.Map(volume.data, volume.pixel_size_A), vg.Map(flip_hand(volume.data), volume.pixel_size_A)]
    best = max((align_maps(truth, m, max_radius=8) for m in hands), key=lambda a: a.correlation)
    return vg.fsc(truth, best.map).resolution_A(0.5)
