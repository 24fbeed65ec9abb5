"""Where mu has risen by half the edge step: an energy that noise hardly moves.

Larch's E0 is the steepest point, and where two are about as steep, as in CuO, noise decides which.
The middle of the edge is one place for a material. It is found with ranges in energy that are
absolute, so that it does not depend on an E0, and does not change if mu is scaled or gets a line.
"""

import numpy as np

from exafsd.spectra import Floats

#: Ranges of the lines below and above the edge, eV from the tabulated edge.
PRE, POST = (-200.0, -25.0), (45.0, 400.0)
#: Least points of a line, and how far beyond the edge a scan must go, eV.
POINTS, REACH = 3, 100.0
#: Where the middle is looked for, eV from the tabulated edge, in means over so many eV.
NEAR, MEAN = np.arange(-45.0, 45.0, 0.5), 5.0


def edge_middle(energy: Floats, mu: Floats, edge: float) -> float | None:
    """Energy in eV at which mu has risen by half the edge step; None where no scan shows it.

    Parameters
    ----------
    energy, mu
        (n,) eV, ascending, and absorption in any unit, normalised or not.
    edge
        Tabulated energy of the edge, eV.
    """
    risen = rise(energy, mu, edge)
    if risen is None:
        return None
    here = slice(*np.searchsorted(energy, (edge + NEAR[0] - MEAN, edge + NEAR[-1] + MEAN)))
    x, y = energy[here] - edge, risen[here]
    if len(x) < 2 * POINTS:
        return None
    total = np.zeros(len(x))
    np.cumsum(0.5 * (y[1:] + y[:-1]) * np.diff(x), out=total[1:])
    at = NEAR[(x[0] <= NEAR - MEAN / 2) & (x[-1] >= NEAR + MEAN / 2)]
    means = (np.interp(at + MEAN / 2, x, total) - np.interp(at - MEAN / 2, x, total)) / MEAN
    above = np.flatnonzero(means > 0.5)
    if not len(above) or above[0] == 0:
        return None
    last, first = above[0] - 1, above[0]
    part = (0.5 - means[last]) / (means[first] - means[last])
    return float(edge + at[last] + part * (at[first] - at[last]))


def rise(energy: Floats, mu: Floats, edge: float) -> Floats | None:
    """Mu (n,) without the line below the edge, over the edge step; None where there is none.

    Parameters
    ----------
    energy, mu, edge
        As for `edge_middle`.
    """
    before = slice(*np.searchsorted(energy, (edge + PRE[0], edge + PRE[1])))
    after = slice(*np.searchsorted(energy, (edge + POST[0], edge + POST[1])))
    if energy[-1] < edge + REACH or min(len(energy[before]), len(energy[after])) < POINTS:
        return None
    x = energy - edge
    bottom, top = (line(x[part], mu[part]) for part in (before, after))
    step = top[0] - bottom[0]
    return (mu - bottom[0] - bottom[1] * x) / step if step > 0 else None


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Value at 0 and slope of the line through points (n,), each for the width it stands for.

    Else a scan with many points near the edge would be normalised otherwise than one without: the
    middle of CuO's edge moved by 0.3 eV with the grid.
    """
    width = np.gradient(x)
    centre, mean = np.average(x, weights=width), np.average(y, weights=width)
    away = x - centre
    slope = float((width * away) @ (y - mean) / ((width * away) @ away))
    return float(mean) - slope * float(centre), slope
