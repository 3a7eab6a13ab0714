"""Density maps of models."""

from __future__ import annotations

import numpy as np

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.simulate.model import Model
from verglas.simulate.scattering import atom_table
from verglas.types import Map


def density(
    model: Model, box: int, pixel_size_A: float, *, b_factor_A2: float = 0.0, threads: int | None = None
) -> Map:
    r"""Electrostatic potential of a model, band-limited to the grid.

    .. math::
        \hat V(k) = \frac{h^2}{2\pi m e} \sum_a w_a f_a(|k|)\, e^{-(B_a + B) k^2/4}\, e^{-2\pi i k \cdot r_a}

    evaluated at every Fourier coefficient of the box (:func:`verglas.ops.scatter_volume`) and transformed back: no
    sampling of atoms, no interpolation. The images of :func:`verglas.simulate.particles` are the sums of these voxels
    along the ray, on the same scale.

    Parameters
    ----------
    model : Model
        Atoms; the origin lies on voxel N // 2.
    box : int
        Side of the map in voxels.
    pixel_size_A : float
        Voxel size.
    b_factor_A2 : float
        Added to every atom's B-factor. The band limit cuts what is left at Nyquist, exp(-B / (16 pixel_size_A^2)) of
        the form factor: sharp models on coarse grids ring, as they do in an ideal detector.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Map
        Potential in volt, float32. Cost 2 box^3 floating-point operations per atom.

    Raises
    ------
    InputError
        An atom lies outside the box, or ``box`` or ``pixel_size_A`` is not positive.

    Examples
    --------
    >>> from verglas import simulate
    >>> m = simulate.density(simulate.Model([[3.0, 0, 0]], "C", b_factors_A2=20), box=16, pixel_size_A=1.5)
    >>> m.box, [int(i[0]) for i in (m.data == m.data.max()).nonzero()]
    (16, [8, 8, 10])
    """
    check_fits(model, box, pixel_size_A)
    spectrum = ops.scatter_volume(*atom_table(model, pixel_size_A, b_factor_A2), box, pixel_size_A, threads=threads)
    return Map(fourier.inverse(spectrum, (box, box, box), threads=threads), pixel_size_A)


def check_fits(model: Model, box: int, pixel_size_A: float, shift_A: float = 0.0, *, rotated: bool = False) -> None:
    """Refuse a model that the box would fold over: an atom beyond half the side (of its sphere if ``rotated``)."""
    if box < 1 or not (np.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise InputError(f"expected a positive box and pixel size, got {box} px of {pixel_size_A} A")
    reach = model.radius_A if rotated else float(np.abs(model.xyz_A).max())
    if reach + shift_A > box * pixel_size_A / 2:
        needed = int(np.ceil(2 * (reach + shift_A) / pixel_size_A / 2)) * 2
        moved = f", shifted by up to {shift_A:.1f} A," if shift_A else ""
        raise InputError(
            f"model {model.name} reaches {reach:.1f} A from the origin{moved} and does not fit a box of {box} px "
            f"({box * pixel_size_A:.1f} A across); use a box of at least {needed} px, or centre it (Model.recentre)"
        )
