"""The daemon's life: take documents, process sweeps, publish, tell how it is, end cleanly."""

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from exafsd.contract.messages import Rejected, Result, RunStart, RunStop, Status
from exafsd.documents.inbox import Arrival, Inbox
from exafsd.documents.items import Item, Problem, RunBegan, RunEnded
from exafsd.documents.router import Router
from exafsd.pipeline import Outcome, Pipeline
from exafsd.publishing import Publisher
from exafsd.publishing.outcomes import run_start, run_stop, text
from exafsd.service.pace import Pace
from exafsd.settings.analysis import Analysis
from exafsd.settings.settings import Service as ServiceSettings
from exafsd.spectra import Sweep

log = logging.getLogger(__name__)

#: s the worker waits for a document before it looks at clock and signals
TICK = 0.05
#: s after which a sweep is processed although more documents keep coming
PATIENCE = 0.005
#: latest troubles kept for the status
PROBLEMS = 20
#: part of `service.shutdown` that is left for results under way if there are too many documents
LAST_WORDS = 1 / 8


class Source(Protocol):
    """Something that puts documents into the inbox."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End; nothing is put afterwards."""
        ...


class Writer(Protocol):
    """Something that keeps documents, such as the journal; it never raises."""

    def write(self, name: str, document: Any) -> None:
        """Keep a document."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Sink(Protocol):
    """Something that keeps results, such as a catalog; no method raises, and only `close` waits."""

    #: outcomes that were not kept, by reason
    lost: Counter[str]

    def queues(self) -> Mapping[str, int]:
        """What is not kept yet, by what it waits for."""
        ...

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """Begin the results of a run."""
        ...

    def write(self, message: Result | Rejected, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep an outcome."""
        ...

    def run_ended(self, stop: RunStop) -> None:
        """End the results of a run."""
        ...

    def close(self, patience: float) -> None:
        """Finish within about `patience` s; what is not kept by then is lost, and told."""
        ...


