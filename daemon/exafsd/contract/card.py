"""The model card: everything there is to know about a bundle, beside its graphs."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exafsd.contract.grid import K_SIZE, K_STEP
from exafsd.contract.recipe import FitWindow, Recipe

CARD_SCHEMA = "exafsd.card/1"
#: Of a bundle without a network, whose spectra are read by fitting.
FIT_SCHEMA = "exafsd.card/2"
#: Names of the two graphs and the card inside a bundle folder.
PINN_FILE, EQUATION_FILE, CARD_FILE = "pinn.onnx", "equation.onnx", "card.json"
#: The graph of the refinement, which older bundles do not have.
REFINEMENT_FILE = "refinement.onnx"

ParameterName = Literal["e0_shift", "n_s02", "r", "sigma2", "c3", "expansion", "fraction"]

#: Centres of the first and last bin of a near edge's profile, eV from half the edge step, and from
#: one to the next.
NEAR_EDGE, NEAR_EDGE_STEP = (-30.0, 70.0), 2.0
NEAR_EDGE_BINS = round((NEAR_EDGE[1] - NEAR_EDGE[0]) / NEAR_EDGE_STEP) + 1

LimitTable = tuple[tuple[Annotated[float, Field(gt=0)], ...], ...]


class _Frozen(BaseModel):
    # a card of a later version may say more; what changes numbers has another `schema`
    model_config = ConfigDict(frozen=True, extra="ignore")


class Structure(_Frozen):
    """One phase: the crystal that FEFF was run on."""

    phase: str = Field(description="name used in messages, for example Cu")
    formula: str
    source: str = Field(description="where the structure comes from, for example AMCSD 11145")
    cif_sha256: str
    absorber_site: int = Field(
        default=1,
        description="1-based crystallographic site of the absorber; 0: average over all its sites",
    )
    space_group: str | None = None


class KGrid(_Frozen):
    """The k grid the graphs expect; only the contract's own is accepted."""

    step: Literal[K_STEP] = K_STEP  # type: ignore[valid-type]  # a constant, which pyright cannot see
    size: Literal[K_SIZE] = K_SIZE  # type: ignore[valid-type]
    k_min: float = Field(description="start of the validity mask, 1/angstrom")
    k_max_trained: tuple[float, float] = Field(description="range of data ends in training")


class Prior(_Frozen):
    """What training drew the parameter from."""

    kind: Literal["uniform", "normal"]
    mean: float
    std: float = Field(gt=0, description="standard deviation, also of a uniform prior")


class Parameter(_Frozen):
    """One entry of theta, in order."""

    id: str = Field(description="for example Cu/1/sigma2")
    name: ParameterName
    unit: str
    bounds: tuple[float, float]
    prior: Prior
    phase: str
    shell: int | None = Field(default=None, description="1 is the nearest; null for a whole phase")
    scatterer: str | None = None
    r_eff: float | None = Field(default=None, description="distance in the crystal, angstrom")
    degeneracy: float | None = Field(default=None, description="neighbours in the crystal")
    split: float = Field(
        default=0.0,
        ge=0,
        description="of a sigma2: variance of the distances in the crystal that are one shell,"
        " angstrom^2; it is part of what is published",
    )


class Tie(_Frozen):
    """A quantity of a path or shell that follows from theta."""

    target: str
    expression: str


class Training(_Frozen):
    """How the weights came to be."""

    command: str
    seed: int
    spectra: int = Field(description="simulated spectra seen, repeats included")
    through_instrument: float = Field(description="share of them made through mu(E) and AUTOBK")
    epochs: int
    minutes: float
    final_losses: dict[str, float] = Field(description="every term, on validation data")


class AccuracyRow(_Frozen):
    """One parameter on one measured spectrum, beside Larch's feffit of the same file."""

    spectrum: str
    parameter: str
    feffit: float
    feffit_stderr: float
    network: float
    network_std: float
    #: where the spectrum allows a polish
    polish: float | None = None
    whole: float | None = Field(
        default=None,
        description="feffit with all of the model's paths and C3: nearer to what the network reads"
        " than the reference fit, which has the single scattering of the window's shells only",
    )
    whole_stderr: float | None = None


