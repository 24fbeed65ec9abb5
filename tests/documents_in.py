"""Documents through a router, for tests."""

import time

from exafsd.documents.items import Trouble
from exafsd.documents.router import Router
from exafsd.settings.analysis import Analysis
from exafsd.spectra import Sweep
from synthetic import sweep_columns

SWEEPS = [sweep_columns(i, points=120) for i in range(4)]


def make_router(roots=(), analysis=None, patience=0.2):
    return Router(
        analysis or Analysis(),
        clock=time.monotonic,
        asset_roots=tuple(roots),
        asset_patience=patience,
    )


def feed(documents, **options):
    router = make_router(**options)
    items = []
    for name, document in documents:
        items += router.feed(name, document)
    while router.waiting:
        items += router.poll()
        time.sleep(0.01)
    return items + list(router.close())


def sweeps_of(items):
    return [item for item in items if isinstance(item, Sweep)]


def problems_of(items):
    return [item for item in items if isinstance(item, Trouble)]
