"""What exafsd says of every spectrum of a library of measured ones, wrong answers first.

The XAS Data Library has spectra of compounds that exafsd has models or references of, and of many
that it has not. None may be taken for what it is not. References of a spectrum's own compound are
left out, so that no spectrum is compared with itself.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exafsd.composition import references
from exafsd.contract.messages import Result
from exafsd.outcome import Outcome
from exafsd.service.wiring import make_pipeline, make_session
from exafsd.settings import Settings
from exafsd.spectra import SpectrumError

#: Table of what the files of the XAS Data Library are.
COMPOUNDS = Path(__file__).parent / "library.toml"
#: Shortest data that are counted, 1/angstrom.
K_END = 8.0
#: Shares of a composition that are not worth a word.
SMALL_SHARE = 0.05
BEGIN, END = "<!-- library -->", "<!-- /library -->"


@dataclass(frozen=True)
class Row:
    """One spectrum; `compound` is what it is, `wrong` that it is trusted for something else."""

    file: str
    compound: str
    k_end: float
    answer: str
    state: str
    why: str
    wrong: bool

    @property
    def counts(self) -> bool:
        """Whether there is a number or a composition."""
        return self.answer != ""


def judge_library(folder: Path, settings: Settings) -> list[Row]:
    """Read every XDI file below a folder whose data are long enough, wrong answers first.

    Parameters
    ----------
    folder
        With the library's files.
    settings
        Which models and references are asked.
    """
    session = make_session(settings, make_pipeline(settings))
    shipped, _ = references.load([references.shipped_folder(), *settings.composition.references])
    rows: list[Row] = []
    for file in sorted(folder.rglob("*.xdi")):
        compound = compound_of(file)
        others = tuple(sorted({one.name for one in shipped} - {compound}))
        composition = settings.composition.model_copy(update={"phases": others})
        analysis = settings.analysis.model_copy(update={"composition": composition})
        try:
            events = list(session.file(file, analysis, None))
        except SpectrumError:
            continue
        messages = [event.message for event in events if isinstance(event, Outcome)]
        results = [m for m in messages if isinstance(m, Result) and m.channel != "reference"]
        if results and results[0].k_data[1] >= K_END:
            rows.append(_row(file, compound, results[0]))
    order = {"trusted": 1, "flagged": 2, "withheld": 3}
    return sorted(rows, key=lambda row: (not row.wrong, order.get(row.state, 4), row.file))


def compound_of(file: Path) -> str:
    """What a file of the library is, by its name; its own name where the table has none."""
    with COMPOUNDS.open("rb") as stream:
        table = tomllib.load(stream)["compounds"]
    return next(
        (name for name, pattern in table.items() if re.match(pattern, file.stem)), file.stem
    )


def _row(file: Path, compound: str, result: Result) -> Row:
    answer, wrong, why = "", False, result.trust.reason or "; ".join(result.trust.doubts)
    state = result.trust.state or ""
    if result.phases and result.shells:
        phase = result.phases[0].phase
        shell = result.shells[0]
        answer = f"{phase}: R = {shell.r.value:.3f}({_digits(shell.r.std)}) Å ({result.read_by})"
        wrong = state == "trusted" and phase != compound
    elif (made_of := result.composition) is not None and made_of.in_domain:
        shares = sorted(made_of.fractions, key=lambda one: -(one.value or 0.0))
        answer = ", ".join(
            f"{one.phase} {one.value:.2f}" for one in shares if (one.value or 0) > 0.05
        )
        state, why = "composition", ""
        wrong = True
    return Row(file.name, compound, result.k_data[1], answer, state, why, wrong)


def _digits(std: float | None) -> str:
    return "?" if std is None else f"{1000 * std:.0f}"


def as_lines(rows: list[Row]) -> Iterator[str]:
    """Markdown: counts, and the table."""
    states = Counter(row.state for row in rows)
    answered = sum(row.counts for row in rows)
    yield (
        f"{len(rows)} spectra with data to k ≥ {K_END:g}: {answered} get a number or a composition"
        f" ({answered / max(len(rows), 1):.0%}); {states['trusted']} trusted, {states['flagged']}"
        f" flagged, {sum(row.wrong for row in rows)} trusted for something else."
    )
    yield ""
    yield "| spectrum | it is | k end | answer | state | why |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        mark = "**wrong** " if row.wrong else ""
        yield (
            f"| {row.file} | {row.compound} | {row.k_end:.1f} | {mark}{row.answer} | {row.state} |"
            f" {row.why} |"
        )


def renew_table(rows: list[Row], page: Path) -> None:
    """Renew the generated part of a page."""
    head, rest = page.read_text().split(BEGIN)
    _, tail = rest.split(END)
    page.write_text("\n".join([head + BEGIN, "", *as_lines(rows), "", END + tail]))
