"""An outcome's header as flat fields: the one flattener for CSV, pandas, catalog and terminal.

`fields` has what every outcome has, `parameters` the fitted numbers of a result. A catalog wants
columns that are the same for every sweep (`scalars`), a table one row per shell (`shell_rows`).
The header itself is kept beside them as JSON, so that nothing on the wire is lost where a table
cannot hold it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from exafsd.contract.card import Card

Header = Mapping[str, Any]
Row = dict[str, Any]
Scalar = float | int | str | bool

#: parameters of a shell and their units, as the wire names them
SHELL = {"n_s02": "", "n": "", "r": "angstrom", "sigma2": "angstrom^2", "c3": "angstrom^3"}
PHASE = {"fraction": "", "e0_shift": "eV"}
#: bytes of a column's name that PostgreSQL keeps, the least of the databases under tiled
COLUMN_LENGTH = 63
#: of the wire, kept as they are
PLAIN = (
    "id", "kind", "time", "run_uid", "scan_id", "stream", "channel", "sweep", "direction",
    "element", "edge", "e0", "epsilon_k", "r_factor", "best", "settings_sha256",
)  # fmt: skip
#: columns of a catalog that are text, and numbers with their units; null becomes empty, or NaN
TEXT = ("id", "kind", "stream", "channel", "element", "edge", "direction", "quality", "guessed",
        "reason", "detail", "model", "best", "trust_state", "doubts", "change")  # fmt: skip
NUMBERS = {"epsilon_k": "", "r_factor": "", "e0": "eV", "trust": "", "k_first": "1/angstrom",
           "k_last": "1/angstrom", "published": "s", "acquired_start": "s", "acquired_mid": "s",
           "acquired_end": "s", "distance_first": "", "distance_previous": "",
           "change_point": ""}  # fmt: skip
#: numbers with a standard deviation beside them
VALUES = {"edge_step": "", "energy_shift": "eV", "s02": ""}
#: the same of the near edge
XANES = {"edge_energy": "eV", "white_line": "", "white_line_area": "eV"}

#: endings of columns of the components of a run, and what they are called on the wire
COMPONENTS = {"": "count", "_by_noise": "by_noise", "_by_structure": "by_structure"}


class Fitted(NamedTuple):
    """A fitted number of a result, for example ``Cu/1/r``; NaN where there is none."""

    name: str
    value: float
    std: float
    unit: str


def fields(header: Header) -> Row:
    """Fields that every outcome has, flat; None where it has none.

    Numbers with a standard deviation have it in a field of their name and ``_std``; context and
    truth have ``context_`` and ``truth_`` before their names, as the wire has these.
    """
    acquired, trust = header_object(header, "acquired"), header_object(header, "trust")
    first, last = header.get("k_data") or (None, None)
    row: Row = {name: header.get(name) for name in PLAIN}
    row |= {f"acquired_{name}": at for name, at in acquired.items()}
    row |= {
        "acquired": acquired["mid"] or acquired["end"],
        "published": header.get("time"),
        "averaged": header["averaged"]["n"],
        "quality": ", ".join(header["quality"]),
        "guessed": ", ".join(header["guessed"]),
        "model": header_object(header, "model").get("name"),
        "trust": trust.get("score"),
        "in_domain": trust.get("in_domain", False),
        "trust_state": trust.get("state"),
        "doubts": "; ".join(trust.get("doubts") or []),
        "reason": header.get("reason") or trust.get("reason"),
        "detail": header.get("detail"),
        "polish": header_object(header, "polish").get("status"),
        "k_first": first,
        "k_last": last,
    }
    for name in VALUES:
        row |= pair(name, header_object(header, name))
    xanes = header_object(header, "xanes")
    for name in XANES:
        row |= pair(name, header_object(xanes, name))
    for name in ("distance_first", "distance_previous", "change_point"):
        row[name] = xanes.get(name)
    row["change"] = xanes.get("state")
    composition = header_object(header, "composition")
    for item in parts(composition, "fractions"):
        row |= pair(f"share_{item['phase']}", item)
    if composition:
        row |= {
            "shares_in_domain": composition.get("in_domain"),
            "shares_reason": composition.get("reason"),
        }  # fmt: skip
    mixture = header_object(header, "mixture")
    for item in parts(mixture, "phases"):
        for shell in parts(item, "shells")[:1]:
            for name in ("r", "sigma2"):
                row |= pair(f"mixture_{name}_{item['phase']}", header_object(shell, name))
    if mixture:
        row["mixture_reason"] = mixture.get("reason")
    components = header_object(composition, "components")
    if components:
        row |= {f"components{ending}": components.get(name) for ending, name in COMPONENTS.items()}
        for i, score in enumerate(parts(components, "scores"), 2):
            row |= pair(f"component_{i}", score)
    row |= {f"context_{name}": item["value"] for name, item in header["context"].items()}
    row |= {f"truth_{name}": value for name, value in header_object(header, "truth").items()}
    return row


def parameters(header: Header) -> Iterator[Fitted]:
    """Fitted numbers of a result, the polished ones (``Cu/1/r/polish``) beside the network's.

    Shares of the references (``Cu2O/share``) come first, then scores (``component/2``); those of
    the phases of a mixture (``Cu/1/r/mixture``) come last.
    """
    for item in parts(header_object(header, "composition"), "fractions"):
        yield Fitted(f"{item['phase']}/share", number(item["value"]), number(item["std"]), "")
    for i, item in enumerate(
        parts(header_object(header_object(header, "composition"), "components"), "scores"), 2
    ):
        yield Fitted(f"component/{i}", number(item["value"]), number(item["std"]), "")
    kinds = (("phase", PHASE, "phases"), ("id", SHELL, "shells"))
    mixed = {
        "shells": [
            s for p in parts(header_object(header, "mixture"), "phases") for s in p["shells"]
        ]
    }
    owners = ((header, ""), (header_object(header, "polish"), "/polish"), (mixed, "/mixture"))
    for owner, ending in owners:
        for key, names, field in kinds:
            for item in parts(owner, field):
                for name, unit in names.items():
                    if item.get(name) is not None:
                        value, std = number(item[name]["value"]), number(item[name]["std"])
                        yield Fitted(f"{item[key]}/{name}{ending}", value, std, unit)


def shell_rows(header: Header) -> Iterator[Row]:
    """Fields of each shell, of the polish beside them; one empty row where there are none."""
    polish = header_object(header, "polish")
    polished = {shell["id"]: shell for shell in parts(polish, "shells")}
    phases = {phase["phase"]: phase for phase in parts(header, "phases")}
    refined = {phase["phase"]: phase for phase in parts(polish, "phases")}
    for shell in parts(header, "shells") or [Row()]:
        name, phase = shell.get("id"), shell.get("phase")
        row: Row = {"shell": name, "phase": phase, "scatterer": shell.get("scatterer")}
        for parameter in SHELL:
            row |= pair(parameter, header_object(shell, parameter))
            if name in polished:
                row |= pair(f"polish_{parameter}", header_object(polished[name], parameter))
        row |= pair("e0_shift", header_object(phases.get(phase, Row()), "e0_shift"))
        if phase in refined:
            row |= pair("polish_e0_shift", header_object(refined[phase], "e0_shift"))
        yield row


def scalars(header: Header) -> dict[str, Scalar]:
    """Columns of one outcome; those of its parameters and its context as far as it has them."""
    row = fields(header)
    columns: dict[str, Scalar] = {name: _text(row[name]) for name in TEXT}
    columns |= {"sweep": int(row["sweep"]), "averaged": int(row["averaged"])}
    columns["in_domain"] = bool(row["in_domain"])
    values = [ending for name in VALUES | XANES for ending in (name, f"{name}_std")]
    columns |= {name: number(row[name]) for name in (*NUMBERS, *values)}
    columns |= {
        name: number(row.get(name)) for name in (f"components{ending}" for ending in COMPONENTS)
    }
    for name, item in header["context"].items():
        value = item["value"]
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        columns[column("context", name)] = float(value) if plain else _text(value)
    for name, value in header_object(header, "truth").items():
        columns[column("truth", name)] = number(value)
    for name, value, std, _ in parameters(header):
        safe = column(*name.split("/"))
        columns |= {safe: value, f"{safe}_std": std}
    return columns


def units(header: Header) -> dict[str, str]:
    """Units of the columns that have one."""
    named = {name: unit for name, unit in (NUMBERS | VALUES | XANES).items() if unit}
    for name, item in header["context"].items():
        named[column("context", name)] = item["unit"] or ""
    for name, _, _, unit in parameters(header):
        named[column(*name.split("/"))] = unit
    return named


def model_columns(card: Card) -> list[str]:
    """Columns that results of a model may have: the first sweeps of a run need not have any."""
    names: list[tuple[str, ...]] = [(s.phase, name) for s in card.structures for name in PHASE]
    shells = sorted({(p.phase, p.shell) for p in card.parameters if p.shell is not None})
    names += [(phase, str(shell), name) for phase, shell in shells for name in SHELL]
    polished = [(*words, "polish") for words in names if words[-1] != "n"]
    both = [column(*words) for words in (*names, *polished)]
    return [name for one in both for name in (one, f"{one}_std")]


def mixture_columns(card: Card) -> list[str]:
    """Columns that results of a mixture may have of a model's nearest shells."""
    words = [(s.phase, "1", name, "mixture") for s in card.structures for name in SHELL]
    every = [column(*one) for one in words if one[2] != "n"]
    return [name for one in every for name in (one, f"{one}_std")]


