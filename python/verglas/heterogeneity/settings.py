"""What classification and variability are asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from verglas.types.settings import JobSettings, accept_former_names, setting

AUTO = "auto"


@accept_former_names
@dataclass(frozen=True)
class ClassSettings(JobSettings, job="class3d"):
    """Choices of a classification in three dimensions; every number has the unit in its name.

    Attributes
    ----------
    classes : str
        Number of classes, or "auto": 1, 2, ... until the held-out gain of one more is within its error.
    most_classes : int
        Where "auto" ends.
    poses : {"global", "fixed"}
        Search all orientations; or keep the particles' poses.
    symmetry : str
        Point group, imposed on every class.
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    resolution_A : float
        Finest data in use.
    initial_resolution_A : float
        Low-pass of the references.
    prior_factor : float
        T: factor of the prior's variance.
    direction_order : int
        HEALPix order of the directions searched: 3 is 7.3 degrees, 4 is 3.7.
    shift_range_A : float
        Largest shift searched in the first iterations.
    consensus_iterations : int
        Of the single map that comes first.
    iterations : int
        Of each number of classes, at most.
    still : float
        Share of particles that may still change class at the end.
    contrast : bool
        At fixed poses: estimate a contrast per particle.
    start : {"components", "split"}
        At fixed poses: all classes at once, along the leading components; or one after the other, by splitting the
        class that varies most into two.
    junk : bool
        Noise alone explains a particle, too: those that it explains better are of no class, and have no part in the
        maps of several.
    repeats : int
        Classifications with the number of classes that was chosen, each from another start: the one that held-out
        particles ask for is the result, and who is in the same class in all of them is the stable core.
    first_particles : int, optional
        Of each half set, in the first iteration of a global search; twice as many in each that follows.
    seed : int
        Of half sets and first classes.
    """

    classes: str = setting("3", "Number of classes, or auto: held-out evidence chooses", flags=("-K",))
    most_classes: int = setting(6, "With auto: the largest number tried", at_least=2)
    poses: Literal["global", "fixed"] = setting("global", "Search all poses, or keep the particles' own")
    symmetry: str = setting("C1", "Point group in RELION's orientation, imposed on every class", flags=("--sym",))
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    resolution_A: float = setting(12.0, "Finest data used", more_than=0)
    initial_resolution_A: float = setting(30.0, "Low-pass of the references", more_than=0)
    prior_factor: float = setting(
        4.0, "Factor T of the prior's variance tau^2", more_than=0, flags=("-T",), former=("regularisation",)
    )
    direction_order: int = setting(
        3, "HEALPix order of the directions: 3 is 7.3 degrees, 4 is 3.7", at_least=2, at_most=5
    )
    shift_range_A: float = setting(12.0, "Largest shift searched in the first iterations", more_than=0)
    consensus_iterations: int = setting(4, "Iterations of the single map that comes first", at_least=1)
    iterations: int = setting(15, "Most iterations of each number of classes", at_least=1)
    still: float = setting(0.01, "Share of particles that may still change class at the end", at_least=0, at_most=1)
    contrast: bool = setting(True, "With fixed poses: estimate a contrast per particle")
    start: Literal["components", "split"] = setting(
        "components", "With fixed poses: all classes at once, or always the one that varies most split in two"
    )
    junk: bool = setting(False, "Set particles apart that noise alone explains better than any map")
    repeats: int = setting(1, "Classifications, each from another start: the stable core stays together", at_least=1)
    first_particles: int | None = setting(
        None,
        "Particles of each half set in the first iteration of a global search, doubled each time",
        at_least=50,
        default_words="all",
    )
    seed: int = setting(0, "Seed of half sets and first classes", at_least=0)

    def _impossible(self) -> Iterator[tuple[str, str]]:
        text = str(self.classes)
        if text != AUTO and not (text.isdecimal() and int(text) >= 1):
            yield "classes", f"expected a positive whole number or auto, got {self.classes!r}"
        if self.start == "split" and self.poses != "fixed":
            yield "start", 'classes are split at the particles\' own poses: say poses = "fixed"'
        if self.first_particles is not None and self.poses == "fixed":
            yield "first_particles", 'it is the search over all poses that grows: poses = "global"'

    @property
    def counts(self) -> list[int]:
        """Numbers of classes to try; with "auto" all of them, of which the search may not need the last."""
        if self.classes == AUTO:
            return list(range(1, self.most_classes + 1))
        return [int(self.classes)]


@dataclass(frozen=True)
class VariabilitySettings(JobSettings, job="variability"):
    """Choices of a variability analysis; every number has the unit in its name.

    Attributes
    ----------
    components : str
        Number of components, or "auto": as many as raise the held-out likelihood.
    most_components : int
        Where "auto" ends.
    resolution_A : float
        Finest data in use.
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    symmetry : str
        Point group, imposed on mean and components.
    method : {"em", "covariance"}
        Components by expectation-maximisation, whose resolution grows; or those of the covariance at low resolution, by
        least squares and conjugate gradients (:mod:`verglas.heterogeneity.covariance`), whatever the start.
    iterations : int
        Of expectation-maximisation; the resolution grows in the first two thirds.
    contrast : bool
        Estimate a contrast per particle.
    seed : int
        Of half sets and first components.
    """

    components: str = setting("auto", "Number of components, or auto: held-out likelihood chooses", flags=("-K",))
    most_components: int = setting(4, "With auto: the largest number tried", at_least=1)
    resolution_A: float = setting(15.0, "Finest data used", more_than=0)
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    symmetry: str = setting("C1", "Point group, imposed on mean and components", flags=("--sym",))
    method: Literal["em", "covariance"] = setting(
        "em", "Components by expectation-maximisation, or of the covariance at 40 A by least squares"
    )
    iterations: int = setting(25, "Iterations", at_least=1)
    contrast: bool = setting(True, "Estimate a contrast per particle")
    seed: int = setting(0, "Seed of half sets and first components", at_least=0)

    def _impossible(self) -> Iterator[tuple[str, str]]:
        text = str(self.components)
        if text != AUTO and not text.isdecimal():
            yield "components", f"expected a whole number or auto, got {self.components!r}"
        if self.method == "covariance" and self.symmetry.upper() != "C1":
            yield "method", 'the covariance is estimated without symmetry: say symmetry = "C1" or method = "em"'

    @property
    def largest(self) -> int:
        """Components that are learned."""
        return self.most_components if self.components == AUTO else int(self.components)


@dataclass(frozen=True)
class TestSettings(JobSettings, job="heterogeneity"):
    """Choices of the test for heterogeneity; every number has the unit in its name.

    Attributes
    ----------
    resolution_A : float
        Finest data in use.
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    symmetry : str
        Point group, imposed on every map.
    most_components, most_classes : int
        Largest models tried.
    iterations : int
        Of the components.
    contrast : bool
        Estimate a contrast per particle.
    seed : int
        Of half sets, first components and classes.
    """

    __test__ = False  # no test for pytest to collect

    resolution_A: float = setting(15.0, "Finest data used", more_than=0)
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    symmetry: str = setting("C1", "Point group, imposed on every map", flags=("--sym",))
    most_components: int = setting(3, "Largest number of components tried", at_least=1)
    most_classes: int = setting(4, "Largest number of classes tried", at_least=2)
    iterations: int = setting(20, "Iterations of the components", at_least=1)
    contrast: bool = setting(True, "Estimate a contrast per particle")
    seed: int = setting(0, "Seed of half sets, first components and classes", at_least=0)


@dataclass(frozen=True)
class MultibodySettings(JobSettings, job="multibody"):
    """Choices of a multibody refinement; every number has the unit in its name.

    Attributes
    ----------
    prior_deg, prior_A : float
        Width of the Gaussian prior of every body's pose about that of the whole: of each component of the rotation
        vector, of each shift of the body's centre.
    initial_resolution_A : float
        The map is low-passed to this, and the first iteration uses no finer data.
    max_resolution_A : float, optional
        No finer data are used in any iteration; Nyquist by default.
    iterations : int
        At most.
    prior_factor : float
        T: factor of the prior's variance of the maps.
    components : int
        Motions that are shown.
    seed : int
        Of half sets, where the particles have none.
    """

    prior_deg: float = setting(10.0, "Width of the prior of a body's orientation about that of the whole", more_than=0)
    prior_A: float = setting(4.0, "Width of the prior of the shift of a body's centre", more_than=0)
    initial_resolution_A: float = setting(
        20.0, "Low-pass of the map, and finest data of the first iteration", more_than=0
    )
    max_resolution_A: float | None = setting(None, "Finest data used", more_than=0, default_words="Nyquist")
    # A run that goes on may be given more: iterations that were made stay as they are.
    iterations: int = setting(10, "Most iterations", at_least=1, changes_result=False)
    prior_factor: float = setting(1.0, "Factor T of the prior's variance tau^2", more_than=0, flags=("-T",))
    components: int = setting(3, "Motions that are shown", at_least=1)
    seed: int = setting(0, "Seed of half sets, where the particles have none", at_least=0)


@dataclass(frozen=True)
class DeformSettings(JobSettings, job="deform"):
    """Choices of work on what bends; every number has the unit in its name.

    Attributes
    ----------
    degree : int
        Of the Zernike functions.
    resolution_A : float
        Finest data in use: of maps, after a first fit at twice it, or of images.
    diameter_A : float, optional
        Of the ball in which maps are deformed; the box by default.
    dimensions : int
        Of the places of three maps or more.
    basis : str
        Of particles: normal modes of an elastic network, or Zernike functions.
    modes : int
        Normal modes in use; motions that are shown.
    atoms : int
        Pseudo-atoms that stand for the map.
    cutoff_A : float, optional
        Of the elastic network; two and a half spacings of the atoms by default.
    prior_A : float, optional
        Width of the normal prior of the atoms' root mean square displacement along each mode; by default 3
        with Zernike functions, none with normal modes.
    poses : bool
        Correct the particles' poses, too.
    seed : int
        Of the pseudo-atoms.
    """

    degree: int = setting(3, "Degree of the Zernike functions", at_least=1)
    resolution_A: float = setting(15.0, "Finest data used", more_than=0)
    diameter_A: float | None = setting(
        None, "Diameter of the ball in which maps are deformed", more_than=0, default_words="the box"
    )
    dimensions: int = setting(2, "Dimensions in which three maps or more are laid out", at_least=1)
    basis: Literal["modes", "zernike"] = setting(
        "modes", "Of particles: normal modes of an elastic network, or Zernike functions"
    )
    modes: int = setting(3, "Normal modes used, motions shown", at_least=1)
    atoms: int = setting(300, "Pseudo-atoms that stand for the map", at_least=20)
    cutoff_A: float | None = setting(
        None, "Cutoff of the elastic network", more_than=0, default_words="2.5 spacings of the atoms"
    )
    prior_A: float | None = setting(
        None,
        "Prior of the atoms' root mean square displacement along each mode",
        more_than=0,
        default_words="3 A for zernike, else none",
    )
    poses: bool = setting(True, "Correct the poses of the particles, too")
    seed: int = setting(0, "Seed of the pseudo-atoms", at_least=0)
