"""Particles as the other half's map shows them, through CTF and aberrations, where their poses say."""

from __future__ import annotations

import numpy as np

from verglas import fourier, ops
from verglas.optics import Aberrations
from verglas.optics.refine.pixels import Pixels, Reference
from verglas.polishing.surfaces import References, Window
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray, IntArray

_BATCH = 16  # particles at a time, for the cache


class OtherHalf:
    """The maps of two half sets, each for the particles of the other.

    Parameters
    ----------
    half_maps : (Map, Map)
        Of half sets 0 and 1, masked.
    certain : (shells,) float64
        What either has of the signal in each shell: their FSC, 0 beyond the last shell with signal.
    window : Window
    threads : int, optional
    """

    def __init__(
        self, half_maps: tuple[Map, Map], certain: FloatArray, window: Window, threads: int | None = None
    ) -> None:
        self.window, self.threads = window, threads
        self.certain = np.asarray(certain, float)[: window.last + 1]
        pixels = Pixels(window.box, window.pixel_size_A, 1, window.last)
        self._of_half = (Reference(half_maps[1], pixels, threads), Reference(half_maps[0], pixels, threads))

    def references(self, particles: Particles, half: IntArray) -> References:
        """Of particles as their images are stored, half sets 0 and 1."""
        window, box = self.window, self.window.box
        aberrations = Aberrations.of(particles)
        models = np.zeros((len(particles), 2 * window.last + 1, window.last + 1), np.complex64)
        params = particles.optics.as_params()
        for h in range(2):
            of_half = np.flatnonzero(half == h).astype(np.int64)
            for begin in range(0, len(of_half), _BATCH):
                rows = of_half[begin : begin + _BATCH]
                spectra = self._of_half[h].slices(particles[rows])
                spectra *= ops.ctf(params[rows], box, window.pixel_size_A, threads=self.threads)
                if aberrations.any:
                    images = np.asarray(fourier.inverse(spectra, (box, box), threads=self.threads), np.float32)
                    changed = aberrations.apply(images, rows, window.pixel_size_A)
                    spectra = fourier.forward(changed, 2, threads=self.threads)
                models[rows] = window.take(spectra)
        return References(models, np.tile(self.certain, (len(particles), 1)))
