"""Components of a run, sweep by sweep, of any element: how many, and how much of each.

Only the past is looked at, and what is computed when depends on how many sweeps there were and not
on how they came: live and replay are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

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

    def take(self, flat: Floats, noise: float) -> None:
        """Take the next near edge (m,), with the standard deviation of a bin's noise."""
        odd, self.odd = self.odd, None
        if self.latest is not None:
            rest = self.latest.rest(flat)
            usual = max(self.latest.left, noise) ** 2 * len(flat)
            if float(rest @ rest) > ODD * usual:
                before = None if odd is None else self.latest.rest(odd[0])
                if odd is None or before is None or _cosine(rest, before) < ALIKE:
                    self.odd = flat, noise
                    return
                self._add(*odd)
                self.due = min(self.due, self.counted + SOON)
        self._add(flat, noise)

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

    def take(self, spectrum: Spectrum, numbers: NearEdgeNumbers | None) -> Components | None:
        """Components of the run up to its next spectrum, and how much of each this one has.

        Returns
        -------
        Components | None
            None before there are enough sweeps, and where the scan is too short.
        """
        flat = None if numbers is None else _cut(numbers)
        if numbers is None or flat is None:
            return None
        id_, averaged = spectrum.id, spectrum.averaged
        key = id_.sweep.stream, id_.channel, id_.edge, averaged is not None, numbers.ranges
        series = self.series.get(key)
        if series is None:
            if len(self.series) >= SERIES:
                return None
            series = self.series[key] = ComponentSeries()
        if averaged is not None:
            series.repeated = max(series.repeated, averaged.n)
        # a sweep is in its series once, and only if it is whole
        if id_.sweep.revision == 1 and {*INCOMPLETE, Flag.OUTLIER}.isdisjoint(spectrum.quality):
            series.take(flat, _noise(numbers))
        return None if series.latest is None else _message(series, series.latest, flat, numbers)


def count_all(numbers: Sequence[NearEdgeNumbers]) -> Decomposition | None:
    """Components of near edges that are all there; None where they are too few or too short."""
    series = ComponentSeries()
    for one in numbers:
        flat = _cut(one)
        if flat is not None:
            series.take(flat, _noise(one))
    return series.latest


def _noise(numbers: NearEdgeNumbers) -> float:
    """Standard deviation of a bin's noise, as singular vectors over many bins have it."""
    return max(numbers.noise, numbers.density)


def _message(
    series: ComponentSeries, latest: Decomposition, flat: Floats, numbers: NearEdgeNumbers
) -> Components:
    by_noise, by_structure = latest.by_noise, latest.by_structure
    std = _noise(numbers) / len(flat) ** 0.5
    reason = None
    if by_noise > by_structure:
        reason = "what is beyond the measured noise has not the shape of a spectrum"
    elif by_noise < by_structure:
        reason = "what has the shape of a spectrum is within the measured noise"
    return Components(
        count=by_noise if by_noise == by_structure else None,
        by_noise=by_noise,
        by_structure=by_structure,
        sweeps=series.count,
        left=latest.left,
        noise=(series.variance / series.count) ** 0.5,
        scores=[Value(score, std) for score in latest.scores(flat).tolist()],
        reason=reason,
    )


def _cut(numbers: NearEdgeNumbers) -> Floats | None:
    """The bins of a near edge that are compared (m,); None where it has not all of them."""
    skipped = round((BELOW - numbers.ranges[2]) / BIN)
    flat = numbers.flat[skipped : skipped + len(ENERGIES)]
    return flat if skipped >= 0 and len(flat) == len(ENERGIES) else None


def _cosine(one: Floats, other: Floats) -> float:
    return abs(float(one @ other)) / max(float(one @ one) * float(other @ other), 1e-300) ** 0.5
