"""Composition and components of a run, beside the same sweeps without, in batches of 64.

Run ``python tests/bench/components.py``: sweeps of 500 points of copper oxide that is reduced go
through the pipeline with one model, without refinement, the kinds in turn; medians of
the time of this process.
"""

import os
import pickle
import sys
from itertools import count
from time import process_time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import BATCH

from exafsd.composition.composer import Composer
from exafsd.composition.references import load, shipped_folder
from exafsd.inference.registry import Registry
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Composition, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep

ROUNDS, WARM = 16, 3
KINDS = {
    "off": Composition(enabled="off"),
    "shares": Composition(components=False),
    "components": Composition(),
    "components alone": Composition(),
}
ENERGY = np.concatenate([np.arange(8840.0, 8960.0, 5.0), np.linspace(8960.0, 9620.0, 476)])


def main() -> None:
    """Print milliseconds a spectrum and the ratio to `off`, and the bytes that a run remembers."""
    references = load([shipped_folder()])[0]
    pure = [np.interp(ENERGY, one.energy, one.mu) for name in ("CuO", "Cu2O", "Cu")
            for one in references if one.name == name]  # fmt: skip
    rng = np.random.default_rng(0)
    registry = Registry.load(())
    pipes, runs = {}, {}
    for kind, composition in KINDS.items():
        alone = Composer(()) if kind == "components alone" else Composer(references)
        pipes[kind] = Pipeline(registry, (), composer=alone)
        analysis = Analysis(
            reduction=Reduction(channels=("transmission",)),
            inference=Inference(polish="off", model="cu-k-fcc"),
            composition=composition,
        )
        runs[kind] = Run(kind, edges=(Edge("Cu", "K"),), analysis=analysis)
    numbers = count(1)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(ROUNDS):
        shares = rng.dirichlet(np.ones(3), BATCH)
        mus = shares @ np.array(pure) + 1e-3 * rng.normal(size=(BATCH, len(ENERGY)))
        batch = [next(numbers) for _ in mus]
        for kind, pipe in pipes.items():
            sweeps = [Sweep(runs[kind], "primary", n, ENERGY, {"mutrans": mu})
                      for n, mu in zip(batch, mus, strict=True)]  # fmt: skip
            began = process_time()
            pipe.process_many(sweeps)
            if turn >= WARM:
                times[kind].append((process_time() - began) / BATCH * 1e3)
    off = np.array(times["off"])
    for kind, own in times.items():
        ratio = float(np.median(np.array(own) / off))
        sys.stdout.write(f"{kind:17} {np.median(own):.3f} ms a spectrum, {ratio:.2f} of off\n")
    state = pickle.dumps(pipes["components"].series("components").components)
    sys.stdout.write(
        f"components of a run: {len(state) / 1e3:.0f} kB after {next(numbers)} sweeps\n"
    )


if __name__ == "__main__":
    main()
