"""Temperatures of references and of samples, which a linear combination must have about alike."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: K by which a reference may differ from the sample.
FAR = 100.0
#: K of a reference that was measured at room temperature.
ROOM = 295.0
#: name of a sample's temperature in the context of a sweep, in whatever words around it
NAMED = re.compile(r"temperature|(^|[._-])temp($|[._-])", re.IGNORECASE)
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\s*(K|kelvin|°?\s*C|degC|celsius)?\s*$", re.IGNORECASE)


def of_text(text: str) -> float | None:
    """Temperature in K of words such as ``13 K``, ``25 C`` or ``room temperature``."""
    text = text.strip()
    if "room" in text.lower() or text.lower() in ("rt", "ambient"):
        return ROOM
    match = NUMBER.fullmatch(text)
    return None if match is None else _kelvin(float(match[1]), match[2])


def of_header(lines: Iterable[str]) -> float | None:
    """Temperature in K of an XDI header; None where it has none that can be read."""
    for line in lines:
        if not line.startswith("#"):
            return None
        name, _, value = line.lstrip("# ").partition(":")
        if name.strip().lower() == "sample.temperature":
            return of_text(value)
    return None


def of_context(context: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Temperature in K of a sweep; None where its context has none."""
    for name, item in context.items():
        if NAMED.search(name):
            value, unit = item.get("value"), item.get("unit")
            if isinstance(value, str):
                return of_text(f"{value} {unit or ''}")
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return _kelvin(float(value), unit)
    return None


def _kelvin(value: float, unit: str | None) -> float | None:
    celsius = bool(unit) and str(unit).strip(" °").lower() in ("c", "degc", "celsius")
    kelvin = value + 273.15 if celsius else value
    return kelvin if 0 <= kelvin < 1e4 else None
