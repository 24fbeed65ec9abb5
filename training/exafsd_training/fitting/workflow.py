"""From a crystal structure to a trained model in its folder."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from exafsd.contract import Recipe, to_grid
from exafsd_training.fitting.calibrate import HeldOutSpectra, calibrate
from exafsd_training.fitting.detector import ROUGH, Examples, learn
from exafsd_training.fitting.fit import Data, Settings, build, save, start_field, train
from exafsd_training.fitting.model_folder import MODEL, SUMMARY, TABLE, WEIGHTS, SimulationInputs
from exafsd_training.fitting.plots import plot_history, plot_parity, plot_spectra
from exafsd_training.fitting.stages import on_terminal
from exafsd_training.model.encoder import Encoder
from exafsd_training.model.network import Pinn
from exafsd_training.reference.feffit import Chi, reduce_file
from exafsd_training.simulation import other_phases, second_theory
from exafsd_training.simulation.instrument import Atom, instrument_pool
from exafsd_training.simulation.other_phases import other_phase_spectra
from exafsd_training.simulation.second_theory import second_table
from exafsd_training.simulation.simulate import (
    K_MIN,
    REFF_MAX,
    Pool,
    clean_spectra,
    direct_pool,
    sample,
)
from exafsd_training.theory.parametrisation import default_window, parametrise
from exafsd_training.theory.paths import read_paths, save_table
from exafsd_training.theory.priors import Priors
from exafsd_training.theory.shells import group_shells
from exafsd_training.theory.structures import (
    STANDARD,
    Crystal,
    FeffSetup,
    from_amcsd,
    from_cif,
    run_feff,
    running_ahead,
)
from exafsd_training.zoo.configurations import ModelConfig

console = Console(stderr=True)

#: Seconds that the stages of `fit_model` take besides training, in their order.
EXPECTED = {
    "FEFF": 10.0, "simulation": 90.0, "training": 0.0, "detector of other phases": 60.0,
    "held-out spectra": 30.0, "calibration": 30.0, "figures": 5.0,
}  # fmt: skip


def chosen_crystal(cif: list[Path] | None, amcsd: list[int] | None, site: int = 1) -> Crystal:
    """The one structure named on the command line."""
    structures = [from_cif(path, site) for path in cif or []]
    structures += [from_amcsd(id_, site) for id_ in amcsd or []]
    if len(structures) != 1:
        raise SystemExit("give exactly one --cif or --amcsd: several phases are not trained yet")
    return structures[0]


def list_paths(crystal: Crystal, absorber: str, edge: str, out: Path) -> None:
    """Run FEFF and print shells and paths."""
    table = read_paths(run_feff(crystal, absorber, edge, out))
    shown = Table(
        "file", "path", "degeneracy", "shell", title=f"{crystal.formula}, {absorber} {edge}"
    )
    shell_of = {i: str(shell.number) for shell in group_shells(table) for i in shell.paths}
    for i, path in enumerate(table.paths):
        shown.add_row(path.file, path.label, f"{path.degeneracy:g}", shell_of.get(i, ""))
    Console().print(shown)


def fit_model(
    crystal: Crystal,
    absorber: str,
    edge: str,
    name: str,
    out: Path,
    settings: Settings,
    workers: int = 1,
    unlabelled: list[Path] | None = None,
    config: ModelConfig | None = None,
    encoder: Path | None = None,
) -> None:
    """Simulate, train, calibrate, plot; everything ends up in `out`.

    A configuration decides the phase's name, the fit window and the priors; without one they
    follow from the structure. The network starts from the encoder in a file, or from scratch.
    """
    expected = EXPECTED | {"training": 60 * settings.minutes}
    with on_terminal(expected, console) as stages, ExitStack() as later:
        stages.begin("FEFF")
        inputs = prepare_simulation(crystal, absorber, edge, name, out, settings, config)
        feff_done = later.enter_context(running_ahead(_later_runs(inputs, crystal), out))
        stages.begin("simulation")
        data = simulated_data(inputs, settings, out, workers, stages.report)
        stages.begin("training")
        model = build(inputs.parametrisation, data.direct, settings)
        if encoder:
            Encoder.load(encoder).start(model, inputs.parametrisation)
            start_field(model, data, settings)
        measured = as_inputs([reduce_file(file, Recipe()) for file in unlabelled or []])

        def report(share: float, losses: dict[str, float]) -> None:
            names = ("data", "theta", "exafs_equation")
            shown = " ".join(f"{n} {losses[f'validation/{n}']:.3g}" for n in names if n in losses)
            stages.report(share, shown)

        summary = train(model, data, settings, out, measured if unlabelled else None, report)
        stages.begin("detector of other phases")
        feff_done()
        learn_detector(model, inputs, data, crystal, out, settings, stages.report)
        stages.begin("held-out spectra")
        held = held_out(inputs, crystal, out, settings.seed + 2, settings.held_out, workers)
        stages.begin("calibration")
        calibrated = calibrate(model, inputs.parametrisation, held, stages.report)
        save(out / WEIGHTS, model)
        summary |= {
            "spectra": int(summary["steps"]) * settings.batch,
            "through_instrument": settings.through_instrument,
            "calibration": asdict(calibrated),
        }
        (out / SUMMARY).write_text(json.dumps(summary, indent=1))
        stages.begin("figures")
        plot_history(out)
        plot_spectra(model, data.validation_instrument, out)
        plot_parity(model, inputs.parametrisation, data.validation_instrument, out)
    console.print(
        f"{out}: {summary['epochs']} epochs, limit of the out-of-domain score"
        f" {calibrated.ood_limit:.3g}"
    )


def _later_runs(
    inputs: SimulationInputs, crystal: Crystal
) -> list[tuple[Crystal, str, str, FeffSetup]]:
    """FEFF runs of the stages after training: other phases, and the second theory."""
    own = (crystal, inputs.atom.absorber, inputs.atom.edge, second_theory.SECOND)
    phases = other_phases.others(crystal)
    return [*((c.crystal(), c.absorber, c.edge, STANDARD) for c in phases), own]


def learn_detector(
    model: Pinn,
    inputs: SimulationInputs,
    data: Data,
    crystal: Crystal,
    out: Path,
    settings: Settings,
    report: Callable[[float, str], None],
) -> None:
    """Train the detector of other phases of a trained network; their FEFF runs end up in `out`."""
    rng = np.random.default_rng((settings.seed, 4))
    n, what = settings.detector_examples, (inputs.parametrisation, inputs.table)
    own = clean_spectra(sample(rng, n, *what, rough=ROUGH), *what)
    examples = Examples(own, other_phase_spectra(crystal, out, n, settings.seed + 5))
    learn(model, data, examples, settings, lambda share, loss: report(share, f"{loss:.3g}"))


def _portable(arguments: list[str]) -> list[str]:
    """Arguments without the folders of this machine."""
    return [Path(argument).name if "/" in argument else argument for argument in arguments]


def prepare_simulation(
    crystal: Crystal,
    absorber: str,
    edge: str,
    name: str,
    out: Path,
    settings: Settings,
    config: ModelConfig | None,
) -> SimulationInputs:
    """Run FEFF and decide on the parameters; `out` gets the facts that make the model."""
    out.mkdir(parents=True, exist_ok=True)
    feff = run_feff(crystal, absorber, edge, out)
    table = read_paths(feff).within(REFF_MAX)
    save_table(table, out / TABLE)
    phase = config.phase if config else crystal.formula.replace(" ", "")
    window = config.fit if config else default_window(phase, group_shells(table)[0].reff)
    priors = config.priors if config else Priors()
    parametrisation = parametrise(phase, table, window, priors)
    facts = {
        "name": name, "absorber": absorber, "edge": edge, "crystal": asdict(crystal),
        "feff": feff.name, "settings": asdict(settings), "phase": phase,
        "window": window.model_dump(), "priors": asdict(priors),
        "edge_shift": config.edge_shift if config else None,
        "command": "exafsd-train " + shlex.join(_portable(sys.argv[1:])),
    }  # fmt: skip
    (out / MODEL).write_text(json.dumps(facts, indent=1))
    return SimulationInputs(parametrisation, table, Atom(absorber, edge))


def simulated_data(
    inputs: SimulationInputs,
    settings: Settings,
    out: Path,
    workers: int,
    report: Callable[[float], None] = lambda share: None,
) -> Data:
    """Both pools, from their files where an earlier run left them."""
    key = f"{settings.seed}-{settings.direct_spectra}-{settings.instrument_spectra}"
    files = [out / f"{kind}-{key}.npz" for kind in ("direct", "instrument")]
    what = inputs.parametrisation, inputs.table
    if not files[0].exists():
        direct_pool(settings.seed, settings.direct_spectra, *what).save(files[0])
    if not files[1].exists():
        instrument_pool(
            settings.seed + 1, settings.instrument_spectra, *what, inputs.atom, workers,
            lambda done: report(done / settings.instrument_spectra),
        ).save(files[1])  # fmt: skip
    return Data.split(*map(Pool.load, files), settings.validation)


def held_out(
    inputs: SimulationInputs, crystal: Crystal, out: Path, seed: int, spectra: int, workers: int
) -> HeldOutSpectra:
    """Path sums, and a third of the spectra through the whole instrument.

    These are made with the second theory of `exafsd_training.simulation.second_theory`, whose FEFF
    run is below `out`: spectra of the training's own theory would flatter the network.
    """
    through = spectra // 3
    second = second_table(crystal, inputs.atom.absorber, inputs.atom.edge, out, inputs.table)
    return HeldOutSpectra.of(
        direct_pool(seed, spectra - through, inputs.parametrisation, inputs.table),
        instrument_pool(
            seed + 1, through, inputs.parametrisation, second, inputs.atom, workers, quiet=True
        ),
    )


def as_inputs(spectra: Sequence[Chi]) -> tuple[np.ndarray, np.ndarray]:
    """k^2 chi on the contract grid and masks, (n, 401) each."""
    pairs = [to_grid(s.k, s.chi, K_MIN, s.k_data[1]) for s in spectra]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
