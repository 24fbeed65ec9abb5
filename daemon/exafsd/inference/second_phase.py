"""Whether the EXAFS of another model explains what a fit about a crystal has left over.

A second phase moves R of a fit of the first before the misfit is large: 20 % of NiO in nickel by
0.016 angstrom. Where another model of the edge is loaded, its EXAFS is there to compare with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from exafsd.contract.card import Card
from exafsd.inference.refinement.polish import OBJECTIVES
from exafsd.inference.refinement.variables import Variables
from exafsd.inference.refinement.weighed import Prepared, WavesLike
from exafsd.spectra import Floats

#: E0 from which a phase is looked for, eV from its usual one, where its card does not say it.
AROUND_E0 = (-7.0, 0.0, 7.0)
#: Standard deviations of E0, eV, and of R, angstrom, of a second phase about its crystal's, and the
#: share of it at which they are as likely.
E0_STD, R_STD, AT_SHARE = 3.0, 0.05, 0.1
#: Share of the misfit that the phase has to explain, standard deviations of its share, and angstrom
#: that it may be off. Of 143 measured spectra that are fitted none is trusted and beyond them; the
#: limits were chosen by these, and by mixtures of nickel and NiO.
EXPLAINED, SURE, OFF = 0.6, 3.0, 0.04
#: what keeps an inverse finite where a phase has nothing in the window
SMALL = 1e-12


@dataclass(frozen=True)
class Rival:
    """Another model of the edge: its card, what is varied in it, and its graph."""

    card: Card
    variables: Variables
    waves: WavesLike

    @classmethod
    def of(cls, card: Card, waves: WavesLike | None) -> "Rival | None":
        """Rival of a card; None where its EXAFS cannot be made."""
        variables = Variables.of(card)
        return None if waves is None or variables is None else cls(card, variables, waves)

    def columns(self, prepared: Prepared) -> Floats:
        """Its signal, and the slopes with E0 and R (starts, l, 3), at the crystal's values."""
        reading, variables = self.card.reading, self.variables
        usual = variables.mean[variables.e0]
        starts = [usual + shift for shift in AROUND_E0] if reading is None else list(reading.e0)
        x = np.tile(variables.mean, (len(starts), 1))
        x[:, variables.e0] = starts
        chi, slopes, _ = prepared.signal(variables, self.waves, x)
        return np.concatenate([chi[..., None], slopes[..., [variables.e0, variables.r]]], axis=2)


class SecondPhase:
    """Looks for the phases of other models in what fits of one model leave over.

    Parameters
    ----------
    card
        Of the model that is fitted.
    rivals
        Other models of its edge; those with another grid in k are left out.
    prepared
        Gives what is fitted for an end of the data, 1/angstrom.
    """

    def __init__(
        self, card: Card, rivals: Sequence[Rival], prepared: Callable[[float], Prepared]
    ) -> None:
        grid = _grid(card)
        alike = [rival for rival in rivals if _grid(rival.card) == grid]

        def columns(k_end: float) -> Floats:
            return np.concatenate([rival.columns(prepared(k_end)) for rival in alike])

        self._columns = lru_cache(maxsize=OBJECTIVES)(columns)
        self._any = bool(alike)

    def __call__(
        self, k_end: float, white: Floats, rest: Floats, slopes: Floats, std: Floats
    ) -> list[bool]:
        """Whether there is a second phase, for each of `b` spectra.

        Parameters
        ----------
        k_end
            End of their data, 1/angstrom.
        white, rest, slopes
            (b, l, l), which makes misfit white, the white misfit (b, l) of the fits, and how it
            falls with their variables (b, l, n), which may follow a second phase.
        std
            (b, n) of what is likely of the variables beforehand.
        """
        if not self._any:
            return [False] * len(rest)
        columns = self._columns(k_end)
        return [self._one(columns, *one) for one in zip(white, rest, slopes, std, strict=True)]

    @staticmethod
    def _one(columns: Floats, white: Floats, rest: Floats, slopes: Floats, std: Floats) -> bool:
        """A linear fit of every phase beside the variables of the first; its share is not bound."""
        if rest @ rest < SURE**2:  # no share of anything can be sure
            return False
        starts, points, _ = columns.shape
        basis = np.linalg.qr(np.concatenate([slopes, np.diag(1.0 / std)]))[0]
        added = white @ columns.transpose(1, 0, 2).reshape(points, -1)
        added = np.concatenate([added, np.zeros((len(std), added.shape[1]))])
        left = np.concatenate([rest, np.zeros(len(std))])
        added -= basis @ (basis.T @ added)
        left -= basis @ (basis.T @ left)
        each = added.reshape(-1, starts, 3).transpose(1, 0, 2)
        held = np.diag([0.0, 1 / (AT_SHARE * E0_STD), 1 / (AT_SHARE * R_STD)]) ** 2
        normal = each.transpose(0, 2, 1) @ each + held
        slope = each.transpose(0, 2, 1) @ left
        inverse = np.linalg.inv(normal + SMALL * np.eye(3))
        share, _, moved = (inverse @ slope[..., None])[..., 0].T
        gain = np.einsum("ij,ijk,ik->i", slope, inverse, slope)
        sure = (share > SURE * np.sqrt(inverse[:, 0, 0])) & (np.abs(moved) < OFF * np.abs(share))
        return bool((sure & (gain > EXPLAINED * (left @ left))).any())


def _grid(card: Card) -> tuple[float, float, int] | None:
    about = card.refinement
    return None if about is None else (about.k_min, about.k_step, about.size)
