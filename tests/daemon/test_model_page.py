"""docs/models.md is what the cards say; models list and show for people."""

import pytest

from exafsd.commands import modelpage
from exafsd.commands.models import models_page, models_table, show_card
from exafsd.inference.registry import read_card, shipped_folder
from exafsd.settings.settings import load
from synthetic import ROOT
from typed_commands import exafsd

CARD = read_card(shipped_folder() / "cu-k-fcc")


def test_the_page_on_disk_is_that_of_the_cards() -> None:
    assert (ROOT / "docs" / "models.md").read_text() == models_page(), "run `make schemas`"


def test_every_shipped_network_is_compared_with_feffit() -> None:
    page = models_page()
    for folder in shipped_folder().iterdir():
        if (folder / "card.json").is_file():
            card = read_card(folder)
            if card.training is None:
                assert f"| `{card.name}` |" in page
                continue
            assert card.accuracy, card.name
            assert f"\n## {card.name}\n" in page


def test_numbers_have_the_digits_of_their_errors() -> None:
    row = CARD.accuracy[0].model_copy(
        update={
            "feffit": 2.54362,
            "feffit_stderr": 0.00279,
            "network": 2.54361,
            "network_std": 0.01,
            "whole": 2.55387,
            "whole_stderr": 0.002,
        }
    )
    text = modelpage.section(CARD.model_copy(update={"accuracy": [row]}))
    assert "| 2.5436 ± 0.0028 | 2.544 ± 0.010 | +0.0000 | +0.0 |" in text
    assert "| 2.5539 ± 0.0020 | -0.0103 |" in text
    assert "Not compared" in modelpage.section(CARD.model_copy(update={"accuracy": []}))


def test_the_largest_difference_is_of_the_nearest_shell() -> None:
    rows = [
        row.model_copy(update={"parameter": parameter, "feffit": feffit, "network": network})
        for row, parameter, feffit, network in zip(
            CARD.accuracy,
            ["Cu/1/r", "Cu/1/r", "Cu/2/r", "Cu/1/n_s02"],
            [2.5, 2.5, 3.0, 10.0],
            [2.51, 2.47, 9.0, 9.5],
            strict=False,
        )
    ]
    card = CARD.model_copy(update={"accuracy": rows})
    assert modelpage.largest(card, "r") == pytest.approx(0.03)
    assert modelpage.largest(card, "n_s02", relative=True) == pytest.approx(0.05)
    assert modelpage.largest(card, "c3") is None


def test_several_cards_in_order_of_their_names() -> None:
    other = CARD.model_copy(update={"name": "au-l3-fcc"})
    text = modelpage.page([CARD, other])
    assert text.index("## au-l3-fcc") < text.index("## cu-k-fcc")
    assert "[au-l3-fcc](#au-l3-fcc)" in text


def test_list_and_show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    models_table(load())
    listed = capsys.readouterr().out
    r, n = modelpage.largest(CARD, "r"), modelpage.largest(CARD, "n_s02", relative=True)
    for name in ("cu-k-fcc", "shipped", f"{r:.4f} Å", f"{n:.1%}"):
        assert name in listed
    show_card(CARD)
    assert "Cu_Foil_rt_2016Foils.xdi" in capsys.readouterr().out


def test_the_page_is_printed_by_the_command() -> None:
    assert exafsd("models", "page").stdout == models_page()
