"""Result runs of live spectra: written by a process of their own, behind a bounded queue.

Tiled takes milliseconds for each outcome, and seconds when it is busy. The daemon only puts a
message into a queue; a thread encodes it into a pipe, and the process at its end waits for tiled.
"""

import os
import queue
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exafsd.archive.result_writer import Arrays, Report, ResultWriter
from exafsd.contract.card import Card
from exafsd.contract.frames import encode
from exafsd.contract.messages import Rejected, Result, RunStart, RunStop
from exafsd.contract.vocabulary import Problem
from exafsd.helper_process import GONE, RESTARTS, HelperProcess, serving
from exafsd.settings.analysis import Analysis


def serve() -> None:
    """Write what comes; troubles and counts are the answers."""
    with serving() as (take, answer):
        catalog, cards = take()
        writer = ResultWriter(catalog, cards, lambda *trouble: answer(("report", *trouble)))
        while True:
            name, *item = take()
            getattr(writer, name)(*item)
            if writer.lost:
                answer(("lost", dict(writer.lost)))
                writer.lost.clear()
            if name == "run_ended":
                answer(("ended", item[0].run_uid))
    os._exit(0)  # everything is written; tiled's client would take a second to be taken down


class ResultProcess:
    """Like a `ResultWriter`, but costs the caller microseconds and never waits, but in `close`.

    Parameters
    ----------
    catalog
        A tiled profile or the URI of a server; ``TILED_API_KEY`` may hold a key.
    cards
        Models that may read the spectra, by name.
    size
        Outcomes that may wait; more are lost, and counted.
    report
        Called from another thread with a reason and a sentence.

    Attributes
    ----------
    lost
        Outcomes not written: ``results_queue_full``, ``results_failed`` (the catalog's fault),
        ``results_process`` (the process died) and ``results_shutdown`` (no time at the end).
    """

    def __init__(self, catalog: str, cards: Mapping[str, Card], size: int, report: Report) -> None:
        self.lost: Counter[Problem] = Counter()
        self._about = (catalog, dict(cards))
        self._report = report
        self._full = self._closing = False
        self._size = size
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._process: HelperProcess | None = None
        self._deaths = 0
        self._lock = threading.Lock()  # of the next
        self._unfinished: Counter[str] = Counter()  # outcomes given to the process, by run
        self._begun: set[str] = set()  # runs that are not told to be whole
        self._listener: threading.Thread | None = None
        self._thread = threading.Thread(target=self._feed, name="exafsd-results", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._queue.qsize()

    def queues(self) -> dict[str, int]:
        """Outcomes that wait for the process, and runs whose result runs are not whole yet."""
        return {"results": len(self), "result_runs": len(self._begun)}

    def run_began(self, start: RunStart, analysis: Analysis) -> None:
        """A raw run has begun, to be analysed so."""
        self._begun.add(start.run_uid)
        self._queue.put(("run_began", start, analysis))

    def write_log(self, start: RunStart, log: Path, end: int) -> None:
        """Write what was logged of a run by a daemon before; the process reads it itself."""
        self._queue.put(("write_log", start, log, end))

    def write(self, message: Result | Rejected, arrays: Arrays) -> None:
        """Keep an outcome; message and arrays must not change afterwards."""
        if self._queue.qsize() < self._size:
            self._queue.put(("write", message, arrays))
            return
        self.lost[Problem.RESULTS_QUEUE_FULL] += 1
        if not self._full:  # said once, not for each of thousands
            self._full = True
            self._report(
                Problem.RESULTS,
                "results come faster than the catalog takes them; some are not written."
                " Write their runs again with `exafsd replay --write`",
            )

    def run_ended(self, stop: RunStop) -> None:
        """A raw run is over."""
        self._queue.put(("run_ended", stop))

    def close(self, patience: float) -> None:
        """Wait so many s for what is left to be written, then end the process."""
        end = time.monotonic() + patience
        self._queue.put(None)
        self._thread.join(patience)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(end - time.monotonic(), 0.0))
        self._closing = True
        self._deaths = RESTARTS  # and one more is the last
        while True:
            process = self._process  # the thread may bury it meanwhile
            if process is not None:
                process.kill()
            if not self._thread.is_alive():
                break
            self._thread.join(0.1)  # it was caught in a pipe that nobody emptied
        if self._listener is not None:
            self._listener.join()
        if self._unfinished:
            self._bury()
        elif self._process is not None:
            self._process.wait()

    def _feed(self) -> None:
        """Pass items on to the process until there is a None."""
        while (item := self._queue.get()) is not None:
            name, first, *rest = item
            if self._deaths > RESTARTS:
                self._lose(name == "write")
                self._begun.discard(first.run_uid)
                continue
            with self._lock:
                self._unfinished[first.run_uid] += name == "write"
            try:
                if name == "write":  # a copy, because encoding fills in the list of arrays
                    item = ("write_frames", encode(first.model_copy(), *rest))
                self._send(item)
            except OSError:
                self._bury()
            except Exception as error:  # one outcome must not stop the next
                self.lost[Problem.RESULTS_FAILED] += 1
                self._report(
                    Problem.RESULTS, f"run {first.run_uid}: {type(error).__name__}: {error}"
                )
        if self._process is not None:
            self._process.finish()

    def _send(self, item: tuple[Any, ...]) -> None:
        if self._process is None:
            self._process = HelperProcess(__name__)
            self._listener = threading.Thread(
                target=self._listen, args=(self._process,), name="exafsd-results-trouble",
                daemon=True,
            )  # fmt: skip
            self._listener.start()
            self._process.send(self._about)
        self._process.send(item)

    def _bury(self) -> None:
        """The process has died, and with it what it had not written."""
        process, self._process = self._process, None
        if process is not None:
            process.bury()
        self._deaths += 1
        with self._lock:
            self._lose(self._unfinished.total())
            runs = set(self._begun if self._closing else self._unfinished)
            self._begun.difference_update(runs)
            self._unfinished.clear()
        if self._closing:
            why = "the daemon ended before the catalog had taken all results"
        elif self._deaths > RESTARTS:
            why = "the process that writes result runs ended once more, and is not started again"
        else:
            why = "the process that writes result runs has ended before its time"
        self._report(
            Problem.RESULTS,
            f"{why}: those of {', '.join(sorted(runs))} are not whole. Write them again with"
            " `exafsd replay --write`",
        )

    def _lose(self, outcomes: int) -> None:
        if outcomes:
            why = Problem.RESULTS_SHUTDOWN if self._closing else Problem.RESULTS_PROCESS
            self.lost[why] += outcomes

    def _listen(self, process: HelperProcess) -> None:
        """Pass on what the process tells, until it ends."""
        with suppress(*GONE):
            while True:
                name, *details = process.receive()
                if name == "report":
                    self._report(*details)
                elif name == "lost":
                    self.lost.update(*details)
                else:
                    with self._lock:
                        del self._unfinished[details[0]]
                        self._begun.discard(details[0])
        process.close_answers()
