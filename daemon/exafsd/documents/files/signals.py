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
#: Words in names of groups, sections and columns that say that mu is of the reference foil, or was
#: not measured in transmission; fluorides and fluorite are samples.
REFERENCE = re.compile(r"(?:^|[^a-z])(?:i_?|mu_?)?ref(?:er|erence)?(?:$|[^a-z])", re.IGNORECASE)
YIELD = r"(?:fluo(?!ri|ra|ro)\w*|[tph]?fy|tey|herfd|vortex|xspress\w*|sdd|lytle|pips)"
FLUORESCENCE = re.compile(rf"(?:^|[^a-z])(?:mu_?)?{YIELD}(?:$|[^a-z])", re.IGNORECASE)
#: groups whose name says nothing, inside of one whose name may
GENERIC = {"data", "measurement", "plot", "spectrum", "table", ""}
#: lines of a header that say how mu was measured, and the words that do so in them
MODE = re.compile(r"mode\b|method|detection|spectrum\b|(?:measured|recorded) in\b", re.IGNORECASE)
TRANSMISSION = re.compile(r"transm\w*", re.IGNORECASE)
NEXT_TO_MODE = re.compile(
    rf"({YIELD}|transm\w*)[\s_-]+mode\b|\bmode\W+({YIELD}|transm\w*)", re.IGNORECASE
)
LOGARITHM = re.compile(
    r"^(?=.*(?:\bx?mu\b|\u03bc|absor|hint|signal|column))(?!.*(?:\bref|foil|thick))"
    r".*\b(?:ln|log)\s*\(\s*i",
    re.IGNORECASE | re.MULTILINE,
)
OVER_I0 = re.compile(r"\b(?:iff?|ff)\s*/\s*i0\b", re.IGNORECASE)
#: a detector that a beamline has, or that is not in use; it is no mode
HARDWARE = re.compile(
    r"^(?:\W*detector\w*\.\w+|.*\b(?:not used|not in use|unused|off|out|retracted|disabled)\b).*$",
    re.IGNORECASE | re.MULTILINE,
)
FLUORESCENCE_WORDS = re.compile(rf"\b{YIELD}\b|\bdtc|\b\d+[- ](?:element|pixel)", re.IGNORECASE)
#: columns of elements of a detector, and of emission lines
LINE = re.compile(
    r"(?:[a-z]{1,2}_?[kl][ab]\d?|[kl][ab]\d|if\w*|ff\d?|ge_?\d+|roi\w*|\w+_roi\d*|[sm]ca_?\d\w*"
    r"|canberra|amptek|ketek)$"
)
#: a column behind the sample, whatever the adapter calls it
BEHIND = re.compile(r"(?:i_?(?:t|1|2|trans\w*)|trans\w*)$", re.IGNORECASE)
#: a column beside a signal that has its counts corrected for dead time
CORRECTED = re.compile(r"_(?:dtc|dt_?corr|corr|corrected|deadtime)$")
#: Share of mu's variation by which the detectors' readings may differ from it, when scale, offset
#: and a parabola in energy are free: rounding gives 1e-4, and a dark current of 1 % of I0 0.01.
AGREE = 0.003
#: eV by which two columns of energy may differ: an encoder and where it should have been
SAME = 0.5
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
    _check_alternatives(roles, table, adapter)
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
            # as pandas calls a column whose name there is already
            alike += [other for other in columns if re.fullmatch(re.escape(name) + r"\.\d+", other)]
            if spelt[own] > 1 or len(alike) > 1:
                raise SpectrumError(
                    Reason.AMBIGUOUS_COLUMNS,
                    f"{' and '.join(alike)} may all be {role}: which of them is it? Say so, for"
                    f" example --set adapter.{role}={alike[-1]}",
                )


def _check_alternatives(roles: Mapping[str, list[str]], table: Table, adapter: Adapter) -> None:
    """Refuse a table with another energy or mu by the adapter's names, if it differs."""
    energy = table.columns[roles["energy"][0]]
    for role in ("energy", "mutrans"):
        (own, *_) = roles.get(role, [""])
        keys = {comparable(k) for k in adapter.signals.get(role, adapter.energy.key)}
        for other in table.columns:
            if not own or other == own or comparable(other) not in keys - {"norm"}:
                continue
            one, two = table.columns[own], table.columns[other]
            if one.shape != two.shape or table.units.get(own) != table.units.get(other):
                continue
            away = float(np.nanmedian(np.abs(one - two))) > SAME if role == "energy" else False
            if away or (role == "mutrans" and _differ(energy, one, two)):
                key = "energy.key" if role == "energy" else role
                raise SpectrumError(
                    Reason.AMBIGUOUS_COLUMNS,
                    f"{own} and {other} differ, and may both be {role}: which of them is it? Say"
                    f" so, for example --set adapter.{key}={own}",
                )


