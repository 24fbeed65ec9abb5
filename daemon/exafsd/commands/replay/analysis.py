"""One archived run after the other, in this process or in several; what comes out, in run order."""

import multiprocessing
import pickle
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from exafsd.archive.sources import ArchiveSource, open_source
from exafsd.commands.replay.means import Normalised, means_of_ends, normalised, without_answers
from exafsd.documents.items import Began, Ended
from exafsd.inference.registry import Registry
from exafsd.outcome import Outcome
from exafsd.pipeline import Pipeline
from exafsd.service import wiring
from exafsd.service.session import Event
from exafsd.settings import Settings
from exafsd.spectra import Run

#: bytes of outcomes of a process that wait for their turn: some 14,000 with their arrays
AHEAD = 256_000_000


@dataclass(frozen=True)
class Failed:
    """A run, or the rest of it, cannot be replayed."""

    detail: str


def in_turn(
    source: ArchiveSource, uids: Sequence[str], settings: Settings, realtime: bool
) -> Iterator[tuple[str, Iterator[Event | Failed]]]:
    """Items of each run, analysed as they are taken."""
    pipeline = wiring.make_pipeline(settings)
    try:
        for uid in uids:
            yield uid, analyse(source, uid, settings, pipeline, realtime)
    finally:
        pipeline.close()


def in_processes(
    archive: str, uids: Sequence[str], settings: Settings, processes: int
) -> Iterator[tuple[str, Iterator[Event | Failed]]]:
    """Items of each run, in the same order; runs are dealt out to processes in turn.

    What a process has ahead of its turn waits here, up to `AHEAD` bytes; then the process does.
    """
    context = multiprocessing.get_context("spawn")  # threads of Larch and tiled do not fork
    with ExitStack() as stack:
        ahead: list[SentAhead] = []
        for number in range(min(processes, len(uids))):
            ours, theirs = context.Pipe(duplex=False)
            # as a dictionary: the class of settings from a file exists in this process only
            about = (theirs, archive, uids[number::processes], settings.model_dump())
            process = context.Process(target=_work, args=about, daemon=True)
            process.start()
            theirs.close()
            ahead.append(stack.enter_context(closing(SentAhead(ours))))
            stack.callback(process.join)
            stack.callback(process.terminate)
        for number, uid in enumerate(uids):
            yield uid, _received(ahead[number % len(ahead)], uid)


def analyse(
    source: ArchiveSource, uid: str, settings: Settings, pipeline: Pipeline, realtime: bool
) -> Iterator[Event | Failed]:
    """Items of a run; whatever its archive does, the last one says how it ended."""
    counts: Counter[str] = Counter()
    run: Run | None = None  # while it is open
    damage: list[str] = []
    roots = (*settings.source.asset_roots, *source.asset_roots)
    try:
        ends = settings.composition.ends
        if ends and settings.composition.enabled != "off":
            pipeline.lend(uid, means_of_ends(reduced(source, uid, settings), ends))
        documents = source.run(uid).documents(damage.append)
        session = wiring.make_session(settings, pipeline, roots)
        for event in session.replay(in_real_time(documents) if realtime else documents):
            if isinstance(event, Began):
                run = event.run
                event = replace(event, delivery="replay")
            elif isinstance(event, Ended):
                run = None
            elif isinstance(event, Outcome):
                event.message.time = time.time()
                event.message.delivery = "replay"
                counts[event.message.kind] += 1
            yield event
    except Exception as error:  # tiled, httpx, files and databases each raise their own
        pipeline.end(uid)
        if run is not None:
            yield Ended(run, "lost", counts)
        yield Failed(f"run {uid}: {type(error).__name__}: {error}")
    for text in damage:
        yield Failed(f"run {uid}: {text}")


def reduced(source: ArchiveSource, uid: str, settings: Settings) -> Iterator[Normalised]:
    """Whole sweeps of a run, reduced only.

    Raises
    ------
    ValueError
        If the run, or the rest of it, cannot be read.
    """
    settings = without_answers(settings)
    with closing(wiring.make_pipeline(settings, Registry({}, {}))) as pipeline:
        for event in analyse(source, uid, settings, pipeline, realtime=False):
            if isinstance(event, Failed):
                raise ValueError(event.detail)
            if isinstance(event, Outcome):
                one = normalised(event.message.model_dump(mode="json"), event.arrays)
                if one is not None:
                    yield one


def _work(pipe: Connection, archive: str, uids: Sequence[str], settings: dict[str, Any]) -> None:
    """Body of a process: items of its runs, None after each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    try:
        source = open_source(archive)
        for _, items in in_turn(source, uids, Settings(**settings), realtime=False):
            for item in items:
                pipe.send(item)
            pipe.send(None)
    except BrokenPipeError:
        pass  # the parent has gone


class SentAhead:
    """What a process has sent before its turn, taken off its pipe by a thread.

    A pipe holds 64 kB, some three outcomes: processes would wait for each other's runs.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sent: deque[bytes] = deque()
        self._size = 0
        self._ended = self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._fill, name="exafsd-replay", daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """Next item; raises EOFError where the process has ended."""
        with self._change:
            self._change.wait_for(lambda: self._sent or self._ended)
            if not self._sent:
                raise EOFError
            data = self._sent.popleft()
            self._size -= len(data)
            self._change.notify()
        return pickle.loads(data)  # noqa: S301  # our own process, by a pipe

    def close(self) -> None:
        """Take nothing more; the process has ended."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()
        self._pipe.close()

    def _fill(self) -> None:
        try:
            while not self._closed:
                data = self._pipe.recv_bytes()
                with self._change:
                    self._change.wait_for(lambda: self._size < AHEAD or self._closed)
                    self._sent.append(data)
                    self._size += len(data)
                    self._change.notify()
        except (EOFError, OSError):
            with self._change:
                self._ended = True
                self._change.notify()


def _received(ahead: SentAhead, uid: str) -> Iterator[Event | Failed]:
    try:
        yield from iter(ahead.take, None)
    except EOFError:
        yield Failed(f"run {uid}: the process that analysed it has ended")


def in_real_time(documents: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Documents with the pauses between their times."""
    began = None
    for name, document in documents:
        when = document.get("time")
        when = when[-1] if isinstance(when, (list, tuple)) and when else when
        if isinstance(when, (int, float)):
            if began is None:
                began = (when, time.monotonic())
            time.sleep(max(0.0, (when - began[0]) - (time.monotonic() - began[1])))
        yield name, document