class IndependentRow(_Frozen):
    """How one answer does on simulated spectra that have nothing in common with training's.

    `bias`, `rms` and `std` are in the parameter's unit, of N S0^2 relative to the truth.
    """

    answer: Literal["network", "polish"]
    parameter: Literal["r", "sigma2", "n_s02"] = Field(description="of the nearest shell")
    spectra: int
    coverage_90: float = Field(description="share of 90 % intervals that hold the truth")
    bias: float
    rms: float
    std: float = Field(description="median of what was said")
    slope_ratio: float | None = Field(
        default=None, description="mean of slope read over slope put in, of temperature series"
    )
    change_error: float | None = Field(
        default=None, description="mean error of the change over a whole series"
    )
    differences_90: float | None = Field(
        default=None,
        description="share of 90 % intervals by std_trend that hold the difference"
        " between two sweeps of a series",
    )
    slopes_90: float | None = Field(
        default=None, description="share of 90 % intervals by std_trend that hold a series' slope"
    )


class Calibration(_Frozen):
    """What the uncertainty and the out-of-domain score were checked against."""

    std_scale: dict[str, float] = Field(
        description="by parameter id, the factor of its std; pinn.onnx includes it, and the daemon"
        " multiplies the std of fits by it"
    )
    bias: dict[str, float] = Field(
        default_factory=dict[str, float],
        description="per parameter id what a fit reads too much of simulated spectra, which is"
        " taken off its answer; of n_s02 as a share of the answer",
    )
    coverage_90: dict[str, float] = Field(description="held-out coverage of 90 % intervals")
    validation_spectra: int


class PoorFit(_Frozen):
    """What spectra of the material stay below, by noise and data end."""

    noise: tuple[float, ...] = Field(min_length=2, description="of chi(k), ascending")
    k_end: tuple[float, ...] = Field(min_length=2, description="data ends, ascending, 1/angstrom")
    limit: LimitTable = Field(description="out-of-domain score, by noise, then by data end")
    r_factor: LimitTable | None = Field(
        default=None,
        description="R-factor in the fit window, likewise, relative to at least `signal`; null"
        " without measured spectra",
    )
    signal: tuple[float, ...] | None = Field(
        default=None,
        description="half the sum |chi(R)|^2 over the fit window that they have, by data end",
    )

    @model_validator(mode="after")
    def _shape(self) -> "PoorFit":
        for table in filter(None, (self.limit, self.r_factor)):
            if [len(row) for row in table] != [len(self.k_end)] * len(self.noise):
                raise ValueError("a limit for every noise and, in it, for every data end is needed")
        if self.signal is not None and len(self.signal) != len(self.k_end):
            raise ValueError("a signal for every data end is needed")
        return self


class NearEdge(_Frozen):
    """The near edge of measured spectra of the material."""

    profile: tuple[float, ...] = Field(
        min_length=NEAR_EDGE_BINS,
        max_length=NEAR_EDGE_BINS,
        description="normalised mu in bins of 2 eV, their centres from 30 eV below to 70 eV above"
        " where mu has risen by half the edge step",
    )
    limit: float = Field(
        gt=0,
        description="largest difference, of the edge step, when edge step, energy scale, resolution"
        " and thermal damping are allowed for",
    )


class EdgePosition(_Frozen):
    """Where the material's zero of energy lies, from where mu has risen by half the edge step."""

    e0: float = Field(description="Larch's E0 of measured spectra, eV")
    zero: float = Field(description="FEFF's zero of energy as fitted to them, eV")
    zero_std: float = Field(gt=0, description="what it may be off by in another spectrum, eV")
    source: str = Field(description="the measured spectra")


