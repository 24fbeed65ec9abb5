"""The comparison of predicted, filtered and polished spectra."""

import numpy as np

from exafsd.contract import K_GRID
from exafsd_training.reference.feffit import GivenChi
from exafsd_training.studies import denoise as module
from exafsd_training.studies.denoise import distance, fourier_filtered, window_in_k


def wave(r: float) -> np.ndarray:
    return np.sin(2 * K_GRID * r) * np.exp(-((K_GRID / 12) ** 2))


def test_filter_keeps_what_is_in_its_range() -> None:
    window, ones = window_in_k(14.0), np.ones_like(K_GRID)
    inside, outside = wave(2.2), wave(7.0)
    filtered = fourier_filtered(inside + outside, 14.0, (1.0, 4.0))
    assert distance(filtered, inside * window, ones) < 0.2
    assert distance(filtered, (inside + outside) * window, ones) > 0.6


def test_repeats_are_told_by_their_names() -> None:
    one = GivenChi(K_GRID, wave(2.0), (0.0, 12.0))
    names = ["Zn_Scan1_x.dat", "Zn_Scan2_y.dat", "Zn_Scan3_z.dat", "foil_01.xdi", "foil_02.xdi"]
    assert {k: len(v) for k, v in module._repeats(dict.fromkeys(names, one)).items()} == {
        "Zn_Scan*": 3
    }