def column(*words: str) -> str:
    """Name of a column that SQL takes: ``Cu/1/r`` becomes ``Cu_1_r``."""
    safe = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(words))
    name = safe[: COLUMN_LENGTH - len("_std")]
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def unique(names: Iterable[str]) -> list[str]:
    """Names in order, without those that differ from an earlier one only in case: SQL has none."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.lower(), name)
    return list(first.values())


def number(value: Any) -> float:
    """A number of the wire as float: null is NaN."""
    return math.nan if value is None else float(value)


def header_object(owner: Header, name: str) -> Row:
    """Object in a header, or an empty one where it is null."""
    return owner.get(name) or {}


def parts(owner: Header, name: str) -> list[Row]:
    """Objects in a header, none where it is null."""
    return owner.get(name) or []


def best_answer(header: Header) -> tuple[list[Row], dict[str, Row]]:
    """Shells of the answer that ``best`` names, and phases by name; empty where none is believed.

    The network reads more shells, and gives N where S0^2 is known; what the polish has of a shell
    takes the place of the network's.
    """
    best = header_object(header, "polish") if header.get("best") == "polish" else {}
    refined = {shell["id"]: shell for shell in parts(best, "shells")}
    shells = [{**shell, **refined.get(shell["id"], {})} for shell in parts(header, "shells")]
    phases = {phase["phase"]: phase for phase in [*parts(header, "phases"), *parts(best, "phases")]}
    return shells, phases


#: error bars that refined numbers alone have
REFINED = ("std_feffit", "std_trend")


def pair(name: str, value: Row) -> Row:
    """Value, its std, and the error bars of a refined number where it is one."""
    row: Row = {name: value.get("value"), f"{name}_std": value.get("std")}
    return row | {f"{name}_{bar}": value[bar] for bar in REFINED if bar in value}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
