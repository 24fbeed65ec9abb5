"""What was missed of a run is fetched from a tiled server that the beamline writes itself."""

import gc
import time
from collections import Counter

import pytest
from bluesky_tiled_plugins import TiledWriter
from test_keeping import Daemon, port  # noqa: F401  # a fixture
from tiled.client import from_uri

from exafsd.archive.backfill import Backfill
from exafsd.archive.journaled import read_journal
from exafsd.client import Follower
from exafsd.contract.vocabulary import Flag, Problem
from exafsd.documents.inbox import Arrival
from exafsd.documents.items import Ended, Trouble
from exafsd.outcome import Outcome
from exafsd.service import wiring
from exafsd.service.gap_filling_feed import GapFillingFeed
from exafsd.settings.settings import load
from exafsd.testing.catalog_server import CatalogServer
from messages import collect_headers
from simulated import shapes
from synthetic import METADATA, sweep_columns

# the client of tiled leaves connections to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
SWEEPS = [sweep_columns(n, points=300) for n in range(6)]
SHAPES = {
    "array": shapes.array_events, "points": shapes.events, "pages": shapes.event_pages,
}  # fmt: skip
SETTINGS = {
    "reduction": {"channels": ["transmission"]},
    "inference": {"model": None},
    "composition": {"enabled": "off"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with CatalogServer(tmp_path_factory.mktemp("catalog")) as server:
        yield server


@pytest.fixture(autouse=True)
def collected():
    """No connection is left for the collector in a test of another module."""
    yield
    gc.collect()


@pytest.fixture
def archive(server, monkeypatch):
    """Writes documents as the beamline does."""
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    client = from_uri(server.uri, api_key=server.api_key)

    def write(documents):
        writer = TiledWriter(client)
        for name, document in documents:
            writer(name, document)

    yield write
    client.context.close()


def run(shape, uid):
    return list(SHAPES[shape](SWEEPS, {**METADATA, "uid": uid}))


def outcomes(documents):
    """Of an undisturbed session, by id."""
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    events = [event for name, doc in documents for event in session.feed(name, doc)]
    events += session.flush()
    return {e.message.id: e.message for e in events if isinstance(e, Outcome)}


def settings(**more):
    return load(**SETTINGS, **more)


def healed(server, documents, patience=10.0, until=Ended):
    """Events of a session behind a `GapFillingFeed`, until the run has ended."""
    backfill = Backfill(server.uri)
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    feed = GapFillingFeed(session, backfill, patience)
    feed.start(None)
    events = []
    for name, document in documents:
        events += feed.feed(Arrival(name, document, time.perf_counter()))
        events += feed.poll()
    end = time.monotonic() + 30
    while not any(isinstance(event, until) for event in events) and time.monotonic() < end:
        events += feed.poll()
        events += session.flush()
        time.sleep(0.05)
    backfill.stop(10.0)
    assert any(isinstance(event, Ended) for event in events)
    return events


def without(documents, lost):
    """Documents without events of these places."""
    place = 0
    for name, document in documents:
        if name.startswith("event"):
            place += 1
            if place in lost:
                continue
        yield name, document


def flags(events):
    return {e.message.id: set(e.message.quality) for e in events if isinstance(e, Outcome)}


@pytest.mark.parametrize(
    ("shape", "lost"),
    [
        ("array", {2, 3}),
        ("array", {6}),  # the latest: only the stop tells
        ("points", set(range(400, 430))),
        ("points", {*range(1700, 1801)}),
    ],
)
def test_missed_events_are_fetched(server, archive, shape, lost):
    documents = run(shape, f"healed-{shape}-{min(lost)}")
    archive(documents)
    expected = outcomes(documents)
    events = healed(server, without(documents, lost))
    messages = [e.message for e in events if isinstance(e, Outcome)]
    assert Counter(m.id for m in messages) == Counter(expected.keys())
    for message in messages:
        if message.kind == "result":
            assert message.e0 == pytest.approx(expected[message.id].e0, abs=1e-6)
    assert {e.reason for e in events if isinstance(e, Trouble)} <= {Problem.BACKFILLED, Problem.GAP}
    assert any(Flag.BACKFILLED in names for names in flags(events).values())
    assert not all(Flag.BACKFILLED in names for names in flags(events).values())


def test_a_run_whose_start_was_missed_is_fetched(server, archive):
    documents = run("array", "healed-start")
    archive(documents)
    events = healed(server, documents[4:])
    assert {e.message.id for e in events if isinstance(e, Outcome)} == set(outcomes(documents))
    assert all(Flag.BACKFILLED in names for names in flags(events).values())


@pytest.mark.parametrize("shape", ["array", "points"])
def test_what_is_not_there_is_waited_for_and_told(server, shape):
    documents = run(shape, f"unhealed-{shape}")
    lost = {2} if shape == "array" else set(range(400, 430))
    began = time.monotonic()
    events = healed(server, without(documents, lost), patience=1.0)
    assert time.monotonic() - began >= 1.0
    (told,) = [e for e in events if isinstance(e, Trouble) and e.reason == Problem.UNFILLED]
    assert "replay" in told.detail
    late = Flag.AFTER_GAP if shape == "array" else Flag.RENUMBERED
    raised = [late in names for names in flags(events).values()]
    assert raised[-1]
    assert not raised[0]  # nothing is missing before the first


def test_without_a_catalog_sweeps_after_a_gap_say_so():
    documents = run("array", "no-catalog")
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    events = [e for name, doc in without(documents, {2}) for e in session.feed(name, doc)]
    raised = [Flag.AFTER_GAP in names for names in flags(events).values()]
    assert raised == [False, True, True, True, True]


def ended(daemon):
    """Stop a daemon, and wait for its connection to the server to be closed."""
    daemon.stop()
    daemon.service._gap_filling_feed._backfill.stop(10.0)


def backfilling(tmp_path, port, server):  # noqa: F811
    return Daemon(tmp_path, port, backfill={"catalog": server.uri, "wait": 10.0})


def test_a_daemon_journals_what_it_fetches(tmp_path, port, server, archive):  # noqa: F811
    """A replay of its journal has everything in order."""
    documents = run("points", "journaled-gap")
    archive(documents)
    daemon = backfilling(tmp_path, port, server)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        daemon.feed(without(documents, set(range(400, 430))))
        headers = collect_headers(follower, lambda header: header["kind"] == "run.stop")
    ended(daemon)
    ids = {header["id"] for header in headers if "id" in header}
    assert ids == set(outcomes(documents))
    (journaled,) = read_journal(tmp_path / "journal")
    replayed = outcomes(list(journaled.documents()))
    assert set(replayed) == ids
    numbers = [doc["seq_num"] for name, doc in documents if name == "event"]
    again = []
    for name, doc in journaled.documents():
        if name.startswith("event"):
            again += doc["seq_num"] if isinstance(doc["seq_num"], list) else [doc["seq_num"]]
    assert again == numbers


def test_time_down_is_made_up_for(tmp_path, port, server, archive):  # noqa: F811
    """A run that ended, and one that began and ended, while no daemon was there."""
    cut, missed = run("array", "cut-by-restart"), run("array", "missed-altogether")
    now = time.time()
    for name, document in missed + cut:
        if name == "start":
            document["time"] = now
    first = backfilling(tmp_path, port, server)
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        first.feed(cut[:4])
        collect_headers(follower, lambda header: header.get("sweep") == 2)
    ended(first)
    archive(cut)
    archive(missed)
    second = backfilling(tmp_path, port, server)
    stops, ids = set(), []
    with Follower(f"tcp://127.0.0.1:{port}", start="ring") as follower:
        while not stops >= {"cut-by-restart", "missed-altogether"}:
            for header in collect_headers(follower, lambda header: header["kind"] == "run.stop"):
                ids += [header["id"]] if "id" in header else []
                stops |= {header["run_uid"]} if header["kind"] == "run.stop" else set()
    ended(second)
    assert set(ids) >= set(outcomes(missed)) | {i for i in outcomes(cut) if i[-1] > "2"}
    session = wiring.make_session(second.settings, wiring.make_pipeline(second.settings))
    for journaled in read_journal(tmp_path / "journal"):
        events = [e for name, doc in journaled.documents() for e in session.feed(name, doc)]
        assert sum(isinstance(e, Outcome) for e in events) == len(SWEEPS)


def test_what_is_held_at_the_end_is_fed_where_nothing_keeps_it(server):
    documents = run("points", "held-at-the-end")
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    feed = GapFillingFeed(session, Backfill(server.uri), 60.0)
    events = []
    for name, document in without(documents, set(range(400, 430))):
        events += feed.feed(Arrival(name, document, None))
    held = len([e for e in events if isinstance(e, Outcome)])
    events += feed.close()
    events += session.flush()
    assert any(isinstance(event, Ended) for event in events)
    assert len([e for e in events if isinstance(e, Outcome)]) == len(SWEEPS) > held
    assert Problem.UNFILLED in {e.reason for e in events if isinstance(e, Trouble)}


def test_a_stop_that_comes_after_the_archives_is_no_trouble(server, archive, monkeypatch):
    """The archive may hear of the end first."""
    monkeypatch.setattr("exafsd.service.gap_filling_feed.SILENT", 0.5)
    documents = run("array", "late-stop")
    archive(documents)
    backfill = Backfill(server.uri)
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    feed = GapFillingFeed(session, backfill, 10.0)
    feed.start(None)
    events = [e for doc in documents[:-1] for e in feed.feed(Arrival(*doc, None))]
    end = time.monotonic() + 30
    while not any(isinstance(event, Ended) for event in events) and time.monotonic() < end:
        events += feed.poll()
        time.sleep(0.05)
    events += feed.feed(Arrival(*documents[-1], None))
    time.sleep(2.0)
    events += feed.poll()
    backfill.stop(10.0)
    assert sum(isinstance(event, Ended) for event in events) == 1
    assert sum(isinstance(event, Outcome) for event in events) == len(SWEEPS)
    assert not [e for e in events if isinstance(e, Trouble)]


def test_a_slow_scan_asks_the_archive_seldom(server, monkeypatch):
    monkeypatch.setattr("exafsd.service.gap_filling_feed.SILENT", 0.2)
    monkeypatch.setattr("exafsd.service.gap_filling_feed.AGAIN", 1.0)
    backfill = Backfill(server.uri)
    questions = []
    ask = backfill.ask
    monkeypatch.setattr(backfill, "ask", lambda request: (questions.append(request), ask(request)))
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    feed = GapFillingFeed(session, backfill, 10.0)
    feed.start(None)
    for name, document in run("array", "slow-scan")[:-1]:
        list(feed.feed(Arrival(name, document, None)))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert not list(feed.poll())  # the archive does not know this run, and nobody is told
        time.sleep(0.01)
    backfill.stop(10.0)
    assert [request.kind for request in questions] in (["stop"] * 2, ["stop"] * 3)


def test_no_more_is_held_than_memory_allows(server, monkeypatch):
    monkeypatch.setattr("exafsd.service.gap_filling_feed.HELD", 50)
    session = wiring.make_session(settings(), wiring.make_pipeline(settings()))
    feed = GapFillingFeed(session, Backfill(server.uri), 60.0)
    events = []
    for name, document in without(run("points", "long-hold"), {400}):
        events += feed.feed(Arrival(name, document, None))
    events += session.flush()
    troubles = [event for event in events if isinstance(event, Trouble)]
    assert [trouble.reason for trouble in troubles] == [Problem.UNFILLED, Problem.GAP, Problem.GAP]
    assert "50 documents" in troubles[0].detail
    assert any(isinstance(event, Ended) for event in events)
    assert sum(isinstance(event, Outcome) for event in events) == len(SWEEPS)