class Service:
    """Worker loop around a pipeline; `run` returns when stopped."""

    def __init__(
        self,
        inbox: Inbox,
        router: Router,
        pipeline: Pipeline,
        publisher: Publisher,
        settings: ServiceSettings,
        heartbeat: float,
        source: Source | None = None,
        journal: Writer | None = None,
        sink: Sink | None = None,
        models: Iterable[str] = (),
        refused_models: dict[str, str] | None = None,
        versions: dict[str, str] | None = None,
    ) -> None:
        self._inbox = inbox
        self._router = router
        self._pipeline = pipeline
        self._publisher = publisher
        self._settings = settings
        self._heartbeat = heartbeat
        self._source = source
        self._journal = journal
        self._sink = sink
        self._about = {
            "models": sorted(models),
            "refused_models": refused_models or {},
            "versions": versions or {},
        }
        self._stopping = threading.Event()
        self._analyses: dict[str, Analysis] = {}
        self._counts: dict[str, Counter[str]] = {}  # run uid -> result, rejected
        self._results = 0
        self._rejections: Counter[str] = Counter()
        self._problems: deque[str] = deque(maxlen=PROBLEMS)
        self._problem_counts: Counter[str] = Counter()
        self._lag: float | None = None
        self._pending: list[Sweep] = []  # assembled, to be processed together
        self._pending_since = 0.0
        self._shedding = False
        self._pace = Pace()
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
        if self._source is not None:
            try:
                self._source.start()
            except OSError:
                self._publisher.close()
                raise
        self._status("ready")
        log.info("ready models=%s", ",".join(self._about["models"]) or "none")
        if on_ready is not None:
            on_ready()
        while not self._stopping.is_set():
            self._step(TICK)
            if time.monotonic() - self._told[0] >= self._heartbeat:
                self._shedding = self._shedding and len(self._inbox) > 0
                self._status("overloaded" if self._shedding else "ready")
        self._finish()

    def _finish(self) -> None:
        end = time.monotonic() + self._settings.shutdown
        last_words = LAST_WORDS * self._settings.shutdown if self._sink is not None else 0.0
        self._status("stopping")
        if self._source is not None:
            self._source.stop()
        while len(self._inbox) and time.monotonic() < end - last_words:
            self._step(0.0)
        left, problems = self._inbox.empty()
        if left:
            self._inbox.drops["shutdown"] += left
            log.warning("stopping: %d documents were not processed in time", left)
        for problem in problems:
            self._tell(problem)
        self._handle_all(self._router.close())
        self._flush()
        self._pipeline.close()
        if self._journal is not None:
            self._journal.close()
        if self._sink is not None:
            self._sink.close(max(end - time.monotonic(), 0.0))
            for problem in self._inbox.empty()[1]:  # what the sink could not keep
                self._tell(problem)
        self._status("stopped")
        self._publisher.close()
        log.info("stopped results=%d rejected=%d", self._results, self._rejections.total())

    def _step(self, timeout: float) -> None:
        """Take documents while there are some, or until a batch is full; process its sweeps."""
        arrival = self._inbox.get(timeout)
        began = time.perf_counter()
        while arrival is not None:
            self._take(arrival)
            now, wait = time.perf_counter(), 0.0
            if self._pending:
                waited = now - self._pending_since
                wait = self._settings.batch_wait - waited
                if wait <= 0 and waited > PATIENCE:
                    break
            elif now - began > TICK:  # the status is due now and then
                break
            arrival = self._inbox.get(max(wait, 0.0))
        if self._router.waiting:
            self._handle_all(self._router.poll())
        self._flush()

    def _take(self, arrival: Arrival | Problem) -> None:
        if isinstance(arrival, Problem):
            self._tell(arrival)  # the inbox has counted it
            return
        if self._journal is not None:
            self._journal.write(arrival.name, arrival.document)
        self._handle_all(self._router.feed(*arrival))

    def _handle_all(self, items: Iterable[Item]) -> None:
        """Handle items; whatever goes wrong with one is told, and the next is handled."""
        for item in items:
            try:
                self._handle(item)
            except Exception as error:
                self._internal(item, error)

    def _internal(self, item: object, error: Exception) -> None:
        log.exception("internal error item=%s", type(item).__name__)
        what = text(f"{type(item).__name__}: {type(error).__name__}: {error}")
        self._problem(Problem("internal", f"please report it: {what}"))

    def _handle(self, item: Item) -> None:
        if isinstance(item, Sweep):
            if not self._pending:
                self._pending_since = time.perf_counter()
            self._pending.append(item)
            if len(self._pending) >= self._settings.batch:
                self._flush()
        elif isinstance(item, RunBegan):
            run = item.run
            self._analyses[run.uid] = item.analysis
            self._publisher.library.keep_settings(item.analysis)
            self._counts[run.uid] = Counter()
            start = run_start(run)
            self._publisher.send(start)
            if self._sink is not None:
                self._sink.run_began(start, item.analysis)
            log.info("run started run_uid=%s scan_id=%s", run.uid, run.scan_id)
        elif isinstance(item, RunEnded):
            self._run_ended(item)
        else:
            self._problem(item)

    def _problem(self, problem: Problem) -> None:
        self._problem_counts[problem.reason] += 1
        self._tell(problem)

    def _tell(self, problem: Problem) -> None:
        self._problems.append(text(f"{problem.reason}: {problem.detail}"))
        log.warning("problem reason=%s detail=%s", problem.reason, text(problem.detail))

    def _run_ended(self, item: RunEnded) -> None:
        self._flush()  # its last sweeps come before its end
        uid = item.run.uid
        counts = self._counts.pop(uid, Counter())
        self._analyses.pop(uid, None)
        self._pipeline.end(uid)
        stop = run_stop(item.run, item.exit_status, counts)
        self._publisher.send(stop)
        if self._sink is not None:
            self._sink.run_ended(stop)
        log.info(
            "run ended run_uid=%s exit_status=%s results=%d rejected=%d",
            uid,
            item.exit_status,
            counts["result"],
            counts["rejected"],
        )

    def _flush(self) -> None:
        """Process the sweeps that are there."""
        if not self._pending:
            return
        for told in self._pipeline.audit():
            self._problem(Problem("audit", told))
        sweeps, self._pending = self._pending, []
        in_time, longest = [], 0.0
        for sweep in sweeps:
            waited = 0.0 if sweep.received is None else time.perf_counter() - sweep.received
            self._shedding = waited > self._settings.max_lag
            if self._shedding:
                self._shed(sweep, waited)
            else:
                in_time.append(sweep)
                longest = max(longest, waited)
        if not in_time:
            return
        room = self._pace.room(len(in_time), longest, time.monotonic())
        todo = [(sweep, self._analyses[sweep.run.uid]) for sweep in in_time]
        found = self._pipeline.process_many(todo, room)
        self._pace.count(sum(map(len, found)), time.monotonic())
        for sweep, outcomes in zip(in_time, found, strict=True):
            for outcome in outcomes:
                try:
                    self._publish(outcome, sweep)
                except Exception as error:
                    self._internal(outcome, error)

    def _shed(self, sweep: Sweep, waited: float) -> None:
        detail = (
            f"it waited {waited:.1f} s, more than service.max_lag: spectra come faster than"
            " they can be processed. It is in the archive and can be replayed"
        )
        analysis = self._analyses[sweep.run.uid]
        for outcome in self._pipeline.reject(sweep, analysis, "overload", detail):
            self._publish(outcome, sweep)

    def _publish(self, outcome: Outcome, sweep: Sweep) -> None:
        message = outcome.message
        if message.kind == "result":
            self._results += 1
        else:
            self._rejections[message.reason] += 1
            log.info("rejected id=%s reason=%s", message.id, message.reason)
        self._counts[sweep.run.uid][message.kind] += 1
        if sweep.received is not None:
            message.timing_ms.published = (time.perf_counter() - sweep.received) * 1e3
        self._publisher.send(message, outcome.arrays)
        if self._sink is not None:
            self._sink.write(message, outcome.arrays)
        if sweep.acquired[1] is not None:
            self._lag = time.time() - sweep.acquired[1]

    def _status(self, state: str) -> None:
        now = time.monotonic()
        outcomes = self._results + self._rejections.total()
        before, told = self._told
        drops = Counter(self._inbox.drops)
        drops.update(self._problem_counts)
        queues = {"inbox": len(self._inbox), "runs": self._router.open_runs}
        if self._sink is not None:
            drops.update(self._sink.lost)
            queues |= self._sink.queues()
        self._publisher.send(
            Status(
                state=state,  # type: ignore[arg-type]
                uptime=now - self._began,
                results=self._results,
                rejected=self._rejections.total(),
                rate=(outcomes - told) / max(now - before, 1e-3),
                rejections=dict(self._rejections),
                drops=dict(drops),
                queues=queues,
                lag=self._lag,
                audit=self._pipeline.audit_metrics(),
                problems=list(self._problems),
                **self._about,  # type: ignore[arg-type]
            )
        )
        self._told = (now, outcomes)
