"""The polish beside Larch's feffit of the same spectra, in turn: time and differences.

Prints a Markdown section. Run with one BLAS thread, as the daemon shares its cores.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for helpers that the tests use, too

from bundles import shipped_as
from exafsd.contract.frames import ARRAY_UNITS
from exafsd.inference.refinement.polish import Polisher
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.reduction.transform import fit_weight
from exafsd.settings.analysis import Analysis, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.heating import HeatedFoil, cache_folder, feff_paths
from polishing import Spectrum, in_bars, measured, reference, simulated
from reducing import analysed

DATA = Path(__file__).parents[3] / "shared" / "data" / "xas" / "Cu"
FOILS = ("cu_metal_rt.xdi", "Cu_Foil_rt_2016Foils.xdi")
KELVIN = (20.0, 80.0, 150.0, 300.0, 450.0, 600.0, 850.0)
#: runs of each, of which the best counts
REPEATS = 3
#: polishes that are timed together: 10 ms, well beyond the clock's noise
TOGETHER = 5
BATCH = 16
#: the whole way: points of a sweep, sweeps, and models that match its edge
POINTS, SWEEPS, CANDIDATES = 400, 200, (1, 2, 4)


def best(work: Callable[[], object], times: int, repeats: int = REPEATS) -> float:
    """ms for one of `times` calls, best of `repeats`."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(times):
            work()
        took.append((time.perf_counter() - began) / times * 1e3)
    return min(took)


def whole_way(folder: Path) -> None:
    """Print what a sweep takes from columns to message, one at a time, with and without polish."""
    counts = HeatedFoil(cache_folder(), POINTS).sweep(300.0, "up", np.random.default_rng(1))
    signals = {"i0": counts.i0, "it": counts.it}
    sweep = Sweep(Run("run", edges=(Edge("Cu", "K"),)), "primary", 1, counts.energy, signals)
    bundles = [load_bundle(shipped_folder() / "cu-k-fcc")]
    bundles += [load_bundle(shipped_as(folder, f"cu-k-{i}")) for i in range(1, max(CANDIDATES))]
    reduction = Reduction(channels=("transmission",))
    took: dict[tuple[int, str], list[float]] = {}
    for _ in range(REPEATS):  # in turn, so that other work on the machine hits all alike
        for n in CANDIDATES:
            pipeline = Pipeline(Registry({b.card.name: b for b in bundles[:n]}), tuple(ARRAY_UNITS))
            for when in ("off", "always"):
                inference = Inference(polish=when)  # type: ignore[arg-type]
                job = analysed(sweep, Analysis(reduction=reduction, inference=inference))
                pipeline.process(job)
                seconds = [best(lambda: pipeline.process(job), 1, 1) for _ in range(SWEEPS)]  # noqa: B023
                took.setdefault((n, when), []).append(float(np.median(seconds)))
    print(f"\nColumns of {POINTS} points to message, one sweep at a time, median ms of {SWEEPS},"
          f" best of {REPEATS}:\n")  # fmt: skip
    print("| models that match | without polish | with |\n|---|---|---|")
    for n in CANDIDATES:
        print(f"| {n} | {min(took[n, 'off']):.2f} | {min(took[n, 'always']):.2f} |")


def main() -> None:
    """Measure, and print the section."""
    bundle = load_bundle(shipped_folder() / "cu-k-fcc")
    window = bundle.card.fit[0]
    polisher = Polisher(bundle.card, bundle.equation, fit_weight)
    first = {1: feff_paths(cache_folder())[0]}
    reduced = {name: measured(DATA / name) for name in FOILS if (DATA / name).exists()}
    foil, rng = HeatedFoil(cache_folder(), temperatures=(20.0, 860.0)), np.random.default_rng(1)
    reduced |= {f"simulated foil, {t:.0f} K": simulated(foil.sweep(t, "up", rng)) for t in KELVIN}
    theta = np.stack([[p.prior.mean for p in bundle.card.parameters]])
    equation = best(lambda: bundle.equation(theta), TOGETHER)
    print(f"One run of `equation.onnx`: {equation:.2f} ms.\n")
    print(f"| spectrum | polish ms | in a batch of {BATCH}, ms each | runs of the equation"
          " | feffit ms | largest difference, feffit's error bars |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for name, one in reduced.items():
        spectrum = Spectrum.of(one, bundle)
        rows = np.tile(spectrum.chi_k2, (BATCH, 1))
        many = [spectrum.prediction] * BATCH
        noise = [spectrum.epsilon_k] * BATCH
        alone = best(lambda: spectrum.polished(polisher), TOGETHER)  # noqa: B023
        batch = best(lambda: polisher(rows, many, spectrum.k_end, noise), 2) / BATCH  # noqa: B023
        larch = best(lambda: reference(spectrum, window, first), 1)  # noqa: B023
        polished = spectrum.polished(polisher)
        differ = in_bars(polished, reference(spectrum, window, first))
        worst = max(map(abs, differ.values()))
        print(f"| {name} | {alone:.2f} | {batch:.2f} | {polished.evaluations} | {larch:.0f}"
              f" | {worst:.4f} |", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        whole_way(Path(folder))


if __name__ == "__main__":
    main()
