"""Which data keys of a stream are energy, signals, context and truth, by the run's adapter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats

#: h c in eV angstrom (CODATA 2018, exact since the 2019 SI).
HC = 12398.419843320026
#: spellings of units in descriptors
UNITS = {
    "ev": "eV",
    "kev": "keV",
    "deg": "deg",
    "degree": "deg",
    "degrees": "deg",
    "mdeg": "mdeg",
    "rad": "rad",
    "counts": "pulses",
    "pulses": "pulses",
}
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
class EnergyScale:
    """From a monochromator reading to eV."""

    unit: str
    d_spacing: float = math.nan
    angle_offset: float = 0.0
    pulses_per_degree: float = 1.0

    def __call__(self, reading: Floats) -> Floats:
        """Energy in eV of readings of any shape."""
        if self.unit == "eV":
            return reading
        if self.unit == "keV":
            return reading * 1e3
        degrees = {
            "deg": 1.0,
            "mdeg": 1e-3,
            "rad": np.degrees(1.0),
            "pulses": 1.0 / self.pulses_per_degree,
        }[self.unit]
        theta = np.radians(reading * degrees - self.angle_offset)
        with np.errstate(divide="ignore"):
            return HC / (2 * self.d_spacing * np.abs(np.sin(theta)))  # Bragg


def energy_scale(
    adapter: Adapter, data_key: Mapping[str, Any], start: Mapping[str, Any]
) -> EnergyScale:
    """Energy scale of a run.

    Raises
    ------
    ValueError
        If the unit is unknown, or an angle has no d-spacing or offset in the metadata.
    """
    column = adapter.energy
    unit = column.unit
    if unit is None:
        told = str(data_key.get("units") or "eV")
        unit = UNITS.get(told.lower())
        if unit is None:
            raise ValueError(
                f"the energy column has the unit {told!r}, which is not one of"
                f" {sorted(set(UNITS.values()))}; set adapter.energy.unit"
            )
    if unit in ("eV", "keV"):
        return EnergyScale(unit)
    return EnergyScale(
        unit,
        d_spacing=_number(column.d_spacing, start, "d_spacing"),
        angle_offset=_number(column.angle_offset, start, "angle_offset"),
        pulses_per_degree=column.pulses_per_degree,
    )


def _number(setting: float | str | None, start: Mapping[str, Any], name: str) -> float:
    value = lookup(start, setting) if isinstance(setting, str) else setting
    try:
        return float(value)  # type: ignore[arg-type]  # None is answered below
    except (TypeError, ValueError):
        raise ValueError(
            f"the energy is an angle, but adapter.energy.{name} = {setting!r} gives no number"
            " in the run's metadata"
        ) from None


@dataclass(frozen=True)
class Binding:
    """What one stream contributes. Keys of `columns`: ``energy``, signals, ``iff#1``, ..."""

    stream: str
    columns: Mapping[str, str]
    context: tuple[str, ...]
    truth: Mapping[str, str]
    units: Mapping[str, str | None]
    scale: EnergyScale = EnergyScale("eV")
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
            scale = energy_scale(adapter, energy_key, start)
        except ValueError as error:
            problem = str(error)
    return Binding(
        stream=stream,
        columns=columns,
        context=tuple(name for name in adapter.context if name in keys),
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
