"""A bundle from a crystal structure alone: spectra are read by fitting, without training.

FEFF, paths, shells and priors as of a trained model, the graphs of its equation, and a card that
says how to fit. Error bars are calibrated on simulated spectra of the same crystal, fitted by what
the daemon runs.
"""

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from exafsd._version import __version__
from exafsd.contract import (
    CARD_FILE,
    EQUATION_FILE,
    REFINEMENT_FILE,
    Card,
    Recipe,
    file_sha256,
)
from exafsd.contract.card import (
    FIT_SCHEMA,
    Calibration,
    FitReading,
    KGrid,
    Prior,
    Structure,
    Thresholds,
)
from exafsd.contract.recipe import FitWindow
from exafsd.inference.registry import load_bundle, read_card
from exafsd_export.bundle import parameter_batches
from exafsd_export.convert import convert, equation_function, refinement_function
from exafsd_export.error_bars import ErrorBars, calibrate
from exafsd_export.prove import prove
from exafsd_training.fitting.card import versions
from exafsd_training.simulation.refinement import RefinementGraph, refinement_of
from exafsd_training.simulation.second_theory import second_table
from exafsd_training.simulation.simulate import K_MIN
from exafsd_training.theory.equation import Equation
from exafsd_training.theory.parametrisation import Parametrisation, default_window, parametrise
from exafsd_training.theory.paths import PathTable, read_paths
from exafsd_training.theory.priors import FAR_LIGANDS, FAR_OTHERS, Priors
from exafsd_training.theory.shells import SHELL_RESOLUTION, group_shells
from exafsd_training.theory.structures import Crystal, FeffSetup, run_feff

#: Distances within this are one shell of a compound, angstrom: an octahedron of hematite has three
#: oxygens at 1.95 and three at 2.12, and nobody's data say more than their mean and its spread.
RESOLUTION = 0.3
#: The farthest end of a fit window in R, angstrom, and how far before the distance of the last
#: shell it is. FEFF's phases are less and less right for farther shells. A shell's peak stands 0.3
#: to 0.5 angstrom before its distance: an end 0.2 beyond it lets in half of the next shell, which
#: the model does not have. At 10 K that was a quarter of As2O3's misfit.
WIDEST, BEFORE_SHELL = 5.5, 0.15
#: Where fit windows begin at least, angstrom: below, the background has taken what was there.
NEAREST = Recipe().autobk.rbkg
#: Farthest paths of simulated spectra, angstrom.
REFF_MAX = 7.0
#: Where fits begin, and what E0 is likely to be, eV, from Larch's E0: in 20 materials of the XAS
#: Data Library it is 0 to 9 but for white lines (As2O3, chromates: to 15).
E0_STARTS, E0_PRIOR = (-8.0, -1.0, 6.0, 13.0), (4.5, 4.5)
#: A bound at 15 eV cuts white lines short: that of As2O3 is at 15.3.
E0_BOUNDS = (-15.0, 20.0)
#: Share of the signal that is taken for misfit. Larger by far than FEFF's error of a first shell
#: in a metal (0.001), smaller than that of a fourth shell in an oxide.
FLOOR = 0.02
#: Weight of all shells beside the nearest's window, in compounds and in elements. With less, N and
#: R of oxides follow the ripple of the next shell; with more, those of bcc metals follow FEFF's
#: phases of farther ones: R of iron is +0.019 angstrom off at 1, +0.002 at 0.1, -0.004 at 0.03
#: (independent simulation).
WHOLE_WEIGHT = (1.0, 0.1)
#: Largest R-factor that is not noise: a wrong structure has 0.1 and more in a window of several
#: shells (of 28 structures on the spectra of their edges in the XAS Data Library).
MISFIT, MISFIT_FLAGGED = 0.1, 0.05
#: R off the crystal's, angstrom, and N S0^2 over N: flagged, and withheld.
R_OFF, N_RATIO = (0.03, 0.1), ((0.65, 1.2), (0.6, 1.4))
E0_FLAGGED = 8.5
#: Shortest data, 1/angstrom.
K_MAX_MIN = 6.0
#: The theory that error bars are set by beside the model's own: an atom in its ground state is as
#: far off as FEFF can be.
OTHER_THEORY = FeffSetup(core_hole=False)


@dataclass(frozen=True)
class Material:
    """What a bundle is made for."""

    crystal: Crystal
    absorber: str
    edge: str
    name: str


