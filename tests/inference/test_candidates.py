"""Which of several models a spectrum belongs to: the best fit, if there is no rival."""

import numpy as np
import pytest

from bundles import structure
from exafsd.contract import FitWindow
from exafsd.inference.candidates import (
    FLOOR,
    Contender,
    choose,
    common_window,
    independent_points,
)

#: independent points of the usual window
N_IDP = 18.0


def contender(formula, misfit, trust=0.9, in_domain=True):
    return Contender([structure(f) for f in formula.split("+")], trust, in_domain, misfit)


def test_one_candidate_has_its_own_trust_as_score():
    choice = choose([contender("Cu", 0.02, trust=0.7)], 0.0)
    assert (choice.best, choice.scores, choice.rivals) == (0, (0.7,), ())


def test_the_better_fit_wins_whatever_the_limits_of_the_cards():
    """ZnS has a wide limit, so that it trusts itself more with a worse fit."""
    zno, zns = contender("ZnO", 0.02, trust=0.6), contender("ZnS", 0.2, trust=0.95)
    for order in ([zno, zns], [zns, zno]):
        choice = choose(order, N_IDP)
        assert order[choice.best] is zno
        assert choice.rivals == ()
    assert choose([zno, zns], N_IDP).scores[0] == 0.6
    assert choose([zno, zns], N_IDP).scores[1] < 1e-3


def test_a_model_that_fits_worse_than_one_out_of_its_domain_is_not_chosen():
    """The sample is nearer to what it is not quite than to what has the wider limit."""
    zno = contender("ZnO", 0.03, trust=0.3, in_domain=False)
    zns = contender("ZnS", 0.2, trust=0.6)
    choice = choose([zns, zno], N_IDP)
    assert choice.best == 1


@pytest.mark.parametrize(("ratio", "decided"), [(1.0, False), (1.3, False), (1.5, True)])
def test_two_that_fit_about_equally_well_are_rivals(ratio, decided):
    choice = choose([contender("CuO", 0.02), contender("Cu2O", 0.02 * ratio)], N_IDP)
    assert choice.best == 0
    assert choice.rivals == (() if decided else (1,))


def test_what_is_refused_for_itself_is_no_rival():
    """CePO4 fitted about ceria's crystal ends on a bound: no reason to doubt that it is CePO4."""
    phosphate, ceria = (
        contender("CePO4", 0.14, trust=0.75),
        contender("CeO2", 0.12, trust=0.4, in_domain=False),
    )
    choice = choose([ceria, phosphate], N_IDP)
    assert (choice.best, choice.rivals) == (1, ())
    refused = contender("CePO4", 0.14, trust=0.45, in_domain=False)
    assert choose([ceria, refused], N_IDP).rivals


def test_noise_decides_nothing():
    """Where noise is half of the data every model misses about as much."""
    choice = choose([contender("CuO", 0.50), contender("Cu2O", 0.52)], N_IDP)
    assert choice.rivals == (1,)


def test_what_is_better_than_feff_itself_decides_nothing():
    choice = choose([contender("CuO", FLOOR / 100), contender("Cu2O", FLOOR / 10)], N_IDP)
    assert choice.scores == (0.9, 0.9)
    assert choice.rivals == (1,)


def test_two_models_of_one_structure_are_no_rivals():
    choice = choose([contender("Cu", 0.02, trust=0.8), contender("Cu", 0.0201)], N_IDP)
    assert (choice.best, choice.rivals) == (1, ())


def test_of_a_mixture_and_a_pure_phase_the_pure_one_is_chosen_unless_it_fits_worse():
    mixture, pure = contender("CuO+Cu2O", 0.02), contender("CuO", 0.021)
    choice = choose([mixture, pure], N_IDP)
    assert (choice.best, choice.rivals) == (1, ())
    choice = choose([mixture, contender("CuO", 0.05)], N_IDP)
    assert (choice.best, choice.rivals) == (0, ())
    choice = choose([mixture, pure, contender("Cu", 0.02)], N_IDP)
    assert choice.rivals


@pytest.mark.parametrize("misfits", [(np.nan, 0.02), (np.nan, np.nan), (np.inf, 0.02)])
def test_unknown_misfits_never_win_over_known_ones(misfits):
    choice = choose([contender("CuO", misfits[0]), contender("Cu2O", misfits[1])], N_IDP)
    assert np.isfinite(choice.scores).all()
    assert choice.scores[0] == 0.0
    assert choice.best == (0 if np.isnan(misfits[1]) else 1)


def test_the_common_window_has_all_shells_and_only_common_k():
    zno, zns = FitWindow(r=(1.0, 3.4)), FitWindow(k=(2.5, 12.0), r=(1.2, 2.5))
    window = common_window([zno, zns])
    assert (window.k, window.r) == ((3.0, 12.0), (1.0, 3.4))
    assert independent_points(window) == pytest.approx(1 + 2 * 2.4 * 9.0 / np.pi)
    assert common_window([zns]) == zns
