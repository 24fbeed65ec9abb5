"""Messages as a table (pandas) or as labelled arrays (xarray), where these are installed."""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from exafsd.contract.columns import PLAIN, SHELL, Row, fields, header_object, parts, shell_rows
from exafsd.contract.frames import ARRAY_UNITS, Message, latest, stacked

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]
    import xarray

#: fields of a header that a table has as columns, beside those with these beginnings
COLUMNS = (
    *PLAIN, "acquired", "averaged", "edge_step", "edge_step_std", "energy_shift",
    "energy_shift_std", "quality", "model", "trust", "in_domain", "trust_state", "doubts", "reason",
    "polish", "edge_energy", "edge_energy_std", "white_line", "white_line_std", "white_line_area",
    "white_line_area_std", "distance_first", "distance_previous", "change", "change_point",
)  # fmt: skip
BEGINNINGS = ("context_", "truth_", "share", "mixture_", "component")
#: arrays on the grid in k, on that in R, and on the energies of the sweep
ON_K, ON_R = ("chi_k2", "chi_k2_pred"), ("chir_mag", "chir_mag_pred")
ON_ENERGY = ("energy", "norm", "flat")


def _needed(name: str, wanted_by: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"{wanted_by} needs {name}: pip install {name}") from None


def _common(header: dict[str, Any]) -> Row:
    """Columns that all rows of a message share."""
    row = fields(header)
    chosen = {name: row[name] for name in COLUMNS}
    return chosen | {n: v for n, v in row.items() if n.startswith(BEGINNINGS)}


def rows(messages: Iterable[Message]) -> list[Row]:
    """Results and rejections as flat rows: one per shell, one where there are no shells.

    Of a sweep that was published again only the latest revision counts. Parameters of the network
    keep their names (``r``, ``r_std``, in angstrom), those of the polish begin with ``polish_``;
    ``e0_shift`` is of the shell's phase.
    """
    table: list[Row] = []
    for message in latest(messages):
        if message.header["kind"] in ("result", "rejected"):
            common = _common(message.header)
            table += [common | shell for shell in shell_rows(message.header)]
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
    results = [message for message in latest(messages) if message.header["kind"] == "result"]
    common = [_common(message.header) for message in results]
    variables: dict[str, Any] = {
        name: ("spectrum", [row.get(name) for row in common])
        for name in dict.fromkeys(name for row in common for name in row)
    }
    for coordinate, names in (("k", ON_K), ("r", ON_R), ("point", ON_ENERGY)):
        grid = next((m.arrays[coordinate] for m in results if coordinate in m.arrays), None)
        if grid is not None:
            variables[coordinate] = (coordinate, grid, {"units": ARRAY_UNITS[coordinate]})
        for name in names:
            table = stacked(results, name)
            if table is not None:
                variables[name] = (("spectrum", coordinate), table, {"units": ARRAY_UNITS[name]})
    variables |= _shells(results)
    coordinates = {"k", "r", "shell", "id", "sweep", "acquired"} & set(variables)
    return xr.Dataset(variables).set_coords(sorted(coordinates))


def _shells(results: list[Message]) -> dict[str, Any]:
    """Parameters by shell, (spectrum, shell)."""
    every = [{shell["id"]: shell for shell in parts(m.header, "shells")} for m in results]
    names = list(dict.fromkeys(name for shells in every for name in shells))
    if not names:
        return {}
    variables: dict[str, Any] = {"shell": ("shell", names)}
    for parameter in SHELL:
        for which, ending in (("value", ""), ("std", "_std")):
            values: list[list[Any]] = [
                [header_object(header_object(shells, name), parameter).get(which) for name in names]
                for shells in every
            ]
            key = f"shell_{parameter}{ending}"
            variables[key] = (("spectrum", "shell"), np.array(values, dtype=float))
    return variables
