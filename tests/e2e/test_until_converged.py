"""A real RunEngine that stops when a real daemon says so, refuses to, and never hangs."""

import re
import signal
import time
from contextlib import ExitStack

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

from exafsd import codec
from exafsd.client import Subscriber
from exafsd.composition.references import load, shipped_folder
from exafsd.plans import until_converged
from exafsd.testing.devices import Device, Done, data_key, readings
from exafsd.testing.processes import daemon, proxy

ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.arange(8960.0, 9340.0, 0.7)])
PACE = 0.05


class Sample(Device):
    """A scan in one event; `part` of sweep number i is the share of Cu2O in CuO."""

    def __init__(self, part):
        super().__init__("scan")
        self._part, self.sweeps = part, 0
        by_name = {one.name: one for one in load([shipped_folder()])[0]}
        self._mus = [np.interp(ENERGY, by_name[n].energy, by_name[n].mu) for n in ("CuO", "Cu2O")]
        self._rng = np.random.default_rng(0)

    def trigger(self):
        self.sweeps += 1
        return Done()

    def describe(self):
        return {name: data_key([len(ENERGY)], unit)
                for name, unit in (("energy", "eV"), ("I0", ""), ("It", ""))}  # fmt: skip

    def read(self):
        part = self._part(self.sweeps)
        mu = (1 - part) * self._mus[0] + part * self._mus[1]
        mu = mu + 1e-3 * self._rng.normal(size=len(mu))
        i0 = np.full(len(mu), 1e6)
        return readings({"energy": ENERGY, "I0": i0, "It": i0 * np.exp(-mu)}, time.time())


@pytest.fixture
def site(tmp_path, monkeypatch):
    """RunEngine whose documents go to a daemon; its process and address."""
    (tmp_path / "assets").mkdir()
    monkeypatch.setenv("EXAFSD_INFERENCE__ENABLED", "false")
    with ExitStack() as stack:
        into, out = stack.enter_context(proxy(tmp_path))
        running, address = stack.enter_context(
            daemon(tmp_path, out, "tcp://127.0.0.1:*", tmp_path / "journal", tmp_path / "assets")
        )
        with Subscriber(address, "status.") as statuses:
            while (status := statuses.receive(60)) and status.header["state"] != "ready":
                pass
            assert status is not None
        engine = RunEngine({}, context_managers=[], call_returns_result=True)
        publisher = Publisher(into.removeprefix("tcp://"), serializer=codec.dumps)
        engine.subscribe(publisher)
        yield engine, running, address
        publisher.close()
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join(10)
        engine.loop.close()


def measure(engine, sample, address, during=None, target=5e-4, **options):
    """Result of the stub, and how long it took, s."""
    metadata = {
        "element": "Cu", "edge": "K",
        "exafsd": {"convergence": {"parameter": "white_line", "target": target}},
    }  # fmt: skip

    def sweep():
        yield from bps.trigger_and_read([sample])
        yield from bps.sleep(PACE)
        if during is not None:
            during(sample)

    def plan():
        uid = yield from bps.open_run(metadata)
        stopped = yield from until_converged(uid, sweep, address=address, **options)
        yield from bps.close_run()
        return stopped

    start = time.monotonic()
    done = engine(bpp.stage_wrapper(plan(), []))
    return done.plan_result, time.monotonic() - start


def test_a_run_ends_when_its_mean_is_as_good_as_was_asked(site):
    engine, _, address = site
    stopped, took = measure(engine, Sample(lambda _: 0.0), address, timeout=60.0)
    assert stopped.why == "converged"
    assert stopped.convergence["std"] <= 5e-4
    assert 8 <= stopped.convergence["sweeps"] <= stopped.sweeps
    assert took < 55


def test_it_goes_on_while_the_sample_changes(site):
    engine, _, address = site

    def part(sweep):
        return min(max((sweep - 12) / 60, 0.0), 1.0)

    # 12 sweeps are too few for it, and by scatter alone 50 would be enough
    stopped, _ = measure(engine, Sample(part), address, target=1.2e-4, timeout=60.0, most=50)
    assert stopped.why == "sweeps"
    assert not stopped.convergence["reached"]
    assert re.search("changes|drifts", stopped.convergence["reason"])


def test_a_daemon_that_is_killed_ends_the_waiting_and_never_hangs_a_plan(site):
    engine, running, address = site

    def kill(sample):
        if sample.sweeps == 10:
            running.process.send_signal(signal.SIGKILL)

    stopped, took = measure(
        engine, Sample(lambda _: 0.0), address, kill, target=1e-6, timeout=60.0, silent=2.0
    )
    assert stopped.why == "gone"
    assert took < 30
    # and where nobody has ever been, it is over after its time
    stopped, took = measure(engine, Sample(lambda _: 0.0), address, timeout=1.5, silent=60.0)
    assert stopped.why == "timeout"
    assert 1.5 <= took < 5
    assert stopped.sweeps > 5


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_it_must_have_a_time_limit(timeout):
    with pytest.raises(ValueError, match="timeout"):
        next(until_converged("uid", timeout=timeout))
