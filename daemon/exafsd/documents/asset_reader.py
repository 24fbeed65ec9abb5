"""The process that reads external files, as the daemon sees it: asked, and not waited for long."""

import atexit
import threading
import time
from collections import deque

from exafsd.documents.asset_files import Answer, Request
from exafsd.helper_process import GONE, HelperProcess

#: s that the process may take to start, and to answer; the status is due every second
START, PATIENCE = 20.0, 2.0
#: s for which a file is left alone whose reading has not ended, or all where it happens again
REST = 10.0
#: files that are remembered for that
REMEMBERED = 1000


class AssetReader:
    """Reads external files in a process that may hang or die; it is started when it is needed.

    Attributes
    ----------
    troubles
        That the process was ended or has died, to be told.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: HelperProcess | None = None
        self._ready = False
        self._began = 0.0
        self._left_alone: dict[str, float] = {}  # path to time.monotonic() until when
        self._resting = 0.0
        self._failed = 0.0
        self.troubles: deque[str] = deque(maxlen=100)

    @property
    def pid(self) -> int | None:
        """Process id, None while there is none."""
        return None if self._worker is None else self._worker.pid

    def start(self) -> None:
        """Start the process, without waiting for it."""
        with self._lock:
            self._started()

    def read(self, requests: list[Request]) -> list[Answer]:
        """Answers to requests; they are `not_yet` while a file is left alone."""
        with self._lock:
            now = time.monotonic()
            until = max(self._left_alone.get(request.path, 0.0) for request in requests)
            if now < max(until, self._resting):
                text = f"{requests[0].path} could not be read: the file system does not answer"
                return [Answer("not_yet", text=text)] * len(requests)
            try:
                return self._asked(requests)
            except GONE as error:
                self._bury()
                now = time.monotonic()
                if now - self._failed < REST:
                    self._resting = now + REST
                self._failed = now
                if len(self._left_alone) >= REMEMBERED:
                    self._left_alone.clear()
                self._left_alone |= {request.path: now + REST for request in requests}
                text = f"{requests[0].path} could not be read: {type(error).__name__}: {error}"
                self.troubles.append(f"{text}; the process that reads files is started anew")
                return [Answer("not_yet", text=text)] * len(requests)

    def _asked(self, requests: list[Request]) -> list[Answer]:
        """Ask the process, once more where it has died meanwhile for some other reason."""
        for last in (False, True):
            worker = self._started()
            if not self._ready and not self._has_started(worker):
                text = "the process that reads external files is starting"
                return [Answer("not_yet", text=text)] * len(requests)
            try:
                worker.send(requests, PATIENCE)
                return worker.receive(PATIENCE)
            except TimeoutError:
                raise
            except GONE as error:
                if last:
                    raise
                self._bury()
                self.troubles.append(f"the process that reads external files has died: {error}")
        raise AssertionError  # the second turn returns or raises

    def _has_started(self, worker: HelperProcess) -> bool:
        """Whether the process is ready; raises TimeoutError if it is not for too long."""
        try:
            self._ready = worker.receive(PATIENCE) == "ready"
        except TimeoutError:
            if time.monotonic() - self._began > START:
                raise
        return self._ready

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._bury()

    def _started(self) -> HelperProcess:
        if self._worker is None:
            self._worker, self._ready = HelperProcess("exafsd.documents.asset_files"), False
            self._began = time.monotonic()
        return self._worker

    def _bury(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.bury()
            worker.close_answers()


#: one for all runs of this process
READER = AssetReader()
atexit.register(READER.close)
