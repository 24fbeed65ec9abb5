"""Model cards as text for people: what a model was made of, and how it compares with feffit."""

import math
from collections.abc import Iterable, Iterator, Sequence

from exafsd.contract.card import PINN_FILE, AccuracyRow, Card, Parameter

HEAD = """\
# Models

Made by `make schemas` from the cards of the models that come with exafsd.
`exafsd models show NAME --text` prints the same of any model, `exafsd models show NAME` the whole
card.

The tables of accuracy are of measured spectra. feffit is Larch's, with the same structure and
window ([reference fits](explanation/reference-fits.md)), and ± its error bar; the network's ± is
its own standard deviation. *Bars* is the difference in units of feffit's error bar. *Whole feffit*
is Larch's with everything in it that the network sees: multiple scattering, farther shells and C3.
"""


def page(cards: Iterable[Card]) -> str:
    """Markdown page with a section for each card, in order of their names."""
    ordered = sorted(cards, key=lambda card: card.name)
    head = ["model", "edge", "structure", "measured spectra", "largest difference in R", "in N·S0²"]
    overview = _table(head, [_overview(card) for card in ordered])
    return "\n".join([HEAD, *overview, *(f"\n{section(card)}" for card in ordered)])


def section(card: Card) -> str:
    """Markdown section of one card."""
    return "\n".join(
        [
            f"## {card.name}",
            "",
            f"{card.description.rstrip('.')}.",
            "",
            *_facts(card),
            "",
            *_table(["parameter", "unit", "bounds", "prior", "in the crystal"], _priors(card)),
            "",
            *_ties(card),
            *_accuracy(card.accuracy),
            "",
            "Trained by",
            "",
            "```text",
            card.training.command,
            "```",
            "",
        ]
    )


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
    found = [
        abs(row.network - row.feffit) / (abs(row.feffit) if relative else 1.0)
        for row in card.accuracy
        if row.parameter in first
    ]
    return max(found, default=None)


def judged(card: Card) -> tuple[str, str, str]:
    """Number of measured spectra, and the largest differences in R and N·S0²."""
    r, n = largest(card, "r"), largest(card, "n_s02", relative=True)
    return (
        str(len({row.spectrum for row in card.accuracy})),
        "" if r is None else f"{r:.4f} Å",
        "" if n is None else f"{n:.1%}",
    )


def _overview(card: Card) -> list[str]:
    structures = ", ".join(f"{s.formula} ({s.source})" for s in card.structures)
    link = f"[{card.name}](#{card.name})"
    return [link, f"{card.absorber} {card.edge}", structures, *judged(card)]


def _facts(card: Card) -> Iterator[str]:
    for structure, window in zip(card.structures, card.fit, strict=False):
        group = f", {structure.space_group}" if structure.space_group else ""
        (k0, k1), (r0, r1) = window.k, window.r
        yield (
            f"- {structure.phase}: {structure.formula}{group}, {structure.source};"
            f" fitted for R {r0:g} to {r1:g} Å, k {k0:g} to {k1:g} 1/Å, k weight {window.kweight}"
        )
    limits, training = card.thresholds, card.training
    yield (
        f"- needs data to k = {limits.k_max_min:g} 1/Å; withheld above an out-of-domain score of"
        f" {limits.ood:g} ({limits.ood_false_alarms:.1%} of good simulated spectra are)"
    )
    covered = card.calibration.coverage_90.values()
    if covered:
        yield (
            f"- 90 % intervals cover {min(covered):.1%} to {max(covered):.1%} of"
            f" {card.calibration.validation_spectra} simulated spectra not trained on, by parameter"
        )
    yield (
        f"- {training.minutes:g} minutes of training; {training.through_instrument:.0%} of the"
        " spectra went through the whole instrument"
    )
    yield f"- version {card.version}, licence {card.licence}, network {card.sha256[PINN_FILE][:12]}"


def _priors(card: Card) -> Iterator[list[str]]:
    for p in card.parameters:
        low, high = p.bounds
        prior = f"{p.prior.mean:g} ± {p.prior.std:g} ({p.prior.kind})"
        yield [f"`{p.id}`", p.unit, f"{low:g} to {high:g}", prior, _in_crystal(p)]


def _in_crystal(p: Parameter) -> str:
    if p.r_eff is None or p.degeneracy is None:
        return ""
    return f"{p.degeneracy:g} {p.scatterer} at {p.r_eff:.3f} Å"


def _ties(card: Card) -> list[str]:
    if not card.ties:
        return []
    listed = [f"- {tie.target}: {tie.expression}" for tie in card.ties]
    return ["What follows from the parameters:", "", *listed, ""]


def _accuracy(rows: Sequence[AccuracyRow]) -> list[str]:
    if not rows:
        return ["Not compared with feffit on a measured spectrum yet."]
    body: list[list[str]] = []
    for i, row in enumerate(rows):
        difference = row.network - row.feffit
        body.append(
            [
                row.spectrum if i == 0 or rows[i - 1].spectrum != row.spectrum else "",
                f"`{row.parameter}`",
                _with_error(row.feffit, row.feffit_stderr),
                _with_error(row.network, row.network_std),
                f"{difference:+z.{_places(row.feffit_stderr)}f}",
                _in_bars(row.network, row),
                "" if row.polish is None else _in_bars(row.polish, row),
                *_against_whole(row),
            ]
        )
    head = ["spectrum", "parameter", "feffit", "network", "difference", "bars", "polish, bars"]
    head += ["whole feffit", "network, difference"]
    return _table(head, body)


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


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
