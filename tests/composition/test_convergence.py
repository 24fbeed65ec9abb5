"""Whether a run may stop: by the scatter of its sweeps, not while the sample changes."""

from dataclasses import asdict

import numpy as np
import pytest

from exafsd.composition.convergence import Averages, RunningMean
from exafsd.composition.references import load, shipped_folder
from exafsd.contract.messages import Value
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Composition, Convergence, Reduction, Target
from exafsd.spectra import Edge, Run, Sweep
from messages import result, value

ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])


@pytest.mark.parametrize("memory", [0.0, 0.6, 0.9])
def test_the_error_of_a_mean_is_what_means_scatter_by(memory):
    rng = np.random.default_rng(0)
    ends, stds = [], []
    for _ in range(300):
        mean, now = RunningMean(), rng.normal()
        for _ in range(200):
            now = memory * now + (1 - memory**2) ** 0.5 * rng.normal()
            mean.add(5.0 + 0.1 * now, 0.01)
        ends.append(mean.mean)
        stds.append(mean.variance**0.5)
    assert 0.8 < np.mean(stds) / np.std(ends) < 1.35


def sweeps(mus, parameter="white_line", target=1e-3, start=None):
    analysis = Analysis(
        reduction=Reduction(channels=("transmission",)),
        composition=Composition(enabled="off"),
        convergence=Convergence(parameter=parameter, target=target),
    )
    run = Run(uid="run", edges=(Edge("Cu", "K"),), analysis=analysis)
    for i, mu in enumerate(mus):
        way = "down" if i % 2 else "up"
        yield Sweep(run, "primary", i + 1, ENERGY, {"mutrans": mu}, direction=way)


def convergences(measured, batch=1):
    pipe, measured = Pipeline(Registry({}, {}), ()), list(measured)
    batches = [measured[i : i + batch] for i in range(0, len(measured), batch)]
    done = [one for part in batches for one in pipe.process_many(part)]
    return [outcome.message.convergence for (outcome,) in done]


@pytest.fixture(scope="module")
def copper():
    by_name = {one.name: one for one in load([shipped_folder()])[0]}
    return {n: np.interp(ENERGY, by_name[n].energy, by_name[n].mu) for n in ("Cu2O", "CuO")}


@pytest.fixture(scope="module")
def steady(copper):
    """Sweeps whose two directions differ, and scatter by more than their noise."""
    rng = np.random.default_rng(1)
    mus = []
    for i in range(80):
        thick = 0.02 * rng.normal()
        mu = np.interp(ENERGY + 0.3 * (i % 2), ENERGY, copper["Cu2O"])
        mus.append(mu * (1 + thick * (1 - mu)) + 1e-4 * rng.normal(size=len(mu)))
    return mus


def test_a_run_may_stop_where_the_mean_is_as_good_as_was_asked(steady):
    all_of_it = convergences(sweeps(steady))
    first = next(i for i, one in enumerate(all_of_it) if one.reached)
    assert 8 <= first < 79
    assert all(one.reason for one in all_of_it[:7])
    last = all_of_it[-1]
    assert last.reached
    assert last.sweeps == 80
    assert last.sweeps_needed == 0
    # the scatter is 7 times the noise, and the offset of the directions is not in it
    values = np.array([one["white_line"]["value"] for one in xanes_of(steady)])
    pure = np.hypot(values[::2].std(ddof=1), values[1::2].std(ddof=1)) / 2 / 40**0.5
    assert last.std == pytest.approx(pure, rel=0.35)
    assert last.value == pytest.approx((values[::2].mean() + values[1::2].mean()) / 2, rel=1e-9)
    far = convergences(sweeps(steady[:40], target=1e-4))[-1]
    assert not far.reached
    assert far.sweeps_needed + 40 == pytest.approx(40 * (far.std / 1e-4) ** 2, abs=2)


def xanes_of(mus):
    pipe = Pipeline(Registry({}, {}), ())
    done = [one for part in sweeps(mus) for one in pipe.process_many([part])]
    return [asdict(outcome.message.xanes) for (outcome,) in done]


