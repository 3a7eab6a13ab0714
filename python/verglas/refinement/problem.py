"""The problem of a refinement: that of the search, with the choices that the loop makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verglas.refinement.settings import RefineSettings
from verglas.regularisation.protocol import Prior
from verglas.search.problem import Problem
from verglas.types.arrays import IntArray

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class RefineProblem(Problem):
    """A refinement's particles and settings; what the search needs of the settings follows from them.

    Attributes
    ----------
    settings : RefineSettings
    n_classes : int
        References.
    mask_given : bool
        Whether the solvent mask is the user's: it then stays as it is.
    map_prior : Prior, optional
        A prior of the caller's, in place of the one that the settings name.
    """

    # Not arguments, so that dataclasses.replace refuses them: the settings are the one place to change them.
    symmetry: str = field(init=False)
    diameter_A: float | None = field(init=False)
    max_resolution_A: float | None = field(init=False)
    correlation: bool = field(init=False)
    prior_deg: float | None = field(init=False)
    prior_A: float | None = field(init=False)
    block_particles: int = field(init=False)
    settings: RefineSettings
    n_classes: int = 1
    mask_given: bool = False
    map_prior: Prior | None = None

    def __post_init__(self) -> None:
        """Take over what the search needs."""
        for name in ("symmetry", "diameter_A", "max_resolution_A", "prior_deg", "prior_A", "block_particles"):
            object.__setattr__(self, name, getattr(self.settings, name))
        object.__setattr__(self, "correlation", self.settings.mode == "max-cc")
        super().__post_init__()

    def part(self, rows: IntArray) -> Self:
        """Some of the particles, with the groups of the whole set; without the prior, which is of whole maps."""
        return replace(super().part(rows), map_prior=None)

    def under(self, symmetry: str) -> Self:
        """The same particles under a point group."""
        return replace(self, settings=replace(self.settings, symmetry=symmetry))
