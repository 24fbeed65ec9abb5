"""Cut a stream of points into sweeps at the turning points of the monochromator.

What is cut depends only on the points, never on how they were chunked into documents: points are
looked at in blocks that are counted from the first point of the stream.

The encoder may be noisy. Its noise is measured as the points come, from third differences, in
which a smooth motion leaves next to nothing. A leg has ended when the energy, after a median of
five against glitches, has come back by `turn` eV or by six standard deviations of the noise,
whichever is more. The turning point is then looked for in the points about the extreme alone: two
straight lines are fitted to them, and the best place for the break is where the sweep is cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from exafsd.spectra import Floats

#: a leg of fewer points is a fly-back, jitter or unsorted data, not a sweep
MIN_LEG = 8
#: points of a stream that are looked at together; a sweep is given out so many points late at most
BLOCK = 32
#: blocks over which the noise is taken: 256 points tell it to about 10 %
NOISE_BLOCKS = 8
#: standard deviations of the noise that the energy must come back by. The median of five has 0.54
#: of the noise, so that this is 11 of its own: chance does not make such a difference, even where
#: the noise is taken for less than it is
CERTAIN = 6.0
#: from the median of |third difference| of white noise to its standard deviation
TO_STD = 1.4826 / np.sqrt(20.0)
#: points either side of a break that a line needs
LINE = 4
#: a fly-back goes down so many times as fast as the leg before it came up
SUDDEN = 4
#: points of one sweep: a monochromator that stands still must not fill the memory
LONGEST = 1_000_000
#: points that are searched at once, so that many turns in a large page cost no more than few
SEARCHED = 1024

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Segment:
    """Points of one sweep in the order of measurement; `turned`: it was ended by a turn."""

    columns: dict[str, NDArray[Any]]
    turned: bool


class TurningSplitter:
    """Cuts where the energy has come back by more than `turn` eV, or than its noise."""

    def __init__(self, turn: float) -> None:
        self._smoother = _Smoother(turn)
        self._chunks: list[Columns] = []
        self._kept = 0  # points in chunks
        self._values: list[Floats] = []  # smoothed energies of the leg
        self._needs: list[Floats] = []  # what they must come back by
        self._leg = _Leg(0)

    def push(self, columns: Columns) -> list[Segment]:
        """Add points, equally long arrays one of which is ``energy`` in eV; return ended sweeps."""
        energy = np.asarray(columns["energy"], float)
        if len(energy) == 0:
            return []
        self._chunks.append(columns)
        self._kept += len(energy)
        return self._look(*self._smoother.push(energy))

    def replace(self, columns: Columns) -> bool:
        """Put points in the place of those of the open sweep; whether anything has changed.

        Where the energy turned is not looked at again.
        """
        if not self._kept:
            return False
        self._chunks = [joined := self._joined()]
        return put(joined, columns)

    def finish(self) -> list[Segment]:
        """Return what is left at the end of a run."""
        done = self._look(*self._smoother.finish())
        if self._kept:
            done.append(Segment(self._take(self._kept), turned=False))
        return done

    def _look(self, values: Floats, needs: Floats) -> list[Segment]:
        done: list[Segment] = []
        if len(values) == 0:
            return done
        self._values.append(values)
        self._needs.append(needs)
        while True:
            leg = self._leg
            turn = leg.advance(values, needs)
            if turn is None and leg.start + leg.searched < LONGEST:
                return done
            values, needs = np.concatenate(self._values), np.concatenate(self._needs)
            if turn is not None and (flown := turn.flyback(values)):
                cut = flown  # the sweep begins with it, and goes on
                self._leg = _Leg(leg.start + cut)
            else:
                cut = leg.searched if turn is None else turn.break_in(values)
                done.append(Segment(self._take(leg.start + cut), turned=turn is not None))
                self._leg = _Leg(0)
            values, needs = values[cut:], needs[cut:]
            self._values, self._needs = [values], [needs]

    def _take(self, count: int) -> dict[str, NDArray[Any]]:
        joined = self._joined()
        self._kept -= count
        self._chunks = [{n: a[count:] for n, a in joined.items()}] if self._kept else []
        return {name: array[:count] for name, array in joined.items()}

    def _joined(self) -> dict[str, NDArray[Any]]:
        if len(self._chunks) == 1:
            return dict(self._chunks[0])
        # a stream that was described anew may have other columns
        names = dict.fromkeys(name for chunk in self._chunks for name in chunk)
        return {name: np.concatenate([_column(c, name) for c in self._chunks]) for name in names}


def _column(chunk: Columns, name: str) -> NDArray[Any]:
    """Column of a chunk, empty where it has none."""
    if name in chunk:
        return chunk[name]
    return np.full(len(chunk["energy"]), None if name.startswith("row:") else np.nan)


def put(points: dict[str, NDArray[Any]], columns: Columns) -> bool:
    """Put columns in the place of the points with their ``seq``, which ascends.

    Returns whether a point is other than it was.
    """
    at = np.searchsorted(points["seq"], columns["seq"])
    at[at == len(points["seq"])] = 0
    there = points["seq"][at] == columns["seq"]
    changed = False
    for name in points if there.any() else ():
        if name == "gap" or name not in columns:
            continue
        before, after = points[name][at[there]], columns[name][there]
        is_context = before.dtype == object  # context alone is no other reading
        if not is_context and np.array_equal(before, after, equal_nan=True):
            continue
        points[name] = points[name].copy()  # what came may be read-only
        points[name][at[there]] = after
        changed |= not is_context
    return changed


class _Smoother:
    """Median of five of a series, two points behind it, and what it must come back by in a turn.

    Both come in whole blocks, so that they are the same however the series is chunked.
    """

    def __init__(self, turn: float) -> None:
        self._turn = turn
        self._rest: list[Floats] = []  # points that fill no block yet
        self._waiting = 0
        self._tail = np.empty(0)  # the last four points before them
        self._noise = np.empty(0)  # of the last blocks

    def push(self, energy: Floats) -> tuple[Floats, Floats]:
        """Add points; return smoothed ones and needs, equally long."""
        self._rest.append(energy)
        self._waiting += len(energy)
        if self._waiting < BLOCK:
            return np.empty(0), np.empty(0)
        waiting = np.concatenate(self._rest)
        self._waiting = len(waiting) % BLOCK
        whole = len(waiting) - self._waiting
        self._rest = [waiting[whole:]]
        return self._smoothed(waiting[:whole], ended=False)

    def finish(self) -> tuple[Floats, Floats]:
        """Return the points that are still to come, at the end of a run."""
        if len(self._tail) == 0 and self._waiting == 0:
            return np.empty(0), np.empty(0)
        return self._smoothed(np.concatenate(self._rest), ended=True)

    def _smoothed(self, energy: Floats, ended: bool) -> tuple[Floats, Floats]:
        began = len(self._tail) == 0
        energy = _filled(energy, np.nan if began else float(self._tail[-1]))
        series = np.concatenate([np.repeat(energy[:1], 4) if began else self._tail, energy])
        self._tail = series[-4:]
        with np.errstate(all="ignore"):  # an encoder may say anything, 1e308 included
            spread = self._spread(series[1:])
            need = np.maximum(self._turn, CERTAIN * spread)
            values = _median_of_five(np.append(series, series[[-1, -1]]) if ended else series)
        # of a run that ends, the points that fill no block have the need of the one before
        needs = np.pad(np.repeat(need, BLOCK), (0, BLOCK + 2), mode="edge")[: len(values)]
        ahead = 2 if began else 0  # these are centred before the first point
        return values[ahead:], needs[ahead:]

    def _spread(self, series: Floats) -> Floats:
        """Standard deviation of the noise about each block, by the median of the last blocks."""
        third = np.abs(np.diff(series, 3))
        if len(third) < BLOCK:  # the run has ended
            third = third if len(self._noise) == 0 else third[:0]
            blocks = third[None]
        else:
            blocks = third.reshape(-1, BLOCK)
        if blocks.size == 0:
            return np.atleast_1d(np.median(self._noise))
        noise = np.nan_to_num(np.median(blocks, axis=1) * TO_STD)
        before = self._noise if len(self._noise) else np.repeat(noise[0], NOISE_BLOCKS - 1)
        all_noise = np.concatenate([before, noise])
        self._noise = all_noise[1 - NOISE_BLOCKS :]
        return np.median(sliding_window_view(all_noise, NOISE_BLOCKS), axis=1)


@dataclass(frozen=True)
class _Turn:
    """A turn of a leg: index of its extreme, and the index at which it has come back."""

    at: int
    back: int
    direction: int
    need: float

    def flyback(self, values: Floats) -> int:
        """Points after which a leg that took too few from start to extreme arrived; else 0."""
        height = values[: self.at + 1] * self.direction
        arrived = int(np.argmax(height >= height[-1] - self.need / 2))
        start_height = height[np.isfinite(height)][0]
        left = int(np.flatnonzero(height[:arrived] <= start_height + self.need / 2)[-1])
        return arrived if arrived - left < MIN_LEG else 0

    def break_in(self, values: Floats) -> int:
        """Number of points before the turn, among the leg's smoothed energies."""
        depth = values[self.at] - values[: self.back + 1]
        depth *= self.direction  # below the extreme
        below = np.flatnonzero(depth[: self.at] > self.need)
        first = int(below[-1]) if len(below) else 0
        came = int(np.argmax(depth[first:] <= self.need / 2))
        gone = self.at + int(np.argmax(depth[self.at :] > self.need))
        top = int(np.flatnonzero(depth[:gone] <= self.need / 2)[-1])
        falls = depth[top : top + LINE + 1].max() > 1.5 * self.need
        if falls and SUDDEN * (gone - top) <= came:
            return top + 1
        first = min(first, self.at - MIN_LEG)
        return first + _break(-depth[first:])


