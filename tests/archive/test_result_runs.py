"""Results written as Bluesky runs are found by the raw run, and are what was on the wire."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heated_runs import SWEEPS, Published, assert_equal, cards, kinds, read_back, renamed

from exafsd import __version__
from exafsd.archive import result_run
from exafsd.archive.catalog import CatalogError
from exafsd.archive.result_process import ResultProcess
from exafsd.archive.result_writer import ResultWriter
from exafsd.archive.results import find_result_run, headers, is_done, result_runs
from exafsd.contract.columns import column, model_columns, unique
from exafsd.contract.messages import Result, RunStop
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from synthetic import ROOT

#: s that a sink may take to end
PATIENCE = 3.0
#: outcomes of one run: two channels
OUTCOMES = {"result": 2 * (SWEEPS - 1), "rejected": 2}


def no_report(reason: str, detail: str) -> None:
    pytest.fail(f"{reason}: {detail}")


@pytest.fixture(scope="module")
def published(
    catalog_server: CatalogServer, journal_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """Results of a run, written to the catalog."""
    folder = tmp_path_factory.mktemp("published")
    renamed(journal_folder, folder, "raw-run-p")
    out = Published(ResultWriter(catalog_server.uri, cards(), no_report))
    out.run(folder, "raw-run-p")
    out.sink.close()
    return out


def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def test_found_by_the_raw_uid_and_equal_to_the_wire(client: Any, published: Published) -> None:
    assert kinds(published.wire) == OUTCOMES
    run = find_result_run(client, "raw-run-p")
    start, stop = run.metadata["start"], run.metadata["stop"]
    assert start["plan_name"] == "exafsd"
    assert start["original_run_uid"] == start["parent_uid"] == "raw-run-p"
    assert start["parent_scan_id"] == 0
    assert start["sample"] == {"name": "Cu foil 0"}
    analysis = start["analysis"]
    assert analysis["code"] == "exafsd"
    assert analysis["version"] == __version__
    assert analysis["model"] == "cu-k-fcc"
    assert analysis["model_sha256"] == analysis["models"]["cu-k-fcc"]
    assert analysis["settings_sha256"] == load().analysis.sha256
    assert analysis["settings"]["reduction"]["engine"] == "plan"
    assert stop["exit_status"] == "success"
    assert stop["num_events"] == {"primary": sum(OUTCOMES.values())}
    assert_equal(read_back(run), published.wire)
    assert list(headers(run)) == [message.header for message in published.wire]
    # by the result run's own uid, and by the beginning of the raw one's
    assert find_result_run(client, start["uid"]).metadata["start"]["uid"] == start["uid"]
    with pytest.raises(CatalogError, match="no run"):
        find_result_run(client, "nothing-of-this-name")


def test_columns_are_the_numbers(client: Any, published: Published) -> None:
    dataset = find_result_run(client, "raw-run-p")["primary"].read()
    for place, message in enumerate(published.wire):
        row, header = dataset.isel(time=place), message.header
        assert str(row["id"].values) == header["id"]
        assert int(row["sweep"]) == header["sweep"]
        assert float(row["time"]) == header["acquired"]["end"]
        assert float(row["context_temperature"]) == header["context"]["temperature"]["value"]
        # what the sample is made of says nothing about the foil behind it
        assert (header["truth"] is None) == (header["channel"] == "reference")
        truth = header["truth"] or {"r": np.nan}
        np.testing.assert_equal(float(row["truth_r"]), truth["r"])
        if header["kind"] == "rejected":
            assert str(row["reason"].values) == header["reason"]
            assert np.isnan(row["chi_k2"]).all()
            assert np.isnan(float(row["Cu_1_r"]))
            continue
        assert header["shells"], "the model reads the simulated foil"
        for shell in header["shells"]:
            for name in ("n_s02", "r", "sigma2"):
                key = column(*shell["id"].split("/"), name)
                assert float(row[key]) == shell[name]["value"]
                assert float(row[f"{key}_std"]) == shell[name]["std"]
        assert float(row["Cu_e0_shift"]) == header["phases"][0]["e0_shift"]["value"]
        assert float(row["edge_step"]) == header["edge_step"]["value"]
        np.testing.assert_array_equal(row["chi_k2"], message.arrays["chi_k2"])
    hints = find_result_run(client, "raw-run-p")["primary"].metadata["hints"]
    assert {"Cu_1_r", "Cu_1_sigma2", "edge_step"} <= set(hints["exafsd"]["fields"])


def test_the_lines_of_the_docs(
    catalog_server: CatalogServer, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three lines a user copies, with this server's address in the place of the profile."""
    text = (ROOT / "docs" / "howto" / "find-results.md").read_text()
    (code,) = re.findall(r"```python\n(from tiled.*?)```", text, re.DOTALL)
    code = code.replace('from_profile("beamline")', f'from_uri("{catalog_server.uri}")')
    code = code.replace("from_profile", "from_uri").replace("RAW_UID", '"raw-run-p"')
    names: dict[str, Any] = {}
    exec(code, names)
    results = names["results"]
    assert results.sizes["time"] == len(published.wire)
    good = results.where(results["kind"] == "result", drop=True)
    assert 2.4 < float(good["Cu_1_r"].mean()) < 2.7
    names["catalog"].context.close()


