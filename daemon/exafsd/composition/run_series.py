"""A run as a series of results: what is said of each by those before it."""

from dataclasses import dataclass, field

from exafsd.composition.components import RunComponents
from exafsd.composition.convergence import Averages
from exafsd.composition.near_edges import NearEdges
from exafsd.composition.xanes import NearEdgeNumbers
from exafsd.contract.messages import Channel, Composition, Result
from exafsd.spectra import Edge, Spectrum

#: why there are components and no fractions
ALONE = "not compared with references: fewer than two are of this edge, or there was no time"


@dataclass
class RunSeries:
    """What one run remembers of its results; means by stream, channel and edge."""

    near_edges: NearEdges = field(default_factory=NearEdges)
    components: RunComponents = field(default_factory=RunComponents)
    averages: dict[tuple[str, Channel, Edge], Averages] = field(
        default_factory=dict[tuple[str, Channel, Edge], Averages]
    )

    def annotate(self, result: Result, spectrum: Spectrum, numbers: NearEdgeNumbers | None) -> None:
        """Say of the next result of the run whether the sample changes, and whether to stop.

        And how many components it has had so far.

        Parameters
        ----------
        numbers
            Of the spectrum, as `NearEdges.measure` gives them.
        """
        result.xanes = self.near_edges.take(spectrum, numbers)
        analysis = spectrum.id.analysis
        if spectrum.id.channel == "reference":  # a foil is not the sample
            return
        if analysis.composition.enabled != "off" and analysis.composition.components:
            self._count(result, spectrum, numbers)
        goal = analysis.convergence.goal
        if goal is None or spectrum.averaged is not None:  # an average is no sweep
            return
        key = spectrum.id.sweep.stream, spectrum.id.channel, spectrum.id.edge
        averages = self.averages.get(key)
        if averages is None:
            averages = self.averages[key] = Averages()
        result.convergence = averages.take(result, goal)

    def _count(self, result: Result, spectrum: Spectrum, numbers: NearEdgeNumbers | None) -> None:
        components = self.components.take(spectrum, numbers)
        if components is None:
            return
        if result.composition is None:
            result.composition = Composition(
                method="components", references=[], fractions=[], in_domain=False, reason=ALONE
            )
        result.composition.components = components
