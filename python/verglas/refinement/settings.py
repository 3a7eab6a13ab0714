"""What a refinement is asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from verglas.errors import SettingError
from verglas.search.problem import BLOCK_PARTICLES
from verglas.types.settings import check_settings, setting

Regularisation = Literal["global", "local", "auto", "sidesplitter", "wavelet", "total-variation", "denoise", "external"]
_NAMES_PRIOR = "names a prior (global, local, auto, ...); the factor T of its variance is prior_factor"


@dataclass(frozen=True)
class RefineSettings:
    """Choices of a refinement; every number has the unit in its name.

    Attributes
    ----------
    symmetry : str
        Point group, RELION's orientation.
    diameter_A : float, optional
        Diameter of the particle: mask of images in the search, and of maps until a mask is made from the map itself;
        four fifths of the box by default.
    mode : {"likelihood", "max-cc"}
        Expectation-maximisation over poses; or FREALIGN's: the pose of the largest correlation coefficient, and a
        Wiener filter with the constant ``wiener_k``.
    poses : {"global", "local"}
        Search all orientations first; or start from the poses that the particles have.
    classes : int
        Copies of a single reference that are told apart (several references give their own number).
    initial_resolution_A : float
        The reference is low-passed to this, and the first iteration uses no finer data.
    join_resolution_A : float
        Below this resolution both half maps are given their mean, so that they keep one orientation; they share
        nothing finer.
    max_resolution_A : float, optional
        No finer data are used in any iteration; Nyquist by default.
    regularisation : {"global", "local", "auto", "sidesplitter", "wavelet", "total-variation", "denoise", "external"}
        What the maps are regularised by: one signal to noise ratio for each shell, or one for each place as well; or
        whichever of the two explains held-out particles better. Further priors are those of
        :mod:`verglas.regularisation`, and a program.
    external_reconstruct : str, optional
        That program, called with a STAR file as by ``relion_refine --external_reconstruct``.
    score_mask : {"off", "local", "auto"}
        What of the references is scored: all inside the solvent mask; places by the agreement of the half maps there,
        so that a disordered belt does not pull at poses; or the latter where held-out data say that poses gain by it.
    first_particles : int, optional
        Particles of each half set in the first iteration over a grid of poses, twice as many in each that follows until
        all are in; later phases work on all. All from the beginning by default.
    prior_factor : float, optional
        T: factor of the prior's variance tau^2; 1, with several classes 4.
    wiener_k : float
        Of "max-cc": constant added to the sum of squared CTFs, as a fraction of its mean over a shell.
    shift_range_A : float
        Largest shift searched in the first iterations.
    prior_deg, prior_A : float, optional
        With local poses: standard deviation of a Gaussian prior about the poses that the particles have, of each
        component of the rotation vector and of each shift. What keeps a small part in place that its own signal does
        not; without, the images alone decide.
    iterations : int
        At most.
    candidates : int
        Distinct orientations per particle that a global search hands to the continuous refinement; half as many once
        most poses stand.
    scale, norm : bool
        Estimate a grey scale per micrograph, a noise level per particle.
    solvent_mask : bool
        Once the map is good enough, mask references and FSC by a mask made from the map; else by the sphere alone.
    ewald : bool
        Once poses are refined continuously, maps are made of side bands on Ewald's sphere
        (:mod:`verglas.reconstruction.ewald`), if held-out particles tell the sign of its curvature.
    block_particles : int
        Particles whose sums are made together and then added in a fixed order. The result depends on it in its last
        bits, and on nothing else about who computes: threads, batches, workers.
    seed : int
        Of half sets, of first classes.
    """

    symmetry: str = setting("C1", "Point group in RELION's orientation: C1, C4, D2, T, O, I1", flags=("--sym",))
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    mode: Literal["likelihood", "max-cc"] = setting(
        "likelihood", "Expectation-maximisation over poses, or the pose of the largest correlation (FREALIGN)"
    )
    poses: Literal["global", "local"] = setting(
        "global", "Search all orientations first, or start from the poses that the particles have"
    )
    classes: int = setting(1, "Copies of a single reference that are told apart", at_least=1)
    initial_resolution_A: float = setting(
        30.0, "Low-pass of the reference, and finest data of the first iteration", more_than=0
    )
    join_resolution_A: float = setting(40.0, "Half maps are given their mean below this resolution", more_than=0)
    max_resolution_A: float | None = setting(None, "Finest data used", more_than=0, default_words="Nyquist")
    regularisation: Regularisation = setting(
        "global",
        "What maps are regularised by: the FSC of the whole map, that of every place, or whichever explains held-out "
        "particles better (auto); sidesplitter; wavelet and total-variation up to FSC 0.143; that of every place where "
        "a trained network agrees (denoise); a program (external)",
    )
    external_reconstruct: str | None = setting(
        None, "With external: a command that is given a STAR file as by relion_refine --external_reconstruct"
    )
    score_mask: Literal["off", "local", "auto"] = setting(
        "off",
        "What of the references is scored: all inside the mask (off), places by how far the half maps agree there "
        "(local), or that where held-out data say that poses gain (auto)",
    )
    first_particles: int | None = setting(
        None,
        "Particles of each half set in the first iteration; twice as many in each that follows",
        at_least=50,
        default_words="all",
    )
    prior_factor: float | None = setting(
        None,
        "Factor T of the prior's variance tau^2",
        more_than=0,
        default_words="1; with several classes 4",
        flags=("-T",),
        former=("tau2_fudge",),
    )
    wiener_k: float = setting(
        0.1, "With max-cc: constant added to the sum of squared CTFs, as a fraction of its mean", more_than=0
    )
    shift_range_A: float = setting(12.0, "Largest shift searched in the first iterations", more_than=0)
    prior_deg: float | None = setting(
        None, "With local poses: width of a Gaussian prior about the given orientations", more_than=0
    )
    prior_A: float | None = setting(
        None, "With local poses: width of a Gaussian prior about the given shifts", more_than=0
    )
    # A run that goes on may be given more: iterations that were made stay as they are.
    iterations: int = setting(25, "Most iterations", at_least=1, changes_result=False)
    candidates: int = setting(6, "Orientations per particle that the global search hands on", at_least=1)
    scale: bool = setting(True, "Estimate a grey scale per micrograph")
    norm: bool = setting(True, "Estimate a noise level per particle")
    solvent_mask: bool = setting(True, "Mask references and FSC by a mask made from the map, once that is good enough")
    ewald: bool = setting(
        False, "In the last iterations follow the curvature of Ewald's sphere, its sign found by held-out particles"
    )
    block_particles: int = setting(
        BLOCK_PARTICLES,
        "Particles whose sums are made together: what a worker of a cluster takes at a time",
        at_least=8,
    )
    seed: int = setting(0, "Seed of half sets and first classes", at_least=0)

    def __post_init__(self) -> None:
        """Say at once what cannot be."""
        if isinstance(self.regularisation, int | float):
            raise SettingError("refine", [("regularisation", f"{_NAMES_PRIOR}, got {self.regularisation:g}")])
        check_settings("refine", self, self._impossible())

    def _impossible(self) -> Iterator[tuple[str, str]]:
        if self.mode == "max-cc" and self.regularisation != "global":
            yield "regularisation", "max-cc has a constant of its own (wiener_k): expected global"
        if (self.regularisation == "external") != (self.external_reconstruct is not None):
            yield "external_reconstruct", 'a command goes with regularisation = "external", and that needs one'
        if self.score_mask != "off" and (self.classes > 1 or self.mode == "max-cc"):
            yield "score_mask", 'expected one class and mode = "likelihood"'
        if self.first_particles is not None and (self.poses == "local" or self.mode == "max-cc"):
            yield "first_particles", 'it is the search over a grid that grows: poses = "global", mode = "likelihood"'
        if self.ewald and (self.classes > 1 or self.mode == "max-cc"):
            yield "ewald", 'expected one class and mode = "likelihood"'
        for name in ("prior_deg", "prior_A"):
            if getattr(self, name) is None:
                continue
            if self.poses != "local":
                yield name, 'a prior about given poses goes with poses = "local"'
            elif self.mode != "likelihood":
                yield name, 'a prior weighs against a likelihood; mode = "max-cc" has none'

    @property
    def T(self) -> float:
        """Factor of the prior's variance in use; see :attr:`prior_factor`."""
        return self.prior_factor or (1.0 if self.classes == 1 else 4.0)
