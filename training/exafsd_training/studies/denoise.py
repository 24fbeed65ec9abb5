"""Is the predicted spectrum nearer to the truth than what was measured? Noise, repeats, cut data.

The predicted k^2 chi is set beside the two usual remedies: Larch's Fourier filter (`xftf`, then
`xftr`), with whichever R range suits it best, and the model of the polish. All are compared with
the clean spectrum in the k window of the filter, which tapers at both ends.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from larch import Group
from larch.xafs import ftwindow, xftf, xftr
from rich.console import Console
from rich.table import Table

from exafsd.contract import K_GRID, Card, to_grid
from exafsd.contract.recipe import FitWindow
from exafsd.inference.refinement.polish import Objective, Polisher, objective
from exafsd.inference.refinement.reference_fit import ReferenceFit
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Prediction
from exafsd_training.fitting.calibrate import predict
from exafsd_training.fitting.card import NOT_HASHED, make_card
from exafsd_training.fitting.model_folder import Model, SimulationInputs, load_model
from exafsd_training.fitting.workflow import held_out
from exafsd_training.reference.feffit import Chi
from exafsd_training.reference.table import read_spectrum
from exafsd_training.simulation.simulate import K_MIN
from exafsd_training.theory.paths import Floats
from exafsd_training.zoo import configurations

DENOISING = "denoising.json"
#: Where spectra are compared, 1/angstrom, with the filter's sills.
K_LOW, SILL = 3.0, 1.0
#: R ranges of the filter, angstrom: the nearest shell, some shells, all that the network knows.
FILTERS = ((1.0, 3.0), (1.0, 4.0), (1.0, 6.0))
#: Simulated spectra, their end in 1/angstrom, and noisy copies of a measured one.
SPECTRA, END, COPIES = 200, 14.0, 50
#: Data that are left, and up to where they are rebuilt, 1/angstrom.
CUT, REBUILT = 9.0, 12.0
#: Residuals of a fit when its error bars have doubled, over those without noise, squared.
DOUBLED = 4.0


@dataclass(frozen=True)
class Cleaned:
    """Distances from the clean spectrum relative to its size, medians over `count` spectra.

    `noise` is the median noise of chi(k), with which the error bars of a fit double. `filtered`
    is with the best of `FILTERS`. `beats_filter` and `beats_polish` are the shares of spectra
    that the network is nearest to.
    """

    spectra: str
    noise: float
    raw: float
    network: float
    filtered: float
    polish: float
    beats_filter: float
    beats_polish: float
    count: int


@dataclass(frozen=True)
class Repeated:
    """Distances of a single scan, and of what is made of it, from the mean of the others.

    `filtered` is with the best of `FILTERS`.
    """

    spectra: str
    single: float
    network: float
    filtered: float
    polish: float
    count: int


@dataclass(frozen=True)
class Rebuilt:
    """Distance from the spectrum between `CUT` and `REBUILT`, relative to its size there.

    `network` is predicted from what is below `CUT`, `whole` from all of the data.
    """

    spectra: str
    network: float
    whole: float
    count: int


@dataclass(frozen=True)
class Judge:
    """A model and what its spectra are judged with."""

    model: Model
    card: Card

    @property
    def window(self) -> FitWindow:
        """Of the polish."""
        return self.card.fit[0]

    def goal(self, end: float) -> Objective:
        """What the polish minimizes on data to `end`, 1/angstrom."""
        return objective(fit_weight, self.window, end)

    def field(self, chi_k2: Floats, end: float) -> tuple[Floats, list[Prediction]]:
        """Predicted k^2 chi of spectra (n, 401) that end at `end`, and all that is predicted."""
        rows, mask = _masked(chi_k2, end)
        out = predict(self.model.network, rows, mask)
        names = ("theta", "theta_cov", "chi_k2_pred", "chi_k2_exafs")
        predictions = [
            Prediction(*(np.float64(out[name][i]) for name in names), float(out["ood"][i]))
            for i in range(len(rows))
        ]
        return np.float64(out["chi_k2_pred"]), predictions

    def polished(self, chi_k2: Floats, end: float, predictions: list[Prediction]) -> Floats:
        """k^2 chi of the polish's answers (n, 401); NaN where it failed."""
        reference = ReferenceFit.of(self.card)
        if reference is None:
            raise ValueError(f"{self.card.name} has no reference fit")
        polisher = Polisher(self.card, self.model.equation, fit_weight)
        fits = [one.fit for one in polisher(chi_k2, predictions, end, [None] * len(chi_k2))]
        spectra = np.full(chi_k2.shape, np.nan)
        done = [i for i, fit in enumerate(fits) if fit is not None]
        theta = reference.theta(np.array([fit.value for fit in fits if fit is not None]))
        spectra[done] = self.model.equation(theta)[0] * K_GRID**2
        return spectra

    def doubling(self, chi_k2: Floats, end: float) -> Floats:
        """Noise of chi(k) (n,) with which a fit's error bars on clean spectra (n, 401) double."""
        goal = self.goal(end)
        _, predictions = self.field(chi_k2, end)
        rest = (chi_k2 - self.polished(chi_k2, end, predictions))[:, goal.inside] @ goal.matrix.T
        return np.sqrt((DOUBLED - 1) * np.sum(rest**2, 1) / np.sum(goal.chi_matrix**2))


