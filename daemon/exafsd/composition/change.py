"""Whether a sample changes, from its near edges alone: sweep by sweep, of any element.

The means of 1, 2, 4, ... spectra are compared with the means of as many before them, after what
tells nothing of a sample: energy shift, edge step, slopes, over-absorption. A difference is
unusual by the measure of those before it at the same length, whatever the noise is like: white or
not, independent or not, on a drift that is even. So the rate of false alarms can be stated, without
a model of the noise. Only the past is looked at: live and replay are the same.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import fdtri

from exafsd.composition.xanes import BELOW, BIN, NearEdgeNumbers
from exafsd.spectra import Floats

State = Literal["learning", "steady", "drifting", "changing"]

#: Lengths are 1, 2, 4, ... spectra, up to 2 to the power of this less one.
LENGTHS = 7
#: A test's chance of a false alarm. There is less than one a sweep of means of 2 and more; of a
#: single spectrum two in a row must agree. So there is at most one in 2,000 sweeps, and less than
#: one in 2,000 of `drifting`.
FALSE_ALARM = 5e-4
#: Differences of neighbours share a mean: so many are worth one that is independent.
OVERLAP = 1.5
#: So many differences are taken to have been in one direction before any was seen.
DOUBT = 2.0
#: A difference that undoes so much of the one before it is noise: of noise half is undone.
BACK = -0.25
#: After so many differences old ones are forgotten as fast as new ones come.
REMEMBERED = 64.0
#: What is usual is at least this, rms of the edge step: less is of no interest.
LEAST = 1e-4
#: Even drift: of so many differences the sum is longer than this share of what it can be, in
#: square. A random walk in one direction is so in 2 of 10,000 cases, noise never.
STEPS, EVEN = 8, 0.875


class Mean(NamedTuple):
    """Mean of spectra `flat` (m,), with the variance of its noise in a bin, and its first sweep.

    `rest` (m,) is the mean without what tells nothing of a sample.
    """

    flat: Floats
    rest: Floats
    variance: float
    sweep: int

    def with_next(self, other: "Mean") -> "Mean":
        """Mean of this one and as many after it."""
        return Mean(
            (self.flat + other.flat) / 2,
            (self.rest + other.rest) / 2,
            (self.variance + other.variance) / 4,
            self.sweep,
        )

    def step(self, before: "Mean") -> tuple[float, Floats]:
        """Square of the difference to another mean, and the difference (m,)."""
        step = self.rest - before.rest
        return float(step @ step), step


class Position(NamedTuple):
    """What a series says of a spectrum.

    `first` and `previous` are its distances to the first and to the previous spectrum, in units of
    noise: noise alone gives 1, an energy shift and another thickness nothing. None where there is
    no such spectrum, or no noise. `state` and `change_point` are those of `ChangeDetector`.
    """

    first: float | None
    previous: float | None
    state: "State"
    change_point: int | None


@dataclass
class Scale:
    """Means of one length, one after the other, and how much they usually differ.

    `last` is the latest mean, `half` the first half of the next longer one, `steps` the latest two
    differences. `usual` is the sum of squares of `count` differences, `noise` the sum of the
    variances that white noise alone would have given them, `alike` that of squared products of
    independent ones. `means` are the latest ones, and `drifts` whether they move evenly.
    """

    last: Mean | None = None
    half: Mean | None = None
    steps: deque[Floats] = field(default_factory=lambda: deque(maxlen=2))
    usual: float = 0.0
    noise: float = 0.0
    alike: float = 0.0
    count: float = 0.0
    means: deque[Mean] = field(default_factory=lambda: deque(maxlen=STEPS + 1))
    squares: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS))
    drifts: bool = False

    def unusual(self, step: Floats, square: float, noise: float) -> bool:
        """Whether a difference (m,), of this square, is more than what is usual.

        What goes there and back is noise: what is usual has to be learned again.
        """
        back = bool(self.steps) and float(step @ self.steps[-1]) < BACK * square
        if self.count < 2 * OVERLAP or back:
            return False
        mean = self.usual / self.count
        usual = max(mean, len(step) * LEAST**2)
        louder = max(1.0, noise * self.count / self.noise) if self.noise else 1.0
        return square > self._limit(mean) * usual * louder

    def _limit(self, mean: float) -> float:
        """Limit of a square over the mean of those before it.

        A sum of squares of normal numbers, however correlated, is nearly as one of so many
        independent ones as Satterthwaite has it; too few of them are on the safe side.
        """
        cautious = (self.alike + DOUBT * mean**2) / (self.count + DOUBT)
        freedom = 1.0 + max(mean**2 / cautious - 1.0, 0.0) / 2 if cautious > 0 else 1.0
        return _quantile(round(2 * freedom), int(self.count / OVERLAP))

    def learn(self, step: Floats, square: float, noise: float) -> None:
        """Take a difference for a usual one."""
        stays = min(1.0, (REMEMBERED - 1) / self.count) if self.count else 1.0
        # two that share no mean
        alike = float(step @ self.steps[0]) ** 2 if len(self.steps) == 2 else square**2
        self.usual = stays * self.usual + square
        self.noise = stays * self.noise + noise
        self.alike = stays * self.alike + alike
        self.count = stays * self.count + 1.0
        self.steps.append(step)
        self.squares.append(square)

    def restart(self) -> None:
        """Forget means, as of another sample, but not what is usual."""
        self.last, self.half, self.drifts = None, None, False
        self.steps.clear()
        self.means.clear()
        self.squares.clear()


@dataclass
class ChangeDetector:
    """One series of near edges that are comparable: of one channel and direction.

    Attributes
    ----------
    state
        ``learning`` until there is anything to compare with; ``changing`` since `change_point`;
        ``drifting`` where the spectrum moves evenly; else ``steady``.
    change_point
        Sweep with which the latest change began, None where there was none; between it and the
        sweep that told of it are as many as the mean had that showed it.
    """

    scales: list[Scale] = field(default_factory=lambda: [Scale() for _ in range(LENGTHS)])
    state: State = "learning"
    change_point: int | None = None
    #: first and previous spectrum (m,), and the variances of their noise
    first: tuple[Floats, float] | None = None
    previous: tuple[Floats, float] | None = None
    #: nuisances (m, s) of the first spectrum and of the present series, orthonormal
    first_basis: Floats | None = None
    basis: Floats | None = None
    #: a single spectrum that is unlike the others: a disturbance, or the first of a change
    held: Mean | None = None
    #: length, as its number, whose next mean decides whether a change is over
    watched: int | None = None
    #: whether the latest spectrum told of a change
    alarmed: bool = False

    def follow(
        self, numbers: Sequence[NearEdgeNumbers], sweeps: Sequence[int | None]
    ) -> list[Position]:
        """Take the next spectra of the series; one without a sweep is compared and not taken.

        What is said of a spectrum does not depend on those after it, in any bit: products with
        all of them are made by `einsum`, which adds up each row as if it were alone.
        """
        flats = np.array([one.flat for one in numbers])
        variances = [one.noise**2 for one in numbers]
        firsts, previous = self._distances(flats, variances, sweeps)
        positions: list[Position] = []
        basis, rests = None, flats
        for i, sweep in enumerate(sweeps):
            if sweep is not None:
                if self.basis is not None and self.basis is not basis:
                    basis, rests = self.basis, without(flats, self.basis)
                self.alarmed = False
                self._single(Mean(flats[i], rests[i], variances[i], sweep))
                self._settle()
            positions.append(Position(firsts[i], previous[i], self.state, self.change_point))
        return positions

    def _distances(
        self, flats: Floats, variances: Sequence[float], sweeps: Sequence[int | None]
    ) -> tuple[list[float | None], list[float | None]]:
        """To the first and to the previous spectrum, before each is taken."""
        before = [one for one in (self.first, self.previous) if one is not None]
        taken = [i for i, sweep in enumerate(sweeps, len(before)) if sweep is not None]
        rows = np.array([*(flat for flat, _ in before), *flats])
        noises = np.array([*(variance for _, variance in before), *variances])
        if taken:
            self.previous = rows[taken[-1]].copy(), float(noises[taken[-1]])
            if self.first is None:
                self.first = rows[taken[0]].copy(), float(noises[taken[0]])
                self.first_basis = self.basis = nuisances(self.first[0])
        if self.first_basis is None:
            return [None] * len(flats), [None] * len(flats)
        rests, own = without(rows, self.first_basis), np.arange(len(before), len(rows))
        first = np.full(len(flats), 0 if before else taken[0])
        latest = np.concatenate([[1 if before else taken[0]], taken]).astype(int)
        previous = latest[np.searchsorted(taken, own)]
        both: list[list[float | None]] = []
        for places in (first, previous):
            steps = rests[own] - rests[places]
            squares = np.einsum("ij,ij->i", steps, steps)
            expected = (steps.shape[1] - self.first_basis.shape[1]) * (noises[own] + noises[places])
            with np.errstate(divide="ignore", invalid="ignore"):
                distances = np.sqrt(squares / expected).tolist()
            there = ((places < own) & (expected > 0)).tolist()
            both.append([one if yes else None for one, yes in zip(distances, there, strict=True)])
        return both[0], both[1]

    def _single(self, one: Mean) -> None:
        """A spectrum on its own: one that is odd has to be like the next to count."""
        held, self.held = self.held, None
        scale = self.scales[0]
        # one that is alone was a disturbance, and is left out
        if held is not None and self._nearer(one, held, scale.last):
            held, one = self._alarm(0, held, one)
            self._add(0, held)
        difference = None
        if scale.last is not None:
            difference = square, step = one.step(scale.last)
            if scale.unusual(step, square, one.variance + scale.last.variance):
                self.held = one
                return
        self._add(0, one, difference)

    def _add(self, number: int, mean: Mean, usual: tuple[float, Floats] | None = None) -> None:
        """Take a mean of one length, and of the next longer one where it is complete.

        `usual` is its difference to the last one where that was looked at already.
        """
        scale = self.scales[number]
        if scale.last is not None:
            square, step = usual or mean.step(scale.last)
            noise = mean.variance + scale.last.variance
            if usual is None and scale.unusual(step, square, noise):
                (scale.last,) = self._alarm(number, mean)
                scale.steps.append(step)
                return
            scale.learn(step, square, noise)
            if self.watched is not None and number >= self.watched:
                self.watched = None
        scale.last = mean
        scale.means.append(mean)
        scale.drifts = self._drifts(scale)
        if number + 1 < len(self.scales):
            half, scale.half = scale.half, None
            if half is None:
                scale.half = mean
            else:
                self._add(number + 1, half.with_next(mean))

    def _alarm(self, number: int, mean: Mean, *others: Mean) -> list[Mean]:
        """Something has changed: go on from here as from another sample.

        Returns
        -------
        means
            The same, without the nuisances of the new sample.
        """
        if self.state != "changing":
            self.change_point = mean.sweep
        self.state = "changing"
        self.alarmed, self.watched = True, number
        self.basis = nuisances(mean.flat)
        for scale in self.scales:
            scale.restart()
        means = mean, *others
        rests = without(np.array([one.flat for one in means]), self.basis)
        return [one._replace(rest=rest) for one, rest in zip(means, rests, strict=True)]

    def _settle(self) -> None:
        if self.alarmed or self.watched is not None or self.held is not None:
            return
        if any(scale.drifts for scale in self.scales):
            self.state = "drifting"
        elif self.scales[0].count >= 2 * OVERLAP:
            self.state = "steady"

    @staticmethod
    def _drifts(scale: Scale) -> bool:
        """Whether the latest differences go one way; a drift ends where only half do."""
        if len(scale.means) <= STEPS:
            return False
        whole, step = scale.means[-1].step(scale.means[0])
        even = EVEN / 2 if scale.drifts else EVEN
        large = whole > len(step) * (STEPS * LEAST) ** 2
        return large and whole > even * STEPS * sum(scale.squares)

    @staticmethod
    def _nearer(one: Mean, held: Mean, last: Mean | None) -> bool:
        return last is None or one.step(held)[0] < one.step(last)[0]


def without(flats: Floats, basis: Floats) -> Floats:
    """Near edges (b, m) without what they have of orthonormal columns (m, s)."""
    shares = np.einsum("bm,ms->bs", flats, basis)
    return flats - np.einsum("bs,ms->bm", shares, basis)


def nuisances(flat: Floats) -> Floats:
    """What tells nothing of a sample, as orthonormal columns (m, s), about a near edge (m,).

    Offset, edge step, a slope before the edge and one after it, energy shift, over-absorption.
    """
    x = BELOW + BIN * np.arange(len(flat))
    columns = [
        np.ones_like(x), flat, np.minimum(x, 0.0), np.maximum(x, 0.0), np.gradient(flat),
        flat * (1 - flat),
    ]  # fmt: skip
    columns = [one / max(float(np.linalg.norm(one)), 1e-300) for one in columns]
    left, size, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return left[:, size > 1e-6].astype(np.float64)


@lru_cache(maxsize=4096)
def _quantile(halves: int, terms: int) -> float:
    """Limit of a sum of squares with `halves` / 2 degrees of freedom over the mean of `terms`."""
    freedom = halves / 2
    return float(fdtri(freedom, freedom * terms, 1 - FALSE_ALARM))
