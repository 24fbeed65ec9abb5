"""The polish on the wire, and which answer a dashboard should show."""

from typing import Literal

import numpy as np

from exafsd.contract.card import Card
from exafsd.contract.messages import Correlation, FitValue, Polish, PolishPhase, PolishShell
from exafsd.inference.refinement.polish import UNEXPLAINED, Fit, Polished
from exafsd.inference.refinement.reference_fit import shells_in_window


def polish_message(card: Card, polished: Polished) -> Polish:
    """The ``polish`` of a result; phases and shells are empty where there is no fit.

    Shells beyond the window are left out, and so is the third cumulant where it is not fitted.
    """
    fit = polished.fit
    return Polish(
        status=polished.status,
        r_factor=fit.r_factor if fit else None,
        n_idp=polished.n_idp,
        n_var=polished.n_var,
        phases=_phases(card, fit) if fit else [],
        shells=_shells(card, fit) if fit else [],
        correlation=_correlation(fit) if fit else None,
    )


def best_of(card: Card, polished: Polished) -> Literal["network", "polish"]:
    """Return which answer to show, where the network's may be believed.

    A refinement that converged inside its bounds and explains the spectrum, of a model for which
    its error bars hold the truth better than the network's (``exafsd-train independent``). The fit
    of the nearest shells alone, which older bundles have, is off by more than its error bars say.
    """
    fit = polished.fit
    if polished.status != "converged" or fit is None or not fit.whole:
        return "network"
    good = fit.unexplained <= UNEXPLAINED and card.refinement_holds
    return "polish" if good else "network"


def _value(fit: Fit, id_: str, scale: float = 1.0, offset: float = 0.0) -> FitValue:
    i = fit.ids.index(id_)
    bars = {
        name: abs(scale) * float(np.sqrt(cov[i, i]))
        for name, cov in (
            ("std", fit.cov), ("std_noise", fit.noise_cov), ("std_feffit", fit.feffit_cov),
            ("std_trend", fit.trend_cov),
        )
    }  # fmt: skip
    if fit.bound[i]:
        bars = dict.fromkeys(bars, np.nan)  # it was held, so nothing is known of it
    return FitValue(
        value=offset + scale * float(fit.value[i]),
        **{name: bar if np.isfinite(bar) else None for name, bar in bars.items()},
    )


def _phases(card: Card, fit: Fit) -> list[PolishPhase]:
    (structure,) = card.structures  # several phases have no reference fit
    e0_shift = next(p.id for p in card.parameters if p.name == "e0_shift")
    return [
        PolishPhase(
            phase=structure.phase,
            fraction=FitValue(value=1.0, std=None),
            e0_shift=_value(fit, e0_shift),
        )
    ]


def _shells(card: Card, fit: Fit) -> list[PolishShell]:
    parameters = {(p.shell, p.name): p for p in card.parameters}
    numbers = shells_in_window(card)
    amplitude = parameters[numbers[0], "n_s02"]
    polished = []
    for number in numbers:
        sigma2 = parameters[number, "sigma2"]
        c3 = parameters.get((number, "c3"))
        ratio = (sigma2.degeneracy or 0.0) / (amplitude.degeneracy or 1.0)
        polished.append(
            PolishShell(
                id=f"{sigma2.phase}/{number}",
                n_s02=_value(fit, amplitude.id, ratio),
                r=_value(fit, parameters[number, "r"].id),
                sigma2=_value(fit, sigma2.id, offset=sigma2.split),
                c3=_value(fit, c3.id) if c3 is not None and c3.id in fit.ids else None,
            )
        )
    return polished


def _correlation(fit: Fit) -> Correlation:
    """Correlations of the fit; variables on a bound are left out."""
    free = np.flatnonzero(~fit.bound)
    cov = (fit.cov if fit.whole else fit.feffit_cov)[np.ix_(free, free)]
    std = np.sqrt(np.diag(cov))
    matrix = cov / np.outer(std, std)
    return Correlation(parameters=[fit.ids[i] for i in free], matrix=matrix.tolist())
