"""What Larch is asked about a reduced spectrum, and its verdict."""

from dataclasses import dataclass

import numpy as np

from exafsd.contract.recipe import Recipe
from exafsd.spectra import Floats

#: a difference of chi beyond this must be explained
DIFFERENCE = 1e-3
#: An objective this much above Larch's is worse than Larch's. Below it the difference is Larch's:
#: its leastsq stops at a relative change of 1e-6.
WORSE = 1e-6
#: part of chi, relative, that may not be mu less a spline of Larch's: rounding, and no more
OFF_SPLINE = 1e-6


@dataclass(frozen=True)
class AuditJob:
    """A spectrum as a plan reduced it; the arrays must not be written to afterwards."""

    key: str  # of the series that one plan serves: run, channel, edge
    id: str  # of the spectrum
    energy: Floats  # (n,) eV
    mu: Floats  # (n,)
    e0: float  # eV
    recipe: Recipe  # as asked for, so that the plan's choice of ranges is audited as well
    chi: Floats  # (m,)
    edge_step: float
    objective: float  # what the plan says of itself
    e0_found: bool = False  # whether e0 was found on this very spectrum
    raw: tuple[Floats, Floats] | None = None  # energy and mu as measured, before rebinning


@dataclass(frozen=True)
class Verdict:
    """What Larch says of a job; relative differences, NaN or None where there is nothing to say.

    `difference` is the k^2-weighted L2 norm between the two chi above
    `exafsd.reduction.judge.K_MIN`, `rebin_change` the same between chi of the raw and of the
    rebinned points, both by Larch.
    """

    key: str
    id: str
    difference: float = np.nan
    #: of the plan's chi, by Larch's own residual; not what the plan says
    objective: float = np.nan
    larch_objective: float = np.nan
    #: part of the plan's chi that is not mu less a spline on Larch's knots
    off_spline: float = np.nan
    #: what the plan said of its objective, against `objective`
    claim_difference: float = np.nan
    edge_step_difference: float = np.nan
    e0_difference: float | None = None
    rebin_change: float | None = None
    error: str | None = None

    @property
    def alarm(self) -> bool:
        """Whether the plan is wrong, and not only better than Larch's leastsq."""
        if self.error is not None or self.difference <= DIFFERENCE:
            return False
        fair = self.off_spline <= OFF_SPLINE
        return not (fair and self.objective <= self.larch_objective * (1 + WORSE))
