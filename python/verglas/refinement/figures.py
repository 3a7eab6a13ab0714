"""What one iteration of a refinement has come to: read by the schedule, told to listeners, kept in tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figures:
    """A line of ``iterations.csv``.

    Attributes
    ----------
    iteration : int
        From 1.
    phase : str
        Of the :class:`verglas.search.step.Step`.
    search_resolution_A, insert_resolution_A : float
        Finest data scored, and put into the maps.
    step_deg, shift_step_A, shift_range_A : float
        Sampling.
    log_likelihood : float
        Mean log evidence of a particle.
    max_probability, effective_poses : float
        Means of the largest posterior, and of the exponential of the posterior's entropy.
    angle_change_deg, shift_change_A : float
        Medians over the particles that had poses before; NaN where none had.
    shift_change_px : float
        Root mean square of the same.
    far_fraction : float
        Share whose direction changed by more than the grid's step; 1 where none had a pose.
    class_change : float
        Share that changed class.
    populations : tuple of float
        Share of each class.
    accuracy_deg, accuracy_shift_A : float
        Medians of the Cramer-Rao bounds; NaN where they were not computed.
    resolution_A, resolution_unmasked_A : float
        Of the largest class, at FSC 0.143.
    seconds, seconds_expectation, seconds_reconstruction : float
        Wall time.
    peak_memory_GB : float
        Of the process so far.
    regularisation : str
        The prior that the largest class's maps were made with; every resolution is that of the maps before it.
    regularisation_gain, regularisation_gain_error : float
        Log-likelihood of held-out particles over that under the global prior, nats per particle, and its standard
        error; NaN where nothing was compared.
    particles : int
        Scored in this iteration; 0 in runs of versions that did not say so.
    score_mask : {"off", "local"}
        What of the references the next iteration scores.
    score_mask_gain, score_mask_gain_error : float
        Of held-out shells at poses found by it (:class:`verglas.refinement.score_mask.HeldOutShells`), nats per
        particle; NaN where nothing was compared.
    """

    iteration: int
    phase: str
    search_resolution_A: float
    insert_resolution_A: float
    step_deg: float
    shift_step_A: float
    shift_range_A: float
    log_likelihood: float
    max_probability: float
    effective_poses: float
    angle_change_deg: float
    shift_change_A: float
    shift_change_px: float
    far_fraction: float
    class_change: float
    populations: tuple[float, ...]
    accuracy_deg: float
    accuracy_shift_A: float
    resolution_A: float
    resolution_unmasked_A: float
    seconds: float
    seconds_expectation: float
    seconds_reconstruction: float
    peak_memory_GB: float
    regularisation: str = "global"
    regularisation_gain: float = float("nan")
    regularisation_gain_error: float = float("nan")
    particles: int = 0
    score_mask: str = "off"
    score_mask_gain: float = float("nan")
    score_mask_gain_error: float = float("nan")

    def as_row(self) -> dict[str, Any]:
        """As in ``iterations.csv``: the shares of the classes in one cell, separated by semicolons."""
        return asdict(self) | {"populations": ";".join(f"{p:.4f}" for p in self.populations)}

    @staticmethod
    def populations_of(cell: Any) -> tuple[float, ...]:
        """The shares of the classes in a cell that :meth:`as_row` wrote; none of an empty one.

        Examples
        --------
        >>> from verglas.refinement.figures import Figures
        >>> Figures.populations_of("0.7500;0.2500"), Figures.populations_of(1.0), Figures.populations_of(float("nan"))
        ((0.75, 0.25), (1.0,), ())
        """
        text = str(cell)  # one class makes a column of numbers
        return () if text in ("", "nan") else tuple(float(share) for share in text.split(";"))

    def as_record(self) -> dict[str, Any]:
        """JSON-ready, nothing rounded: what :meth:`from_record` takes back."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Figures:
        """From what :meth:`as_record` gave, perhaps read from JSON."""
        return cls(**{**record, "populations": tuple(record["populations"])})
