"""Why files were set aside, in words that name each file once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def without_name(reason: object, name: str) -> str:
    """A reason without the file's name in front, where the name stands beside it anyway.

    Examples
    --------
    >>> from verglas.run.reasons import without_name
    >>> without_name("mics/a.tif: 4 frames: a movie", "mics/a.tif"), without_name("a.tif: a movie", "mics/a.tif")
    ('4 frames: a movie', 'a movie')
    """
    text = str(reason) or type(reason).__name__
    for spelling in (name, Path(name).name):
        text = text.removeprefix(f"{spelling}: ")
    return text


def commonest_kind(pairs: Sequence[tuple[str, str]]) -> str:
    """The first reason of the kind that holds for most of (name, reason): reasons that differ in numbers are one kind.

    Examples
    --------
    >>> from verglas.run.reasons import commonest_kind
    >>> edge = [("a", f"box of 64 px at {x}, 3 is beyond the edge") for x in range(3)]
    >>> commonest_kind([("a", "not finite"), ("a", "not finite"), *edge])
    'box of 64 px at 0, 3 is beyond the edge'
    >>> commonest_kind([])
    ''
    """
    kinds: dict[str, list[str]] = {}
    for name, reason in pairs:
        words = without_name(reason, name)
        kinds.setdefault(re.sub(r"[-+]?\d[\d.]*", "#", words), []).append(words)
    return max(kinds.values(), key=len)[0] if kinds else ""


def most_common_reason(pairs: Sequence[tuple[str, str]]) -> str:
    """The reason that holds for most of (name, reason), with the first name: what to say where nothing is left.

    Examples
    --------
    >>> from verglas.run.reasons import most_common_reason
    >>> most_common_reason([("a", "cut off"), ("b", "a movie"), ("c", "a movie")])
    'a movie (2 of 3, the first: b)'
    >>> most_common_reason([("a", "cut off")])
    'a: cut off'
    """
    reason, count = Counter(reason for _, reason in pairs).most_common(1)[0]
    first = next(name for name, other in pairs if other == reason)
    return f"{reason} ({count} of {len(pairs)}, the first: {first})" if len(pairs) > 1 else f"{first}: {reason}"
