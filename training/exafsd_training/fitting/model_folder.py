"""The folder of a trained model, and the model in memory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from pydantic import TypeAdapter

from exafsd.contract.recipe import FitWindow
from exafsd_training.fitting.fit import CHECKPOINT, Settings, load
from exafsd_training.model.losses import Weights
from exafsd_training.model.network import Pinn, Sizes
from exafsd_training.simulation.instrument import Atom
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import Floats, PathTable, load_table
from exafsd_training.theory.priors import Priors
from exafsd_training.theory.structures import Crystal

MODEL, WEIGHTS, TABLE, SUMMARY = "model.json", "model.npz", "paths.npz", "summary.json"


@dataclass(frozen=True)
class Model:
    """A trained model in memory, with the facts that go into its card."""

    name: str
    absorber: str
    edge: str
    crystal: Crystal
    feff_folder: Path
    parametrisation: Parametrisation
    settings: Settings
    window: FitWindow
    #: Larch's E0 of the material less the tabulated edge, eV, where it is known
    edge_shift: float | None
    network: Pinn
    summary: dict

    def equation(self, theta: Floats) -> tuple[Floats, Floats]:
        """Chi (n, 401) of theta (n, p) and its derivatives (n, 401, p), as the polish takes it."""
        chi, slopes = self.network.equation.chi_and_jacobian(tf.constant(theta, tf.float32))
        return chi.numpy(), slopes.numpy()


@dataclass(frozen=True)
class SimulationInputs:
    """What spectra of a material are simulated from: parameters, all paths, and the edge."""

    parametrisation: Parametrisation
    table: PathTable
    atom: Atom

    @classmethod
    def of(cls, model: "Model", folder: Path) -> "SimulationInputs":
        """That of a trained model in its folder."""
        atom = Atom(model.absorber, model.edge)
        return cls(model.parametrisation, load_table(folder / TABLE), atom)


def write_rows(rows: Sequence[Any], file: Path) -> None:
    """Write what a study has found, a row an entry of the JSON list."""
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def load_model(folder: Path) -> Model:
    """A model that `fit_model` wrote."""
    facts = json.loads((folder / MODEL).read_text())
    table = load_table(folder / TABLE)
    raw = facts["settings"]
    sizes = Sizes(tuple(raw["sizes"]["encoder"]), raw["sizes"]["basis"])
    settings = Settings(**(raw | {"sizes": sizes, "weights": Weights(**raw["weights"])}))
    crystal = Crystal(**facts["crystal"])
    window = FitWindow(**facts["window"])
    priors = TypeAdapter(Priors).validate_python(facts["priors"])
    parametrisation = parametrise(facts["phase"], table, window, priors)
    weights = folder / (WEIGHTS if (folder / WEIGHTS).exists() else CHECKPOINT)
    summary = folder / SUMMARY
    return Model(
        name=facts["name"],
        absorber=facts["absorber"],
        edge=facts["edge"],
        crystal=crystal,
        feff_folder=folder / facts["feff"],
        parametrisation=parametrisation,
        settings=settings,
        window=window,
        edge_shift=facts["edge_shift"],
        network=load(weights, parametrisation, settings),
        summary=(json.loads(summary.read_text()) if summary.exists() else {})
        | {"command": facts["command"]},
    )
