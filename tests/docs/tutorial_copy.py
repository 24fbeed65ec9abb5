"""A copy of the working tree as a newcomer would have cloned it, and terminals to type into."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect

from synthetic import ROOT

#: what a terminal takes for bold, clearing lines and so on
STYLE = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block with a title: what to type in a terminal, or a file to save."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Blocks with a title, in order."""
    return [Block(*groups) for groups in BLOCK.findall(page.read_text())]


def clone(folder: Path) -> Path:
    """Tracked files and new ones that are not ignored, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # a deleted file is still in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def lend_environment(folder: Path) -> None:
    """Let make find its environment set up: this Python's, which is installed already."""
    lent = folder / ".venv-daemon"
    lent.mkdir()
    (lent / "bin").symlink_to(Path(sys.prefix) / "bin")
    (lent / ".stamp").touch()


def free_port(preferred: int) -> int:
    """Return the port that is wanted, or another one where that (or the next) is taken."""
    for port in (preferred, 0):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                port = first.getsockname()[1]
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise OSError("no free port")


class Terminal:
    """A shell that is typed into."""

    def __init__(self, folder: Path, log: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
        environment |= {"PS1": "READY> ", "TERM": "xterm", "NO_COLOR": "1"}
        self._log = log.open("w")
        self.shell = pexpect.spawn(
            "bash", ["--norc", "--noprofile"], cwd=str(folder), env=environment,
            encoding="utf-8", dimensions=(50, 160), logfile=self._log,
            # Ctrl-C is to work even if the tests themselves run in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.prompt()

    def type(self, text: str) -> None:
        """Type lines, waiting for the prompt before each but the first."""
        for number, line in enumerate(text.splitlines()):
            if number:
                self.prompt()
            self.shell.sendline(line)

    def see(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait for something on the screen."""
        self.shell.expect(pattern, timeout=seconds)
        return self.shell.match

    def prompt(self, seconds: float = 60) -> str:
        """Wait until the command is done; what it printed."""
        self.shell.expect(r"READY> ", timeout=seconds)
        return STYLE.sub("", self.shell.before)

    def status(self) -> int:
        """Exit status of the last command."""
        self.shell.sendline("echo status=$?")
        code = int(self.see(r"status=(\d+)")[1])
        self.prompt()
        return code

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Read what it prints while others are looked at, or its program would have to wait."""
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                self.shell.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=0.2)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()

    def close(self) -> None:
        """End the shell and what runs in it."""
        if self.shell.isalive():
            self.shell.sendintr()
            self.shell.sendintr()
        self.shell.close(force=True)
        self._log.close()
