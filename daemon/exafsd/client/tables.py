"""Messages as a table (pandas) or as labelled arrays (xarray), where these are installed."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.frames import ARRAY_UNITS, Message

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]
    import xarray

Row = dict[str, Any]

#: columns taken over from the header as they are
PLAIN = (
    "id", "kind", "time", "run_uid", "scan_id", "stream", "channel", "sweep", "direction",
    "element", "edge", "e0", "epsilon_k", "r_factor", "best", "settings_sha256",
)  # fmt: skip
#: parameters of a shell
SHELL = ("n_s02", "n", "r", "sigma2", "c3")
#: arrays on the grid in k, on that in R, and on the energies of the sweep
ON_K, ON_R = ("chi_k2", "chi_k2_pred"), ("chir_mag", "chir_mag_pred")
ON_ENERGY = ("energy", "norm", "flat")


def _needed(name: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"{wanted_by} needs {name}: pip install {name}") from None


def _part(owner: Row, name: str) -> Row:
    """Object in a header, or an empty one where it is null."""
    return owner.get(name) or {}


def _parts(owner: Row, name: str) -> list[Row]:
    """Objects in a header, none where it is null."""
    return owner.get(name) or []


def _pair(row: Row, name: str, value: Row) -> None:
    """Value, its std, and feffit's error bar where there is one."""
    row[name] = value.get("value")
    row[f"{name}_std"] = value.get("std")
    if "std_feffit" in value:
        row[f"{name}_std_feffit"] = value["std_feffit"]


def _common(header: dict[str, Any]) -> Row:
    """Columns that all rows of a message share."""
    row: Row = {name: header.get(name) for name in PLAIN}
    row["acquired"] = header["acquired"]["mid"] or header["acquired"]["end"]
    row["averaged"] = header["averaged"]["n"]
    _pair(row, "edge_step", _part(header, "edge_step"))
    _pair(row, "energy_shift", _part(header, "energy_shift"))
    row["quality"] = ", ".join(header["quality"])
    row["model"] = _part(header, "model").get("name")
    trust = _part(header, "trust")
    row["trust"], row["in_domain"] = trust.get("score"), trust.get("in_domain", False)
    row["reason"] = header.get("reason") or trust.get("reason")
    row["polish"] = _part(header, "polish").get("status")
    for name, item in header["context"].items():
        row[f"context_{name}"] = item["value"]
    for name, value in _part(header, "truth").items():
        row[f"truth_{name}"] = value
    return row


def rows(messages: Iterable[Message]) -> list[Row]:
    """Results and rejections as flat rows: one per shell, one where there are no shells.

    Parameters of the network keep their names (``r``, ``r_std``, in angstrom), those of the polish
    begin with ``polish_``; ``e0_shift`` is of the shell's phase.
    """
    table: list[Row] = []
    for message in messages:
        header = message.header
        if header["kind"] not in ("result", "rejected"):
            continue
        common = _common(header)
        polish = _part(header, "polish")
        polished = {shell["id"]: shell for shell in _parts(polish, "shells")}
        phases = {phase["phase"]: phase for phase in _parts(header, "phases")}
        refined = {phase["phase"]: phase for phase in _parts(polish, "phases")}
        for shell in _parts(header, "shells") or [Row()]:
            name, phase = shell.get("id"), shell.get("phase")
            row = {**common, "shell": name, "phase": phase, "scatterer": shell.get("scatterer")}
            for parameter in SHELL:
                _pair(row, parameter, _part(shell, parameter))
                if name in polished:
                    _pair(row, f"polish_{parameter}", _part(polished[name], parameter))
            _pair(row, "e0_shift", _part(phases.get(phase, Row()), "e0_shift"))
            if phase in refined:
                _pair(row, "polish_e0_shift", _part(refined[phase], "e0_shift"))
            table.append(row)
    return table


def to_pandas(messages: Iterable[Message]) -> "pandas.DataFrame":
    """Table of results and rejections, see `rows`; times are UTC.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    pd = _needed("pandas", "to_pandas")
    table = pd.DataFrame(rows(messages))
    for name in ("time", "acquired"):
        if name in table:
            table[name] = pd.to_datetime(table[name].astype(float), unit="s", utc=True)
    return table


def to_xarray(messages: Iterable[Message]) -> "xarray.Dataset":
    """Spectra and parameters of results with a dimension ``spectrum``.

    ``chi_k2`` and ``chi_k2_pred`` (spectrum, k); ``chir_mag`` and ``chir_mag_pred`` (spectrum, r);
    ``energy``, ``norm`` and ``flat`` (spectrum, point), NaN beyond a spectrum's last point;
    ``shell_r``, ``shell_r_std`` and so on (spectrum, shell). What a result does not have is NaN.

    Raises
    ------
    ImportError
        If xarray is not installed.
    """
    xr = _needed("xarray", "to_xarray")
    results = [message for message in messages if message.header["kind"] == "result"]
    common = [_common(message.header) for message in results]
    found: dict[str, Any] = {
        name: ("spectrum", [row.get(name) for row in common])
        for name in dict.fromkeys(name for row in common for name in row)
    }
    for coordinate, names in (("k", ON_K), ("r", ON_R)):
        grid = next((m.arrays[coordinate] for m in results if coordinate in m.arrays), None)
        if grid is None:
            continue
        found[coordinate] = (coordinate, grid, {"units": ARRAY_UNITS[coordinate]})
        for name in names:
            stacked = _stacked(results, name, grid.size)
            found[name] = (("spectrum", coordinate), stacked, {"units": ARRAY_UNITS[name]})
    longest = max((m.arrays["energy"].size for m in results if "energy" in m.arrays), default=0)
    for name in ON_ENERGY if longest else ():
        stacked = _stacked(results, name, longest)
        found[name] = (("spectrum", "point"), stacked, {"units": ARRAY_UNITS[name]})
    found |= _shells(results)
    coordinates = {"k", "r", "shell", "id", "sweep", "acquired"} & set(found)
    return xr.Dataset(found).set_coords(sorted(coordinates))


def _stacked(results: list[Message], name: str, size: int) -> NDArray[Any]:
    """Arrays of one name below each other, (spectrum, size)."""
    rows = np.full((len(results), size), np.nan, dtype=np.float64 if name == "energy" else "f4")
    for row, message in zip(rows, results, strict=True):
        array = message.arrays.get(name)
        if array is not None:
            row[: array.size] = array
    return rows


def _shells(results: list[Message]) -> dict[str, Any]:
    """Parameters by shell, (spectrum, shell)."""
    every = [{shell["id"]: shell for shell in _parts(m.header, "shells")} for m in results]
    names = list(dict.fromkeys(name for shells in every for name in shells))
    if not names:
        return {}
    found: dict[str, Any] = {"shell": ("shell", names)}
    for parameter in SHELL:
        for part in ("value", "std"):
            values = [
                [_part(_part(shells, name), parameter).get(part) for name in names]
                for shells in every
            ]
            key = f"shell_{parameter}" + ("_std" if part == "std" else "")
            found[key] = (("spectrum", "shell"), np.array(values, dtype=float))
    return found
