"""A series of near edges as shares and spectra of a number of components: MCR-ALS, and its band.

Shares and spectra are fitted in turn (multivariate curve resolution by alternating least squares,
Tauler, Chemometr. Intell. Lab. Syst. 30 (1995) 133). Shares are not negative and their sum is 1,
spectra are not negative; that shares rise and fall only once is not asked for, as samples go there
and back. Mostly many other answers are as good, so the least and the largest share that each
component can have is given beside them (Gemperline, Anal. Chem. 71 (1999) 5398; Tauler,
J. Chemometrics 15 (2001) 627).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize, nnls

from exafsd.spectra import Floats

#: Components that can be asked for.
MOST = 5
#: Steps of both fits, and the relative gain below which they end.
STEPS, GAIN = 500, 1e-8
#: Sweeps that the spectra are fitted to, and those that bound the band.
FITTED, BOUNDING = 1000, 120
#: How far below zero spectra may be, in units of noise, and shares.
NOISES, BELOW = 3.0, 0.01
#: Points at which all spectra meet: their scatter is less than so many times noise, and than this
#: share of the largest.
MEETING, SMALL = 3.0, 0.1


class McrError(ValueError):
    """A series that cannot be resolved; the text says why."""


@dataclass(frozen=True)
class McrResult:
    """Shares (n, c) and spectra (c, m) of c components in n near edges of m bins.

    `low` and `high` (n, c) are the shares where the component has as little, and as much, as any
    answer within the constraints gives it. `rest` is the rms of what is left over, of the edge
    step, and `converged` says whether the fits ended by themselves.
    """

    shares: Floats
    spectra: Floats
    low: Floats
    high: Floats
    rest: float
    converged: bool


def mcr_als(flat: Floats, count: int, noise: float, anchors: Floats | None = None) -> McrResult:
    """Resolve near edges into components.

    Parameters
    ----------
    flat
        (n, m), normalised.
    count
        Number of components, 2 to `MOST`.
    noise
        Standard deviation of a bin's noise.
    anchors
        (a, m) spectra of the first components, which stay as they are; None: of none.

    Raises
    ------
    McrError
        If there are too few spectra, or too many components or anchors.
    """
    anchors = np.zeros((0, flat.shape[1])) if anchors is None else anchors
    if not 2 <= count <= MOST:
        raise McrError(f"2 to {MOST} components can be resolved, not {count}")
    if len(flat) <= count:
        raise McrError(f"{len(flat)} spectra are too few for {count} components")
    if len(anchors) > count:
        raise McrError(f"{len(anchors)} spectra are given for {count} components")
    rows = flat[np.unique(np.linspace(0, len(flat) - 1, FITTED).astype(int))]
    spectra = _purest(rows, count, anchors)
    floor, before, converged = -NOISES * noise, np.inf, False
    for _ in range(STEPS):
        shares = _shares(rows, spectra)
        spectra = _spectra(rows, shares, anchors, floor)
        misfit = float(np.sum((rows - shares @ spectra) ** 2))
        if before - misfit <= GAIN * misfit:
            converged = True
            break
        before = misfit
    shares = _shares(flat, spectra)
    low, high = _band(shares, spectra, len(anchors), floor)
    rest = float(np.sqrt(np.mean((flat - shares @ spectra) ** 2)))
    return McrResult(shares, spectra, low, high, rest, converged)


def meeting_points(energy: Floats, flat: Floats, noise: float) -> list[float]:
    """Energies, eV, at which all near edges (n, m) meet while they differ on either side.

    They are where two phases have equal absorption, if there are only two; but more phases may
    meet, too, and two need not.
    """
    away = flat - flat.mean(axis=0)
    _, _, vectors = np.linalg.svd(away, full_matrices=False)
    main, scatter = vectors[0], away.std(axis=0)
    large = np.abs(main) > SMALL * np.abs(main).max()
    points: list[float] = []
    for i in np.flatnonzero(main[:-1] * main[1:] < 0):
        sides = large[max(i - 2, 0) : i + 1].any() and large[i + 1 : i + 4].any()
        part = main[i] / (main[i] - main[i + 1])
        here = float(((1 - part) * away[:, i] + part * away[:, i + 1]).std())
        if sides and here < min(MEETING * noise, SMALL * float(scatter.max())):
            points.append(float(energy[i] + part * (energy[i + 1] - energy[i])))
    return points


def _purest(rows: Floats, count: int, anchors: Floats) -> Floats:
    """Spectra to begin with: the anchors, then those of the series that are least like these."""
    spectra = [*anchors]
    if not spectra:
        spectra.append(rows[np.sum((rows - rows.mean(axis=0)) ** 2, axis=1).argmax()])
    while len(spectra) < count:
        origin = spectra[0]
        others = np.array([one - origin for one in spectra[1:]]).reshape(-1, rows.shape[1])
        away = rows - origin
        away = away - away @ np.linalg.pinv(others) @ others
        spectra.append(rows[np.sum(away**2, axis=1).argmax()])
    return np.array(spectra)


def _shares(rows: Floats, spectra: Floats) -> Floats:
    """Shares (n, c), not negative and of sum 1, that fit best.

    The best is the best of one face of the simplex, so all faces are tried, for all rows at once.
    """
    count = len(spectra)
    products, by_rows = spectra @ spectra.T, rows @ spectra.T
    best = np.full(len(rows), np.inf)
    shares = np.zeros((len(rows), count))
    for size in range(1, count + 1):
        for face in combinations(range(count), size):
            at = list(face)
            inverse = np.linalg.pinv(products[np.ix_(at, at)])
            free = by_rows[:, at] @ inverse
            along = inverse.sum(axis=1)
            step = (1 - free.sum(axis=1)) / along.sum()
            own = free + step[:, None] * along
            misfit = np.einsum("ij,jk,ik->i", own, products[np.ix_(at, at)], own)
            misfit -= 2 * np.sum(own * by_rows[:, at], axis=1)
            better = (own >= 0).all(axis=1) & (misfit < best)
            best[better] = misfit[better]
            shares[better] = 0.0
            shares[np.ix_(better, at)] = own[better]
    return shares


def _spectra(rows: Floats, shares: Floats, anchors: Floats, floor: float) -> Floats:
    """Spectra (c, m), not below `floor`, that fit best; the anchors are the first."""
    held = len(anchors)
    free = shares[:, held:]
    if free.shape[1] == 0:
        return anchors
    rest = rows - shares[:, :held] @ anchors
    spectra = np.linalg.pinv(free) @ rest
    for i in np.flatnonzero((spectra < floor).any(axis=0)):
        spectra[:, i] = nnls(free, rest[:, i] - floor * free.sum(axis=1))[0] + floor
    return np.concatenate([anchors, spectra])


def _band(shares: Floats, spectra: Floats, held: int, floor: float) -> tuple[Floats, Floats]:
    """Least and largest shares (n, c) of each component in turn, within the constraints.

    Any other answer as good is shares T and inverse(T) spectra, with the sum of each row of T 1;
    rows of T that belong to anchors are those of the identity.
    """
    count = len(spectra)
    low, high = shares.copy(), shares.copy()
    bounding = _bounding(shares)
    rows, columns = np.nonzero(~np.eye(count, dtype=bool))
    rows, columns = rows[rows >= held], columns[rows >= held]
    if not len(rows):
        return low, high
    least = np.minimum(bounding.min(axis=0), 0.0) - BELOW
    lowest = np.minimum(spectra.min(axis=1), floor)

    def turn(x: Floats) -> Floats:
        t = np.eye(count)
        t[rows, columns] = x
        t[np.arange(count), np.arange(count)] -= np.bincount(rows, x, count)
        return t

    def inside(x: Floats) -> Floats:
        t = turn(x)
        try:
            other = np.linalg.solve(t, spectra)
        except np.linalg.LinAlgError:
            return np.full(bounding.size + spectra.size, -1.0)
        return np.concatenate([(bounding @ t - least).ravel(), (other - lowest[:, None]).ravel()])

    mean = shares.mean(axis=0)
    for k in range(count):
        for sign in (1.0, -1.0):
            end = minimize(
                lambda x, k=k, sign=sign: sign * float(mean @ turn(x)[:, k]),
                np.zeros(len(rows)),
                method="SLSQP",
                constraints={"type": "ineq", "fun": inside},
                options={"maxiter": 100, "ftol": 1e-7},
            )
            if inside(end.x).min() > -BELOW:
                own = np.clip((shares @ turn(end.x))[:, k], 0.0, 1.0)
                low[:, k], high[:, k] = np.minimum(low[:, k], own), np.maximum(high[:, k], own)
    return low, high


def _bounding(shares: Floats) -> Floats:
    """Sweeps that bound what is possible: those with least and most of each component, and some."""
    each = max(BOUNDING // (4 * shares.shape[1]), 1)
    order = np.argsort(shares, axis=0)
    even = np.linspace(0, len(shares) - 1, BOUNDING // 2).astype(int)
    return shares[np.unique(np.concatenate([order[:each].ravel(), order[-each:].ravel(), even]))]