@pytest.mark.parametrize("batch", [7, 64])
def test_nothing_depends_on_the_batch(steady, batch):
    assert convergences(sweeps(steady)) == convergences(sweeps(steady), batch)


def test_it_is_refused_while_the_sample_changes_and_begins_again_after_it(copper):
    rng = np.random.default_rng(2)
    parts = np.clip((np.arange(140) - 60) / 30, 0, 1)
    mus = [(1 - p) * copper["CuO"] + p * copper["Cu2O"] + 1e-3 * rng.normal(size=len(ENERGY))
           for p in parts]  # fmt: skip
    all_of_it = convergences(sweeps(mus, target=2e-3))
    assert all_of_it[55].reached
    during = all_of_it[66:90]
    assert not any(one.reached for one in during)
    assert all("changes since sweep 6" in one.reason for one in during)
    last = all_of_it[-1]
    assert last.reached
    assert last.sweeps < 60
    assert last.value == pytest.approx(1.119, abs=0.002)


def test_a_drift_is_refused(copper):
    rng = np.random.default_rng(3)
    mus = [copper["CuO"] + 0.004 * i * (copper["Cu2O"] - copper["CuO"])
           + 1e-3 * rng.normal(size=len(ENERGY)) for i in range(160)]  # fmt: skip
    last = convergences(sweeps(mus, target=5e-3))[-1]
    assert not last.reached
    assert "drifts" in last.reason


def shell(number, std, noise):
    rest = {"std_noise": noise}
    return {"id": "Cu/1", "n_s02": value(10.0), "sigma2": value(0.009), "c3": None,
            "r": value(number, std) | rest}  # fmt: skip


def series(values, std=0.006, **changes):
    """Results with these R of the refinement."""
    for i, number in enumerate(values):
        polish = {"status": "converged", "r_factor": 0.01, "n_idp": 20.0, "n_var": 5, "phases": [],
                  "shells": [shell(number, std, 0.001)], "correlation": None}  # fmt: skip
        yield result(i + 1, polish=polish, best="polish", quality=[], **changes)


def test_a_target_below_what_theory_leaves_is_told():
    rng = np.random.default_rng(4)
    averages, wanted = Averages(), Target("Cu/1/r", 0.001)
    said = [averages.take(one, wanted) for one in series(2.55 + 0.002 * rng.normal(size=40))]
    assert said[-1].value == pytest.approx(2.55, abs=0.001)
    assert said[-1].reached
    assert said[-1].floor == pytest.approx(0.0057, abs=0.0005)
    assert "below what all sweeps share" in said[-1].reason


def test_what_must_not_be_believed_is_not_in_the_mean():
    averages, wanted = Averages(), Target("Cu2O/share", 0.01)
    made_of = {"references": ["Cu", "Cu2O"], "in_domain": False, "reason": "something else",
               "fractions": [{"phase": "Cu2O", "value": 0.4, "std": 0.01}]}  # fmt: skip
    for i in range(10):
        said = averages.take(result(i + 1, composition=made_of), wanted)
    assert said.sweeps == 0
    assert "this one has none" in said.reason
    for i in range(10):
        good = made_of | {"in_domain": True, "reason": None}
        said = averages.take(result(i + 1, quality=[], composition=good), wanted)
    assert said.reached
    assert said.value == 0.4
    assert Value(value=said.value, std=said.std)


def test_settings_name_a_number_and_a_target():
    run = Analysis().for_run({"exafsd": {"convergence": {"parameter": "Cu/1/r", "target": 0.001}}})
    assert run.convergence.goal == ("Cu/1/r", 0.001)
    assert run.sha256 != Analysis().sha256
    assert "convergence" not in Analysis().canonical.decode()
    for wrong in ({"parameter": "R", "target": 1.0}, {"parameter": "Cu/1/r"}, {"target": 0.1}):
        with pytest.raises(ValueError, match="convergence"):
            Analysis().for_run({"exafsd": {"convergence": wrong}})
