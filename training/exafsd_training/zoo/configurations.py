"""Models that are trained for exafsd: one small TOML file each, with everything that is chosen.

A file of your own has the same form; ``exafsd-train fit --config`` takes its path, or the name of
one that ships.
"""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from exafsd.contract.recipe import FitWindow
from exafsd_training.theory.priors import Priors
from exafsd_training.theory.structures import Crystal, from_amcsd, from_cif

FOLDER = Path(__file__).parent


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StructureSource(_Strict):
    """Where the crystal structure comes from."""

    amcsd: int | None = Field(default=None, description="number in the AMCSD of larixite")
    cif: str | None = Field(default=None, description="file beside the configuration")
    site: int = Field(
        default=1, ge=0, description="which site of the absorber; 0 averages over all of them"
    )

    @model_validator(mode="after")
    def _one(self) -> "StructureSource":
        if (self.amcsd is None) == (self.cif is None):
            raise ValueError("give either amcsd or cif")
        return self


class PriorChoice(_Strict):
    """What training draws from, where it differs from the defaults of `Priors`."""

    n_s02: tuple[float, float] = Field(
        default=Priors.n_s02, description="N S0^2 over the crystal's N, a range"
    )
    e0: tuple[float, float] = Field(
        default=Priors.e0, description="mean and standard deviation about Larch's E0, eV"
    )
    einstein: tuple[float, ...] = Field(
        default=(), description="Einstein temperatures of the first shells, K"
    )
    spread: float = Field(
        default=Priors.spread, gt=0, description="standard deviation of their logarithm"
    )
    anharmonicity: tuple[float, float] = Field(
        default=Priors.anharmonicity, description="6 k3/k of the bond, a range, 1/angstrom"
    )
    source: str = Field(default="", description="where the Einstein temperatures come from")


class IndependentSimulation(_Strict):
    """What the independent simulator needs to know of the material."""

    amcsd: int | None = Field(
        default=None, description="another structure of the AMCSD than training's, where there is"
    )
    expansion: float = Field(
        default=1e-5, description="linear thermal expansion at high temperature, 1/K"
    )


class Measured(_Strict):
    """A measured spectrum of the material, for the reference fits and never for training."""

    file: str = Field(description="below the data folder")
    kind: Literal["mu", "chi_k2"] = Field(
        default="mu", description="XDI file, or two columns k and k^2 chi"
    )
    sample: str


class ModelConfig(_Strict):
    """Everything that is chosen for one model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    absorber: str
    edge: str
    phase: str = Field(description="name in messages")
    structure: StructureSource
    fit: FitWindow
    edge_shift: float | None = Field(
        default=None, description="Larch's E0 of the material less the tabulated edge, eV"
    )
    near_edge: tuple[float, ...] | None = Field(
        default=None,
        description="of a model that ships: profile of a near edge, as in a card, where no mu(E) is"
        " among the measured",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="of a training from scratch, unless the command says otherwise",
    )
    prior: PriorChoice = PriorChoice()
    judge: IndependentSimulation = IndependentSimulation()
    measured: tuple[Measured, ...] = ()

    _folder: Path = PrivateAttr(default=FOLDER)

    @property
    def priors(self) -> Priors:
        """Priors as the parametrisation takes them."""
        return Priors(**self.prior.model_dump(exclude={"source"}))

    def crystal(self) -> Crystal:
        """Structure, read from where it comes from."""
        source = self.structure
        if source.cif is not None:
            return from_cif(self._folder / source.cif, source.site)
        assert source.amcsd is not None  # StructureSource has exactly one of them
        return from_amcsd(source.amcsd, source.site)


def names() -> list[str]:
    """Names of the models that ship."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load(config: str | Path) -> ModelConfig:
    """Read a configuration.

    Parameters
    ----------
    config
        Path of a TOML file, or name of a model that ships.

    Raises
    ------
    FileNotFoundError
        With the names that ship.
    """
    file = FOLDER / f"{config}.toml" if str(config) in names() else Path(config)
    if not file.is_file():
        raise FileNotFoundError(f"{config}: no such file, and the models are {', '.join(names())}")
    with file.open("rb") as stream:
        parsed = ModelConfig.model_validate(tomllib.load(stream))
    parsed._folder = file.parent
    return parsed
