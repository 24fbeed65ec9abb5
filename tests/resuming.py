"""Runs that are saved in the middle and go on elsewhere, for tests."""

import time

from exafsd.contract.frames import ARRAY_UNITS, encode
from exafsd.documents.router import Router
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service.run_state import RunState
from exafsd.service.session import Session
from exafsd.settings.analysis import (
    Analysis,
    Average,
    Calibration,
    Convergence,
    Quality,
    Reduction,
)

#: everything that a run remembers is used
ANALYSIS = Analysis(
    reduction=Reduction(
        average=Average(n=3),
        calibration=Calibration(source="foil"),
        quality=Quality(deglitch=10.0, outlier=8.0),
    ),
    convergence=Convergence(parameter="white_line", target=1e-3),
)


def session(roots=(), batch=1):
    """Session without models: they remember nothing."""
    router = Router(ANALYSIS, time.monotonic, tuple(roots))
    return Session(router, Pipeline(Registry({}, {}), tuple(ARRAY_UNITS)), batch)


def outcomes_of(events):
    """Outcomes as on the wire but for what depends on when they were made; other events' names."""
    lines = []
    for event in events:
        if isinstance(event, Outcome):
            event.message.timing_ms = type(event.message.timing_ms)()
            lines.append(encode(event.message, event.arrays))
        else:
            lines.append([type(event).__name__, str(getattr(event, "counts", event))])
    return lines


def resumed(data, documents, roots, batch):
    """The rest of a run whose state was saved, in a process of its own."""
    going_on = session(roots, batch)
    going_on.resume(RunState.load(data, time.monotonic()))
    return outcomes_of(going_on.replay(documents))
