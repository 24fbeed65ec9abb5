"""S0² from the results of a foil, whose coordination number is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from exafsd.contract.card import Card
from exafsd.contract.messages import Rejected, Result
from exafsd.contract.vocabulary import Flag

#: S0² is 0.7 to 1.05 in theory and experiment; the rest is room for errors of FEFF's amplitude.
#: Beyond it the foil has holes, is too thick, or is not what it is taken for.
LIKELY = (0.5, 1.2)
#: share of the foil's spectra that must be believed: the model was made for just this
ACCEPTED = 0.8
#: relative std between spectra beyond which they are not of one foil, or mostly noise
SCATTER = 0.1


class CalibrationError(ValueError):
    """A foil that gives no S0²; the text says why, and what to do."""


@dataclass(frozen=True)
class Measured:
    """S0² of a foil, and what it rests on; std are of S0².

    `scatter` is between spectra and `noise` what it makes of the mean, None for a single one;
    `model_std` is the model's own of one spectrum.
    """

    card: Card
    degeneracy: float
    value: float
    model_std: float
    scatter: float | None
    spectra: int
    withheld: int

    @property
    def noise(self) -> float | None:
        """Standard deviation of the mean that follows from the scatter."""
        return None if self.scatter is None else self.scatter / self.spectra**0.5

    @property
    def std(self) -> float:
        """Of the mean and of what all spectra have in common.

        The model's own std counts in full: it is mostly FEFF's error, which no averaging makes
        smaller.
        """
        return (self.model_std**2 + (self.noise or 0.0) ** 2) ** 0.5


def measure(
    messages: Sequence[Result | Rejected], cards: Mapping[str, Card], needed: int
) -> Measured:
    """S0² from the outcomes of a foil's spectra, all of one channel and edge.

    Parameters
    ----------
    messages
        At least one.
    cards
        Of the models, by name.
    needed
        Spectra that must be believed.

    Raises
    ------
    CalibrationError
        If they do not give it.
    """
    believed = [
        m for m in messages
        if isinstance(m, Result) and m.shells is not None and m.trust.state != "flagged"
    ]  # fmt: skip
    withheld = len(messages) - len(believed)
    if len(believed) < ACCEPTED * len(messages):
        raise CalibrationError(
            f"{withheld} of {len(messages)} spectra are withheld or flagged, mostly because:"
            f" {_commonest(messages)}"
        )
    if len(believed) < needed:
        raise CalibrationError(f"{len(believed)} spectra are too few, {needed} are needed")
    card = _card(believed, cards)
    degeneracy, values, stds = _amplitudes(believed)
    value = fmean(values)
    scatter = stdev(values) if len(values) > 1 else None
    if scatter is not None and scatter > SCATTER * value:
        raise CalibrationError(
            f"S0² scatters by {scatter / value:.0%} between spectra, more than {SCATTER:.0%}:"
            " too much noise, or not the same foil all the time"
        )
    if not LIKELY[0] <= value <= LIKELY[1]:
        raise CalibrationError(
            f"S0² would be {value:.3f}, which is not between {LIKELY[0]} and {LIKELY[1]}: is the"
            f" foil thin, without holes, and what {card.name} was made for (N = {degeneracy:g})?"
        )
    return Measured(card, degeneracy, value, median(stds), scatter, len(values), withheld)


def _commonest(messages: Sequence[Result | Rejected]) -> str:
    reasons = Counter(_reason(message) for message in messages)
    return next(reason for reason, _ in reasons.most_common() if reason)


def _reason(message: Result | Rejected) -> str:
    """Why a spectrum is not believed; empty where it is."""
    if isinstance(message, Rejected):
        return message.detail
    return message.trust.reason or "; ".join(message.trust.doubts)


def _card(believed: Sequence[Result], cards: Mapping[str, Card]) -> Card:
    """Card of the one model that has read all."""
    names = {m.model.name for m in believed if m.model is not None}
    if len(names) > 1:
        raise CalibrationError(
            f"{', '.join(sorted(names))} each fit some of the spectra: choose one by --model"
        )
    card = cards[names.pop()]
    if len(card.structures) > 1:
        raise CalibrationError(f"{card.name} is for mixtures: choose a foil's model by --model")
    if any(Flag.FLUORESCENCE_AMPLITUDE in m.quality for m in believed):
        raise CalibrationError(
            "fluorescence of a foil is over-absorbed: measure it in transmission, or measure a"
            " dilute standard and say so (inference.fluorescence)"
        )
    return card


def _amplitudes(believed: Sequence[Result]) -> tuple[float, list[float], list[float]]:
    """N of the first shell, and S0² and its std by each spectrum."""
    first = [m.shells[0] for m in believed if m.shells]
    n = first[0].degeneracy
    amplitudes = [(shell.n_s02.value, shell.n_s02.std) for shell in first]
    pairs = [(v / n, std / n) for v, std in amplitudes if v is not None and std is not None]
    if len(pairs) < len(first):
        raise CalibrationError("the model gives N S0² without a standard deviation")
    return n, [value for value, _ in pairs], [std for _, std in pairs]
