"""Documents or files to outcomes, for replay and commands."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from exafsd.documents.files import read_file
from exafsd.documents.items import Problem, RunBegan, RunEnded
from exafsd.documents.router import Router
from exafsd.pipeline import Outcome, Pipeline
from exafsd.settings import Settings
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Sweep


def replay(
    documents: Iterable[tuple[str, Any]],
    router: Router,
    pipeline: Pipeline,
    on_problem: Callable[[Problem], None],
) -> Iterator[Outcome | RunBegan | RunEnded]:
    """Outcomes of stored documents, through the same router and pipeline as live ones."""
    analyses: dict[str, Analysis] = {}

    def handled(items: Iterable[Any]) -> Iterator[Outcome | RunBegan | RunEnded]:
        for item in items:
            if isinstance(item, Problem):
                on_problem(item)
            elif isinstance(item, Sweep):
                yield from pipeline.process(item, analyses[item.run.uid])
            else:
                if isinstance(item, RunBegan):
                    analyses[item.run.uid] = item.analysis
                else:
                    pipeline.end(item.run.uid)
                yield item

    for name, document in documents:
        yield from handled(router.feed(name, document))
    while router.waiting:
        yield from handled(router.poll())
        if router.waiting:
            time.sleep(0.05)
    yield from handled(router.close())


def analyze_file(
    path: Path, settings: Settings, pipeline: Pipeline, edge: Edge | None
) -> Iterator[Outcome]:
    """Outcomes of the spectra in a file.

    Raises
    ------
    SpectrumError
        If the file holds no spectrum; the text names it.
    """
    analysis = settings.analysis
    sweeps = read_file(path, analysis.adapter, edge)
    for sweep in sweeps:
        yield from pipeline.process(sweep, analysis)
    if sweeps:
        pipeline.end(sweeps[0].run.uid)
