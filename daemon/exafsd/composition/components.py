"""Components of a run, sweep by sweep, of any element: how many, and how much of each.

Only the past is looked at, and what is computed when depends on how many sweeps there were and not
on how they came: live and replay are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from exafsd.composition.decomposition import BELOW, BIN, ENERGIES, Decomposition, decompose
from exafsd.composition.xanes import NearEdgeNumbers
from exafsd.contract.messages import Channel, Components, Value
from exafsd.contract.vocabulary import Flag
from exafsd.reduction.columns import INCOMPLETE
from exafsd.spectra import Edge, Floats, Spectrum

#: sweeps before anything is counted
FIRST = 5
#: components are counted again after an eighth more sweeps, and after so many at the latest
SHARE, LATEST = 8, 64
#: and after so many where sweeps are unlike those before
SOON = 4
#: sweeps that are added up at once
BLOCK = 16
#: A sweep whose rest is so many times, in square, what is usual is held back until the next one.
ODD = 9.0
#: how alike, as a cosine, the rests of two sweeps are that have the same new component
ALIKE = 0.5
#: series of a run; of further ones nothing is counted
SERIES = 8
#: what spectra have in common to be one series: stream, channel, edge, whether they are averages,
#: and ranges of the normalisation
Key = tuple[str, Channel, Edge, bool, tuple[float, ...]]


@dataclass
class ComponentSeries:
    """Near edges of one series, added up: its size does not grow with them.

    `products` (m, m) and `total` (m,) are the sums of those before `waiting`, `variance` the sum of
    the variances of a bin's noise, of all `count`. Components were counted latest with `counted`
    sweeps, and are again with `due`. `odd` is a sweep that is unlike all others, and is left out
    unless the next is like it.
    """

    products: Floats = field(default_factory=lambda: np.zeros((len(ENERGIES),) * 2))
    total: Floats = field(default_factory=lambda: np.zeros(len(ENERGIES)))
    variance: float = 0.0
    count: int = 0
    repeated: int = 1
    waiting: list[Floats] = field(default_factory=list[Floats])
    counted: int = 0
    due: int = FIRST
    latest: Decomposition | None = None
    odd: tuple[Floats, float] | None = None

    def follow(
        self, flats: Floats, noises: Sequence[float], repeats: Sequence[int | None]
    ) -> list[Components | None]:
        """Take the next near edges, and say of each what the series has had by then.

        Parameters
        ----------
        flats, noises
            (b, m), and the standard deviations of a bin's noise.
        repeats
            Of how many sweeps each is the mean; None for one that is not taken.
        """
        components: list[Components | None] = []
        beside = None if self.latest is None else _Beside.of(self.latest, flats)
        for i, (flat, noise, repeated) in enumerate(zip(flats, noises, repeats, strict=True)):
            if repeated is not None:
                self.repeated = max(self.repeated, repeated)
                self._take(flat, noise, None if beside is None else beside.squares[i])
                if self.latest is not None and (beside is None or beside.latest is not self.latest):
                    beside = _Beside.of(self.latest, flats)
            components.append(None if beside is None else self._said(beside, i, noise))
        return components

    def _take(self, flat: Floats, noise: float, square: float | None) -> None:
        """Take a near edge whose rest has this square; None where nothing is counted yet."""
        odd, self.odd = self.odd, None
        if self.latest is not None and square is not None:
            usual = max(self.latest.left, noise) ** 2 * len(flat)
            if square > ODD * usual:
                if odd is None or self._alike(odd[0], flat) < ALIKE:
                    self.odd = flat, noise
                    return
                self._add(*odd)
                self.due = min(self.due, self.counted + SOON)
        self._add(flat, noise)

    def _alike(self, one: Floats, other: Floats) -> float:
        """How alike the rests of two near edges are."""
        if self.latest is None:
            return 0.0
        return _cosine(self.latest.rest(one), self.latest.rest(other))

    def _said(self, beside: "_Beside", i: int, noise: float) -> Components:
        latest = beside.latest
        by_noise, by_structure = latest.by_noise, latest.by_structure
        std = noise / len(latest.mean) ** 0.5
        reason = None
        if by_noise > by_structure:
            reason = "what is beyond the measured noise has not the shape of a spectrum"
        elif by_noise < by_structure:
            reason = "what has the shape of a spectrum is within the measured noise"
        return Components(
            count=by_noise if by_noise == by_structure else None,
            by_noise=by_noise,
            by_structure=by_structure,
            sweeps=self.count,
            left=latest.left,
            noise=(self.variance / self.count) ** 0.5,
            scores=[Value(score, std) for score in beside.scores[i]],
            reason=reason,
        )

    def _add(self, flat: Floats, noise: float) -> None:
        self.waiting.append(flat)
        self.variance += noise**2
        self.count += 1
        if len(self.waiting) >= BLOCK:
            self._sum()
        if self.count >= self.due:
            self._sum()
            self.latest = decompose(
                self.products, self.total, self.count, self.variance / self.count, self.repeated
            ).turned(self.latest)
            self.counted = self.count
            self.due = self.count + min(max(self.count // SHARE, 1), LATEST)

    def _sum(self) -> None:
        if self.waiting:
            rows = np.array(self.waiting)
            self.products += rows.T @ rows
            self.total += rows.sum(axis=0)
            self.waiting.clear()


@dataclass
class RunComponents:
    """Components of one run."""

    series: dict[Key, ComponentSeries] = field(default_factory=dict[Key, ComponentSeries])

    def follow(
        self, spectra: Sequence[Spectrum], numbers: Sequence[NearEdgeNumbers | None]
    ) -> list[Components | None]:
        """Components of the run up to each of its next spectra, and how much it has of them.

        Returns
        -------
        components
            None before there are enough sweeps, and where the scan is too short.
        """
        members: dict[Key, list[tuple[int, Floats, float]]] = {}
        for i, (spectrum, one) in enumerate(zip(spectra, numbers, strict=True)):
            flat = None if one is None else _cut(one)
            if one is not None and flat is not None:
                id_, averaged = spectrum.id, spectrum.averaged is not None
                key = id_.sweep.stream, id_.channel, id_.edge, averaged, one.ranges
                members.setdefault(key, []).append((i, flat, _noise(one)))
        components: list[Components | None] = [None] * len(spectra)
        for key, own in members.items():
            series = self.series.get(key)
            if series is None:
                if len(self.series) >= SERIES:
                    continue
                series = self.series[key] = ComponentSeries()
            places, flats, noises = zip(*own, strict=True)
            repeats = [_repeated(spectra[i]) for i in places]
            said = series.follow(np.array(flats), noises, repeats)
            for i, one in zip(places, said, strict=True):
                components[i] = one
        return components


class _Beside(NamedTuple):
    """Near edges beside a decomposition: squares of what is left of them, and their scores."""

    latest: Decomposition
    squares: list[float]
    scores: list[list[float]]

    @classmethod
    def of(cls, latest: Decomposition, flats: Floats) -> "_Beside":
        squares, scores = latest.compare(flats)
        return cls(latest, squares.tolist(), scores.tolist())


def count_all(numbers: Sequence[NearEdgeNumbers]) -> Decomposition | None:
    """Components of near edges that are all there; None where they are too few or too short."""
    series = ComponentSeries()
    whole = [(flat, _noise(one)) for one in numbers if (flat := _cut(one)) is not None]
    if whole:
        flats, noises = zip(*whole, strict=True)
        series.follow(np.array(flats), noises, [1] * len(whole))
    return series.latest


def _repeated(spectrum: Spectrum) -> int | None:
    """Of how many sweeps a spectrum is the mean; None if its series does not take it.

    A sweep is in its series once, and only if it is whole.
    """
    whole = {*INCOMPLETE, Flag.OUTLIER}.isdisjoint(spectrum.quality)
    if spectrum.id.sweep.revision > 1 or not whole:
        return None
    return 1 if spectrum.averaged is None else spectrum.averaged.n


def _noise(numbers: NearEdgeNumbers) -> float:
    """Standard deviation of a bin's noise, as singular vectors over many bins have it."""
    return max(numbers.noise, numbers.density)


def _cut(numbers: NearEdgeNumbers) -> Floats | None:
    """The bins of a near edge that are compared (m,); None where it has not all of them."""
    skipped = round((BELOW - numbers.ranges[2]) / BIN)
    flat = numbers.flat[skipped : skipped + len(ENERGIES)]
    return flat if skipped >= 0 and len(flat) == len(ENERGIES) else None


def _cosine(one: Floats, other: Floats) -> float:
    return abs(float(one @ other)) / max(float(one @ one) * float(other @ other), 1e-300) ** 0.5
