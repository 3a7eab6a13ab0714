"""How well contrast transfer functions explain a power spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, optics_rows, require_cpu
from verglas.types.arrays import FloatArray


@dataclass(frozen=True)
class CtfScores:
    """Sums of :func:`ctf_score`, one row per set of parameters.

    Attributes
    ----------
    model_power : (n,) float64
        sum m m.
    overlap : (n,) float64
        sum y m.
    descent : (n, 4) float64
        sum r J, zero where no derivatives were asked for.
    normal : (n, 4, 4) float64
        sum J J^T, the Gauss-Newton matrix.
    """

    model_power: FloatArray
    overlap: FloatArray
    descent: FloatArray
    normal: FloatArray


def ctf_score(
    params: npt.ArrayLike,
    kx: npt.ArrayLike,
    ky: npt.ArrayLike,
    values: npt.ArrayLike,
    amplitude: npt.ArrayLike,
    *,
    derivatives: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> CtfScores:
    r"""Sums of a spectrum against the squared CTF, for many parameters at once.

    .. math::
        m_i = a_i\, CTF(k_i)^2, \quad r_i = y_i - m_i, \quad
        \sum r^2 = \sum y^2 - 2 \sum y m + \sum m^2

    The parameters p that derivatives are taken for are the mean defocus, :math:`\tfrac{u-v}{2}\cos 2\alpha`,
    :math:`\tfrac{u-v}{2}\sin 2\alpha` (angstrom) and the phase shift (degrees): the phase is linear in all of them.

    Parameters
    ----------
    params : (n, 14) or (n, 9) float64
        As for :func:`verglas.ops.ctf`; B-factor and scale are ignored.
    kx, ky : (m,) float32
        Spatial frequencies of the pixels, 1/A.
    values : (m,) float32
        y: power less background, over noise.
    amplitude : (m,) float32
        a: amplitude of the rings over noise.
    derivatives : bool
        Also sum residual times Jacobian and Jacobian times Jacobian.
    device : str
        ``"cpu"``.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    CtfScores
        Relative error of sums about 1e-6 (float32 phases and partial sums).

    Raises
    ------
    ValueError
        Arrays of other shapes.
    DeviceError
        Any device but the CPU.

    References
    ----------
    Mindell and Grigorieff (2003) J. Struct. Biol. 142, 334-347; Gauss-Newton: Nocedal and Wright, Numerical
    Optimization, section 10.3.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> k = np.linspace(0.05, 0.2, 50)
    >>> rings = np.sin(np.pi * 0.019687 * 15000 * k**2) ** 2
    >>> scores = ops.ctf_score([[z, z, 0, 300, 0, 0, 0, 0, 1] for z in (14000, 15000, 16000)], k, 0 * k, rings, k > 0)
    >>> int(np.argmax(2 * scores.overlap - scores.model_power))
    1
    """
    require_cpu(device, "ctf_score")
    arrays = [as_array(v, np.float32) for v in (kx, ky, values, amplitude)]
    sums = core.ctf_score(optics_rows(params), *arrays, bool(derivatives), resolve_threads(threads))
    normal = np.empty((len(sums), 4, 4))
    upper = np.triu_indices(4)
    normal[:, upper[0], upper[1]] = sums[:, 6:]
    normal[:, upper[1], upper[0]] = sums[:, 6:]
    return CtfScores(sums[:, 0], sums[:, 1], sums[:, 2:6], normal)
