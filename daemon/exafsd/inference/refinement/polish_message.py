"""The polish on the wire, and which answer a dashboard should show."""

from typing import Literal

import numpy as np

from exafsd.contract.card import Card
from exafsd.contract.messages import Correlation, FitValue, Polish, PolishPhase, PolishShell
from exafsd.inference.refinement.polish import Fit, Polished
from exafsd.inference.refinement.reference_fit import shells_in_window

#: Share of feffit's error bar by which what the reference fit leaves out may move a value
#: that is still shown: small beside the error bar that is shown with it.
OMITTED = 0.5


def polish_message(card: Card, polished: Polished) -> Polish:
    """The ``polish`` of a result; phases and shells are empty where there is no fit.

    The third cumulant and the shells beyond the window are not in the reference fit: null and
    absent.
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


def best_of(polished: Polished) -> Literal["network", "polish"]:
    """Return which answer to show, where the network's may be believed.

    The polish, if it converged inside its bounds and its priors, fits its window no worse than
    the network, and nothing that it leaves out and the network sees moves any of its values by
    more than half an error bar.
    """
    fit = polished.fit
    if polished.status != "converged" or fit is None or not fit.plausible:
        return "network"
    if fit.r_factor > fit.network_r_factor:
        return "network"
    bars = np.sqrt(np.diag(fit.feffit_cov))
    return "polish" if (np.abs(fit.omitted) <= OMITTED * bars).all() else "network"


def _value(fit: Fit, id_: str, scale: float = 1.0) -> FitValue:
    i = fit.ids.index(id_)
    std, std_feffit = (
        abs(scale) * float(np.sqrt(cov[i, i])) for cov in (fit.noise_cov, fit.feffit_cov)
    )
    if fit.bound[i]:
        std = std_feffit = np.nan  # it was held, so nothing is known of it
    return FitValue(
        value=scale * float(fit.value[i]),
        std=std if np.isfinite(std) else None,
        std_feffit=std_feffit if np.isfinite(std_feffit) else None,
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
    known = {(p.shell, p.name): p for p in card.parameters}
    numbers = shells_in_window(card)
    amplitude = known[numbers[0], "n_s02"]
    made = []
    for number in numbers:
        sigma2 = known[number, "sigma2"]
        ratio = (sigma2.degeneracy or 0.0) / (amplitude.degeneracy or 1.0)
        made.append(
            PolishShell(
                id=f"{sigma2.phase}/{number}",
                n_s02=_value(fit, amplitude.id, ratio),
                r=_value(fit, known[number, "r"].id),
                sigma2=_value(fit, sigma2.id),
            )
        )
    return made


def _correlation(fit: Fit) -> Correlation:
    """Correlations as feffit's; variables on a bound are left out."""
    free = np.flatnonzero(~fit.bound)
    cov = fit.feffit_cov[np.ix_(free, free)]
    std = np.sqrt(np.diag(cov))
    matrix = cov / np.outer(std, std)
    return Correlation(parameters=[fit.ids[i] for i in free], matrix=matrix.tolist())
