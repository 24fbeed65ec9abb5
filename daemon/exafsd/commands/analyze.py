"""``exafsd analyze``: spectra in files through the pipeline of the live daemon."""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from exafsd.commands.component_shares import ComponentResolver
from exafsd.commands.replay.means import Normalised, means_of_ends, normalised, without_answers
from exafsd.commands.terminal import ResultTable, outcome_as_json, progress, tell
from exafsd.contract.vocabulary import Problem, Reason
from exafsd.documents.items import Trouble
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.service.wiring import make_pipeline, make_session
from exafsd.settings import Settings
from exafsd.spectra import Edge, SpectrumError

#: reasons that a name or a unit in the settings may put right, and how to give it
BY_NAMES = {Reason.MISSING_COLUMN, Reason.ENERGY_UNIT}
HINT = (
    "if a column has another name or unit, add it to the command, for example --set"
    " adapter.energy.key=E --set adapter.it=I1, or --set adapter.energy.unit=keV"
)


def analyze_files(
    files: list[Path],
    settings: Settings,
    element: str | None,
    edge: str | None,
    as_lines: bool,
    components: ComponentResolver | None = None,
) -> bool:
    """Analyse files; return whether every spectrum of every file gave a result.

    With `components` the spectra of all files are one series, and it is what is printed.
    """
    pipeline = make_pipeline(settings)
    session = make_session(settings, pipeline)
    only = Edge.of(element or "", edge or "") if element or edge else None
    table = ResultTable()
    good, by_names = True, False
    if settings.composition.ends and settings.composition.enabled != "off":
        pipeline.lend("", means_of_ends(_reduced(files, settings, only), settings.composition.ends))
    with progress() as bar:
        task = bar.add_task("analysing", total=len(files))
        for path in files:
            bar.update(task, advance=1, description=path.name)
            try:
                for event in session.file(path, settings.analysis, only):
                    if isinstance(event, Outcome) and components is not None:
                        components.take(event.message, event.arrays, "", path.name)
                    elif isinstance(event, Outcome):
                        good &= _report(event, path, None if as_lines else table)
                        by_names |= event.message.kind == "rejected" and (
                            event.message.reason in BY_NAMES
                        )
                    elif isinstance(event, Trouble):
                        good &= event.reason is not Problem.ASSET_REFUSED
                        tell(event.detail)
            except SpectrumError as error:
                good, by_names = False, by_names or error.reason in BY_NAMES
                if as_lines:
                    line = {"kind": "rejected", "file": str(path), "reason": error.reason}
                    sys.stdout.write(json.dumps({**line, "detail": error.detail}) + "\n")
                tell(error.detail)
    if by_names:
        tell(HINT)
    if components is not None:
        components.end()
        return good and not components.trouble
    if not as_lines:
        Console().print(table.render())
    return good


def _reduced(files: list[Path], settings: Settings, only: Edge | None) -> Iterator[Normalised]:
    """Spectra of all files, reduced only; files that cannot be read are told later."""
    settings = without_answers(settings)
    session = make_session(settings, make_pipeline(settings, Registry({}, {})))
    for path in files:
        with suppress(SpectrumError):
            for event in session.file(path, settings.analysis, only):
                if isinstance(event, Outcome):
                    one = normalised(event.message.model_dump(mode="json"), event.arrays)
                    if one is not None:
                        yield one


def _report(outcome: Outcome, path: Path, table: ResultTable | None) -> bool:
    """Show an outcome in the table, or as a line; whether it is a result."""
    message = outcome.message
    if table is None:
        sys.stdout.write(outcome_as_json(message, outcome.arrays, file=str(path)) + "\n")
        sys.stdout.flush()
    else:
        table.add(message.model_dump(mode="json"), path.name)
    if message.kind == "rejected":
        tell(f"{path}: {message.channel}: {message.detail}")
    return message.kind == "result"
