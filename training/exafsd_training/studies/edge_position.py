"""Where a material has its zero of energy, from measured spectra of it, for the card of a bundle.

What the network reads as E0 is counted from the middle of the edge, so that it holds for other
monochromators and for spectra in which noise moves Larch's E0. The refinement, which alone would
mistake an error of FEFF's phases for a shift of E0, takes it for what is known.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from exafsd.contract import CARD_FILE, Card
from exafsd.contract.card import EdgePosition
from exafsd.contract.grid import rows_to_grid
from exafsd.inference.crystal_fit import CrystalFit
from exafsd.inference.registry import Bundle, load_bundle
from exafsd.reduction.edge_middle import edge_middle
from exafsd.reduction.edges import edge_energy
from exafsd.reduction.transform import fit_weight
from exafsd.spectra import Floats, ReducedSpectrum
from exafsd_training.reference.feffit import reduce_file

#: Standard deviation, eV, of E0 in another spectrum of the material: what fits of one compound
#: from several beamlines scatter by, and what strain and charge move it by.
ZERO_STD = 1.0


def measure_position(bundle: Bundle, files: Sequence[Path]) -> EdgePosition:
    """Place the material's zero of energy.

    Parameters
    ----------
    bundle
        The model.
    files
        Measured mu(E) of the material, XDI.

    Raises
    ------
    ValueError
        If none of the files shows an edge and is long enough.
    """
    card = bundle.card
    edge = edge_energy(card.absorber, card.edge)
    place = [parameter.name for parameter in card.parameters].index("e0_shift")
    e0, zero = [], []
    for file in files:
        reduced = reduce_file(file, card.recipe)
        middle = edge_middle(reduced.energy, reduced.norm, edge)
        end = reduced.k_data[1]
        if middle is None or end < card.thresholds.k_max_min:
            continue
        theta = _read(bundle, reduced)
        if np.isfinite(theta[place]):
            e0.append(reduced.e0 - middle)
            zero.append(reduced.e0 + theta[place] - middle)
    if not zero:
        raise ValueError("no spectrum shows an edge and is long enough for the model")
    return EdgePosition(
        e0=round(float(np.median(e0)), 2),
        zero=round(float(np.median(zero)), 2),
        zero_std=ZERO_STD,
        source=", ".join(sorted(file.name for file in files)),
    )


def _read(bundle: Bundle, reduced: ReducedSpectrum) -> Floats:
    """Parameters (p,) of a spectrum by the bundle's network or, where it has none, by its fit."""
    card, end = bundle.card, reduced.k_data[1]
    if bundle.predictor is not None:
        rows, mask = rows_to_grid(reduced.chi[None], card.k_grid.k_min, end)
        return bundle.predictor.predict(rows, mask[None])[0].theta
    assert bundle.waves is not None  # a card without a network is refused without this graph
    rows, _ = rows_to_grid(reduced.chi[None], 0.0, end)
    fit = CrystalFit(card, bundle.waves, bundle.equation, fit_weight)
    return fit(rows, end, [reduced.epsilon_k], [None])[0].theta


def place_edge(folder: Path, files: Sequence[Path]) -> None:
    """Write into the card of a bundle where its material has E0 and FEFF's zero of energy."""
    position = measure_position(load_bundle(folder), files)
    card = Card.model_validate_json((folder / CARD_FILE).read_text())
    placed = card.model_copy(update={"edge_position": position})
    (folder / CARD_FILE).write_text(placed.model_dump_json(by_alias=True, indent=1) + "\n")
    Console().print(
        f"{folder}: E0 is {position.e0:+.2f} eV and FEFF's zero {position.zero:+.2f} eV from where"
        f" mu has risen by half the edge step ({len(files)} spectra)"
    )
