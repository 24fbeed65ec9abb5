"""The one place where parts are wired together."""

import socket
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from exafsd._version import __version__
from exafsd.archive.backfill import Backfill
from exafsd.archive.outcome_log import OutcomeLog, latest_logged
from exafsd.archive.result_process import ResultProcess
from exafsd.composition import references
from exafsd.composition.composer import Composer
from exafsd.contract.card import CARD_FILE, Card
from exafsd.contract.vocabulary import Problem
from exafsd.documents.inbox import Inbox
from exafsd.documents.kafka import KafkaSource
from exafsd.documents.router import Router
from exafsd.inference.registry import (
    BundleError,
    Registry,
    bundle_folders,
    read_card,
    shipped_folder,
)
from exafsd.inference.watch import ModelWatch
from exafsd.logs import get_logger
from exafsd.pipeline import Pipeline
from exafsd.publishing import (
    Library,
    Publisher,
    Ring,
    ServerKeys,
)
from exafsd.publishing.kafka import KafkaSink
from exafsd.publishing.ring import Kept, kept_of
from exafsd.reduction.audit import Auditor
from exafsd.reduction.reducer import Reducer
from exafsd.service.gap_filling_feed import GapFillingFeed
from exafsd.service.intake import Intake
from exafsd.service.pace import Pace
from exafsd.service.run_store import RunStore
from exafsd.service.service import Service
from exafsd.service.session import Session
from exafsd.service.sharing import Sharing
from exafsd.service.sink import QueuedSink
from exafsd.settings.settings import Publish, Settings

log = get_logger(__name__)

#: bytes of messages of publishers before that are read at the start, and how many publishers
FORMER_BYTES, FORMERS = 100_000_000, 8


def versions() -> dict[str, str]:
    """Versions of what decides a number."""
    by_distribution = {"exafsd": __version__}
    for name in ("xraylarch", "onnxruntime", "numpy", "bluesky", "pyzmq"):
        try:
            by_distribution[name] = version(name)
        except PackageNotFoundError:
            continue
    return by_distribution


def make_pipeline(
    settings: Settings, registry: Registry | None = None, audit: bool = False
) -> Pipeline:
    """Pipeline with the shipped and configured models; `audit` is for the live daemon."""
    registry = registry or Registry.load(settings.models)
    every = settings.service.audit_every
    reducer = Reducer(Auditor(), every) if audit and every else Reducer()
    return Pipeline(registry, settings.publish.arrays, reducer, make_composer(settings))


def make_composer(settings: Settings) -> Composer:
    """Composer with the shipped and configured references; those that are refused are logged."""
    asked = settings.composition
    if asked.enabled == "off":
        return Composer(())
    shipped = [references.shipped_folder()] if asked.shipped else []
    loaded, refused = references.load([*shipped, *asked.references])
    for text in refused:
        log.warning("reference refused", detail=text)
    return Composer(loaded)


def make_router(settings: Settings, roots: tuple[Path, ...] | None = None) -> Router:
    """Router by the settings; `roots` replaces the folders for external files."""
    return Router(
        settings.analysis,
        clock=time.monotonic,
        asset_roots=settings.source.asset_roots if roots is None else roots,
        asset_patience=settings.source.asset_patience,
        turn=settings.source.turn,
    )


def make_publisher(settings: Settings, log: OutcomeLog | None = None) -> Publisher:
    """Publisher by the settings; it hands out them and the cards of all models.

    With a log, messages are written there, and those of the daemon before can be asked for.

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
        former={} if log is None else former_rings(log.folder, publish),
        keep=None if log is None else log.append,
    )


def former_rings(folder: Path, publish: Publish) -> dict[str, Ring]:
    """What can be had of publishers before, by their uuid, oldest first."""
    rings: dict[str, list[Kept]] = {}
    size = min(publish.ring_bytes, FORMER_BYTES)
    for one in latest_logged(folder, publish.ring_messages, size):
        rings.setdefault(one.publisher, []).append(kept_of(one.seq, one.time, one.frames))
    return {uuid: Ring.of_former(kept) for uuid, kept in list(rings.items())[-FORMERS:]}


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
        cards[card.model_sha256] = (folder / CARD_FILE).read_bytes()
    return cards


def make_session(
    settings: Settings, pipeline: Pipeline, roots: tuple[Path, ...] | None = None
) -> Session:
    """Session that takes one sweep at a time and its time, for replay and files."""
    return Session(make_router(settings, roots), pipeline)


def make_sinks(
    settings: Settings, registry: Registry, report: Callable[[Problem, str], None]
) -> list[QueuedSink]:
    """Where live results go by the settings, beside the publisher."""
    sinks: list[QueuedSink] = []
    results = settings.results
    if results.catalog is not None:
        sinks.append(ResultProcess(results.catalog, cards_of(registry), results.queue, report))
    if settings.publish.kafka is not None:
        sinks.append(KafkaSink(settings.publish.kafka, report))
    return sinks


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
    unreachable = unresolved(settings.source.address)
    if unreachable is not None:
        inbox.report(Problem.SOURCE, unreachable)


def make_service(
    settings: Settings, proxy: bool = True, intake: Intake | None = None
) -> tuple[Service, Inbox]:
    """Build the daemon; without `proxy` documents come through a `Callback` on the inbox.

    Parameters
    ----------
    intake
        That has begun to take documents already; None: it is made here.

    Raises
    ------
    JournalError, AddressError, KeyFileError
        If a folder or an address cannot be used.
    """
    intake = intake or Intake.open(settings, proxy)
    inbox = intake.inbox
    registry = Registry.load(settings.models)
    by_address = settings.source.kafka is None and settings.source.tiled is None
    if proxy and by_address:  # a name server that does not answer takes many seconds
        threading.Thread(target=_tell_unresolved, args=(settings, inbox), daemon=True).start()
    pipeline = make_pipeline(settings, registry, audit=True)
    options = settings.service
    session = Session(make_router(settings), pipeline, options.batch, options.max_lag, Pace())
    run_store = None
    if intake.journal is not None and intake.log is not None:
        run_store = RunStore(
            session, intake.journal, intake.log, intake.open_runs, intake.inbox.taking
        )
    tiled, catalog = settings.source.tiled if proxy else None, settings.backfill.catalog
    if catalog is None and tiled is not None:
        catalog = tiled.catalog
    backfill = None if catalog is None else Backfill(catalog)
    service = Service(
        intake=intake,
        session=session,
        pipeline=pipeline,
        publisher=make_publisher(settings, intake.log),
        settings=settings.service,
        heartbeat=settings.publish.heartbeat,
        run_store=run_store,
        # a source that follows the archive sees the ends of runs itself
        gap_filling_feed=GapFillingFeed(
            session, backfill, settings.backfill.wait, run_store, ends=tiled is None
        ),
        sharing=Sharing(session, intake.source) if isinstance(intake.source, KafkaSource) else None,
        sinks=make_sinks(settings, registry, inbox.report),
        registry=registry,
        watch=ModelWatch(settings.models, registry, options.models_every)
        if options.models_every
        else None,
        versions=versions(),
    )
    return service, inbox
