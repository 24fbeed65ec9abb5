"""S0² of an element and edge: as settings hold it, and the file that a foil run leaves behind."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from exafsd.contract.messages import Channel

S02_SCHEMA = "exafsd.s02/1"
#: how settings name an edge, for example Cu-K
EdgeName = Annotated[str, StringConstraints(pattern=r"^[A-Z][a-z]?-[K-N][1-7]?$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class _Read(_Frozen):
    # a file of a later version may say more
    model_config = ConfigDict(extra="ignore")


class Foil(_Read):
    """What the amplitude of a foil was read with: S0² is the same only for the same."""

    phase: str = Field(description="of the foil")
    model: str = Field(description="name of the bundle")
    model_sha256: str = Field(description="of pinn.onnx; without a network, of card and graph")
    channel: Channel = Field(description="how it was measured")
    recipe_sha256: str = Field(description="of the model's recipe and the rebinning")


class S02(_Frozen):
    """The amplitude reduction factor of an element and edge."""

    value: float = Field(gt=0, description="S0²")
    std: float = Field(ge=0, description="one standard deviation")
    source: str = Field(default="settings", description="where it comes from, in words")
    foil: Foil | None = Field(
        default=None, description="how it was measured; null: not with exafsd, so std grows"
    )


class Evidence(_Read):
    """What a calibration rests on."""

    sources: list[str] = Field(description="uid of the run, or names of the files")
    spectra: int = Field(description="read and believed")
    withheld: int = Field(description="rejected, or out of the model's domain")
    degeneracy: float = Field(description="N of the foil's first shell")
    scatter: float | None = Field(description="std between spectra; null of a single one")
    noise: float | None = Field(description="std of the mean that follows from the scatter")
    model_std: float = Field(description="the model's own std, which no averaging makes smaller")
    settings_sha256: str
    measured: float | None = Field(description="first spectrum, seconds since 1970")
    made: float = Field(description="this calibration, seconds since 1970")
    version: str = Field(description="of exafsd")


class S02File(_Read):
    """S0² measured on a foil (``exafsd calibrate-s02``)."""

    schema_: Literal["exafsd.s02/1"] = Field(default=S02_SCHEMA, alias="schema")
    element: str
    edge: str
    s02: S02
    evidence: Evidence

    model_config = ConfigDict(populate_by_name=True)

    @property
    def name(self) -> str:
        """How settings name the edge."""
        return f"{self.element}-{self.edge}"
