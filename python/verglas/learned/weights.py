"""Weights as bytes of a safetensors file, with a card that says where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from verglas.errors import FormatError
from verglas.learned.network import Network
from verglas.types.arrays import Float32Array

_CARD = "card"  # of a safetensors file's metadata, which maps words to words
_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8")}


@dataclass(frozen=True)
class Weights:
    """A network and its card.

    Attributes
    ----------
    network : Network
    card : dict
        Data, seed, command, scores, size; what a picker needs beside its weights (calibration, limits) too.
    name : str
    """

    network: Network
    card: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def to_safetensors(weights: Weights) -> bytes:
    """The file's bytes: float32, names in order, the card as JSON in the metadata.

    Examples
    --------
    >>> from verglas.learned import Network, Weights, from_safetensors, to_safetensors
    >>> again = from_safetensors(to_safetensors(Weights(Network.random(1), {"seed": 1})), "example")
    >>> again.card["seed"], bool((again.network.parameters["out.bias"] == 0).all())
    (1, True)
    """
    header: dict[str, Any] = {"__metadata__": {_CARD: json.dumps(weights.card | {"stride": weights.network.stride})}}
    pieces, offset = [], 0
    for name in sorted(weights.network.parameters):
        piece = np.ascontiguousarray(weights.network.parameters[name], "<f4")
        header[name] = {"dtype": "F32", "shape": list(piece.shape), "data_offsets": [offset, offset + piece.nbytes]}
        pieces.append(piece.tobytes())
        offset += piece.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + b"".join(pieces)


def from_safetensors(content: bytes, name: str) -> Weights:
    """Weights of a file of safetensors.

    Parameters
    ----------
    content : bytes
    name : str
        Of the file, for messages.

    Raises
    ------
    FormatError
        No such file, cut short, or of another kind.
    InputError
        Weights of another network.

    References
    ----------
    .. [1] https://huggingface.co/docs/safetensors: eight bytes with a header's length, the header in JSON, the numbers.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        card = json.loads((header.pop("__metadata__", None) or {}).get(_CARD, "{}"))
        numbers = content[8 + length :]
        parameters = {str(key): _tensor(one, numbers) for key, one in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{name}: expected weights as a safetensors file, got something else ({error})") from error
    return Weights(Network(parameters, int(card.pop("stride", 2))), card, name)


def _tensor(said: dict[str, Any], numbers: bytes) -> Float32Array:
    low, high = said["data_offsets"]
    kind, shape = _TYPES[said["dtype"]], tuple(int(side) for side in said["shape"])
    if not 0 <= low <= high <= len(numbers) or high - low != kind.itemsize * int(np.prod(shape)):
        raise ValueError(f"a tensor of {shape} at bytes {low} to {high} of {len(numbers)}")
    return np.frombuffer(numbers[low:high], kind).astype(np.float32).reshape(shape)


@lru_cache(maxsize=4)
def packaged_weights(name: str) -> Weights:
    """Weights that come with verglas: ``picker``.

    Examples
    --------
    >>> from verglas.learned import packaged_weights
    >>> packaged_weights("picker").card["name"]
    'picker'
    """
    path = files("verglas.learned") / "packaged" / f"{name}.safetensors"
    return from_safetensors(path.read_bytes(), f"{name}.safetensors")
