"""Whether enough has been measured: how well the mean of a run's sweeps is known, by their scatter.

The scatter between sweeps holds what the error bars of a single sweep may not: beam, sample
position, monochromator. The two directions may differ by what the monochromator does, so each has a
mean of its own. A change of the sample begins all of them again.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from exafsd.contract.messages import Convergence, Direction, Result, Value
from exafsd.contract.vocabulary import Flag
from exafsd.settings.analysis import Target

#: sweeps of a direction, and of all, before their scatter is believed
LEAST_EACH, LEAST = 4, 8
#: how alike neighbours can be taken to be at most
MOST_ALIKE = 0.95


@dataclass
class RunningMean:
    """Mean of one direction's sweeps, as far as it goes on.

    `squares` is the sum of squares about the mean, `products` that of neighbours about `origin`,
    the first value. `variances` is the sum of what the sweeps' own error bars are, squared.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    variances: float = 0.0
    origin: float = 0.0
    last: float = 0.0
    ends: tuple[float, float] = (0.0, 0.0)

    def add(self, value: float, std: float) -> None:
        """Take the next value."""
        if self.count == 0:
            self.origin = self.last = value
            self.ends = (value, value)
        else:
            self.products += (value - self.origin) * (self.last - self.origin)
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self.squares += away * (value - self.mean)
        self.variances += std**2
        self.last = value
        self.ends = (self.ends[0], value)

    @property
    def variance(self) -> float:
        """Of the mean: from the scatter, wider where neighbours are alike."""
        scatter, alike = self.squares / (self.count - 1), self.alike
        return scatter * (1 + alike) / (1 - alike) / self.count

    @property
    def alike(self) -> float:
        """Correlation of neighbours, where it is more than chance."""
        if self.squares <= 0:
            return 0.0
        m = self.mean - self.origin
        first, last = (end - self.origin for end in self.ends)
        # sum of (v_i - mean) (v_i+1 - mean)
        shared = self.products - m * (2 * self.count * m - first - last) + (self.count - 1) * m**2
        alike = shared / self.squares
        return min(alike, MOST_ALIKE) if alike > 2 / math.sqrt(self.count) else 0.0

    @property
    def own(self) -> float:
        """Variance that the sweeps' error bars have beyond their scatter: what all share."""
        scatter = self.squares / (self.count - 1)
        return max(self.variances / self.count - scatter, 0.0)


@dataclass
class Averages:
    """Means of one channel and edge of a run since its sample changed last."""

    directions: dict[Direction | None, RunningMean] = field(
        default_factory=dict[Direction | None, RunningMean]
    )
    change_points: dict[Direction | None, int] = field(default_factory=dict[Direction | None, int])
    states: dict[Direction | None, str] = field(default_factory=dict[Direction | None, str])

    def take(self, result: Result, wanted: Target) -> Convergence:
        """Take a result, and say where the run stands.

        Parameters
        ----------
        result
            With everything but this.
        wanted
            Parameter and target.
        """
        direction, xanes = result.direction, result.xanes
        state = None if xanes is None else xanes.state
        if xanes is not None and state is not None:
            point = xanes.change_point
            if point is not None and self.change_points.get(direction) != point:
                self.change_points[direction] = point
                self.directions.clear()
            self.states[direction] = state
        value = reading(result, wanted.parameter)
        if state is not None and state != "changing" and value is not None:
            self.directions.setdefault(direction, RunningMean()).add(*value)
        return self._says(wanted, value is None)

    def _says(self, wanted: Target, missing: bool) -> Convergence:
        means = list(self.directions.values())
        count = sum(one.count for one in means)
        value = std = needed = floor = reason = None
        if count < LEAST or min(one.count for one in means) < LEAST_EACH:
            reason = f"{count} sweeps have a value so far"
            if missing:
                reason += "; this one has none"
        else:
            shares = len(means)
            value = sum(one.mean for one in means) / shares
            variance = sum(one.variance for one in means) / shares**2
            std = math.sqrt(variance)
            needed = max(math.ceil(count * variance / wanted.target**2 - count), 0)
            floor = math.sqrt(sum(one.own for one in means) / shares)
            if wanted.target < floor:
                reason = (
                    f"the target is below what all sweeps share, {floor:.2g}: theory, references,"
                    " calibration. More sweeps do not make that smaller"
                )
        moved = self._moved()
        return Convergence(
            parameter=wanted.parameter,
            value=value,
            std=std,
            target=wanted.target,
            sweeps=count,
            sweeps_needed=needed,
            reached=std is not None and std <= wanted.target and moved is None,
            floor=floor,
            reason=moved or reason,
        )

    def _moved(self) -> str | None:
        """That the sample changes, in words."""
        for direction, state in self.states.items():
            if state == "changing":
                return f"the sample changes since sweep {self.change_points[direction]}"
        if "drifting" in self.states.values():
            return "the sample drifts: a mean says nothing of it"
        return None


def reading(result: Result, parameter: str) -> tuple[float, float] | None:
    """Value and standard deviation of a parameter in a result; None where it must not be used."""
    if {Flag.OUTLIER, Flag.PARTIAL, Flag.GAP, Flag.ENERGY_UNSORTED} & {*result.quality}:
        return None
    owner, _, name = parameter.rpartition("/")
    item: Value | None = None
    if not owner:
        item = getattr(result.xanes, name, None)
    elif name == "share":
        made_of = result.composition
        if made_of is not None and made_of.in_domain:
            item = next((one for one in made_of.fractions if one.phase == owner), None)
    elif result.shells:
        item = _of_shell(result, owner, name)
    if not isinstance(item, Value) or item.value is None or item.std is None:
        return None
    return (item.value, item.std) if math.isfinite(item.value + item.std) else None


def _of_shell(result: Result, owner: str, name: str) -> Value | None:
    """Of the answer that is called the best; the network's where the refinement has none."""
    polished = result.polish.shells if result.best == "polish" and result.polish else ()
    shells: Iterable[object] = (*polished, *(result.shells or ()))
    values = (getattr(one, name, None) for one in shells if getattr(one, "id", None) == owner)
    return next((one for one in values if isinstance(one, Value)), None)
