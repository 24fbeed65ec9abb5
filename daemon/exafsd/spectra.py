"""The data that flows, all of it immutable: from a run and its sweeps to what is read of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exafsd.contract.messages import Channel, Direction
from exafsd.contract.recipe import Recipe
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.settings.analysis import Analysis

Floats = NDArray[np.float64]
#: numbers of subshells as they are written too
ROMAN = {"I": "1", "II": "2", "III": "3", "IV": "4", "V": "5"}


def same(one: Floats, other: Floats) -> bool:
    """Whether two energy grids are one."""
    return one is other or np.array_equal(one, other)


class SpectrumError(ValueError):
    """A spectrum that cannot be analysed; the text says what to do."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Both arguments: exceptions remember only what their base was given."""
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Edge:
    """An absorption edge, for example Cu K; empty strings where it is not known yet."""

    element: str
    edge: str

    @classmethod
    def of(cls, element: str, edge: str) -> "Edge":
        """Edge in the field's spelling: ``cu``, ``k-edge`` become Cu, K, and ``L-III`` L3."""
        edge = re.sub(r"[\W_]*(?:edge)?[\W_]*$", "", edge.strip().upper(), flags=re.IGNORECASE)
        roman = re.fullmatch(r"([LMN])[\W_]*(I{1,3}|IV|V|[1-7])", edge)
        if roman:
            edge = roman[1] + ROMAN.get(roman[2], roman[2])
        return cls(element.strip().capitalize(), edge)


@dataclass(frozen=True)
class Run:
    """What a start document says about every sweep of its run, and how these are analysed."""

    uid: str
    scan_id: int | None = None
    edges: tuple[Edge, ...] = ()
    sample: Any = None
    analysis: Analysis = field(default_factory=Analysis, repr=False)


@dataclass(frozen=True)
class Sweep:
    """One pass over an edge, as measured.

    `energy` is (n,) in eV in the order of measurement; `signals` maps ``i0``, ``it``, ``ir``,
    ``iff`` (detector counts) or ``mutrans``, ``mufluor``, ``murefer`` (ready-made mu) to (n,).
    """

    run: Run
    stream: str
    number: int
    energy: Floats
    signals: Mapping[str, Floats]
    direction: Direction | None = None
    acquired: tuple[float | None, float | None] = (None, None)
    context: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    truth: Mapping[str, float] | None = None
    flags: tuple[Flag, ...] = ()
    #: time.perf_counter() when the document that completed the sweep was received, s
    received: float | None = None
    #: milliseconds from then until the sweep was cut
    assembled_ms: float | None = None
    #: whether it was cut out of an encoder's stream, whose energies differ sweep by sweep
    flown: bool = False
    #: 2 and more where points of a sweep that is published were measured again
    revision: int = 1
    #: name of the sample where a column has it; None: the run's
    sample: Any = None
    #: set where the assembler already knows that this sweep gives nothing
    broken: SpectrumError | None = None


@dataclass(frozen=True)
class SpectrumId:
    """Which spectrum: its sweep, how mu was measured, and its edge.

    `guessed` names which of element and edge the metadata left out. Of an average, `sweep` is the
    newest one's, with the times of all.
    """

    sweep: Sweep
    channel: Channel
    edge: Edge
    guessed: tuple[str, ...] = ()

    @property
    def analysis(self) -> Analysis:
        """The run's settings."""
        return self.sweep.run.analysis


class Averaged(NamedTuple):
    """Which sweeps are in an average."""

    n: int
    first: int
    last: int


class Shift(NamedTuple):
    """What was added to the energies of a spectrum, eV, and its standard error."""

    value: float
    std: float
    source: str = "foil"


@dataclass(frozen=True)
class Spectrum:
    """mu(E) of one channel and edge of a sweep: energies ascending and unique, all finite.

    `energy` and `mu` are (n,), eV and any unit.
    """

    id: SpectrumId
    energy: Floats
    mu: Floats
    quality: tuple[Flag, ...] = ()
    #: energy and mu before they were rebinned, on the calibrated energy scale
    raw: tuple[Floats, Floats] | None = None
    energy_shift: Shift | None = None
    #: energies of points that were replaced as glitches, eV
    removed: tuple[float, ...] = ()
    averaged: Averaged | None = None


@dataclass(frozen=True)
class ReducedSpectrum:
    """What the reduction makes of mu(E).

    `energy`, `norm`, `flat` are (n,); `k`, `chi` (m,) on Larch's grid of 0.05 1/angstrom;
    `r`, `chir_mag` (l,). Energies in eV, k in 1/angstrom, R in angstrom. `recipe` has all ranges
    resolved, so that the next spectrum can be reduced alike.
    """

    energy: Floats
    e0: float
    edge_step: float
    edge_step_std: float | None
    norm: Floats
    flat: Floats
    k: Floats
    chi: Floats
    r: Floats
    chir_mag: Floats
    epsilon_k: float | None
    k_data: tuple[float, float]
    recipe: Recipe
    objective: float
    engine: Literal["plan", "larch"]
    quality: tuple[Flag, ...] = ()
    #: where mu has risen by half, eV, by the tabulated energy of the edge: found once, when asked
    middles: dict[float, float | None] = field(
        default_factory=dict[float, "float | None"], compare=False, repr=False
    )


@dataclass(frozen=True)
class Prediction:
    """What a network or a fit reads from a spectrum; arrays as in the bundle's card.

    `theta` (p,), `theta_cov` (p, p), `chi_k2_pred` and `chi_k2_exafs` (401,) 1/angstrom^2. `bound`
    are ids of parameters that a fit has left on a bound; `second_phase` says that the phase of
    another model explains what the fit has left over.
    """

    theta: Floats
    theta_cov: Floats
    chi_k2_pred: Floats
    chi_k2_exafs: Floats
    ood: float
    bound: tuple[str, ...] = ()
    second_phase: bool = False


@dataclass(frozen=True)
class Rejected:
    """A sweep, channel and edge without a result."""

    id: SpectrumId
    error: SpectrumError
    quality: tuple[Flag, ...] = ()
    averaged: Averaged | None = None
