"""The settings that decide numbers: adapter, reduction, inference. Hashed onto every result."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from exafsd.contract.messages import Channel
from exafsd.contract.recipe import Autobk, PreEdge, Xftf
from exafsd.contract.s02 import S02, EdgeName

EnergyUnit = Literal["eV", "keV", "deg", "mdeg", "rad", "pulses"]
E0Policy = Literal["run", "auto", "fixed", "foil", "model"]
Fluorescence = Literal["dilute", "corrected", "thick"]
#: detector readings, and ready-made mu
SIGNALS = ("i0", "it", "ir", "iff", "mutrans", "mufluor", "murefer")


#: names of which the first present counts; one may be given alone
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda key: (key,) if isinstance(key, str) else key)
]


#: name of a number of a result
Parameter = Annotated[
    str,
    StringConstraints(
        pattern=r"^(edge_energy|white_line|white_line_area|[^/]+/share"
        r"|[^/]+/[0-9]+/(n_s02|n|r|sigma2|c3))$"
    ),
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EnergyColumn(_Frozen):
    """Where the energy is, and how an encoder reading becomes eV."""

    key: Names = Field(
        description="data key; if there are several, the first one that exists is used"
    )
    unit: EnergyUnit | None = Field(
        default=None,
        description="null: the unit in the descriptor or file, or eV if there is none",
    )
    d_spacing: float | str | None = Field(
        default=None,
        description="d-spacing of the monochromator crystal in angstrom, or its metadata key",
    )
    angle_offset: float | str = Field(
        default=0.0,
        description="degrees that are subtracted from the encoder's angle, or their metadata key",
    )
    units: dict[str, EnergyUnit] = Field(
        default_factory=dict,
        description="unit of each data key, for keys whose descriptor has none",
    )
    pulses_per_degree: float | str = Field(
        default=360000.0,
        description="encoder pulses per degree for the unit pulses, or their metadata key",
    )


class Adapter(_Frozen):
    """Names that a beamline uses. A metadata key may be a dotted path such as XDI.Sample.name.

    A name may be one string or a list of alternatives of which the first present counts;
    `iff` is different: all elements present are summed. ``KEY/COLUMN`` is a column of a table in
    an external file, ``@KEY`` stands for the names that the metadata list at KEY.
    """

    energy: EnergyColumn = Field(
        description="energy column: its data key, or a table with the keys of adapter.energy"
    )
    i0: Names = Field(default=(), description="data key of the intensity before the sample")
    it: Names = Field(default=(), description="data key of the intensity behind the sample")
    ir: Names = Field(default=(), description="data key of the intensity behind the reference foil")
    iff: Names = Field(
        default=(), description="data keys of the fluorescence detector elements, which are summed"
    )
    mutrans: Names = Field(
        default=(), description="data key of mu in transmission, if the documents contain mu"
    )
    mufluor: Names = Field(
        default=(), description="data key of mu in fluorescence, if the documents contain mu"
    )
    murefer: Names = Field(
        default=(), description="data key of mu of the reference foil, if the documents contain mu"
    )
    element: Names = Field(
        default=("element", "exafsd.element", "XDI.Element.symbol"),
        description="metadata key of the absorbing element, for example Cu; without it exafsd"
        " guesses the element",
    )
    edge: Names = Field(
        default=("edge", "exafsd.edge", "XDI.Element.edge"),
        description="metadata key of the edge, for example K; without it exafsd guesses the edge",
    )
    sample: Names = Field(
        default=("sample", "sample_name", "XDI.Sample.name"),
        description="metadata key of the sample's name, which is copied into the results",
    )
    context: Names = Field(
        default=(),
        description="data or metadata keys whose values are copied into the results, for example a"
        " temperature",
    )
    truth: dict[str, str] = Field(
        default_factory=dict,
        description="key of each parameter's true value (simulated beamline only)",
    )
    saturation: dict[str, float] = Field(
        default_factory=dict,
        description="for each signal, the count at which it saturates, after correction for dark"
        " and gain",
    )
    low_flux: dict[str, float] = Field(
        default_factory=dict,
        description="for each signal, the median count below which a spectrum is flagged",
    )
    dark: dict[str, float | str] = Field(
        default_factory=dict,
        description="for each signal, the reading without beam, which is subtracted, or its"
        " metadata key; KEY|0 means 0 if the key is missing",
    )
    gain: dict[str, float | str] = Field(
        default_factory=dict,
        description="for each signal, the gain of its amplifier, by which the signal is divided,"
        " or its metadata key; 10**KEY if the metadata contain an exponent",
    )
    delay: dict[str, float] = Field(
        default_factory=dict,
        description="for each signal, the seconds by which it lags behind the energy; the documents"
        " must contain the time of each point",
    )

    @field_validator("saturation", "low_flux", "dark", "gain", "delay")
    @classmethod
    def _known_signals(cls, of: dict[str, Any]) -> dict[str, Any]:
        unknown = set(of) - set(SIGNALS)
        if unknown:
            raise ValueError(f"unknown signals {sorted(unknown)}; there are {list(SIGNALS)}")
        return of

    @property
    def signals(self) -> dict[str, tuple[str, ...]]:
        """Signal name to data keys, without the empty ones."""
        return {name: getattr(self, name) for name in SIGNALS if getattr(self, name)}


#: metadata keys of the analog pizza box's offsets, mV
PIZZA_BOX_OFFSETS = {
    "i0": "ch1_offset|0",
    "it": "ch2_offset|0",
    "ir": "ch3_offset|0",
    "iff": "ch4_offset|0",
}
#: Beamline names known to exafsd; `[adapter] preset = ...` starts from one of them.
PRESETS: dict[str, dict[str, Any]] = {
    "generic": {
        "energy": {"key": ["energy", "Energy", "mono_energy", "dcm_energy", "qxafs_energy"]},
        "i0": ["I0", "i0", "qxafs_i0"],
        "it": ["It", "it", "itrans", "qxafs_it"],
        "ir": ["Ir", "ir", "irefer", "qxafs_ir"],
        "iff": ["If", "iff", "ifluor", "qxafs_if"],
        "mutrans": ["mutrans", "xmu", "mu", "norm"],
        "mufluor": ["mufluor"],
        "murefer": ["murefer"],
        "context": ["temperature"],
        "truth": {n: f"truth_{n}" for n in ("r", "sigma2", "n_s02", "e0", "c3")},
    },
    # NSLS-II BMM, step scans. github.com/NSLS-II-BMM/profile_collection at 7e70f246, startup/BMM:
    # keys in xafs.py and user_ns/detectors.py (ion chambers, their gains and darks already in the
    # record), metadata in metadata.py. Of the Xspress3, xafs.py lists the dead-time corrected
    # elements of the edge in XDI._dtc; DTC1-4 are those of the analog detector before it (ml.py).
    "bmm": {
        "energy": {"key": ["dcm_energy"], "unit": "eV"},
        "i0": ["I0"],
        "it": ["It"],
        "ir": ["Ir"],
        "iff": ["@XDI._dtc", "DTC1", "DTC2", "DTC3", "DTC4"],
        "element": ["XDI.Element.symbol"],
        "edge": ["XDI.Element.edge"],
        "sample": ["XDI.Sample.name"],
        # Linkam stage in degrees C; Lakeshore, in K
        "context": ["XDI.Sample.temperature", "temperature_a", "temperature_b"],
    },
    # NSLS-II ISS. Fly scans: analog pizza box and encoder in files, one stream each (profile
    # NSLS-II-ISS/profile_collection at 511303e8: 33-apb.py, 30-detectors.py, 60-plan_metadata.py).
    # NSLS-II-ISS/xas at 4a9818c3 reads them (db_io.py, xray.py): counts are 360,000 a degree and
    # negative, angle_offset is taken off their absolute value, d is 3.1356 angstrom whatever
    # mono_d_spacing says, ch1_offset to ch4_offset are in mV. The gains (10**ch1_amp_gain) only
    # add a constant to mu or scale it, and are left out. Step scans have the means of the box.
    "iss": {
        "energy": {
            "key": ["hhm_energy", "pb9_enc1/encoder", "pb9_enc1"],
            "units": {"hhm_energy": "eV", "pb9_enc1/encoder": "pulses", "pb9_enc1": "pulses"},
            "d_spacing": 3.1356,
            "angle_offset": "angle_offset",
        },
        "i0": ["apb_stream/i0", "apb_ave_ch1_mean", "apb_ave_ch1"],
        "it": ["apb_stream/it", "apb_ave_ch2_mean", "apb_ave_ch2"],
        "ir": ["apb_stream/ir", "apb_ave_ch3_mean", "apb_ave_ch3"],
        "iff": ["apb_stream/iff", "apb_ave_ch4_mean", "apb_ave_ch4"],
        "dark": PIZZA_BOX_OFFSETS,
        "sample": ["sample_name", "name"],
    },
    # NSLS-II QAS, alike (NSLS2/qas-profile-collection at 6e39f8a5: 10-detectors.py, 29-apb.py,
    # 85-apb_plans.py; NSLS-II-QAS/xas at 6661f43e: db_io.py, xray.py). Its encoder has 26222.222
    # counts a degree, and its hc of 12400 with d of 3.1356 is hc itself with d of 3.1352.
    "qas": {
        "energy": {
            "key": ["mono1_energy", "pb1_enc1/encoder", "pb1_enc1"],
            "units": {"mono1_energy": "eV", "pb1_enc1/encoder": "pulses", "pb1_enc1": "pulses"},
            "d_spacing": 3.1352004,
            "angle_offset": "angle_offset",
            "pulses_per_degree": 26222.222,
        },
        "i0": ["apb_stream/i0", "apb_stream_c/i0", "apb_ave_ch1_mean", "apb_ave_c_ch1_mean"],
        "it": ["apb_stream/it", "apb_stream_c/it", "apb_ave_ch2_mean", "apb_ave_c_ch2_mean"],
        "ir": ["apb_stream/ir", "apb_stream_c/ir", "apb_ave_ch3_mean", "apb_ave_c_ch3_mean"],
        "iff": ["apb_stream/iff", "apb_stream_c/iff", "apb_ave_ch4_mean", "apb_ave_c_ch4_mean"],
        "dark": PIZZA_BOX_OFFSETS,
        "sample": ["sample_name", "name"],
    },
    # ophyd-async with a PandA: positions and averaged amplifiers captured to one HDF5 file
    "panda": {
        "energy": {"key": ["energy", "mono-energy", "panda-inenc1-val"], "d_spacing": "d_spacing"},
        "i0": ["i0", "I0", "panda-i0"],
        "it": ["it", "It", "panda-it"],
        "ir": ["ir", "Ir", "panda-ir"],
        "iff": ["iff", "If", "panda-iff"],
        "context": ["temperature", "sample-temperature"],
        "truth": {n: f"truth_{n}" for n in ("r", "sigma2", "n_s02", "e0", "c3")},
    },
}


def adapter(preset: str = "generic", **changes: Any) -> Adapter:
    """Adapter of a preset with some names replaced.

    Raises
    ------
    ValueError
        If the preset is unknown.
    """
    if preset not in PRESETS:
        raise ValueError(f"adapter preset {preset!r} is unknown; there are {', '.join(PRESETS)}")
    base = dict(PRESETS[preset])
    energy = changes.pop("energy", None)
    if energy is not None:
        named = {"key": energy} if isinstance(energy, (str, list, tuple)) else dict(energy)
        base["energy"] = {**base["energy"], **named}
    return Adapter.model_validate({**base, **changes})


class Rebin(_Frozen):
    """Rebinning onto the usual XAFS grid: steps in eV below and across the edge, in k above it."""

    method: Literal["auto", "off", "boxcar", "gaussian"] = Field(
        default="auto",
        description="auto: only if the energies differ from sweep to sweep, as with an encoder:"
        " box-car averages if the sweeps have at least twice as many points as the grid, otherwise"
        " interpolation onto the energies of the run's first sweep; boxcar, gaussian: always; off:"
        " never",
    )
    pre_step: float = Field(default=5.0, gt=0, description="step below the edge region, eV")
    xanes_step: float = Field(default=0.5, gt=0, description="step in the edge region, eV")
    k_step: float = Field(
        default=0.04, gt=0, description="step in k above the edge region, 1/angstrom"
    )
    xanes: tuple[float, float] = Field(
        default=(-30.0, 50.0), description="edge region, eV relative to the tabulated edge"
    )


class Average(_Frozen):
    """Running averages of sweeps, published in addition to the single sweeps or instead of them."""

    n: int = Field(
        default=1, ge=1, le=1000, description="number of sweeps in an average; 1: no averages"
    )
    directions: Literal["separate", "together"] = Field(
        default="separate",
        description="whether up and down sweeps are averaged separately or together",
    )
    singles: bool = Field(default=True, description="whether single sweeps are published as well")


class Calibration(_Frozen):
    """Correction of energy drift with the edge of a reference foil."""

    source: Literal["off", "foil"] = Field(
        default="off",
        description="foil: the energies of every sweep are shifted so that the foil's edge always"
        " has the same energy; off: no correction",
    )
    foil_e0: float | None = Field(
        default=None,
        description="energy of the foil's edge after the correction, eV; null: its energy in the"
        " first good sweep",
    )
    window: tuple[float, float] = Field(
        default=(-30.0, 40.0),
        description="range around the foil's edge that is compared between sweeps, eV",
    )
    smoothing: int = Field(
        default=6,
        ge=1,
        le=1000,
        description="number of sweeps of one direction that a straight line is fitted to, to"
        " smooth the drift",
    )
    jump: float = Field(
        default=0.5,
        gt=0,
        description="eV; a sudden change that is larger is followed, and flagged, as soon as two"
        " sweeps agree on it",
    )
    max_shift: float = Field(
        default=15.0,
        gt=0,
        description="eV; a larger shift is not considered to be drift and is not applied",
    )


class Quality(_Frozen):
    """Search for glitches and outliers in every spectrum."""

    deglitch: float | None = Field(
        default=None,
        gt=0,
        description="replace up to three points in a row that differ from their neighbours by this"
        " many times the scatter, except near the edge; 10 suits good data; null: replace nothing",
    )
    outlier: float | None = Field(
        default=8.0,
        gt=0,
        description="flag a spectrum that differs from the previous spectra of its run by this many"
        " times the usual difference; null: never",
    )


class Reduction(_Frozen):
    """From mu(E) to chi(k)."""

    engine: Literal["plan", "larch"] = Field(
        default="plan",
        description="plan: Larch's algorithms, compiled to matrix products by exafsd; larch: Larch"
        " itself (slower)",
    )
    channels: tuple[Channel, ...] = Field(
        default=("transmission", "fluorescence", "reference"),
        description="channels to analyse, if the run has their detectors",
    )
    e0_policy: E0Policy = Field(
        default="model",
        description="model: E0 is determined from the near edge, as in measured spectra of the"
        " model's material; like run if no model of the edge has such spectra; run: E0 of the"
        " run's first good spectrum; auto: each spectrum has its own E0; fixed: the value of e0;"
        " foil: like run, with the energy scale of the reference foil",
    )
    e0: float | None = Field(default=None, description="E0 for the policy fixed, eV")
    rebin: Rebin = Rebin()
    average: Average = Average()
    calibration: Calibration = Calibration()
    quality: Quality = Quality()
    pre_edge: PreEdge = PreEdge()
    autobk: Autobk | None = Field(
        default=None,
        description="arguments for the published spectra; null: those of the model. The fit of the"
        " parameters always uses those of the model",
    )
    xftf: Xftf | None = Field(
        default=None,
        description="arguments for the published spectra; null: those of the model. The fit of the"
        " parameters always uses those of the model",
    )
    min_points: int = Field(
        default=40,
        ge=10,
        description="smallest number of points of a spectrum; spectra with fewer points are"
        " rejected",
    )
    max_bad_share: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="largest share of bad points; they are left out, and a spectrum with more of"
        " them is rejected",
    )
    k_max_min: float = Field(
        default=6.0,
        description="1/Å; a spectrum whose data end below this k is published without parameters",
    )


class Inference(_Frozen):
    """Which model determines the parameters."""

    enabled: bool = Field(default=True, description="false: spectra are only reduced")
    model: str | None = Field(
        default=None, description="name of the model; null: exafsd chooses one by element and edge"
    )
    structure: str | None = Field(
        default=None, description="phase or formula that the chosen model must contain"
    )
    polish: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="the least-squares fit that follows the network; auto: if the fit can keep up"
        " with the spectra, and in every replay; always: for every spectrum; off: never",
    )
    s02: dict[EdgeName, S02] = Field(
        default_factory=dict,
        description='S0² of each edge, needed for N: { Cu-K = "FILE" } with a file of exafsd'
        " calibrate-s02, or { Cu-K = { value = 0.9, std = 0.05 } }",
    )
    fluorescence: Fluorescence | None = Field(
        default=None,
        description="whether samples in fluorescence are dilute, corrected for over-absorption, or"
        " thick; null: not known, and N is not given. A run may set this in its start"
        " document",
    )


class Composition(_Frozen):
    """Composition of samples: linear combination fits of the near edge with measured references."""

    enabled: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="auto: if the fits can keep up with the spectra, and in every replay; always:"
        " for every spectrum; off: never",
    )
    exafs: Literal["auto", "always", "off"] = Field(
        default="auto",
        description="fit the EXAFS of a sample of several phases, with the shares of the linear"
        " combination and a model of each phase; values as for `enabled`",
    )
    references: tuple[Path, ...] = Field(
        default=(), description="folders with references, made by exafsd references add"
    )
    shipped: bool = Field(
        default=True,
        description="also use the references that come with exafsd, which were measured at other"
        " beamlines; a reference of the same name in one of your folders replaces them",
    )
    phases: tuple[str, ...] = Field(
        default=(), description="names of the references to use; empty: all references of the edge"
    )
    components: bool = Field(
        default=True, description="count the components of each run, with or without references"
    )
    ends: int = Field(
        default=0,
        ge=0,
        description="replay and analyze: compare with the mean of so many sweeps at the beginning"
        " of a run (`first`) and at its end (`last`), and of other references with those in"
        " `phases` alone; 0: not. A live run has no end yet",
    )
    contents: tuple[str, ...] = Field(
        default=(),
        description="checksums of the files in the folders, calculated when the settings are read;"
        " do not set them",
    )

    def read(self) -> "Composition":
        """The same with hashes of what is in its folders now."""
        return self.model_copy(update={"contents": tuple(map(_folder_sha256, self.references))})


def _folder_sha256(folder: Path) -> str:
    """Hash of the references in a folder; of nothing where it cannot be read."""
    sha256 = hashlib.sha256()
    try:
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            sha256.update(f"{file.name}\0".encode("utf-8", "replace") + file.read_bytes())
    except OSError:  # who uses the folder says so
        return ""
    return sha256.hexdigest()


class Target(NamedTuple):
    """A parameter, and the standard deviation that its mean over a run is to reach."""

    parameter: str
    target: float


class Convergence(_Frozen):
    """Goal of a run. When a run has reached it, the results say that the run may be stopped."""

    parameter: Parameter | None = Field(
        default=None,
        description="parameter whose mean over the run is watched: Cu/1/r (phase, shell,"
        " parameter), Cu2O/share (reference), edge_energy, white_line or white_line_area",
    )
    target: float | None = Field(
        default=None,
        gt=0,
        description="standard deviation of the mean at which the run may stop, in the unit of the"
        " parameter",
    )

    @property
    def goal(self) -> Target | None:
        """What is to be reached; None where nothing is."""
        if self.parameter is None or self.target is None:
            return None
        return Target(self.parameter, self.target)

    @model_validator(mode="after")
    def _both(self) -> "Convergence":
        if (self.parameter is None) != (self.target is None):
            raise ValueError("parameter and target are set together, or neither")
        return self


class RunOverride(_Frozen):
    """What ``start["exafsd"]`` may set for its own run: never sockets, paths or code."""

    model: str | None = None
    structure: str | None = None
    phases: tuple[str, ...] | None = None
    fluorescence: Fluorescence | None = None
    convergence: Convergence | None = None
    element: str | None = None
    edge: str | None = None
    adapter: dict[str, Any] | None = None
    e0_policy: E0Policy | None = None
    e0: float | None = None
    rebin: Rebin | None = None
    average: Average | None = None
    calibration: Calibration | None = None
    quality: Quality | None = None
    pre_edge: PreEdge | None = None
    autobk: Autobk | None = None
    xftf: Xftf | None = None


#: fields of a run's override that belong to inference, and to the reduction
INFERENCE_OVERRIDES = set(RunOverride.model_fields) & set(Inference.model_fields)
REDUCTION_OVERRIDES = set(RunOverride.model_fields) & set(Reduction.model_fields)


class Analysis(_Frozen):
    """Everything that decides a number."""

    adapter: Adapter = Field(default_factory=adapter)
    reduction: Reduction = Reduction()
    inference: Inference = Inference()
    composition: Composition = Composition()
    convergence: Convergence = Convergence()

    def for_run(self, start: Mapping[str, Any]) -> "Analysis":
        """Analysis of one run: these settings with the overrides of its start document.

        Raises
        ------
        ValueError
            If the run asks for something that does not exist or is not allowed.
        """
        asked = start.get("exafsd")
        if asked is None:
            return self
        try:
            override = RunOverride.model_validate(asked)
            asked = {name: getattr(override, name) for name in REDUCTION_OVERRIDES}
            changes = {name: value for name, value in asked.items() if value is not None}
            reduction = Reduction.model_validate({**self.reduction.model_dump(), **changes})
            names = {**self.adapter.model_dump(), **(override.adapter or {})}
            return Analysis(
                adapter=Adapter.model_validate(names),
                reduction=reduction,
                inference=self.inference.model_copy(
                    update=override.model_dump(include=INFERENCE_OVERRIDES, exclude_none=True)
                ),
                composition=self.composition
                if override.phases is None
                else self.composition.model_copy(update={"phases": override.phases}),
                convergence=override.convergence or self.convergence,
            )
        except ValidationError as error:
            errors = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
            )
            raise ValueError(f'start["exafsd"] is not valid: {errors}') from None

    @cached_property
    def canonical(self) -> bytes:
        """These settings as the JSON that is hashed."""
        settings = self.model_dump(mode="json")
        energy = settings["adapter"]["energy"]
        if not energy["units"]:  # settings that do without it keep the hash they had before it
            del energy["units"]
        if self.composition == Composition():
            del settings["composition"]
        else:
            del settings["composition"]["references"]
            for name in ("components", "ends"):  # settings without these keep their hash, too
                if settings["composition"][name] == Composition.model_fields[name].default:
                    del settings["composition"][name]
        if self.convergence == Convergence():
            del settings["convergence"]
        return json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def sha256(self) -> str:
        """Hash of the canonical JSON of these settings."""
        return hashlib.sha256(self.canonical).hexdigest()
