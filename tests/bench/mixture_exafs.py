"""EXAFS of mixtures: R of each phase beside the truth, or beside what it is alone; and the cost.

Run ``python tests/bench/mixture_exafs.py [DATA]`` from the checkout; DATA has the measured spectra,
``../shared/data`` by default.
"""

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import BATCH, milliseconds

sys.path.insert(0, str(Path(__file__).parents[1]))  # for helpers that the tests use, too

from exafsd.composition.composer import Composer
from exafsd.composition.references import load, shipped_folder
from exafsd.contract.columns import best_answer
from exafsd.contract.grid import rows_to_grid
from exafsd.inference import reading
from exafsd.inference.mixture_fit import Mixtures
from exafsd.inference.registry import Registry, load_bundle
from exafsd.inference.registry import shipped_folder as models_folder
from exafsd.pipeline import Pipeline
from exafsd.reduction.reducer import Reducer
from exafsd.settings.analysis import Analysis, Composition
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.oxide_to_copper import OxideToCopper
from mixing import normalised, on_one_scale, sweeps

SHARES = (0.0, 0.01, 0.05, *np.arange(0.1, 0.91, 0.1).tolist(), 0.95, 0.99, 1.0)
BINS = ((0.0, 0.03), (0.03, 0.1), (0.1, 0.28), (0.28, 0.6), (0.6, 1.0))
COPPER, ZINC = ("cu-k-cuo", "cu-k-cu2o", "cu-k-fcc"), ("zn-k-zns", "zn-k-zno")
#: standard deviations that hold 90 % of a normal distribution
NINETY = 1.645


class Recording(Mixtures):
    """Keeps what it was asked."""

    def __call__(self, questions):
        self.asked = questions
        return super().__call__(questions)


def pipeline(models, references):
    registry = Registry({name: load_bundle(models_folder() / name) for name in models}, {})
    pipe = Pipeline(registry, (), composer=Composer(references))
    pipe._mixtures = Recording(pipe._reducer)
    return pipe


def simulated(kelvins):
    """Sweeps of the demo's reduction, with what was put in."""
    sample = OxideToCopper(temperatures=(300.0, 800.0))
    analysis = Analysis(composition=Composition(phases=("Cu", "Cu2O", "CuO")))
    run = Run(uid="run", edges=(Edge("Cu", "K"),), analysis=analysis)
    rng = np.random.default_rng(0)
    for i, kelvin in enumerate(kelvins):
        counts = sample.sweep(kelvin, "up", rng)
        signals = {"i0": counts.i0, "it": counts.it}
        yield Sweep(run, "primary", i + 1, counts.energy, signals, truth=counts.truth)


def rows(message, truth):
    """Share, and errors and error bars of R and sigma2, of each phase; NaN without numbers."""
    mixture = message.mixture
    if mixture is None or not mixture.phases:
        return
    for one in mixture.phases:
        if one.phase not in truth:
            continue
        if not one.shells:
            yield (one.share.value, *[np.nan] * 4)
            continue
        shell, (r, sigma2) = one.shells[0], truth[one.phase]
        yield (one.share.value, shell.r.value - r, shell.r.std,
               shell.sigma2.value - sigma2, shell.sigma2.std)  # fmt: skip


def table(name, every):
    """Print a line for each range of shares."""
    values = np.array(list(every))
    for low, high in BINS:
        part = values[(values[:, 0] >= low) & (values[:, 0] < high)]
        have = part[np.isfinite(part[:, 1])]
        if not len(part):
            continue
        line = f"| {name} | {low:g} to {high:g} | {len(have)} of {len(part)} |"
        if len(have):
            off, bar, off2, bar2 = np.abs(have[:, 1:].T)
            line += (
                f" {np.sqrt(np.mean(off**2)):.4f} | {off.max():.4f} |"
                f" {np.mean(off < NINETY * bar):.0%} | {np.sqrt(np.mean(off2**2)):.4f} |"
                f" {np.mean(off2 < NINETY * bar2):.0%} |"
            )
        print(line, flush=True)


