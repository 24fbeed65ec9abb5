"""What the sweeps of a run have in common, learned as they come.

FEFF's errors and the bond's anharmonicity do not change from sweep to sweep, and how farther
shells follow the nearest changes little. A single spectrum cannot tell them from R; a sample that
is heated can. So they are shared by the sweeps of a run, and what differs between these is then
known far better than what is true of one.

All is linear and Gaussian about each fit: with s what is shared, y what a sweep has of its own,
d what is fitted, d = f + H_s s + H_y y + noise. A sweep that teaches updates s as a Kalman filter
does. It looks back only, so that replay gives what was live.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from exafsd.inference.refinement.variables import Variables
from exafsd.spectra import Floats

#: Standard deviation of a sweep's E0 about where its own near edge puts it, eV, beyond what all
#: sweeps share: noise of the near edge.
OWN_E0 = 0.03
#: Sweeps whose sigma2 are within this ratio are of one kind. Misfit other than noise is the same in
#: all of them: more of them only make its noise smaller, until that is this many times less, and
#: then they teach nothing more. Else a state of the sample would be taken for a fact of theory.
ALIKE, LESSONS = 1.1, 4.0
#: Misfit of simulated spectra over what is expected, mostly (99 in 100 of Cu and CdS).
USUAL = 3.0
#: What a noisy sweep counts for at least, so that these stop teaching, too.
LEAST_LESSON = 0.02
#: What rounding may make of a variance that has become nothing, relative to the prior's.
JITTER = 1e-9
#: Share of the variance of misfit of other kinds that differs between sweeps. Set on Fe, Pt, CdS.
SCATTER = 0.1
#: How far changes of R and sigma2 may be off for what is not in the model, of the change; set on
#: the temperature series of the eight models that are judged.
R_CHANGE, SIGMA2_CHANGE = 0.12, 0.025


@dataclass(frozen=True)
class Expected:
    """What is likely of the next sweep, of n variables and e errors of FEFF.

    `mean` (n,) and `std` are of the variables, as the Cholesky factor (n, n) of their covariance;
    E0 counts from where the sweep has it. FEFF's errors are `errors` (e,) where the variables are
    at their means, plus `follow` (e, n) times how far they are from them, and `spread` (e, e) times
    numbers of standard deviation 1.
    """

    mean: Floats
    std: Floats
    errors: Floats
    follow: Floats
    spread: Floats

    @cached_property
    def hold(self) -> Floats:
        """What makes differences from the means white (n, n): the inverse of `std`."""
        return np.linalg.inv(self.std).astype(np.float64)


@dataclass(frozen=True)
class Linear:
    """Fits about their ends.

    `x` (b, n) are the variables there, `e0` (b,) the mean of E0 and `e0_std` how well it is known
    beyond what is shared, eV. `misfit` (b, l) is model less data, `rest` (b, l) the data less the
    model without FEFF's errors; `errors` (b, l, e) and `slopes` (b, l, n) are what these errors and
    the variables do. `noise` (b, l, l) is a covariance, `floor` (b,) the variance of misfit of any
    other kind.
    """

    x: Floats
    e0: Floats
    e0_std: float
    misfit: Floats
    rest: Floats
    errors: Floats
    slopes: Floats
    noise: Floats
    floor: Floats

    def of(self, i: int) -> "Linear":
        """One of the fits, b = 1."""
        arrays = {name: value for name, value in vars(self).items() if name != "e0_std"}
        return Linear(**{n: a[i : i + 1] for n, a in arrays.items()}, e0_std=self.e0_std)


@dataclass(frozen=True)
class Change:
    """What a trend makes of the m own variables of fits.

    `shift` (b, m) is to be added to them, so that they count from the first sweep, and `cov`
    (b, m, m) to what is uncertain of them; `scatter` (b, m, m) is the covariance against other
    sweeps of the trend.
    """

    shift: Floats
    cov: Floats
    scatter: Floats


@dataclass(frozen=True)
class Anchor:
    """The first sweep of a trend, from which change is counted.

    What is learned later must not move all values at once, which would look like a change.
    `answer` (m, s) is how its own variables answer to what is shared, `mean` (s,) and `cov` (s, s)
    what that was taken to be, `own` (m,) its own variables.
    """

    answer: Floats
    mean: Floats
    cov: Floats
    own: Floats


@dataclass
class Trend:
    """What is shared by the sweeps of one run, channel and model, and how well it is known.

    `mean` (s,) and `cov` (s, s) are of FEFF's errors, in units of their standard deviations, and
    then of `Variables.shared`. `lessons` says of each kind of sweep how much less than other misfit
    the noise of all that was learned from is, in variance. `doubt` is how much worse than expected
    the first sweep fits, in variance: so much less is learned from all.
    """

    mean: Floats
    cov: Floats
    lessons: dict[int, float] = field(default_factory=dict[int, float])
    anchor: Anchor | None = None
    doubt: float = 1.0

    @classmethod
    def begin(cls, variables: Variables, errors: int, e0_std: float) -> "Trend":
        """Before the first sweep.

        Parameters
        ----------
        variables
            Of the model's refinement.
        errors
            How many FEFF has.
        e0_std
            Of the material's E0, eV.
        """
        shared = list(variables.shared)
        mean, std = variables.mean[shared], variables.std[shared]
        place = shared.index(variables.e0)
        mean[place], std[place] = 0.0, e0_std
        loose = [shared.index(i) for i in variables.loose]
        std[loose] = np.sqrt(std[loose] ** 2 - variables.loose_std**2)
        return cls(
            np.concatenate([np.zeros(errors), mean]),
            np.diag(np.concatenate([np.ones(errors), std]) ** 2),
        )

    def teaches(self, sigma2: float) -> bool:
        """Whether a sweep with about this sigma2, angstrom^2, has anything to teach yet."""
        return self.lessons.get(_kind(sigma2), 0.0) < LESSONS

    def expected(self, variables: Variables, e0_std: float) -> Expected:
        """What is likely of a sweep whose E0 is known to `e0_std`, eV, beyond what is shared."""
        errors = len(self.mean) - len(variables.shared)
        mean, cov = variables.mean.copy(), np.diag(variables.std**2)
        shared = list(variables.shared)
        mean[shared] = self.mean[errors:]
        cov[np.ix_(shared, shared)] = self.cov[errors:, errors:]
        cov[variables.e0, variables.e0] += e0_std**2
        loose = list(variables.loose)
        cov[loose, loose] += variables.loose_std**2
        moved = np.zeros((errors, len(mean)))
        moved[:, shared] = self.cov[:errors, errors:]
        follow = np.linalg.solve(cov, moved.T).T.astype(np.float64)
        spread = self.cov[:errors, :errors] - follow @ moved.T
        std = np.linalg.cholesky(cov).astype(np.float64)
        return Expected(mean, std, self.mean[:errors], follow, _root(spread))

    def change(self, variables: Variables, fits: Linear) -> Change:
        """What fits say of change since the first sweep."""
        lesson = _lesson(self, variables, fits)
        answer, scatter = _own(variables, fits, lesson)
        if self.anchor is None:
            none = np.zeros_like(scatter)
            return Change(none[:, 0], none, scatter)
        first = self.anchor.answer
        shift = -(lesson.mean - self.anchor.mean) @ first.T
        learned = first @ (self.anchor.cov - self.cov) @ first.T
        taught = first @ lesson.gain @ lesson.moved @ first.T
        differs = answer - first
        apart = differs @ self.cov @ np.swapaxes(differs, 1, 2)
        apart -= differs @ lesson.gain @ lesson.moved @ np.swapaxes(differs, 1, 2)
        changed = fits.x[:, list(variables.own)] + shift - self.anchor.own
        for place, share in ((variables.r, R_CHANGE), (variables.sigma2, SIGMA2_CHANGE)):
            i = variables.own.index(place)
            apart[:, i, i] += (share * changed[:, i]) ** 2
        return Change(shift, learned + taught, scatter + apart)

    def learn(self, variables: Variables, fit: Linear, sigma2: float) -> None:
        """Learn from one fit, of which `sigma2` is as it was given to `teaches`."""
        floor, noise = float(fit.floor[0]), float(np.trace(fit.noise[0])) / fit.rest.shape[1]
        kind = _kind(sigma2)
        before = self.lessons.get(kind, 0.0)
        after = before + max(floor / noise, LEAST_LESSON)
        # what all of this kind say together, less what those before have said
        news = after / (1 + after) - before / (1 + before)
        if self.anchor is None:
            self.doubt = max(1.0, float(np.mean(fit.misfit**2)) / (floor + noise) / USUAL)
            alone = _lesson(self, variables, fit)
            own = fit.x[0, list(variables.own)]
            answer, _ = _own(variables, fit, alone)
            self.anchor = Anchor(answer[0], alone.mean[0], _less(self.cov, alone), own)
        lesson = _lesson(self, variables, fit, self.doubt * floor / (floor + noise) / news)
        self.mean, self.cov = lesson.mean[0], _less(self.cov, lesson)
        self.lessons[kind] = after


@dataclass(frozen=True)
class _Lesson:
    """What fits say of what is shared.

    `of_shared` (b, l, s) and `of_own` (b, l, m + 1), E0 last, are what moves the fitted numbers;
    `own_cov` (m + 1,) variances; `noise` (b, l, l) all that is not shared; `moved` (b, l, s),
    `gain` (b, s, l) and `mean` (b, s) as in a Kalman filter.
    """

    of_shared: Floats
    of_own: Floats
    own_cov: Floats
    noise: Floats
    moved: Floats
    gain: Floats
    mean: Floats


def _lesson(trend: Trend, variables: Variables, fits: Linear, doubt: float = 1.0) -> _Lesson:
    """`doubt` is by how much more a fit may be off than it says."""
    shared, own = list(variables.shared), list(variables.own)
    of_shared = np.concatenate([fits.errors, fits.slopes[:, :, shared]], axis=2)
    loose = list(variables.loose)
    of_own = fits.slopes[:, :, [*own, variables.e0, *loose]]
    own_mean = np.zeros((len(fits.x), of_own.shape[2]))
    own_mean[:, : len(own)], own_mean[:, len(own)] = variables.mean[own], fits.e0
    own_cov = np.concatenate([variables.std[own], [fits.e0_std], variables.loose_std]) ** 2
    # what of the data these explain, which does not depend on where the model was made linear
    rest = fits.rest + (fits.slopes @ fits.x[..., None])[..., 0]
    rest -= (of_own @ own_mean[..., None])[..., 0] + of_shared @ trend.mean
    noise = doubt * (fits.noise + fits.floor[:, None, None] * np.eye(rest.shape[1]))
    noise = noise + (of_own * own_cov) @ np.swapaxes(of_own, 1, 2)
    moved = of_shared @ trend.cov
    gain = np.linalg.solve(moved @ np.swapaxes(of_shared, 1, 2) + noise, moved)
    gain = np.swapaxes(gain, 1, 2).astype(np.float64)
    mean = trend.mean + (gain @ rest[..., None])[..., 0]
    return _Lesson(of_shared, of_own, own_cov, noise, moved, gain, mean)


def _less(cov: Floats, lesson: _Lesson) -> Floats:
    """What is left of a covariance after one fit."""
    left = cov - lesson.gain[0] @ lesson.moved[0]
    return (left + left.T) / 2


def _own(variables: Variables, fits: Linear, lesson: _Lesson) -> tuple[Floats, Floats]:
    """How own variables answer to what is shared (b, m, s), and their scatter (b, m, m)."""
    count = len(variables.own)
    turned = np.swapaxes(lesson.of_own * lesson.own_cov, 1, 2)
    gain = turned @ np.linalg.inv(lesson.noise)
    residual_map = np.eye(len(lesson.own_cov)) - gain @ lesson.of_own
    alike = fits.noise + SCATTER * fits.floor[:, None, None] * np.eye(fits.rest.shape[1])
    scatter = gain @ alike @ np.swapaxes(gain, 1, 2)
    scatter += (residual_map * lesson.own_cov) @ np.swapaxes(residual_map, 1, 2)
    return -gain[:, :count] @ lesson.of_shared, scatter[:, :count, :count]


def _kind(sigma2: float) -> int:
    """Sweeps of one kind have about the same sigma2."""
    return round(np.log(max(sigma2, 1e-6)) / np.log(ALIKE))


def _root(cov: Floats) -> Floats:
    """(e, e) whose square is a covariance that may have lost a little to rounding."""
    return np.linalg.cholesky(cov + JITTER * np.eye(len(cov))).astype(np.float64)
