"""What the documents turn into, besides sweeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exafsd.contract.messages import Delivery
from exafsd.contract.vocabulary import Problem
from exafsd.spectra import Run, Sweep


@dataclass(frozen=True)
class Began:
    """A run has begun; `delivery`: or goes on, or is replayed."""

    run: Run
    delivery: Delivery = "live"


@dataclass(frozen=True)
class Ended:
    """A run is over and all its sweeps are out; `exit_status` is ``lost`` without a stop.

    `counts` are its outcomes by kind, where they are counted.
    """

    run: Run
    exit_status: str
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Trouble:
    """A document that could not be used, or other trouble, and what to do about it.

    `documents` and `sweeps` are so many as are missing or could not be used.
    """

    reason: Problem
    detail: str
    documents: int = 1
    sweeps: int = 0


Item = Began | Ended | Trouble | Sweep
