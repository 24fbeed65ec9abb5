"""From a monochromator's reading to eV, in documents and files alike."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from exafsd.settings.analysis import EnergyColumn, EnergyUnit
from exafsd.spectra import Floats

#: h c in eV angstrom (CODATA 2018, exact since the 2019 SI).
HC = 12398.419843320026
#: what a unit of angle is in degrees
DEGREES = {"deg": 1.0, "mdeg": 1e-3, "rad": math.degrees(1.0)}
#: Spellings of units, as UDUNITS and beamlines have them, without case, spaces, brackets and the
#: plural. MeV is not among them: in lower case it would be meV as well.
SPELLINGS: dict[str, EnergyUnit] = {
    "ev": "eV", "electronvolt": "eV",
    "kev": "keV", "kiloelectronvolt": "keV",
    "deg": "deg", "degree": "deg", "°": "deg", "º": "deg", "arcdeg": "deg", "arcdegree": "deg",
    "angulardegree": "deg", "degreeangle": "deg",
    "mdeg": "mdeg", "millidegree": "mdeg", "millideg": "mdeg",
    "rad": "rad", "radian": "rad",
    "pulse": "pulses", "count": "pulses", "ct": "pulses",
}  # fmt: skip


def unit_of(text: str) -> EnergyUnit | None:
    """Unit that a text spells; None where it is none."""
    return SPELLINGS.get(re.sub(r"[\s_()\[\]{}.,/-]", "", text).lower().removesuffix("s"))


@dataclass(frozen=True)
class EnergyScale:
    """From a monochromator reading to eV."""

    unit: str
    d_spacing: float = math.nan
    angle_offset: float = 0.0
    pulses_per_degree: float = 1.0

    def __call__(self, reading: Floats) -> Floats:
        """Energy in eV of readings of any shape.

        An encoder may count downwards: the offset is taken off the absolute value of its angle.
        """
        if self.unit == "eV":
            return reading
        if self.unit == "keV":
            return reading * 1e3
        degrees = DEGREES.get(self.unit, 1.0 / self.pulses_per_degree)
        theta = np.radians(np.abs(reading) * degrees - self.angle_offset)
        with np.errstate(divide="ignore"):
            return HC / (2 * self.d_spacing * np.abs(np.sin(theta)))  # Bragg


def energy_scale(
    column: EnergyColumn, units: Any, find: Callable[[str], Any], d_spacing: Any = None
) -> EnergyScale:
    """Energy scale of a run or a file.

    Parameters
    ----------
    column
        The adapter's; what it says goes before what the data say.
    units
        Unit that comes with the data, as it is spelt there; without one it is eV.
    find
        Gives the metadata at a key, or None.
    d_spacing
        Of the monochromator crystal, angstrom, where the data have it.

    Raises
    ------
    ValueError
        If the unit is unknown, or an angle has no d-spacing or offset.
    """
    unit = column.unit
    if unit is None:
        spelt = str(units or "").strip() or "eV"
        unit = unit_of(spelt)
        if unit is None:
            raise ValueError(
                f"the energy column has the unit {spelt!r}, which is not one of"
                f" {sorted(get_args(EnergyUnit))}; set adapter.energy.unit"
            )
    if unit in ("eV", "keV"):
        return EnergyScale(unit)
    crystal = d_spacing if column.d_spacing is None else column.d_spacing
    return EnergyScale(
        unit,
        d_spacing=_number(crystal, find, "d_spacing"),
        angle_offset=_number(column.angle_offset, find, "angle_offset"),
        pulses_per_degree=_number(column.pulses_per_degree, find, "pulses_per_degree"),
    )


def _number(setting: Any, find: Callable[[str], Any], name: str) -> float:
    value = find(setting) if isinstance(setting, str) else setting
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"the energy is an angle, but adapter.energy.{name} = {setting!r} gives no number in"
            " the metadata"
        )
    return number
