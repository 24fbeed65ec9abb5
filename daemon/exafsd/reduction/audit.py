"""Some spectra once more by Larch itself, in a process of its own.

Larch's `autobk` is slow and counts in a module's global, so it gets a process, not a thread.
"""

import queue
import threading
import warnings
from collections import Counter, deque
from contextlib import suppress

import numpy as np

from exafsd.helper_process import GONE, RESTARTS, HelperProcess, serving
from exafsd.reduction.verdict import AuditJob, Verdict

#: spectra that may wait for the process; more are not audited
WAITING = 8
#: s that Larch may take for one spectrum; a scan of 4,000 points takes 0.2 s
PATIENCE = 60.0
#: verdicts that medians and maxima of the metrics are taken over
RECENT = 100


def serve() -> None:
    """Judge jobs as they come; the audit process."""
    from exafsd.reduction.judge import judge  # Larch takes seconds to import: only in this process

    warnings.simplefilter("ignore")
    with serving() as (take, answer):
        while True:
            answer(judge(take()))


class Auditor:
    """Larch in a process, started with the first job. No method waits for it but `close`.

    Parameters
    ----------
    waiting
        Jobs that may wait; more are shed and counted.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._jobs: queue.Queue[AuditJob | None] = queue.Queue(waiting)
        self._verdicts: deque[Verdict] = deque()
        self._recent: deque[Verdict] = deque(maxlen=RECENT)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # whether to start a process, or to end
        self._closing = False
        self._thread: threading.Thread | None = None
        self._worker: HelperProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id of Larch's process, None while there is none."""
        return None if self._worker is None else self._worker.pid

    @property
    def off(self) -> bool:
        """Whether the process died so often that it is not started any more."""
        return self._counts["deaths"] > RESTARTS

    def submit(self, job: AuditJob) -> bool:
        """Have a job audited; False where it is not, because others wait or the audit is off."""
        if self.off or self._closing:
            self._counts["shed"] += 1
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="exafsd-audit", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._counts["shed"] += 1
            return False
        return True

    def poll(self) -> list[Verdict]:
        """Verdicts since the last call."""
        verdicts: list[Verdict] = []
        while self._verdicts:
            verdict = self._verdicts.popleft()
            self._counts["count"] += 1
            self._counts["alarms"] += verdict.alarm
            self._counts["errors"] += verdict.error is not None
            self._recent.append(verdict)
            verdicts.append(verdict)
        return verdicts

    def metrics(self) -> dict[str, float]:
        """Counts, and what the verdicts of late were like; only numbers that are known."""
        counted = ("count", "alarms", "errors", "shed", "deaths")
        metrics = {name: float(self._counts[name]) for name in counted}
        metrics["off"] = float(self.off)
        recent = list(self._recent)
        for name, values, summary in (
            ("difference_median", [v.difference for v in recent], np.median),
            ("difference_max", [v.difference for v in recent], np.max),
            ("objective_excess_max", [v.objective / v.larch_objective - 1 for v in recent], np.max),
            ("edge_step_difference_max", [v.edge_step_difference for v in recent], np.max),
            ("e0_difference_max", [v.e0_difference for v in recent], np.max),
            ("rebin_change_median", [v.rebin_change for v in recent], np.median),
        ):
            finite = [value for value in values if value is not None and np.isfinite(value)]
            if finite:
                metrics[name] = float(summary(finite))
        return metrics

    def close(self) -> None:
        """End the process, without waiting for what it works on."""
        with self._lock:
            self._closing = True
            if self._worker is not None:
                self._worker.kill()
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(1.0)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closing:
            try:
                self._verdicts.append(self._ask(job))
            except GONE as error:
                self._bury()
                if not self._closing:
                    self._counts["deaths"] += 1
                    explanation = f"the audit process ended: {type(error).__name__}: {error}"
                    self._verdicts.append(Verdict(job.key, job.id, error=explanation))
        self._bury()

    def _ask(self, job: AuditJob) -> Verdict:
        with self._lock:
            if self._closing:
                raise EOFError
            worker = self._worker = self._worker or HelperProcess(__name__)
        worker.send(job)
        return worker.receive(PATIENCE)

    def _bury(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.bury()
            worker.close_answers()
