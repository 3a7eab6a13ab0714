"""ops.maximise: one EM step with true poses gives map, noise and scale."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas import fourier, geometry, gridding, ops
from verglas.assessment import fsc


def blob_map(box, rng, radius=0.27):
    """A map of blobs about a pixel wide, inside radius * box."""
    at = rng.normal(size=(40, 3))
    at *= radius * box * rng.uniform(0.2, 1, (40, 1)) / np.linalg.norm(at, axis=1, keepdims=True)
    grid = np.indices((box,) * 3)[::-1] - box // 2
    r2 = sum((grid[a][..., None] - at[:, a]) ** 2 for a in range(3))
    return np.exp(-r2 / (2 * 0.5**2)).sum(-1).astype(np.float32)


class Simulated:
    """Particles at poses of a grid, with astigmatic CTF, coloured noise per group and a scale per group."""

    def __init__(self, n=2500, box=48, seed=0, step_deg=7.5):
        rng = np.random.default_rng(seed)
        self.n, self.box, self.pixel_size_A = n, box, 3.5
        self.volume = blob_map(box, rng)
        self.rot_tilt = geometry.healpix_directions(geometry.healpix_order(step_deg))
        d = len(self.rot_tilt)
        self.matrices = geometry.euler_to_matrix(np.column_stack([self.rot_tilt, np.zeros(d)]))
        self.direction, self.psi = rng.integers(0, d, n), rng.uniform(0, 360, n)
        self.shift = rng.uniform(-3, 3, (n, 2)).astype(np.float32)
        self.noise_group, self.scale_group = np.arange(n) % 2, np.arange(n) // 2 % 2
        self.scales = np.array([0.8, 1.25])
        u = rng.uniform(3000, 8000, n)  # what the CTF spreads stays in the box: no wrapping
        self.params = vg.Optics(u, u - rng.uniform(0, 500, n), rng.uniform(0, 180, n)).as_params()
        g = ops.Grid(box, width=6)
        angles = np.column_stack([self.rot_tilt[self.direction], self.psi])
        clean = ops.project(
            gridding.to_grid(self.volume, g),
            g,
            geometry.euler_to_matrix(angles),
            shifts_px=-self.shift.astype(float),
            ctf=ops.ctf(self.params, box, self.pixel_size_A),
        )
        clean = fourier.inverse(clean * self.scales[self.scale_group][:, None, None].astype(np.float32), (box, box))
        sigma = 0.8 * clean.std()
        k = np.hypot(np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)) * box
        # Gently coloured: between the pixels of the DFT a spectrum leaks (sinc^2 of the box), as it does in any crop.
        self.gain = lambda group, r: (1 + 0.5 * group) * (1 + 0.3 * np.exp(-((r / 12) ** 2)))
        noise = np.fft.rfft2(rng.normal(0, sigma, (n, box, box)))
        noise *= np.where(self.noise_group[:, None, None] == 1, self.gain(1, k), self.gain(0, k))
        self.images = (clean + np.fft.irfft2(noise, (box, box))).astype(np.float32)
        self.sigma2 = lambda group, r: sigma**2 * box**2 * self.gain(group, r) ** 2


@pytest.fixture(scope="module")
def simulated():
    return Simulated()


def test_one_em_step_with_true_poses_gives_map_noise_and_scale(simulated):
    """Issue: map FSC > 0.99 with the truth and with Cartesian insertion, noise within 3 %, scale within 1 %."""
    s = simulated
    grid = ops.PolarGrid(s.box, (s.box - 1) // 2)
    volume_grid = ops.Grid(s.box)
    posterior = ops.Posterior.from_lists(s.n, np.arange(s.n), s.direction, s.psi, shift=np.arange(s.n))
    params = s.params.copy()
    inv = 1 / np.stack([s.sigma2(g, grid.radii) for g in (0, 1)])[s.noise_group]
    slices = ops.polar_slices(gridding.to_grid(s.volume, volume_grid), volume_grid, s.matrices, grid)
    arguments = {"pixel_size_A": s.pixel_size_A, "inv_sigma2": inv.astype(np.float32), "reference": slices}
    samples = ops.polar(s.images, grid)
    sums = ops.GridSums.zeros(volume_grid)
    # First with the scale left out, which finds it; then with it, which gives the noise and the map.
    found = ops.maximise(
        ops.GridSums.zeros(volume_grid), samples, posterior, s.matrices, grid, s.shift, ctf=params, **arguments
    )
    by_scale = ops.GroupSums.zeros(2, grid)
    by_scale.add(found, s.scale_group, inv)
    np.testing.assert_allclose(by_scale.scale(), s.scales, rtol=0.01)
    params[:, 8] = s.scales[s.scale_group]
    found = ops.maximise(sums, samples, posterior, s.matrices, grid, s.shift, ctf=params, **arguments)
    by_noise = ops.GroupSums.zeros(2, grid)
    by_noise.add(found, s.noise_group)
    planted = np.stack([s.sigma2(g, grid.radii) for g in (0, 1)])
    # Rings 1 and 2 hold so few independent coefficients that 1250 particles leave 2 % of noise in the estimate.
    np.testing.assert_allclose(by_noise.sigma2()[:, 2:], planted[:, 2:], rtol=0.03)

    ops.fold(sums)
    polar_map = finish(sums, volume_grid)
    cartesian = ops.GridSums.zeros(volume_grid)
    shells = np.column_stack([inv[:, 0], inv]).astype(np.float32)
    images = fourier.forward(s.images, 2)
    angles = np.column_stack([s.rot_tilt[s.direction], s.psi])
    ops.insert(
        cartesian,
        images,
        geometry.euler_to_matrix(angles),
        shifts_px=-s.shift.astype(float),
        shell_weight=shells,
        ctf=ops.ctf(params, s.box, s.pixel_size_A),
    )
    ops.fold(cartesian)
    cartesian_map = finish(cartesian, volume_grid)
    truth, baseline = fsc(polar_map, s.volume).curve, fsc(cartesian_map, s.volume).curve
    # The last shells hold noise; there the polar sums must be as good as the Cartesian ones.
    assert truth[1:22].min() > 0.99
    assert np.all(truth[1 : grid.radius + 1] > baseline[1 : grid.radius + 1] - 0.01)
    assert fsc(polar_map, cartesian_map).curve[1:22].min() > 0.99


def finish(sums, grid):
    """num / max(den, a little), inside a sphere."""
    small = 1e-3 * sums.weights.max()
    spectrum = sums.values / np.maximum(sums.weights, small)
    box = grid.box
    # The numerator is the transform smoothed by the window, which from_grid divides out.
    volume = gridding.from_grid(spectrum, grid)
    radius = np.linalg.norm(np.indices((box,) * 3) - box // 2, axis=0)
    return (volume * (radius < 0.42 * box)).astype(np.float32)
