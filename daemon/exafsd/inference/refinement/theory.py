"""How wrong a model may be: what errors of FEFF and the near edge do to what is fitted."""

import numpy as np

from exafsd.contract.card import TheoryErrors
from exafsd.spectra import Floats

#: Period of the slowest wave, 1/angstrom, and how many waves there are; where errors at low k end.
PERIOD, WAVES, LOW_K = 40.0, 3, 3.2
#: Directions in which a near edge can move fitted numbers: 2 1/angstrom of bonds up to 4 angstrom.
TAILS = 6


def error_shapes(k: Floats) -> Floats:
    """(8, m) what FEFF's errors are made of at k (m,), 1/angstrom.

    A constant, waves of periods 40, 20 and 13 1/angstrom (shorter ones would be structure), and
    what happens at low k only, where muffin-tin potentials fail.
    """
    waves = [f(2 * np.pi * j * k / PERIOD) for j in range(1, WAVES + 1) for f in (np.cos, np.sin)]
    return np.array([np.ones_like(k), *waves, np.exp(-((k / LOW_K) ** 2))])


def error_sizes(theory: TheoryErrors) -> Floats:
    """(8, 2) standard deviations of amplitude and phase for `error_shapes`."""
    return np.array([theory.constant, *[theory.smooth] * (2 * WAVES), theory.low])


def error_count(groups: int) -> int:
    """Errors of a model: of each group of paths and of all together, in amplitude and phase.

    Those of the near edge come last.
    """
    return 2 * (groups + 1) * (2 + 2 * WAVES) + TAILS


class TheoryModes:
    """What each of FEFF's errors does to the fitted numbers, half of it common to all groups.

    Parameters
    ----------
    matrix
        (l, m) from chi(k) at the points of the graph to what is fitted.
    k
        (m,) 1/angstrom.
    theory
        Of the card.
    tails
        (l, q) what the near edge may do to what is fitted, each of one sigma.
    """

    def __init__(self, matrix: Floats, k: Floats, theory: TheoryErrors, tails: Floats) -> None:
        self._k, self._theory, self._matrix, self.tails = k, theory, matrix, tails
        size = error_sizes(theory) / np.sqrt(2.0)
        shapes = error_shapes(k)
        # (2, m, l s): one product gives what each shape does to what is fitted
        self._by = np.stack(
            [
                (matrix[:, None, :] * (size[:, i, None] * shapes)).reshape(-1, len(k)).T
                for i in (0, 1)
            ]
        )
        self._rows = len(matrix)

    def stacked(self, other: "TheoryModes", scale: float) -> "TheoryModes":
        """Of what is fitted in two windows, the second's numbers times `scale`."""
        matrix, tails = (
            np.concatenate([one, scale * more])
            for one, more in ((self._matrix, other._matrix), (self.tails, other.tails))
        )
        return TheoryModes(matrix, self._k, self._theory, tails)

    def __call__(self, real: Floats, imag: Floats) -> Floats:
        """(b, l, e) for complex chi (b, m, g) of the groups, each for an error of one sigma."""
        parts = []
        # an amplitude's error changes chi in proportion to it, a phase's to its quadrature
        for by, wave in zip(self._by, (imag, real), strict=True):
            moved = np.swapaxes(wave, 1, 2) @ by  # (b, g, l s)
            moved = np.concatenate([moved, moved.sum(1, keepdims=True)], axis=1)
            b, g = moved.shape[:2]
            spread = moved.reshape(b, g, self._rows, -1).transpose(0, 2, 1, 3)
            parts.append(spread.reshape(b, self._rows, -1))
        parts.append(np.broadcast_to(self.tails, (len(real), *self.tails.shape)))
        return np.concatenate(parts, axis=-1)
