"""Linear combination of measured near edges, with what differs between scans of one sample.

A sum of references is compared with a sample after what tells nothing of its composition: the
energy scale, the resolution, heat, an offset and a tilt of the normalisation, over-absorption in
fluorescence. All of these have priors, none is free, so that they cannot make a phase of nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from exafsd.composition.window import BIN, NearEdge
from exafsd.contract.grid import ETOK
from exafsd.inference.refinement.least_squares import Minimum, minimize
from exafsd.spectra import Floats

#: Values (b, l) at variables (b, n), whose derivatives are put into (b, n, l)
_Values = Callable[[Floats, Floats], Floats]

#: Standard deviations of what is allowed for: energy scale with a foil and without, eV; offset and
#: tilt (over the range above the edge) of the normalisation; resolution, eV^2 more than the
#: references'; sigma2 more than a reference's, angstrom^2; a of over-absorption,
#: y (1 + a) / (1 + a y).
SHIFT, SHIFT_ALONE = 0.1, 0.5
OFFSET, TILT = 0.005, 0.02
WIDTH, SIGMA2, OVER_ABSORPTION = 0.6, 0.006, 0.15
#: Resolutions, eV^2, through which what they do to a reference is a parabola; below 0 it goes on.
WIDTHS = np.array([0.0, 0.3, 0.6, 1.0, 1.5, 2.0])
#: What a fit has beside shares and heat, in this order.
NUISANCES = ("energy_shift", "offset", "tilt", "resolution", "over_absorption")
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
#: By how much error bars are wider than these make them; set on one half of mixtures of five zinc
#: compounds and judged on the other.
WIDER = 1.25
#: A fit is done when its next step, which it still makes, is below this share of what noise and
#: misfit do to its shares, or below half the least error of any share. Going on would move no share
#: by a fifth of that error.
TOLERANCE, SMALL_STEP = 0.15, LEAST / 2
#: Bins over which what is left over is correlated.
LAGS = 4
#: Weights of covariances at these lags; each counts once on either side, none at lag 0.
TAPER = 1 - np.arange(LAGS) / LAGS
TAPER[0] = 0.5
#: Something else is there where what is left over is this many times noise and repeats.
OTHER = 2.8


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
        broader = np.stack(
            [gaussian_filter1d(flat, w**0.5 / BIN, axis=1, mode="nearest") for w in WIDTHS[1:]]
        )
        powers = np.stack([WIDTHS[1:], WIDTHS[1:] ** 2], axis=1)
        bend = np.einsum("pw,wml->pml", np.linalg.pinv(powers), broader - flat)
        self._table = np.stack([flat, *bend])
        self._bases: dict[tuple[tuple[int, ...], bool], tuple[Floats, Floats]] = {}
        self._models: dict[tuple[int, ...], _Model] = {}
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
        fractions: list[Fractions | None] = [None] * len(samples)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        chosen = self._chosen(flat, noise, fluorescent)
        for i, (places, _) in enumerate(chosen):
            groups[places].append(i)
        for places, rows in groups.items():
            fit = self._fitted(places, flat[rows], noise[rows], shift_std, fluorescent)
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
        count = self._table.shape[1]
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
        references = self._table[0][list(places)].T
        mean = references.mean(axis=1)
        damped = self._k2 * (mean - 1.0)
        broader = self._table[1][list(places)].mean(axis=0)
        nuisances = [np.ones_like(mean), self._after, np.gradient(mean, BIN), damped, broader]
        if fluorescent:
            nuisances.append(mean * (1 - mean))
        return np.column_stack([references, *nuisances])

    def _fitted(
        self,
        places: tuple[int, ...],
        flat: Floats,
        noise: Floats,
        shift_std: float,
        fluorescent: bool,
    ) -> "_Fit":
        """Fits of samples (b, l); a share that would be less than nothing is nothing."""
        model = self._model(places)
        prior = _prior(len(places), shift_std, fluorescent)
        bins, count = flat.shape[1], len(prior.std)
        weight = 1 / (np.hypot(noise, REPEATS) * JOINED**0.5)

        def evaluate(
            x: Floats, rows: NDArray[np.intp], value_of: _Values = model
        ) -> tuple[Floats, Floats]:
            rest = np.empty((len(x), bins + count))
            slopes = np.empty((len(x), count, bins + count))
            value = value_of(x, slopes[:, :, :bins])
            scale = weight[rows, None]
            np.multiply(value - flat[rows], scale, out=rest[:, :bins])
            np.divide(x, prior.std, out=rest[:, bins:])
            slopes[:, :, :bins] *= scale[:, None]
            slopes[:, :, bins:] = prior.held
            return rest, slopes.mT

        start = np.zeros((len(flat), count))
        start[:, : len(places)] = np.clip(flat @ model.shares, 0.0, 1.5)
        total = np.vecdot(flat, flat) * weight**2
        begin = evaluate(start, np.arange(len(flat)), model.undisturbed)
        end = minimize(
            evaluate, start, begin, prior.bounds, total, bins - len(places),
            tolerance=TOLERANCE, small=prior.small,
        )  # fmt: skip
        return _Fit(places, prior.std, end, flat, noise, weight)

    def _model(self, places: tuple[int, ...]) -> "_Model":
        if places not in self._models:
            self._models[places] = _Model(self._table[:, list(places)], self._k2, self._after)
        return self._models[places]

    def _spread(self, fit: "_Fit") -> "_Spread":
        """Shares of samples, and what there is to say about them; NaN where there are none."""
        m, bins, end, x = len(fit.places), fit.flat.shape[1], fit.end, fit.end.x
        rest = end.residual[:, :bins] / fit.weight[:, None]
        left = np.vecdot(rest, rest)
        inverse = end.inverse()
        cov = _covariances(fit, inverse[:, : m + 1], rest)
        absent = x[:, :m] <= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            total = x[:, :m].sum(axis=1)
            share = x[:, :m] / total[:, None]
            to_shares = (np.eye(m) - share[:, :, None]) / total[:, None, None]
            std, loose = (
                np.sqrt(np.vecdot(to_shares @ one[:, :m, :m], to_shares)) for one in (cov, inverse)
            )
            # what nothing in the data decides is not in that
            std = np.where(loose > ALIKE, loose, std * WIDER)
            if absent.any():
                # what may be there of these is missing in the others
                bound = end.bound.copy()
                bound[:, :m] = False
                loose = end.errors(bound)[:, :m]
                unseen = np.where(absent, loose / total[:, None] * WIDER, 0.0)
                std = np.hypot(std, share * np.sqrt(np.sum(unseen**2, axis=1))[:, None])
                std = np.where(absent, unseen, std)
            quiet = np.hypot(fit.noise, share @ self._noise[list(fit.places)])
            heat = np.abs(x[:, m + len(NUISANCES) :] / SIGMA2 * share).max(axis=1)
            return _Spread(
                share, np.hypot(std, LEAST), np.sqrt(cov[:, m, m]),
                left / np.vecdot(fit.flat, fit.flat),
                np.sqrt(np.maximum(left / bins - quiet**2, 0.0)),
                np.hypot(REPEATS, quiet / 3), heat,
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
    ahead = sliding_window_view(series, LAGS, axis=2)
    alike = (rest[:, None] @ ahead[:, -1])[:, 0] * TAPER
    alike[:, 0] = np.maximum(alike[:, 0], bins * fit.noise**2 / 2)
    cov = answer @ (ahead[:, :-1] @ (alike[:, None, :, None] / bins))[..., 0].mT
    cov += cov.mT.copy()
    parts = by_share[:, :m] * (fit.end.x[:, :m] / fit.weight[:, None])[..., None]
    wrong = np.concatenate([STEP_ERROR * parts, ENERGY_ERROR * _slope(parts)], axis=1)
    moved = np.concatenate([answer @ wrong.mT, inverse / fit.prior], axis=2)
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
        *[np.inf] * m, shift_std, OFFSET, TILT, WIDTH, OVER_ABSORPTION, *[SIGMA2] * m,
    ])  # fmt: skip
    high = np.where(np.isfinite(std), 4 * std, 5.0)
    low = -high
    low[:m] = 0.0
    low[m + 4] = 0.0  # over-absorption only flattens
    if not fluorescent:
        high[m + 4] = 0.0
    steps = np.where(np.isfinite(std), np.inf, small)
    return _Prior(std, steps, (low, high), np.diag(1 / std))


class _Fit(NamedTuple):
    """Fits of samples by the same references, which ended at `end`, with variables of `_Model`.

    `flat` (b, l) are the samples, `noise` and `weight` (b,) of a bin.
    """

    places: tuple[int, ...]
    prior: Floats
    end: Minimum
    flat: Floats
    noise: Floats
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
    """The sample as x has it: shares (m), shift, offset, tilt, resolution, a, and sigma2 (m).

    `shares` (l, m) gives, by a product, the shares of a sample to begin with.
    """

    def __init__(self, table: Floats, k2: Floats, after: Floats) -> None:
        self._table, self._damping, self._after = table, -2 * k2, after
        self._m = table.shape[1]
        self.shares = np.linalg.pinv(table[0])
        self._slope, self._damped = _slope(table[0]), self._damping * (table[0] - 1)

    def __call__(self, x: Floats, slopes: Floats) -> Floats:
        """(b, l), and its derivatives into `slopes` (b, n, l)."""
        m = self._m
        share, shift, a = x[:, None, :m], x[:, m, None, None], x[:, m + 4, None]
        beyond, by_width = self._parts(x)
        # as they are, then their derivatives by resolution, and by sigma2 of each
        bent = np.empty((len(x), 2 * m + 1, beyond.shape[2]))
        np.add(beyond, 1.0, out=bent[:, :m])
        np.matmul(share, by_width, out=bent[:, m : m + 1])
        np.multiply(beyond, self._damping * x[:, :m, None], out=bent[:, m + 1 :])
        slope = _slope(bent)
        bend = _slope(slope)
        by_shift = (share @ (shift * bend[:, :m] - slope[:, :m]))[:, 0]
        slope *= shift
        bend *= shift**2 / 2
        bent -= slope
        bent += bend
        moved = (share @ bent[:, :m])[:, 0]
        thick = 1 + a * moved
        chain = (1 + a) / thick
        value = moved * chain + x[:, m + 1, None] + x[:, m + 2, None] * self._after
        chain /= thick
        np.multiply(bent[:, :m], chain[:, None], out=slopes[:, :m])
        np.multiply(by_shift, chain, out=slopes[:, m])
        slopes[:, m + 1] = 1.0
        slopes[:, m + 2] = self._after
        np.multiply(bent[:, m], chain, out=slopes[:, m + 3])
        np.divide(moved * (1 - moved), thick**2, out=slopes[:, m + 4])
        np.multiply(bent[:, m + 1 :], chain[:, None], out=slopes[:, m + 5 :])
        return value

    def undisturbed(self, x: Floats, slopes: Floats) -> Floats:
        """The same where all but shares is zero, in fewer steps."""
        m, share = self._m, x[:, : self._m]
        value = share @ self._table[0]
        slopes[:, :m] = self._table[0]
        np.matmul(-share, self._slope, out=slopes[:, m])
        slopes[:, m + 1] = 1.0
        slopes[:, m + 2] = self._after
        np.matmul(share, self._table[1], out=slopes[:, m + 3])
        np.multiply(value, 1 - value, out=slopes[:, m + 4])
        np.multiply(share[..., None], self._damped, out=slopes[:, m + 5 :])
        return value

    def _parts(self, x: Floats) -> tuple[Floats, Floats]:
        """References less their edge step (b, m, l), and their derivatives by resolution."""
        m = self._m
        width = x[:, m + 3, None, None]
        flat, linear, square = self._table
        curved = width * square
        # below the edge nothing is damped
        damp = np.exp(self._damping * x[:, m + 5 :, None])
        beyond = (flat - 1 + width * (linear + curved)) * damp
        return beyond, (linear + 2 * curved) * damp


def _slope(rows: Floats) -> Floats:
    """Derivative by energy along the last axis: `np.gradient`, without what that costs."""
    slope = np.empty_like(rows)
    np.subtract(rows[..., 2:], rows[..., :-2], out=slope[..., 1:-1])
    slope[..., 1:-1] /= 2 * BIN
    slope[..., 0] = (rows[..., 1] - rows[..., 0]) / BIN
    slope[..., -1] = (rows[..., -1] - rows[..., -2]) / BIN
    return slope
