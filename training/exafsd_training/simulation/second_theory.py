"""A second theory for simulated spectra: the same paths with the scattering of another FEFF run.

Spectra made from the tables that a network is trained on flatter it: what FEFF itself gets wrong
is in none of them. Potentials made self-consistent, with the same paths, are a second opinion,
and how far the two are apart says about how much to believe of either.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from exafsd_training.theory.paths import (
    Floats,
    PathTable,
    ScatteringPath,
    read_paths,
    value,
    with_momentum,
    with_origin,
)
from exafsd_training.theory.structures import Crystal, FeffSetup, run_feff

#: FEFF leaves out fewer weak paths than by default: those of the first run are wanted.
CRITERIA = (1.0, 0.5)
#: Self-consistent potentials of the nearest shells; training takes overlapped atomic ones.
SECOND = FeffSetup(scf_radius=4.0, criteria=CRITERIA)
#: Absorber in its ground state: farther off than any screening of the core hole could be.
NO_HOLE = FeffSetup(core_hole=False, criteria=CRITERIA)
#: Paths are the same if all distances between their atoms agree to this, angstrom.
SAME = 1e-3
#: k of the comparison of two theories, 1/angstrom, as of the reference fits.
FIT_K = (3.0, 14.0)
#: sigma2 of the spectra that are compared where two origins are brought together, angstrom^2.
USUAL_SIGMA2 = 0.006


def second_table(
    crystal: Crystal,
    absorber: str,
    edge: str,
    out: Path,
    table: PathTable,
    setup: FeffSetup | None = None,
) -> PathTable:
    """The paths of `table`, one by one, with the scattering of another FEFF run.

    Paths that the other run lacks keep their own scattering. E0 means what it means with
    `table`: each run counts energies from its own Fermi level, several eV apart, and the second
    is moved to where the nearest shell fits the first best.

    Parameters
    ----------
    crystal, absorber, edge, out
        As for `exafsd_training.theory.structures.run_feff`.
    table
        Paths of the first run.
    setup
        Of the second; `SECOND` by default.
    """
    return matched_table(crystal, absorber, edge, out, table, setup or SECOND)[0]


def matched_table(
    crystal: Crystal, absorber: str, edge: str, out: Path, table: PathTable, setup: FeffSetup
) -> tuple[PathTable, int, float]:
    """Second table, how many of the paths the run has, and how far it was moved in eV."""
    other = read_paths(run_feff(crystal, absorber, edge, out, setup))
    pairs = match(table, other)
    paths = tuple(
        replace(path, cubics=other.paths[pairs[i]].cubics)
        if i in pairs
        else with_momentum(path, table.momentum, other.momentum)
        for i, path in enumerate(table.paths)
    )
    second = PathTable(paths, other.momentum)
    shift = origin(table, second)
    return with_origin(second, shift), len(pairs), shift


def match(table: PathTable, other: PathTable) -> dict[int, int]:
    """Which path of `other` is which of `table`: the same atoms at the same distances.

    A path may be turned, mirrored or reversed in the other run; all of these scatter the same.
    """
    left = list(range(len(other)))
    partners = {}
    for i, path in enumerate(table.paths):
        for j in left:
            if _same(path, other.paths[j]):
                partners[i] = j
                left.remove(j)
                break
    return partners


def _same(one: ScatteringPath, other: ScatteringPath) -> bool:
    if (
        one.nleg != other.nleg
        or abs(one.reff - other.reff) > SAME
        or abs(one.degeneracy - other.degeneracy) > SAME
    ):
        return False
    forward = tuple(range(one.nleg))
    own, theirs = _distances(one), _distances(other)
    return any(
        one.atoms == tuple(other.atoms[i] for i in order)
        and np.allclose(own, theirs[np.ix_(order, order)], atol=SAME)
        for order in (forward, (0, *reversed(forward[1:])))
    )


def _distances(path: ScatteringPath) -> Floats:
    """(nleg, nleg) distances between the atoms of a path, angstrom."""
    return np.linalg.norm(path.positions[:, None] - path.positions[None], axis=-1)


def origin(table: PathTable, other: PathTable) -> float:
    """By what to move the zero of energy of `other`, eV, for the best fit of the nearest path.

    R, N and sigma2 of the fit are free, as they would be in a fit of a spectrum.
    """
    nearest = next(i for i, path in enumerate(table.paths) if path.nleg == 2)
    k = np.arange(*FIT_K, 0.1)
    own = _wave(PathTable((table.paths[nearest],), table.momentum), k)
    theirs = PathTable((other.paths[nearest],), other.momentum)
    # FEFF's phases may be off by whole turns
    damped = k**2 * np.exp(-2 * k**2 * USUAL_SIGMA2)

    def misfit(x: Floats) -> Floats:
        shift, deltar, amplitude, sigma2 = x * (1.0, 0.01, 1.0, 0.001)
        moved = np.exp(amplitude - 2 * k**2 * sigma2 + 2j * k * deltar)
        rest = damped * (_wave(with_origin(theirs, float(shift)), k) * moved - own)
        return np.concatenate([rest.real, rest.imag])

    return float(least_squares(misfit, np.zeros(4)).x[0])


def _wave(table: PathTable, k: Floats) -> Floats:
    """Complex chi (m,) of the first path but for exp(2 i k R) and constants."""
    path = table.paths[0]
    phase, amplitude, length = (
        value(cubic, k) for cubic in (path.cubics[:, 0], path.cubics[:, 1], table.momentum[:, 1])
    )
    return amplitude / k * np.exp(1j * phase - 2 * path.reff / length)
