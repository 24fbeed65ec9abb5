"""A message as ZeroMQ frames: topic, JSON header, one raw buffer per array."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel

from exafsd.contract.messages import MESSAGE_SCHEMA, ArraySpec, BaseMessage, Result, topic_of


class FrameError(ValueError):
    """Frames that are not a message of schema ``exafsd/1``."""


@dataclass(frozen=True)
class Message:
    """A message as received: the header as plain JSON, the arrays as read-only float arrays."""

    topic: str
    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


#: name -> (unit); every array a result may carry.
ARRAY_UNITS = {
    "energy": "eV",
    "norm": "",
    "flat": "",
    "k": "1/angstrom",
    "chi_k2": "1/angstrom^2",
    "chi_k2_pred": "1/angstrom^2",
    "r": "angstrom",
    "chir_mag": "1/angstrom^3",
    "chir_mag_pred": "1/angstrom^3",
}


def encode(message: BaseMessage, arrays: Mapping[str, NDArray[Any]] | None = None) -> list[bytes]:
    """Frames of a message.

    Parameters
    ----------
    message
        Header; for a result its ``arrays`` field is filled in here.
    arrays
        Name to array; sent as little-endian float32, but energies as float64, because float32
        resolves only 1 meV at 10 keV.
    """
    buffers: list[bytes] = []
    if isinstance(message, Result) and arrays is not None:
        specs = _specs(tuple([(name, array.shape) for name, array in arrays.items()]))
        for array, spec in zip(arrays.values(), specs, strict=True):
            buffers.append(array.astype(spec.dtype, copy=False).tobytes())
        message.arrays = [*specs]
    return [topic_of(message).encode(), _json(message), *buffers]


def _json(message: BaseMessage) -> bytes:
    """Header of a message; NaN and infinity are null. `model_dump_json` takes longer, by 2.5."""
    fields = message.__dict__.copy()
    header = {"schema": fields.pop("schema_"), **fields}
    try:  # keys of counts are members of the vocabulary
        return orjson.dumps(header, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # metadata of an archive may have integers of more than 64 bits
        return message.model_dump_json(by_alias=True).encode()


def _plain(value: Any) -> Any:
    """What orjson does not know by itself: models in a message, and numpy's floats."""
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


@lru_cache(maxsize=1024)
def _specs(arrays: tuple[tuple[str, tuple[int, ...]], ...]) -> list[ArraySpec]:
    """Of arrays by name and shape; results have mostly the same."""
    return [
        ArraySpec(
            name=name, dtype="<f8" if name == "energy" else "<f4", shape=list(shape),
            unit=ARRAY_UNITS[name],
        )
        for name, shape in arrays
    ]  # fmt: skip


def decode(frames: Sequence[bytes], headers_only: bool = False) -> Message:
    """Message of frames; the inverse of `encode`.

    Parameters
    ----------
    headers_only
        Whether the arrays may have been left out, as in a replay without them.

    Raises
    ------
    FrameError
        If the frames are truncated, of another schema, or the buffers do not fit the header.
    """
    if len(frames) < 2:
        raise FrameError(f"a message has at least 2 frames, got {len(frames)}")
    try:
        header = orjson.loads(frames[1])
        schema = header["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"the header is not an exafsd message: {error}") from None
    if schema != MESSAGE_SCHEMA:
        raise FrameError(f"schema {schema!r}; this client reads {MESSAGE_SCHEMA!r}")
    topic = bytes(frames[0]).decode()
    if headers_only and len(frames) == 2:
        return Message(topic, header, {})
    specs: list[dict[str, Any]] = header.get("arrays", [])
    if len(specs) != len(frames) - 2:
        raise FrameError(f"{len(specs)} arrays announced, {len(frames) - 2} received")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for spec, buffer in zip(specs, frames[2:], strict=True):
            arrays[spec["name"]] = np.frombuffer(buffer, spec["dtype"]).reshape(spec["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"the arrays do not fit their header: {error}") from None
    return Message(topic, header, arrays)


def latest(messages: Iterable[Message]) -> list[Message]:
    """Messages without outcomes of which there is a higher revision under the same id."""
    every = list(messages)
    highest: dict[str, int] = {}
    for message in every:
        id_, revision = message.header.get("id", ""), message.header.get("revision", 1)
        highest[id_] = max(revision, highest.get(id_, 1))
    return [
        message
        for message in every
        if message.header.get("revision", 1) == highest[message.header.get("id", "")]
        or "id" not in message.header
    ]


def stacked(messages: Sequence[Message], name: str) -> NDArray[Any] | None:
    """Arrays of one name below each other, (messages, points); None where no message has it.

    NaN stands beyond the end of a shorter one, and for a message without it.
    """
    rows = [message.arrays.get(name) for message in messages]
    longest = max((row.size for row in rows if row is not None), default=-1)
    if longest < 0:
        return None
    table = np.full((len(rows), longest), np.nan, "f8" if name == "energy" else "f4")
    for place, row in zip(table, rows, strict=True):
        if row is not None:
            place[: row.size] = row
    return table
