"""A run as a series of results: what is said of each by those before it."""

from dataclasses import dataclass, field

from exafsd.composition.convergence import Averages
from exafsd.composition.near_edges import NearEdges
from exafsd.composition.xanes import NearEdgeNumbers
from exafsd.contract.messages import Channel, Result
from exafsd.spectra import Edge, Spectrum


@dataclass
class RunSeries:
    """What one run remembers of its results; means by stream, channel and edge."""

    near_edges: NearEdges = field(default_factory=NearEdges)
    averages: dict[tuple[str, Channel, Edge], Averages] = field(
        default_factory=dict[tuple[str, Channel, Edge], Averages]
    )

    def annotate(self, result: Result, spectrum: Spectrum, numbers: NearEdgeNumbers | None) -> None:
        """Say of the next result of the run whether the sample changes, and whether to stop.

        Parameters
        ----------
        numbers
            Of the spectrum, as `NearEdges.measure` gives them.
        """
        result.xanes = self.near_edges.take(spectrum, numbers)
        goal = spectrum.id.analysis.convergence.goal
        # a foil is not the sample, and an average is no sweep
        if goal is None or spectrum.id.channel == "reference" or spectrum.averaged is not None:
            return
        key = spectrum.id.sweep.stream, spectrum.id.channel, spectrum.id.edge
        averages = self.averages.get(key)
        if averages is None:
            averages = self.averages[key] = Averages()
        result.convergence = averages.take(result, goal)
