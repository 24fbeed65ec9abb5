"""Dark readings and gains of a run: what makes counts of a detector's readings."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from exafsd.contract.vocabulary import Reason
from exafsd.settings.analysis import Adapter
from exafsd.spectra import Floats, SpectrumError

#: before the key of a gain's exponent
EXPONENT = "10**"
#: a metadata key, which may hold an exponent and have a number for where it is missing
EXPRESSION = re.compile(r"(?:10\*\*)?(?P<key>[^|]+)(?:\|(?P<default>[-+.\deE]+))?")


@dataclass(frozen=True)
class Corrections:
    """What makes counts of readings: signal name to dark reading, and to gain."""

    dark: Mapping[str, float]
    gain: Mapping[str, float]

    def counts(self, signal: str, reading: Floats) -> Floats:
        """Counts (reading - dark) / gain of a signal, of any shape; ``iff`` is each element."""
        if signal in self.dark:
            reading = reading - self.dark[signal]
        if signal in self.gain:
            reading = reading / self.gain[signal]
        return reading


def corrections(adapter: Adapter, find: Callable[[str], Any]) -> Corrections:
    """Dark readings and gains of one run; `find` gives the metadata at a key, or None.

    Raises
    ------
    SpectrumError
        ``bad_settings``, where metadata has no such number, or a gain is zero.
    """
    dark = {name: _correction("dark", name, v, find) for name, v in adapter.dark.items()}
    gain = {name: _correction("gain", name, v, find) for name, v in adapter.gain.items()}
    return Corrections(dark, gain)


def _correction(kind: str, name: str, setting: float | str, find: Callable[[str], Any]) -> float:
    value: Any = setting
    number = math.nan
    if isinstance(setting, str):
        words = EXPRESSION.fullmatch(setting)
        value = find(setting)
        if value is None and words is not None:
            value = find(words["key"])
            value = words["default"] if value is None else value
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)  # type: ignore[arg-type]  # what is no number is told below
        if isinstance(setting, str) and setting.startswith(EXPONENT):
            number = 10.0**number
    if not math.isfinite(number) or (kind == "gain" and number == 0):
        raise SpectrumError(
            Reason.BAD_SETTINGS,
            f"adapter.{kind}.{name} = {setting!r} gives {value!r}, which is not a"
            f" {'gain' if kind == 'gain' else 'reading'}; name a number, or a key of the"
            " run's metadata that has one",
        )
    return number
