"""What one subscriber knows, the words for it, exports, and which browsers may look."""

import csv
import io
import math
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import Div
from hypothesis import given
from hypothesis import strategies as st

from exafsd.client import Event
from exafsd.contract.frames import decode, encode
from exafsd.dashboard import words
from exafsd.dashboard.export import FORMULA, as_csv, as_hdf5
from exafsd.dashboard.server import host_name
from exafsd.dashboard.state import SILENT, Key, State, point_of
from exafsd.dashboard.viewer import Viewer
from messages import ARRAYS, SHELL, rejected, result, run_start, run_stop, status, value

KEY = Key("run", "primary", "transmission", "Cu", "K")
POLISH = {
    "status": "converged", "r_factor": 0.01, "n_idp": 10.0, "n_var": 4, "correlation": None,
    "phases": [{"phase": "Cu", "fraction": None, "e0_shift": value(6.0)}],
    "shells": [{"id": "Cu/1", "n_s02": value(10.1), "r": value(2.5501), "sigma2": value(0.0081)}],
}  # fmt: skip


def sent(message, arrays=None):
    return decode(encode(message, arrays))


def filled(sweeps, state=None, run="run"):
    state = state or State()
    for sweep in range(1, sweeps + 1):
        state.take(sent(result(sweep, run=run), ARRAYS))
    return state


def test_points_have_what_trends_show():
    header = sent(result(7)).header
    point = point_of(header)
    assert (point.sweep, point.kind) == (7, "value")
    assert point.shells == {"Cu/1": {"r": (2.54, 0.01), "n_s02": (10.8, 0.01),
                                     "sigma2": (0.009, 0.01), "e0": (8984.0, 0.01)}}  # fmt: skip
    assert point.context == {"temperature": 307.0}
    assert point.header() == header


def test_the_polish_is_shown_where_the_daemon_calls_it_the_best():
    both = [point_of(sent(result(1, polish=POLISH, best=best)).header).shells["Cu/1"]
            for best in ("network", "polish")]  # fmt: skip
    assert [shell["r"][0] for shell in both] == [2.54, 2.5501]
    assert [shell["e0"][0] for shell in both] == [8984.0, 8985.0]


def test_the_remarks_say_where_the_values_come_from():
    for changes, said in (
        ({"read_by": "network"}, "network"),
        ({"read_by": "fit"}, "fitted about the crystal"),
        ({"read_by": "network", "best": "polish"}, "fitted (polish)"),
    ):
        header = sent(result(1, **changes)).header
        assert f" · {said}<span" in words.remarks(point_of(header), header)


def test_e0_of_a_phase_stays_where_shifts_count_from_elsewhere():
    truth = {"r": 2.55, "e0": 8984.0, "c3": None}
    for e0, shift in ((8979.0, 5.0), (8990.0, -6.0)):
        phases = [{"phase": "Cu", "fraction": None, "e0_shift": value(shift)}]
        point = point_of(sent(result(1, e0=e0, phases=phases, truth=truth)).header)
        assert point.shells["Cu/1"]["e0"] == (8984.0, 0.01)
        assert point.truth == {"r": 2.55, "e0": 8984.0}


def test_withheld_and_rejected_points_carry_their_reason():
    trust = {"score": 0.1, "in_domain": False, "reason": "unlike any training spectrum"}
    withheld = point_of(sent(result(1, shells=None, phases=None, best=None, trust=trust)).header)
    assert (withheld.kind, withheld.reason) == ("withheld", trust["reason"])
    assert withheld.shells == {}
    refused = point_of(sent(rejected(1)).header)
    assert (refused.kind, refused.reason) == ("rejected", "no_edge: no edge was found")


def test_only_what_is_new_is_handed_out():
    state = filled(3)
    total, points = state.since(KEY, 0, 100)
    assert (total, [p.sweep for p in points]) == (3, [1, 2, 3])
    assert state.since(KEY, total, 100) == (3, [])
    state.take(sent(result(4), ARRAYS))
    assert [p.sweep for p in state.since(KEY, total, 100)[1]] == [4]
    assert [p.sweep for p in state.since(KEY, 0, 2)[1]] == [3, 4]
    assert state.since(KEY._replace(channel="reference"), 0, 9) == (0, [])


def test_a_result_that_comes_again_replaces_the_older():
    state = filled(3)
    epoch = state.glance(KEY).epoch
    state.take(sent(result(2, e0=8980.0), ARRAYS))
    assert state.glance(KEY).epoch != epoch
    assert [p.sweep for p in state.since(KEY, 0, 100)[1]] == [1, 3, 2]
    assert [m.header["e0"] for m in state.outcomes("run")] == [8979.0, 8979.0, 8980.0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), st.booleans()), max_size=60))
