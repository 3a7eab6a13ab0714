"""Words for what ``ctf-refine`` fits, and the tables of what it found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.optics.aberrations import BEAM_TILT, MAGNIFICATION, ODD_ZERNIKE
from verglas.optics.refine import DefocusFit, GroupFit, MicrographFit
from verglas.optics.refine.micrographs import Term
from verglas.optics.transfer import wavelength_A
from verglas.types import Particles
from verglas.types.even_aberrations import EVEN_ZERNIKE, write_coefficients

if TYPE_CHECKING:
    from verglas.run.ctf_refine_rounds import Round

MICROGRAPH_TERMS: tuple[Term, ...] = ("astigmatism", "phase_shift", "b_factor")
# Zernike polynomials (n, m) of each word; "cs" frees mean defocus and phase with the spherical term.
ODD_WORDS = {"beam_tilt": ((1, -1), (1, 1), (3, -1), (3, 1)), "trefoil": ((3, -3), (3, 3))}
EVEN_WORDS = {
    "tetrafoil": ((4, -4), (4, 4)),
    "cs": ((0, 0), (2, 0), (4, 0)),
    "fourth_order": ((0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4)),
}
WORDS = ("defocus", *MICROGRAPH_TERMS, *ODD_WORDS, *EVEN_WORDS, "magnification")


def settings_of_words(fit: str | Iterable[str]) -> dict[str, Any]:
    """Fields of ``CtfRefineSettings`` that fit what the words name, and nothing else.

    Raises
    ------
    InputError
        No word, or one that is none of :data:`WORDS`.

    Examples
    --------
    >>> from verglas.run.ctf_refine_terms import settings_of_words
    >>> chosen = settings_of_words(("astigmatism", "beam_tilt"))
    >>> chosen["astigmatism"], chosen["odd"], chosen["odd_terms"], chosen["defocus"]
    (True, True, 'beam_tilt', False)
    """
    words = [w.strip() for w in fit.split(",")] if isinstance(fit, str) else list(fit)
    stray = [word for word in words if word not in WORDS]
    if stray or not words:
        raise InputError(f"ctf-refine: fit: expected words of {', '.join(WORDS)}, got {(stray or [''])[0] or 'none'}")
    odd, even = ([word for word in names if word in words] for names in (ODD_WORDS, EVEN_WORDS))
    chosen: dict[str, Any] = {name: name in words for name in ("defocus", *MICROGRAPH_TERMS, "magnification")}
    chosen |= {"odd": bool(odd), "even": bool(even)}
    if odd:
        chosen["odd_terms"] = " ".join(odd)
    if even:
        chosen["even_terms"] = " ".join(even)
    return chosen


def indices_of(terms: str) -> list[tuple[int, int]]:
    """(n, m) of the Zernike polynomials that words, with spaces between, name.

    Examples
    --------
    >>> from verglas.run.ctf_refine_terms import indices_of
    >>> indices_of("trefoil")
    [(3, -3), (3, 3)]
    """
    words = terms.split()
    stray = [word for word in words if word not in ODD_WORDS | EVEN_WORDS]
    if stray or not words:
        known = ", ".join(ODD_WORDS | EVEN_WORDS)
        raise InputError(f"ctf-refine: expected terms of {known}, got {stray[0] if stray else 'none'}")
    return sorted({index for word in words for index in (ODD_WORDS | EVEN_WORDS)[word]})


def gains_table(rounds: Sequence[Round]) -> pd.DataFrame:
    """A row for every fit of every round: what held-out data gained, with its standard error."""
    rows = [
        (number, name, fit.gain_nats, fit.gain_error_nats, fit.kept)
        for number, made in enumerate(rounds, 1)
        for name, fit in made.fits()
    ]
    return pd.DataFrame(rows, columns=["round", "term", "gain_nats", "gain_error_nats", "kept"])


def groups_table(particles: Particles, rounds: Sequence[Round]) -> pd.DataFrame:
    """The optics table, and beside each label that was fitted ``<label>_error``, its standard error."""
    assert particles.optics_table is not None
    table, optics = particles.optics_table.copy(), particles.optics
    columns: dict[str, list[Any]] = {}

    def put(label: str, group: int, value: Any) -> None:
        columns.setdefault(f"{label}_error", [None] * len(table))[group] = value

    for made in rounds:
        for g, fit in made.odd.items():
            error = fit.standard_error
            put(ODD_ZERNIKE, g, write_coefficients(error[None])[0])
            one = int(np.flatnonzero(optics.group == g)[0])
            coma = float(optics.cs_mm[one] * 1e7 * wavelength_A(optics.voltage_kV[one]) ** 2)
            if coma >= 1.0:
                for label, coefficient in zip(BEAM_TILT, (4, 3), strict=True):  # k^2 kx = (Z(3,1) + 2 Z(1,1)) / 3
                    put(label, g, float(error[coefficient] / (2e-3 * np.pi * coma / 3)))
        for g, fit in made.even.items():
            put(EVEN_ZERNIKE, g, write_coefficients(fit.standard_error[None])[0])
        for g, fit in made.magnification.items():
            for label, value in zip(MAGNIFICATION, fit.standard_error, strict=True):
                put(label, g, float(value))
    return table.assign(**columns)


def fit_record(name: str, fit: GroupFit | DefocusFit | MicrographFit) -> dict[str, Any]:
    """A fit as JSON holds it."""
    record: dict[str, Any] = {
        "what": name,
        "kept": fit.kept,
        "gain_nats": round(fit.gain_nats, 2),
        "gain_error_nats": round(fit.gain_error_nats, 2),
    }
    if isinstance(fit, DefocusFit):
        return record | {"width_A": round(fit.width_A, 1), "about": fit.about}
    if isinstance(fit, MicrographFit):
        spread, error = np.sqrt(np.mean(fit.change**2, axis=0)), np.median(fit.standard_error, axis=0)
        return record | {"rms_change": spread.tolist(), "median_standard_error": error.tolist()}
    return record | {"change": fit.change.tolist(), "standard_error": fit.standard_error.tolist()}
