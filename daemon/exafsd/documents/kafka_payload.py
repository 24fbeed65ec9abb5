"""Payloads of bluesky-kafka: a name and a document as msgpack, with arrays as msgpack-numpy packs.

msgpack-numpy itself is never asked: it unpickles what says that it is an array of objects.
"""

from typing import Any

from exafsd import codec

#: how the key ``b"nd"`` of a packed array looks; without it there is none
PACKED = b"\xc4\x02nd"


def loads(payload: bytes) -> tuple[str, Any]:
    """Name and document of a payload.

    Raises
    ------
    CodecError
        If it is no pair of them, or holds what the strict codec refuses.
    """
    pair = codec.loads(payload)
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise codec.CodecError("it is not [name, document], as bluesky-kafka publishes them")
    name, document = pair
    if PACKED in payload:
        try:
            document = _unpacked(document)
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise codec.CodecError(f"an array in it cannot be read: {error!r}") from None
    return name, document


def _unpacked(value: Any) -> Any:
    """Value with its packed arrays and numbers as such."""
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if b"nd" not in value:
        return {key: _unpacked(item) for key, item in value.items()}
    kind, data = value.get(b"type"), value.get(b"data")
    if value.get(b"kind", b"") != b"" or not isinstance(kind, str) or not isinstance(data, bytes):
        raise codec.CodecError("arrays of objects or records are refused")
    shape = value.get(b"shape") if value[b"nd"] else []
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise codec.CodecError("an array without a shape is refused")
    array = codec.array(kind, tuple(shape), data)
    return array if value[b"nd"] else array.item()
