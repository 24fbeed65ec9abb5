"""A plan that has gone wrong is found out by Larch, and the series goes on with Larch."""

import time

import numpy as np
import pytest

from exafsd.contract.frames import ARRAY_UNITS
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.reduction.audit import Auditor
from exafsd.reduction.background import Background, Solution
from exafsd.reduction.reducer import Reducer
from exafsd.settings.analysis import Analysis, Reduction
from exafsd.spectra import Edge, Run, Sweep
from reducing import analysed
from synthetic import sweep_columns

EVERY = 10
#: s for Larch's process to start and answer
PATIENCE = 60.0
RUN = Run(uid="run", edges=(Edge("Cu", "K"),))


@pytest.fixture
def pipeline():
    pipe = Pipeline(Registry({}, {}), tuple(ARRAY_UNITS), Reducer(Auditor(), EVERY))
    yield pipe
    pipe.close()


def sweep(number):
    energy, columns, _ = sweep_columns(2 * number)
    return Sweep(RUN, "primary", number, energy, {n.lower(): c for n, c in columns.items()})


def process(pipeline, number):
    analysis = Analysis(reduction=Reduction(channels=("transmission",)))
    (outcome,) = pipeline.process(analysed(sweep(number), analysis))
    return outcome.arrays["chi_k2"]


def warnings_of(pipeline):
    """What the audit says within a while."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if said := pipeline.audit():
            return said
        time.sleep(0.01)
    raise AssertionError(f"the audit said nothing: {pipeline.audit_metrics()}")


def counted(pipeline, name, at_least):
    deadline = time.monotonic() + PATIENCE
    while pipeline.audit_metrics()[name] < at_least:
        assert time.monotonic() < deadline, pipeline.audit_metrics()
        assert pipeline.audit() == []
        time.sleep(0.01)


def test_a_wrong_plan_is_found_and_larch_takes_over(pipeline, monkeypatch):
    good = process(pipeline, 1)
    counted(pipeline, "count", 1)  # the first is audited, and agrees
    assert pipeline.audit_metrics()["difference_max"] < 1e-4

    right = Background.__call__

    def wrong(self, mu):
        solution = right(self, mu)
        slow = 0.05 * np.sin(self.k)  # background left in, well below rbkg
        return Solution(solution.excess + slow, solution.objective)

    monkeypatch.setattr(Background, "__call__", wrong)
    for number in range(2, 2 + EVERY):
        bad = process(pipeline, number)
    assert np.abs(bad - good).max() > 0.1  # it is wrong, and nobody has said so yet
    (alarm,) = warnings_of(pipeline)
    assert "differs from Larch" in alarm
    assert "goes on with Larch" in alarm

    by_larch = process(pipeline, 20)
    assert np.abs(by_larch - good).max() < 0.1

    monkeypatch.undo()
    process(pipeline, 21)
    while "agrees with Larch again" not in (said := warnings_of(pipeline))[0]:
        assert "goes on" in said[0]
    assert np.abs(process(pipeline, 22) - good).max() < 0.1


def test_an_audit_that_is_off_starts_nothing():
    pipeline = Pipeline(Registry({}, {}), ("chi_k2",))
    process(pipeline, 1)
    assert pipeline.audit_metrics() is None
    assert pipeline.audit() == []
