"""Larch in a process of its own finds a wrong plan, and only that."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.contract import Autobk, Recipe
from exafsd.helper_process import RESTARTS
from exafsd.reduction.audit import Auditor
from exafsd.reduction.e0 import find_e0
from exafsd.reduction.engine import reduce_mu
from exafsd.reduction.judge import judge
from exafsd.reduction.memory import Settled
from exafsd.reduction.plan import Plan
from exafsd.reduction.verdict import DIFFERENCE, AuditJob, Verdict
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Edge, Run, Spectrum, SpectrumError, SpectrumId, Sweep
from reducing import Preparation, Reducing, sweeps_of_file
from synthetic import ROOT, foil

E0 = 8979.0
#: s for a process that must import Larch first
START = 60.0


def job(points=500, scale=1.0, recipe=None, number=0, **changes):
    """Audit job of a synthetic foil, as the plan reduces it."""
    recipe = recipe or Recipe()
    energy, mu = foil(points, noise=1e-4, seed=number)
    mu = mu * scale
    batch = Plan.compile(energy, E0, recipe).reduce(mu[None])
    default = AuditJob(
        key="run/transmission/Cu/K", id=f"run/{number}", energy=energy, mu=mu, e0=E0,
        recipe=recipe, chi=batch.chi[0], edge_step=float(batch.edge_step[0]),
        objective=float(batch.objective[0]),
    )  # fmt: skip
    return replace(default, **changes)


def k_of(chi):
    return 0.05 * np.arange(len(chi))


def verdicts(auditor, count, timeout=START):
    """The next verdicts, as many as asked for."""
    received = []
    end = time.monotonic() + timeout
    while len(received) < count:
        assert time.monotonic() < end, f"{len(received)} of {count} verdicts"
        received += auditor.poll()
        time.sleep(0.005)
    return received


@pytest.fixture
def auditor():
    started = Auditor()
    yield started
    started.close()


@pytest.mark.parametrize(
    ("scale", "autobk"),
    [(1.0, Autobk()), (1e5, Autobk()), (1.0, Autobk(rbkg=1.3, kweight=1, kmin=0.5, nclamp=0))],
)
def test_a_good_plan_agrees(scale, autobk):
    one = job(scale=scale, recipe=Recipe(autobk=autobk))
    verdict = judge(one)
    assert not verdict.alarm
    assert verdict.difference < 1e-5
    assert verdict.off_spline < 1e-10
    # Larch's residual at the spline recovered from chi is what the plan said
    assert verdict.objective == pytest.approx(one.objective, rel=1e-8)
    assert verdict.edge_step_difference < 1e-10


def test_larch_stopping_early_is_no_alarm():
    """Strong clamps: leastsq gives up well before the minimum, the plan does not."""
    verdict = judge(job(scale=4, recipe=Recipe(autobk=Autobk(clamp_lo=5.0, clamp_hi=20.0))))
    assert verdict.difference > DIFFERENCE
    assert verdict.objective < 0.99 * verdict.larch_objective
    assert not verdict.alarm


def left_in(one, size):
    """Background left in chi: a slow wave, below rbkg."""
    return one.chi + size * np.sin(0.8 * k_of(one.chi) + 1) * np.exp(-k_of(one.chi) / 8)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda one: {"chi": left_in(one, 0.02)},
        lambda one: {"chi": one.chi * 1.01},
        # zero everywhere: no residual at all, and yet no background
        lambda one: {"chi": one.chi * 0},
        lambda one: {"chi": np.full_like(one.chi, np.nan)},
        lambda one: {"chi": one.chi[:-1]},
        # a smooth spline with a better fit than Larch's cannot be: the wrong claim is not heard
        lambda one: {"chi": left_in(one, 0.02), "objective": 0.0},
        # another background's plan
        lambda one: {"chi": job(recipe=Recipe(autobk=Autobk(rbkg=1.6))).chi},
    ],
)
def test_a_wrong_plan_is_an_alarm(wrong):
    one = job()
    assert judge(replace(one, **wrong(one))).alarm


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(-5, 0))
def test_whatever_is_added_is_found_by_its_size(shape, exponent):
    """Smooth or not: any change of chi beyond 2e-3 of it is an alarm, below 5e-4 it is none."""
    one = job()
    k = k_of(one.chi)
    weight = k**2 * (k > 2)
    added = sum(a * np.cos((i + 0.3) * np.pi * k / k[-1]) for i, a in enumerate(shape)) / (1 + k)
    size = np.linalg.norm(added * weight)
    if size < 1e-6:
        return
    share = 10**exponent
    chi = one.chi + added * share * np.linalg.norm(one.chi * weight) / size
    verdict = judge(replace(one, chi=chi))
    assert verdict.difference == pytest.approx(share, rel=0.05, abs=1e-6)
    if share > 2e-3:
        assert verdict.alarm
    elif share < 5e-4:
        assert not verdict.alarm


@pytest.mark.measured
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_no_measured_spectrum_is_an_alarm(data):
    """Every third, as it came from the beamline; early stops of leastsq are among them."""
    analysis, judged = Analysis(), []
    for path in sorted((data / "xas").glob("*/*.xdi"))[::3]:
        for sweep in sweeps_of_file(path, analysis.adapter):
            for one in Preparation().spectra(sweep, analysis):
                if not isinstance(one, Spectrum):
                    continue
                try:
                    r = reduce_mu(one.energy, one.mu, Recipe())
                except SpectrumError:
                    continue
                judged.append(judge(AuditJob(
                    "k", path.name, one.energy, one.mu, r.e0, Recipe(), r.chi, r.edge_step,
                    r.objective, e0_found=True,
                )))  # fmt: skip
    assert len(judged) > 40
    assert not [v for v in judged if v.alarm or v.error]
    assert max(v.off_spline for v in judged) < 1e-9
    assert max(v.e0_difference for v in judged) == 0.0


def test_what_rebinning_changes_is_told_apart_and_no_alarm():
    raw = foil(4000, noise=1e-3, seed=3)
    energy, mu = (column.reshape(-1, 8).mean(axis=1) for column in raw)
    batch = Plan.compile(energy, E0, Recipe()).reduce(mu[None])
    one = AuditJob(
        "k", "i", energy, mu, E0, Recipe(), batch.chi[0], float(batch.edge_step[0]),
        float(batch.objective[0]), raw=raw,
    )  # fmt: skip
    verdict = judge(one)
    assert not verdict.alarm
    assert 1e-4 < verdict.rebin_change < 0.2
    assert judge(replace(one, raw=(energy, mu))).rebin_change == 0.0


def test_e0_is_compared_where_it_was_found():
    assert judge(job()).e0_difference is None
    one = job()
    with_own_e0 = replace(one, e0=find_e0(one.energy, one.mu), e0_found=True)
    assert judge(with_own_e0).e0_difference == 0.0
    assert judge(replace(with_own_e0, e0=with_own_e0.e0 * 1.0001)).e0_difference == pytest.approx(
        1e-4
    )


def test_a_spectrum_that_larch_cannot_reduce_is_an_error_and_no_alarm(auditor):
    bad = job(mu=np.full(500, np.nan))
    assert judge(bad).error
    auditor.submit(bad)
    auditor.submit(job())
    first, second = verdicts(auditor, 2)
    assert first.error and not first.alarm
    assert second.error is None
    assert auditor.metrics()["errors"] == 1


def test_the_process_says_what_larch_says(auditor):
    one = job()
    wrong = job(number=1, chi=left_in(one, 0.05))
    begun = threading.Event()  # another thread runs while the process is started
    stop = threading.Event()

    def busy():
        begun.set()
        while not stop.is_set():
            sum(range(1000))

    other = threading.Thread(target=busy)
    other.start()
    begun.wait()
    auditor.submit(one)
    auditor.submit(wrong)
    good, bad = verdicts(auditor, 2)
    stop.set()
    other.join()
    assert good == judge(one)
    assert (good.id, bad.id) == ("run/0", "run/1")
    assert (good.alarm, bad.alarm) == (False, True)
    metrics = auditor.metrics()
    assert (metrics["count"], metrics["alarms"], metrics["shed"]) == (2, 1, 0)
    assert metrics["difference_max"] == bad.difference
    assert metrics["objective_excess_max"] > 0
    assert all(isinstance(v, float) and np.isfinite(v) for v in metrics.values())

    process = psutil.Process(auditor.pid)
    assert process.nice() > psutil.Process().nice()
    assert not any("tensorflow" in m.path for m in process.memory_maps())
    process.send_signal(signal.SIGINT)  # as Ctrl-C in a terminal would
    process.send_signal(signal.SIGTERM)
    auditor.submit(one)
    assert verdicts(auditor, 1)[0] == good
    assert auditor.metrics()["deaths"] == 0


def test_submitting_is_quick_and_a_full_queue_sheds(auditor):
    one = job()
    auditor.submit(one)
    verdicts(auditor, 1)
    os.kill(auditor.pid, signal.SIGSTOP)
    try:
        taken, times = [], []
        for _ in range(50):
            began = time.perf_counter()
            taken.append(auditor.submit(one))
            times.append(time.perf_counter() - began)
        # one is with the process, 8 wait
        assert 8 <= sum(taken) <= 9
        assert auditor.metrics()["shed"] == 50 - sum(taken)
        assert np.median(times) < 1e-3  # really some us; this is no measurement
        assert auditor.poll() == []
    finally:
        os.kill(auditor.pid, signal.SIGCONT)
    assert len(verdicts(auditor, sum(taken))) == sum(taken)


def test_a_dead_process_is_started_again_but_not_for_ever(auditor):
    one = job()
    auditor.submit(one)
    verdicts(auditor, 1)
    first = auditor.pid
    os.kill(first, signal.SIGKILL)
    auditor.submit(one)
    lost = verdicts(auditor, 1)[0]
    assert "ended" in lost.error and not lost.alarm
    auditor.submit(one)
    assert verdicts(auditor, 1)[0].error is None
    assert auditor.pid != first
    assert auditor.metrics()["deaths"] == 1
    assert not auditor.off
    while not auditor.off:
        auditor.submit(one)
        while auditor.pid is None:
            time.sleep(0.001)
        os.kill(auditor.pid, signal.SIGKILL)
        assert verdicts(auditor, 1)[0].error
    assert auditor.metrics()["deaths"] == RESTARTS + 1
    assert auditor.metrics()["off"] == 1
    assert not auditor.submit(one)


def test_close_leaves_nothing_behind_even_while_larch_works():
    before, children = threading.active_count(), set(psutil.Process().children())
    auditor = Auditor()
    for number in range(4):
        auditor.submit(job(number=number))
    while auditor.pid is None:
        time.sleep(0.001)
    process = psutil.Process(auditor.pid)
    began = time.monotonic()
    auditor.close()
    assert time.monotonic() - began < 1.0
    assert not process.is_running()
    assert set(psutil.Process().children()) <= children  # other tests have servers
    assert threading.active_count() == before
    assert not auditor.submit(job())
    auditor.close()
    Auditor().close()


def test_the_process_ends_with_a_daemon_that_was_killed():
    code = (
        "import sys, time\n"
        "from test_audit import job\n"
        "from exafsd.reduction.audit import Auditor\n"
        "auditor = Auditor()\n"
        "auditor.submit(job())\n"
        "while not auditor.poll():\n    time.sleep(0.01)\n"
        "print(auditor.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    paths = os.pathsep.join(str(ROOT / "tests" / part) for part in ("", "reduction"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as parent:  # fmt: skip
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    child.wait(10)


def test_sampling_takes_the_first_and_one_in_n_of_each_series():
    series = {"a": Settled("a"), "b": Settled("b")}
    taken = {"a": [], "b": []}
    for number in range(35):
        for key, numbers in taken.items():
            if series[key].due(10):
                numbers.append(number)
    assert taken == {"a": [0, 10, 20, 30], "b": [0, 10, 20, 30]}
    assert Settled("c").due(10)


def alarm(key):
    return Verdict(key, "i", difference=0.1, objective=2.0, larch_objective=1.0, off_spline=0.0)


class Judged:
    """Takes jobs, and says of them what a test wants."""

    def __init__(self):
        self.jobs, self.verdicts = [], []

    def submit(self, job):
        self.jobs.append(job)

    def poll(self):
        verdicts, self.verdicts = self.verdicts, []
        return verdicts


def test_after_an_alarm_every_spectrum_until_they_agree():
    auditor = Judged()
    reducing = Reducing(auditor, 100)
    energy, mu = foil(400, noise=1e-4)

    def engine_of(run):
        sweep = Sweep(Run(run, edges=(Edge("Cu", "K"),)), "primary", 1, energy, {})
        one = Spectrum(SpectrumId(sweep, "transmission", Edge("Cu", "K")), energy, mu)
        return reducing.reduce([one])[0].engine

    def say(verdict):
        auditor.verdicts.append(verdict)
        return reducing.reducer.audit()

    assert {engine_of("a"), engine_of("b"), engine_of("a")} == {"plan"}
    a, b = (job.key for job in auditor.jobs)
    agree = Verdict(a, "i", difference=1e-6, objective=1, larch_objective=1, off_spline=0)
    assert alarm(a).alarm and not agree.alarm
    assert "goes on with Larch" in say(alarm(a))[0]
    assert say(alarm(a)) == []  # told once
    assert [engine_of("a") for _ in range(3)] == ["larch"] * 3
    assert engine_of("b") == "plan"
    assert [job.key for job in auditor.jobs] == [a, b, a, a, a]
    assert "could not be audited" in say(Verdict(a, "i", error="the process ended"))[0]
    assert engine_of("a") == "larch"
    assert "agrees with Larch again" in say(agree)[0]
    assert engine_of("a") == "plan"
    del reducing.memories["a"]
    gc.collect()
    say(alarm(a))  # of a run that has ended: nothing to remember
    assert engine_of("a") == "plan"
