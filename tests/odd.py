"""What plans put into documents without thinking of who must encode them."""

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import types
import uuid

import numpy as np


class Plain(enum.Enum):
    """An enumeration that is neither a string nor a number."""

    RED = "red"


class Mute:
    """An object that cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Titled(dict):
    """A subclass, as catalogs have for documents."""


def circle():
    inner = []
    inner.append(inner)
    return inner


#: each with what arrives, or None where only that it arrives matters
VALUES = {
    "path": (pathlib.PurePosixPath("/data/2024-1"), "/data/2024-1"),
    "datetime": (datetime.datetime(2024, 1, 5, 6), "2024-01-05 06:00:00"),
    "date": (datetime.date(2024, 1, 5), "2024-01-05"),
    "timedelta": (datetime.timedelta(seconds=90), "0:01:30"),
    "set": ({7}, [7]),
    "frozenset": (frozenset({7}), [7]),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "decimal": (decimal.Decimal("1.20"), "1.20"),
    "fraction": (fractions.Fraction(1, 3), "1/3"),
    "enum": (Plain.RED, "red"),
    "complex": (1 + 2j, "(1+2j)"),
    "numpy complex": (np.complex128(2j), "2j"),
    "huge": (10**30, "1" + "0" * 30),
    "very negative": (-(2**70), str(-(2**70))),
    "long double": (np.longdouble(1.5), 1.5),
    "half": (np.float16(2), 2.0),
    "numpy text": (np.str_("x"), "x"),
    "objects": (np.array([None, "a", 2], dtype=object), [None, "a", 2]),
    "dates": (np.array(["2024-01-05"], "M8[D]"), None),
    "no date": (np.datetime64("NaT"), None),
    "records": (np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]), [[1, 2.5]]),
    "masked": (np.ma.array([1.0, 2.0], mask=[False, True]), None),
    "rows of nothing": (np.empty((3, 0)), None),
    "surrogate": ("a\ud800b", "a\\ud800b"),
    "circle": (circle(), ["..."]),
    "deep": (eval("[" * 150 + "]" * 150), None),
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "keys": ({(1, 2): 3, None: 4, 5: 6}, {"(1, 2)": 3, None: 4, 5: 6}),
    "chain": (collections.ChainMap({"a": 1}), {"a": 1}),
    "proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "subclass": (Titled(a=1), {"a": 1}),
    "mute": (Mute(), "<odd.Mute>"),
    "function": (print, "<built-in function print>"),
    "generator": ((i for i in range(3)), None),
    "bytes": (bytearray(b"x"), b"x"),
    "error": (ValueError("x"), "x"),
}
