"""The daemon's life: take documents, process sweeps, publish, tell how it is, end cleanly."""

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from exafsd._version import __version__
from exafsd.contract.messages import RunStart, Status
from exafsd.contract.vocabulary import Problem
from exafsd.documents.inbox import Arrival
from exafsd.documents.items import Began, Ended, Trouble
from exafsd.inference.registry import Registry
from exafsd.inference.watch import ModelWatch
from exafsd.logs import get_logger
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.publishing import Publisher
from exafsd.publishing.outcomes import run_start, run_stop, text
from exafsd.service.gap_filling_feed import GapFillingFeed
from exafsd.service.health import SILENT, Health
from exafsd.service.intake import Intake
from exafsd.service.rejection_log import RejectionLog
from exafsd.service.run_store import RunStore
from exafsd.service.session import Event, Session
from exafsd.service.sharing import Sharing
from exafsd.service.sink import QueuedSink, deliver
from exafsd.settings.analysis import Analysis
from exafsd.settings.settings import Service as ServiceSettings

log = get_logger(__name__)

#: s the worker waits for a document before it looks at clock and signals
TICK = 0.05
#: s after which a sweep is processed although more documents keep coming
PATIENCE = 0.005
#: latest troubles kept for the status
PROBLEMS = 20
#: part of `service.shutdown` that is left for results under way if there are too many documents
LAST_WORDS = 1 / 8


def provenance(analysis: Analysis) -> dict[str, Any]:
    """What made the numbers of a run."""
    return {
        "code": "exafsd",
        "version": __version__,
        "settings": analysis.model_dump(mode="json"),
        "settings_sha256": analysis.sha256,
    }


