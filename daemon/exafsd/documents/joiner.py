"""Join streams without a shared clock, on their timestamps, to the slowest of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exafsd.spectra import Floats

Columns = Mapping[str, NDArray[Any]]

#: points of a stream kept while they cannot be joined; a run's memory must not grow
HELD_POINTS = 1_000_000
#: readings of each stream after which the slowest is known. Not the first counts: a monitor begins
#: with the value that was there before
READINGS = 32
#: streams this close to the slowest in rate are as slow: then the detectors set the points
ALIKE = 1.1
#: a stream less than this many times as fast is interpolated: averages would only smear it
FASTER = 1.5


class Joiner:
    """Points of several streams, joined on their timestamps.

    The slowest stream, by the first `READINGS` readings of each, sets the points. The columns of
    faster ones are averaged over the interval about each point, half-way to its neighbours, so
    that no counts are thrown away; readings are taken to vary linearly in between. A point is
    given out as soon as every stream has passed its interval. Points before the first or after the
    last reading of another stream are dropped, since nothing is extrapolated; so are readings that
    go back in time.

    Parameters
    ----------
    base
        Column whose readings set the points whatever their rate; None: the slowest stream's.
    """

    def __init__(self, base: str | None = None) -> None:
        self._groups: list[_Group] = []
        self._wanted = base
        self._base: _Group | None = None
        self._given = 0  # rows at the head of the base that have been given out

    def add_stream(
        self, name: str, roles: Iterable[str], delays: Mapping[str, float] | None = None
    ) -> None:
        """Announce a stream, the columns it will bring and by how many s they lag behind."""
        by_delay: dict[float, list[str]] = {}
        for role in roles:
            by_delay.setdefault((delays or {}).get(role, 0.0), []).append(role)
        self._groups += [_Group(name, delay, tuple(part)) for delay, part in by_delay.items()]

    @property
    def base(self) -> str | None:
        """Stream whose times the points have, which names the sweeps; None until it is known."""
        return None if self._base is None else self._base.name

    def push(self, name: str, columns: Columns) -> Columns | None:
        """Add points of one stream; return the joined ones, if any."""
        if len({len(values) for values in columns.values()}) > 1:
            raise ValueError("columns of a stream differ in length")
        for group in self._groups:
            if group.name == name:
                group.add(columns)
        if self._base is None:
            has_first = all(len(g.first) == READINGS for g in self._groups)
            if _joinable(self._groups) and (has_first or self._wanted is not None):
                self._choose()
        return self._joined(ended=False)

    def finish(self) -> Columns | None:
        """Return what can still be joined at the end of a run."""
        # a monitor that never changed has nothing to say
        self._groups = [g for g in self._groups if len(g.first) > 1 or g is self._base]
        if not _joinable(self._groups):
            return None
        if self._base is None:
            self._choose()
        return self._joined(ended=True)

    def _choose(self) -> None:
        if self._wanted is not None:
            self._base = next(g for g in self._groups if self._wanted in g.roles)
            return
        slowest = max(g.interval for g in self._groups)
        self._base = max(
            (g for g in self._groups if g.interval * ALIKE >= slowest),
            key=lambda g: ("i0" in g.roles, g.has_signals, g.interval),
        )

    def _joined(self, ended: bool) -> Columns | None:
        base = self._base
        if base is None or any(len(g.held["time"]) == 0 for g in self._groups):
            return None
        others = [g for g in self._groups if g is not base]
        times = base.held["time"]
        half = _half_widths(times)[self._given :]
        if not ended:  # how far the interval of the last point reaches is not known yet
            half = half[:-1]
        times = times[self._given : self._given + len(half)]
        latest = min((g.held["time"][-1] for g in others), default=np.inf)
        if not ended:
            passed = times + half <= latest
            count = len(passed) if passed.all() else int(np.argmin(passed))
            times, half = times[:count], half[:count]
        if len(times) == 0:
            return None
        inside = np.full(len(times), True)
        joined = {
            role: array[self._given : self._given + len(times)] for role, array in base.held.items()
        }
        for other in others:
            first, last = other.held["time"][0], other.held["time"][-1]
            inside &= (times >= first) & (times <= last)
            reach = np.minimum(half, np.minimum(times - first, last - times))
            if other.interval * FASTER > base.interval:
                reach = np.zeros(len(times))
            for role in other.roles:
                joined[role] = _averages(other.held["time"], other.held[role], times, reach)
        # the last point given out stays: it says how far the interval of the next reaches back
        base.forget(self._given + len(times) - 1)
        self._given = 1
        for other in others:
            other.forget(int(np.searchsorted(other.held["time"], times[-1], side="right")) - 1)
        return {role: array[inside] for role, array in joined.items()} if inside.any() else None


class _Group:
    """Columns of one stream with the same delay, and their times."""

    def __init__(self, name: str, delay: float, roles: tuple[str, ...]) -> None:
        self.name = name
        self.roles = roles
        self.first = np.empty(0)  # the first times
        self.held: dict[str, NDArray[Any]] = dict.fromkeys(("time", *roles), np.empty(0))
        self._delay = delay
        self._latest = -np.inf

    @property
    def has_signals(self) -> bool:
        """Whether one of the columns is a detector's reading."""
        return any(role != "energy" and not role.startswith("gap") for role in self.roles)

    @property
    def interval(self) -> float:
        """Seconds between readings, by the first of them but one."""
        count = len(self.first)
        return float(self.first[-1] - self.first[1]) / (count - 2) if count > 2 else np.inf

    def add(self, columns: Columns) -> None:
        """Append readings, without those that go back in time."""
        times = np.asarray(columns["time"], float) - self._delay
        highest = np.fmax.accumulate(np.concatenate([[self._latest], times]))
        good = times >= highest[:-1]
        new = {"time": times, **{role: columns[role] for role in self.roles}}
        if not good.all():
            new = {role: array[good] for role, array in new.items()}
        self._latest = float(highest[-1])
        if len(self.first) < READINGS:
            self.first = np.concatenate([self.first, new["time"]])[:READINGS]
        if len(self.held["time"]):
            new = {role: np.concatenate([self.held[role], array]) for role, array in new.items()}
        self.held = new
        self.forget(len(new["time"]) - HELD_POINTS)

    def forget(self, count: int) -> None:
        """Drop the first readings."""
        if count > 0:
            self.held = {role: array[count:] for role, array in self.held.items()}


