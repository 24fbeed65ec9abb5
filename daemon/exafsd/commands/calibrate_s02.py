"""S0² of an edge from a foil: ``exafsd calibrate-s02``."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from exafsd._version import __version__
from exafsd.archive.sources import open_source
from exafsd.commands.terminal import tell
from exafsd.contract.messages import Channel, Rejected, Result
from exafsd.contract.s02 import S02, Evidence, Foil, S02File
from exafsd.documents.items import Began, Trouble
from exafsd.inference.amplitude import recipe_sha256
from exafsd.inference.reading import recipes_of
from exafsd.inference.registry import Registry
from exafsd.inference.s02 import CalibrationError, Measured, measure
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service import wiring
from exafsd.service.session import Event
from exafsd.settings.analysis import Average, Reduction
from exafsd.settings.settings import Settings
from exafsd.spectra import Edge

#: sweeps of a run below which their scatter is not known; a file is usually a merge of many
SWEEPS = 3

Messages = list[Result | Rejected]


@dataclass(frozen=True)
class FoilData:
    """Where the spectra of a foil are: files, or a run (`uid`) in an archive."""

    sources: tuple[str, ...]
    uid: str | None = None
    edge: Edge | None = None
    channel: Channel = "transmission"
    at_least: int | None = None

    @classmethod
    def parse(
        cls,
        sources: Sequence[str],
        uid: str | None,
        element: str | None,
        edge: str | None,
        channel: str,
        at_least: int | None,
    ) -> "FoilData":
        """Foil from the words of a command line.

        Raises
        ------
        CalibrationError
            If there is no such channel.
        """
        channels: tuple[Channel, ...] = get_args(Channel)
        chosen: Channel | None = next((name for name in channels if name == channel), None)
        if chosen is None:
            raise CalibrationError(f"--channel {channel!r} is not one of {', '.join(channels)}")
        only = Edge.of(element or "", edge or "") if element or edge else None
        return cls(tuple(sources), uid, only, chosen, at_least)

    @property
    def names(self) -> list[str]:
        """What is remembered of it: no paths of this machine."""
        return [self.uid] if self.uid is not None else [Path(name).name for name in self.sources]

    @property
    def said(self) -> str:
        """The same in a few words, which stand on every result."""
        if self.uid is not None:
            return f"foil run {self.uid}"
        first, *more = self.names
        return f"foil file {first}" + (f" and {len(more)} more" if more else "")

    @property
    def needed(self) -> int:
        """Number of spectra below which there is no S0²."""
        return self.at_least or (1 if self.uid is None else SWEEPS)


def calibrate_to_file(foil: FoilData, settings: Settings, path: Path | None) -> list[str]:
    """Calibrate, write the file, and say in lines what was found and how to use it."""
    calibration = calibrate(foil, settings)
    path = path or Path(f"s02-{calibration.name.lower()}.json")
    write(calibration, path)
    s02, evidence = calibration.s02, calibration.evidence
    scatter = "" if evidence.scatter is None else f", which scatter by {evidence.scatter:.4f}"
    return [
        f"S0² of {calibration.name} is {s02.value:.3f} ± {s02.std:.3f}",
        f"spectra   {evidence.spectra}{scatter}; {evidence.withheld} withheld",
        f"model     {evidence.model_std:.3f} of a single spectrum",
        f"wrote {path}",
        f'to use it: [inference] s02 = {{ {calibration.name} = "{path}" }}',
    ]


def calibrate(foil: FoilData, settings: Settings) -> S02File:
    """Read a foil with the pipeline of the live daemon; its S0².

    Raises
    ------
    CalibrationError
        If the spectra do not give it.
    ValueError, LookupError, OSError, RuntimeError
        If a file or an archive cannot be read.
    """
    # sweeps in overlapping averages would count several times
    reduction = settings.reduction.model_copy(update={"average": Average()})
    settings = settings.model_copy(update={"reduction": reduction})
    registry = Registry.load(settings.models)
    pipeline = wiring.make_pipeline(settings, registry)
    messages: Messages = []
    with ExitStack() as stack:
        stack.callback(pipeline.close)
        for event in _events(foil, settings, pipeline, stack):
            if isinstance(event, Began):
                reduction = event.run.analysis.reduction
            elif isinstance(event, Outcome):
                messages.append(event.message)
            elif isinstance(event, Trouble):
                tell(f"{event.reason}: {event.detail}")
    of_foil = _wanted(messages, foil)
    measured = measure(of_foil, wiring.cards_of(registry), foil.needed)
    return _file(measured, of_foil, foil, reduction)


def write(calibration: S02File, path: Path) -> None:
    """Write a calibration; a daemon that starts meanwhile sees the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(calibration.model_dump_json(by_alias=True, indent=2) + "\n")
    part.replace(path)


def _events(
    foil: FoilData, settings: Settings, pipeline: Pipeline, stack: ExitStack
) -> Iterator[Event]:
    """What happens in the analysis of a foil's files, or of its run."""
    if foil.uid is None:
        session = wiring.make_session(settings, pipeline)
        for name in foil.sources:
            yield from session.file(Path(name), settings.analysis, foil.edge)
        return
    if len(foil.sources) != 1:
        raise CalibrationError("with --uid, name exactly one archive")
    source = open_source(foil.sources[0])
    stack.callback(source.close)
    roots = (*settings.source.asset_roots, *source.asset_roots)
    session = wiring.make_session(settings, pipeline, roots)
    yield from session.replay(source.run(foil.uid).documents(_refuse))


def _wanted(messages: Messages, foil: FoilData) -> Messages:
    """Single spectra of the channel, all of one edge."""
    of_foil = [m for m in messages if m.channel == foil.channel and m.averaged.n == 1]
    edge = foil.edge
    if edge is not None:
        of_foil = [m for m in of_foil if edge.element in ("", m.element)]
        of_foil = [m for m in of_foil if edge.edge in ("", m.edge)]
    if not of_foil:
        there = sorted({f"{m.channel} of {m.element} {m.edge}" for m in messages})
        raise CalibrationError(
            f"there are no {foil.channel} spectra of the foil, but {', '.join(there) or 'none'}"
        )
    edges = sorted({f"{m.element} {m.edge}" for m in of_foil})
    if len(edges) > 1:
        raise CalibrationError(
            f"the spectra are of {', '.join(edges)}: choose by --element, --edge"
        )
    return of_foil


def _file(measured: Measured, of_foil: Messages, foil: FoilData, reduction: Reduction) -> S02File:
    card = measured.card
    first = of_foil[0]
    _, read_by = recipes_of(reduction, card.recipe)
    return S02File(
        element=first.element,
        edge=first.edge,
        s02=S02(
            value=measured.value,
            std=measured.std,
            source=foil.said,
            foil=Foil(
                phase=card.structures[0].phase,
                model=card.name,
                model_sha256=card.model_sha256,
                channel=foil.channel,
                recipe_sha256=recipe_sha256(read_by, reduction.rebin),
            ),
        ),
        evidence=Evidence(
            sources=foil.names,
            spectra=measured.spectra,
            withheld=measured.withheld,
            degeneracy=measured.degeneracy,
            scatter=measured.scatter,
            noise=measured.noise,
            model_std=measured.model_std,
            settings_sha256=first.settings_sha256,
            measured=min((m.acquired.start for m in of_foil if m.acquired.start), default=None),
            made=time.time(),
            version=__version__,
        ),
    )


def _refuse(damage: str) -> None:
    """Nothing is calibrated on a run that is not as it was measured."""
    raise ValueError(damage)
