"""Model cards as text for people: what a model was made of, and how it compares with feffit."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from exafsd.contract.card import AccuracyRow, Card

ACCURACY_HEAD = (
    "spectrum", "parameter", "feffit", "network", "difference", "bars", "polish, bars",
    "whole feffit", "network, difference",
)  # fmt: skip


def page(cards: Iterable[Card]) -> str:
    """Markdown page with a section for each card, in order of their names."""
    ordered = sorted(cards, key=lambda card: card.name)
    return _templates().page([(card, judged(card)) for card in ordered])


def section(card: Card) -> str:
    """Markdown section of one card."""
    return _templates().section(card)


def largest(card: Card, name: str, relative: bool = False) -> float | None:
    """Largest difference between network and feffit of first-shell parameters of that name.

    Parameters
    ----------
    name
        As in `Parameter`: r, n_s02, sigma2, e0_shift.
    relative
        In units of feffit's value.
    """
    first = {p.id for p in card.parameters if p.name == name and p.shell in (None, 1)}
    biases = [
        abs(row.network - row.feffit) / (abs(row.feffit) if relative else 1.0)
        for row in card.accuracy
        if row.parameter in first
    ]
    return max(biases, default=None)


def judged(card: Card) -> tuple[str, str, str]:
    """Number of measured spectra, and the largest differences in R and N·S0²."""
    r, n = largest(card, "r"), largest(card, "n_s02", relative=True)
    return (
        str(len({row.spectrum for row in card.accuracy})),
        "" if r is None else f"{r:.4f} Å",
        "" if n is None else f"{n:.1%}",
    )


def _templates() -> Any:
    """Macros `page` and `section` of the template."""
    loader = PackageLoader("exafsd.commands", "")
    environment = Environment(  # noqa: S701  # Markdown for a terminal or our own pages, no HTML
        loader=loader, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["g"] = lambda value: f"{value:g}"
    names = {"accuracy_head": ACCURACY_HEAD, "accuracy": _accuracy, "zip": zip}
    return environment.get_template("modelpage.md.jinja", globals=names).module


def _accuracy(rows: Sequence[AccuracyRow]) -> Iterator[tuple[str, ...]]:
    """Cells of the table of accuracy; a spectrum is named once."""
    named = ""
    for row in rows:
        spectrum, named = "" if row.spectrum == named else row.spectrum, row.spectrum
        yield (
            spectrum,
            f"`{row.parameter}`",
            _with_error(row.feffit, row.feffit_stderr),
            _with_error(row.network, row.network_std),
            f"{row.network - row.feffit:+z.{_places(row.feffit_stderr)}f}",
            _in_bars(row.network, row),
            "" if row.polish is None else _in_bars(row.polish, row),
            *_against_whole(row),
        )


def _against_whole(row: AccuracyRow) -> tuple[str, str]:
    """The whole fit, and the network less it."""
    if row.whole is None or not row.whole_stderr:
        return "", ""
    difference = row.network - row.whole
    shown = f"{difference:+z.{_places(row.whole_stderr)}f}"
    return _with_error(row.whole, row.whole_stderr), shown


def _in_bars(value: float, row: AccuracyRow) -> str:
    """Difference from feffit in units of its error bar."""
    if row.feffit_stderr <= 0:
        return ""
    return f"{(value - row.feffit) / row.feffit_stderr:+z.1f}"


def _with_error(value: float, error: float) -> str:
    places = _places(error)
    return f"{value:.{places}f} ± {error:.{places}f}"


def _places(error: float) -> int:
    """Decimal places that show two digits of an error."""
    return max(0, 1 - math.floor(math.log10(error))) if error > 0 else 4
