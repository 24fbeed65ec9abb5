"""The messages on the wire, schema ``exafsd/1``.

The models are the source; ``docs/schemas/`` is generated from them. Every field is always
present: what a later version fills is null or empty until then.
"""

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal, Self, TypeVar, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

from exafsd.contract.recipe import FitWindow
from exafsd.contract.vocabulary import Flag, Problem, Reason, known_codes

MESSAGE_SCHEMA = "exafsd/1"
#: what an element or an edge looks like in a topic
TOKEN = re.compile(r"[A-Z][A-Za-z0-9]{0,2}")

Channel = Literal["transmission", "fluorescence", "reference"]
Direction = Literal["up", "down"]
Delivery = Literal["live", "resumed", "replay"]

#: NaN and infinity are not JSON: null on the wire
STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="null", protected_namespaces=())

T = TypeVar("T")


def described(text: str, **how: Any) -> Any:
    """Field of a part, with what it means; further arguments are those of `dataclasses.field`."""
    return field(metadata={"description": text}, **how)


@dataclass_transform(kw_only_default=True, field_specifiers=(field, described))
def message_part(cls: type[T]) -> type[T]:
    """Make a part of a message of a class.

    A result has forty parts, of our own numbers: they are made without validation, which is for
    what comes from outside. Where a message is read, pydantic validates its parts, too.
    """
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclass(kw_only=True)(cls)


@dataclass
class Value:
    """A number with its standard deviation.

    In `shells`, `phases` and `mixture` it includes errors of the theory.
    """

    __pydantic_config__ = STRICT

    value: float | None
    std: float | None


@message_part
class FitValue(Value):
    """A refined number; `std` includes noise and errors of the theory."""

    std_noise: float | None = described("what the measured noise does to it", default=None)
    std_feffit: float | None = described(
        "scaled by the misfit, as feffit has it for the reference fit", default=None
    )
    std_trend: float | None = described(
        "against other sweeps of its run, which share the theory's errors", default=None
    )


@message_part
class Calibrated(Value):
    """A number that was measured elsewhere and carried over."""

    source: str


@message_part
class ContextValue:
    """One chosen item of metadata, for example a temperature."""

    value: Any
    unit: str | None = None
    time: float | None = None


@message_part
class Acquired:
    """When the sweep was measured, seconds since 1970."""

    start: float | None
    mid: float | None
    end: float | None


@message_part
class Averaged:
    """Which sweeps are in this spectrum."""

    n: int = 1
    first: int
    last: int


@message_part
class ModelRef:
    """The bundle that read the spectrum."""

    name: str
    sha256: str = described("of pinn.onnx; without a network, of card and graph")


@message_part
class Candidate:
    """A bundle that may read the spectrum; the one that did is among them."""

    model: str
    score: float | None = described(
        "its trust, times its likelihood relative to the best of all; null: not asked"
    )


@message_part
class Phase:
    """One crystal phase."""

    phase: str
    fraction: Value | None
    e0_shift: Value = described("eV")
    prior_limited: list[str] = described(
        "parameters that the spectrum hardly determines",
        default_factory=list[str],
    )


@message_part
class Shell:
    """One shell of neighbours."""

    id: str = described("<phase>/<shell>")
    phase: str
    shell: int
    site: int
    scatterer: str
    degeneracy: float
    r_eff: float = described("distance in the crystal, angstrom")
    n_s02: Value = described("coordination number times S0^2, per absorber")
    n: Value | None = described("null unless S0^2 is known", default=None)
    r: Value = described("angstrom")
    sigma2: Value = described("angstrom^2")
    c3: Value | None = described("angstrom^3", default=None)
    prior_limited: list[str] = described(
        "parameters that the spectrum hardly determines",
        default_factory=list[str],
    )


@message_part
class Correlation:
    """Correlations of the polished parameters."""

    parameters: list[str]
    matrix: list[list[float]]


