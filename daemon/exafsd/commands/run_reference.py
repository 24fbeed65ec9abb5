"""Means of sweeps of a run as references: ``exafsd references add NAME --run UID``."""

import re
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from exafsd.archive.catalog import CatalogError
from exafsd.archive.logged_results import find_logged, logged_messages
from exafsd.archive.sources import open_source
from exafsd.commands.replay.analysis import reduced
from exafsd.commands.replay.means import Normalised, mean_of, normalised
from exafsd.composition import references
from exafsd.composition.references import Reference, ReferenceFileError
from exafsd.contract.frames import latest
from exafsd.settings import Settings
from exafsd.spectra import Edge

RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class RunSweeps:
    """Which sweeps of which run; `numbers` are first and last of ranges, none: all of them."""

    uid: str
    numbers: tuple[tuple[int, int], ...] = ()
    channel: str | None = None
    edge: Edge | None = None

    @classmethod
    def parse(
        cls, uid: str, sweeps: str | None, channel: str | None, edge: Edge | None
    ) -> "RunSweeps":
        """Sweeps from the words of a command line, such as ``1-20,25``.

        Raises
        ------
        ReferenceFileError
            If they cannot be read.
        """
        numbers: list[tuple[int, int]] = []
        for part in (sweeps or "").replace(" ", "").split(","):
            match = RANGE.fullmatch(part)
            if match is not None:
                numbers.append((int(match[1]), int(match[2] or match[1])))
            elif part:
                raise ReferenceFileError(f"--sweeps {sweeps!r} is not like 1-20 or 1-20,25")
        return cls(uid, tuple(numbers), channel, edge)

    @property
    def said(self) -> str:
        """The same in words."""
        ranges = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in self.numbers)
        return f"run {self.uid}" + (f", sweeps {ranges}" if ranges else "")

    def has(self, one: Normalised) -> bool:
        """Whether a sweep is one of them."""
        asked = self.edge
        return (
            (not self.numbers or any(a <= one.sweep <= b for a, b in self.numbers))
            and self.channel in (None, one.channel)
            and (asked is None or asked.element in ("", one.edge.element))
            and (asked is None or asked.edge in ("", one.edge.edge))
        )


def add_from_run(
    folder: Path, name: str, chosen: RunSweeps, settings: Settings, archive: str | None
) -> tuple[Reference, int]:
    """Keep the mean of sweeps of a run as a reference; and of how many it is.

    Parameters
    ----------
    archive
        Journal, catalog or profile; None: the journal of the settings. Where files that a run of a
        journal points to are gone, its sweeps are taken from what was logged of its results.

    Raises
    ------
    ReferenceFileError
        If the sweeps are of several channels or edges, or do not show the near edge.
    ValueError, LookupError, OSError, RuntimeError
        If the run cannot be read.
    """
    references.free_name(folder, name)
    uid, there = _sweeps(chosen.uid, settings, archive)
    chosen = replace(chosen, uid=uid)
    sweeps = [one for one in there if chosen.has(one)]
    if chosen.channel is None:  # the sample before the foil
        sweeps = [one for one in sweeps if one.channel != "reference"] or sweeps
    kinds = sorted({f"{one.channel} of {one.edge.element} {one.edge.edge}" for one in sweeps})
    if len(kinds) > 1:
        raise ReferenceFileError(
            f"{chosen.said} has {', '.join(kinds)}: choose one with --channel, --element, --edge"
        )
    if not sweeps:
        raise ReferenceFileError(
            f"{chosen.said}: no such sweep; the run has {len(there)} complete sweeps"
        )
    reference = mean_of(name, sweeps, chosen.said)
    about = {
        "Exafsd.source": f"{chosen.said}, mean of {len(sweeps)}",
        "Exafsd.channel": sweeps[0].channel,
    }
    return references.keep(folder, reference, about), len(sweeps)


def _sweeps(uid: str, settings: Settings, archive: str | None) -> tuple[str, list[Normalised]]:
    """Whole uid of the run that begins so, and its sweeps."""
    journal = settings.journal_folder
    if archive is None and (journal is None or not journal.is_dir()):
        raise CatalogError(f"there is no journal {journal or 'in the settings'}; give an --archive")
    name = archive or str(journal)
    with closing(open_source(name)) as source:
        runs = [run.start.get("uid") for run in islice(source.runs(uid=uid), 2)]
        if len(runs) != 1 and uid not in runs:
            many = "more than one run begins with" if runs else "there is no run"
            raise CatalogError(f"{many} {uid} in {name}")
        uid = uid if uid in runs else str(runs[0])
        sweeps = list(reduced(source, uid, settings))
    if not sweeps and Path(name).is_dir():
        # the files that its documents point to may be gone: what was published of them is left
        sweeps = _logged(Path(name), uid)
    return uid, sweeps


def _logged(journal: Path, uid: str) -> list[Normalised]:
    messages = latest(logged_messages(find_logged(journal, uid)))
    sweeps = (normalised(one.header, one.arrays) for one in messages)
    return [one for one in sweeps if one is not None]
