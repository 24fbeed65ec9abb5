"""Linear combination of measured near edges, with what differs between scans of one sample.

A sum of references is compared with a sample after what tells nothing of its composition: the
energy scale, the resolution, heat, an offset and a tilt of the normalisation, over-absorption in
fluorescence. All of these have priors, none is free, so that they cannot make a phase of nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline
from scipy.ndimage import gaussian_filter1d

from exafsd.composition.window import BIN, Integral, NearEdge
from exafsd.contract.grid import ETOK
from exafsd.inference.refinement.least_squares import Minimum, conditional, minimize_batch
from exafsd.spectra import Floats

#: Standard deviations of what is allowed for: energy scale with a foil and without, eV; offset and
#: tilt (over the range above the edge) of the normalisation; resolution, eV^2 more than the
#: references'; sigma2 more than a reference's, angstrom^2; a of over-absorption,
#: y (1 + a) / (1 + a y).
SHIFT, SHIFT_ALONE = 0.1, 0.5
OFFSET, TILT = 0.005, 0.02
WIDTH, SIGMA2, OVER_ABSORPTION = 0.6, 0.006, 0.15
#: Resolutions, eV^2, through which what they do to a reference is a parabola; below 0 it goes on.
WIDTHS = np.array([0.3, 0.6, 1.0, 1.5, 2.0])
#: Powers of shift and of resolution in which references are expanded, and those of the derivatives.
ORDERS, POWERS = np.arange(4), np.arange(3)
LOWER_ORDERS, LOWER_POWERS = np.maximum(ORDERS - 1, 0), np.maximum(POWERS - 1, 0)
#: Steps of a scan, eV, for which it is looked up how much they blunt the references, and places of
#: the edge between points for each.
STEPS, PHASES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5), 5
#: What a fit has between shares and heat, in this order; in fluorescence over-absorption is last.
NUISANCES = ("energy_shift", "offset", "tilt", "resolution")
#: References that are all compared with a sample; of more, the likeliest so many; and how many
#: there may be.
MOST, LIKELIEST, ALL = 5, 4, 10
#: A standard deviation of a share from which on references cannot be told apart.
ALIKE = 0.15
#: A choice of references that is so much less likely, in BIC, is as good.
AS_GOOD = 2.0
#: What repeated scans of one compound differ by, of the edge step, and over how many bins.
REPEATS, JOINED = 0.0012, 3.0
#: Errors of a reference: its edge step, relative, and its energy, eV. The least error of a share.
STEP_ERROR, ENERGY_ERROR, LEAST = 0.007, 0.08, 0.003
#: Error of shares for each `SIGMA2` by which the sample is hotter or colder than a reference: near
#: the edge heat is more than damping. Copper of 10 to 150 K beside a reference at room temperature
#: (Larch's examples) has 0.025 of another phase.
HEAT_ERROR = 0.01
#: A fit is done when its next step, which it still makes, is below this share of what noise and
#: misfit do to its shares, or moves no share by more than twice the least error of any. Going on
#: would move shares by 0.05 of their errors (rms of 600 measured mixtures of zinc compounds, with
#: all nuisances), and by 0.4 at most.
TOLERANCE, SMALL_STEP = 0.3, 2 * LEAST
#: Bins over which what is left over is correlated.
LAGS = 4
#: Weights of covariances at these lags; each counts once on either side, none at lag 0.
TAPER = 1 - np.arange(LAGS) / LAGS
TAPER[0] = 0.5
#: Share of the noise that may be left over when it is taken off: that of a hundred bins has a mean
#: square that is uncertain by a seventh, and `OTHER` of these shares squared are 3.5 of that.
QUIET = 0.25
#: Something else is there where what is left over is this many times noise and repeats.
OTHER = 2.6


@dataclass(frozen=True)
class Fractions:
    """What a sample is made of, by m references.

    `places` are of the references that were compared with it, `value` and `std` (m,) their shares,
    `shift` and `shift_std` eV by which its energies are above theirs, `rest` what is left over
    beside the noise, of the edge step, and `usual` what repeats of one compound leave. `pulls` are
    the nuisances in units of what is allowed, by name. `rivals` are other references that would do
    as well as some of these. `converged` says whether the fit ended.
    """

    places: tuple[int, ...]
    value: Floats
    std: Floats
    shift: float
    shift_std: float
    r_factor: float
    rest: float
    usual: float
    pulls: dict[str, float]
    rivals: tuple[int, ...] = ()
    converged: bool = True

    @property
    def other(self) -> bool:
        """Whether there is something that no reference is like."""
        return self.rest > OTHER * self.usual


class Combination:
    """References of one edge on equal bins.

    Parameters
    ----------
    references
        Their near edges, flattened with the same ranges.
    centres
        Of the bins, eV.
    edge
        Tabulated energy, eV.
    """

    def __init__(self, references: Sequence[NearEdge], centres: Floats, edge: float) -> None:
        flat = np.array([one.flat for one in references])
        self._table = _expanded(flat)
        self._blunt = [_blunted(flat, step) for step in STEPS]
        self._bases: dict[tuple[tuple[int, ...], bool], tuple[Floats, Floats]] = {}
        self._models: dict[tuple[tuple[int, ...], bool], _Model] = {}
        self._k2 = ETOK * np.maximum(centres - edge, 0.0)
        self._after = np.clip((centres - edge) / (centres[-1] - edge), 0.0, None)
        self._noise = np.array([one.noise for one in references])

    def __call__(
        self, samples: Sequence[NearEdge], shift_std: float, fluorescent: bool
    ) -> list[Fractions | None]:
        """Fractions of samples; None where none of the references is in it.

        Parameters
        ----------
        shift_std
            How well the energy scale is known, eV.
        fluorescent
            Whether over-absorption may have flattened them.
        """
        flat = np.array([one.flat for one in samples])
        noise = np.array([one.noise for one in samples])
        blunt = np.interp([one.step for one in samples], STEPS, self._blunt)
        fractions: list[Fractions | None] = [None] * len(samples)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        chosen = self._chosen(flat, noise, fluorescent)
        for i, (places, _) in enumerate(chosen):
            groups[places].append(i)
        for places, rows in groups.items():
            usual = np.hypot(REPEATS, blunt[rows])
            fit = self._fitted(places, flat[rows], noise[rows], usual, shift_std, fluorescent)
            spread = self._spread(fit)
            for j, i in enumerate(rows):
                if np.isfinite(spread.std[j]).all():
                    fractions[i] = _fractions(fit, j, spread, chosen[i][1])
        return fractions

    def _chosen(
        self, flat: Floats, noise: Floats, fluorescent: bool
    ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Which references each sample is compared with, and others that would do as well.

        All, or the likeliest few of many.
        """
        count = self._table.shape[2]
        if count <= MOST:
            return [(tuple(range(count)), ())] * len(flat)
        independent = flat.shape[1] / JOINED
        usual, size2 = np.maximum(noise**2, REPEATS**2), np.sum(flat**2, axis=1)
        scored: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in flat]
        for size in range(1, LIKELIEST + 1):
            for places in combinations(range(count), size):
                inverse, basis = self._basis(places, fluorescent)
                good = (flat @ inverse.T >= 0).all(axis=1)
                rest = (size2 - np.sum((flat @ basis) ** 2, axis=1)) / flat.shape[1]
                score = independent * np.log(np.maximum(rest, usual)) + size * np.log(independent)
                for i in np.flatnonzero(good):
                    scored[i].append((float(score[i]), places))
        return [_likeliest(one, count) for one in scored]

    def _basis(self, places: tuple[int, ...], fluorescent: bool) -> tuple[Floats, Floats]:
        """Shares (m, l) of some references, and a basis (l, s) of what they explain."""
        key = places, fluorescent
        if key not in self._bases:
            columns = self._linear(places, fluorescent)
            inverse = np.linalg.pinv(columns).astype(np.float64)
            basis = np.linalg.qr(columns)[0].astype(np.float64)
            self._bases[key] = inverse[: len(places)], basis
        return self._bases[key]

    def _linear(self, places: Sequence[int], fluorescent: bool) -> Floats:
        """(l, s) references, and to first order what is allowed for."""
        references = self._table[0, 0, list(places)].T
        moved, broader = (self._table[at][list(places)].mean(axis=0) for at in ((1, 0), (0, 1)))
        mean = references.mean(axis=1)
        damped = self._k2 * (mean - 1.0)
        nuisances = [np.ones_like(mean), self._after, moved, damped, broader]
        if fluorescent:
            nuisances.append(mean * (1 - mean))
        return np.column_stack([references, *nuisances])

    def _fitted(
        self,
        places: tuple[int, ...],
        flat: Floats,
        noise: Floats,
        usual: Floats,
        shift_std: float,
        fluorescent: bool,
    ) -> "_Fit":
        """Fits of samples (b, l); a share that would be less than nothing is nothing.

        `usual` (b,) is what is left over of a sample without noise.
        """
        model = self._model(places, fluorescent)
        prior = _prior(len(places), shift_std, fluorescent)
        bins, count = flat.shape[1], len(prior.std)
        weight = 1 / (np.hypot(noise, usual) * JOINED**0.5)

        def evaluate(x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
            rest = np.empty((len(x), bins + count))
            slopes = np.empty((len(x), count, bins + count))
            value = model(x, slopes[:, :, :bins])
            scale = weight[rows, None]
            np.multiply(value - flat[rows], scale, out=rest[:, :bins])
            np.divide(x, prior.std, out=rest[:, bins:])
            slopes[:, :, :bins] *= scale[:, None]
            slopes[:, :, bins:] = prior.held
            return rest, slopes.mT

        start = np.zeros((len(flat), count))
        start[:, : len(places)] = np.clip(flat @ model.shares, 0.0, 1.5)
        total = np.vecdot(flat, flat) * weight**2
        begin = evaluate(start, np.arange(len(flat)))
        end = minimize_batch(
            evaluate, start, begin, prior.bounds, total, bins - len(places),
            tolerance=TOLERANCE, small=prior.small,
        )  # fmt: skip
        return _Fit(places, prior.std, end, flat, noise, usual, weight)

    def _model(self, places: tuple[int, ...], fluorescent: bool) -> "_Model":
        key = places, fluorescent
        if key not in self._models:
            table = self._table[:, :, list(places)]
            self._models[key] = _Model(table, self._k2, self._after, fluorescent)
        return self._models[key]

    def _spread(self, fit: "_Fit") -> "_Spread":
        """Shares of samples, and what there is to say about them; NaN where there are none."""
        m, bins, end, x = len(fit.places), fit.flat.shape[1], fit.end, fit.end.x
        rest = end.residual[:, :bins] / fit.weight[:, None]
        left = np.vecdot(rest, rest)
        held = end.bound.copy()
        held[:, :m] = False
        unheld, absent = end.inverse(held), x[:, :m] <= 0
        inverse = conditional(unheld, end.bound[:, :m])
        cov = _covariances(fit, inverse[:, : m + 1], rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = x[:, :m].sum(axis=1)
            share = x[:, :m] / total[:, None]
            to_shares = (np.eye(m) - share[:, :, None]) / total[:, None, None]
            std, loose = (
                np.sqrt(np.vecdot(to_shares @ one[:, :m, :m], to_shares)) for one in (cov, inverse)
            )
            # what nothing in the data decides is not in that
            std = np.where(loose > ALIKE, loose, std)
            if absent.any():
                # what may be there of these is missing in the others
                loose = np.sqrt(np.diagonal(unheld, axis1=1, axis2=2)[:, :m])
                unseen = np.where(absent, loose / total[:, None], 0.0)
                std = np.hypot(std, share * np.sqrt(np.sum(unseen**2, axis=1))[:, None])
                std = np.where(absent, unseen, std)
            quiet = np.hypot(fit.noise, share @ self._noise[list(fit.places)])
            heat = np.abs(x[:, m + len(NUISANCES) :][:, :m] / SIGMA2 * share).max(axis=1)
            return _Spread(
                share, np.hypot(std, np.hypot(LEAST, HEAT_ERROR * heat)[:, None]),
                np.sqrt(cov[:, m, m]),
                left / np.vecdot(fit.flat, fit.flat),
                np.sqrt(np.maximum(left / bins - quiet**2, 0.0)),
                np.hypot(fit.usual, quiet * QUIET), heat,
            )  # fmt: skip


def _covariances(fit: "_Fit", inverse: Floats, rest: Floats) -> Floats:
    """(b, m + 1, m + 1) of shares and shift: by what is left over, errors of references, priors.

    `inverse` (b, m + 1, n) has the rows of these; `rest` (b, l) is what is left over.
    """
    bins = rest.shape[1]
    m, by_share = len(fit.places), fit.end.jacobian[:, :bins].mT
    answer = inverse @ by_share * fit.weight[:, None, None]
    # what is left over is a stationary series: its covariances at lags, and answers so far ahead
    series = np.zeros((len(rest), m + 2, bins + LAGS - 1))
    series[:, :-1, :bins], series[:, -1, :bins] = answer, rest
    ahead = as_strided(
        series, (*answer.shape[:1], m + 2, bins, LAGS), (*series.strides, series.itemsize)
    )
    alike = (rest[:, None] @ ahead[:, -1])[:, 0] * TAPER
    alike[:, 0] = np.maximum(alike[:, 0], bins * fit.noise**2 / 2)
    cov = answer @ (ahead[:, :-1] @ (alike[:, None, :, None] / bins))[..., 0].mT
    cov += cov.mT.copy()
    parts = by_share[:, :m] * (fit.end.x[:, :m] / fit.weight[:, None])[..., None]
    # a reference whose energies are off by one bin either way; beyond the outer bins it is level
    shifted = (parts[..., 2:] - parts[..., :-2]) / (2 * BIN)
    moved = np.concatenate(
        [STEP_ERROR * (answer @ parts.mT), ENERGY_ERROR * (answer[..., 1:-1] @ shifted.mT),
         inverse / fit.prior], axis=2,
    )  # fmt: skip
    cov += moved @ moved.mT
    return cov


class _Prior(NamedTuple):
    """What is likely of the variables of `_Model` (n,): `std` about zero, none of shares; bounds.

    `held` (n, n) has one over the standard deviations on its diagonal; a step of a fit below
    `small` in every variable is its last.
    """

    std: Floats
    small: Floats
    bounds: tuple[Floats, Floats]
    held: Floats


@lru_cache(maxsize=64)
def _prior(m: int, shift_std: float, fluorescent: bool, small: float = SMALL_STEP) -> _Prior:
    std = np.array([
        *[np.inf] * m, shift_std, OFFSET, TILT, WIDTH, *[SIGMA2] * m,
        *[OVER_ABSORPTION] * fluorescent,
    ])  # fmt: skip
    high = np.where(np.isfinite(std), 4 * std, 5.0)
    low = -high
    low[:m] = 0.0
    if fluorescent:
        low[-1] = 0.0  # it only flattens
    steps = np.where(np.isfinite(std), np.inf, small)
    return _Prior(std, steps, (low, high), np.diag(1 / std))


class _Fit(NamedTuple):
    """Fits of samples by the same references, which ended at `end`, with variables of `_Model`.

    `flat` (b, l) are the samples; `noise`, `usual`, what is left over beside it, and `weight` (b,)
    are of a bin.
    """

    places: tuple[int, ...]
    prior: Floats
    end: Minimum
    flat: Floats
    noise: Floats
    usual: Floats
    weight: Floats


class _Spread(NamedTuple):
    """Of samples (b,): shares (b, m) with error bars, and what `Fractions` has besides."""

    share: Floats
    std: Floats
    shift_std: Floats
    r_factor: Floats
    rest: Floats
    usual: Floats
    heat: Floats


def _fractions(fit: _Fit, i: int, spread: _Spread, rivals: tuple[int, ...]) -> Fractions:
    """Of one sample."""
    m, x = len(fit.places), fit.end.x[i].tolist()
    pulls = {name: x[m + j] / float(fit.prior[m + j]) for j, name in enumerate(NUISANCES)}
    pulls["heat"] = float(spread.heat[i])
    if len(x) > 2 * m + len(NUISANCES):
        pulls["over_absorption"] = x[-1] / OVER_ABSORPTION
    return Fractions(
        fit.places, spread.share[i], spread.std[i], x[m], float(spread.shift_std[i]),
        float(spread.r_factor[i]), float(spread.rest[i]), float(spread.usual[i]), pulls, rivals,
        bool(fit.end.converged[i]),
    )  # fmt: skip


def _likeliest(
    scored: Sequence[tuple[float, tuple[int, ...]]], count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The likeliest choice, and what takes the place of some of it in choices as good."""
    if not scored:
        return tuple(range(min(count, LIKELIEST))), ()
    score, best = min(scored)
    rivals = {
        place
        for other, places in scored
        if other < score + AS_GOOD and not set(best) <= set(places)
        for place in set(places) - set(best)
    }
    return best, tuple(sorted(rivals))


class _Model:
    """The sample as x has it: shares (m), shift, offset, tilt, resolution, sigma2 (m).

    In fluorescence a of over-absorption is last. `shares` (l, m) gives, by a product, the shares of
    a sample to begin with.
    """

    def __init__(self, table: Floats, k2: Floats, after: Floats, fluorescent: bool) -> None:
        *_, self._m, bins = table.shape
        self._fluorescent = fluorescent
        self.shares = np.linalg.pinv(table[0, 0])
        beyond = table.copy()
        beyond[0, 0] -= 1.0
        self._table = beyond.reshape(-1, self._m * bins)
        self._damping, self._after = -2 * k2, after
        # what `_parts` gives where nothing is moved, as every fit begins
        self._still = np.stack([beyond[0, 0], beyond[1, 0], beyond[0, 1]])[:, None]

    def __call__(self, x: Floats, slopes: Floats) -> Floats:
        """(b, l), and its derivatives into `slopes` (b, n, l)."""
        m = self._m
        share, (offset, tilt) = x[:, :m, None], x[:, m + 1 : m + 3].T[..., None]
        parts = self._parts(x) if x[:, m:].any() else self._still
        beyond, moved, broader = (share.mT @ parts)[..., 0, :]
        value = beyond + share.sum(axis=1)
        np.add(parts[0], 1.0, out=slopes[:, :m])
        slopes[:, m], slopes[:, m + 1], slopes[:, m + 2] = moved, 1.0, self._after
        slopes[:, m + 3] = broader
        np.multiply(parts[0], self._damping * share, out=slopes[:, m + 4 : 2 * m + 4])
        if self._fluorescent:
            a = x[:, -1:]
            thick = 1 + a * value
            np.divide(value * (1 - value), thick**2, out=slopes[:, -1])
            chain = (1 + a) / thick
            value *= chain
            for own in (slice(m + 1), slice(m + 3, -1)):  # not offset and tilt
                slopes[:, own] *= (chain / thick)[:, None]
        return value + offset + tilt * self._after

    def _parts(self, x: Floats) -> Floats:
        """References less their edge step, and derivatives by shift and resolution, (3, b, m, l).

        Below the edge nothing is damped.
        """
        m, shift, width = self._m, x[:, self._m, None], x[:, self._m + 3, None]
        by_shift, by_width = shift**ORDERS, width**POWERS
        factors = np.array([
            by_shift[:, :, None] * by_width[:, None],
            (ORDERS * shift**LOWER_ORDERS)[:, :, None] * by_width[:, None],
            by_shift[:, :, None] * (POWERS * width**LOWER_POWERS)[:, None],
        ])  # fmt: skip
        parts = (factors.reshape(3, len(x), -1) @ self._table).reshape(3, len(x), m, -1)
        parts *= np.exp(self._damping * x[:, m + 4 : 2 * m + 4, None])
        return parts


def _integrals(flat: Floats) -> tuple[Floats, BSpline]:
    """Bounds (l + 1,) of bins, eV, and the spline whose differences there are rows (m, l)."""
    bounds = np.arange(flat.shape[1] + 1) * BIN
    sums = np.concatenate([np.zeros((len(flat), 1)), np.cumsum(flat, axis=1) * BIN], axis=1)
    return bounds, make_interp_spline(bounds, sums, k=5, axis=1)


def _blunted(flat: Floats, step: float) -> float:
    """By how much bins of a scan in such steps, eV, are off those of references (m, l), rms."""
    bounds, spline = _integrals(flat)
    errors = []
    for first in step * np.arange(PHASES) / PHASES:
        energy = np.arange(first, bounds[-1], step)
        at = bounds[(bounds >= energy[0]) & (bounds <= energy[-1])]
        integral = Integral(energy, at)
        errors.append(
            [np.diff(integral(one)) - np.diff(true) for one, true in
             zip(spline(energy, 1), spline(at), strict=True)]
        )  # fmt: skip
    return float(np.sqrt(np.mean([np.mean(np.square(one)) for one in errors])) / BIN)


def _expanded(flat: Floats) -> Floats:
    """References (m, l) in powers of shift and of resolution: (o, p, m, l), [0, 0] as they are.

    By shift it is Taylor's series of the spline whose integrals over bins they are.
    """
    bounds, spline = _integrals(flat)
    moved = np.array([
        (-1) ** order / factorial(order) * np.diff(spline(bounds, order), axis=1) / BIN
        for order in range(len(ORDERS))
    ])  # fmt: skip
    broader = np.array([
        gaussian_filter1d(moved, w**0.5 / BIN, axis=2, mode="nearest") - moved for w in WIDTHS
    ])  # fmt: skip
    bent = np.tensordot(np.linalg.pinv(WIDTHS[:, None] ** POWERS[1:]), broader, axes=1)
    return np.stack([moved, *bent], axis=1)