@message_part
class PolishPhase:
    """One phase after the polish."""

    phase: str
    fraction: FitValue | None
    e0_shift: FitValue


@message_part
class PolishShell:
    """One shell after the polish."""

    id: str
    n_s02: FitValue
    r: FitValue
    sigma2: FitValue
    c3: FitValue | None = None


@message_part
class Polish:
    """The least-squares fit that starts from `shells`."""

    status: Literal["converged", "at_bound", "failed", "shed", "off"]
    r_factor: float | None
    n_idp: float | None
    n_var: int | None
    phases: list[PolishPhase]
    shells: list[PolishShell]
    correlation: Correlation | None


@message_part
class Trust:
    """Whether the structural parameters may be believed."""

    score: float | None = described("1 is typical of the training data, 0 is far from it")
    in_domain: bool
    state: Literal["trusted", "flagged", "withheld"] = described(
        "flagged: there are doubts about the parameters; withheld: there are none",
        default="withheld",
    )
    doubts: list[str] = described(
        "why the parameters are flagged, in words", default_factory=list[str]
    )
    reason: str | None = described("why the parameters are withheld, in words")


@message_part
class Fraction(Value):
    """Share of a phase in a sample, by the edge step, and what it may be off by."""

    phase: str = described("name of the reference")


@message_part
class Components:
    """How many components the near edges of a run have, without a model or references."""

    count: int | None = described(
        "of the sweeps so far; 1: they are all of one composition; null where the two"
        " criteria disagree"
    )
    by_noise: int = described("beyond the measured noise")
    by_structure: int = described("with the shape of a spectrum, whatever the noise is")
    sweeps: int = described("in which they were looked for")
    left: float = described("rms of what is none of them, of the edge step, in 1 eV")
    noise: float = described("measured noise, in the same unit")
    scores: list[Value] = described(
        "how much this sweep has of each component beyond the first, as rms of the edge"
        " step from the mean of the sweeps so far; as components were when they were last counted",
        default_factory=list[Value],
    )
    reason: str | None = described("why the criteria disagree, in words", default=None)


@message_part
class Composition:
    """What a sample is made of, by its near edge and those of measured references."""

    method: str = described(
        "lcf: linear combination of references; components: there are none to compare"
        " with, or there was no time",
        default="lcf",
    )
    references: list[str] = described("all that were there for the edge")
    fractions: list[Fraction] = described(
        "of the references that it was compared with; their sum is 1"
    )
    other: Value | None = described(
        "what is like no reference, rms of the edge step without noise; std is what"
        " repeated scans of one compound leave",
        default=None,
    )
    energy_shift: Value | None = described(
        "eV by which its energies are above the references'", default=None
    )
    r_factor: float | None = described("of the near edge", default=None)
    in_domain: bool = described("whether the fractions may be believed")
    reason: str | None = described("why they must not be, in words", default=None)
    components: Components | None = described(
        "null in the first sweeps of a run, and where the scan is too short", default=None
    )


@message_part
class MixturePhase:
    """One phase of a mixture, by a fit of the EXAFS of all of them together."""

    phase: str = described("name of the reference")
    share: Value = described("by the near edge; the fit has it from there")
    model: str | None = described("bundle that the fit has the phase from", default=None)
    e0_shift: Value | None = described("eV, from the result's e0", default=None)
    shells: list[Shell] = described(
        "inside the model's window; error bars hold noise and errors of the theory,"
        " those of n_s02 also that of the share",
        default_factory=list[Shell],
    )
    reason: str | None = described("why it has no shells, in words", default=None)


@message_part
class Mixture:
    """EXAFS of a sample that is made of several phases."""

    phases: list[MixturePhase]
    r_factor: float | None = described(
        "of the sum of all phases, in the windows of all of their models", default=None
    )
    reason: str | None = described("why there is no fit, in words", default=None)


