"""Choices of an ab initio reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from verglas.types.settings import check_settings, setting

AUTO = "auto"
METHODS = ("em", "hill-climbing")
_MOST_STARTS = 8
_OF_NO_START: dict[str, Any] = {"changes_result": False}  # more starts may be made when a run goes on


@dataclass(frozen=True)
class AbInitioSettings:
    """Choices of an ab initio reconstruction; every number has the unit in its name.

    Attributes
    ----------
    symmetry : str
        Point group imposed from the start, RELION's orientation; or "auto": starts without, then the group that the
        best map has (:mod:`verglas.initial_model.symmetry`).
    diameter_A : float, optional
        Diameter of the particle; four fifths of the box by default.
    classes : int
        Maps made at once.
    starts : int
        Independent random starts.
    most_starts : int, optional
        If no two agree, and there is structure, more are made, up to this many; 8 by default, but 1 if ``starts`` is.
    initial_resolution_A, final_resolution_A : float
        Resolution of the data used at the beginning and at the end.
    iterations : int
        Mini-batches per start.
    full_iterations : int
        Passes over all particles at the end of each start.
    first_batch : int
        Particles in the first mini-batch, for each class.
    step_size : float
        gamma, smallest weight of a fresh batch in the running sums.
    shift_range_A : float
        Largest shift searched around the centre that a round map finds (there, 2.5 times this).
    held_out : float
        Share of the particles that no start learns from; they rank the starts.
    most_particles : int
        Particles drawn for the starts; more add nothing at low resolution.
    method : {"em", "hill-climbing"}
        Stochastic expectation-maximisation; or stochastic hill climbing
        (:mod:`verglas.initial_model.hill_climbing`), as a check by other means, of one map.
    seed : int
        Of starts, batches, held-out particles.
    """

    symmetry: str = setting("C1", "Point group, imposed from the start; or auto", flags=("--sym",))
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    classes: int = setting(1, "Maps made at once", at_least=1, flags=("-k",))
    starts: int = setting(3, "Random starts; one cannot be confirmed", at_least=1, **_OF_NO_START)
    most_starts: int | None = setting(
        None, "More starts while none agree, at most", at_least=1, default_words="8; 1 if starts is 1", **_OF_NO_START
    )
    initial_resolution_A: float = setting(40.0, "Finest data used at first", more_than=0)
    final_resolution_A: float = setting(12.0, "Finest data used at the end", more_than=0)
    iterations: int = setting(30, "Mini-batches per start", at_least=1)
    full_iterations: int = setting(3, "Passes over all particles at the end of each start", at_least=1)
    first_batch: int = setting(100, "Particles of the first mini-batch, for each class", at_least=1)
    step_size: float = setting(0.4, "Smallest weight of a fresh mini-batch in the running sums", more_than=0, at_most=1)
    shift_range_A: float = setting(10.0, "Largest shift searched, once centred", more_than=0)
    held_out: float = setting(
        0.1, "Share of the particles that no start learns from; they rank the starts", more_than=0, at_most=0.5
    )
    most_particles: int = setting(20000, "Most particles drawn to learn from", at_least=1, former=("max_particles",))
    method: Literal["em", "hill-climbing"] = setting(
        "em", "Stochastic expectation-maximisation, or hill climbing as a check by other means"
    )
    seed: int = setting(0, "Seed of everything random", at_least=0)

    def __post_init__(self) -> None:
        """Say at once what cannot be."""
        further = []
        if self.initial_resolution_A < self.final_resolution_A:
            sentence = (
                f"expected coarser than the final one, {self.final_resolution_A:g} A, got {self.initial_resolution_A:g}"
            )
            further.append(("initial_resolution_A", sentence))
        if self.classes > 1 and self.method != METHODS[0]:
            further.append(("classes", f"the method {self.method} makes one map, got {self.classes}"))
        if self.classes > 1 and self.symmetry.lower() == AUTO:
            further.append(("symmetry", "auto is for one class; give the group, or C1"))
        check_settings("abinitio", self, further)

    @property
    def start_symmetry(self) -> str:
        """Point group of the random starts."""
        return "C1" if self.symmetry.lower() == AUTO else self.symmetry

    @property
    def all_iterations(self) -> int:
        """Of a start: mini-batches, and passes over all particles."""
        return self.iterations + self.full_iterations

    @property
    def max_starts(self) -> int:
        """Starts that may be made."""
        most = self.most_starts or (1 if self.starts == 1 else _MOST_STARTS)
        return max(self.starts, most)
