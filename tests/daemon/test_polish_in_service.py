"""The polish under load: shed and said so, and back when there is time again."""

import threading
import time

import numpy as np
import pytest

from exafsd.service import wiring
from exafsd.settings.settings import load
from exafsd.testing.heating import HeatedFoil, cache_folder
from simulated import shapes
from synthetic import METADATA

#: sweeps that come at once: their polish takes longer than it may
MANY = 300
#: s until the daemon must have done something
PATIENCE = 60.0


class Daemon:
    """A service whose documents and results are at hand; `measure` starts it."""

    def __init__(self):
        settings = load(
            publish={"address": "tcp://127.0.0.1:*", "arrays": []},
            reduction={"channels": ["transmission"]},
        )
        self.service, self.inbox = wiring.make_service(settings, proxy=False)
        self.results = []
        self.process = self.service._pipeline.process_many
        self.service._pipeline.process_many = self.recorded
        self.thread = threading.Thread(target=self.service.run)
        foil = HeatedFoil(cache_folder(), 400, (300.0, 400.0))
        counts = foil.sweep(300.0, "up", np.random.default_rng(1))
        columns = {"I0": counts.i0, "It": counts.it, "Ir": counts.ir}
        self.sweep = counts.energy, columns, {"temperature": 300.0}

    def recorded(self, sweeps, room):
        """Outcomes of the pipeline, which are kept on their way."""
        outcomes = self.process(sweeps, room)
        self.results += [outcome.message for each in outcomes for outcome in each]
        return outcomes

    def measure(self, sweeps):
        """Results of a run whose documents are all there before the first is read."""
        self.results = []
        for name, document in shapes.array_events([self.sweep] * sweeps, METADATA):
            self.inbox.put(name, document)
        if not self.thread.is_alive():
            self.thread.start()
        deadline = time.monotonic() + PATIENCE
        while len(self.results) < sweeps:
            assert self.thread.is_alive()
            assert time.monotonic() < deadline, f"{len(self.results)} of {sweeps} came"
            time.sleep(0.01)
        return self.results


@pytest.fixture
def daemon():
    running = Daemon()
    yield running
    running.service.stop()
    running.thread.join(20)


def test_shed_in_a_rush_and_back_afterwards(daemon):
    rushed = daemon.measure(MANY)
    assert rushed[-1].polish.status == "shed"
    assert all(result.shells for result in rushed)
    assert {r.best for r in rushed if r.polish.status == "shed"} == {"network"}
    deadline = time.monotonic() + PATIENCE
    while (result := daemon.measure(1)[0]).polish.status == "shed":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert result.polish.status == "converged"
    assert result.polish.shells[0].r.std_feffit > 0
