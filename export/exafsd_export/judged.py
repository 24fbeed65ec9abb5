"""How good reading by fit is, crystal by crystal: beside feffit, and on independent simulations.

Bundles are made anew. The simulator that judges them has no part in their calibration
(`exafsd_training.simulation.independent`).
"""

from collections.abc import Sequence
from pathlib import Path

from exafsd.contract import CARD_FILE, Card
from exafsd.contract.card import IndependentRow
from exafsd_export.equality import as_lines, compare
from exafsd_export.quick import Material, make_quick
from exafsd_training.studies.independent import judge_bundle
from exafsd_training.zoo.configurations import ModelConfig
from exafsd_training.zoo.crystals import judged

#: Crystals whose tables are in the documentation, of metals, semiconductors and oxides.
NAMES = (
    "cu-k-fcc", "ni-k-fcc", "fe-k-bcc", "v-k-bcc", "co-k-hcp", "pt-l3-fcc", "zn-k-zns", "cd-k-cds",
    "se-k-znse", "fe-k-fes2", "cu-k-cuo", "ni-k-nio", "zn-k-zno", "au-l3-fcc", "cr-k-cr2o3",
)  # fmt: skip
#: Simulated spectra of each, and temperature series, of which this table shows nothing.
SPECTRA, SERIES = 200, 2
BEGIN, END = "<!-- judged -->", "<!-- /judged -->"


def judge(names: Sequence[str], data: Sequence[Path], work: Path, page: Path | None) -> list[str]:
    """Make bundles of crystals, judge them, and write the tables into a page.

    Parameters
    ----------
    names
        Configurations of `exafsd_training.zoo`; all of `NAMES` if empty.
    data
        Folders with the measured spectra that they name.
    work
        Folder for FEFF's runs and the bundles.
    page
        Markdown page whose generated part is renewed.

    Raises
    ------
    FileNotFoundError
        If no folder has a measured spectrum of a crystal.
    """
    equal, coverage = [], []
    for name in names or NAMES:
        config = judged(name)
        folder, files = work / "bundles" / name, measured(config, data)
        material = Material(config.crystal(), config.absorber, config.edge, name)
        make_quick(material, folder, work)
        rows = compare(folder, files, work, material.crystal)
        judge_bundle(folder, config, files, work, SPECTRA, SERIES)
        card = Card.model_validate_json((folder / CARD_FILE).read_text())
        equal += as_lines(card, rows)
        coverage += [coverage_line(card, name)]
    lines = [
        "| crystal | R: 90 % hold | bias, Å | std, Å | σ²: 90 % hold | bias, Å² | std, Å² |"
        " N: 90 % hold | bias | std | published |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *coverage,
        "",
        "| crystal | spectrum | | feffit | fit with flat priors less feffit | shift by priors and"
        " farther shells | std |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *equal,
    ]
    if page is not None:
        head, rest = page.read_text().split(BEGIN)
        tail = rest.split(END)[1]
        page.write_text("\n".join([head + BEGIN, "", *lines, "", END + tail]))
    return lines


def measured(config: ModelConfig, data: Sequence[Path]) -> list[Path]:
    """Measured mu(E) of a configuration.

    Raises
    ------
    FileNotFoundError
        If no folder has one.
    """
    files = [folder / one.file for one in config.measured if one.kind == "mu" for folder in data]
    files = [file for file in files if file.is_file()]
    if not files:
        raise FileNotFoundError(f"no measured spectrum of {config.name} in the folders of --data")
    return files


def coverage_line(card: Card, name: str) -> str:
    """Row of a table: coverage, bias and error bar of R, sigma2 and N S0^2."""
    rows = {row.parameter: row for row in card.independent if row.answer == "network"}
    r, sigma2, number = (rows[key] for key in ("r", "sigma2", "n_s02"))

    def shown(row: IndependentRow, scale: float, form: str, unit: str = "") -> str:
        return (
            f"{100 * row.coverage_90:.0f} % | {scale * row.bias:+{form}}{unit} |"
            f" {scale * row.std:{form}}{unit}"
        )

    parts = [shown(r, 1, ".4f"), shown(sigma2, 1, ".5f"), shown(number, 100, ".1f", " %")]
    return f"| `{name}` | {' | '.join(parts)} | {r.spectra} of {SPECTRA} |"
