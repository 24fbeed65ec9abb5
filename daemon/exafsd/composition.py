"""The one place where parts are wired together."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from exafsd._version import __version__
from exafsd.analysis import Analysis
from exafsd.archive.journal import Journal
from exafsd.archive.result_process import ResultProcess
from exafsd.contract.card import CARD_FILE, PINN_FILE, Card
from exafsd.documents import Callback, Inbox, Problem, ProxySource, Router, RunBegan, RunEnded
from exafsd.inference.registry import (
    BundleError,
    Registry,
    bundle_folders,
    read_card,
    shipped_folder,
)
from exafsd.pipeline import Outcome, Pipeline
from exafsd.publishing import (
    AddressError,
    KeyFileError,
    Library,
    Publisher,
    Ring,
    ServerKeys,
    check_address,
)
from exafsd.reduction.audit import Auditor
from exafsd.reduction.files import read_file
from exafsd.reduction.reducer import Reducer
from exafsd.service import Service
from exafsd.settings import Settings
from exafsd.spectra import Edge, Sweep


def versions() -> dict[str, str]:
    """Versions of what decides a number."""
    found = {"exafsd": __version__}
    for name in ("xraylarch", "onnxruntime", "numpy", "bluesky", "pyzmq"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def make_pipeline(
    settings: Settings, registry: Registry | None = None, audit: bool = False
) -> Pipeline:
    """Pipeline with the shipped and configured models; `audit` is for the live daemon."""
    registry = registry or Registry.load(settings.models)
    every = settings.service.audit_every
    reducer = Reducer(Auditor(), every) if audit and every else Reducer()
    return Pipeline(registry, settings.publish.arrays, reducer)


def make_router(settings: Settings, roots: tuple[Path, ...] | None = None) -> Router:
    """Router by the settings; `roots` replaces the folders for external files."""
    return Router(
        settings.analysis,
        clock=time.monotonic,
        asset_roots=settings.source.asset_roots if roots is None else roots,
        asset_patience=settings.source.asset_patience,
        turn=settings.source.turn,
    )


def make_publisher(settings: Settings) -> Publisher:
    """Publisher by the settings; it hands out them and the cards of all models.

    Raises
    ------
    AddressError, KeyFileError
        If it must not or cannot be opened.
    """
    publish = settings.publish
    library = Library(read_cards(settings))
    library.keep_settings(settings.analysis)
    return Publisher(
        publish.address,
        publish.high_water,
        publish.insecure,
        publish.address_file,
        answers=publish.answers,
        keys=server_keys(settings),
        ring=Ring(publish.ring_messages, publish.ring_bytes),
        library=library,
        array_every=publish.array_every,
        heartbeat=publish.heartbeat,
    )


def server_keys(settings: Settings) -> ServerKeys | None:
    """Keys of the publisher, checked; None without encryption."""
    curve = settings.publish.curve
    return None if curve is None else ServerKeys.load(curve.secret, curve.clients)


def read_cards(settings: Settings) -> dict[str, bytes]:
    """Hash of the network's graph to its card, of the models that are not refused."""
    cards = {}
    for folder in bundle_folders([shipped_folder(), *settings.models]):
        try:
            card = read_card(folder)
        except BundleError:  # the registry says why
            continue
        cards[card.sha256[PINN_FILE]] = (folder / CARD_FILE).read_bytes()
    return cards


def make_results(
    settings: Settings, registry: Registry, report: Callable[[str, str], None]
) -> ResultProcess | None:
    """Sink of live results by the settings; None where they are not kept."""
    kept = settings.results
    if kept.catalog is None:
        return None
    return ResultProcess(kept.catalog, cards_of(registry), kept.queue, report)


def cards_of(registry: Registry) -> dict[str, Card]:
    """Cards of the models that are not refused, by name."""
    return {name: bundle.card for name, bundle in registry.bundles.items()}


def unresolved(address: str) -> str | None:
    """What is wrong with the host of ``source.address``; ZeroMQ tries for ever without a word."""
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if not address.startswith("tcp://"):
        return None
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        return (
            f"source.address {address}: the host {host!r} is not known here ({error});"
            " no documents come until it is"
        )
    return None


def _tell_unresolved(settings: Settings, inbox: Inbox) -> None:
    told = unresolved(settings.source.address)
    if told is not None:
        inbox.report("source", told)


