"""Spectra through the pipeline: choosing among models, the polish, several phases."""

from dataclasses import replace

import numpy as np
import pytest

from bundles import copper, parameter, shipped_as, structure, write
from exafsd.contract import FitWindow
from exafsd.contract.recipe import Autobk, Recipe
from exafsd.inference.candidates import MOST
from exafsd.inference.registry import BundleError, load_bundle, shipped_folder
from exafsd.testing.heating import cache_folder, feff_paths
from pipelines import CU, analysis, bundle_of, counted, one, pipeline, sweep
from polishing import Spectrum, reference, simulated
from reducing import analysed

CUO, CU2O = structure("CuO"), structure("Cu2O")


def scores_of(header):
    return {c["model"]: c["score"] for c in header["candidates"]}


def test_the_most_plausible_model_is_published_with_the_scores_of_all(tmp_path, foil):
    pipe = pipeline(
        bundle_of(tmp_path, "cu-k-cuo", CUO, explains=0.5, ood=0.02),
        bundle_of(tmp_path, "cu-k-right", CU, explains=0.9, ood=0.08),
        bundle_of(tmp_path, "cu-k-cu2o", CU2O, explains=0.4, ood=1.2),
    )
    result = one(pipe, counted(foil))
    assert result["model"]["name"] == "cu-k-right"
    assert result["trust"]["in_domain"]
    assert result["shells"][0]["phase"] == "Cu"
    assert result["r_factor"] == pytest.approx(0.01, rel=1e-3)
    scores = scores_of(result)
    assert list(scores) == sorted(scores, key=scores.get, reverse=True)
    assert scores["cu-k-right"] == result["trust"]["score"]
    assert scores.keys() == {"cu-k-cuo", "cu-k-right", "cu-k-cu2o"}
    assert scores["cu-k-cuo"] < 1e-6  # although its own limit trusts it more


def test_two_that_fit_equally_well_are_ambiguous(tmp_path, foil):
    pipe = pipeline(
        bundle_of(tmp_path, "cu-k-cuo", CUO, explains=0.9),
        bundle_of(tmp_path, "cu-k-cu2o", CU2O, 0.89),
    )
    result = one(pipe, counted(foil))
    assert (result["shells"], result["phases"], result["polish"], result["best"]) == (None,) * 4
    assert result["trust"]["reason"].startswith("ambiguous: cu-k-cuo")
    assert "cu-k-cu2o" in result["trust"]["reason"]
    for how in (analysis(model="cu-k-cu2o"), analysis(structure="Cu2O")):
        named = one(pipe, counted(foil), how)
        assert named["model"]["name"] == "cu-k-cu2o"
        assert named["trust"]["reason"] is None
        assert list(scores_of(named)) == ["cu-k-cu2o"]


def test_where_none_fits_the_nearest_is_named_and_nothing_is_given(tmp_path, foil):
    pipe = pipeline(
        bundle_of(tmp_path, "cu-k-cuo", CUO, explains=0.5, ood=2.4),
        bundle_of(tmp_path, "cu-k-cu2o", CU2O, explains=0.3, ood=2.3),
    )
    result = one(pipe, counted(foil))
    assert result["shells"] is None
    assert result["model"]["name"] == "cu-k-cuo"
    reason = result["trust"]["reason"]
    assert "does not fit cu-k-cuo" in reason
    assert "cu-k-cu2o" in reason
    assert np.abs(result["k_data"]).max() > 10


def test_two_networks_of_one_structure_are_no_rivals(tmp_path, foil, shipped):
    again = shipped_as(tmp_path, "cu-k-again")
    result = one(pipeline(again, bundles=[shipped]), counted(foil))
    assert result["shells"]
    first, second = scores_of(result).values()
    assert first == second > 0.5
    other = shipped_as(tmp_path, "cu-k-hcp", structure("Cu", "P 63/m m c"))
    result = one(pipeline(other, bundles=[shipped]), counted(foil))
    assert result["shells"] is None
    assert "ambiguous" in result["trust"]["reason"]


