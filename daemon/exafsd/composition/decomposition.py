"""How many components a series of near edges has, by the sum of their products alone.

The eigenvectors of that sum are the singular vectors of the series, exactly, whatever it was added
up by; so it can go on for ever, and is as large after a million sweeps as after ten. What tells
nothing of a sample's composition is projected out before components are counted.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh

from exafsd.contract.grid import ETOK
from exafsd.spectra import Floats

#: Bins that are looked at, eV from the edge.
BELOW, ABOVE, BIN = -20.0, 60.0, 1.0
ENERGIES = np.arange(BELOW + BIN / 2, ABOVE, BIN)
#: k^2 of the bins, 1/angstrom^2, 0 below the edge.
K2 = ETOK * np.maximum(ENERGIES, 0.0)
#: How much louder than the mean of all the loudest bin may be.
UNEVEN = 1.5
#: Components are looked for up to this number.
MOST = 6
#: Quantile of the Tracy-Widom distribution (real noise) that noise passes in 1 of 1,000 cases.
TRACY_WIDOM = 3.27
#: Autocorrelation by one bin from which on a singular vector is a spectrum and not noise; that of
#: white noise is 0 with a standard deviation of 0.11.
SMOOTH = 0.4
#: Autocorrelation that what is left over may have by its noise at most.
ALIKE = 0.6
#: A component whose rms over sweeps and bins is less than this, of the edge step, does not count:
#: repeated scans of one compound differ by as much.
LEAST = 4e-4
#: A nuisance that the others explain up to this is none of its own.
DEPENDENT = 1e-3


@dataclass(frozen=True)
class Decomposition:
    """What a series of n near edges in m bins has in common.

    `by_noise` and `by_structure` are the number of components by two criteria. `mean` (m,) is the
    series' mean, `basis` (m, s) what tells nothing of its composition, orthonormal, and `axes`
    (m, c - 1) the singular vectors of the components beyond the first, orthogonal to it; c is the
    larger number. `left` is the rms of what is neither, of the edge step.
    """

    by_noise: int
    by_structure: int
    mean: Floats
    basis: Floats
    axes: Floats
    left: float

    def compare(self, flats: Floats) -> tuple[Floats, Floats]:
        """What is left of near edges (b, m), and how much they have of each axis.

        Returns
        -------
        squares, scores
            (b,) of what the series has not, and (b, c - 1) as rms of the edge step. Those of a row
            do not depend on the others in any bit.
        """
        away = flats - self.mean
        shares = np.einsum("bm,ms->bs", away, np.column_stack([self.basis, self.axes]))
        squares = np.einsum("bm,bm->b", away, away) - np.einsum("bs,bs->b", shares, shares)
        return squares, shares[:, self.basis.shape[1] :] / math.sqrt(len(self.mean))

    def rest(self, flat: Floats) -> Floats:
        """What a near edge (m,) has that the series has not (m,)."""
        rest = flat - self.mean
        rest = rest - self.basis @ (self.basis.T @ rest)
        return rest - self.axes @ (self.axes.T @ rest)

    def turned(self, before: "Decomposition | None") -> "Decomposition":
        """The same with axes that point as those before it did, so that scores go on."""
        axes = self.axes.copy()
        for i in range(axes.shape[1]):
            axis = axes[:, i]
            if before is not None and i < before.axes.shape[1]:
                along = float(axis @ before.axes[:, i])
            else:
                along = float(axis[np.abs(axis).argmax()])
            axes[:, i] = -axis if along < 0 else axis
        return replace(self, axes=axes)


def decompose(
    products: Floats, total: Floats, count: int, variance: float, repeated: int = 1
) -> Decomposition:
    """Count the components of a series.

    The first is its mean. A further one is a singular vector of what is left when the mean and all
    that tells nothing of the sample are projected out. By noise: its singular value is beyond the
    largest that the measured noise has in 1 of 1,000 such series (Johnstone, Ann. Stat. 29 (2001)
    295; the real error of Malinowski, Anal. Chem. 49 (1977) 612, with a stated rate of false
    alarms). By structure: it is a smooth spectrum, whatever the noise is (Shrager and Hendler,
    Anal. Chem. 54 (1982) 1147). That either alone miscounts is known (Manceau, Marcus and Lenoir,
    J. Synchrotron Rad. 21 (2014) 1140), so both are given.

    Parameters
    ----------
    products, total
        Sums of the outer products (m, m) and of the near edges (m,), normalised, in the bins of
        `ENERGIES`.
    count
        How many near edges.
    variance
        Of the noise of a bin, mean of all.
    repeated
        How many near edges share one sweep, as those of running averages do.
    """
    mean = total / count
    nuisances = [_unit(one) for one in _of_mean(mean)]
    axes: list[Floats] = []
    numbers = {"noise": 1, "structure": 1}
    counting = set(numbers)
    least = count * len(mean) * LEAST**2
    while True:
        basis = _orthonormal(nuisances)
        both = np.column_stack([basis, *axes])
        left = products - both @ (both.T @ products)
        left = left - (left @ both) @ both.T
        free = len(mean) - both.shape[1]
        rest = max(float(np.trace(left)), 0.0)
        if len(axes) + 1 >= MOST or not counting:
            break
        one = _candidate(left, rest, count, free)
        if one.size < least:
            break
        limit = UNEVEN * repeated * _largest_of_noise(count / repeated, free)
        if one.size < limit * variance:
            counting.discard("noise")
        if one.size < limit * one.others or one.smooth < SMOOTH:
            counting.discard("structure")
        if not counting:
            break
        for name in counting:
            numbers[name] += 1
        axes.append(one.vector)
        # a sweep with more of it is also shifted and hotter by more of it
        difference = _unit(products @ one.vector - mean * float(total @ one.vector))
        nuisances += [_across(_unit(one), axes) for one in _of_component(difference)]
    columns = np.array(axes).T if axes else np.zeros((len(mean), 0))
    return Decomposition(
        numbers["noise"], numbers["structure"], mean, basis, columns,
        math.sqrt(rest / (count * max(free, 1))),
    )  # fmt: skip


def _of_mean(flat: Floats) -> list[Floats]:
    """What tells nothing of a sample, about its near edge (m,).

    Offset, edge step and slopes of the normalisation; energy shift and resolution; over-absorption;
    heat, as damping (to second order, as it may be large) and as expansion.
    """
    damped = K2 * (flat - 1)
    return [
        np.ones_like(flat), flat, np.minimum(ENERGIES, 0.0), np.maximum(ENERGIES, 0.0),
        *_neighbours(flat, 2), flat * (1 - flat), damped, K2 * damped, K2 * np.gradient(flat, BIN),
    ]  # fmt: skip


def _of_component(difference: Floats) -> list[Floats]:
    """The same of what a component adds to it (m,): energy shift and heat."""
    return [*_neighbours(difference, 1), K2 * difference]


def _neighbours(flat: Floats, bins: int) -> list[Floats]:
    """Differences to itself some bins farther on either side.

    Any small shift, and a slightly other resolution, is a combination of these: a derivative alone
    is not good enough where an edge is hardly wider than a bin.
    """
    places = np.arange(len(flat))
    steps = [step for n in range(1, bins + 1) for step in (-n, n)]
    return [flat[np.clip(places + step, 0, len(flat) - 1)] - flat for step in steps]


def _unit(column: Floats) -> Floats:
    return column / max(float(np.linalg.norm(column)), 1e-300)


def _across(column: Floats, axes: list[Floats]) -> Floats:
    """Column without what it has of the components: those stay what they are."""
    for axis in axes:
        column = column - axis * float(axis @ column)
    return column


def _orthonormal(columns: list[Floats]) -> Floats:
    left, size, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return left[:, size > DEPENDENT]


class _Candidate(NamedTuple):
    """The largest component of what is left (m, m), and how loud the others are.

    `size` is its eigenvalue, `smooth` the autocorrelation of its `vector` (m,) by one bin, `others`
    the variance of a bin by what is neither this one nor the next, which may be one, too.
    """

    size: float
    vector: Floats
    smooth: float
    others: float


def _candidate(left: Floats, rest: float, count: int, free: int) -> _Candidate:
    """`rest` is the trace of `left`, of `count` spectra with `free` dimensions."""
    (following, size), (other, vector) = _largest(left)
    smooth, next_smooth = _alike(vector), _alike(other)
    others = max(rest - size - following, 1e-300)
    near = float(np.trace(left, offset=1)) - size * smooth - following * next_smooth
    # noise that is itself alike from bin to bin has larger eigenvalues
    alike = min(max(near / others, 0.0), ALIKE)
    others *= (1 + alike) / (1 - alike) / (max(count - 2, 1) * (free - 2))
    return _Candidate(size, vector, smooth, others)


def _largest(products: Floats) -> tuple[list[float], list[Floats]]:
    """The two largest eigenvalues of a symmetric matrix, the largest last, and their vectors."""
    last = len(products) - 1
    values, vectors = eigh(
        (products + products.T) / 2, subset_by_index=[last - 1, last], check_finite=False
    )
    columns: Any = vectors.T
    return values.tolist(), list(columns)


def _alike(vector: Floats) -> float:
    """Autocorrelation of a unit vector by one bin."""
    return float(vector[1:] @ vector[:-1])


def _largest_of_noise(count: float, free: int) -> float:
    """Largest eigenvalue of the products of white noise of variance 1, but for 1 in 1,000 cases."""
    a, b = math.sqrt(max(count - 1, 1.0)), math.sqrt(max(free, 1))
    return (a + b) ** 2 + TRACY_WIDOM * (a + b) * (1 / a + 1 / b) ** (1 / 3)
