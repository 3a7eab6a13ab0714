r"""The operator of particles with known poses: a map to all images, its exact adjoint, and their product.

.. math:: A = \begin{pmatrix} C_1 P_1 \\ \vdots \\ C_n P_n \end{pmatrix}, \qquad B = A^T A

P projects by :func:`verglas.ops.project`, C is the CTF with the particle's shift. The product B is a convolution: its
kernel, summed once, serves every iteration at two transforms of a box of 2N, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft
import scipy.sparse.linalg as sla

from verglas import fourier, gridding, ops
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.reconstruction import least_squares
from verglas.reconstruction.known_poses import max_radius_for
from verglas.types import Particles
from verglas.types.arrays import Array

_BATCH_PIXELS = 1 << 22


class ParticleOperator(sla.LinearOperator):
    """Images of particles from a map, as a ``LinearOperator``: flattened (N, N, N) in, flattened (n, N, N) out.

    Parameters
    ----------
    particles : Particles
        With poses; their images are not read by the operator itself. Odd aberrations and a magnification are no part of
        it: the images it stands for are those of :func:`verglas.optics.plain_images`.
    symmetry : str
        Point group: every image is projected from the symmetrised map, (1 / g) sum over the group.
    max_resolution_A : float, optional
        Frequencies beyond are zero; Nyquist by default.
    ctf : bool
        Whether the CTF is part of the operator.
    threads : int, optional
        Threads; all by default.
    """

    def __init__(
        self,
        particles: Particles,
        symmetry: str = "C1",
        *,
        max_resolution_A: float | None = None,
        ctf: bool = True,
        threads: int | None = None,
    ) -> None:
        if particles.poses is None:
            raise InputError("operators.particles: the particles have no poses; refine them first")
        self.particles, self.threads, self.ctf = particles, threads, ctf
        self.box = particles.box
        self.radius = max_radius_for(self.box, particles.pixel_size_A, max_resolution_A)
        self.grid = ops.Grid(self.box, max_radius=self.radius)
        self.group = symmetry_matrices(symmetry)
        self.matrices = euler_to_matrix(particles.poses.angles_deg)
        # Minus: see the poses' convention; the particle lies at minus its origin.
        self.shifts_px = -particles.poses.shifts_A / particles.pixel_size_A
        super().__init__(np.float32, (len(particles) * self.box**2, self.box**3))

    def _batches(self) -> Iterator[slice]:
        step = max(1, _BATCH_PIXELS // self.box**2)
        for begin in range(0, len(self.particles), step):
            yield slice(begin, min(begin + step, len(self.particles)))

    def _ctf(self, part: slice) -> Array | None:
        if not self.ctf:
            return None
        params = self.particles.optics.as_params()[part]
        return ops.ctf(params, self.box, self.particles.pixel_size_A, threads=self.threads)

    def _matvec(self, x: Array) -> Array:
        volume = np.ascontiguousarray(x.reshape((self.box,) * 3), np.float32)
        spectrum = gridding.to_grid(volume, self.grid, threads=self.threads)
        out = np.empty((len(self.particles), self.box, self.box), np.float32)
        for part in self._batches():
            total = None
            for element in self.group:
                slices = ops.project(
                    spectrum,
                    self.grid,
                    self.matrices[part] @ element,
                    shifts_px=self.shifts_px[part],
                    ctf=self._ctf(part),
                    threads=self.threads,
                )
                total = slices if total is None else total + slices
            assert total is not None
            # The mean, not the sum: the operator then makes the same images of a symmetric map as without a symmetry.
            out[part] = fourier.inverse(total / len(self.group), (self.box, self.box), threads=self.threads)
        return out.ravel()

    def _rmatvec(self, y: Array) -> Array:
        images = y.reshape(-1, self.box, self.box)
        return self._back(lambda part: np.ascontiguousarray(images[part], np.float32))

    def back_projected(self) -> Array:
        """A^T applied to the particles' own images, which are read in batches."""
        return self._back(self.particles.images)

    def _back(self, images: Callable[[slice], Array]) -> Array:
        sums = ops.GridSums.zeros(self.grid, weights=False)
        for part in self._batches():
            spectra, ctf = fourier.forward(images(part), 2, threads=self.threads), self._ctf(part)
            for element in self.group:
                ops.insert(
                    sums,
                    spectra,
                    self.matrices[part] @ element,
                    shifts_px=self.shifts_px[part],
                    ctf=ctf,
                    threads=self.threads,
                )
        ops.fold(sums)
        assert sums.values is not None
        volume = gridding.from_grid(sums.values, self.grid, threads=self.threads)
        # 1 / box^2: forward() is unnormalised, the images' inverse transform in _matvec divides by it.
        return volume.ravel() / np.float32(self.box**2 * len(self.group))

    def normal_weights(self, onto: ops.GridSums | None = None) -> ops.GridSums:
        """Sums of C^2 that the kernel of A^T A is made of, added to those of other particles: sets come one by one.

        Parameters
        ----------
        onto : GridSums, optional
            What :meth:`normal_weights` of particles of the same box, pixel size and limit gave; added to in place.
        """
        sums = ops.GridSums.zeros(least_squares.kernel_grid(self.box, self.radius), values=False)
        if onto is not None:
            if onto.grid != sums.grid or onto.weights is None:
                raise InputError("normal_weights: the sums to add to are of another box or limit of resolution")
            sums = onto
        for part in self._batches():
            for element in self.group:
                ops.insert(sums, None, self.matrices[part] @ element, ctf=self._ctf(part), threads=self.threads)
        return sums

    def normal(self, weights: ops.GridSums | None = None) -> sla.LinearOperator:
        """A^T A, as a convolution: two transforms of a box of 2N each time, whatever the number of particles.

        Parameters
        ----------
        weights : GridSums, optional
            From :meth:`normal_weights`, of more particles than these, under the same symmetry; used up.
        """
        sums = self.normal_weights() if weights is None else weights
        grid = sums.grid
        ops.fold(sums)
        assert sums.weights is not None
        kernel = gridding.from_grid(sums.weights, grid, box=2 * self.box, threads=self.threads)
        workers, box, size = resolve_threads(self.threads), self.box, self.box**3
        transfer = scipy.fft.rfftn(np.fft.ifftshift(kernel), workers=workers).real
        transfer /= np.float32(box**2 * len(self.group))

        def apply(x: Array) -> Array:
            return least_squares.convolve(x.reshape((box,) * 3).astype(np.float32), transfer, workers).ravel()

        return sla.LinearOperator((size, size), apply, apply, dtype=np.float32)


def particles(
    particles: Particles,
    symmetry: str = "C1",
    *,
    max_resolution_A: float | None = None,
    ctf: bool = True,
    threads: int | None = None,
) -> ParticleOperator:
    """The operator that makes images like these from a map; see :class:`ParticleOperator`."""
    return ParticleOperator(particles, symmetry, max_resolution_A=max_resolution_A, ctf=ctf, threads=threads)
