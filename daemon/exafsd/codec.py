"""Strict msgpack for documents: numbers, strings, containers and plain arrays; never code.

Anyone who may connect may send bytes: nothing that arrives here can be executed, and none of it
takes much more memory or time than its size. What a plan puts into its documents is encoded
whatever it is, because an error here would stop the experiment.
"""

import re
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from exafsd.logs import get_logger

log = get_logger(__name__)

#: msgpack extension type of an array: (dtype string, shape, raw bytes).
ARRAY_EXT = 78
#: boolean, integers, floats, complex, bytes and text: kinds whose bytes are the value.
PLAIN_KINDS = "biufcSU"
#: dtypes that are read, as numpy spells them; numpy itself takes minutes over some other texts
DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU][0-9]{1,7})")
#: dimensions that numpy's arrays may have
DIMENSIONS = 64
#: bytes of a frame beyond which its items are counted before they are made
COUNTED = 1 << 16
#: strings and containers in a frame, and bytes of its other items: together at most some 200 MB
MOST_ITEMS, MOST_SCALARS = 300_000, 1 << 23
#: nested containers that are sent; what lies deeper is sent as "..."
DEEPEST = 100
#: characters of an object that is sent as text
LONGEST_TEXT = 1000
#: bytes of an array that are sent
LARGEST = 1 << 31
#: items of msgpack without a payload, as many as follow each other
_SCALARS = re.compile(
    rb"(?:[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]++|(?:[\xcb\xcf\xd3].{8})++|(?:[\xca\xce\xd2].{4})++"
    rb"|[\xcd\xd1]..|[\xcc\xd0].)*+",
    re.DOTALL,
)
#: first byte of an item to the bytes that tell its length, and the bytes beyond these and it
_LENGTHS = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
#: first byte of an item to its other bytes: headers of containers, extensions of fixed length
_FIXED = {
    **dict.fromkeys(range(0x80, 0xA0), 0), **{0xA0 + n: n for n in range(32)},
    0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
#: types that were sent as text, to say so once for each
_as_text: set[str] = set()


class CodecError(ValueError):
    """Bytes that this codec refuses."""


class _OddError(Exception):
    """Something that is not encoded as it is."""


def dumps(value: Any) -> bytes:
    """Encode a document; never raises.

    Numbers, strings, bytes, lists, dictionaries and arrays are encoded as they are. Whatever else
    there is goes as its text, which is logged once for each type.
    """
    try:
        return bytes(msgpack.packb(value, default=_encode, strict_types=True) or b"")
    except Exception:  # objects of anybody's making may raise anything
        try:
            return bytes(msgpack.packb(plain(value), default=_encode) or b"")
        except Exception:
            return bytes(msgpack.packb(_text(value)) or b"")


def plain(value: Any) -> Any:
    """Copy of a value in dictionaries, lists, strings, numbers and plain arrays; never raises.

    Arrays are not copied.
    """
    return _plain(value, ())


def loads(data: bytes) -> Any:
    """Decode a document; arrays are read-only views of `data`.

    Raises
    ------
    CodecError
        If the bytes are truncated, not msgpack, hold an unknown extension or object array, or
        would take far more memory than they have bytes.
    """
    try:
        _check_size(data)
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except CodecError:
        raise
    except Exception as error:  # msgpack raises half a dozen unrelated types on bad bytes
        raise CodecError(f"not a msgpack document: {type(error).__name__}: {error}") from None


def _encode(value: Any) -> Any:
    """What msgpack does not know by itself."""
    if isinstance(value, np.ndarray):
        if not _is_plain(value):
            raise _OddError
        packed = (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
        return msgpack.ExtType(ARRAY_EXT, msgpack.packb(packed))
    if isinstance(value, np.generic) and isinstance(value.item(), (bool, int, float, str, bytes)):
        return value.item()
    raise _OddError


def _is_plain(array: NDArray[Any]) -> bool:
    """Whether `_decode` would take it."""
    if array.nbytes >= LARGEST or (array.nbytes == 0 and array.shape and array.shape[0]):
        return False
    return array.dtype.kind in PLAIN_KINDS and not isinstance(array, np.ma.MaskedArray)


def _plain(value: Any, parents: tuple[int, ...]) -> Any:
    if value is None or type(value) in (bool, float, bytes):
        return value
    try:
        if isinstance(value, Enum):
            return _plain(value.value, parents)
        if isinstance(value, np.ndarray):
            return value if type(value) is np.ndarray and _is_plain(value) else _of_array(value)
        if isinstance(value, np.generic) and type(value.item()) is not type(value):
            return _plain(value.item(), parents)
        if isinstance(value, str):
            return str(value).encode("utf-8", "backslashreplace").decode()
        if isinstance(value, int) and -(2**63) <= value < 2**64:
            return int(value)
        if isinstance(value, (float, np.floating)):
            return float(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if isinstance(value, (Mapping, list, tuple, deque, AbstractSet)):
            if id(value) in parents or len(parents) >= DEEPEST:
                return "..."
            inner = (*parents, id(value))
            if isinstance(value, Mapping):
                return {_key(k): _plain(item, inner) for k, item in list(value.items())}
            return [_plain(item, inner) for item in list(value)]
        return _text(value)
    except Exception:
        return _text(value)


def _of_array(array: NDArray[Any]) -> Any:
    """Arrays of dates, objects and the like as lists; odd ones as text."""
    if isinstance(array, np.ma.MaskedArray):  # what is masked is no number
        number = array.dtype.kind in "iuf"
        return np.where(array.mask, np.nan, array.data) if number else _plain(array.tolist(), ())
    if array.size and array.dtype.kind in "mM":
        return array.astype(str)
    if array.size and array.dtype.kind in "OV" and array.size < MOST_ITEMS:
        return _plain(array.tolist(), ())
    return np.array(array) if _is_plain(array) else _text(array)


def _key(key: Any) -> Any:
    """Key of a dictionary as it may be read again."""
    if key is None or isinstance(key, (str, int, float, bytes, np.generic)):
        return _plain(key, ())
    return _text(key)


def _text(value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind not in _as_text:
        _as_text.add(kind)
        log.warning("documents hold a type that is sent as text", type=kind)
    try:
        text = str(value)
    except Exception:
        text = f"<{kind}>"
    return text[:LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()


def _decode(code: int, data: bytes) -> Any:
    if code != ARRAY_EXT:
        raise CodecError(f"unknown msgpack extension {code}")
    _check_size(data)
    return array(*msgpack.unpackb(data, use_list=False))


def array(dtype: Any, shape: Any, raw: Any) -> NDArray[Any]:
    """Array of a dtype as numpy spells it, a shape and raw bytes, of which it is a view.

    Raises
    ------
    CodecError
        If it is no plain array, or an empty one that claims to be large.
    """
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise CodecError(f"arrays of dtype {str(dtype)[:40]} are refused")
    if not isinstance(shape, tuple) or len(shape) > DIMENSIONS:
        raise CodecError(f"arrays of more than {DIMENSIONS} dimensions are refused")
    if not raw and shape and shape[0]:
        # an array of a million million rows of nothing fits into 60 bytes
        raise CodecError(f"an array of shape {shape} without data is refused")
    return np.frombuffer(raw, np.dtype(dtype)).reshape(shape)


def _check_size(data: bytes) -> None:
    """Refuse what would take far more memory than it has bytes: an empty map takes 64 times."""
    size = len(data)
    if size <= COUNTED:
        return
    at, items, scalars = 0, 0, 0
    while at < size:
        run = _SCALARS.match(data, at, min(size, at + MOST_SCALARS + 1))
        end = at if run is None else run.end()
        items, scalars = items + 1, scalars + end - at
        if items > MOST_ITEMS or scalars > MOST_SCALARS:
            raise CodecError(f"{size} bytes hold too many items to be a document")
        if end >= size:
            return
        head = data[end]
        if head in _FIXED:
            at = end + 1 + _FIXED[head]
        elif head in _LENGTHS:
            digits, more = _LENGTHS[head]
            length = int.from_bytes(data[end + 1 : end + 1 + digits], "big")
            at = end + 1 + digits + more + length
        else:  # not msgpack, or cut off: which is said where it is read
            return
