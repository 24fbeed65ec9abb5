"""The ``exafsd`` command in this process: a test that is not about the process saves its start."""

import logging
from dataclasses import dataclass

from typer.testing import CliRunner

from exafsd.commands.cli import app


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def exafsd(*arguments: object, expect: int = 0) -> Finished:
    """Run a command as if it were typed; it must end with the exit code `expect`."""
    loggers = [logging.getLogger(), logging.getLogger("exafsd")]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    try:
        result = CliRunner().invoke(app, [*map(str, arguments)])
    finally:
        for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == expect, result.stdout + result.stderr
    return Finished(result.exit_code, result.stdout, result.stderr)