class Service:
    """Worker loop around a pipeline; `run` returns when stopped."""

    def __init__(
        self,
        intake: Intake,
        session: Session,
        pipeline: Pipeline,
        publisher: Publisher,
        settings: ServiceSettings,
        heartbeat: float,
        run_store: RunStore | None = None,
        gap_filling_feed: GapFillingFeed | None = None,
        sharing: Sharing | None = None,
        sinks: Sequence[QueuedSink] = (),
        registry: Registry | None = None,
        watch: ModelWatch | None = None,
        versions: dict[str, str] | None = None,
    ) -> None:
        self._intake, self._inbox = intake, intake.inbox
        self._session = session
        self._pipeline = pipeline
        self._publisher = publisher
        self._settings = settings
        self._heartbeat = heartbeat
        self._run_store, self._sharing = run_store, sharing
        self._gap_filling_feed = gap_filling_feed or GapFillingFeed(session, keep=run_store)
        self._health = Health(intake, run_store)
        self._sinks = sinks
        self._registry = registry or Registry()
        self._watch = watch
        self._versions = versions or {}
        self._stopping = threading.Event()
        self._results = 0
        self._rejections: Counter[str] = Counter()
        self._rejection_log = RejectionLog()
        self._problems: deque[str] = deque(maxlen=PROBLEMS)
        self._problem_counts: Counter[Problem] = Counter()
        self._lag: float | None = None
        self._pending_since: float | None = None  # when the first of these was cut
        self._began = time.monotonic()
        self._told = (self._began, 0)  # when the last status was sent, outcomes by then

    def stop(self, *_: object) -> None:
        """Ask the loop to end; safe in a signal handler and from any thread."""
        self._stopping.set()

    def handle_signals(self) -> None:
        """End on SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Process documents until stopped, then finish what is assembled."""
        self._status("starting")
        try:
            self._intake.start()
        except OSError:
            self._publisher.close()
            raise
        if self._run_store is not None:
            resumed = self._run_store.resume(
                self._gap_filling_feed.feed, lambda: self._beat("starting")
            )
            self._handle_all(resumed)
        self._gap_filling_feed.start(self._intake.latest)
        if self._watch is not None:
            self._watch.start()
        self._status()
        log.info("ready", models=",".join(sorted(self._registry.bundles)) or "none")
        if on_ready is not None:
            on_ready()
        while not self._stopping.is_set():
            self._step(TICK)
            self._beat()
        self._finish()

    def _beat(self, state: str | None = None) -> None:
        """Tell the status if it is due; None: what it is."""
        if time.monotonic() - self._told[0] >= self._heartbeat:
            self._session.shedding = self._session.shedding and len(self._inbox) > 0
            self._status(state)

    def _finish(self) -> None:
        end = time.monotonic() + self._settings.shutdown
        last_words = LAST_WORDS * self._settings.shutdown if self._sinks else 0.0
        self._status("stopping")
        self._intake.stop()
        self._gap_filling_feed.stop()
        if self._watch is not None:
            self._watch.stop()
        while len(self._inbox) and time.monotonic() < end - last_words:
            self._step(0.0)
        left, problems = self._unprocessed()
        if left and self._sharing is None:  # else Kafka keeps them for the next daemon
            self._inbox.drops[Problem.SHUTDOWN] += left
            log.warning("stopping before all documents were processed", left=left)
        for problem in problems:
            self._tell(problem)
        self._end_session()
        self._pipeline.close()
        for sink in self._sinks:
            sink.close(max(end - time.monotonic(), 0.0))
            for problem in self._inbox.empty()[1]:  # what it could not keep
                self._tell(problem)
        self._status("stopped")
        self._publisher.close()
        if self._sharing is not None:
            self._sharing.close()
        log.info("stopped", results=self._results, rejected=self._rejections.total())

    def _adopt(self, registry: Registry) -> None:
        """Take up models as they are now; sweeps that are there are read with those before."""
        self._handle_all(self._session.flush())
        before, now = self._registry.bundles, registry.bundles
        self._pipeline.adopt(registry)
        cards = [bundle.card for bundle in now.values()]
        self._publisher.library.keep_cards(
            {card.model_sha256: card.model_dump_json(by_alias=True).encode() for card in cards}
        )
        self._registry = registry
        changed = [name for name in now if name in before and now[name] is not before[name]]
        log.info(
            "models taken up",
            added=",".join(sorted(now.keys() - before.keys())) or "none",
            replaced=",".join(sorted(changed)) or "none",
            dropped=",".join(sorted(before.keys() - now.keys())) or "none",
            refused=",".join(sorted(registry.refused)) or "none",
        )

    def _unprocessed(self) -> tuple[int, list[Trouble]]:
        """Documents that are lost, and troubles; what the journal takes is kept there."""
        lost, problems = 0, []
        while self._run_store is not None and (item := self._inbox.get(0.0)) is not None:
            if isinstance(item, Trouble):
                problems.append(item)
            else:
                lost += item.place is None
        left, rest = self._inbox.empty()
        return lost + left, problems + rest

    def _end_session(self) -> None:
        """Give up the open runs, but those that the next daemon can go on with."""
        keeper = self._run_store or self._sharing
        if self._run_store is None:
            self._handle_all(self._gap_filling_feed.close())
        if keeper is None:
            self._handle_all(self._session.close())
            return
        self._handle_all(self._session.flush())
        left_open = keeper.kept()
        self._handle_all(self._session.close(but=left_open))
        for uid in sorted(left_open & self._session.runs().keys()):
            self._leave(uid)
        if self._run_store is not None:
            self._run_store.close()

    def _leave(self, uid: str) -> None:
        """Another daemon goes on with a run: its subscribers hear no end, catalogs do."""
        log.info("run left open", run_uid=uid)
        run, counts = self._session.runs()[uid]
        for sink in self._sinks:  # the next daemon writes a whole one
            sink.run_ended(run_stop(run, "lost", counts))

    def _give_away(self, sharing: Sharing) -> None:
        """Forget the runs that Kafka has given to another daemon."""
        if given := sharing.given_away():
            self._handle_all(self._session.flush())
        for uid in given:
            if self._session.is_open(uid):
                self._leave(uid)
                deque(self._session.give_up(uid), maxlen=0)  # a sweep cut off here is whole there

    def _step(self, timeout: float) -> None:
        """Take documents while there are some, or until a batch is full; process its sweeps."""
        fresh = self._watch.take() if self._watch is not None else None
        if fresh is not None:
            self._adopt(fresh)
        if self._sharing is not None:
            self._give_away(self._sharing)
            self._handle_all(self._sharing.tell_due())
        arrival = self._inbox.get(timeout)
        began = time.perf_counter()
        while arrival is not None:
            self._take(arrival)
            now, wait = time.perf_counter(), 0.0
            if self._session.pending:
                self._pending_since = self._pending_since or now
                waited = now - self._pending_since
                wait = self._settings.batch_wait - waited
                if wait <= 0 and waited > PATIENCE:
                    break
            else:
                self._pending_since = None
                if now - began > TICK:  # the status is due now and then
                    break
            arrival = self._inbox.get(max(wait, 0.0))
        self._handle_all(self._session.poll())
        self._handle_all(self._gap_filling_feed.poll(idle=not len(self._inbox)))
        self._handle_all(self._session.flush())
        self._pending_since = None
        if self._run_store is not None:
            self._run_store.save_due()

    def _take(self, arrival: Arrival | Trouble) -> None:
        if isinstance(arrival, Trouble):
            self._tell(arrival)  # the inbox has counted it
            return
        if self._sharing is not None and not self._sharing.take(arrival):
            return
        self._handle_all(self._gap_filling_feed.feed(arrival))
        if self._sharing is not None:
            self._sharing.processed(arrival)

    def _handle_all(self, events: Iterator[Event]) -> None:
        """Handle events; whatever goes wrong in making or handling one is told, and we go on."""
        while True:
            try:
                self._handle(next(events))
            except StopIteration:
                return
            except Exception as error:
                log.exception("internal error")
                what = text(f"{type(error).__name__}: {error}")
                self._problem(Trouble(Problem.INTERNAL, f"please report it: {what}"))

    def _handle(self, event: Event) -> None:
        if self._sharing is not None:
            event = self._sharing.marked(event)
        if isinstance(event, Trouble):
            if self._sharing is None or not self._sharing.expected(event):
                self._problem(event)
            return
        if isinstance(event, Outcome):
            self._count(event)
        logged = self._logged(event)
        if self._run_store is not None and isinstance(event, Began):
            self._run_store.log.describe(event.run.uid, provenance(event.run.analysis))
        deliver(event, self._publisher, *self._sinks)
        if logged is not None:  # a catalog has not all of what was sent before
            for sink in self._sinks:
                sink.write_log(*logged)
        if isinstance(event, Ended) and (keeper := self._run_store or self._sharing) is not None:
            keeper.ended(event.run.uid)
        if isinstance(event, Began):
            log.info("run started", run_uid=event.run.uid, scan_id=event.run.scan_id)
        elif isinstance(event, Ended):
            log.info(
                "run ended",
                run_uid=event.run.uid,
                exit_status=event.exit_status,
                results=event.counts.get("result", 0),
                rejected=event.counts.get("rejected", 0),
            )
            self._rejection_log.end(event.run.uid)

    def _logged(self, event: Event) -> tuple[RunStart, Path, int] | None:
        """Log of a run that goes on, and where in it the daemon before has ended."""
        if self._run_store is None or not isinstance(event, Began) or event.delivery != "resumed":
            return None
        logged = self._run_store.log.path_of(event.run.uid)
        return logged and (run_start(event.run), logged, logged.stat().st_size)

    def _count(self, outcome: Outcome) -> None:
        message = outcome.message
        if message.kind == "result":
            self._results += 1
        else:
            self._rejections[message.reason] += 1
            self._rejection_log.add(message)
        if outcome.received is not None:
            message.timing_ms.published = (time.perf_counter() - outcome.received) * 1e3
        if message.acquired.end is not None:
            self._lag = time.time() - message.acquired.end

    def _problem(self, problem: Trouble) -> None:
        self._problem_counts[problem.reason] += problem.documents
        self._health.lost(problem)
        self._tell(problem)

    def _tell(self, problem: Trouble) -> None:
        self._problems.append(text(f"{problem.reason}: {problem.detail}"))
        log.warning("problem", reason=problem.reason, detail=text(problem.detail))

    def _status(self, state: str | None = None) -> None:
        """Tell how the daemon is; `state`: None while it is at work."""
        now = time.monotonic()
        outcomes = self._results + self._rejections.total()
        before, outcomes_then = self._told
        drops = Counter(self._inbox.drops)
        drops.update(self._problem_counts)
        drops.update(self._health.failures())
        queues = {"inbox": len(self._inbox), "runs": self._session.open_runs}
        if self._sharing is not None:
            queues |= self._sharing.queues()
        for sink in self._sinks:
            drops.update(sink.lost)
            queues |= sink.queues()
        audit = self._pipeline.audit_metrics()
        losses = self._health.losses(drops, self._rejections)
        reasons = self._health.reasons(losses, audit)
        if state is None:
            behind = self._session.shedding
            state = "overloaded" if behind else "degraded" if reasons else "ready"
        self._publisher.send(
            Status(
                state=state,  # type: ignore[arg-type]
                uptime=now - self._began,
                results=self._results,
                rejected=self._rejections.total(),
                rate=(outcomes - outcomes_then) / max(now - before, 1e-3),
                rejections=dict(self._rejections),
                drops={str(problem): count for problem, count in drops.items()},
                queues=queues,
                lag=self._lag,
                audit=audit,
                problems=list(self._problems),
                models=sorted(self._registry.bundles),
                refused_models=self._registry.refused,
                versions=self._versions,
                degraded=reasons,
                losses=losses,
                source=self._health.source(map(text, self._session.silent_runs(SILENT))),
            )
        )
        self._told = (now, outcomes)
