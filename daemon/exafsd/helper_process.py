"""A Python process of our own at the end of two pipes, for work that must not stop the daemon.

It is started as ``python -c``, not by multiprocessing: that would run the user's own script a
second time where exafsd lives inside a RunEngine's script without a ``__main__`` guard.
"""

import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: times that a worker is started again after it has died
RESTARTS = 3
#: the live spectra come first
NICENESS = 10
#: bytes that tell how long an item is, and that a pipe which is ready takes at once (PIPE_BUF)
SIZE, ATOMIC = 8, 512
#: s that a killed process may take to be gone
ENDED = 1.0
#: what goes wrong where a worker, or who has started it, is gone
GONE = (OSError, EOFError, pickle.UnpicklingError)


class HelperProcess:
    """One start of a process, at once; `serve` is a function without arguments in a module of ours.

    Parameters
    ----------
    module, serve
        What runs in the process: it takes and answers by `serving`.
    """

    def __init__(self, module: str, serve: str = "serve") -> None:
        single = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
        process = subprocess.Popen(  # noqa: S603  # our own interpreter and code
            [sys.executable, "-P", "-c", f"from {module} import {serve}; {serve}()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **single},
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # pipes
        self._process, self._to, self._back = process, process.stdin, process.stdout
        self.pid = process.pid
        self.kill, self.wait = process.kill, process.wait

    def send(self, item: Any, patience: float | None = None) -> None:
        """Give the process an item; raises one of `GONE` where it is dead, or does not take it."""
        end = None if patience is None else time.monotonic() + patience
        left = memoryview(_framed(item))
        while left:
            _wait_for([], [self._to], end)
            # so much goes into a pipe that is ready without waiting; without an end all of it
            left = left[os.write(self._to.fileno(), left if end is None else left[:ATOMIC]) :]

    def receive(self, patience: float | None = None) -> Any:
        """Next answer; raises one of `GONE` where none comes within `patience` s, or ever."""
        end = None if patience is None else time.monotonic() + patience
        size = int.from_bytes(self._exactly(SIZE, end), "little")
        return pickle.loads(self._exactly(size, end))  # noqa: S301  # our own process, by a pipe

    def _exactly(self, size: int, end: float | None) -> bytearray:
        data = bytearray()
        while len(data) < size:
            _wait_for([self._back], [], end)
            part = os.read(self._back.fileno(), size - len(data))
            if not part:
                raise EOFError("the process has ended")
            data += part
        return data

    def finish(self) -> None:
        """Say that no more items come."""
        with suppress(OSError):  # of what could not be written
            self._to.close()

    def bury(self) -> None:
        """End it, without waiting for what it works on."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # of what a file system that hangs holds on to
            self.wait(ENDED)
        self.finish()

    def close_answers(self) -> None:
        """Close the pipe of answers; for the thread that reads it."""
        self._back.close()


@contextmanager
def serving() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """In the process: functions that take an item and answer, until who has started it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C is for the daemon, which ends us
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print

    def answer(item: Any) -> None:
        answers.write(_framed(item))
        answers.flush()

    def take() -> Any:
        size = int.from_bytes(sys.stdin.buffer.read(SIZE), "little")
        return pickle.loads(sys.stdin.buffer.read(size))  # noqa: S301  # our parent's, by a pipe

    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        yield take, answer


def _framed(item: Any) -> bytes:
    data = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(SIZE, "little") + data


def _wait_for(readers: list[Any], writers: list[Any], end: float | None) -> None:
    """Wait until a pipe is ready; raises TimeoutError at time.monotonic() `end`."""
    if end is not None and not any(
        select.select(readers, writers, [], max(end - time.monotonic(), 0.0))
    ):
        raise TimeoutError("the process does not answer")