def denoising(
    folder: Path, data: Path | None = None, workers: int = 1
) -> tuple[list[Cleaned], list[Repeated], list[Rebuilt]]:
    """Print all three comparisons; kept in the model folder.

    Parameters
    ----------
    folder
        Of a trained model.
    data
        Folder with the measured spectra that the model's configuration names.
    workers
        Processes that simulate.
    """
    model = load_model(folder)
    judge = Judge(model, make_card(model, folder, NOT_HASHED))
    pool = held_out(
        SimulationInputs.of(model, folder),
        model.crystal,
        folder,
        model.settings.seed + 8,
        SPECTRA,
        workers,
    ).pool
    # what the instrument leaves is part of what is to be seen, so the clean spectrum has it
    long = pool.take(pool.k_end >= END)
    clean = np.float64(long.noisy)
    cleaned = [_cleaned(judge, "simulated", clean, END, seed=1)]
    rebuilt = [_rebuilt(judge, "simulated", clean, END)]
    repeated: list[Repeated] = []
    spectra = dict(_measured(model, data)) if data else {}
    for label, spectrum in spectra.items():
        row, end = _row(spectrum), spectrum.k_data[1]
        cleaned.append(_cleaned(judge, label, np.tile(row, (COPIES, 1)), end, seed=2))
        if end >= REBUILT:
            rebuilt.append(_rebuilt(judge, label, row[None], end))
    for label, scans in _repeats(spectra).items():
        repeated.append(_repeated(judge, label, scans))
    tables = {"cleaned": cleaned, "repeated": repeated, "rebuilt": rebuilt}
    report = {name: [asdict(row) for row in rows] for name, rows in tables.items()}
    (folder / DENOISING).write_text(json.dumps(report, indent=1))
    for table in as_tables(cleaned, repeated, rebuilt):
        Console(width=140).print(table)
    return cleaned, repeated, rebuilt


def fourier_filtered(chi_k2: Floats, end: float, r: tuple[float, float]) -> Floats:
    """One spectrum (401,) through Larch's xftf and xftr: k^2 chi times `window_in_k`."""
    group = Group()
    xftf(
        K_GRID, chi_k2 / np.maximum(K_GRID, K_GRID[1]) ** 2, group=group, kmin=K_LOW, kmax=end,
        dk=SILL, kweight=2, window="hanning",
    )  # fmt: skip
    xftr(group.r, group.chir, group=group, rmin=r[0], rmax=r[1], dr=0.2, qmax_out=K_GRID[-1])
    return np.interp(K_GRID, group.q, group.chiq_re)


def window_in_k(end: float) -> Floats:
    """(401,) the filter's window on data to `end`, 1/angstrom."""
    return ftwindow(K_GRID, xmin=K_LOW, xmax=end, dx=SILL, window="hanning")


def distance(denoised: Floats, clean: Floats, weight: Floats) -> Floats:
    """Distance (n,) of spectra (n, 401) from clean ones, relative to their size."""
    missed = np.linalg.norm((denoised - clean) * weight, axis=-1)
    return missed / np.linalg.norm(clean * weight, axis=-1)


def _cleaned(judge: Judge, label: str, clean: Floats, end: float, seed: int) -> Cleaned:
    rng = np.random.default_rng(seed)
    level = judge.doubling(clean, end)
    usable = np.isfinite(level)
    clean, level = clean[usable], level[usable]
    noisy = clean + level[:, None] * K_GRID**2 * rng.normal(0, 1, clean.shape)
    field, predictions = judge.field(noisy, end)
    window = window_in_k(end)
    network, raw, polish = (
        distance(denoised, clean, window)
        for denoised in (field, noisy, judge.polished(noisy, end, predictions))
    )
    filtered = _filtered(noisy, clean, end)
    polish = np.nan_to_num(polish, nan=np.inf)
    return Cleaned(
        label,
        *(round(float(np.median(x)), 6) for x in (level, raw, network, filtered, polish)),
        *(round(float((network < other).mean()), 4) for other in (filtered, polish)),
        len(clean),
    )


