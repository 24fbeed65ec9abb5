"""How a spectrum is reduced and fitted, in Larch's own argument names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Window = Literal["hanning", "kaiser", "parzen", "welch", "sine", "gaussian"]


class _Frozen(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PreEdge(_Frozen, frozen=True):
    """Arguments of ``larch.xafs.pre_edge``; null lets Larch choose from the data."""

    pre1: float | None = Field(
        default=None, description="start of the pre-edge fit, eV relative to E0"
    )
    pre2: float | None = Field(
        default=None, description="end of the pre-edge fit, eV relative to E0"
    )
    norm1: float | None = Field(
        default=None, description="start of the post-edge fit, eV relative to E0"
    )
    norm2: float | None = Field(
        default=None, description="end of the post-edge fit, eV relative to E0"
    )
    nnorm: int | None = Field(
        default=None, ge=0, le=5, description="degree of the post-edge polynomial"
    )
    npre: int = Field(default=1, ge=0, le=1, description="degree of the pre-edge polynomial")
    nvict: int = Field(default=0, description="power of energy that weights the pre-edge fit")


class Autobk(_Frozen, frozen=True):
    """Arguments of ``larch.xafs.autobk``."""

    rbkg: float = Field(
        default=1.0,
        gt=0,
        le=5,
        description="the background is the part of mu(E) below this R, angstrom",
    )
    kweight: int = Field(
        default=2, ge=0, le=3, description="k weight of the background's transform"
    )
    kmin: float = Field(
        default=0.0, ge=0, le=20, description="lower end of the k range, 1/angstrom"
    )
    kmax: float | None = Field(
        default=None,
        gt=0,
        le=40,
        description="upper end of the k range, 1/angstrom; null: the end of the data",
    )
    dk: float = Field(
        default=0.1, ge=0, le=10, description="width of the rise and fall of the window, 1/angstrom"
    )
    win: Window = Field(default="hanning", description="shape of the window")
    nclamp: int = Field(
        default=3, ge=0, le=100, description="number of points at each end that the clamps act on"
    )
    clamp_lo: float = Field(default=0.0, description="weight of the clamp at the first points")
    clamp_hi: float = Field(default=1.0, description="weight of the clamp at the last points")


class Xftf(_Frozen, frozen=True):
    """Arguments of ``larch.xafs.xftf`` for the transform to chi(R)."""

    kmin: float = Field(
        default=3.0, ge=0, le=20, description="lower end of the k range, 1/angstrom"
    )
    kmax: float = Field(
        default=14.0,
        gt=0,
        le=40,
        description="upper end of the k range, 1/angstrom; at most 0.5 below the end of the data",
    )
    dk: float = Field(
        default=2.0, ge=0, le=10, description="width of the rise and fall of the window, 1/angstrom"
    )
    kweight: int = Field(default=2, ge=0, le=3, description="k weight of the transform")
    window: Window = Field(default="hanning", description="shape of the window")
    rmax_out: float = Field(
        default=6.0, gt=0, le=31, description="largest R of the transform, angstrom"
    )


class Recipe(_Frozen, frozen=True):
    """From mu(E) to chi(k) and chi(R). A model's recipe drives the reduction behind it."""

    pre_edge: PreEdge = PreEdge()
    autobk: Autobk = Autobk()
    xftf: Xftf = Xftf()


class FitWindow(_Frozen, frozen=True):
    """The window of feffit that the parameters answer for."""

    k: tuple[float, float] = Field(
        default=(3.0, 14.0), description="1/angstrom; end cut to data less 0.5"
    )
    r: tuple[float, float] = Field(default=(1.4, 3.0), description="angstrom, not phase corrected")
    kweight: int = 2
    window: Window = "hanning"
    dk: float = Field(default=2.0, description="1/angstrom")