@message_part
class Xanes:
    """Numbers of the near edge, and whether it changes; without any model."""

    edge_energy: Value = described("eV, where mu has risen by half the edge step")
    white_line: Value = described("height, of the edge step")
    white_line_area: Value = described(
        "eV, what is above a step at edge_energy, from 10 eV below it to 20 eV above"
    )
    distance_first: float | None = described(
        "to the first spectrum of the run and direction, in units of noise, without"
        " energy shift, edge step, slopes and over-absorption; noise alone gives 1",
        default=None,
    )
    distance_previous: float | None = described(
        "the same to the previous spectrum of the direction", default=None
    )
    state: Literal["learning", "steady", "drifting", "changing"] | None = described(
        "of the sample, by all sweeps of the direction so far; drifting: evenly; null:"
        " the spectrum was not taken into the series",
        default=None,
    )
    change_point: int | None = described("sweep with which the latest change began", default=None)


@message_part
class Convergence:
    """How well the mean of a run's sweeps is known: whether enough has been measured."""

    parameter: str = described("of the settings, for example Cu/1/r or Cu2O/share")
    value: float | None = described("mean of the sweeps, both directions", default=None)
    std: float | None = described(
        "of the mean, by the scatter between sweeps; null: too few", default=None
    )
    target: float = described("of the settings: the std to reach")
    sweeps: int = described(
        "in the mean: since the run began, or since the sample changed last", default=0
    )
    sweeps_needed: int | None = described(
        "further ones until the target, if they scatter as those before", default=None
    )
    reached: bool = described("whether the run may be stopped", default=False)
    floor: float | None = described(
        "what error bars have beyond the scatter, and no further sweep makes smaller", default=None
    )
    reason: str | None = described(
        "why it is not reached, or what to know of it, in words", default=None
    )


@message_part
class Timing:
    """Milliseconds since the document that completed the sweep was received."""

    assembled: float | None = None
    reduced: float | None = None
    inferred: float | None = None
    published: float | None = None


@message_part
class ArraySpec:
    """One raw little-endian buffer, in the order of the frames."""

    name: str
    dtype: str
    shape: list[int]
    unit: str


class BaseMessage(BaseModel):
    """What every message begins with."""

    schema_: Literal["exafsd/1"] = Field(default=MESSAGE_SCHEMA, alias="schema")
    publisher: str = Field(default="", description="UUID of this start of the publisher")
    seq: int = Field(default=0, description="+1 per message of this topic and publisher")
    time: float = Field(default=0.0, description="published, seconds since 1970")

    model_config = STRICT | ConfigDict(populate_by_name=True)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """The message with these fields, which are our own and are not validated.

        Raises
        ------
        TypeError
            If a field is missing or unknown, those with a list for default included.
        """
        names, defaults = _fields(cls)
        values = defaults | fields
        if values.keys() != names:
            raise TypeError(f"fields of {cls.__name__} are {[*names]}, not {[*fields]}")
        # as `model_construct`, which goes through all fields again
        message = cls.__new__(cls)
        object.__setattr__(message, "__dict__", values)
        object.__setattr__(message, "__pydantic_fields_set__", set(names))
        object.__setattr__(message, "__pydantic_extra__", None)
        object.__setattr__(message, "__pydantic_private__", None)
        return message


@cache
def _fields(message: type[BaseMessage]) -> tuple[frozenset[str], dict[str, Any]]:
    """Names of the fields of a message, and what most of them are by default."""
    fields = message.model_fields
    defaults = {n: f.default for n, f in fields.items() if f.default is not PydanticUndefined}
    return frozenset(fields), defaults


