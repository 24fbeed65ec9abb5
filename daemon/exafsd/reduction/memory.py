"""What a run remembers between its sweeps, so that the next one is reduced on the same footing."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exafsd.contract.grid import ETOK
from exafsd.contract.messages import Channel, Direction
from exafsd.contract.recipe import Recipe
from exafsd.reduction.average import RunningAverage
from exafsd.reduction.calibration import Tracker
from exafsd.reduction.columns import INCOMPLETE
from exafsd.reduction.plan import Plan
from exafsd.reduction.rebin import CommonGrid, OwnGrid, differ
from exafsd.reduction.series import Series
from exafsd.spectra import Edge, Floats, Spectrum, Sweep

#: a spectrum this much longer in k than the first of its run gives the run new ranges
LONGER = 1.05


#: grids that are remembered, so that up and down, and a shorter sweep, are not new ones
MET = 16
#: what tells energy grids apart at a glance: points, first, middle and last energy, eV
GridFingerprint = tuple[int, float, float, float]


def grid_fingerprint(energy: Floats) -> GridFingerprint:
    """What tells an energy grid (n,) from most others."""
    n = len(energy)
    return n, float(energy[0]), float(energy[n // 2]), float(energy[-1])


@dataclass
class Settled:
    """What a run has settled for one channel, edge and recipe."""

    key: str  # names it to the audit
    e0: float | None = None
    recipe: Recipe | None = None
    plan: Plan | None = None
    usual: dict[tuple[Direction | None, bool], Series] = field(
        default_factory=dict[tuple[Direction | None, bool], Series]
    )
    spectra: int = 0  # that a plan has reduced
    unaudited: int = 0  # of these since one was audited for its new plan
    i0_like_mu: bool | None = None  # whether its first whole sweep says so; None: none was there
    suspect: bool = False  # whether Larch disagrees, and reduces the next ones itself
    #: grids of the latest spectra, at a glance
    met: deque[GridFingerprint] = field(default_factory=lambda: deque[GridFingerprint](maxlen=MET))

    def meets(self, energy: Floats) -> bool:
        """Whether an energy grid came before: of one that did not a plan is of no further use.

        What the run has seen decides, and not what the process has: so that a run that goes on in
        another one gives the same numbers, bit for bit.
        """
        grid = grid_fingerprint(energy)
        if grid in self.met:
            return True
        self.met.append(grid)
        return False

    def frozen_for(self, spectrum: Spectrum, recipe: Recipe) -> bool:
        """Whether the run's ranges hold for a spectrum.

        A run may begin in the middle of a sweep; the ranges of that stump must not cut all
        others, so a clearly longer spectrum gets new ones.
        """
        if self.recipe is None or self.e0 is None:
            return False
        end = ETOK * max(float(spectrum.energy[-1]) - self.e0, 0.0)
        reach = min(end**0.5, recipe.autobk.kmax or np.inf)
        return reach <= LONGER * (self.recipe.autobk.kmax or np.inf)

    def due(self, every: int) -> bool:
        """Count a spectrum; whether it is to be audited.

        The first, and one in `every` after it, counted in the series itself, so that it depends on
        the data alone; every one after an alarm, until Larch and the plan agree again.
        """
        number, self.spectra = self.spectra, self.spectra + 1
        return number % every == 0 or self.suspect

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan, which is compiled again from the rest."""
        return {**self.__dict__, "plan": None}


@dataclass
class RunMemory:
    """Everything that the reduction remembers of a run, by stream, channel and edge."""

    trackers: dict[str, Tracker] = field(default_factory=dict[str, Tracker])
    grids: dict[tuple[str, Edge], CommonGrid] = field(
        default_factory=dict[tuple[str, Edge], CommonGrid]
    )
    #: energies of the first whole sweep, by stream and direction
    energies: dict[tuple[str, Direction | None], Floats] = field(
        default_factory=dict[tuple[str, Direction | None], Floats]
    )
    #: streams whose sweeps have energies of their own each
    varying: set[str] = field(default_factory=set[str])
    own_grids: dict[tuple[str, Edge], OwnGrid] = field(
        default_factory=dict[tuple[str, Edge], OwnGrid]
    )
    averages: dict[tuple[str, Channel, Edge, Direction | None], RunningAverage] = field(
        default_factory=dict[tuple[str, Channel, Edge, Direction | None], RunningAverage]
    )
    #: edge of the sample by stream, where it was guessed, and of the foil behind it
    guessed: dict[str, Edge] = field(default_factory=dict[str, Edge])
    foils: dict[str, Edge] = field(default_factory=dict[str, Edge])
    #: whether it has been published that there is no foil
    no_foil: bool = False
    settled: dict[tuple[Channel, Edge, Recipe, bool], Settled] = field(
        default_factory=dict[tuple[Channel, Edge, Recipe, bool], Settled]
    )

    def varies(self, sweep: Sweep) -> bool:
        """Whether no two sweeps of a stream have the same energies, as an encoder gives them.

        Of what was cut from an encoder's stream that is plain; else it shows with the first sweep
        whose energies are not those of the first one in its direction, and holds from then on.
        """
        if sweep.flown or sweep.stream in self.varying:
            return True
        if not INCOMPLETE.isdisjoint(sweep.flags) or sweep.energy.ndim != 1:
            return False
        first = self.energies.setdefault((sweep.stream, sweep.direction), sweep.energy)
        if first is sweep.energy or not differ(sweep.energy, first):
            return False
        self.varying.add(sweep.stream)
        for key in [key for key in self.energies if key[0] == sweep.stream]:
            del self.energies[key]
        return True

    def settled_for(self, spectrum: Spectrum, recipe: Recipe, unplaced: bool = False) -> Settled:
        """What is settled for the channel and edge of a spectrum under a recipe.

        `unplaced`: for spectra whose E0 no material places, where others have one that does.
        """
        channel, edge = spectrum.id.channel, spectrum.id.edge
        settled = self.settled.get((channel, edge, recipe, unplaced))
        if settled is None:
            # two recipes of one channel are two series
            number = len(self.settled) + 1
            uid = spectrum.id.sweep.run.uid
            name = f"{uid}/{channel}/{edge.element}-{edge.edge}/{number}"
            settled = self.settled[channel, edge, recipe, unplaced] = Settled(key=name)
        return settled