def _by_mode(signals: dict[str, Floats], table: Table, mu_name: str) -> dict[str, Floats]:
    """Signals in which a column called mu has the role of how it was measured.

    Of a group or section of the reference, i0 and it are before and behind the foil.
    """
    if _is_called(REFERENCE, table):
        renamed = {"mutrans": "murefer", "i0": "it", "it": "ir"}
        return {renamed[role]: counts for role, counts in signals.items() if role in renamed}
    plain = "mutrans" in signals and "trans" not in mu_name.lower()
    if plain and "mufluor" not in signals and _fluorescence(table, signals):
        signals["mufluor"] = signals.pop("mutrans")
    return signals


def _is_called(word: re.Pattern[str], table: Table) -> bool:
    """Whether the name of the innermost group has a word, or a group around it is just that."""
    parts = [part.strip() for part in re.split(r"[/\\]", table.name)]
    named = [part for part in parts if part.lower() not in GENERIC]
    if "transmission" in (part.lower() for part in named[-1:]):
        return False
    around = (re.sub(r"[\W\d_]+$", "", part) for part in named)
    return any(map(word.search, named[-1:])) or any(map(word.fullmatch, around))


def _fluorescence(table: Table, signals: Mapping[str, Floats]) -> bool:
    """Whether mu of a table was measured in fluorescence, by all that is said of it.

    Where that is not clear, it was: then N is a lower limit.
    """
    remarks = HARDWARE.sub("", table.remarks)
    mode = _mode_of(remarks)
    if _is_called(FLUORESCENCE, table) or mode == "fluorescence":
        return True
    if mode == "transmission" or "it" in signals:
        return False
    if "iff" in signals or OVER_I0.search(remarks):
        return True
    if LOGARITHM.search(table.remarks):
        return False
    if FLUORESCENCE_WORDS.search(remarks):
        return True
    names = [comparable(name) for name in table.columns]
    mode = _mode_of(table.shared_remarks)
    if mode or any(map(BEHIND.match, names)):
        return mode == "fluorescence"
    return any(FLUORESCENCE.search(name) or LINE.match(name) for name in names)


def _mode_of(remarks: str) -> str:
    """Mode that lines say; fluorescence where they say both."""
    modes = {_mode(line) for line in remarks.splitlines() if MODE.search(line)}
    return next((mode for mode in ("fluorescence", "transmission") if mode in modes), "")


def _mode(line: str) -> str:
    """What a line says of the mode: transmission, fluorescence, or nothing."""
    if FLUORESCENCE.search(line) and TRANSMISSION.search(line):
        words = NEXT_TO_MODE.search(line)
        line = words[1] or words[2] if words else ""
    if TRANSMISSION.search(line):
        return "transmission"
    return "fluorescence" if FLUORESCENCE.search(line) else ""


def ready_made_flags(energy: Floats, signals: Mapping[str, Floats]) -> tuple[Flag, ...]:
    """Flag of a sweep whose mu is not that of its detectors' readings, as with dark currents.

    `energy` and the signals are (n,); no flag where there is nothing to compare.
    """
    pairs: list[tuple[Floats, Floats]] = []
    with np.errstate(all="ignore"):
        if {"i0", "it", "mutrans"} <= signals.keys():
            pairs.append((np.log(signals["i0"] / signals["it"]), signals["mutrans"]))
        if {"i0", "iff", "mufluor"} <= signals.keys():
            pairs.append((signals["iff"] / signals["i0"], signals["mufluor"]))
    differ = any(_differ(energy, readings, mu) for readings, mu in pairs)
    return (Flag.COLUMNS_DISAGREE,) if differ else ()


def _differ(energy: Floats, readings: Floats, mu: Floats) -> bool:
    """Whether two spectra (n,) differ, beside scale and background, by more than `AGREE`.

    What differs from point to point, as by rounding, is not counted.
    """
    if not energy.shape == mu.shape == readings.shape:
        return False
    good = np.isfinite(energy) & np.isfinite(mu) & np.isfinite(readings)
    if good.sum() < ENOUGH or not (np.ptp(energy[good]) > 0 and np.ptp(mu[good]) > 0):
        return False
    x = (energy[good] - energy[good].min()) / np.ptp(energy[good])
    smooth = np.vander(x, 3)
    solve = np.linalg.pinv(smooth)
    own, other = (y[good] - smooth @ (solve @ y[good]) for y in (mu, readings))
    scale = float(own @ other / max(own @ own, np.finfo(float).tiny))
    rest = other - scale * own
    return scale <= 0 or bool(rest[1:] @ rest[:-1] > AGREE**2 * (other @ other))


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