def test_a_spectrum_is_reduced_once_for_models_of_one_recipe(tmp_path, foil):
    other = Recipe(autobk=Autobk(rbkg=1.2))
    same = [bundle_of(tmp_path, f"cu-k-{i}", CUO, 0.5) for i in range(3)]
    for folders, how, jobs in (
        (same, analysis(), 1),
        ([*same, bundle_of(tmp_path, "cu-k-own", CU, 0.9, recipe=other)], analysis(), 2),
        (same, analysis({"autobk": Autobk(rbkg=1.4)}), 2),
    ):
        pipe = pipeline(*folders)
        one(pipe, counted(foil), how)
        assert pipe._reducer.jobs == jobs


def test_each_model_has_its_own_recipe(tmp_path, foil):
    """What is shown is reduced as the chosen model wants it."""
    recipes = {"cu-k-a": Recipe(autobk=Autobk(rbkg=1.4)), "cu-k-b": Recipe()}
    a = bundle_of(tmp_path, "cu-k-a", CUO, 0.9, recipe=recipes["cu-k-a"])
    b = bundle_of(tmp_path, "cu-k-b", CU2O, 0.5, recipe=recipes["cu-k-b"])
    (both,) = pipeline(a, b).process(analysed(sweep(counted(foil)), analysis()))
    (alone,) = pipeline(a).process(analysed(sweep(counted(foil)), analysis()))
    assert both.message.model.name == "cu-k-a"
    np.testing.assert_array_equal(both.arrays["chi_k2"], alone.arrays["chi_k2"])
    (other,) = pipeline(b).process(analysed(sweep(counted(foil)), analysis()))
    assert np.abs(other.arrays["chi_k2"] - alone.arrays["chi_k2"]).max() > 1e-3


def test_not_more_than_some_models_are_asked(tmp_path, foil):
    names = [f"cu-k-{i}" for i in range(MOST + 2)]
    pipe = pipeline(*(bundle_of(tmp_path, name, CU, 0.9) for name in names))
    scores = scores_of(one(pipe, counted(foil)))
    assert scores.keys() == set(names)
    assert [n for n, score in scores.items() if score is None] == names[:2]


def test_a_data_range_too_short_for_one_model_leaves_the_others(tmp_path, foil, shipped):
    long = copper().thresholds.model_copy(update={"k_max_min": 19.0})
    pipe = pipeline(bundle_of(tmp_path, "cu-k-long", CUO, 0.99, thresholds=long), bundles=[shipped])
    result = one(pipe, counted(foil))
    assert result["model"]["name"] == "cu-k-fcc"
    assert scores_of(result)["cu-k-long"] is None
    assert result["shells"]


def test_candidates_change_nothing_in_the_numbers_of_the_chosen(tmp_path, foil, shipped):
    """Many at once, with others beside, read like one alone."""
    pipe = pipeline(bundle_of(tmp_path, "cu-k-cuo", CUO, 0.5), bundles=[shipped])
    several = [
        analysed(sweep(counted(foil, 100.0 + 50 * i, i), i), analysis()) for i in range(1, 5)
    ]
    together = pipe.process_many(several)
    fresh = pipeline(bundles=[shipped])
    for each, (outcome,) in zip(several, together, strict=True):
        (alone,) = fresh.process(each)
        left, right = outcome.message, alone.message
        assert left.model == right.model
        for a, b in zip(left.shells, right.shells, strict=True):
            assert a.r.value == pytest.approx(b.r.value, rel=1e-6)
            assert a.sigma2.std == pytest.approx(b.sigma2.std, rel=1e-4)
        assert left.polish.shells[0].r.value == pytest.approx(right.polish.shells[0].r.value)
        for name, array in outcome.arrays.items():
            np.testing.assert_allclose(array, alone.arrays[name], rtol=1e-4, atol=1e-5)


