"""Even aberrations of a group, folded into the parameters of a CTF.

Up to fourth order every even aberration is a polynomial in (kx, ky) of which a CTF has the constant and second-order
terms already (phase shift, defocus, astigmatism); five terms of fourth order remain.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray

EVEN_ZERNIKE = "rlnEvenZernike"
EVEN_COUNT = 9  # Z(0,0), Z(2,-2), Z(2,0), Z(2,2), Z(4,-4), Z(4,-2), Z(4,0), Z(4,2), Z(4,4)
FOURTH_ORDER = ("spherical4_A4", "astigmatism4_x_A4", "astigmatism4_y_A4", "tetrafoil_x_A4", "tetrafoil_y_A4")


def coefficient_lists(table: pd.DataFrame, label: str, where: str) -> FloatArray | None:
    """A column of texts like ``[0.1,-2]`` as (rows, count) float64, short rows padded with 0; None without the column.

    Raises
    ------
    InputError
        A row holds no list of finite numbers; it is named.

    Examples
    --------
    >>> import pandas as pd
    >>> coefficient_lists(pd.DataFrame({"rlnOddZernike": ["[1,2.5]", "[3]"]}), "rlnOddZernike", "x.star").tolist()
    [[1.0, 2.5], [3.0, 0.0]]
    """
    if label not in table:
        return None
    codes, texts = pd.factorize(table[label].astype(str))
    rows: list[list[float]] = []
    for i, text in enumerate(texts):
        try:
            numbers = [float(v) for v in text.strip().strip("[]").split(",") if v.strip()]
        except ValueError:
            numbers = [np.nan]
        if not np.isfinite(numbers).all():
            row = int(np.argmax(codes == i))
            raise InputError(f"{where}: {label}, row {row} (from 0): expected numbers as [0.1,-2], got {text}")
        rows.append(numbers)
    out = np.zeros((len(rows), max(map(len, rows), default=0)))
    for i, numbers in enumerate(rows):
        out[i, : len(numbers)] = numbers
    return np.asarray(out[codes])


def fold_even(columns: dict[str, FloatArray], even: FloatArray, wavelength_A: FloatArray) -> dict[str, FloatArray]:
    r"""CTF parameters with even Zernike coefficients of each image added, exactly.

    .. math:: \chi \to \chi - \sum_n z_n Z_n(k)

    Parameters
    ----------
    columns : mapping of name -> (n,) float64
        Fields of :class:`verglas.Optics`.
    even : (n, m) float64
        Coefficients in the order of ``rlnEvenZernike``, k in 1/A; those beyond the fourth order are not looked at.
    wavelength_A : (n,) float64

    Returns
    -------
    dict
        All of ``columns``, with defoci, angle and phase shift changed and the five terms of fourth order.
    """
    z = np.zeros((len(even), EVEN_COUNT))
    z[:, : even.shape[1]] = even[:, :EVEN_COUNT]
    z00, z2s, z20, z2c, z4ss, z4s, z40, z4c, z4cc = z.T
    per_A = -1.0 / (np.pi * wavelength_A)
    angle = np.deg2rad(2 * columns["defocus_angle_deg"])
    half = (columns["defocus_u_A"] - columns["defocus_v_A"]) / 2
    mean = (columns["defocus_u_A"] + columns["defocus_v_A"]) / 2 + per_A * (2 * z20 - 6 * z40)
    x, y = half * np.cos(angle) + per_A * (z2c - 3 * z4c), half * np.sin(angle) + per_A * (z2s - 3 * z4s)
    # only where there is an astigmatic term: an angle as written stays as it is written otherwise
    changed = (z2c - 3 * z4c != 0) | (z2s - 3 * z4s != 0)
    half = np.where(changed, np.hypot(x, y), half)
    turned = np.where(changed, np.rad2deg(np.arctan2(y, x)) / 2, columns["defocus_angle_deg"])
    fourth = (-6 * z40, -4 * z4c, -4 * z4s, -z4cc, -z4ss)
    return {
        **columns,
        "defocus_u_A": mean + half,
        "defocus_v_A": mean - half,
        "defocus_angle_deg": turned,
        "phase_shift_deg": columns["phase_shift_deg"] - np.rad2deg(z00 - z20 + z40),
        **dict(zip(FOURTH_ORDER, fourth, strict=True)),
    }


def even_zernikes(fourth: FloatArray) -> FloatArray:
    """Coefficients (n, 9) whose whole effect is these terms of fourth order, (n, 5): what ``fold_even`` undoes.

    Examples
    --------
    >>> import numpy as np
    >>> z = even_zernikes(np.array([[6.0, 0, 0, 2.0, 0]]))
    >>> z.tolist()
    [[-2.0, 0.0, -3.0, 0.0, 0.0, 0.0, -1.0, 0.0, -2.0]]
    """
    s, x, y, tx, ty = np.asarray(fourth, np.float64).T
    z40, z4c, z4s = -s / 6, -x / 4, -y / 4
    # 6 r^4 - 6 r^2 + 1 and 4 r^4 - 3 r^2 bring lower orders along; Z(2, .) and Z(0, 0) take them away
    z20 = 3 * z40
    return 0.0 + np.column_stack([z20 - z40, 3 * z4s, z20, 3 * z4c, -ty, z4s, z40, z4c, -tx])


def write_coefficients(coefficients: FloatArray) -> list[str]:
    """Rows of coefficients as RELION writes them: ``[0.1,-2]``."""
    return ["[" + ",".join(f"{v:.9g}" for v in row) + "]" for row in coefficients]