class _Leg:
    """A movement in one direction: how far it has come. Indices count from its first point."""

    def __init__(self, start: int) -> None:
        self.start = start  # index in the open sweep
        self.searched = 0
        self._first = np.nan
        self._direction = 0
        self._extreme = -np.inf
        self._at = 0

    def advance(self, values: Floats, needs: Floats) -> _Turn | None:
        """Look at the next points; return the turn that ends this leg, if there is one."""
        room = LONGEST - self.start - self.searched
        for i in range(0, min(len(values), room), SEARCHED):
            part = slice(i, min(i + SEARCHED, room))
            turn = self._search(values[part], needs[part])
            if turn is not None:
                return turn
            self.searched += len(values[part])
        return None

    def _search(self, values: Floats, needs: Floats) -> _Turn | None:
        begin = 0
        if self._direction == 0:
            if np.isnan(self._first):
                finite = values[np.isfinite(values)]
                self._first = float(finite[0]) if len(finite) else np.nan
            moved = np.flatnonzero(np.abs(values - self._first) > needs)
            if len(moved) == 0:
                return None
            begin = int(moved[0])
            self._direction = 1 if values[begin] > self._first else -1
        height = values[begin:] * self._direction
        index = self.searched + begin + np.arange(len(height))
        highest = np.fmax.accumulate(np.concatenate([[self._extreme], height]))[1:]
        at = np.where(height >= highest, index, self._at)
        at = np.maximum.accumulate(at)
        back = np.flatnonzero((highest - height > needs[begin:]) & (index - at >= MIN_LEG))
        if len(back):
            i = int(back[0])
            return _Turn(int(at[i]), int(index[i]), self._direction, float(needs[begin + i]))
        self._extreme, self._at = float(highest[-1]), int(at[-1])
        return None


