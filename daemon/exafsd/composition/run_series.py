"""A run as a series of results: what is said of each by those before it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from exafsd.composition.components import RunComponents
from exafsd.composition.convergence import Averages
from exafsd.composition.near_edges import NearEdges
from exafsd.contract.messages import Channel, Components, Composition, Result, Xanes
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

    def follow(
        self, spectra: Sequence[Spectrum], e0s: Sequence[float]
    ) -> list[tuple[Xanes | None, Components | None]]:
        """Say of the next spectra of the run whether the sample changes, and what it has had.

        Parameters
        ----------
        e0s
            Of each, eV.

        Returns
        -------
        xanes, components
            Of each; None where a scan is too short, components also where nobody asks for them.
        """
        numbers = self.near_edges.measure(list(zip(spectra, e0s, strict=True)))
        xanes = self.near_edges.follow(spectra, numbers)
        counted = [
            one if _counts(spectrum) else None
            for spectrum, one in zip(spectra, numbers, strict=True)
        ]
        return list(zip(xanes, self.components.follow(spectra, counted), strict=True))

    def converge(self, result: Result, spectrum: Spectrum) -> None:
        """Say of the next result of the run whether to stop, where a target is set."""
        id_, goal = spectrum.id, spectrum.id.analysis.convergence.goal
        # a foil is not the sample, and an average is no sweep
        if goal is None or id_.channel == "reference" or spectrum.averaged is not None:
            return
        key = id_.sweep.stream, id_.channel, id_.edge
        averages = self.averages.get(key)
        if averages is None:
            averages = self.averages[key] = Averages()
        result.convergence = averages.take(result, goal)


def _counts(spectrum: Spectrum) -> bool:
    """Whether components are looked for; a foil is not the sample."""
    composition = spectrum.id.analysis.composition
    asked = composition.enabled != "off" and composition.components
    return asked and spectrum.id.channel != "reference"


def with_components(
    composition: Composition | None, components: Components | None
) -> Composition | None:
    """Composition of a spectrum with the components of its run."""
    if components is None:
        return composition
    if composition is None:
        return Composition(
            method="components", references=[], fractions=[], in_domain=False, reason=ALONE,
            components=components,
        )  # fmt: skip
    return replace(composition, components=components)
