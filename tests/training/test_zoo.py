"""Configurations of the models that ship, and the command that takes them."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from exafsd.contract.card import PINN_FILE
from exafsd.inference.registry import read_card, shipped_folder
from exafsd_training.cli import app
from exafsd_training.fitting import workflow
from exafsd_training.fitting.fit import SHORT, Settings
from exafsd_training.zoo import configurations, suggestions
from exafsd_training.zoo.crystals import zoo

NAMES = ["cd-k-cds", "co-k-licoo2", "cu-k-cu2o", "cu-k-cuo", "cu-k-fcc", "fe-k-bcc", "pt-l3-fcc",
         "zn-k-zno", "zn-k-zns"]  # fmt: skip
#: R windows that reference fits of the project have in common with others, angstrom
WINDOWS = {"cu-k-fcc": (1.4, 3.0), "zn-k-zns": (1.2, 2.5), "zn-k-zno": (1.0, 3.4),
           "cd-k-cds": (1.3, 2.8), "fe-k-bcc": (1.4, 3.0), "pt-l3-fcc": (1.7, 3.3),
           "co-k-licoo2": (1.0, 3.0)}  # fmt: skip

OWN = """
name = "au-l3-own"
absorber = "Au"
edge = "L3"
phase = "Au"
[structure]
cif = "own.cif"
[fit]
r = [1.7, 3.4]
"""


def test_every_model_loads_under_its_own_name() -> None:
    assert configurations.names() == NAMES
    for name in NAMES:
        config = configurations.load(name)
        assert config.name == name
        assert name.startswith(f"{config.absorber}-{config.edge}".lower())
        assert bool(config.prior.einstein) == bool(config.prior.source)
        assert config.steps is not None  # the same training on any computer
        if name in WINDOWS:
            assert config.fit.r == WINDOWS[name]
            assert (config.fit.k, config.fit.kweight, config.fit.dk) == ((3.0, 14.0), 2, 2.0)


def test_a_configuration_of_ones_own_finds_its_structure(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    (tmp_path / "own.cif").write_text(
        configurations.load("pt-l3-fcc").crystal().cif.replace("Pt", "Au")
    )
    config = configurations.load(tmp_path / "own.toml")
    assert config.crystal().formula == "Au"
    assert config.priors.einstein == ()


@pytest.mark.parametrize(
    "old, new",
    [
        ('cif = "own.cif"', 'cif = "own.cif"\namcsd = 11140'),
        ('cif = "own.cif"', ""),
        ('edge = "L3"', 'edge = "L3"\nwindow = 3'),
        ("r = [1.7, 3.4]", "r = [1.7]"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "own.toml").write_text(OWN.replace(old, new))
    with pytest.raises(ValidationError):
        configurations.load(tmp_path / "own.toml")


def test_the_example_of_the_how_to_loads(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "train.md"
    example = page.read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "example.toml").write_text(example)
    shown, shipped = configurations.load(tmp_path / "example.toml"), configurations.load("zn-k-zno")
    assert (shown.fit, shown.priors, shown.structure) == (
        shipped.fit, shipped.priors, shipped.structure
    )  # fmt: skip


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cu-k-fcc"):
        configurations.load("cu-k-bcc")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "cu-k-fcc", "--amcsd", "11145"],
        ["--config", "cu-k-fcc", "--site", "2"],
        ["--absorber", "Cu", "--amcsd", "11145"],
    ],
)
def test_half_a_model_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["fit", "--out", str(tmp_path / "model"), *arguments])
    assert result.exit_code == 2
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "arguments, steps, minutes",
    [
        (["--from-scratch"], 40_000, 25.0),
        (["--from-scratch", "--steps", "9"], 9, 25.0),
        (["--from-scratch", "--minutes", "10"], None, 10.0),
        ([], None, SHORT.minutes),
        (["--steps", "9"], 9, SHORT.minutes),
    ],
)
def test_a_configuration_says_how_long_to_train(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], steps: int | None, minutes: float
) -> None:
    all_settings: list[Settings] = []
    monkeypatch.setattr(workflow, "fit_model", lambda *passed: all_settings.append(passed[5]))
    result = CliRunner().invoke(app, ["fit", "--config", "cd-k-cds", *arguments])
    assert result.exit_code == 0, result.output
    (settings,) = all_settings
    assert (settings.steps, settings.minutes) == (steps, minutes)


def test_every_model_of_the_zoo_ships_with_its_accuracy() -> None:
    folders = {folder.name: folder for folder in shipped_folder().iterdir() if folder.is_dir()}
    trained = {name for name, folder in folders.items() if (folder / PINN_FILE).exists()}
    assert sorted(trained) == configurations.names()
    for name in trained:
        folder = folders[name]
        card, config = read_card(folder), configurations.load(name)
        assert (card.absorber, card.edge) == (config.absorber, config.edge)
        assert card.fit == [config.fit]
        assert len({row.spectrum for row in card.accuracy}) > 0
        assert all(row.polish is not None for row in card.accuracy)
        assert all(row.whole is not None for row in card.accuracy)
        assert sum(file.stat().st_size for file in folder.iterdir()) < 3.2e6


def test_every_crystal_of_the_table_ships() -> None:
    table = zoo()
    folders = {folder.name: folder for folder in shipped_folder().iterdir() if folder.is_dir()}
    by_fit = {name for name, folder in folders.items() if not (folder / PINN_FILE).exists()}
    assert by_fit == table.keys()
    assert len(by_fit) >= 30
    for name, entry in table.items():
        card = read_card(folders[name])
        assert (card.absorber, card.edge) == (entry.absorber, entry.edge)
        assert card.structures[0].source == f"AMCSD {entry.amcsd}"
        assert card.structures[0].absorber_site == entry.site
        assert card.structures[0].cif_sha256 == entry.crystal().cif_sha256
        assert sum(file.stat().st_size for file in folders[name].iterdir()) < 0.8e6
    assert sum(f.stat().st_size for n in by_fit for f in folders[n].iterdir()) < 15e6


def test_suggested_crystals_are_those_of_the_database() -> None:
    assert suggestions.TABLE.read_text() == suggestions.written()
    table = suggestions.suggestions()
    assert ("SrCO3", 234) in table["Sr"]
    # a peroxide by its own formula; KHCO3, whose hydrogens the database has not, is no K C O3
    assert [formula for formula, _ in table["K"]] == ["K", "K2O2", "K2CO3", "KS"]