def test_the_polish_of_an_older_bundle_is_feffit(foil, shipped):
    counts = counted(foil)
    card = shipped.card.model_copy(update={"refinement": None, "edge_position": None})
    result = one(pipeline(bundles=[replace(shipped, card=card, waves=None)]), counts)
    first = feff_paths(cache_folder())[0]
    own = Spectrum.of(simulated(counts), shipped)
    larch = reference(own, shipped.card.fit[0], {1: first})
    polish = result["polish"]
    assert polish["status"] == "converged"
    (shell,), (phase,) = polish["shells"], polish["phases"]
    values = {
        "e0_shift": phase["e0_shift"],
        **{f"1/{n}": shell[n] for n in ("n_s02", "r", "sigma2")},
    }
    for name, value in values.items():
        off = (value["value"] - larch.value[name]) / larch.stderr[name]
        assert abs(off) < 0.1, name
        assert value["std_feffit"] == pytest.approx(larch.stderr[name], rel=0.05)
        assert 0 < value["std"] < value["std_feffit"]
    assert polish["r_factor"] == pytest.approx(larch.r_factor, rel=0.01)
    assert result["best"] == "network"
    assert result["shells"][0]["r"]["value"] != shell["r"]["value"]  # shells stay the network's


def test_the_refinement_is_published_as_the_polish_and_is_the_best(foil, shipped):
    counts = counted(foil)
    result = one(pipeline(bundles=[shipped]), counts)
    (shell,) = result["polish"]["shells"]
    assert result["best"] == "polish"
    for name in ("r", "sigma2"):
        assert abs(shell[name]["value"] - counts.truth[name]) < 3 * shell[name]["std"]
        assert 0 < shell[name]["std_noise"] < shell[name]["std"]
    assert shell["c3"]["value"] > 0


@pytest.mark.parametrize(
    ("setting", "room", "status"),
    [
        ("auto", True, "converged"), ("auto", False, "shed"), ("always", False, "converged"),
        ("always", True, "converged"), ("off", True, "off"), ("off", False, "off"),
    ],
)  # fmt: skip
def test_the_polish_is_made_when_there_is_room_or_it_is_wanted(
    foil, shipped, setting, room, status
):
    result = one(pipeline(bundles=[shipped]), counted(foil), analysis(polish=setting), room=room)
    assert result["polish"]["status"] == status
    assert result["shells"]
    assert result["trust"]["in_domain"]
    if status != "converged":
        assert result["best"] == "network"
        assert result["polish"]["shells"] == []


def test_without_a_word_files_and_replays_are_polished(foil, shipped):
    (outcome,) = pipeline(bundles=[shipped]).process(analysed(sweep(counted(foil)), analysis()))
    assert outcome.message.polish.status == "converged"


@pytest.mark.expects_error_log
def test_a_polish_that_breaks_leaves_the_networks_answer(foil, shipped, monkeypatch):
    pipe = pipeline(bundles=[shipped])

    def broken(*_):
        raise np.linalg.LinAlgError("on purpose")

    monkeypatch.setattr("exafsd.inference.refinement.refiner.Refiner.__call__", broken)
    result = one(pipe, counted(foil))
    assert result["polish"]["status"] == "failed"
    assert result["best"] == "network"
    assert result["shells"]


def mixture(tmp_path, parameters, theta, cov=None):
    card = copper(
        name="cu-k-mix",
        structures=[CUO, CU2O],
        fit=[FitWindow(r=(1.2, 2.4)), FitWindow(r=(1.0, 3.4))],
        parameters=parameters,
    )
    return write(tmp_path, card, 0.9, 0.05, np.array(theta), cov)


def shell(id_, n, r, std=1.0):
    return parameter(id_, std, r_eff=r, degeneracy=float(n))


TWO_PHASES = [
    parameter("CuO/e0_shift"), parameter("CuO/fraction", 0.3),
    shell("CuO/1/n_s02", 4, 1.95), shell("CuO/1/sigma2", 4, 1.95), shell("CuO/2/sigma2", 8, 2.9),
    parameter("CuO/expansion", 0.02),
    parameter("Cu2O/e0_shift", 5.0), shell("Cu2O/1/sigma2", 2, 1.85),
    parameter("Cu2O/expansion", 0.02),
]  # fmt: skip
THETA = [2.0, 0.3, 3.6, 0.004, 0.009, 0.01, 6.0, 0.003, -0.01]