def _joinable(groups: list[_Group]) -> bool:
    """Whether energy and a signal are among them."""
    return any("energy" in g.roles for g in groups) and any(g.has_signals for g in groups)


def _half_widths(times: Floats) -> Floats:
    """Half the interval about each point, s: centred on it, half-way to its neighbours."""
    if len(times) < 2:
        return np.zeros(len(times))
    gaps = np.diff(times)
    left, right = np.append(gaps[:1], gaps), np.append(gaps, gaps[-1:])
    return np.minimum((left + right) / 4, np.minimum(left, right))


def _averages(times: Floats, values: Floats, about: Floats, reach: Floats) -> Floats:
    """Mean of a polygon through the readings over ``about`` ± ``reach``, (n,).

    Each interval is summed for itself: a running integral would carry a NaN, and the rounding of
    how the readings were chunked, into all that follows.
    """
    if not reach.any():
        return np.interp(about, times, values)
    begin, end = about - reach, about + reach
    first = np.searchsorted(times, begin, side="right")
    last = np.searchsorted(times, end, side="left")  # readings first ... last - 1 are inside
    at_begin, at_end = np.interp(begin, times, values), np.interp(end, times, values)
    pieces = np.append(np.diff(times) * (values[1:] + values[:-1]) / 2, 0.0)
    top = len(times) - 1
    stop = np.clip(last - 1, 0, top)
    start = np.clip(first, 0, top)
    whole = np.add.reduceat(pieces, np.column_stack([start, stop]).ravel())[::2]
    whole = np.where(start < stop, whole, 0.0)
    ends = (times[start] - begin) * (at_begin + values[start]) / 2
    ends = ends + (end - times[stop]) * (values[stop] + at_end) / 2
    overlap = (first < last) & (reach > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(overlap, (whole + ends) / (2 * reach), (at_begin + at_end) / 2)
    return mean