def test_any_order_of_outcomes_stays_within_bounds(order):
    state = State(outcomes=12, spectra=5, runs=3)
    for run, sweep, good in order:
        one = (result if good else rejected)(sweep, run=f"run {run}")
        state.take(sent(one, {"k": np.zeros(3)} if good else None))
    runs = state.runs()
    messages = [m for run in runs for m in state.outcomes(run.uid)]
    ids = [m.header["id"] for m in messages]
    assert len(runs) <= 3
    assert len(ids) == len(set(ids)) <= 12
    assert sum(bool(m.arrays) for m in messages) <= 5
    if order:
        run, sweep, _ = order[-1]
        assert f"run {run}/primary/transmission/K/{sweep}" in ids


def test_memory_does_not_grow_once_it_is_full():
    state = filled(300, State(outcomes=200, spectra=50))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for run in range(6):
        filled(200, state, f"run {run}")
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # what was there before was not traced: all that is kept now is counted as growth
    assert after - before < 200 * 12_000 + 50 * 40_000


def test_a_run_that_begins_is_the_latest_and_says_how_it_ended():
    state = filled(1, run="old")
    state.take(sent(run_start("new")))
    state.take(sent(run_stop("new")))
    assert [(run.uid, run.ended) for run in state.runs()] == [("old", None), ("new", "success")]


def test_silence_is_noticed_within_three_seconds_and_forgotten():
    state = State()
    state.take(sent(status(heartbeat=1.0)))
    state.heard(100.0)
    assert not state.health(101.9).silent
    late = state.health(102.9)
    assert late.silent
    assert SILENT < 2.9
    assert "is silent, for 3 s now" in words.alert(late, "tcp://here")
    state.heard(103.0)
    assert words.alert(state.health(103.1), "tcp://here") == ""


def test_a_slow_heartbeat_is_waited_for():
    state = State()
    state.take(sent(status(heartbeat=10.0)))
    state.heard(100.0)
    assert not state.health(115.0).silent
    assert state.health(126.0).silent


def test_a_stopped_daemon_and_none_at_all_are_said_in_words():
    state = State()
    assert "No daemon answers" in words.alert(state.health(1e9), "tcp://here")
    state.take(sent(status("stopped")))
    state.heard()
    assert "has been stopped" in words.alert(state.health(), "tcp://here")


def test_health_in_plain_words():
    state = State()
    fields = {"rate": 12.3, "lag": 0.045, "drops": {"bad_frame": 2}, "rejections": {"no_edge": 3},
            "rejected": 3, "queues": {"inbox": 7},
            "audit": {"count": 9.0, "off": 0.0, "alarms": 0.0, "difference_max": 3e-8}}  # fmt: skip
    state.take(sent(status(**fields)))
    state.heard()
    state.tell(Event("restarted", "publisher b after a"))
    line = words.health_line(state.health())
    for expected in ("the daemon is running", "12.3 /s", "45 ms", "2 (bad_frame 2)",
                     "3 (no_edge 3)", "inbox 7", "9 spectra, drift at most 3.0e-08",
                     "the daemon was restarted"):  # fmt: skip
        assert expected in line


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\"'><img src=x onerror=a>"])
def test_nothing_of_the_wire_becomes_markup(hostile):
    shell = {**SHELL, "id": hostile, "prior_limited": [hostile]}
    context = {hostile: {"value": 1.0, "unit": hostile}}
    one = sent(result(1, shells=[shell], quality=[hostile, f"low_flux_{hostile}"], context=context,
                      model={"name": hostile, "sha256": "0"})).header  # fmt: skip
    trust = {"score": 0.1, "in_domain": False, "reason": hostile}
    other = sent(result(1, shells=None, phases=None, best=None, trust=trust)).header
    state = State()
    state.take(sent(status(problems=[hostile], drops={hostile: 1}, queues={hostile: 1})))
    state.heard()
    markup = words.health_line(state.health()) + words.legend(True, hostile)
    markup += words.alert(State().health(1e9), hostile)
    for header in (one, other):
        markup += words.readout(point_of(header), header) + words.remarks(point_of(header), header)
    assert "<script" not in markup
    assert "<img" not in markup
    assert "&lt;" in markup


def test_every_documented_flag_has_words():
    from synthetic import ROOT

    page = (ROOT / "docs" / "reference" / "reasons.md").read_text()
    section = page.split("## Quality flags")[1].split("##")[0]
    named = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert len(named) > 10
    for name in named:
        concrete = name.replace("<signal>", "i0")
        assert words.flag(concrete) != concrete, name


