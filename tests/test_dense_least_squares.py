"""Maps of known poses against dense weighted least squares in float64: every row of the system written out.

What the methods minimise is the squared difference of the particles' Fourier samples from central slices of a map in
the ball, over sigma^2, plus the prior's shells. Here the matrix of that sum is made of exponentials, without grid,
window or convolution, and its normal equations are solved by factorisation.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation

from verglas import fourier, gridding, ops
from verglas.geometry import symmetry_matrices
from verglas.reconstruction import direct, least_squares
from verglas.reference.project import slice_points

from tolerance import DENSE_EXACT, DENSE_M_STEP, DENSE_M_STEP_FINE, DENSE_NORMAL


class Dense:
    """Noisy slices with CTF, shifts and a sigma of every image and shell; their normal equations in the ball."""

    def __init__(self, box: int, views: int, ball_radius: int | None = None) -> None:
        rng = np.random.default_rng(10)
        self.box, self.radius = box, (box - 1) // 2
        x = np.arange(box) - box // 2
        inside = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (ball_radius or 0) ** 2
        self.ball = inside if ball_radius else least_squares.sphere(box) > 0
        self.matrices = Rotation.random(views, random_state=10).as_matrix()
        self.shifts = rng.normal(0, 1, (views, 2))
        optics = np.zeros((views, 9))
        optics[:, 0] = optics[:, 1] = rng.uniform(8000, 25000, views)
        optics[:, 3:6], optics[:, 8] = (300, 2.7, 0.1), 1
        self.ctf = ops.ctf(optics, box, 4.0)
        self.weight = rng.uniform(0.5, 2.0, (views, self.radius + 1)).astype(np.float32)
        self.ssnr = np.linspace(8.0, 0.5, self.radius + 1)
        self.points = (np.argwhere(self.ball) - box // 2)[:, ::-1].astype(float)  # x, y, z
        truth = rng.normal(size=len(self.points)) * np.exp(-((self.points / (0.25 * box)) ** 2).sum(axis=1))
        self.images = np.zeros((views, box, box // 2 + 1), np.complex64)
        self.normal, self.right = np.zeros((len(truth),) * 2), np.zeros(len(truth))
        self.kernel = np.zeros((2 * box,) * 3)  # of A^T W A, as a function of x - x'
        for i in range(views):
            self._add(i, truth, rng)

    def _add(self, i: int, truth: np.ndarray, rng: np.random.Generator) -> None:
        rows, columns, zyx = slice_points(self.box, self.matrices[i], self.radius)
        signed = np.where(rows > self.box // 2, rows - self.box, rows)
        ramp = np.exp(-2j * np.pi * (columns * self.shifts[i, 0] + signed * self.shifts[i, 1]) / self.box)
        A = (ramp * self.ctf[i, rows, columns])[:, None] * np.exp(-2j * np.pi * zyx[:, ::-1] @ self.points.T)
        noise = np.fft.rfft2(rng.normal(size=(self.box,) * 2)) / self.box  # of a real image: column 0 holds both mates
        self.images[i, rows, columns] = A @ truth + 0.7 * noise[rows, columns]
        f = self.images[i, rows, columns].astype(complex)
        # A sample of kx > 0 stands for its mate, too; on kx = 0 both are there.
        shell = np.rint(np.hypot(columns, signed)).astype(int)
        w = self.weight[i].astype(float)[shell] * np.where(columns > 0, 2.0, 1.0)
        self.normal += (A.conj().T @ (w[:, None] * A)).real
        self.right += (A.conj().T @ (w * f)).real
        x = np.arange(-self.box, self.box)
        ez, ey, ex = (np.exp(2j * np.pi * zyx[:, axis, None] * x) for axis in range(3))
        power = w * self.ctf[i, rows, columns].astype(float) ** 2
        self.kernel += np.einsum("k,kz,ky,kx->zyx", power, ez, ey, ex, optimize=True).real

    def prior(self) -> np.ndarray:
        """Wiener's, mean weight of a shell over its SSNR, as a matrix over the ball's voxels."""
        k = np.fft.fftfreq(2 * self.box, 0.5 / self.box)
        shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / 2).astype(int)
        transfer = np.fft.fftn(np.fft.ifftshift(self.kernel)).real
        half = np.broadcast_to(np.arange(2 * self.box) <= self.box, shell.shape)  # kx of a real transform, each once
        means = np.array([transfer[half & (shell == s)].mean() for s in range(self.radius + 1)])
        values = means / self.ssnr
        values = np.append(values, max(values[-1], 0.01 * means[-1]))  # beyond the last shell: no less than 1 % of it
        lag = np.fft.ifftn(values[np.minimum(shell, self.radius + 1)]).real
        z, y, x = ((self.points[:, None, a] - self.points[None, :, a]).astype(int) for a in (2, 1, 0))
        return np.asarray(lag[z, y, x])

    def solution(self) -> np.ndarray:
        """The minimum, as a map."""
        out = np.zeros((self.box,) * 3)
        out[self.ball] = scipy.linalg.solve(self.normal + self.prior(), self.right, assume_a="pos")
        return out

    def sums(self, grid: ops.Grid, **which: bool) -> ops.GridSums:
        """The same samples on a grid."""
        sums = ops.GridSums.zeros(grid, **which)
        images = None if sums.values is None else self.images
        ops.insert(sums, images, self.matrices, shifts_px=self.shifts, ctf=self.ctf, shell_weight=self.weight)
        ops.fold(sums)
        return sums


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("ball_radius", [5, pytest.param(None, marks=pytest.mark.slow)])
def test_least_squares_is_the_dense_solution(ball_radius):
    problem = Dense(16, 25, ball_radius)
    grid = ops.Grid(16, max_radius=problem.radius, oversampling=2.5, width=6)
    values = problem.sums(grid, weights=False).values
    assert values is not None
    kernel = problem.sums(least_squares.kernel_grid(16, problem.radius), values=False)
    operator = least_squares.normal_operator(kernel, ssnr=problem.ssnr, support=problem.ball.astype(np.float32))
    right = gridding.from_grid(values, grid)
    assert relative(right[problem.ball], problem.right) < DENSE_EXACT
    made = least_squares.solve(operator, right, iterations=100, tolerance=1e-6).volume
    assert relative(made, problem.solution()) < DENSE_NORMAL


@pytest.mark.slow
def test_the_m_step_has_the_shape_of_the_dense_solution():
    """The sums divided on the grid, which knows nothing of the ball and takes neighbouring points as independent."""
    problem = Dense(12, 120)
    expected = problem.solution()
    shells = fourier.shells((12,) * 3)
    for oversampling, tolerance in ((1.5, DENSE_M_STEP), (3.0, DENSE_M_STEP_FINE)):
        grid = ops.Grid(12, max_radius=problem.radius, oversampling=oversampling)
        made = direct.solve(problem.sums(grid), ssnr=problem.ssnr) * problem.ball
        assert relative(made, expected) < tolerance
        a, b = fourier.forward(made.astype(np.float32), 3), fourier.forward(expected.astype(np.float32), 3)
        for shell in range(problem.radius + 1):
            here = shells == shell
            fsc = np.vdot(a[here], b[here]).real / np.linalg.norm(a[here]) / np.linalg.norm(b[here])
            assert fsc > 0.99


@pytest.mark.parametrize("box", [6, pytest.param(8, marks=pytest.mark.slow)])
def test_the_m_step_is_dense_least_squares_where_samples_are_grid_points(box):
    """V = sum P^T C X / (k + sum P^T C^2), every voxel of the padded box an unknown: 16^3 of them for a box of 8.

    Views along the axes, a grid of twice the points and a linear window put every sample onto one point.
    """
    rng, radius, side = np.random.default_rng(3), (box - 1) // 2, 2 * box
    matrices = np.repeat(symmetry_matrices("O"), 2, axis=0)
    grid = ops.Grid(box, oversampling=2.0, width=2, window="linear")
    assert grid.padded == side
    ctf = rng.uniform(-1, 1, (len(matrices), box)).astype(np.float32)[:, fourier.shells((box, box))].copy()
    images = fourier.forward(rng.normal(size=(len(matrices), box, box)).astype(np.float32), 2)
    x = (np.indices((side,) * 3).reshape(3, -1) - side // 2).T.astype(float)  # z, y, x
    weights, blocks, data = np.zeros((side,) * 3), [], []
    for i, matrix in enumerate(matrices):
        rows, columns, zyx = slice_points(box, matrix, radius)
        c, f = ctf[i, rows, columns].astype(float), images[i, rows, columns].astype(complex)
        mates = np.sqrt(np.where(columns > 0, 2.0, 1.0))
        A = (mates * c)[:, None] * np.exp(-2j * np.pi * zyx @ x.T)
        blocks += [A.real, A.imag]
        data += [(mates * f).real, (mates * f).imag]
        for sign, some in ((1, slice(None)), (-1, columns > 0)):
            place = tuple((sign * np.rint(side * zyx[some]).astype(int) % side).T)
            np.add.at(weights, place, c[some] ** 2)
    A = np.vstack(blocks)
    normal, right = A.T @ A, A.T @ np.concatenate(data)
    k = np.fft.fftfreq(side, 1 / side)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / 2).astype(int)
    half = np.broadcast_to(k >= 0, shell.shape)
    means = np.array([weights[(shell == s) & half].mean() for s in range(radius + 1)])
    ssnr = np.linspace(4.0, 0.5, radius + 1)
    # Beyond the last shell there are no data: any prior keeps that at zero.
    lag = np.fft.ifftn((means / ssnr)[np.minimum(shell, radius)]).real * side**3
    z, y, w = ((x[:, None, a] - x[None, :, a]).astype(np.int16) for a in range(3))
    normal += lag[z, y, w]
    dense = scipy.linalg.solve(normal, right, assume_a="pos").reshape((side,) * 3)
    sums = ops.GridSums.zeros(grid)
    ops.insert(sums, images, matrices, ctf=ctf)
    ops.fold(sums)
    made = direct.solve(sums, ssnr=ssnr)
    window = grid.window_transform() / grid.window_transform()[box // 2]
    made = (
        made * window[:, None, None] * window[:, None] * window
    )  # the map is divided by it: of samples between points
    inside = slice(side // 2 - box // 2, side // 2 - box // 2 + box)
    assert relative(made, dense[inside, inside, inside]) < DENSE_EXACT
