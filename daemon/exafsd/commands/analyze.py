"""``exafsd analyze``: spectra in files through the pipeline of the live daemon."""

import json
import sys
from pathlib import Path

from rich.console import Console

from exafsd.commands.terminal import ResultTable, outcome_as_json, progress, tell
from exafsd.service.session import analyze_file
from exafsd.service.wiring import make_pipeline
from exafsd.settings import Settings
from exafsd.spectra import Edge, SpectrumError


def analyze_files(
    files: list[Path], settings: Settings, element: str | None, edge: str | None, as_lines: bool
) -> bool:
    """Analyse files; return whether every spectrum of every file gave a result."""
    pipeline = make_pipeline(settings)
    given = Edge.of(element or "", edge or "") if element or edge else None
    table = ResultTable()
    good = True
    with progress() as bar:
        task = bar.add_task("analysing", total=len(files))
        for path in files:
            bar.update(task, advance=1, description=path.name)
            try:
                for outcome in analyze_file(path, settings, pipeline, given):
                    good &= outcome.message.kind == "result"
                    if as_lines:
                        text = outcome_as_json(outcome.message, outcome.arrays, file=str(path))
                        sys.stdout.write(text + "\n")
                        sys.stdout.flush()
                    else:
                        table.add(outcome.message.model_dump(mode="json"), path.name)
                    if outcome.message.kind == "rejected":
                        tell(f"{path}: {outcome.message.channel}: {outcome.message.detail}")
            except SpectrumError as error:
                good = False
                if as_lines:
                    line = {"kind": "rejected", "file": str(path), "reason": error.reason}
                    sys.stdout.write(json.dumps({**line, "detail": error.detail}) + "\n")
                tell(error.detail)
    if not as_lines:
        Console().print(table.render())
    return good