class FarSigma2(_Frozen):
    """sigma2 of a farther shell: its logarithm over that of the nearest shell's sigma2.

    ln(sigma2 / sigma2 of the nearest) = level + slope ln(sigma2 of the nearest / 0.008), give or
    take `std`.
    """

    id: str
    level: float
    slope: float
    std: float = Field(gt=0)


class TheoryErrors(_Frozen):
    """Standard deviations of FEFF's errors: of amplitude, relative, and of phase, rad.

    `constant` in k, `smooth` in waves of 13 1/angstrom and longer, `low` at low k only. `floor` is
    the share of the signal's sum of squares that is misfit of any other kind.
    """

    constant: tuple[float, float]
    smooth: tuple[float, float]
    low: tuple[float, float]
    floor: float


class Refinement(_Frozen):
    """What the refinement holds to be likely, and the grid of ``refinement.onnx``.

    The graph gives chi at `size` points of k from `k_min` in steps of `k_step`, 1/angstrom, as
    complex sums over groups of paths that share FEFF's errors, the nearest shell first.
    """

    k_min: float
    k_step: float
    size: int
    anharmonicity: tuple[float, float] = Field(
        description="mean and standard deviation of a in C3 = a (sigma^4 - 2/3 sigma_0^4),"
        " 1/angstrom"
    )
    zero_point: float = Field(description="sigma_0^2 of the nearest shell, angstrom^2")
    far_sigma2: tuple[FarSigma2, ...] = ()
    r_std: float = Field(
        default=0.02, description="of a farther R about the nearest shell's strain, angstrom"
    )
    expansion_std: float = Field(
        default=0.003, description="of all other distances about it, relative"
    )
    theory: TheoryErrors


class FitReading(_Frozen):
    """How spectra are read without a network: by a fit about the crystal, from several E0.

    The limits are about the crystal, since a wrong structure may fit as well as the right one.
    """

    window: FitWindow = Field(description="with as many shells as the model has")
    whole_weight: float = Field(
        gt=0, description="of the squares in it, beside those in the nearest shell's window, `fit`"
    )
    e0: tuple[float, ...] = Field(min_length=1, description="where the fits begin, eV")
    e0_prior: tuple[float, float] = Field(
        description="mean and standard deviation of E0 where no near edge is known, eV"
    )
    floor: float = Field(
        gt=0, description="share of the signal's sum of squares that is taken for misfit"
    )
    misfit_flagged: float = Field(description="R-factor beyond noise that is flagged")
    r_flagged: float = Field(description="R of the nearest shell off the crystal's, angstrom")
    r_withheld: float
    n_flagged: tuple[float, float] = Field(
        description="N S0^2 over the crystal's N outside which it is flagged"
    )
    n_withheld: tuple[float, float]
    e0_flagged: float = Field(description="E0 off its prior's mean, eV")
    # Of 95 fits of measured spectra, those about the right crystal are below 0.010, but for FeO,
    # which lacks iron (0.014). Bundles from before the limit get it, too.
    strain_flagged: float = Field(
        default=0.012,
        description="difference between the relative changes of the nearest distance and of farther"
        " ones from the crystal's, above which it is flagged",
    )


class Thresholds(_Frozen):
    """Limits beyond which a result is withheld or flagged."""

    ood: float = Field(description="largest out-of-domain score at which parameters are published")
    ood_false_alarms: float = Field(description="share of good held-out spectra above it")
    k_max_min: float = Field(
        description="shortest data end, 1/angstrom, for which the network was trained, or that is"
        " fitted"
    )
    prior_limited: float = Field(
        default=0.7, description="posterior over prior std that earns the flag"
    )
    edge_shift: tuple[float, float] | None = Field(
        default=None,
        description="E0 less the tabulated edge in eV: outside, the energy scale or the material is"
        " another; null where it is not known",
    )
    poor_fit: PoorFit | None = Field(
        default=None,
        description="above any, a spectrum fits worse than the measured spectra the model was"
        " judged by, or, where there are none, than simulated ones; null in older cards",
    )
    near_edge: NearEdge | None = Field(
        default=None,
        description="beyond it, the near edge is not that of the material alone; null where no"
        " measured near edge is known",
    )


