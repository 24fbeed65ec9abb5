"""N from N·S0²: only where S0² is known and the amplitude of chi(k) is the sample's own."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import BaseModel

from exafsd.contract.card import Card
from exafsd.contract.messages import Calibrated, Channel, Shell, Value
from exafsd.contract.recipe import Recipe
from exafsd.contract.s02 import S02
from exafsd.contract.vocabulary import Flag
from exafsd.settings.analysis import Inference, Rebin

#: S0² carried over to another structure, geometry or reduction is off by some 5 %: FEFF's
#: amplitudes, the atomic background and rebinning each differ by a few per cent. Of S0² itself
#: and of its unit, so that N is never claimed to better than 5 %.
TRANSFER = 0.05
#: declarations by which the amplitude in fluorescence is the sample's own
SOUND = ("dilute", "corrected")


@dataclass(frozen=True)
class Amplitude:
    """Shells with N where it may be given, and why it may not."""

    shells: list[Shell] | None
    s02: Calibrated | None
    #: why N is not given
    reason: str | None
    quality: tuple[Flag, ...] = ()


#: of a spectrum without shells
UNREAD = Amplitude(None, None, None)


def with_numbers(
    shells: Sequence[Shell], card: Card, channel: Channel, settings: Inference, recipe_hash: str
) -> Amplitude:
    """Shells with their coordination numbers.

    Parameters
    ----------
    shells
        As read from a spectrum, with ``n_s02``.
    card
        Of the model that read it.
    channel
        Geometry of the spectrum.
    settings
        Hold S0² and how the sample was declared.
    recipe_hash
        `recipe_sha256` of the spectrum's reduction.
    """
    quality = () if _sound(channel, settings) else (Flag.FLUORESCENCE_AMPLITUDE,)
    calibration = settings.s02.get(f"{card.absorber}-{card.edge}")
    if len(card.structures) > 1:
        calibration = None  # N is fixed by the structures, the amplitude is that of their fractions
    s02 = None if calibration is None else _carried(calibration, card, channel, recipe_hash)
    reason = _why_not(card, channel, settings, s02)
    if s02 is None or reason is not None:
        return Amplitude(list(shells), s02, reason, quality)
    numbered = [replace(shell, n=divide(shell.n_s02, s02)) for shell in shells]
    return Amplitude(numbered, s02, None, quality)


def divide(n_s02: Value, s02: Value) -> Value:
    """N with its std: errors of N·S0² and of S0² are independent, to first order."""
    if n_s02.value is None or s02.value is None:
        return Value(None, None)
    n = n_s02.value / s02.value
    if n_s02.std is None or s02.std is None:
        return Value(n, None)
    return Value(n, ((n_s02.std**2 + (n * s02.std) ** 2) ** 0.5) / s02.value)


def _carried(calibration: S02, card: Card, channel: Channel, recipe_hash: str) -> Calibrated:
    """S0² as it holds for a spectrum: less surely, unless it was read from a foil just so."""
    foil, std = calibration.foil, calibration.std
    own = foil is not None and (foil.model_sha256, foil.channel, foil.recipe_sha256) == (
        card.model_sha256,
        channel,
        recipe_hash,
    )
    if not own:
        std = (std**2 + (TRANSFER * max(1.0, calibration.value)) ** 2) ** 0.5
    return Calibrated(value=calibration.value, std=std, source=calibration.source)


def _sound(channel: Channel, settings: Inference) -> bool:
    return channel != "fluorescence" or settings.fluorescence in SOUND


def _why_not(
    card: Card, channel: Channel, settings: Inference, s02: Calibrated | None
) -> str | None:
    if len(card.structures) > 1:
        return "the model holds several phases: their structures fix N, the fractions are free"
    if not _sound(channel, settings):
        thickness = (
            "as thick" if settings.fluorescence == "thick" else "neither as dilute nor corrected"
        )
        return (
            f"in fluorescence over-absorption shrinks the amplitude, and the sample is declared"
            f" {thickness} (inference.fluorescence, or the run's own)"
        )
    if s02 is None:
        edge = f"{card.absorber}-{card.edge}"
        return f"S0² of {edge} is not known: measure a foil (exafsd calibrate-s02)"
    return None


def recipe_sha256(recipe: Recipe, rebin: Rebin) -> str:
    """Hash of what the reduction does to the amplitude of chi(k)."""
    return _sha256((recipe, rebin))


@lru_cache(maxsize=256)
def _sha256(parts: tuple[BaseModel, ...]) -> str:
    text = json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