def _repeated(judge: Judge, label: str, scans: Sequence[Chi]) -> Repeated:
    end = min(scan.k_data[1] for scan in scans)
    rows = np.array([_row(scan) for scan in scans])
    others = np.array([np.delete(rows, i, 0).mean(0) for i in range(len(rows))])
    window = window_in_k(end)
    field, predictions = judge.field(rows, end)
    single, network, polish = (
        distance(denoised, others, window)
        for denoised in (rows, field, judge.polished(rows, end, predictions))
    )
    far = (single, network, _filtered(rows, others, end), polish)
    return Repeated(label, *(round(float(np.mean(x)), 5) for x in far), len(rows))


def _filtered(spectra: Floats, clean: Floats, end: float) -> Floats:
    """Distances (n,) after Larch's filter, with the R range that suits these spectra best."""
    window = window_in_k(end)
    tried = [
        distance(
            np.array([fourier_filtered(row, end, r) for row in spectra]),
            clean * window,
            np.ones_like(window),
        )
        for r in FILTERS
    ]
    return min(tried, key=lambda distances: float(np.median(distances)))


def _rebuilt(judge: Judge, label: str, clean: Floats, end: float) -> Rebuilt:
    between = np.float64((K_GRID > CUT) & (K_GRID <= REBUILT))
    network, whole = (
        float(np.median(distance(judge.field(clean, k)[0], clean, between))) for k in (CUT, end)
    )
    return Rebuilt(label, round(network, 5), round(whole, 5), len(clean))


def _measured(model: Model, data: Path) -> Iterator[tuple[str, Chi]]:
    if model.name in configurations.names():
        for measured in configurations.load(model.name).measured:
            yield Path(measured.file).name, read_spectrum(measured, data)[0]


def _repeats(spectra: dict[str, Chi]) -> dict[str, list[Chi]]:
    """Scans whose names differ only by a number, where there are three or more."""
    groups: defaultdict[str, list[Chi]] = defaultdict(list)
    for label, spectrum in spectra.items():
        groups[re.sub(r"(?<=Scan)\d+.*|_\d+(?=\.xdi)", "*", label)].append(spectrum)
    return {label: scans for label, scans in groups.items() if len(scans) > 2}


def _row(spectrum: Chi) -> Floats:
    return np.float64(to_grid(spectrum.k, spectrum.chi, 0.0, spectrum.k_data[1])[0])


def _masked(chi_k2: Floats, end: float) -> tuple[Floats, Floats]:
    half = K_GRID[1] / 2
    mask = np.float32((K_MIN - half <= K_GRID) & (end + half >= K_GRID))
    return np.float32(chi_k2) * mask, np.broadcast_to(mask, chi_k2.shape)


def as_tables(
    cleaned: Sequence[Cleaned], repeated: Sequence[Repeated], rebuilt: Sequence[Rebuilt]
) -> Iterator[Table]:
    """The three comparisons, distances in per cent."""
    shown = Table("spectra", "noise", "as measured", "network", "filtered", "polish",
                  "beats filter", "beats polish",
                  title="distance from the clean spectrum")  # fmt: skip
    for one in cleaned:
        shown.add_row(one.spectra, f"{one.noise:.5f}", *(f"{x:.1%}" for x in (
            one.raw, one.network, one.filtered, one.polish, one.beats_filter, one.beats_polish
        )))  # fmt: skip
    yield shown
    if repeated:
        shown = Table("scans", "number", "single", "network", "filtered", "polish",
                      title="distance from the others")  # fmt: skip
        for one in repeated:
            shown.add_row(one.spectra, str(one.count), *(f"{x:.1%}" for x in (
                one.single, one.network, one.filtered, one.polish
            )))  # fmt: skip
        yield shown
    shown = Table("spectra", f"from k below {CUT:g}", "from all", title=f"distance in k {CUT:g} to"
                  f" {REBUILT:g}")  # fmt: skip
    for one in rebuilt:
        shown.add_row(one.spectra, f"{one.network:.1%}", f"{one.whole:.1%}")
    yield shown
