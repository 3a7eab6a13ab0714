"""Verdicts: what a job found out about its own result, for a person, for a program and for the next stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from verglas.types.display import one_line

STATES = ("go on", "warn", "stop")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    code : str
        Which: a word for programs, such as ``"noise"``, which no sentence has to be searched for.
    state : {"go on", "warn", "stop"}
    sentence : str
        For a person.
    numbers : mapping of str -> number, str or list
        What it rests on, JSON-ready.
    """

    code: str
    state: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"code": self.code, "state": self.state, "sentence": self.sentence, "numbers": dict(self.numbers)}


@one_line
@dataclass(frozen=True)
class Verdict:
    """Whether to go on after a stage, and why.

    Attributes
    ----------
    state : {"go on", "warn", "stop"}
    reasons : tuple of str
        Sentences for a person.
    numbers : mapping
        What the reasons rest on.
    pictures : tuple of str
        PNG files, from the project folder.
    look_at : str
        Where to look when something is wrong.
    findings : tuple of Finding
        One by one, with their codes.

    Examples
    --------
    >>> from verglas.types.verdict import Finding, Verdict
    >>> views = Finding("views", "warn", "Most views lie in one cone.", {"sphericity": 0.6})
    >>> made = Verdict.of([Finding("signal", "go on", "Held-out particles gain 12 nats.", {"gain": 12.0}), views])
    >>> made.state, made.reasons, made.codes, made["views"].numbers["sphericity"]
    ('warn', ('Most views lie in one cone.',), ('signal', 'views'), 0.6)
    """

    state: str
    reasons: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    look_at: str = ""
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, findings: Iterable[Finding], look_at: str = "") -> Verdict:
        """The worst of several findings; the reasons are the sentences of those that are no "go on"."""
        all_findings = tuple(findings)
        numbers = {f"{f.code}.{name}": value for f in all_findings for name, value in f.numbers.items()}
        return cls(
            worst_state(all_findings),
            tuple(f.sentence for f in all_findings if f.state != "go on"),
            numbers,
            (),
            look_at,
            all_findings,
        )

    @classmethod
    def of_notes(
        cls, notes: Iterable[Finding], numbers: Mapping[str, Any], pictures: Iterable[str] = (), look_at: str = ""
    ) -> Verdict:
        """The worst of several notes, all of whose sentences are reasons, beside the job's own numbers.

        Examples
        --------
        >>> from verglas.types.verdict import Finding, Verdict
        >>> hand = Finding("hand", "go on", "the hand is undetermined")
        >>> made = Verdict.of_notes([hand], {"resolution_A": 3.2})
        >>> made.state, made.reasons, made.codes
        ('go on', ('the hand is undetermined',), ('hand',))
        """
        all_notes = tuple(notes)
        return cls(
            worst_state(all_notes), tuple(f.sentence for f in all_notes), numbers, tuple(pictures), look_at, all_notes
        )

    @property
    def codes(self) -> tuple[str, ...]:
        """Of the findings."""
        return tuple(f.code for f in self.findings)

    def __getitem__(self, code: str) -> Finding:
        """The finding of a code; KeyError without."""
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(code)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "state": self.state,
            "reasons": list(self.reasons),
            "numbers": dict(self.numbers),
            "findings": [f.as_dict() for f in self.findings],
            "pictures": list(self.pictures),
            "look_at": self.look_at,
        }

    @classmethod
    def from_dict(cls, read: Mapping[str, Any]) -> Verdict:
        """From what :meth:`as_dict` gave."""
        findings = tuple(Finding(**one) for one in read.get("findings", ()))
        return cls(
            str(read["state"]),
            tuple(read["reasons"]),
            read.get("numbers", {}),
            tuple(read.get("pictures", ())),
            str(read.get("look_at", "")),
            findings,
        )


def worst_state(findings: Iterable[Finding]) -> str:
    """The state of the worst finding; "go on" where there is none."""
    return max((f.state for f in findings), key=STATES.index, default="go on")


def notes_of(record: Mapping[str, Any]) -> list[Finding]:
    """The notes in a job's JSON record; the plain warnings that records of earlier versions have, as such.

    Examples
    --------
    >>> from verglas.types.verdict import notes_of
    >>> [(note.code, note.state) for note in notes_of({"warnings": ["3 particles set aside"]})]
    [('warning', 'warn')]
    """
    if "notes" in record:
        return [Finding(**one) for one in record["notes"]]
    return [Finding("warning", "warn", str(line)) for line in record.get("warnings", ())]
