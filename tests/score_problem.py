"""Images of small maps with poses and optics, and their float64 scores, for the tests of ops.score."""

from __future__ import annotations

import finufft
import numpy as np
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, geometry, gridding, ops, reference

PIXEL_A = 2.0


def blob_map(box, seed, blobs=10, spread=0.13):
    """A few Gaussian blobs inside 0.8 of the box, as a masked particle is."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((box,) * 3) - box // 2
    centres = np.clip(rng.normal(0, spread * box, (blobs, 3)), -0.3 * box, 0.3 * box)
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3.0) for a, b, c in centres).astype(np.float32)


def disc(box, radius):
    y, x = np.indices((box, box)) - box // 2
    return np.hypot(x, y) < radius


def clean_images(volume, angles_deg, shifts_px, params=None):
    """Projections whose origin is ``shifts_px``: the particle sits at minus it."""
    grid = ops.Grid(len(volume))
    c = None if params is None else ops.ctf(params, len(volume), PIXEL_A)
    slices = ops.project(
        gridding.to_grid(volume, grid), grid, vg.euler_to_matrix(angles_deg), shifts_px=-np.asarray(shifts_px), ctf=c
    )
    return fourier.inverse(slices, volume.shape[1:])


def slices_of(volume, directions_deg, grid, psi=0.0):
    grid3 = ops.Grid(len(volume))
    angles = np.column_stack([directions_deg, np.full(len(directions_deg), psi)])
    return ops.polar_slices(gridding.to_grid(volume, grid3), grid3, vg.euler_to_matrix(angles), grid)


def opposite_of(directions_deg):
    return np.column_stack([directions_deg[:, 0] + 180, 180 - directions_deg[:, 1]])


def circle(half):
    return np.concatenate([half, half.conj()], axis=-1).astype(complex)


def optics_params(rng, n, astigmatism=1500):
    u = rng.uniform(8e3, 2e4, n)
    return vg.Optics(u, u + rng.uniform(-astigmatism, astigmatism, n), rng.uniform(0, 180, n)).as_params()


def ctf_on_rings(params, grid):
    kx, ky = (k / (grid.box * PIXEL_A) for k in reference.polar.points(grid.radii, grid.n_theta))
    return np.array([reference.ctf.ctf_at(row, kx, ky) for row in params])


def reference_joint(samples, slices, grid, n_psi, shifts, inv, params=None):
    """L (n, slices, psi, shifts) in float64 from the same samples."""
    c = None if params is None else ctf_on_rings(params, grid)
    cross, power = reference.score.polar_terms(
        circle(samples), circle(slices), grid.weights, grid.radii, grid.limits, n_psi, shifts, grid.box, inv, c
    )
    return cross - power[..., None] / 2


def nonuniform(volume, k):
    """Transform of a map at any points, by finufft."""
    z, y, x = np.moveaxis(2 * np.pi * k[..., ::-1] / len(volume), -1, 0)
    points = [np.ascontiguousarray(c.ravel()) for c in (z, y, x)]
    return finufft.nufft3d2(*points, volume.astype(complex), isign=-1, eps=1e-10).reshape(k.shape[:-1])


class Problem:
    """Noisy images of a small map, everything the search needs; plans are made on ``device``."""

    device = "cpu"

    def __init__(self, seed, box=24, radius=9, n=3, n_shifts=5, spacing=1.0, order=0, noise=1.0):
        rng = np.random.default_rng(seed)
        self.volume = blob_map(box, seed)
        self.grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box, spacing=spacing)
        self.directions = geometry.healpix_directions(order)
        self.slices = slices_of(self.volume, self.directions, self.grid)
        self.params = optics_params(rng, n)
        self.shifts = rng.uniform(-3, 3, (n_shifts, 2)).astype(np.float32)
        angles = np.column_stack([rng.uniform(-180, 180, n), rng.uniform(0, 180, n), rng.uniform(-180, 180, n)])
        clean = clean_images(self.volume, angles, self.shifts[rng.integers(0, n_shifts, n)], self.params)
        images = (clean + noise * rng.standard_normal(clean.shape)) * disc(box, 0.4 * box)
        self.samples = ops.polar(images.astype(np.float32), self.grid)
        # Every image with a noise spectrum of its own, as groups have.
        coloured = rng.uniform(0.5, 2, (n, self.grid.n_rings)) / (noise * box) ** 2
        self.inv = coloured.astype(np.float32)
        self.n_psi = 24

    def run(self, plan=None, rows=slice(None), **more):
        plan = plan or self.plan()
        return plan.run(
            self.samples[rows],
            self.shifts,
            ctf=self.params[rows],
            pixel_size_A=PIXEL_A,
            inv_sigma2=self.inv[rows],
            **more,
        )

    def plan(self, opposite=True, **settings):
        plan = ops.ScorePlan(self.grid, self.n_psi, **{"n_power": 8, "device": self.device, **settings})
        plan.set_reference(self.slices, opposite=opposite)
        return plan

    def joint(self):
        """(n, slices, opposite, psi, shifts) log-likelihood plus uniform log prior, float64."""
        sides = [
            reference_joint(self.samples, s, self.grid, self.n_psi, self.shifts, self.inv, self.params)
            for s in (
                self.slices,
                circle(self.slices)[..., -np.arange(self.grid.n_theta) % self.grid.n_theta][
                    ..., : self.grid.n_theta // 2
                ],
            )
        ]
        joint = np.stack(sides, axis=2)
        return joint - np.log(joint[0].size)


problems = st.builds(
    Problem,
    seed=st.integers(0, 10_000),
    box=st.integers(15, 28),
    radius=st.integers(1, 7),
    n=st.integers(1, 5),
    n_shifts=st.integers(1, 20),
    spacing=st.sampled_from([1.0, 0.5]),
    noise=st.sampled_from([0.5, 2.0, 10.0]),
)
