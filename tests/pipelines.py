"""Sweeps of a simulated foil through a pipeline, for the tests of what comes out of it."""

import numpy as np

from bundles import copper, structure, write
from exafsd.contract.frames import ARRAY_UNITS, decode, encode
from exafsd.inference.registry import Registry, load_bundle
from exafsd.pipeline import Pipeline
from exafsd.reduction.reducer import Reducer
from exafsd.settings.analysis import Analysis, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep
from reducing import analysed

RUN = Run(uid="run", edges=(Edge("Cu", "K"),))
CU = structure("Cu", "F m 3 m")


def counted(foil, kelvin=300.0, number=1):
    return foil.sweep(kelvin, "up", np.random.default_rng(number))


def sweep(counts, number=1):
    signals = {"i0": counts.i0, "it": counts.it}
    return Sweep(RUN, "primary", number, counts.energy, signals)


def analysis(reduction=None, **inference):
    channels = {"channels": ("transmission",), **(reduction or {})}
    return Analysis(reduction=Reduction(**channels), inference=Inference(**inference))


class Counting(Reducer):
    """Counts what it reduces."""

    jobs = 0

    def reduce(self, jobs):
        self.jobs += len(jobs)
        return super().reduce(jobs)


def pipeline(*folders, bundles=()):
    loaded = [*bundles, *map(load_bundle, folders)]
    return Pipeline(Registry({b.card.name: b for b in loaded}), tuple(ARRAY_UNITS), Counting())


def bundle_of(tmp_path, name, phase, explains, ood=0.05, **changes):
    parameters = [p.model_copy(update={"phase": phase.phase}) for p in copper().parameters]
    card = copper(name=name, structures=[phase], parameters=parameters, **changes)
    return write(tmp_path, card, explains, ood)


def one(pipe, counts, how=None, **more):
    ((outcome,),) = pipe.process_many([analysed(sweep(counts), how or analysis())], **more)
    return decode(encode(outcome.message, outcome.arrays)).header
