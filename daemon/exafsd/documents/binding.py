"""Which data keys of a stream are energy, signals, context and truth, by the run's adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from exafsd.documents.energy import EnergyScale, energy_scale
from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats

#: readings before and after a run, never a spectrum
BASELINE = "baseline"


def lookup(document: Mapping[str, Any], path: str) -> Any:
    """Value at a key, tried literally first and then as a dotted path; None where absent."""
    if path in document:
        return document[path]
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def first(document: Mapping[str, Any], paths: tuple[str, ...]) -> Any:
    """Value of the first of several keys that is present; None where none is."""
    for path in paths:
        value = lookup(document, path)
        if value is not None:
            return value
    return None


@dataclass(frozen=True)
class Binding:
    """What one stream contributes. Keys of `columns`: ``energy``, signals, ``iff#1``, ..."""

    stream: str
    columns: Mapping[str, str]
    context: tuple[str, ...]
    truth: Mapping[str, str]
    units: Mapping[str, str | None]
    scale: EnergyScale = field(default_factory=lambda: EnergyScale("eV"))
    #: energy axis that stands in the configuration instead of in events, as read
    axis: Floats | None = None
    #: whether a row is a whole sweep: energy or a signal is an array
    rowwise: bool = False
    #: data keys whose value is a whole table in a file; columns of it are named KEY/COLUMN
    tables: frozenset[str] = frozenset()
    #: why the energy cannot be turned into eV
    problem: str | None = None

    @property
    def has_energy(self) -> bool:
        """Whether rows have an energy, or the configuration does."""
        return "energy" in self.columns or self.axis is not None

    @property
    def has_signals(self) -> bool:
        """Whether rows have a detector's reading."""
        return any(role != "energy" for role in self.columns)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Data keys that must have arrived before a row is complete."""
        columns = (_data_key(name, self.tables) for name in self.columns.values())
        return frozenset((*columns, *self.context, *self.truth.values()))


def bind(adapter: Adapter, descriptor: Mapping[str, Any], start: Mapping[str, Any]) -> Binding:
    """Bind a stream by its descriptor; what is wrong with its energy goes into `problem`."""
    keys: Mapping[str, Any] = descriptor["data_keys"]
    stream = str(descriptor.get("name") or "primary")
    columns: dict[str, str] = {}
    axis = None
    bases = {
        name.partition("/")[0]
        for name in (*adapter.energy.key, *chain(*adapter.signals.values()))
        if "/" in name and name not in keys
    }
    tables = frozenset(key for key in bases if "external" in keys.get(key, ()))
    energy_key: Mapping[str, Any] = {}
    if stream != BASELINE:
        for name in adapter.energy.key:
            if _data_key(name, tables) in keys:
                columns["energy"], energy_key = name, keys[_data_key(name, tables)]
                break
        else:
            axis, energy_key = _configured(descriptor, adapter.energy.key)
        for role, names in adapter.signals.items():
            present = _present(names, keys, tables, start)
            if role == "iff":  # elements of a detector are summed, the others alternatives
                columns |= {f"iff#{i}": name for i, name in enumerate(present)}
            elif present:
                columns[role] = present[0]
    scale, problem = EnergyScale("eV"), None
    if "energy" in columns or axis is not None:
        try:
            scale = energy_scale(
                adapter.energy,
                adapter.energy.units.get(columns.get("energy", ""), energy_key.get("units")),
                lambda key: lookup(start, key),
            )
        except ValueError as error:
            problem = str(error)
    return Binding(
        stream=stream,
        columns=columns,
        context=tuple(name for name in (*adapter.context, *adapter.sample) if name in keys),
        truth={name: key for name, key in adapter.truth.items() if key in keys},
        units={name: _unit(keys[name]) for name in adapter.context if name in keys},
        scale=scale,
        axis=axis,
        problem=problem,
        rowwise=axis is not None or (_is_array(energy_key) and not tables),
        tables=tables,
    )


def _data_key(name: str, tables: frozenset[str]) -> str:
    """Data key of a column, which may be one of a table: KEY/COLUMN."""
    key = name.partition("/")[0]
    return key if key in tables else name


def _present(
    names: tuple[str, ...],
    keys: Mapping[str, Any],
    tables: frozenset[str],
    start: Mapping[str, Any],
) -> list[str]:
    """Names of columns that a stream has; of ``@KEY`` those that the metadata list at KEY."""
    present: list[str] = []
    for name in names:
        listed = lookup(start, name[1:]) if name.startswith("@") else None
        if isinstance(listed, (list, tuple)):
            present += [str(one) for one in listed if str(one) in keys]
            if present:
                return present  # the others are what it was before the metadata listed them
        elif _data_key(name, tables) in keys:
            present.append(name)
    return present


def _unit(data_key: Mapping[str, Any]) -> str | None:
    unit = data_key.get("units")
    return None if unit is None else str(unit)


def _is_array(data_key: Mapping[str, Any]) -> bool:
    """Whether a value of this key is an array; some devices write scalars as arrays of one."""
    shape = [n for n in data_key.get("shape") or () if n != 1]
    return bool(shape) or (data_key.get("dtype") == "array" and not data_key.get("shape"))


def _configured(
    descriptor: Mapping[str, Any], names: tuple[str, ...]
) -> tuple[Floats | None, Mapping[str, Any]]:
    """Energy axis from a device's configuration, for detectors that read only intensities."""
    for device in dict(descriptor.get("configuration") or {}).values():
        data = dict(device).get("data") or {}
        for name in names:
            if name in data and np.ndim(data[name]) == 1:
                return np.asarray(data[name], float), (device.get("data_keys") or {}).get(name, {})
    return None, {}
