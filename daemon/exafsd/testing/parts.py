"""Processes of ours on this machine, each with its log, that end when their context does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

#: s that the daemon, the proxy or the beamline may take to start on a busy machine
START_DEADLINE = 90.0
#: s that a process may take to end when asked to
STOP_DEADLINE = 10.0
#: Becomes another program, after telling Linux to send it SIGTERM (15) when its parent ends (1),
#: unless that has happened already.
TIE = """
import ctypes, os, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


class PartError(RuntimeError):
    """A process did not do its work; the text says which and where its log is."""


@dataclass
class PythonProcess:
    """A process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            raise PartError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """Last words of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end, and make it."""
        self.ask_to_end()
        try:
            return self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def python_process(
    name: str, folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[PythonProcess]:
    """Run Python with these arguments for as long as the context lasts."""
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            tied(*arguments),
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for who started it, and who ends it in order
        )
    running = PythonProcess(name, process, log)
    try:
        yield running
    finally:
        running.stop()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(condition: Callable[[], bool], running: PythonProcess, what: str) -> None:
    """Wait until a process has done something.

    Raises
    ------
    PartError
        If it ends, or takes too long.
    """
    end = time.monotonic() + START_DEADLINE
    while not condition():
        running.check()
        if time.monotonic() > end:
            raise PartError(
                f"{running.name}: no {what} after {START_DEADLINE:.0f} s:\n{running.tail()}"
            )
        time.sleep(0.05)


def wait_for_port(port: int, running: PythonProcess) -> None:
    """Wait until a process listens at a loopback port; see `wait_for`."""
    wait_for(lambda: _listens(port), running, f"port {port}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tied(*arguments: str) -> list[str]:
    """Command of a Python that ends with the process that starts it, even if that is killed.

    Only on Linux; elsewhere it ends when it is told to.
    """
    command = [sys.executable, *arguments]
    if sys.platform == "linux":
        return [sys.executable, "-I", "-S", "-c", TIE, str(os.getpid()), *command]
    return command