class Identity(BaseMessage):
    """What result and rejection have in common."""

    id: str = Field(description="<run_uid>/<stream>/<channel>/<edge>/<sweep>; the same on replay")
    acquired: Acquired
    run_uid: str = Field(description="uid of the raw run")
    scan_id: int | None = Field(description="of the raw run")
    stream: str = Field(description="name of the stream that the sweep is from")
    channel: Channel = Field(description="how mu was measured")
    sweep: int = Field(description="number in its stream, from 1")
    revision: int = Field(
        default=1,
        description="2 and more: points of a sweep that was published were measured again, as after"
        " a pause; of one id the highest counts",
    )
    direction: Direction | None = Field(description="of the energy")
    averaged: Averaged
    sample: Any = Field(description="as the run has it")
    context: dict[str, ContextValue] = Field(description="metadata that the settings chose")
    truth: dict[str, float | None] | None = Field(
        description="values of the sample, only from a simulated beamline; null for the reference"
    )
    element: str = Field(description="absorber")
    edge: str = Field(description="K, L3, ...")
    guessed: list[str] = Field(description="which of element and edge were not in the metadata")
    quality: list[str] = Field(
        description="flags, see docs/reference/reasons.md", json_schema_extra=known_codes(Flag)
    )
    settings_sha256: str = Field(description="of adapter, reduction and inference settings")
    timing_ms: Timing
    delivery: Delivery = Field(
        default="live",
        description="resumed: made after a new start of the daemon from documents that came before"
        " it; replay: of an archived run",
    )


class Result(Identity):
    """A spectrum that was reduced, and read where a model could be trusted."""

    kind: Literal["result"] = "result"
    e0: float = Field(description="eV")
    e0_policy: Literal["run", "auto", "fixed", "foil", "model"] = Field(
        description="how E0 was chosen"
    )
    energy_shift: Calibrated | None = Field(
        default=None, description="eV added to the energies because of the reference foil"
    )
    edge_step: Value = Field(description="of mu, at E0")
    deglitched: list[float] = Field(
        default_factory=list[float], description="eV of points that were replaced as glitches"
    )
    epsilon_k: float | None = Field(description="noise of chi(k), Larch's estimate_noise")
    k_data: tuple[float, float] = Field(description="1/angstrom")
    fit: FitWindow | None
    model: ModelRef | None
    candidates: list[Candidate] = Field(default_factory=list[Candidate])
    models_sha256: str | None = Field(
        default=None,
        description="hash of the names and hashes of all models that were loaded; it changes where"
        " one is added, replaced or dropped",
    )
    phases: list[Phase] | None
    shells: list[Shell] | None = Field(description="null where trust.reason says why")
    read_by: Literal["network", "fit"] | None = Field(
        default=None,
        description="whether shells are a network's answer, or, of a model without one, a fit's"
        " about its crystal; null without shells",
    )
    s02: Calibrated | None = Field(default=None, description="S0^2 where it is known")
    n_reason: str | None = Field(
        default=None, description="why shells have no N, in words; null without shells"
    )
    r_factor: float | None = Field(
        default=None, description="of the parameters in `shells`, in the window of the fit"
    )
    polish: Polish | None = None
    best: Literal["network", "polish"] | None = Field(
        description="which answer to show: shells, or polish.shells"
    )
    trust: Trust
    composition: Composition | None = Field(
        default=None,
        description="null where there are no references, or no time, and no components either",
    )
    mixture: Mixture | None = Field(
        default=None,
        description="null where composition has no fractions, no model may read the spectrum, or"
        " there was no time",
    )
    convergence: Convergence | None = Field(
        default=None, description="null if no target is set, for averages and for reference foils"
    )
    xanes: Xanes | None = Field(
        default=None, description="null where the scan is too short to be normalised"
    )
    arrays: list[ArraySpec] = Field(default_factory=list[ArraySpec])


class Rejected(Identity):
    """A sweep, channel and edge that gave no result, and why."""

    kind: Literal["rejected"] = "rejected"
    reason: str = Field(
        description="a code, see docs/reference/reasons.md", json_schema_extra=known_codes(Reason)
    )
    detail: str = Field(description="a sentence that says what was wrong and what to do")


class RunStart(BaseMessage):
    """A run has begun."""

    kind: Literal["run.start"] = "run.start"
    run_uid: str
    scan_id: int | None
    element: str
    edge: str
    sample: Any
    delivery: Delivery = Field(
        default="live",
        description="resumed: it had begun already, and goes on after a new start of the daemon",
    )


