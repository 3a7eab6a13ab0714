r"""The operator of particles with known poses: a map to all images, its exact adjoint, and their product.

.. math:: A = \begin{pmatrix} C_1 P_1 \\ \vdots \\ C_n P_n \end{pmatrix}, \qquad B = A^T A

P projects by :func:`verglas.ops.project`, C is the CTF with the particle's shift. The product B is a convolution: its
kernel, summed once, serves every iteration at two transforms of a box of 2N, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse.linalg as sla

from verglas import fourier, gridding, ops
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.reconstruction import least_squares
from verglas.reconstruction.known_poses import max_radius_for
from verglas.types import Particles
from verglas.types.arrays import Array, Float32Array, FloatArray

_BATCH_PIXELS = 1 << 22
_VIEWS = 256  # whose overlap is summed at a time


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
        self.data_shape, self.map_shape = (len(particles), self.box, self.box), (self.box,) * 3
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

    def weighted_back_projection(self, data: npt.ArrayLike) -> Array:
        """:func:`weighted_back_projection_of_views` of images, as a vector; of an operator without CTF."""
        return weighted_back_projection_of_views(self, np.asarray(data).reshape(self.data_shape)).ravel()

    def back_project_images(self) -> Array:
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

        Raises
        ------
        InputError
            ``onto`` is of another box or limit, or was used up by :meth:`normal`.
        """
        grid = least_squares.kernel_grid(self.box, self.radius)
        sums = ops.GridSums.zeros(grid, values=False) if onto is None else self._check_weights(onto)
        for part in self._batches():
            for element in self.group:
                ops.insert(sums, None, self.matrices[part] @ element, ctf=self._ctf(part), threads=self.threads)
        return sums

    def _check_weights(self, sums: ops.GridSums) -> ops.GridSums:
        grid = least_squares.kernel_grid(self.box, self.radius)
        if sums.grid != grid or sums.weights is None:
            raise InputError("normal weights: these sums are of another box or limit of resolution")
        # Folding empties the halo; folded again, the plane kx = 0 would count twice.
        if not sums.weights[:, :, : grid.halo].any():
            raise InputError("normal weights: these sums were used up by normal(); make them anew")
        return sums

    def normal(self, weights: ops.GridSums | None = None) -> sla.LinearOperator:
        """A^T A, as a convolution: two transforms of a box of 2N each time, whatever the number of particles.

        Parameters
        ----------
        weights : GridSums, optional
            From :meth:`normal_weights`, of more particles than these, under the same symmetry; used up.

        Raises
        ------
        InputError
            ``weights`` are of another box or limit, or were used up before.
        """
        sums = self.normal_weights() if weights is None else self._check_weights(weights)
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


def view_overlap(operator: ParticleOperator, which: int, diameter_px: float | None = None) -> FloatArray:
    r"""How many views measure each frequency of one view: the arbitrary-geometry filter's denominator.

    .. math:: H(k) = \sum_j \mathrm{sinc}(D\, k \cdot n_j), \qquad \mathrm{sinc}(x) = \sin(\pi x) / \pi x

    n_j being the direction of view j and D the diameter, since an object of finite depth smears a view's plane along
    its direction (Radermacher 1992). With a symmetry, of all equivalent views.

    Parameters
    ----------
    operator : ParticleOperator
    which : int
        Number of the view.
    diameter_px : float, optional
        Of what is back-projected; 1.25 boxes by default, towards the corners.

    Returns
    -------
    (N, N // 2 + 1) float64

    Raises
    ------
    InputError
        The diameter is not within 1 to 2 boxes.
    """
    box = operator.box
    diameter = _diameter(operator, diameter_px)
    # Row 2 of a matrix is the view's direction in the map's frame, rows 0 and 1 the axes of its image.
    normals = (operator.matrices[:, None] @ operator.group)[:, :, 2].reshape(-1, 3)
    kx, ky = np.meshgrid(np.fft.rfftfreq(box), np.fft.fftfreq(box))
    k = np.stack([kx.ravel(), ky.ravel()], axis=1) @ operator.matrices[which][:2]
    total = np.zeros(len(k))
    for begin in range(0, len(normals), _VIEWS):
        total += np.sinc(diameter * (k @ normals[begin : begin + _VIEWS].T)).sum(axis=1)
    return total.reshape(kx.shape)


def weighted_back_projection_of_views(
    operator: ParticleOperator, images: npt.ArrayLike, diameter_px: float | None = None
) -> Float32Array:
    """Back-projection of images in any directions after the filter of these very directions (:func:`view_overlap`).

    For tens to hundreds of views without CTF (class averages, one class of tilt pairs): the filters cost n^2 N^2.

    Parameters
    ----------
    operator : ParticleOperator
        Made with ``ctf=False``.
    images : (n, N, N) array_like
    diameter_px : float, optional
        Of what is back-projected; 1.25 boxes by default, towards the corners. Frequencies that one view alone measures
        get weight 1.

    Returns
    -------
    (N, N, N) float32

    Raises
    ------
    InputError
        The operator has CTFs, images of another number or size, or a diameter that is not within 1 to 2 boxes.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction import operators
    >>> model = vg.simulate.phantom(16, 6.0, 60.0)
    >>> p = vg.simulate.particles(model, 60, 16, 6.0, ctf=False, shift_sd_A=0.0, listener=None)
    >>> A = operators.particles(p, ctf=False)
    >>> truth = vg.simulate.density(model, 16, 6.0).data
    >>> made = operators.weighted_back_projection_of_views(A, (A @ truth.ravel()).reshape(-1, 16, 16))
    >>> bool(np.corrcoef(made.ravel(), truth.ravel())[0, 1] > 0.9)
    True
    """
    if operator.ctf:
        raise InputError("weighted back-projection: takes images without CTF; make the operator with ctf=False")
    diameter = _diameter(operator, diameter_px)
    stack = np.asarray(images, np.float32)
    if stack.size != operator.shape[0]:
        n, box = len(operator.matrices), operator.box
        raise InputError(f"weighted back-projection: expected images ({n}, {box}, {box}), got shape {stack.shape}")
    stack = stack.reshape(-1, operator.box, operator.box)
    filtered = np.empty_like(stack)
    for i, image in enumerate(stack):
        overlap = np.maximum(view_overlap(operator, i, diameter), 1.0)
        filtered[i] = np.fft.irfft2(np.fft.rfft2(image) / overlap, image.shape)
    # The adjoint averages over the group, of which the filter counted every view.
    volume = operator.rmatvec(filtered.ravel()) * np.float32(len(operator.group) / diameter)
    return np.asarray(volume, np.float32).reshape((operator.box,) * 3)


def _diameter(operator: ParticleOperator, diameter_px: float | None) -> float:
    diameter = 1.25 * operator.box if diameter_px is None else float(diameter_px)
    if not 1 <= diameter <= 2 * operator.box:
        raise InputError(
            f"weighted back-projection: expected a diameter of 1 to {2 * operator.box} pixels, got {diameter:g}"
        )
    return diameter
