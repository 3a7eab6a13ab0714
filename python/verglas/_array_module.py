"""NumPy or CuPy, whichever an array is of: functions of whole arrays are written once and run on either.

Code that takes ``xp = array_module(x)`` keeps large arrays where they are. What crosses to the host does so through
:func:`to_host`, in sight: nothing is copied in silence.
"""

from __future__ import annotations

import importlib
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np


def on_device(value: Any) -> bool:
    """Whether an array lies on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas._array_module import on_device
    >>> on_device(np.zeros(3)), on_device(None)
    (False, False)
    """
    return hasattr(value, "__cuda_array_interface__")


def array_module(*values: Any) -> Any:
    """The module whose functions take these arrays: CuPy where one of them lies on a GPU, else NumPy.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas._array_module import array_module
    >>> array_module(np.zeros(3)) is np
    True
    """
    return importlib.import_module("cupy") if any(map(on_device, values)) else np


def to_host(value: Any) -> Any:
    """A NumPy array: the same one where it is on the host already, else a copy; waits for what is being computed.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas._array_module import to_host
    >>> x = np.zeros(3)
    >>> to_host(x) is x
    True
    """
    return value.get() if on_device(value) else value


def all_to_host(value: Any) -> Any:
    """A dataclass with every array of it on the host; the same object where they all are."""
    assert is_dataclass(value)
    assert not isinstance(value, type)
    held = {f.name: getattr(value, f.name) for f in fields(value)}
    moved = {name: to_host(v) for name, v in held.items() if on_device(v)}
    return replace(value, **moved) if moved else value
