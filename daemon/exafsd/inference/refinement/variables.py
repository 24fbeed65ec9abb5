"""What the refinement varies, what it holds to be likely, and what theta follows from that."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exafsd.contract.card import Card, Parameter, Refinement
from exafsd.spectra import Floats

#: sigma2 about which the farther shells' ratios are linear in the logarithm, angstrom^2.
USUAL_SIGMA2 = 0.008
#: The network's priors of N S0^2 and of the nearest R are those of training: this much wider, they
#: only keep the fit from running away.
WIDER = 3.0
#: Standard deviations of a variable about its prior that are allowed.
FARTHEST = 6.0
#: How loosely the sweeps of a run share how farther shells follow the nearest: a share of the
#: standard deviation of distances, and a factor of the variance of the logarithm of sigma2, since
#: bonds of one kind stay alike when they are heated, and others do not. If all were shared, sigma2
#: of oxygen would follow that of the metal behind it, which is seen better: in ZnO it was
#: 0.0025 angstrom^2 off after 300 K. Set on independent simulations of Fe, ZnO and Cu2O.
LOOSE_STRAIN, LOOSE_SIGMA2 = 0.5, 0.4
#: E0 where nothing is known of the material's, eV.
VAGUE_E0 = 10.0


@dataclass(frozen=True)
class Variables:
    """Variables x (b, n) of the refinement, in the order of theta, n = p.

    E0, N S0^2, R and sigma2 of the nearest shell are themselves. In the place of C3 stands a of
    C3 = a (sigma^4 - 2/3 sigma_0^4); in that of another distance, how far it is from the nearest
    shell's strain; in that of another sigma2, the logarithm of its ratio to the nearest one, less
    what is usual. So each has a prior of its own, (n,) `mean` and `std`, and `low`, `high` bounds.
    """

    card: Card
    ids: tuple[str, ...]
    mean: Floats
    std: Floats
    low: Floats
    high: Floats
    #: places of E0, R, sigma2 and C3 of the nearest shell
    e0: int
    r: int
    sigma2: int
    c3: int
    #: places of what follows the strain, and how far it moves per strain; of other sigma2
    strained: tuple[tuple[int, float, float], ...]
    damped: tuple[tuple[int, float, float], ...]

    @classmethod
    def of(cls, card: Card) -> "Variables | None":
        """Variables of a card; None where it has no refinement, or is not of one phase."""
        about = card.refinement
        if about is None or len(card.structures) != 1:
            return None
        places = {(p.shell, p.name): i for i, p in enumerate(card.parameters)}
        first = (1, "r"), (1, "sigma2"), (1, "c3")
        if not {(None, "e0_shift"), (1, "n_s02"), *first} <= places.keys():
            return None
        r, sigma2, c3 = (places[key] for key in first)
        rows = [_prior(p, about) for p in card.parameters]
        mean, std = np.array([(m, s) for m, s, _ in rows]).T
        bounded = np.array([p.bounds if own else (-np.inf, np.inf) for p, (_, _, own) in
                            zip(card.parameters, rows, strict=True)])  # fmt: skip
        far = {one.id: one for one in about.far_sigma2}
        return cls(
            card=card,
            ids=tuple(p.id for p in card.parameters),
            mean=mean,
            std=std,
            low=np.maximum(bounded[:, 0], mean - FARTHEST * std),
            high=np.minimum(bounded[:, 1], mean + FARTHEST * std),
            e0=places[None, "e0_shift"],
            r=r,
            sigma2=sigma2,
            c3=c3,
            strained=tuple(_follows(i, p) for i, p in enumerate(card.parameters) if _moves(p)),
            damped=tuple(
                (i, far[p.id].level, far[p.id].slope)
                for i, p in enumerate(card.parameters)
                if p.id in far
            ),
        )

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """Places of what all sweeps of a run share: E0, a, and how farther shells follow."""
        return tuple(sorted({self.e0, self.c3, *self.loose}))

    @cached_property
    def loose(self) -> tuple[int, ...]:
        """Places of what sweeps share only in part: how farther shells follow."""
        return tuple(i for i, _, _ in (*self.strained, *self.damped))

    @cached_property
    def loose_std(self) -> Floats:
        """How much of each of these is a sweep's own, as a standard deviation."""
        strained, damped = (
            self.std[[i for i, _, _ in farther]] for farther in (self.strained, self.damped)
        )
        # something is shared, however vague a prior is
        own = np.minimum(LOOSE_SIGMA2 * damped, 0.9) * damped
        return np.concatenate([LOOSE_STRAIN * strained, own])

    @cached_property
    def own(self) -> tuple[int, ...]:
        """Places of what each sweep has of its own: N S0^2, R and sigma2 of the nearest shell."""
        return tuple(i for i in range(len(self.ids)) if i not in self.shared)

    def theta(self, x: Floats) -> tuple[Floats, Floats]:
        """Theta (b, p) at x (b, n), and d theta / d x (b, p, n)."""
        theta = np.array(x)
        slopes = np.tile(np.eye(x.shape[1]), (len(x), 1, 1))
        sigma2, strain = x[:, self.sigma2], x[:, self.r] / self._r_eff - 1.0
        skewed = self._skewed(sigma2)
        theta[:, self.c3] = x[:, self.c3] * skewed
        slopes[:, self.c3, self.c3] = skewed
        slopes[:, self.c3, self.sigma2] = 2 * x[:, self.c3] * sigma2
        for i, still, moved in self.strained:
            theta[:, i] += still + moved * strain
            slopes[:, i, self.r] = moved / self._r_eff
        for i, level, slope in self.damped:
            usual = level + slope * np.log(sigma2 / USUAL_SIGMA2)
            theta[:, i] = sigma2 * np.exp(usual + x[:, i])
            slopes[:, i, i] = theta[:, i]
            slopes[:, i, self.sigma2] = theta[:, i] / sigma2 * (1.0 + slope)
        return theta, slopes

    def start(self, theta: Floats) -> Floats:
        """X (b, n) of theta (b, p), inside the bounds."""
        x = np.array(theta)
        sigma2, strain = theta[:, self.sigma2], theta[:, self.r] / self._r_eff - 1.0
        skewed = self._skewed(sigma2)
        # without vibrations there is no telling how anharmonic they are
        usable = skewed > self._zero_point**2
        ratio = theta[:, self.c3] / np.where(usable, skewed, 1.0)
        x[:, self.c3] = np.where(usable, ratio, self.mean[self.c3])
        for i, still, moved in self.strained:
            x[:, i] -= still + moved * strain
        for i, level, slope in self.damped:
            usual = level + slope * np.log(sigma2 / USUAL_SIGMA2)
            x[:, i] = np.log(np.maximum(theta[:, i], 1e-6) / sigma2) - usual
        return np.clip(x, self.low, self.high)

    @property
    def _r_eff(self) -> float:
        return self.card.parameters[self.r].r_eff or 1.0

    @property
    def _zero_point(self) -> float:
        return self.card.refinement.zero_point if self.card.refinement else 0.0

    def _skewed(self, sigma2: Floats) -> Floats:
        return np.asarray(sigma2**2 - 2 / 3 * self._zero_point**2)


def _moves(parameter: Parameter) -> bool:
    """Whether it is a distance other than the nearest."""
    return parameter.name == "expansion" or (parameter.name == "r" and parameter.shell != 1)


def _follows(place: int, parameter: Parameter) -> tuple[int, float, float]:
    """Place, value without strain, and by how much it grows with strain."""
    if parameter.name == "expansion":
        return place, 0.0, 1.0
    r_eff = parameter.r_eff or 0.0
    return place, r_eff, r_eff


def _prior(parameter: Parameter, about: Refinement) -> tuple[float, float, bool]:
    """Mean and standard deviation of a variable; whether the parameter's own bounds hold for it."""
    prior = parameter.prior
    far = {one.id: one.std for one in about.far_sigma2}
    if parameter.id in far:
        return 0.0, far[parameter.id], False
    if parameter.name == "c3":
        return *about.anharmonicity, False
    if parameter.name == "expansion":
        return 0.0, about.expansion_std, False
    if _moves(parameter):
        return 0.0, about.r_std, False
    if parameter.name == "e0_shift":
        return prior.mean, VAGUE_E0, True
    wider = WIDER if parameter.name in ("n_s02", "r") else 1.0
    return prior.mean, wider * prior.std, True
