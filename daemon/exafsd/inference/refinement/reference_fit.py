"""Which entries of theta the reference fit with `feffit` frees, and what the others are held at.

The reference has one N S0^2 factor with the crystal's ratios, one E0, and R and sigma2 of every
shell in the fit window; no third cumulant, no farther shells, no multiple scattering.
"""

from dataclasses import dataclass

import numpy as np

from exafsd.contract.card import Card, Parameter
from exafsd.spectra import Floats

#: Paths that the reference leaves out are moved this many times farther away, where the mean
#: free path leaves nothing of them that float32 could hold. Ten times more costs time.
FAR = 100.0


@dataclass(frozen=True)
class ReferenceFit:
    """theta = base + basis @ x, with x the variables of the fit.

    `base` is (p,) and `basis` (p, n); `low` and `high` are (n,), the bounds of the variables. `ids`
    are parameter ids, `first` is the place of each variable's own entry in theta.
    """

    ids: tuple[str, ...]
    shells: tuple[int, ...]
    first: tuple[int, ...]
    base: Floats
    basis: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, card: Card) -> "ReferenceFit | None":
        """Reference fit of a card.

        None where there is none: several phases, or a shell in the window without R or sigma2
        of its own.
        """
        if len(card.structures) != 1:
            return None
        shells = shells_in_window(card)
        have = {(p.shell, p.name) for p in card.parameters}
        needed = {(shell, name) for shell in shells for name in ("r", "sigma2")}
        if not shells or not needed | {(None, "e0_shift"), (shells[0], "n_s02")} <= have:
            return None
        free = [i for i, p in enumerate(card.parameters) if _is_free(p, shells)]
        base = np.array([_held(p, shells) for p in card.parameters])
        basis = np.zeros((len(base), len(free)))
        for column, i in enumerate(free):
            base[i], basis[i, column] = 0.0, 1.0
            if card.parameters[i].name == "n_s02":
                _tie_amplitudes(card, shells, i, base, basis[:, column])
        chosen = [card.parameters[i] for i in free]
        low, high = np.array([p.bounds for p in chosen]).T
        return cls(tuple(p.id for p in chosen), shells, tuple(free), base, basis, low, high)

    def theta(self, x: Floats) -> Floats:
        """Parameters (b, p) at variables (b, n)."""
        return self.base + x @ self.basis.T

    def start(self, theta: Floats) -> Floats:
        """Variables (b, n) of the network's theta (b, p), inside the bounds."""
        return np.clip(theta[:, self.first], self.low, self.high)


def shells_in_window(card: Card) -> tuple[int, ...]:
    """Shells whose distance in the crystal lies inside the R window of the fit.

    The window is not phase corrected: a shell's peak is 0.2 to 0.5 angstrom below its distance,
    so that a shell just inside shows most of its peak, and one just outside only its foot.
    """
    low, high = card.fit[0].r
    return tuple(
        sorted({p.shell for p in card.parameters if p.shell and low <= (p.r_eff or 0.0) <= high})
    )


def _is_free(parameter: Parameter, shells: tuple[int, ...]) -> bool:
    if parameter.shell is None:
        return parameter.name == "e0_shift"
    if parameter.name == "n_s02":
        return parameter.shell == shells[0]
    return parameter.shell in shells and parameter.name in ("r", "sigma2")


def _held(parameter: Parameter, shells: tuple[int, ...]) -> float:
    """Value of a parameter that the reference does not have."""
    if parameter.name == "expansion":
        return FAR
    if parameter.name == "fraction":
        return 1.0
    if parameter.name == "c3":
        return 0.0
    if parameter.name == "r" and parameter.shell not in shells:
        return FAR * (parameter.r_eff or 1.0)
    return parameter.prior.mean


def _tie_amplitudes(
    card: Card, shells: tuple[int, ...], first: int, base: Floats, column: Floats
) -> None:
    """Let the N S0^2 of other shells in the window follow the first in the crystal's ratio."""
    whole = card.parameters[first].degeneracy or 1.0
    for i, parameter in enumerate(card.parameters):
        if i != first and parameter.name == "n_s02" and parameter.shell in shells:
            base[i], column[i] = 0.0, (parameter.degeneracy or 0.0) / whole
