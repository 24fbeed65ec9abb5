"""Arrays of a fixed length that a shorter sweep has not filled."""

from collections.abc import Mapping

import numpy as np

from exafsd.contract.vocabulary import Flag
from exafsd.spectra import Floats


def without_padding(
    energy: Floats, signals: Mapping[str, Floats]
) -> tuple[Floats, dict[str, Floats], tuple[Flag, ...]]:
    """Columns without an end that is NaN or zero in all of them, and a flag where there was one.

    Parameters
    ----------
    energy, signals
        (n,); columns that differ in length are left as they are.
    """
    columns = [energy, *signals.values()]
    if energy.ndim != 1 or len({column.shape for column in columns}) > 1 or len(columns) < 2:
        return energy, dict(signals), ()
    if energy.size == 0 or (np.isfinite(energy[-1]) and energy[-1] != 0):
        return energy, dict(signals), ()
    empty = np.all([~np.isfinite(column) | (column == 0) for column in columns], axis=0)
    filled = np.flatnonzero(~empty)
    end = int(filled[-1]) + 1 if filled.size else 0
    if end in (0, energy.size):
        return energy, dict(signals), ()
    return energy[:end], {name: array[:end] for name, array in signals.items()}, (Flag.PADDED,)
