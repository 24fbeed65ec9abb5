"""theta and its covariance to phases and shells, by the card."""

from collections.abc import Callable

import numpy as np

from exafsd.contract.card import Card, Parameter
from exafsd.contract.messages import Phase, Shell, Value
from exafsd.spectra import Floats, Prediction


class Theta:
    """Values and standard deviations of parameters and of functions of two of them."""

    def __init__(self, card: Card, prediction: Prediction) -> None:
        self._index = {parameter.id: i for i, parameter in enumerate(card.parameters)}
        self._theta: Floats = prediction.theta
        self._cov: Floats = prediction.theta_cov

    def value(self, parameter: Parameter, scale: float = 1.0, offset: float = 0.0) -> Value:
        """Value and std of offset + scale * parameter."""
        i = self._index[parameter.id]
        variance = float(self._cov[i, i])
        std = abs(scale) * variance**0.5 if variance >= 0 else None
        return Value(value=offset + scale * float(self._theta[i]), std=std)


def read_structure(card: Card, prediction: Prediction) -> tuple[list[Phase], list[Shell]]:
    """Phases and shells of a prediction.

    A shell without its own ``n_s02`` has the first shell's in the ratio of crystallographic
    degeneracies; one without its own ``r`` follows the phase's isotropic ``expansion``.
    """
    theta = Theta(card, prediction)
    phases, shells = [], []
    for structure in card.structures:
        mine = [p for p in card.parameters if p.phase == structure.phase]
        whole = {p.name: p for p in mine if p.shell is None}
        fraction = theta.value(whole["fraction"]) if "fraction" in whole else None
        if fraction is None and len(card.structures) == 1:
            fraction = Value(value=1.0, std=None)
        phases.append(
            Phase(
                phase=structure.phase,
                fraction=fraction,
                e0_shift=theta.value(whole["e0_shift"]),
            )
        )
        numbers = sorted({p.shell for p in mine if p.shell is not None})
        first = {p.name: p for p in mine if p.shell == 1}
        for number in numbers:
            own = {p.name: p for p in mine if p.shell == number}
            shells.append(
                _shell(
                    theta.value,
                    own,
                    first,
                    whole,
                    number,
                    structure.absorber_site,
                    card,
                    prediction,
                )
            )
    return phases, shells


def _shell(
    value: Callable[..., Value],
    own: dict[str, Parameter],
    first: dict[str, Parameter],
    whole: dict[str, Parameter],
    number: int,
    site: int,
    card: Card,
    prediction: Prediction,
) -> Shell:
    known = own["sigma2"]
    r_eff, degeneracy = float(known.r_eff or 0.0), float(known.degeneracy or 0.0)
    if "n_s02" in own:
        n_s02 = value(own["n_s02"])
    else:
        n_s02 = value(first["n_s02"], scale=degeneracy / float(first["n_s02"].degeneracy or 1.0))
    r = value(own["r"]) if "r" in own else value(whole["expansion"], scale=r_eff, offset=r_eff)
    return Shell(
        id=f"{known.phase}/{number}",
        phase=known.phase,
        shell=number,
        site=site,
        scatterer=str(known.scatterer),
        degeneracy=degeneracy,
        r_eff=r_eff,
        n_s02=n_s02,
        r=r,
        sigma2=value(known),
        n=None,
        c3=value(own["c3"]) if "c3" in own else None,
        prior_limited=_prior_limited(own, card, prediction),
    )


def _prior_limited(own: dict[str, Parameter], card: Card, prediction: Prediction) -> list[str]:
    """Parameters about which the spectrum says little more than was known before."""
    std = np.sqrt(np.maximum(np.diag(prediction.theta_cov), 0.0))
    index = {parameter.id: i for i, parameter in enumerate(card.parameters)}
    limit = card.thresholds.prior_limited
    return [name for name, p in own.items() if std[index[p.id]] > limit * p.prior.std]


def trust_score(card: Card, ood: float) -> float:
    """1 is typical of training, 0.5 is at the card's threshold, 0 is far from it."""
    if not np.isfinite(ood):
        return 0.0
    return float(0.5 ** ((max(ood, 0.0) / card.thresholds.ood) ** 2))
