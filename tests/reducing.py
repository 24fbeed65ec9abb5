"""Sweeps to spectra and these to chi(k), for tests, with what runs remember in between."""

from collections import defaultdict
from dataclasses import replace

from exafsd.contract import Recipe
from exafsd.documents.files.reading import read_file
from exafsd.reduction import preparation
from exafsd.reduction.memory import RunMemory
from exafsd.reduction.reducer import Reducer, ReductionJob
from exafsd.settings.analysis import Analysis


def analysed(sweep, analysis):
    """Sweep of a run that is analysed so."""
    return replace(sweep, run=replace(sweep.run, analysis=analysis))


def sweeps_of_file(path, names=None, edge=None):
    """Sweeps of a file by an adapter."""
    return read_file(path, Analysis(adapter=names) if names else Analysis(), edge).sweeps


class Preparation:
    """Spectra of sweeps, with a memory for each run."""

    def __init__(self):
        self.memories = defaultdict(RunMemory)

    def spectra(self, sweep, analysis):
        return preparation.spectra(analysed(sweep, analysis), self.memories[sweep.run.uid])


class Reducing:
    """A reducer with a memory for each run."""

    def __init__(self, *arguments):
        self.reducer = Reducer(*arguments)
        self.memories = defaultdict(RunMemory)

    def reduce(self, spectra, recipe=None):
        return self.reducer.reduce(
            [
                ReductionJob(one, recipe or Recipe(), self.memories[one.id.sweep.run.uid])
                for one in spectra
            ]
        )