def make_service(settings: Settings, proxy: bool = True) -> tuple[Service, Inbox]:
    """Build the daemon; without `proxy` documents come through a `Callback` on the inbox."""
    inbox = Inbox(settings.source.queue)
    registry = Registry.load(settings.models)
    source = None
    if proxy:
        s = settings.source
        source = ProxySource(inbox, s.address, s.prefix, s.pickle)
        # a name server that does not answer takes many seconds
        threading.Thread(target=_tell_unresolved, args=(settings, inbox), daemon=True).start()
    journal = None
    if settings.journal.folder is not None:
        kept = settings.journal
        journal = Journal(settings.journal.folder, kept.fsync, kept.max_bytes, report=inbox.report)
    service = Service(
        inbox=inbox,
        router=make_router(settings),
        pipeline=make_pipeline(settings, registry, audit=True),
        publisher=make_publisher(settings),
        settings=settings.service,
        heartbeat=settings.publish.heartbeat,
        source=source,
        journal=journal,
        sink=make_results(settings, registry, inbox.report),
        models=registry.bundles,
        refused_models=registry.refused,
        versions=versions(),
    )
    return service, inbox


class Live:
    """exafsd inside a RunEngine's process: ``RE.subscribe(live)``, and `close` at the end.

    The work is done in a thread of its own; a document costs the plan microseconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._service, inbox = make_service(settings, proxy=False)
        self._callback = Callback(inbox)
        self._thread = threading.Thread(target=self._service.run, name="exafsd", daemon=True)
        self._thread.start()

    def __call__(self, name: str, document: Any) -> None:
        """Take a document."""
        self._callback(name, document)

    def close(self) -> None:
        """Finish what has been received and stop."""
        self._service.stop()
        self._thread.join()


def replay(
    documents: Iterable[tuple[str, Any]],
    router: Router,
    pipeline: Pipeline,
    on_problem: Callable[[Problem], None],
) -> Iterator[Outcome | RunBegan | RunEnded]:
    """Outcomes of stored documents, through the same router and pipeline as live ones."""
    analyses: dict[str, Analysis] = {}

    def handled(items: Iterable[Any]) -> Iterator[Outcome | RunBegan | RunEnded]:
        for item in items:
            if isinstance(item, Problem):
                on_problem(item)
            elif isinstance(item, Sweep):
                yield from pipeline.process(item, analyses[item.run.uid])
            else:
                if isinstance(item, RunBegan):
                    analyses[item.run.uid] = item.analysis
                else:
                    pipeline.end(item.run.uid)
                yield item

    for name, document in documents:
        yield from handled(router.feed(name, document))
    while router.waiting:
        yield from handled(router.poll())
        if router.waiting:
            time.sleep(0.05)
    yield from handled(router.close())


def analyze_file(
    path: Path, settings: Settings, pipeline: Pipeline, edge: Edge | None
) -> Iterator[Outcome]:
    """Outcomes of the spectra in a file.

    Raises
    ------
    SpectrumError
        If the file holds no spectrum; the text names it.
    """
    analysis = settings.analysis
    sweeps = read_file(path, analysis.adapter, edge)
    for sweep in sweeps:
        yield from pipeline.process(sweep, analysis)
    if sweeps:
        pipeline.end(sweeps[0].run.uid)


def check_settings(settings: Settings) -> tuple[list[str], list[str]]:
    """Build what `make_service` builds, without sockets; a report, and what is wrong."""
    report, problems = [], []
    registry = Registry.load(settings.models)
    make_pipeline(settings, registry)
    make_router(settings)
    report.append("versions  " + "  ".join(f"{n} {v}" for n, v in versions().items()))
    report.append(f"source    {settings.source.address}")
    if told := unresolved(settings.source.address):  # it may be known later: no reason not to run
        report.append(f"warning   {told}")
    report.append(f"publish   {settings.publish.address}")
    report.append(f"models    {', '.join(sorted(registry.bundles)) or 'none'}")
    report.append(f"journal   {settings.journal.folder or 'off'}")
    for edge, s02 in settings.inference.s02.items():
        report.append(f"S0²       {edge} {s02.value:.3f} ± {s02.std:.3f}, {s02.source}")
    report.append(f"settings  {settings.analysis.sha256}")
    problems += registry.refused.values()
    problems += [f"models folder {f} does not exist" for f in settings.models if not f.is_dir()]
    problems += [
        f"source.asset_roots: {folder} does not exist"
        for folder in settings.source.asset_roots
        if not folder.is_dir()
    ]
    wanted = settings.inference.model
    if wanted is not None and wanted not in registry.bundles:
        problems.append(f"inference.model {wanted!r} is not loaded")
    if settings.reduction.e0_policy == "fixed" and settings.reduction.e0 is None:
        problems.append("reduction.e0_policy is fixed, but reduction.e0 is not set")
    publish = settings.publish
    for name, address in (("address", publish.address), ("answers", publish.answers)):
        try:
            if address is not None:
                waived = publish.insecure or publish.curve is not None
                check_address(address, waived, f"publish.{name}")
        except AddressError as error:
            problems.append(str(error))
    try:
        server_keys(settings)
    except (KeyFileError, OSError) as error:
        problems.append(f"publish.curve: {error}")
    folder = settings.journal.folder
    if folder is not None:
        nearest = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        if not os.access(nearest, os.W_OK):
            problems.append(f"journal.folder {folder} cannot be written")
    return report, problems
