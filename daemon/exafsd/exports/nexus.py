"""Results of a run as a NeXus HDF5 file that viewers plot: one entry per channel and edge.

The entries follow NXxas as contributed to NeXus in 2026, for stacks of processed spectra, and not
the older definition of the same name, which is for raw counts. Where the energies of the spectra
differ, which NXxas does not allow for, ``energy`` has a row for each and no definition is claimed.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xraydb
from numpy.typing import NDArray

from exafsd.contract.columns import Scalar, column, parameters, scalars
from exafsd.contract.frames import ARRAY_UNITS, Message, stacked

DEFINITION = "NXxas"
DEFINITION_URL = (
    "https://fairmat-nfdi.github.io/nexus_definitions/classes/contributed_definitions/NXxas.html"
)
#: columns of an outcome that are no plot
OUTCOME = ("id", "kind", "sweep", "direction", "averaged", "quality", "reason", "detail", "best",
           "trust", "in_domain", "trust_state", "doubts", "acquired_start", "acquired_end",
           "published")  # fmt: skip


def write_nexus(path: Path, start: Mapping[str, Any], outcomes: Sequence[Message]) -> None:
    """Write the outcomes of a result run.

    Parameters
    ----------
    path
        File to write.
    start
        Start document of the result run.
    outcomes
        Its results and rejections, in order.
    """
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        file.attrs["creator"] = f"exafsd {start['analysis']['version']}"
        for name, members in by_series(outcomes).items():
            file.attrs.setdefault("default", name)
            _entry(_group(file, name, "NXentry"), start, members)


def by_series(outcomes: Sequence[Message]) -> dict[str, list[Message]]:
    """Outcomes by stream, channel, element and edge; averages apart from single sweeps."""
    series: dict[str, list[Message]] = {}
    for outcome in outcomes:
        header = outcome.header
        parts = [header["channel"], header["element"], header["edge"]]
        if header["stream"] != "primary":
            parts.append(header["stream"])
        if "-" in header["id"].rsplit("/", 1)[-1]:
            parts.append("average")
        series.setdefault(column(*parts), []).append(outcome)
    return series


def _entry(entry: h5py.Group, start: Mapping[str, Any], outcomes: Sequence[Message]) -> None:
    first = outcomes[0].header
    columns = _columns(outcomes)
    entry["title"] = f"{_sample(start)}: {first['element']} {first['edge']}, {first['channel']}"
    entry["entry_identifier"] = start["original_run_uid"]
    entry["is_experimental"] = first["truth"] is None  # only a simulated beamline knows the truth
    for name, when in (("start_time", first), ("end_time", outcomes[-1].header)):
        if when["acquired"]["start"] is not None:
            entry[name] = _iso(when["acquired"]["start"])
    element = _group(entry, "element", "NXelement")
    element["symbol"] = first["element"]
    with suppress(ValueError):  # no element of this symbol
        element["name"] = xraydb.atomic_name(first["element"])
    _group(entry, "edge", "NXabsorption_edge")["name"] = first["edge"]
    _group(entry, "sample", "NXsample")["name"] = _sample(start)
    _process(_group(entry, "process", "NXprocess"), start)
    sweep = columns["sweep"]
    _spectra(entry, outcomes, sweep)
    for name, signals, axis in (
        ("chi", ("chi_k2", "chi_k2_pred"), "k"),
        ("chir", ("chir_mag", "chir_mag_pred"), "r"),
    ):
        _plot(entry, name, {s: stacked(outcomes, s) for s in signals}, axis, outcomes, sweep)
    _parameters(entry, outcomes, columns)
    collection = _group(entry, "outcomes", "NXcollection")
    for name in OUTCOME:
        collection[name] = columns[name]
    collection["message"] = [json.dumps(outcome.header) for outcome in outcomes]


def _spectra(entry: h5py.Group, outcomes: Sequence[Message], sweep: NDArray[Any]) -> None:
    """Normalised mu(E), where NXxas wants it, and a plot of it."""
    energy, norm = stacked(outcomes, "energy"), stacked(outcomes, "norm")
    if energy is None or norm is None:
        return
    measured = energy[~np.isnan(energy).all(axis=1)]
    same = bool((measured == measured[0]).all())
    if same:
        entry["definition"] = DEFINITION
        entry["definition"].attrs["URL"] = DEFINITION_URL
    entry["energy"] = measured[0] if same else energy
    entry["energy"].attrs["units"] = "eV"
    entry["intensity"] = norm
    entry["intensity"].attrs["long_name"] = "normalised absorption"
    data = _group(entry, "spectra", "NXdata")
    data["energy"], data["intensity"] = entry["energy"], entry["intensity"]
    data["sweep"] = sweep
    flat = stacked(outcomes, "flat")
    if flat is not None:
        data["flat"] = flat
        data.attrs["auxiliary_signals"] = ["flat"]
    data.attrs["signal"] = "intensity"
    data.attrs["axes"] = ["sweep", "energy"]
    data.attrs["sweep_indices"] = 0
    data.attrs["energy_indices"] = 1 if same else [0, 1]
    entry.attrs["default"] = "spectra"


def _plot(
    entry: h5py.Group,
    name: str,
    signals: Mapping[str, NDArray[Any] | None],
    axis: str,
    outcomes: Sequence[Message],
    sweep: NDArray[Any],
) -> None:
    present = {signal: array for signal, array in signals.items() if array is not None}
    along = next((o.arrays[axis] for o in outcomes if axis in o.arrays), None)
    if not present or along is None:
        return
    data = _group(entry, name, "NXdata")
    for signal, array in {**present, axis: along}.items():
        data[signal] = array
        data[signal].attrs["units"] = ARRAY_UNITS[signal]
    data["sweep"] = sweep
    data.attrs["signal"], *others = present
    data.attrs["auxiliary_signals"] = others
    data.attrs["axes"] = ["sweep", axis]
    data.attrs["sweep_indices"], data.attrs[f"{axis}_indices"] = 0, 1


def _parameters(
    entry: h5py.Group, outcomes: Sequence[Message], columns: Mapping[str, NDArray[Any]]
) -> None:
    """Fitted numbers over the sweeps, each with its standard deviation as ``_errors``."""
    fitted = {p.name: p.unit for o in outcomes for p in parameters(o.header)}
    units = {column(*name.split("/")): unit for name, unit in fitted.items()}
    units |= {"e0": "eV", "edge_step": ""}
    data = _group(entry, "parameters", "NXdata")
    for name, unit in units.items():
        data[name] = columns[name]
        data[name].attrs["units"] = unit
        if f"{name}_std" in columns:
            data[f"{name}_errors"] = columns[f"{name}_std"]
    for name, values in columns.items():
        if name == "sweep" or (name.startswith("context_") and values.dtype.kind == "f"):
            data[name] = values
            data.attrs[f"{name}_indices"] = 0
    names = list(units)
    signal = next((name for name in names if name.endswith("_r")), names[0])
    data.attrs["signal"] = signal
    data.attrs["auxiliary_signals"] = [name for name in names if name != signal]
    data.attrs["axes"] = ["sweep"]


def _process(process: h5py.Group, start: Mapping[str, Any]) -> None:
    analysis = start["analysis"]
    process["program"], process["version"] = "exafsd", analysis["version"]
    process["date"] = _iso(start["time"])
    for name in ("model", "model_sha256", "settings_sha256"):
        process[name] = analysis[name] or ""
    process["settings"] = json.dumps(analysis["settings"], indent=1)
    process["result_run"] = start["uid"]


def _columns(outcomes: Sequence[Message]) -> dict[str, NDArray[Any]]:
    """Columns of outcomes as arrays; NaN or empty where one has none."""
    rows = [scalars(outcome.header) for outcome in outcomes]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names}


def _column(values: Sequence[Scalar | None]) -> NDArray[Any]:
    if any(isinstance(value, str) for value in values):
        texts = ["" if value is None else str(value) for value in values]
        return np.array(texts, dtype=h5py.string_dtype())
    return np.array([np.nan if value is None else value for value in values])


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _sample(start: Mapping[str, Any]) -> str:
    sample = start.get("sample")
    if isinstance(sample, Mapping):
        sample = sample.get("name")
    return str(sample or "unknown sample")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