def test_two_phases_are_read_out(tmp_path, foil):
    std = np.array([0.5, 0.04, 0.2, 1e-3, 1e-3, 1e-3, 4.0, 1e-3, 0.019])
    cov = np.diag(std**2)
    cov[1, 3] = cov[3, 1] = 0.5 * std[1] * std[3]  # what is not asked about changes nothing
    result = one(pipeline(mixture(tmp_path, TWO_PHASES, THETA, cov)), counted(foil))
    first, second = result["phases"]
    assert first["fraction"] == pytest.approx({"value": 0.3, "std": 0.04})
    assert second["fraction"] == pytest.approx({"value": 0.7, "std": 0.04})
    assert [p["e0_shift"]["value"] for p in (first, second)] == [2.0, 6.0]
    assert [p["prior_limited"] for p in (first, second)] == [[], ["e0_shift"]]
    by_id = {s["id"]: s for s in result["shells"]}
    assert list(by_id) == ["CuO/1", "CuO/2", "Cu2O/1"]
    assert [s["phase"] for s in by_id.values()] == ["CuO", "CuO", "Cu2O"]
    assert [s["n"] for s in by_id.values()] == [None] * 3
    n_s02 = [s["n_s02"]["value"] for s in by_id.values()]
    assert n_s02 == pytest.approx([3.6, 7.2, 1.8], rel=1e-6)  # one S0^2, the crystals' N
    assert by_id["Cu2O/1"]["n_s02"]["std"] == pytest.approx(0.1, rel=1e-5)
    assert by_id["CuO/2"]["r"] == pytest.approx({"value": 2.9 * 1.01, "std": 2.9e-3}, rel=1e-5)
    assert by_id["Cu2O/1"]["r"] == pytest.approx({"value": 1.85 * 0.99, "std": 1.85 * 0.019}, 1e-5)
    assert by_id["Cu2O/1"]["prior_limited"] == ["r"]
    assert by_id["CuO/1"]["prior_limited"] == []
    assert result["fit"]["r"] == [1.0, 3.4]  # all shells of both
    assert result["polish"]["status"] == "off"  # the reference fit has one phase
    assert result["best"] == "network"


def test_both_phases_may_have_a_fraction_of_their_own(tmp_path, foil):
    parameters = [*TWO_PHASES, parameter("Cu2O/fraction", 0.3)]
    result = one(pipeline(mixture(tmp_path, parameters, [*THETA, 0.65])), counted(foil))
    assert [p["fraction"]["value"] for p in result["phases"]] == pytest.approx([0.3, 0.65])


@pytest.mark.parametrize("lost", ["Cu2O/e0_shift", "CuO/fraction", "Cu2O/expansion", "CuO/1/n_s02"])
def test_a_card_that_cannot_be_read_out_is_refused(tmp_path, lost):
    others = [(p, t) for p, t in zip(TWO_PHASES, THETA, strict=True) if p.id != lost]
    folder = mixture(tmp_path, [p for p, _ in others], [t for _, t in others])
    with pytest.raises(BundleError, match="no parameter"):
        load_bundle(folder)


def test_a_mixture_is_published_only_where_it_fits_better_than_a_pure_phase(tmp_path, foil):
    mixed = mixture(tmp_path, TWO_PHASES, THETA)
    pure = bundle_of(tmp_path, "cu-k-cuo", CUO, 0.9)
    assert one(pipeline(mixed, pure), counted(foil))["model"]["name"] == "cu-k-cuo"
    poor = bundle_of(tmp_path, "cu-k-poor", CUO, 0.7)
    result = one(pipeline(mixed, poor), counted(foil))
    assert result["model"]["name"] == "cu-k-mix"
    assert result["trust"]["reason"] is None


def test_what_came_first_does_not_decide(foil):
    """With the policy ``run`` the first sweep does, with ``model`` none."""
    difference = {}
    for policy in ("run", "model"):
        how = analysis({"e0_policy": policy}, model="cu-k-fcc")
        pipe = pipeline(shipped_folder() / "cu-k-fcc")
        energies = []
        for first in (None, 6.0):
            if first is not None:
                counts = counted(foil, number=3)
                shifted = replace(counts, energy=counts.energy + first)
                pipe.process(analysed(sweep(shifted, 1), how))
            ((outcome,),) = pipe.process_many([analysed(sweep(counted(foil), 2), how)])
            energies.append(outcome.message.e0)
            pipe.end("run")
        difference[policy] = abs(energies[1] - energies[0])
    assert difference["run"] > 3.0
    assert difference["model"] == 0.0
