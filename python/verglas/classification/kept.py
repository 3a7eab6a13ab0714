"""A classification between two iterations as a snapshot, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verglas.classification.classes import Iteration, Place, State
from verglas.classification.em2d import Assignments, Model2D, Stage, Sums
from verglas.types.snapshot import Snapshot, from_arrays, to_arrays

if TYPE_CHECKING:
    from verglas.classification.class2d import Classifier


def take_snapshot(classifier: Classifier, state: State) -> Snapshot:
    """Everything that :func:`restore_state` needs."""
    arrays = (
        to_arrays("model.", state.model) | to_arrays("stage.", state.stage) | to_arrays("found.", state.assignments)
    )
    if state.sums is not None:
        arrays |= to_arrays("sums.", state.sums)
    arrays |= {f"level{number}": labels for number, labels in enumerate(state.levels)}
    record = {
        "place": asdict(state.place),
        "record": [asdict(line) for line in state.record],
        "levels": len(state.levels),
        "iterations": classifier.n_iterations,
        "split": sorted(classifier.split),
        "rng": classifier.rng.bit_generator.state,
        "gain": state.gain,
    }
    return Snapshot(arrays, record)


def restore_state(classifier: Classifier, snapshot: Snapshot) -> State:
    """The state that was taken; the classifier's own counters and random numbers are put back, too."""
    arrays, record = snapshot.arrays, snapshot.record
    classifier.n_iterations, classifier.split = record["iterations"], set(record["split"])
    classifier.rng = np.random.default_rng()
    classifier.rng.bit_generator.state = record["rng"]
    return State(
        from_arrays(Model2D, "model.", arrays),
        from_arrays(Stage, "stage.", arrays),
        from_arrays(Sums, "sums.", arrays) if "sums.mass" in arrays else None,
        from_arrays(Assignments, "found.", arrays),
        [Iteration(**line) for line in record["record"]],
        [arrays[f"level{number}"] for number in range(record["levels"])],
        Place(**record["place"]),
        record["gain"],
    )


@dataclass(frozen=True)
class Standing:
    """What a snapshot shows to who watches.

    Attributes
    ----------
    averages : (K, box, box) float32
        As the search sees them, in the order of the classes.
    mass : (K,)
        Particles of each class; expected ones, so no whole numbers.
    record : list of Iteration
        What has been done.
    """

    averages: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float64]
    record: list[Iteration]


def standing(snapshot: Snapshot) -> Standing:
    """The part of a snapshot that a page shows."""
    arrays = snapshot.arrays
    averages = arrays["model.averages"]
    shares = np.exp(arrays["model.log_share"])
    if len(arrays.get("sums.mass", ())) == len(averages):  # what the last iteration gathered, no prior of the next
        shares = arrays["sums.mass"] / max(float(arrays["sums.mass"].sum() + arrays["sums.null_mass"]), 1e-9)
    record = [Iteration(**line) for line in snapshot.record["record"]]
    return Standing(averages, shares * len(arrays["found.label"]), record)
