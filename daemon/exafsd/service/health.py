"""Whether something is being lost or not kept: what the status says besides that all is well."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from exafsd.contract.messages import Loss, SourceState
from exafsd.contract.vocabulary import Problem, Reason
from exafsd.documents.items import Trouble
from exafsd.logs import get_logger
from exafsd.service.intake import Intake
from exafsd.service.run_store import RunStore

log = get_logger(__name__)

#: documents that were lost, and outcomes that are not kept
LOST = frozenset({
    Problem.INBOX_FULL, Problem.SHUTDOWN, Problem.GAP, Problem.DISK, Problem.ORPHANS_FULL,
    Problem.UNSERIALISABLE, Problem.MALFORMED, Problem.JOURNAL_DAMAGED, Problem.KAFKA_KEY,
    Problem.KAFKA_DELETED,
})  # fmt: skip
UNKEPT = frozenset({
    Problem.OUTCOME_LOG, Problem.RESULTS_QUEUE_FULL, Problem.RESULTS_FAILED,
    Problem.RESULTS_PROCESS, Problem.RESULTS_SHUTDOWN, Problem.RESULTS_KAFKA,
})  # fmt: skip
#: s for which a loss is said after it has happened
RECENT = 10.0
#: s that the source may take to be there
PATIENCE = 1.5
#: s for which it is said that a run was interrupted, unless a document comes
INTERRUPTED = 60.0
#: s without a document after which an open run is named
SILENT = 60.0


class Health:
    """Counts losses, and says which are going on.

    Parameters
    ----------
    intake
        Where documents come from.
    run_store
        Journal and outcome log; None without.
    """

    def __init__(self, intake: Intake, run_store: RunStore | None) -> None:
        self._inbox, self._source, self._run_store = intake.inbox, intake.source, run_store
        self._unkept = intake.unkept
        self._sweeps: Counter[str] = Counter()  # lost, as far as it is known
        self._before: Counter[str] = Counter()
        self._lost_at: dict[str, float] = {}
        self._began = self._connected_at = time.monotonic()
        self._reasons: list[str] = []

    def lost(self, trouble: Trouble) -> None:
        """Count the sweeps of a trouble."""
        self._sweeps[trouble.reason] += trouble.sweeps

    def failures(self) -> Counter[Problem]:
        """Documents and outcomes that journal and log have not written."""
        if self._run_store is None:
            return Counter()
        return self._run_store.journal.failures + self._run_store.log.failures

    def losses(
        self, drops: Mapping[Problem, int], rejections: Mapping[str, int]
    ) -> dict[str, Loss]:
        """What was lost, by reason: `drops` are documents, or outcomes that are not kept."""
        losses = {
            str(reason): Loss(documents=drops[reason], sweeps=self._sweeps[reason])
            for reason in drops.keys() & LOST
        }
        for reason in drops.keys() & UNKEPT:
            losses[str(reason)] = Loss(sweeps=drops[reason])
        if rejections.get(Reason.OVERLOAD):
            losses[str(Reason.OVERLOAD)] = Loss(sweeps=rejections[Reason.OVERLOAD])
        return losses

    def reasons(self, losses: Mapping[str, Loss], audit: Mapping[str, float] | None) -> list[str]:
        """What is being lost or not kept, in words; empty where all is well."""
        now = time.monotonic()
        for reason, loss in losses.items():
            total = loss.documents + loss.sweeps
            if total > self._before[reason]:
                self._lost_at[reason] = now
            self._before[reason] = total
        reasons = list(self._now(now, audit))
        for reason, at in self._lost_at.items():
            if now - at < RECENT and reason != Reason.OVERLOAD:
                loss = losses[reason]
                counted = f"{loss.documents} documents, {loss.sweeps} sweeps so far"
                reasons.append(f"{Problem.explain(reason)} ({counted})")
        for text in reasons:
            if text.split(" (")[0] not in {one.split(" (")[0] for one in self._reasons}:
                log.warning("degraded", detail=text)
        self._reasons = reasons
        return reasons

    def _now(self, now: float, audit: Mapping[str, float] | None) -> Iterable[str]:
        if self._source is not None:
            if self._source.connected():
                self._connected_at = now
            elif now - self._connected_at > PATIENCE:
                yield self._source.absence
        if self._unkept is not None:
            yield self._unkept
        if self._run_store is not None:
            if self._run_store.journal.failing:
                yield f"the journal in {self._run_store.journal.folder} cannot be written"
            if self._run_store.log.failing:
                yield f"the outcome log in {self._run_store.log.folder} cannot be written"
            for uid, down in self._run_store.interrupted.items():
                if now - self._began < INTERRUPTED:
                    yield f"run {uid} goes on after {down:.0f} s; what came meanwhile is missing"
        if audit and audit.get("off"):
            yield "results are not audited against Larch any more: its process ended too often"

    def source(self, silent_runs: Iterable[str]) -> SourceState | None:
        """Whether documents can come."""
        if self._source is None:
            return None
        latest = self._inbox.latest
        return SourceState(
            address=self._source.address,
            connected=self._source.connected(),
            silent=None if latest is None else time.perf_counter() - latest,
            open_runs=list(silent_runs),
        )