class RunStop(BaseMessage):
    """A run has ended."""

    kind: Literal["run.stop"] = "run.stop"
    run_uid: str
    scan_id: int | None
    exit_status: str = Field(description="success, abort, fail, or lost when no stop came")
    results: int
    rejected: int
    detail: str | None = None


@message_part
class Loss:
    """How much was lost or not kept for one reason."""

    documents: int = 0
    sweeps: int = described("as far as it is known", default=0)


@message_part
class SourceState:
    """Whether documents can come."""

    address: str
    connected: bool = described("whether somebody listens at the address")
    silent: float | None = described("s since the last document; null: none came yet")
    open_runs: list[str] = described(
        "runs that have not ended and got no document for 60 s", default_factory=list[str]
    )


@message_part
class Former:
    """A publisher before this one, whose messages are kept."""

    publisher: str
    first: dict[str, int] = described("first seq that is kept, by topic")
    last: dict[str, int] = described("last seq that was logged, by topic")


class Status(BaseMessage):
    """The daemon's health, once a second."""

    kind: Literal["status"] = "status"
    state: Literal["starting", "ready", "overloaded", "degraded", "stopping", "stopped"] = Field(
        description="degraded: something is being lost or not kept; stopped is the last one that a"
        " daemon sends"
    )
    uptime: float = Field(description="s")
    results: int
    rejected: int
    rate: float = Field(description="outcomes per second since the last status")
    rejections: dict[str, int] = Field(
        description="by reason", json_schema_extra=known_codes(Reason)
    )
    drops: dict[str, int] = Field(
        description="documents dropped, peers refused and replies not taken, by reason",
        json_schema_extra=known_codes(Problem),
    )
    queues: dict[str, int] = Field(description="what waits, by place")
    lag: float | None = Field(description="seconds from sweep end to result, latest")
    audit: dict[str, float] | None = Field(
        default=None, description="the compiled reduction against Larch, see docs/reference"
    )
    models: list[str] = Field(description="bundles that are loaded")
    refused_models: dict[str, str] = Field(description="bundle to reason")
    versions: dict[str, str] = Field(description="of exafsd and what it rests on")
    problems: list[str] = Field(description="latest trouble with documents, newest last")
    degraded: list[str] = Field(
        default_factory=list[str], description="what is being lost or not kept, in words"
    )
    losses: dict[str, Loss] = Field(
        default_factory=dict[str, Loss],
        description="what was lost or not kept since the start, by reason",
        json_schema_extra=known_codes(Problem),
    )
    source: SourceState | None = Field(
        default=None, description="where documents come from; null inside a RunEngine's process"
    )
    former: list[Former] = Field(
        default_factory=list[Former],
        description="publishers before this one whose messages can still be asked for",
    )
    heartbeat: float | None = Field(default=None, description="s between two of these")
    answers: str | None = Field(
        default=None, description="address of the ROUTER; its port counts, the host may differ"
    )
    seqs: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="last seq of topics sent so far, so that a lost last message is noticed;"
        " the latest hundred topics, without status",
    )


MESSAGES: tuple[type[BaseMessage], ...] = (Result, Rejected, RunStart, RunStop, Status)


def topic_of(message: BaseMessage) -> str:
    """Topic of a message; it ends with a dot so that prefixes are exact.

    Element and edge come off the wire: what is no symbol is ``unknown`` in the topic.
    """
    if isinstance(message, Identity):
        return _topic_of(message.kind, message.element, message.edge)  # type: ignore[attr-defined]
    return f"{message.kind}."  # type: ignore[attr-defined]


@lru_cache(maxsize=256)
def _topic_of(kind: str, *tokens: str) -> str:
    element, edge = (token if TOKEN.fullmatch(token) else "unknown" for token in tokens)
    return f"{kind}.{element}.{edge}."
