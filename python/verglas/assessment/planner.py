r"""How many particles a resolution takes, and what dose shows them: the laws that experiments are planned by.

Elastic scattering gives signal, radiation damage and blur take it away. Rosenthal and Henderson (2003, J. Mol. Biol.
333, 721-745) put it together: averages of N particles reach the resolution d at which their signal still stands out,

.. math:: N = \left(\frac{S}{\sigma}\right)^2 \frac{30 \pi}{N_e \sigma_e d\, g} e^{B / (2 d^2)},

with (S / sigma)^2 = 1 / 3 where the FSC of half maps is 0.143 (1 / 6 in each half, twice that in both together), the
useful dose N_e, the elastic cross-section sigma_e of carbon, the order g of the point group and the B-factor of all
blur together. B decides: N grows by a factor e for every 2 d^2 of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from verglas.errors import InputError
from verglas.optics import critical_exposure_e_A2

_CARBON = 6
_ELECTRON_REST_keV = 510.998950
_FINE_STRUCTURE = 137.0
_SIGNAL_TO_NOISE = 1 / np.sqrt(3)  # amplitude, where the FSC of half maps is 1 / 7: C_ref = 0.5
_A3_PER_DA = 1.21
# density in Da/A^3, mass of a unit in Da, its atoms by their number
_PROTEIN = (0.813, 24.14, {6: 1.0, 1: 1.67, 7: 0.3, 8: 0.33, 16: 0.03})
_ICE = (0.560, 18.02, {8: 1.0, 1: 2.0})
_FINEST_A, _COARSEST_A = 0.8, 100.0
_CLOSEST = 2.0  # spacing of neighbours in diameters


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"plan: {name}: expected a positive number, got {value:g}")


def electron_speed(voltage_kV: float) -> float:
    """Speed of electrons over that of light.

    Examples
    --------
    >>> from verglas.assessment.planner import electron_speed
    >>> round(electron_speed(200.0), 4)
    0.6953
    """
    _positive(voltage_kV=voltage_kV)
    return float(np.sqrt(1 - (1 + voltage_kV / _ELECTRON_REST_keV) ** -2))


def elastic_cross_section_A2(atomic_number: int, voltage_kV: float) -> float:
    r""":math:`1.4\cdot 10^{-4} Z^{3/2} \beta^{-2} (1 - 0.26 Z / 137 \beta)`, square angstrom (Langmore and Smith 1992).

    Examples
    --------
    >>> from verglas.assessment.planner import elastic_cross_section_A2
    >>> round(elastic_cross_section_A2(6, 200.0), 5)  # 41.9 square picometres
    0.00419
    """
    _positive(atomic_number=atomic_number)
    beta = electron_speed(voltage_kV)
    return float(1.4e-4 * atomic_number**1.5 / beta**2 * (1 - 0.26 * atomic_number / (_FINE_STRUCTURE * beta)))


def scattering_contrast(thickness_A: float, voltage_kV: float) -> float:
    r"""Share of the electrons that protein scatters elastically beyond what the ice in its place would.

    .. math:: C = 1 - e^{-D (\mu_p - \mu_i)}, \quad \mu = \sum_Z n_Z \sigma_Z

    of an aperture that stops what is scattered: for :func:`detection_dose_e_A2`, in the place of phase contrast, which
    is larger. n_Z are atoms per cubic angstrom of protein (1.35 g/cm^3, per carbon 1.67 H, 0.3 N, 0.33 O, 0.03 S) and
    of amorphous ice (0.93 g/cm^3).

    Parameters
    ----------
    thickness_A : float
        D, of the protein along the beam.
    voltage_kV : float

    Examples
    --------
    >>> from verglas.assessment.planner import scattering_contrast
    >>> round(scattering_contrast(100.0, 300.0), 4)
    0.0066
    """
    _positive(thickness_A=thickness_A, voltage_kV=voltage_kV)
    protein, ice = (
        density * sum(count * elastic_cross_section_A2(z, voltage_kV) for z, count in atoms.items()) / mass_Da
        for density, mass_Da, atoms in (_PROTEIN, _ICE)
    )
    return float(-np.expm1(-thickness_A * (protein - ice)))


def detection_dose_e_A2(
    size_A: float, contrast: float, *, false_alarms: float = 0.01, power: float = 0.99, efficiency: float = 1.0
) -> float:
    r"""Electrons per square angstrom that show a feature against the shot noise of its surroundings.

    In an area :math:`D^2` of the background :math:`n = q N_e D^2` electrons are counted, in the feature n (1 + C). To
    be told with these rates,

    .. math:: N_e > \frac{(z_\alpha + z_\beta \sqrt{1 + C})^2}{q D^2 C^2};

    Rose's criterion of five standard deviations puts 25 in the numerator.

    Parameters
    ----------
    size_A : float
        D.
    contrast : float
        C, relative; positive.
    false_alarms : float
        alpha, one-sided.
    power : float
        1 - beta: share of the features that are seen.
    efficiency : float
        q, quantum efficiency of the detector.

    Examples
    --------
    >>> from verglas.assessment.planner import detection_dose_e_A2
    >>> round(detection_dose_e_A2(20.0, 0.05), 1)
    22.2
    """
    _positive(size_A=size_A, contrast=contrast, efficiency=efficiency)
    if not 0 < false_alarms < 1 or not 0 < power < 1:
        raise InputError(f"plan: false_alarms and power: expected 0 to 1, got {false_alarms:g} and {power:g}")
    z_alpha, z_beta = special.ndtri(1 - false_alarms), special.ndtri(power)
    return float((z_alpha + z_beta * np.sqrt(1 + contrast)) ** 2 / (efficiency * size_A**2 * contrast**2))


def views_about_one_axis(diameter_A: float, resolution_A: float) -> int:
    """Views evenly about one axis that a resolution takes, pi D / d (Bracewell 1956; Crowther, DeRosier and Klug 1970).

    Examples
    --------
    >>> from verglas.assessment.planner import views_about_one_axis
    >>> views_about_one_axis(100.0, 10.0)
    32
    """
    _positive(diameter_A=diameter_A, resolution_A=resolution_A)
    return int(np.ceil(np.pi * diameter_A / resolution_A))


def refinement_operations(n_particles: int, box: int, thoroughness: float) -> float:
    r"""Operations of an exhaustive search, :math:`(\pi^3/8) t^2 n^5 N + \pi n^4 + N n^2`.

    n is the box, t the samples per resolution element of the search; it is what searches leave out of this that lets
    them end.

    Examples
    --------
    >>> from verglas.assessment.planner import refinement_operations
    >>> f"{refinement_operations(100_000, 128, 7):.2e}"
    '6.53e+17'
    """
    n, t = float(box), float(thoroughness)
    _positive(n_particles=n_particles, box=n, thoroughness=t)
    return float(np.pi**3 / 8 * t**2 * n**5 * n_particles + np.pi * n**4 + n_particles * n**2)


def useful_dose_e_A2(dose_e_A2: float, resolution_A: float, voltage_kV: float = 300.0) -> float:
    r"""Dose without damage that is worth as much at a resolution, frames weighted: :math:`N_c (1 - e^{-N / N_c})`.

    Examples
    --------
    >>> from verglas.assessment.planner import useful_dose_e_A2
    >>> round(useful_dose_e_A2(1.0, 3.0), 2), round(useful_dose_e_A2(60.0, 3.0), 2)
    (0.89, 4.34)
    """
    _positive(dose_e_A2=dose_e_A2)
    critical = float(critical_exposure_e_A2(1 / resolution_A, voltage_kV))
    return float(critical * -np.expm1(-dose_e_A2 / critical))


@dataclass(frozen=True)
class Imaging:
    """What an experiment is.

    Attributes
    ----------
    b_factor_A2 : float
        Of all blur: motion, optics, poses, flexibility.
    dose_e_A2 : float
        In all.
    voltage_kV : float
    symmetry_order : int
        Copies of the asymmetric unit in a particle.
    """

    b_factor_A2: float = 100.0
    dose_e_A2: float = 40.0
    voltage_kV: float = 300.0
    symmetry_order: int = 1

    def __post_init__(self) -> None:
        """Say at once what cannot be."""
        _positive(
            b_factor_A2=self.b_factor_A2,
            dose_e_A2=self.dose_e_A2,
            voltage_kV=self.voltage_kV,
            symmetry_order=self.symmetry_order,
        )


def particles_for_resolution(resolution_A: float, imaging: Imaging | None = None) -> float:
    """Particles that a resolution takes, by the law at the head of this module, with the useful dose at it.

    Examples
    --------
    >>> from verglas.assessment.planner import Imaging, particles_for_resolution
    >>> few, more = (particles_for_resolution(3.0, Imaging(b_factor_A2=b)) for b in (80.0, 120.0))
    >>> round(few), round(more)
    (61171, 564474)
    """
    how = imaging or Imaging()
    _positive(resolution_A=resolution_A)
    signal = (
        useful_dose_e_A2(how.dose_e_A2, resolution_A, how.voltage_kV)
        * elastic_cross_section_A2(_CARBON, how.voltage_kV)
        * resolution_A
        * how.symmetry_order
    )
    exponent = min(how.b_factor_A2 / (2 * resolution_A**2), 700.0)
    return float(_SIGNAL_TO_NOISE**2 * 30 * np.pi / signal * np.exp(exponent))


def resolution_of_particles_A(n_particles: float, imaging: Imaging | None = None) -> float:
    """Resolution that so many particles reach; infinite where they are too few for any.

    Examples
    --------
    >>> from verglas.assessment.planner import resolution_of_particles_A
    >>> round(resolution_of_particles_A(1e5), 2), round(resolution_of_particles_A(1e6), 2)
    (3.16, 2.66)
    """
    _positive(n_particles=n_particles)

    def missing(resolution_A: float) -> float:
        return float(np.log(particles_for_resolution(resolution_A, imaging) / n_particles))

    return _falling_root(missing)


def _falling_root(missing: Callable[[float], float]) -> float:
    if missing(_COARSEST_A) > 0:
        return float("inf")
    if missing(_FINEST_A) < 0:
        return _FINEST_A
    return float(optimize.brentq(missing, _FINEST_A, _COARSEST_A))


def least_diameter_A(mass_kDa: float) -> float:
    """Diameter of a ball of protein of this mass, at 1.21 A^3 per dalton.

    Examples
    --------
    >>> from verglas.assessment.planner import least_diameter_A
    >>> round(least_diameter_A(150.0))
    70
    """
    _positive(mass_kDa=mass_kDa)
    return float(2 * (3 * _A3_PER_DA * 1000 * mass_kDa / (4 * np.pi)) ** (1 / 3))


def particles_per_micrograph(diameter_A: float, field_A: tuple[float, float], *, spacing: float = _CLOSEST) -> float:
    """Particles of a full micrograph, on average one to every square of ``spacing`` diameters.

    Examples
    --------
    >>> from verglas.assessment.planner import particles_per_micrograph
    >>> particles_per_micrograph(100.0, (4000.0, 4000.0))
    400.0
    """
    _positive(diameter_A=diameter_A, width_A=field_A[0], height_A=field_A[1], spacing=spacing)
    return float(field_A[0] * field_A[1] / (spacing * diameter_A) ** 2)


@dataclass(frozen=True)
class ParticlesLaw:
    """Particles grow as :math:`10^{(d - d_0) / c}` with the resolution d, c negative (Stagg 2008, Heymann 2015).

    Attributes
    ----------
    one_A : float
        d_0, the resolution of a single particle on this line.
    decade_A : float
        c: how much finer ten times the particles resolve, with its sign.

    Examples
    --------
    >>> from verglas.assessment.planner import ParticlesLaw
    >>> law = ParticlesLaw.fit([1e3, 1e4, 1e5], [8.0, 6.0, 4.0])
    >>> round(law.one_A, 1), round(law.decade_A, 1), round(law.particles(3.0))
    (14.0, -2.0, 316228)
    """

    one_A: float
    decade_A: float

    @classmethod
    def fit(cls, n_particles: npt.ArrayLike, resolution_A: npt.ArrayLike) -> ParticlesLaw:
        """Through resolutions that numbers of particles gave, as of a ResLog, by least squares of the resolutions.

        Raises
        ------
        InputError
            Fewer than two numbers, none that is positive, or resolutions that do not become finer.
        """
        n, d = np.asarray(n_particles, np.float64), np.asarray(resolution_A, np.float64)
        if n.shape != d.shape or n.ndim != 1 or len(np.unique(n)) < 2 or not ((n > 0) & (d > 0)).all():
            raise InputError(
                f"plan: expected two numbers of particles or more and as many resolutions, all positive; got {n.shape} "
                f"and {d.shape}"
            )
        slope, one = np.polyfit(np.log10(n), d, 1)
        if slope >= 0:
            raise InputError(
                f"plan: resolutions become coarser with more particles, by {slope:.3g} A for ten times as many"
            )
        return cls(float(one), float(slope))

    def particles(self, resolution_A: float) -> float:
        """Particles that a resolution takes."""
        return float(10 ** ((resolution_A - self.one_A) / self.decade_A))
