"""Ab initio runs stopped half way, and how far a map agrees with the truth."""

from __future__ import annotations

import verglas as vg
from verglas.initial_model import find
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps
from verglas.search.grid_search import Where
from verglas.types.listener import Silence


class Stop(Exception):
    """What ends a run in these tests."""


def stop_at(stage, iteration, seen=None):
    def progress(name, done, total):
        if seen is not None:
            seen.append((name, done))
        if name.startswith(stage) and done == iteration:
            raise Stop("by the test")

    return progress


class Stopping(Silence):
    """A listener that stops at an iteration of a stage, and keeps what it is told."""

    def __init__(self, stage="none", iteration=0):
        self.seen, self.lines = [], []
        self._progress = stop_at(stage, iteration, self.seen)

    def say(self, line):
        self.lines.append(line)

    def progress(self, name, done, total):
        self._progress(name, done, total)


def drawn_problem(particles, settings):
    """What starts begin with: the particles in memory, and their first noise."""
    drawn = find._draw_particles(particles, settings, Where(threads=1), Silence())
    return drawn.problem, find._first_noise(drawn.problem, drawn.power)


def agreement_A(truth, volume):
    """FSC 0.5 with the truth after alignment, of the better hand."""
    hands = [vg.Map(volume.data, volume.pixel_size_A), vg.Map(flip_hand(volume.data), volume.pixel_size_A)]
    best = max((align_maps(truth, m, max_radius=8) for m in hands), key=lambda a: a.correlation)
    return vg.fsc(truth, best.map).resolution_A(0.5)
