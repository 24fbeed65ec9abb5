"""Strict msgpack for documents: numbers, strings, containers and plain arrays; never code.

Anyone who may connect may send bytes; nothing that arrives here can be executed.
"""

from typing import Any

import msgpack
import numpy as np

#: msgpack extension type of an array: (dtype string, shape, raw bytes).
ARRAY_EXT = 78
#: boolean, integers, floats, complex, bytes and text: kinds whose bytes are the value.
PLAIN_KINDS = "biufcSU"


class CodecError(ValueError):
    """Bytes or objects that this codec refuses."""


def dumps(value: Any) -> bytes:
    """Encode a document.

    Raises
    ------
    CodecError
        If it holds anything but numbers, strings, bytes, lists, dicts and plain arrays.
    """
    try:
        return bytes(msgpack.packb(value, default=_encode) or b"")
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"cannot be encoded: {error}") from None


def loads(data: bytes) -> Any:
    """Decode a document; arrays are read-only views of `data`.

    Raises
    ------
    CodecError
        If the bytes are truncated, not msgpack, or hold an unknown extension or object array.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except CodecError:
        raise
    except Exception as error:  # msgpack raises half a dozen unrelated types on bad bytes
        raise CodecError(f"not a msgpack document: {type(error).__name__}: {error}") from None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in PLAIN_KINDS:
            raise CodecError(f"arrays of dtype {value.dtype} are refused")
        packed = (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
        return msgpack.ExtType(ARRAY_EXT, msgpack.packb(packed))
    if isinstance(value, np.generic):
        return value.item()
    raise CodecError(f"objects of type {type(value).__name__} are refused")


def _decode(code: int, data: bytes) -> Any:
    if code != ARRAY_EXT:
        raise CodecError(f"unknown msgpack extension {code}")
    dtype, shape, raw = msgpack.unpackb(data)
    dtype = np.dtype(dtype)
    if not raw and shape and shape[0]:
        # an array of a million million rows of nothing fits into 60 bytes
        raise CodecError(f"an array of shape {shape} without data is refused")
    if dtype.kind not in PLAIN_KINDS:
        raise CodecError(f"arrays of dtype {dtype} are refused")
    return np.frombuffer(raw, dtype).reshape(shape)
