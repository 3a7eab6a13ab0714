"""Maps of thick particles, whose CTF changes along the beam (3DCTF)."""

from __future__ import annotations

from typing import Any

from verglas._screen import ListenerChoice
from verglas.reconstruction.known_poses import reconstruct
from verglas.types import Map
from verglas.types.convert import ParticlesLike


def reconstruct_3d_ctf(
    particles: ParticlesLike,
    symmetry: str | None = None,
    *,
    beam_along_z: bool = True,
    diameter_A: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Map:
    r"""Map from particles whose defocus changes through their thickness.

    An image is the sum of the particle's layers, each with the CTF of its own height; summed over layers,

    .. math::
        I(k) = \sum_z \mathrm{CTF}(k;\, \Delta f + z)\, \hat V_z(k)
             = \frac{1}{2i} \left[ e^{i\chi(k)} V(k, -\tfrac{\lambda k^2}{2})
             - e^{-i\chi(k)} V(k, \tfrac{\lambda k^2}{2}) \right]

    which is Ewald's sphere: both shares are inserted where they belong (:mod:`verglas.reconstruction.ewald`).
    ``vg.simulate.project_layers`` and ``vg.simulate.project_3d_ctf`` make such images.

    Parameters
    ----------
    particles : Particles or path
        Images, poses and optics; the defocus is that of the particle's centre.
    symmetry : str, optional
        Point group; C1 by default.
    beam_along_z : bool
        Whether what lies at higher z of the turned particle is at more underfocus; False: at less. Where it is not
        known, ``vg.reconstruct(ewald=True)`` asks held-out particles.
    diameter_A : float, optional
        Of the particle; three quarters of the box by default.
    threads, device, listener
        As in :func:`verglas.reconstruct`.
    **changes
        Further fields of :class:`verglas.reconstruction.ReconstructSettings`.

    Returns
    -------
    Map

    Raises
    ------
    InputError
        As :func:`verglas.reconstruct`.

    References
    ----------
    Jensen and Kornberg (2000) Ultramicroscopy 84, 57-64; DeRosier (2000) Ultramicroscopy 81, 83-98.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> images = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    >>> poses = vg.Poses(np.random.default_rng(1).uniform(0, 180, size=(20, 3)))
    >>> optics = vg.Optics(np.full(20, 9000.0), np.full(20, 9000.0))
    >>> particles = vg.Particles.from_images(images, 4.0, poses=poses, optics=optics)
    >>> vg.reconstruction.reconstruct_3d_ctf(particles, listener=None).data.shape
    (16, 16, 16)
    """
    sign = "positive" if beam_along_z else "negative"
    return reconstruct(
        particles,
        symmetry,
        ewald=True,
        ewald_sign=sign,
        diameter_A=diameter_A,
        threads=threads,
        device=device,
        listener=listener,
        **changes,
    )
