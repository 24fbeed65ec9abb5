"""Which data keys of a stream are energy, signals, context and truth, by the run's adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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
        return frozenset((*self.columns.values(), *self.context, *self.truth.values()))


def bind(adapter: Adapter, descriptor: Mapping[str, Any], start: Mapping[str, Any]) -> Binding:
    """Bind a stream by its descriptor; what is wrong with its energy goes into `problem`."""
    keys: Mapping[str, Any] = descriptor["data_keys"]
    stream = str(descriptor.get("name") or "primary")
    columns: dict[str, str] = {}
    axis = None
    energy_key: Mapping[str, Any] = {}
    if stream != BASELINE:
        for name in adapter.energy.key:
            if name in keys:
                columns["energy"], energy_key = name, keys[name]
                break
        else:
            axis, energy_key = _configured(descriptor, adapter.energy.key)
        for role, names in adapter.signals.items():
            present = [name for name in names if name in keys]
            if role == "iff":  # elements of a detector are summed, the others alternatives
                columns |= {f"iff#{i}": name for i, name in enumerate(present)}
            elif present:
                columns[role] = present[0]
    scale, problem = EnergyScale("eV"), None
    if "energy" in columns or axis is not None:
        try:
            scale = energy_scale(
                adapter.energy, energy_key.get("units"), lambda key: lookup(start, key)
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
        rowwise=axis is not None or _is_array(energy_key),
    )


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