def test_csv_has_every_digit_and_no_formula():
    context = {"note": {"value": "=cmd()"}}
    third = result(3, shells=[{**SHELL, "r": value(0.1 + 0.2, 1 / 3)}], context=context)
    state = State()
    for message in (result(1), rejected(2), third):
        state.take(sent(message))
    table = list(csv.DictReader(io.StringIO(as_csv(state.outcomes("run")).decode())))
    assert [row["kind"] for row in table] == ["result", "rejected", "result"]
    assert (table[2]["r"], table[2]["r_std"]) == ("0.30000000000000004", repr(1 / 3))
    assert table[2]["context_note"] == "'=cmd()"
    assert table[1]["r"] == ""


def test_hdf5_has_numbers_spectra_and_messages():
    state = filled(2)
    state.take(sent(rejected(3)))
    with h5py.File(io.BytesIO(as_hdf5(state.outcomes("run")))) as file:
        assert list(file["table/sweep"]) == [1, 2, 3]
        assert math.isnan(file["table/r"][2])
        assert file["table/reason"].asstr()[2] == "no_edge"
        assert file["spectra/energy"].shape == (2, 500)
        assert (file["spectra/chi_k2"][1] == ARRAYS["chi_k2"].astype("f4")).all()
        assert len(file["message"]) == 3


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        *((sign + "1", True) for sign in "=+-@|＝＋－＠"),
        *((before + "=1", True) for before in " \t\r\n\u3000\xa0\u2003\u200b\ufeff\0"),
        ("\t1", True), ("\r1", True), ("\n1", True), (" \u3000 ＋1", True), ("-5", True),
        ("", False), ("Cu=1", False), ("a\n=1", False), (" 1", False), ("'=1", False),
        ("5-3", False), ("°C", False), ("%", False), ("µ", False),
    ],
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_is_quoted(text, runs):
    message = sent(result(1, context={"note": {"value": text, "unit": ""}}))
    header, row = csv.reader(io.StringIO(as_csv([message]).decode(), newline=""))
    assert row[header.index("context_note")] == f"'{text}" * runs + text * (not runs)
    assert bool(FORMULA.match(text)) == runs


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9))
def test_a_number_stays_a_number(number):
    message = sent(result(1, context={"note": {"value": number, "unit": ""}}))
    (row,) = csv.DictReader(io.StringIO(as_csv([message]).decode(), newline=""))
    assert float(row["context_note"]) == number
    assert row["context_note"] == repr(number)


def test_the_shell_of_the_latest_points_is_shown_until_a_viewer_chooses_one():
    def send(sweep, shell):
        read = SHELL | {"id": shell, "phase": shell.partition("/")[0]}
        state.take(sent(result(sweep, shells=[read]), ARRAYS))
        viewer.tick()
        return picker.value

    state, document = State(), Document()
    viewer = Viewer(document, state)
    picker = document.get_model_by_name("shell")
    shown = [send(sweep, "CuO/1" if sweep <= 20 else "Cu/1") for sweep in range(1, 41)]
    changed = shown.index("Cu/1")
    assert set(shown[:changed]) == {"CuO/1"}
    assert set(shown[changed:]) == {"Cu/1"}
    assert 20 < changed < 35  # not by one odd spectrum, but soon
    turns = {send(sweep, ("CuO/1", "Cu/1")[sweep % 2]) for sweep in range(41, 61)}
    assert turns == {"Cu/1"}  # nor to and fro
    picker.value = "Cu/1"  # as it is: the viewer has not chosen
    picker.value = "CuO/1"
    assert {send(sweep, "Cu/1") for sweep in range(61, 81)} == {"CuO/1"}


def test_texts_of_the_page_are_not_read_as_tex():
    document = Document()
    Viewer(document, State())
    texts = list(document.select({"type": Div}))
    assert len(texts) > 5
    assert all(text.disable_math for text in texts)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("LocalHost:5100", "localhost"), ("localhost.:1", "localhost"), ("localhost", "localhost"),
        ("[::1]:5100", "::1"), ("[::1]", "::1"), ("", ""), (":5100", ":5100"),
        ("evil.example:80@localhost", "evil.example:80@localhost"),
    ],
)  # fmt: skip
def test_names_are_compared_without_port_and_case(host, name):
    assert host_name(host) == name


def test_wrong_keys_and_a_port_in_use_are_said():
    for arguments, words_ in (
        (["--keys", "/nowhere", "--port", "0"], "nowhere"),
        (["--host", "192.0.2.1", "--port", "0"], "assign"),  # not an address of this machine
    ):
        done = subprocess.run(
            [sys.executable, "-m", "exafsd.cli", "dashboard", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert words_ in done.stderr
        assert "Traceback" not in done.stderr
