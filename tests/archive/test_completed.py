"""A result run of a run that goes on after a kill has the outcomes from before, out of the log."""

from pathlib import Path
from typing import Any

import msgpack
import pytest
from heated_runs import Published, assert_equal, cards, read_back, renamed

from exafsd.archive.outcome_log import OUTCOMES_FORMAT, Logged
from exafsd.archive.records import RecordFile
from exafsd.archive.result_process import ResultProcess
from exafsd.archive.results import find_result_run
from exafsd.contract.frames import encode
from exafsd.contract.messages import Rejected, Result
from exafsd.testing.catalog_server import CatalogServer


def no_report(reason: str, detail: str) -> None:
    pytest.fail(f"{reason}: {detail}")


class Half:
    """Takes outcomes: the first ones into a log, as a daemon that is killed, then into a sink."""

    def __init__(self, sink: ResultProcess, path: Path, before: int) -> None:
        self.sink, self.before, self.count = sink, before, 0
        self.log, self.start = RecordFile(path, OUTCOMES_FORMAT), None

    def run_began(self, start: Any, analysis: Any) -> None:
        self.start = start, analysis

    def write(self, message: Result | Rejected, arrays: Any) -> None:
        self.count += 1
        if self.count <= self.before:
            entry = Logged.of(message, encode(message.model_copy(), arrays))
            self.log.append(msgpack.packb(tuple(entry)) or b"")
            return
        if self.count == self.before + 1:
            self.sink.run_began(*self.start)
            self.sink.write_log(self.start[0], self.log.path, self.log.size)
        self.sink.write(message, arrays)

    def run_ended(self, stop: Any) -> None:
        self.sink.run_ended(stop)


def test_a_result_run_is_completed_from_the_log(
    catalog_server: CatalogServer, journal_folder: Path, tmp_path: Path, client: Any
) -> None:
    renamed(journal_folder, tmp_path, "raw-run-h")
    sink = ResultProcess(catalog_server.uri, cards(), 100, no_report)
    out = Published(Half(sink, tmp_path / "half.log", 5))
    out.run(tmp_path, "raw-run-h")
    sink.close(60.0)
    run = find_result_run(client, "raw-run-h")
    assert run.metadata["stop"]["exit_status"] == "success"
    assert_equal(read_back(run), out.wire)
