"""Limits of what fits poorly, as a card holds them."""

import pytest

from bundles import copper
from exafsd.contract.card import PoorFit
from exafsd.inference.judgement import fits_poorly, r_factor_denominator_floor


def test_limits_lie_between_their_nodes():
    usual = PoorFit(
        noise=(1e-4, 1e-2), k_end=(8.0, 16.0), limit=((1, 1), (1, 1)),
        r_factor=((1, 3), (4, 12)), signal=(2, 6),
    )  # fmt: skip
    card = copper(thresholds=copper().thresholds.model_copy(update={"poor_fit": usual}))
    # data to 12: 2 and 8 at the nodes; a noise of 1e-3 is half way, in logarithms
    assert fits_poorly(card, 0.5, 4.01, 1e-3, 12.0)
    assert not fits_poorly(card, 0.5, 3.99, 1e-3, 12.0)
    assert not fits_poorly(card, 0.5, 1.99, 1e-5, 12.0)
    assert fits_poorly(card, 1.1, None, 1e-3, 12.0)
    assert not fits_poorly(card, 0.9, None, 1e-3, 12.0)
    assert not fits_poorly(card, 9.0, 9.0, float("nan"), 12.0)
    assert r_factor_denominator_floor(card, 12.0) == 4
    unknown = usual.model_copy(update={"signal": None})
    card = copper(thresholds=copper().thresholds.model_copy(update={"poor_fit": unknown}))
    assert r_factor_denominator_floor(card, 12.0) == 0


@pytest.mark.parametrize("table", [((1, 1),), ((1, 1), (1,)), ((1, 1), (1, 0))])
def test_limits_have_a_row_for_every_noise_and_are_above_zero(table):
    with pytest.raises(ValueError, match=r"r_factor|a limit for every noise"):
        PoorFit(noise=(1e-4, 1e-2), k_end=(8, 16), limit=((1, 1), (1, 1)), r_factor=table)


def test_the_usual_signal_is_one_for_every_data_end():
    with pytest.raises(ValueError, match="a signal for every data end"):
        PoorFit(noise=(1e-4, 1e-2), k_end=(8, 16), limit=((1, 1), (1, 1)), signal=(1,))
