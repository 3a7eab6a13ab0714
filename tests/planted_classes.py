"""Particles of four views, for tests of 2D classes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

import verglas as vg

VIEWS = np.array([[0, 0], [0, 90], [90, 90], [45, 55]])  # rot, tilt


def planted(n, *, box=32, pixel_size_A=6.0, snr=0.1, noise=0, seed=0):
    """``n`` particles of four views, ``noise`` images of the same noise alone; labels, -1 for noise."""
    rng = np.random.default_rng(seed)
    model = vg.simulate.phantom(box, pixel_size_A, 140.0, seed=3)
    label = rng.integers(0, len(VIEWS), n)
    poses = vg.Poses(np.column_stack([VIEWS[label], rng.uniform(-180, 180, n)]), rng.normal(0, 4, (n, 2)))
    particles = vg.simulate.particles(model, n, box, pixel_size_A, snr=snr, poses=poses, seed=seed)
    if not noise:
        return particles, label
    images = particles.images()
    sigma = np.sqrt(images.var() / (1 + snr))
    more = (sigma * rng.standard_normal((noise, box, box))).astype(np.float32)
    rows = np.arange(n + noise) % n
    optics = particles.optics[rows]
    both = vg.Particles.from_images(np.concatenate([images, more]), pixel_size_A, optics=optics)
    return both, np.append(label, np.full(noise, -1))


def share_right(found, truth):
    """Share of particles in the class that stands for their view, classes and views paired one to one."""
    table = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(table, (found, truth), 1)
    return table[linear_sum_assignment(-table)].sum() / len(truth)
