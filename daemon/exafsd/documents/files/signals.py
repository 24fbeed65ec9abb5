"""From the named columns of a table to its energy and signals."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from exafsd.contract.vocabulary import Flag, Reason
from exafsd.documents.corrections import Corrections, corrections
from exafsd.documents.energy import energy_scale
from exafsd.documents.files.table import Contents, Table, columns_by_role, comparable
from exafsd.settings.analysis import PRESETS, Adapter
from exafsd.spectra import Floats, SpectrumError

#: labels of columns without a name
UNNAMED = re.compile(r"^col_?\d+$")
#: groups and sections whose mu is that of the reference foil, or was measured in fluorescence
REFERENCE = re.compile(r"(?:i_?|mu_?)?ref(?:er|erence)?s?(?:$|[^a-z])", re.IGNORECASE)
FLUORESCENCE = re.compile(r"(?:mu_?)?(?:fluo|[tph]?fy(?:$|[^a-z])|herfd)", re.IGNORECASE)
#: what a header says of how mu was measured
MODE = re.compile(r"\b(?:scan_?)?mode\b\W*(\w+)", re.IGNORECASE)
NUMERATOR = re.compile(r"\bnumerator\b\W*(\w+)", re.IGNORECASE)
TRANSMISSION_WORDS = re.compile(r"transmission", re.IGNORECASE)
FLUORESCENCE_WORDS = re.compile(
    r"fluor|\b(?:dtc|vortex|xspress|sdd|lytle|pips|mca|hpge)|\d+[- ]element", re.IGNORECASE
)
#: a column beside a signal that has its counts corrected for dead time
CORRECTED = re.compile(r"_(?:dtc|dt_?corr|corr|corrected|deadtime)$")
#: Share of mu's variation by which the detectors' readings may differ from it, when scale, offset
#: and a parabola in energy are free: rounding gives 1e-4, and a dark current of 1 % of I0 0.01.
AGREE = 0.003
#: points that a comparison needs
ENOUGH = 20


def read_signals(
    table: Table, contents: Contents, adapter: Adapter
) -> tuple[Floats, dict[str, Floats]]:
    """Energy in eV and signals by role; two columns without names are energy and mu.

    Raises
    ------
    SpectrumError
        ``missing_column``, ``ambiguous_columns``, ``energy_unit`` or ``shape_mismatch``.
    """
    columns, units = table.columns, table.units
    roles = columns_by_role(columns, adapter)
    if "energy" not in roles and len(columns) == 2 and all(map(UNNAMED.match, columns)):
        energy_name, mu_name = columns
        roles = {"energy": [energy_name], "mutrans": [mu_name]}
    angle = next((name for name in columns if name.lower() == "angle"), None)
    if "energy" not in roles and angle and contents.d_spacing is not None:  # as XDI allows
        roles["energy"] = [angle]
        units = {angle: "deg", **units}
    if "energy" not in roles or len(roles) < 2:
        raise _no_spectrum(list(columns), "energy" in roles)
    _check_names(roles, list(columns))
    find = partial(_lookup, contents.metadata)
    (name,) = roles.pop("energy")
    unit = adapter.energy.units.get(name, units.get(name))
    try:
        scale = energy_scale(adapter.energy, unit, find, contents.d_spacing)
    except ValueError as error:
        raise SpectrumError(Reason.ENERGY_UNIT, str(error)) from None
    counts = corrections(adapter, find)
    signals = {
        role: _counts(role, [columns[name] for name in names], counts)
        for role, names in roles.items()
    }
    return scale(columns[name]), _by_mode(signals, table, roles.get("mutrans", [""])[0])


def _check_names(roles: Mapping[str, list[str]], columns: list[str]) -> None:
    """Refuse names of which another column might be meant as well."""
    spelt = Counter(map(comparable, columns))
    elements = {comparable(name) for name in roles.get("iff", ())}
    spellings = elements & {comparable(name) for name in PRESETS["generic"]["iff"]}
    for role, names in roles.items():
        for name in names:
            own = comparable(name)
            alike = [other for other in columns if comparable(other) == own]
            if role == "iff" and own in spellings and len(spellings) > 1:
                alike = list(roles["iff"])  # the same signal twice, and no two elements
            alike += [
                other
                for other in columns
                if CORRECTED.sub("", comparable(other)) == own != comparable(other)
            ]
            if spelt[own] > 1 or len(alike) > 1:
                raise SpectrumError(
                    Reason.AMBIGUOUS_COLUMNS,
                    f"{' and '.join(alike)} may all be {role}: which of them is it? Say so, for"
                    f" example --set adapter.{role}={alike[-1]}",
                )


def _by_mode(signals: dict[str, Floats], table: Table, mu_name: str) -> dict[str, Floats]:
    """Signals in which a column called mu has the role of how it was measured.

    Of a group or section of the reference, i0 and it are before and behind the foil.
    """
    place = re.split(r"[/\\]", table.name)[-1].strip()
    if REFERENCE.match(place):
        renamed = {"mutrans": "murefer", "i0": "it", "it": "ir"}
        return {renamed[role]: counts for role, counts in signals.items() if role in renamed}
    plain = "mutrans" in signals and "trans" not in mu_name.lower()
    if plain and "mufluor" not in signals and _fluorescence(table, place, signals):
        signals["mufluor"] = signals.pop("mutrans")
    return signals


def _fluorescence(table: Table, place: str, signals: Mapping[str, Floats]) -> bool:
    """Whether mu of a table was measured in fluorescence, by all that is said of it."""
    mode = MODE.search(table.remarks)
    if FLUORESCENCE.match(place) or (mode and "fluo" in mode[1].lower()):
        return True
    if (mode and "trans" in mode[1].lower()) or "it" in signals:
        return False
    numerator = NUMERATOR.search(table.remarks)
    if "iff" in signals or (numerator and FLUORESCENCE_WORDS.match(numerator[1])):
        return True
    return bool(
        FLUORESCENCE_WORDS.search(table.remarks) and not TRANSMISSION_WORDS.search(table.remarks)
    )


def ready_made_flags(energy: Floats, signals: Mapping[str, Floats]) -> tuple[Flag, ...]:
    """Flag of a sweep whose mu is not that of its detectors' readings, as with dark currents.

    `energy` and the signals are (n,); no flag where there is nothing to compare.
    """
    with np.errstate(all="ignore"):
        if {"i0", "it", "mutrans"} <= signals.keys():
            readings, mu = np.log(signals["i0"] / signals["it"]), signals["mutrans"]
        elif {"i0", "iff", "mufluor"} <= signals.keys():
            readings, mu = signals["iff"] / signals["i0"], signals["mufluor"]
        else:
            return ()
    if not energy.shape == mu.shape == readings.shape:
        return ()
    good = np.isfinite(energy) & np.isfinite(mu) & np.isfinite(readings)
    if good.sum() < ENOUGH or not (np.ptp(energy[good]) > 0 and np.ptp(mu[good]) > 0):
        return ()
    x = (energy[good] - energy[good].min()) / np.ptp(energy[good])
    smooth = np.stack([np.ones_like(x), x, x**2], axis=1)
    solve = np.linalg.pinv(smooth)
    own, other = (y[good] - smooth @ (solve @ y[good]) for y in (mu, readings))
    scale = float(own @ other / max(own @ own, np.finfo(float).tiny))
    differs = np.linalg.norm(other - scale * own) > AGREE * np.linalg.norm(other)
    return (Flag.COLUMNS_DISAGREE,) if differs or scale <= 0 else ()


def _counts(role: str, readings: list[Floats], corrections: Corrections) -> Floats:
    """Counts of a signal; the elements of a fluorescence detector are summed."""
    if len({reading.shape for reading in readings}) > 1:
        raise SpectrumError(Reason.SHAPE_MISMATCH, "fluorescence elements differ in length")
    counts = [corrections.counts(role, reading) for reading in readings]
    return counts[0] if len(counts) == 1 else np.sum(counts, axis=0)


def _no_spectrum(names: list[str], has_energy: bool) -> SpectrumError:
    lower = {name.lower() for name in names}
    if any(re.match(r"k(_|$)", name) for name in lower) and any("chi" in name for name in lower):
        return SpectrumError(
            Reason.MISSING_COLUMN,
            f"it has the columns {', '.join(names)}: chi(k), which is reduced already. exafsd reads"
            " mu(E) or the detectors' readings, and reduces them itself",
        )
    return SpectrumError(
        Reason.MISSING_COLUMN,
        f"it has the columns {', '.join(names) or '(none)'}; none of them is"
        f" {'a signal' if has_energy else 'energy'} by the adapter. Name them under [adapter] in a"
        " settings file and give it with --config",
    )


def _lookup(metadata: Mapping[str, Any], key: str) -> Any:
    """Item of a file's metadata: ``detector.i0_dark`` or ``XDI.Detector.i0_dark`` in XDI."""
    value: Any = {name.lower(): item for name, item in metadata.items()}
    if key.lower() in value:
        return value[key.lower()]
    for part in key.lower().removeprefix("xdi.").split("."):
        if not isinstance(value, Mapping):
            return None
        value = {str(name).lower(): item for name, item in value.items()}.get(part)
    return value
