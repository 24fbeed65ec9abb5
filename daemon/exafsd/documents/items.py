"""What the documents turn into, besides sweeps."""

from dataclasses import dataclass

from exafsd.settings.analysis import Analysis
from exafsd.spectra import Run, Sweep


@dataclass(frozen=True)
class RunBegan:
    """A start document has arrived."""

    run: Run
    analysis: Analysis


@dataclass(frozen=True)
class RunEnded:
    """A run is over and all its sweeps are out; `exit_status` is ``lost`` without a stop."""

    run: Run
    exit_status: str


@dataclass(frozen=True)
class Problem:
    """A document that could not be used, and what to do about it."""

    reason: str
    detail: str


Item = RunBegan | RunEnded | Problem | Sweep