class Card(_Frozen):
    """The card of a model bundle (``card.json``)."""

    schema_: Literal["exafsd.card/1", "exafsd.card/2"] = Field(default=CARD_SCHEMA, alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str = Field(default="1", description="raised whenever the graphs change")
    description: str
    licence: str = "BSD-3-Clause"
    absorber: str
    edge: str
    structures: list[Structure] = Field(min_length=1)
    k_grid: KGrid
    recipe: Recipe
    fit: list[FitWindow] = Field(min_length=1, description="one per phase, in order")
    parameters: list[Parameter] = Field(min_length=1)
    ties: list[Tie]
    training: Training | None = Field(default=None, description="null without a network")
    accuracy: list[AccuracyRow]
    calibration: Calibration
    independent: list[IndependentRow] = Field(
        default_factory=list[IndependentRow],
        description="``exafsd-train independent``; empty where that was not run",
    )
    thresholds: Thresholds
    software: dict[str, str]
    edge_position: EdgePosition | None = Field(
        default=None, description="null where no measured spectrum is known"
    )
    refinement: Refinement | None = Field(
        default=None, description="null in older cards: the fit is that of the nearest shells alone"
    )
    reading: FitReading | None = Field(default=None, description="null with a network")
    sha256: dict[Literal["pinn.onnx", "equation.onnx", "refinement.onnx"], str]

    model_config = ConfigDict(populate_by_name=True)

    @property
    def model_sha256(self) -> str:
        """Hash of all that decides what is read from a spectrum.

        With a network that is ``pinn.onnx``; without one the parameters and priors of this card as
        well as the graph.
        """
        if self.reading is None:
            return self.sha256[PINN_FILE]
        parts = {"fit", "parameters", "calibration", "thresholds", "edge_position", "refinement",
                 "reading", "sha256"}  # fmt: skip
        # as it was before there was a bias
        without = None if self.calibration.bias else {"calibration": {"bias"}}
        facts = self.model_dump_json(include=parts, exclude=without)
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def refinement_holds(self) -> bool:
        """Whether the refinement's error bars hold the truth better than the network's.

        By the independent simulation: by less too seldom than in 90 % of cases. If none is too
        seldom, or both alike, the smaller errors decide. False where it was not run.
        """
        seldom = {"network": 0.0, "polish": 0.0}
        errors = {"network": 1.0, "polish": 1.0}
        for row in self.independent:
            seldom[row.answer] += max(0.9 - row.coverage_90, 0.0)
            errors[row.answer] *= row.rms
        network, polish = ((seldom[one], errors[one]) for one in ("network", "polish"))
        return any(row.answer == "polish" for row in self.independent) and polish < network

    @model_validator(mode="after")
    def _complete(self) -> "Card":
        phases = {structure.phase for structure in self.structures}
        for parameter in self.parameters:
            if parameter.phase not in phases:
                raise ValueError(f"parameter {parameter.id}: unknown phase {parameter.phase}")
        if len({parameter.id for parameter in self.parameters}) != len(self.parameters):
            raise ValueError("parameter ids are not unique")
        by_fit = self.schema_ == FIT_SCHEMA
        if by_fit != (self.reading is not None) or by_fit != (self.training is None):
            raise ValueError(
                f"a card of {FIT_SCHEMA}, and no other, has `reading` and no `training`"
            )
        if by_fit and (self.refinement is None or len(self.structures) != 1):
            raise ValueError("a fit needs `refinement`, and one structure")
        files = [*([] if by_fit else [PINN_FILE]), EQUATION_FILE]
        files += [REFINEMENT_FILE] if self.refinement else []
        if set(self.sha256) != set(files):
            raise ValueError(f"sha256 must name {' and '.join(files)}")
        return self


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
