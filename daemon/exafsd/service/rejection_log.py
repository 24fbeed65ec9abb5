"""Rejections in the log: the first few of each run and reason, then how many there were."""

from collections import Counter

from exafsd.contract.messages import Rejected
from exafsd.contract.vocabulary import Reason
from exafsd.logs import get_logger

log = get_logger(__name__)

#: lines for one run and reason; a beamline without light would write hundreds a second
LINES = 3


class RejectionLog:
    """Counts rejections by run and reason, and logs the first of them one by one."""

    def __init__(self) -> None:
        self._runs: dict[str, Counter[Reason | str]] = {}

    def add(self, message: Rejected) -> None:
        """Count a rejection; log it if it is among the first of its kind."""
        counts = self._runs.setdefault(message.run_uid, Counter())
        counts[message.reason] += 1
        if counts[message.reason] <= LINES:
            log.info(
                "rejected", id=message.id, run_uid=message.run_uid, reason=str(message.reason),
                detail=message.detail, count=counts[message.reason],
            )  # fmt: skip

    def end(self, run_uid: str) -> None:
        """Log how many there were of each reason that was not logged one by one."""
        for reason, count in self._runs.pop(run_uid, Counter()).items():
            if count > LINES:
                log.info("rejected in all", run_uid=run_uid, reason=str(reason), count=count)