def alone(message):
    """R and sigma2 of the nearest shell of a pure spectrum's best answer."""
    shells, _ = best_answer(message.model_dump(mode="json"))
    return tuple(shells[0][name]["value"] for name in ("r", "sigma2"))


def measured_pairs(data, references):
    """Element, models, and two phases with their normalised mu."""
    composer, own = Composer(references), {one.name: one for one in references}
    foil = on_one_scale(data / "xas" / "Cu" / "Cu_Foil_rt_2016Foils.xdi", composer)
    cuo, cu2o = normalised(own["CuO"]), normalised(own["Cu2O"])
    yield "Cu", COPPER, {"CuO": cuo, "Cu": foil}
    yield "Cu", COPPER, {"Cu2O": cu2o, "Cu": foil}
    yield "Cu", COPPER, {"CuO": cuo, "Cu2O": cu2o}
    zno = on_one_scale(data / "xas" / "Zn" / "ZnO.xdi", composer)
    for scan in ("ZnS_aldrich_rt_02", "Zn_sphalerite_rt_01"):
        zns = on_one_scale(data / "xas" / "Zn" / f"Chorover13BM_{scan}.xdi", composer)
        yield "Zn", ZINC, {"ZnO": zno, "ZnS": zns}


def refinement(questions):
    """Calls that refine spectra as the model of one phase reads them, together and one by one."""
    model = questions[0].readings[0].reader.model
    own = [next(r for r in one.readings if r.reader.model is model) for one in questions]
    k_end = own[0].read.k_data[1]
    read = reading.read(own)
    chi, _ = rows_to_grid(np.stack([one.read.chi for one in read]), 0.0, k_end)
    predictions, noise = [one.prediction for one in read], [one.read.epsilon_k for one in read]
    zeros = [model.judge.e0_shift(one.read) for one in read]

    def refine(part):
        model.refiner(chi[part], predictions[part], k_end, noise[part], zeros[part])

    return partial(refine, slice(None)), lambda: [refine(slice(i, i + 1)) for i in range(len(read))]


def cost(mixed, pure):
    """Print what mixtures take beside the refinement of them, and of pure spectra, ms each."""
    mixtures = Mixtures(Reducer())
    calls = {
        "in batches": (partial(mixtures, mixed), refinement(mixed)[0], refinement(pure)[0]),
        "one by one": (lambda: [mixtures([one]) for one in mixed], refinement(mixed)[1],
                       refinement(pure)[1]),
    }  # fmt: skip
    for how, each in calls.items():
        both, same, alone = map(milliseconds, each)
        print(
            f"\nMixtures of two phases {how} {both:.2f} ms a spectrum; refinement of the same as"
            f" one phase {same:.2f}, ratio {both / same:.1f}; of pure ones {alone:.2f}, ratio"
            f" {both / alone:.1f}."
        )


def main():
    """Print the tables."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[3] / "shared" / "data"
    references = load([shipped_folder()])[0]
    print("| sample | share | with numbers | rms of R | largest | 90 % hold |"
          " rms of sigma2 | 90 % hold |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    every = []
    for element, models, parts in measured_pairs(data, references):
        pipe = pipeline(models, references)
        messages = [o.message for (o,) in pipe.process_many(sweeps(element, parts, SHARES))]
        truth = dict(zip(parts, (alone(messages[0]), alone(messages[-1])), strict=True))
        own = [row for message in messages for row in rows(message, truth)]
        table(" and ".join(parts), own)
        every += own
    table("all measured", every)
    pipe, jobs = pipeline(COPPER, references), list(simulated(np.linspace(300.0, 800.0, 101)))
    own = []
    for job, (outcome,) in zip(jobs, pipe.process_many(jobs), strict=True):
        truth = {
            name: (job.truth[f"r_{name}"], job.truth[f"sigma2_{name}"])
            for name in ("Cu", "Cu2O", "CuO")
        }
        own += rows(outcome.message, truth)
    table("simulated", own)
    asked = []
    for first, last in ((460.0, 520.0), (300.0, 400.0)):
        pipe.process_many(list(simulated(np.linspace(first, last, BATCH))))
        asked.append(pipe._mixtures.asked)
    cost(*asked)


if __name__ == "__main__":
    main()