def make_quick(
    material: Material,
    out: Path,
    work: Path | None = None,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Card:
    """Make a bundle that is read by fitting.

    Parameters
    ----------
    material
        Crystal, edge and name.
    out
        Bundle folder; only touched when everything has been proven.
    work
        Folder for the run of FEFF, which is found again there; by default a temporary one.
    report
        Called with what is being done and the share that is done.

    Raises
    ------
    exafsd_training.theory.structures.StructureError
        If FEFF cannot be run on the structure.
    exafsd_export.prove.NotEqualError
        If ONNX and TensorFlow disagree.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report("FEFF", 0.0)
        runs = work or Path(temporary)
        folder = run_feff(material.crystal, material.absorber, material.edge, runs)
        table = read_paths(folder).within(REFF_MAX)
        report("graphs", 0.3)
        bundle = Path(temporary, material.name)
        wide = write_uncalibrated(material, table, bundle, report)
        report("calibrating", 0.8)
        other = second_table(
            material.crystal, material.absorber, material.edge, runs, table, OTHER_THEORY
        )
        card = _calibrated(bundle, calibrate(bundle, wide, table, other))
        load_bundle(bundle)
        out.mkdir(parents=True, exist_ok=True)
        # the card last: a daemon that watches the folder takes up what is complete
        for name in (EQUATION_FILE, REFINEMENT_FILE, CARD_FILE):
            temporary_file = out / f".{name}"
            temporary_file.write_bytes((bundle / name).read_bytes())
            temporary_file.replace(out / name)
    report("done", 1.0)
    return card


def write_uncalibrated(
    material: Material,
    table: PathTable,
    folder: Path,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Parametrisation:
    """Write graphs and a card whose error bars are those of the fit; return its parameters.

    Parameters
    ----------
    material
        Crystal, edge and name.
    table
        Paths of FEFF.
    folder
        Of the bundle, made if it is missing.
    report
        As for `make_quick`.
    """
    par = parametrisation(material.crystal, table)
    wide = replace(par, window=fit_window(par))
    folder.mkdir(exist_ok=True)
    _write_graphs(folder, material.name, wide, report)
    _write(_card(material, par, wide, folder), folder)
    return wide


def parametrisation(crystal: Crystal, table: PathTable) -> Parametrisation:
    """Parameters of a crystal, with E0 as it is likely about Larch's."""
    phase = crystal.formula.replace(" ", "")
    element = is_element(table)
    resolution = SHELL_RESOLUTION if element else RESOLUTION
    priors = Priors() if element else Priors(far=(FAR_LIGANDS, FAR_OTHERS))
    window = default_window(phase, group_shells(table, resolution)[0].reff)
    par = parametrise(phase, table, window, priors, resolution)
    window = window.model_copy(update={"r": (max(window.r[0], NEAREST), window.r[1])})
    prior = Prior(kind="normal", mean=E0_PRIOR[0], std=E0_PRIOR[1])
    e0 = {"prior": prior, "bounds": E0_BOUNDS}
    parameters = tuple(
        p.model_copy(update=e0) if p.name == "e0_shift" else p for p in par.parameters
    )
    return replace(par, parameters=parameters, window=window)


def is_element(table: PathTable) -> bool:
    """Whether all atoms are of one element."""
    return len({atom for path in table.paths for atom in path.atoms}) == 1


def fit_window(par: Parametrisation) -> FitWindow:
    """Window of the fit: that of the nearest shell, to behind the last that is near enough."""
    low, high = par.window.r
    end = min(par.shells[-1].reff - BEFORE_SHELL, WIDEST)
    return par.window.model_copy(update={"r": (low, max(high, round(end, 1)))})


def _write_graphs(
    folder: Path, name: str, par: Parametrisation, report: Callable[[str, float], None]
) -> None:
    functions = {
        EQUATION_FILE: equation_function(Equation(par)),
        REFINEMENT_FILE: refinement_function(RefinementGraph(par)),
    }
    graphs = {file: convert(*pair) for file, pair in functions.items()}
    report("proving", 0.7)
    for file, graph in graphs.items():
        prove(graph, functions[file][1], parameter_batches(par))
        for key, value in {"card_schema": FIT_SCHEMA, "bundle": name}.items():
            graph.metadata_props.add(key=key, value=value)
        onnx.save(graph, folder / file)


def _write(card: Card, folder: Path) -> None:
    (folder / CARD_FILE).write_text(card.model_dump_json(by_alias=True, indent=1) + "\n")


def _calibrated(folder: Path, bars: ErrorBars) -> Card:
    """Card of a bundle with its error bars, written."""
    calibration = Calibration(
        std_scale=bars.scale,
        bias=bars.bias,
        coverage_90=bars.coverage,
        validation_spectra=bars.spectra,
    )
    card = read_card(folder).model_copy(update={"calibration": calibration})
    _write(card, folder)
    return card


def _card(
    material: Material,
    par: Parametrisation,
    wide: Parametrisation,
    folder: Path,
) -> Card:
    crystal = material.crystal
    return Card(
        schema=FIT_SCHEMA,
        name=material.name,
        description=f"{material.absorber} {material.edge} edge, {par.phase}"
        f" ({crystal.space_group}), read by fitting its crystal: {len(par.shells)} shells with"
        f" multiple scattering to {par.table.reff.max():.2f} angstrom",
        absorber=material.absorber,
        edge=material.edge,
        structures=[
            Structure(
                phase=par.phase,
                formula=crystal.formula,
                source=crystal.source,
                cif_sha256=crystal.cif_sha256,
                absorber_site=crystal.absorber_site,
                space_group=crystal.space_group,
            )
        ],
        k_grid=KGrid(k_min=K_MIN, k_max_trained=(K_MAX_MIN, 20.0)),
        recipe=Recipe(),
        fit=[par.window],
        parameters=list(par.parameters),
        ties=par.in_words(),
        accuracy=[],
        calibration=Calibration(std_scale={}, coverage_90={}, validation_spectra=0),
        thresholds=Thresholds(ood=MISFIT, ood_false_alarms=0.0, k_max_min=K_MAX_MIN),
        refinement=refinement_of(wide),
        reading=FitReading(
            window=wide.window,
            whole_weight=WHOLE_WEIGHT[is_element(par.table)],
            e0=E0_STARTS,
            e0_prior=E0_PRIOR,
            floor=FLOOR,
            misfit_flagged=MISFIT_FLAGGED,
            r_flagged=R_OFF[0],
            r_withheld=R_OFF[1],
            n_flagged=N_RATIO[0],
            n_withheld=N_RATIO[1],
            e0_flagged=E0_FLAGGED,
        ),
        software={"exafsd": __version__, "python": platform.python_version()} | versions(),
        sha256={name: file_sha256(folder / name) for name in (EQUATION_FILE, REFINEMENT_FILE)},
    )