def _filled(energy: Floats, before: float) -> Floats:
    """Series with the last good reading in place of NaN and infinity."""
    good = np.isfinite(energy)
    if good.all():
        return energy
    latest = np.maximum.accumulate(np.where(good, np.arange(len(energy)), -1))
    return np.where(latest >= 0, energy[latest], before)


def _median_of_five(series: Floats) -> Floats:
    """Median of each five neighbours, (n,) to (n - 4,)."""
    a, b, c, d, e = (series[i : len(series) - 4 + i] for i in range(5))
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    # of the four the second and third are left; the median is that of them and the fifth
    low, high = np.minimum(low, high), np.maximum(low, high)
    return np.maximum(low, np.minimum(e, high))


def _break(height: Floats) -> int:
    """Number of points before the summit: two straight lines are fitted by least squares.

    Every break with at least `LINE` points on either side is tried. Where the lines rise and fall,
    the summit is where they cross (a turn); where they do not, it is the break (a fly-back).
    """
    n = len(height)
    y = height - height.mean()
    t = np.arange(n) - (n - 1) / 2
    count = np.arange(1.0, n + 1)
    sums = [count, *(np.cumsum(v) for v in (t, y, t * t, t * y, y * y))]
    breaks = slice(LINE - 1, n - LINE)
    left = [v[breaks] for v in sums]
    right = [v[-1] - part for v, part in zip(sums, left, strict=True)]
    misfit = _misfit(*left)[0] + _misfit(*right)[0]
    best = int(np.argmin(misfit))
    (_, up, rise), (_, down, fall) = (_misfit(*(v[best] for v in side)) for side in (left, right))
    cut = best + LINE
    if up > 0 > down:
        summit = (fall - rise) / (up - down) + (n - 1) / 2
        # a summit on a point belongs to the leg before it, whatever the rounding
        if LINE <= summit <= n - 1 - LINE:
            cut = int(np.floor(summit + 1e-6)) + 1
    return cut


def _misfit(n: Any, t: Any, y: Any, tt: Any, ty: Any, yy: Any) -> tuple[Any, Any, Any]:
    """Sum of squares about a straight line, its slope and its value at t = 0, from sums."""
    variance = tt - t * t / n
    covariance = ty - t * y / n
    slope = covariance / variance
    return yy - y * y / n - slope * covariance, slope, (y - slope * t) / n
