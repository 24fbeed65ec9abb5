"""Energies that the encoder of an oscillating monochromator reads, with known turning points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exafsd.spectra import Floats


@dataclass(frozen=True)
class Motion:
    """How a monochromator oscillates, and how well it is read."""

    #: sine and triangle go both ways, sawtooth flies back
    shape: Literal["sine", "triangle", "sawtooth"] = "sine"
    #: turning points, eV
    low: float = 8800.0
    high: float = 9800.0
    #: readings of a leg
    points: int = 1000
    #: standard deviation of a reading, eV
    noise: float = 0.0
    #: eV that the drive moves after a turn before the crystal follows
    backlash: float = 0.0
    #: share of a leg for which it rests at a turn
    dwell: float = 0.0
    #: standard deviation of the relative change of a leg's duration to the next; it stays within
    #: half and twice of `points`
    drift: float = 0.0
    #: standard deviation of a turning point, relative to the span
    wobble: float = 0.0
    #: share of the first leg that is over when the run begins
    phase: float = 0.0
    #: readings taken during a fly-back
    flyback: int = 0


@dataclass(frozen=True)
class Reading:
    """Energies read and true, (n,) in eV; turns (m, 2): first and last point at rest there.

    The summit of a sine or triangle has one point; a fly-back goes from the last point before it
    to the first after it.
    """

    energy: Floats
    truth: Floats
    turns: NDArray[np.int_]

    def windows(self, tolerance: float) -> NDArray[np.int_]:
        """First and last good cut of every turn, (m, 2), as numbers of points before the cut.

        A cut is good where the points about the turn that it gives to the wrong leg are truly
        within `tolerance` eV of the turning point.
        """
        ranges = []
        for first, last in self.turns:
            before = np.abs(self.truth[: first + 1][::-1] - self.truth[first]) <= tolerance
            after = np.abs(self.truth[last:] - self.truth[last]) <= tolerance
            ranges.append((first - _leading(before) + 1, last + _leading(after)))
        return np.array(ranges, dtype=int).reshape(-1, 2)


def read(motion: Motion, legs: int, seed: int = 0) -> Reading:
    """Readings of so many legs; there are ``legs - 1`` turns."""
    rng = np.random.default_rng(seed)
    span = motion.high - motion.low
    ends = np.where(np.arange(legs + 1) % 2 == 0, motion.low, motion.high)
    sawtooth = motion.shape == "sawtooth"
    if sawtooth:
        ends = np.full(legs + 1, motion.high)
    ends = ends + span * motion.wobble * rng.normal(size=legs + 1)
    pace = np.cumsum(motion.drift * rng.normal(size=legs))
    lengths = (motion.points * np.exp(np.clip(pace, -np.log(2), np.log(2)))).astype(int)
    rest = round(motion.dwell * motion.points)
    parts: list[Floats] = []
    turns: list[tuple[int, int]] = []
    crystal, at = ends[0], 0
    for leg in range(legs):
        begin = motion.low if sawtooth else ends[leg]
        skip = int(motion.phase * lengths[0]) if leg == 0 else 0
        share = np.arange(skip, lengths[leg]) / (lengths[leg] - 1)
        if motion.shape == "sine":
            share = (1 - np.cos(np.pi * share)) / 2
        moved = begin + (ends[leg + 1] - begin) * share
        moved = np.append(moved, np.full(rest, moved[-1]))
        if leg > 0 and not sawtooth:
            # the crystal has play: it is pushed up from one side, down from the other
            rising = ends[leg + 1] > begin
            moved = (
                np.maximum(crystal, moved - motion.backlash)
                if rising
                else np.minimum(crystal, moved)
            )
        crystal = moved[-1]
        at += len(moved)
        last = at - 1
        if sawtooth and leg + 1 < legs:
            back = np.arange(1, motion.flyback + 1) / (motion.flyback + 1)
            moved = np.append(moved, crystal + (motion.low - crystal) * back)
            last += motion.flyback + 1
        turns.append((at - 1 - rest, last))
        at = max(at, last)
        parts.append(moved)
    truth = np.concatenate(parts)
    energy = truth + motion.noise * rng.normal(size=len(truth))
    return Reading(energy, truth, np.array(turns[:-1], dtype=int).reshape(-1, 2))


def score(
    cuts: Sequence[int] | NDArray[np.int_], reading: Reading, tolerance: float
) -> tuple[int, int]:
    """Turns found, and cuts where no turn is or that come twice.

    Parameters
    ----------
    cuts
        Numbers of points before each cut, ascending.
    reading
        What was cut.
    tolerance
        eV by which a cut may be off the turning point in true energy.
    """
    windows = reading.windows(tolerance)
    nearest = np.searchsorted(windows[:, 1], cuts)
    matched = {
        i for i, cut in zip(nearest, cuts, strict=True) if i < len(windows) and windows[i, 0] <= cut
    }
    return len(matched), len(cuts) - len(matched)


def _leading(good: NDArray[np.bool_]) -> int:
    """How many are true from the first on."""
    return len(good) if good.all() else int(np.argmin(good))
