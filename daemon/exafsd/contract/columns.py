"""An outcome's header as columns of a table: numbers and text, the same names for every sweep.

The columns are for searching and plotting. The header itself is kept beside them as JSON, so that
nothing on the wire is lost where a table cannot hold it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from exafsd.contract.card import Card

Header = Mapping[str, Any]
Scalar = float | int | str | bool

#: parameters of a shell and their units, as the wire names them
SHELL = {"n_s02": "", "n": "", "r": "angstrom", "sigma2": "angstrom^2", "c3": "angstrom^3"}
PHASE = {"fraction": "", "e0_shift": "eV"}
#: bytes of a column's name that PostgreSQL keeps, the least of the databases under tiled
COLUMN_LENGTH = 63
#: of the wire, kept as they are
TEXT = ("id", "kind", "stream", "channel", "element", "edge")
#: of the wire, null becomes NaN
NUMBERS = {"epsilon_k": "", "r_factor": "", "e0": "eV"}
VALUES = {"edge_step": "", "energy_shift": "eV", "s02": ""}


class Fitted(NamedTuple):
    """A fitted number of a result, for example ``Cu/1/r``; NaN where there is none."""

    name: str
    value: float
    std: float
    unit: str


def parameters(header: Header) -> Iterator[Fitted]:
    """Fitted numbers of a result, the polished ones (``Cu/1/r/polish``) beside the network's."""
    parts = (("phase", PHASE, "phases"), ("id", SHELL, "shells"))
    polish = header.get("polish") or {}
    for owner, ending in ((header, ""), (polish, "/polish")):
        for key, names, field in parts:
            for item in owner.get(field) or ():
                for name, unit in names.items():
                    if item.get(name) is not None:
                        value, std = number(item[name]["value"]), number(item[name]["std"])
                        yield Fitted(f"{item[key]}/{name}{ending}", value, std, unit)


def scalars(header: Header) -> dict[str, Scalar]:
    """Columns of one outcome; those of its parameters and its context as far as it has them."""
    trust = header.get("trust") or {}
    model = header.get("model") or {}
    k_data = header.get("k_data") or (None, None)
    found: dict[str, Scalar] = {name: str(header[name]) for name in TEXT}
    found |= {
        "sweep": int(header["sweep"]),
        "direction": header["direction"] or "",
        "averaged": int(header["averaged"]["n"]),
        "published": number(header["time"]),
        "quality": ", ".join(header["quality"]),
        "guessed": ", ".join(header["guessed"]),
        "reason": header.get("reason") or trust.get("reason") or "",
        "detail": header.get("detail") or "",
        "model": model.get("name") or "",
        "best": header.get("best") or "",
        "trust": number(trust.get("score")),
        "in_domain": bool(trust.get("in_domain")),
        "k_first": number(k_data[0]),
        "k_last": number(k_data[1]),
    }
    found |= {f"acquired_{name}": number(at) for name, at in header["acquired"].items()}
    found |= {name: number(header.get(name)) for name in NUMBERS}
    for name in VALUES:
        value = header.get(name) or {}
        found |= _pair(name, value.get("value"), value.get("std"))
    for name, item in header["context"].items():
        value = item["value"]
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        found[column("context", name)] = float(value) if plain else _text(value)
    for name, value in (header["truth"] or {}).items():
        found[column("truth", name)] = number(value)
    for name, value, std, _ in parameters(header):
        found |= _pair(column(*name.split("/")), value, std)
    return found


def units(header: Header) -> dict[str, str]:
    """Units of the columns that have one."""
    found = {name: unit for name, unit in (NUMBERS | VALUES).items() if unit}
    found |= {f"acquired_{name}": "s" for name in header["acquired"]}
    found |= {"k_first": "1/angstrom", "k_last": "1/angstrom", "published": "s"}
    for name, item in header["context"].items():
        found[column("context", name)] = item["unit"] or ""
    for name, _, _, unit in parameters(header):
        found[column(*name.split("/"))] = unit
    return found


def model_columns(card: Card) -> list[str]:
    """Columns that results of a model may have: the first sweeps of a run need not have any."""
    names: list[tuple[str, ...]] = [(s.phase, name) for s in card.structures for name in PHASE]
    shells = sorted({(p.phase, p.shell) for p in card.parameters if p.shell is not None})
    names += [(phase, str(shell), name) for phase, shell in shells for name in SHELL]
    polished = [(*parts, "polish") for parts in names if parts[-1] != "n"]
    both = [column(*parts) for parts in (*names, *polished)]
    return [name for one in both for name in (one, f"{one}_std")]


def column(*parts: str) -> str:
    """Name of a column that SQL takes: ``Cu/1/r`` becomes ``Cu_1_r``."""
    safe = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(parts))
    name = safe[: COLUMN_LENGTH - len("_std")]
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def unique(names: Iterable[str]) -> list[str]:
    """Names in order, without those that differ from an earlier one only in case: SQL has none."""
    kept: dict[str, str] = {}
    for name in names:
        kept.setdefault(name.lower(), name)
    return list(kept.values())


def number(value: Any) -> float:
    """A number of the wire as float: null is NaN."""
    return math.nan if value is None else float(value)


def _pair(name: str, value: Any, std: Any) -> dict[str, Scalar]:
    return {name: number(value), f"{name}_std": number(std)}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
