"""Detector columns to mu(E) of each channel: cleaned, ascending, unique, all finite."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from exafsd.contract.messages import Channel
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.settings.analysis import Adapter, Reduction
from exafsd.spectra import Floats, SpectrumError, Sweep

#: signals of each channel, ready-made mu last
CHANNELS: dict[Channel, tuple[tuple[str, ...], ...]] = {
    "transmission": (("i0", "it"), ("mutrans",)),
    "fluorescence": (("i0", "iff"), ("mufluor",)),
    "reference": (("it", "ir"), ("murefer",)),
}
#: the detector that a channel alone has
OWN: dict[Channel, str] = {"transmission": "it", "fluorescence": "iff", "reference": "ir"}
#: X-ray absorption edges lie between Al K below and U K above, eV; below 200 it is keV or an angle
LOWEST_ENERGY, HIGHEST_ENERGY = 200.0, 150_000.0
#: Mean distance in eV by which sorting may move the points before a sweep counts as out of order.
#: An encoder's jitter is below it, where the points are dense even with every other step backwards.
MAX_JITTER = 1.0
#: what a detector without counts is rejected for
ZERO = {"i0": Reason.I0_ZERO, "it": Reason.IT_ZERO, "ir": Reason.IR_ZERO}
#: flags of sweeps that decide nothing for others of their run: no grid, no average, no foil
INCOMPLETE = frozenset({Flag.PARTIAL, Flag.GAP, Flag.ENERGY_UNSORTED})
#: share of the points at which a signal is negative where its amplifier inverts
INVERTED = 0.98
#: energies closer than this are one point, eV
SAME_ENERGY = 1e-3
#: eV on both sides of the edge in which i0 and mu are compared
COMPARED = 150.0
#: Correlations of ln i0 with mu, each with the share of mu's structure in ln i0 beyond which i0 is
#: no monitor. Of 119 measured spectra, by which these were chosen, one is beyond, without a signal
#: in it; with the columns behind the sample and the foil taken for i0 and it, all of 58 are.
LIKE = ((0.5, 0.2), (0.8, 0.05))
#: points that the comparison needs
ENOUGH = 20
#: energy, mu and quality of a channel
Columns = tuple[Floats, Floats, tuple[Flag, ...]]


def channels_of(sweep: Sweep, selected: tuple[Channel, ...]) -> list[Channel]:
    """Channels that the sweep's signals allow; the first wanted where nothing can be told.

    A channel that has its own detector and lacks i0 is among them, to be rejected for that.
    """
    return _channels_of(tuple(sweep.signals), selected)


@lru_cache(maxsize=256)
def _channels_of(signals: tuple[str, ...], selected: tuple[Channel, ...]) -> list[Channel]:
    chosen: list[Channel] = [
        channel
        for channel in selected
        if any(all(name in signals for name in names) for names in CHANNELS[channel])
        or (OWN[channel] in signals and "i0" not in signals and channel != "reference")
    ]
    return chosen or [selected[0]]


def absorption(
    sweep: Sweep, channel: Channel, adapter: Adapter, settings: Reduction
) -> tuple[Floats, Floats, tuple[Flag, ...]]:
    """mu(E) of a channel.

    Transmission ln(i0/it), fluorescence iff/i0, reference ln(it/ir).

    Returns
    -------
    energy, mu, quality
        (n,) eV, ascending and unique, the sweep's own array where it already is; (n,); flags.

    Raises
    ------
    SpectrumError
        With a code and what to do.
    """
    if sweep.broken is not None:
        raise sweep.broken
    names = _signals(sweep, channel)
    energy = sweep.energy
    for name in names:
        if sweep.signals[name].shape != energy.shape:
            raise SpectrumError(
                Reason.SHAPE_MISMATCH,
                f"energy has {energy.shape} points, {name} {sweep.signals[name].shape}",
            )
    if energy.size < settings.min_points:
        raise SpectrumError(
            Reason.TOO_FEW_POINTS,
            f"{energy.size} points are not a spectrum; at least {settings.min_points} are needed"
            " (reduction.min_points)",
        )
    flags: list[Flag] = [*sweep.flags]
    signals = _upright({name: sweep.signals[name] for name in names})
    good = _good_points(energy, signals)
    bad = energy.size - int(np.count_nonzero(good))
    if bad > settings.max_bad_share * energy.size:
        raise _too_many_bad(energy, signals, bad)
    if bad:
        flags.append(Flag.POINTS_DROPPED)
    for name, limit in adapter.saturation.items():
        if name in signals and (signals[name] >= limit).any():
            flags.append(Flag.SATURATED.of(name))
    if bad:
        energy = energy[good]
        signals = {name: values[good] for name, values in signals.items()}
    for name, limit in adapter.low_flux.items():
        if name in signals and np.median(signals[name]) < limit:
            flags.append(Flag.LOW_FLUX.of(name))
    _check_unit(energy)
    return _ordered(energy, _mu(channel, list(signals.values())), flags)


def absorptions(
    sweeps: Sequence[Sweep], channel: Channel, adapter: Adapter, settings: Reduction
) -> list[Columns | None]:
    """`absorption` of sweeps with nothing to be said of them, all at once; None for the others.

    Sweeps with the same energies get one array of them.
    """
    columns: list[Columns | None] = [None] * len(sweeps)
    alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for i, sweep in enumerate(sweeps):
        names = next((n for n in CHANNELS[channel] if sweep.signals.keys() >= {*n}), ())
        arrays = [sweep.energy, *(sweep.signals[name] for name in names)]
        size = sweep.energy.size
        if (
            names
            and sweep.broken is None
            and size >= max(settings.min_points, 2)
            and all(one.shape == (size,) for one in arrays)
            and {*adapter.saturation, *adapter.low_flux}.isdisjoint(names)
        ):
            alike.setdefault((names, size), []).append(i)
    for (names, _), members in alike.items():
        energy = np.array([sweeps[i].energy for i in members], dtype=float)
        signals = {n: np.array([sweeps[i].signals[n] for i in members]) for n in names}
        good = _good_points(energy, signals).all(axis=1)
        with np.errstate(invalid="ignore"):  # of what is not good
            step = energy[:, 1:] - energy[:, :-1]
        rises, falls = step.min(axis=1) > SAME_ENERGY, step.max(axis=1) < -SAME_ENERGY
        energy[falls] = energy[falls, ::-1]
        good &= (rises | falls) & (energy[:, 0] >= LOWEST_ENERGY)
        good &= energy[:, -1] <= HIGHEST_ENERGY
        with np.errstate(all="ignore"):
            mu = _mu(channel, list(signals.values()))
        mu[falls] = mu[falls, ::-1]
        first = energy[0]
        same = (energy == first).all(axis=1)
        for j, i in enumerate(members):
            if good[j]:
                columns[i] = first if same[j] else energy[j], mu[j], tuple(sweeps[i].flags)
    return columns


def i0_like_mu(sweep: Sweep, channel: Channel, e0: float) -> bool:
    """Whether i0 of a sweep has the structure of its mu, as where another column was taken for it.

    In fluorescence the logarithm of mu counts. A cubic polynomial in energy is left out. `e0`: eV.
    """
    names = CHANNELS[channel][0]
    if channel == "reference" or not {*names} <= sweep.signals.keys():
        return False
    near = np.abs(sweep.energy - e0) < COMPARED
    x = (sweep.energy[near] - e0) / COMPARED
    with np.errstate(all="ignore"):
        counts = [np.abs(np.asarray(sweep.signals[name], float)[near]) for name in names]
        both = np.log([counts[0], counts[0] / counts[1]])  # either way, i0 is a factor in the ratio
    good = np.isfinite(both).all(axis=0)
    if good.sum() < ENOUGH:
        return False
    smooth = np.vander(x[good], 4)
    rest = both[:, good].T - smooth @ np.linalg.lstsq(smooth, both[:, good].T, rcond=None)[0]
    (own, product), (_, other) = rest.T @ rest
    size = np.sqrt(own * other)
    return any(abs(product) > max(alike * size, part * other) > 0 for alike, part in LIKE)


def _upright(signals: dict[str, Floats]) -> dict[str, Floats]:
    """Counts of amplifiers that invert: of two that are negative the ratio is as good."""
    if len(signals) == 2 and all(np.mean(v < 0) > INVERTED for v in signals.values()):
        return {name: -values for name, values in signals.items()}
    return signals


def _signals(sweep: Sweep, channel: Channel) -> tuple[str, ...]:
    for names in CHANNELS[channel]:
        if all(name in sweep.signals for name in names):
            return names
    have = sorted(sweep.signals) or ["none"]
    needed = CHANNELS[channel][0]
    missing = [name for name in needed if name not in sweep.signals]
    raise SpectrumError(
        Reason.MISSING_COLUMN,
        f"{channel} needs {' and '.join(needed)}, and {' and '.join(missing)} is missing; the"
        f" columns are {', '.join(have)}. Name them under [adapter]",
    )


def _good_points(energy: Floats, signals: dict[str, Floats]) -> np.ndarray:
    good = np.isfinite(energy)
    for name, values in signals.items():
        good &= np.isfinite(values)
        if not name.startswith("mu"):
            # no count is no measurement: neither a ratio nor a logarithm exists
            good &= (values != 0) if name == "iff" else (values > 0)
    return good


def _too_many_bad(energy: Floats, signals: dict[str, Floats], bad: int) -> SpectrumError:
    for name, values in signals.items():
        if name in ZERO and np.mean(values < 0) > 0.5:
            return SpectrumError(
                ZERO[name],
                f"{name} is negative at {int((values < 0).sum())} of {values.size} points: if its"
                f" amplifier inverts, set adapter.gain.{name} = -1; or is the dark offset wrong?",
            )
        if name in ZERO and np.mean(values <= 0) > 0.5:
            return SpectrumError(
                ZERO[name],
                f"{name} is zero or negative at {int((values <= 0).sum())} of {values.size}"
                " points: was the shutter closed, or the gain or dark offset wrong?",
            )
    return SpectrumError(
        Reason.NON_FINITE,
        f"{bad} of {energy.size} points are NaN, infinite or without counts; more than"
        " reduction.max_bad_share allows",
    )


def _check_unit(energy: Floats) -> None:
    low, high = float(energy.min()), float(energy.max())
    if high < LOWEST_ENERGY:
        raise SpectrumError(
            Reason.ENERGY_UNIT,
            f"energies run from {low:g} to {high:g}: that is no range in eV. If they are keV or"
            ' an angle, say so: adapter.energy.unit = "keV" (or deg, pulses)',
        )
    if low <= 0 or high > HIGHEST_ENERGY:
        raise SpectrumError(
            Reason.ENERGY_UNIT,
            f"energies run from {low:g} to {high:g} eV, where no absorption edge is measured;"
            " check adapter.energy.key and unit",
        )


def _mu(channel: Channel, signals: list[Floats]) -> Floats:
    if len(signals) == 1:
        return signals[0]
    first, second = signals
    return second / first if channel == "fluorescence" else np.log(first / second)


def _ordered(
    energy: Floats, mu: Floats, flags: list[Flag]
) -> tuple[Floats, Floats, tuple[Flag, ...]]:
    """Ascending and unique; readings at one energy are averaged."""
    step = energy[1:] - energy[:-1]
    if step.size and step[0] < 0 and step.max() < 0:
        energy, mu, step = energy[::-1], mu[::-1], -step[::-1]
    if not step.size or step.min() > SAME_ENERGY:
        return np.ascontiguousarray(energy), np.ascontiguousarray(mu), tuple(flags)
    if (step < 0).any():
        order = np.argsort(energy, kind="stable")
        ordered = energy[order]
        measured = energy if energy[-1] >= energy[0] else energy[::-1]
        if np.mean(np.abs(ordered - measured)) > MAX_JITTER:
            flags.append(Flag.ENERGY_UNSORTED)
        energy, mu = ordered, mu[order]
    new = np.concatenate([[True], np.diff(energy) > SAME_ENERGY])
    if not new.all():
        group = np.cumsum(new) - 1
        count = np.bincount(group)
        energy, mu = np.bincount(group, energy) / count, np.bincount(group, mu) / count
        flags.append(Flag.ENERGIES_MERGED)
    return np.ascontiguousarray(energy), np.ascontiguousarray(mu), tuple(flags)