def test_spectra_of_different_lengths(
    client: Any, journal_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter ones are as they were; one with no room is left out, and said."""
    monkeypatch.setattr(result_run, "BATCH", 5)  # the first five settle the room for the rest
    lengths = [400, 398, 400, 400, 397, 400, 403, 404]
    mu = ("energy", "norm", "flat")

    def change(place: int, arrays: dict[str, Any]) -> dict[str, Any]:
        return {k: a[:1].repeat(lengths[place]) if k in mu else a for k, a in arrays.items()}

    reports: list[str] = []
    out = Published(ResultWriter(client, cards(), lambda *words: reports.append(words[1])))
    renamed(journal_folder, tmp_path, "raw-run-l")
    wire = out.run(tmp_path, "raw-run-l", change=change)
    stored = read_back(find_result_run(client, "raw-run-l"))
    (long,) = (i for i, m in enumerate(wire) if len(m.arrays.get("energy", ())) > 403)
    assert set(wire[long].arrays) - set(stored[long].arrays) == set(mu)
    np.testing.assert_array_equal(stored[long].arrays["chi_k2"], wire[long].arrays["chi_k2"])
    assert_equal(
        [m for i, m in enumerate(stored) if i != long], [m for i, m in enumerate(wire) if i != long]
    )
    assert len(reports) == 1
    assert "1 spectra have more energies" in reports[0]


def test_what_counts_as_done(client: Any, published: Published, journal_folder: Path) -> None:
    sha256 = load().analysis.sha256

    def done(uid: str, settings: str = sha256, version: str = __version__, **more: Any) -> bool:
        return is_done(client, uid, settings, version, more.get("models", cards()))

    assert done("raw-run-p")
    assert not done("raw-run-p", settings="other")
    assert not done("raw-run-p", version="0.0.0")
    assert not done("raw-run-p", models={})
    assert not done("never-analysed")
    # a run that was cut off, and one of which outcomes are missing, are not done
    for ending in ({"exit_status": "lost"}, {"results": 99}):
        writer = ResultWriter(client, cards(), no_report)
        began, stop = published.began, published.ended.stop
        writer.run_began(began.start.model_copy(update={"run_uid": "cut"}), began.analysis)
        empty = {"run_uid": "cut", "results": 0, "rejected": 0}
        writer.run_ended(stop.model_copy(update=empty | ending))
        assert not done("cut")
    assert len(result_runs(client, "cut")) == 2
    assert list(headers(find_result_run(client, "cut"))) == []
    assert read_back(find_result_run(client, "cut")) == []


@pytest.mark.expects_error_log
def test_a_catalog_that_is_away_does_no_harm(
    journal_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    reports: list[str] = []
    writer = ResultWriter(
        "http://127.0.0.1:9/api/v1", cards(), lambda *words: reports.append(words[1])
    )
    out = Published(writer)
    out.run(journal_folder, "raw-run-0")
    assert writer.lost["results_failed"] == len(out.wire)
    assert len(reports) == 1
    assert "raw-run-0" in reports[0]


def test_a_catalog_that_goes_away_later(published: Published) -> None:
    """Outcomes that were taken already count as lost as well."""

    class Gone(ResultWriter):
        def _emit(self) -> Any:
            def emit(name: str, document: dict[str, Any]) -> None:
                raise ConnectionError("gone")

            return emit

    reports: list[str] = []
    writer = Gone("nowhere", cards(), lambda *words: reports.append(words[1]))
    writer.run_began(published.began.start, published.began.analysis)
    for _ in range(3):
        writer.write(*_result(published))
    stop = published.ended.stop
    writer.run_ended(stop)
    assert writer.lost == {"results_failed": 3}
    assert len(reports) == 1


class TestProcess:
    """The sink of the live daemon, behind a queue and a pipe."""

    def test_writes_what_the_wire_has(
        self, catalog_server: CatalogServer, client: Any, journal_folder: Path, tmp_path: Path
    ) -> None:
        sink = ResultProcess(catalog_server.uri, cards(), 100, no_report)
        out = Published(sink)
        renamed(journal_folder, tmp_path, "raw-run-w")
        wire = out.run(tmp_path, "raw-run-w")
        until(lambda: is_done(client, "raw-run-w", load().analysis.sha256, __version__, cards()))
        until(lambda: not any(sink.queues().values()))
        sink.close(PATIENCE)
        assert not sink.lost
        assert_equal(read_back(find_result_run(client, "raw-run-w")), wire)

    def test_a_full_queue_is_counted_and_said_once(
        self, catalog_server: CatalogServer, client: Any, published: Published
    ) -> None:
        reports: list[str] = []
        sink = ResultProcess(
            catalog_server.uri, cards(), 2, lambda *words: reports.append(words[1])
        )
        began, stop = published.began, published.ended.stop
        header = {**published.wire[0].header, "run_uid": "too-fast"}
        message = Result.model_validate(header)
        sink.run_began(began.start.model_copy(update={"run_uid": "too-fast"}), began.analysis)
        for _ in range(500):
            sink.write(message, published.wire[0].arrays)
        lost = sink.lost["results_queue_full"]
        assert 0 < lost < 500
        until(lambda: len(sink) == 0)
        sink.run_ended(
            stop.model_copy(update={"run_uid": "too-fast", "results": 500, "rejected": 0})
        )
        until(lambda: (r := result_runs(client, "too-fast")) and r[-1].metadata.get("stop"))
        sink.close(PATIENCE)
        assert len(reports) == 1
        assert "faster than the catalog" in reports[0]
        stored = result_runs(client, "too-fast")[-1].metadata["stop"]
        assert stored["exit_status"] == "fail"
        assert stored["reason"] == f"{lost} outcomes are missing"

    def test_a_killed_process_is_said_and_the_next_run_written(
        self,
        catalog_server: CatalogServer,
        client: Any,
        published: Published,
        journal_folder: Path,
        tmp_path: Path,
    ) -> None:
        reports: list[str] = []
        sink = ResultProcess(
            catalog_server.uri, cards(), 100, lambda *words: reports.append(words[1])
        )
        began, stop = published.began, published.ended.stop
        sink.run_began(began.start.model_copy(update={"run_uid": "killed"}), began.analysis)
        process = until(lambda: sink._process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        sink.run_ended(stop.model_copy(update={"run_uid": "killed"}))
        until(lambda: reports)
        assert "killed" in reports[0]
        renamed(journal_folder, tmp_path, "raw-run-k")
        wire = Published(sink).run(tmp_path, "raw-run-k")
        until(lambda: is_done(client, "raw-run-k", load().analysis.sha256, __version__, cards()))
        sink.close(PATIENCE)
        assert_equal(read_back(find_result_run(client, "raw-run-k")), wire)

    def test_closing_does_not_wait_for_a_catalog_that_is_away(self, published: Published) -> None:
        reports: list[str] = []
        sink = ResultProcess(
            "http://127.0.0.1:9/api/v1", cards(), 100, lambda *words: reports.append(words[1])
        )
        began = published.began
        sink.run_began(began.start, began.analysis)
        sink.write(*_result(published))
        sink.run_ended(RunStop(run_uid=began.start.run_uid, scan_id=0, exit_status="success",
                               results=1, rejected=0))  # fmt: skip
        assert sink.queues()["result_runs"] == 1
        sink.close(PATIENCE)
        assert sum(sink.lost.values()) >= 1
        assert reports
        assert not any(sink.queues().values())
        sink._thread.join(0)
        assert not sink._thread.is_alive()


def _result(published: Published) -> tuple[Any, Any]:
    return Result.model_validate(published.wire[0].header), published.wire[0].arrays


def test_names_of_columns() -> None:
    assert column("Cu/1", "r") == "Cu_1_r"
    assert column("α-Fe", "1", "r") == "__Fe_1_r"
    assert column("1st", "r") == "_1st_r"
    assert len(column("x" * 100, "r") + "_std") <= 63
    assert unique(["a_r", "A_r", "b", "a_r"]) == ["a_r", "b"]
    names = model_columns(cards()["cu-k-fcc"])
    assert {"Cu_1_r", "Cu_1_r_std", "Cu_1_r_polish", "Cu_e0_shift", "Cu_fraction"} <= set(names)
    assert len(set(names)) == len(names)
