"""Two pages open on one decision: the one that saves last must know what the other has saved."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from verglas.errors import InputError


def seen_mark(value: Any) -> str:
    """What tells a decision, as it stands, from those that another page saves.

    Examples
    --------
    >>> from verglas.window.versions import seen_mark
    >>> seen_mark([1, 2]) == seen_mark([1, 2]), seen_mark([1, 2]) == seen_mark([1])
    (True, False)
    """
    return hashlib.sha1(json.dumps(value, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:16]


def check_seen(what: str, seen: Any, now: str, new: str, other: str = "another choice") -> None:
    """Refuse to write over what another page has saved since this one was opened.

    Parameters
    ----------
    what : str
        Of the decision, for the message.
    seen : str or None
        The mark of what lay there when the page was opened, or when it saved last; None: it does not say.
    now, new : str
        Marks of what lies there, and of what is to be written: what the page itself has just saved is no other's, as a
        button may be pressed twice.
    other : str
        What the other page has saved, for the message.

    Raises
    ------
    InputError
        Another decision lies there.
    """
    if seen is not None and seen != now and now != new:
        raise InputError(
            f"{what}: another page has saved {other} since this one was opened; open it again: what was changed here "
            "is kept and comes back with it"
        )
