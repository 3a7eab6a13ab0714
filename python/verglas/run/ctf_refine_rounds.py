"""Rounds of ``ctf-refine``: what was fitted in each, and how they are kept while the job goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from verglas.optics.refine import DefocusFit, GroupFit, GroupSums, MicrographFit, Pixels
from verglas.types import Keeper, Particles, Snapshot

AnyFit = GroupFit | DefocusFit | MicrographFit
_KINDS = {kind.__name__: kind for kind in (GroupFit, DefocusFit, MicrographFit)}
_SUMS = ("odd_cross", "odd_power", "even_cross", "even_power")


@dataclass(frozen=True)
class Round:
    """One round: what was fitted, against which reference.

    Attributes
    ----------
    informative_shells : int
        Shells in which the reference explains the images.
    odd, even, magnification : dict
        Number of the optics group (from 0) -> fit.
    defocus : DefocusFit or None
    micrographs : dict
        Term of every micrograph (astigmatism, phase_shift, b_factor) -> fit.
    sums : GroupSums or None
        What the phases were fitted to, of the first round.
    """

    informative_shells: int
    odd: dict[int, GroupFit] = field(default_factory=dict)
    even: dict[int, GroupFit] = field(default_factory=dict)
    magnification: dict[int, GroupFit] = field(default_factory=dict)
    defocus: DefocusFit | None = None
    micrographs: dict[str, MicrographFit] = field(default_factory=dict)
    sums: GroupSums | None = None

    def fits(self) -> list[tuple[str, AnyFit]]:
        """All of them, and what each is of."""
        named: list[tuple[str, AnyFit]] = []
        for what in ("odd", "even", "magnification"):
            named += [(f"{what} of group {g + 1}", fit) for g, fit in getattr(self, what).items()]
        if self.defocus is not None:
            named.append(("defocus", self.defocus))
        return named + [(f"{term} of micrographs", fit) for term, fit in self.micrographs.items()]

    @property
    def kept(self) -> list[str]:
        """Names of those that held-out data gain by."""
        return [name for name, fit in self.fits() if fit.kept]


@dataclass(frozen=True, eq=False)
class RoundsKeeper:
    """Keeps particles and fits between two rounds; what was kept gives the same bits as if nothing had ended.

    Attributes
    ----------
    rounds, sums : Keeper
        Of particles and fits, replaced each round, and of the sums of the first round, which may be large.
    """

    rounds: Keeper
    sums: Keeper

    def save(self, state: Particles, base: Particles, rounds: Sequence[Round]) -> None:
        """``base`` are the particles before the first round."""
        if len(rounds) == 1 and rounds[0].sums is not None:
            self.sums.save(_snapshot_of_sums(rounds[0].sums), needed=True)
        arrays: dict[str, Any] = {}
        table, optics = state.table, state.optics_table
        assert optics is not None
        assert base.optics_table is not None
        for label in table.columns:
            if label not in base.table or not table[label].equals(base.table[label]):
                arrays[f"column/{label}"] = table[label].to_numpy()
        changed = {
            label: optics[label].tolist()
            for label in optics.columns
            if label not in base.optics_table or not optics[label].equals(base.optics_table[label])
        }
        dropped = [label for label in base.table.columns if label not in table]
        record = {
            "optics": changed,
            "dropped": dropped,
            "rounds": [_record_of(one, i, arrays) for i, one in enumerate(rounds)],
        }
        self.rounds.save(Snapshot(arrays, record), needed=True)

    def load(self, base: Particles) -> tuple[Particles, list[Round]]:
        """What was kept last; the particles as they are, and no round, at a fresh start."""
        kept = self.rounds.load()
        if kept is None:
            return base, []
        columns = {name.removeprefix("column/"): v for name, v in kept.arrays.items() if name.startswith("column/")}
        assert base.optics_table is not None
        state = Particles(
            base.table.drop(columns=kept.record["dropped"]).assign(**columns),
            base.source,
            optics_table=base.optics_table.assign(**kept.record["optics"]),
            tables=base.tables,
            table_name=base.table_name,
            where=base.where,
        )
        rounds = [_round_of(record, i, kept.arrays) for i, record in enumerate(kept.record["rounds"])]
        sums = self.sums.load()
        return state, [replace(rounds[0], sums=None if sums is None else _sums_of(sums)), *rounds[1:]]


def _record_of(made: Round, number: int, arrays: dict[str, Any]) -> dict[str, Any]:
    """What is no array; arrays go under names of their own."""
    listed = []
    for what in ("odd", "even", "magnification", "micrographs"):
        listed += [(what, key, fit) for key, fit in getattr(made, what).items()]
    if made.defocus is not None:
        listed.append(("defocus", None, made.defocus))
    records = []
    for place, (what, key, fit) in enumerate(listed):
        values = {f.name: getattr(fit, f.name) for f in fields(fit)}
        arrays |= {f"{number}/{place}/{name}": v for name, v in values.items() if isinstance(v, np.ndarray)}
        plain = {name: v for name, v in values.items() if not isinstance(v, np.ndarray)}
        records.append({"what": what, "key": key, "kind": type(fit).__name__, "values": plain})
    return {"informative_shells": made.informative_shells, "fits": records}


def _round_of(record: dict[str, Any], number: int, arrays: dict[str, Any]) -> Round:
    parts: dict[str, Any] = {"odd": {}, "even": {}, "magnification": {}, "micrographs": {}, "defocus": None}
    for place, one in enumerate(record["fits"]):
        kind = _KINDS[one["kind"]]
        names = [f"{number}/{place}/{f.name}" for f in fields(kind)]
        mine = {name.rsplit("/", 1)[1]: arrays[name] for name in names if name in arrays}
        fit = kind(**one["values"], **mine)
        if one["what"] == "defocus":
            parts["defocus"] = fit
        else:
            parts[one["what"]][one["key"]] = fit
    return Round(record["informative_shells"], **parts)


def _snapshot_of_sums(sums: GroupSums) -> Snapshot:
    pixels, arrays = sums.pixels, {name: getattr(sums, name) for name in _SUMS}
    if sums.gradients is not None:
        arrays["gradients"] = sums.gradients
    return Snapshot(arrays, {"pixels": [pixels.box, pixels.pixel_size_A, pixels.first, pixels.last]})


def _sums_of(kept: Snapshot) -> GroupSums:
    sums = GroupSums(len(kept.arrays["odd_cross"]), Pixels(*kept.record["pixels"]))
    for name, values in kept.arrays.items():
        setattr(sums, name, values)
    return sums
