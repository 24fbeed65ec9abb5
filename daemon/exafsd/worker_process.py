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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: times that a worker is started again after it has died
RESTARTS = 3
#: the live spectra come first
NICENESS = 10
#: s that a killed process may take to be gone
ENDED = 1.0
#: what goes wrong where a worker, or who has started it, is gone
GONE = (OSError, EOFError, pickle.UnpicklingError)


class Worker:
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
            env={**os.environ, **single},
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101  # pipes
        self._process, self._to, self._back = process, process.stdin, process.stdout
        self.pid = process.pid
        self.kill, self.wait = process.kill, process.wait

    def send(self, item: Any) -> None:
        """Give the process an item; raises one of `GONE` where it has died."""
        pickle.dump(item, self._to)
        self._to.flush()

    def receive(self, patience: float | None = None) -> Any:
        """Next answer; raises one of `GONE` where none comes within `patience` s, or ever."""
        # without patience several answers may have come at once, and be in the buffer already
        if patience is not None and not select.select([self._back], [], [], patience)[0]:
            raise TimeoutError(f"no answer within {patience:.0f} s")
        return pickle.load(self._back)  # noqa: S301  # our own process, by a pipe

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
        pickle.dump(item, answers)
        answers.flush()

    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
        yield lambda: pickle.load(sys.stdin.buffer), answer  # noqa: S301  # our parent's, by a pipe
