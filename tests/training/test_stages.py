"""Stages of a training: how much is done and how long the rest takes."""

import io
import warnings

import pytest
from rich.console import Console

from exafsd_training.fitting.stages import Stages, on_terminal, only_warnings


def test_time_left_counts_the_stage_and_the_later_ones() -> None:
    now = 100.0
    shown: list[tuple[str, str, float, float]] = []
    stages = Stages({"a": 10, "b": 40, "c": 5}, lambda *x: shown.append(x), lambda: now)
    stages.begin("a")
    assert shown[-1] == ("a", "", 0.0, 55.0)
    now = 104.0
    stages.report(0.05)  # too early to go by
    assert shown[-1][3] == pytest.approx(9.5 + 45)
    stages.report(0.5, "said")
    assert shown[-1] == ("a", "said", pytest.approx(4 / 53), pytest.approx(4 + 45))
    stages.begin("b")
    assert shown[-1][3] == pytest.approx(45)
    now = 204.0
    stages.report(0.0)  # longer than expected
    assert shown[-1][3] == pytest.approx(105)
    stages.begin("c")
    stages.report(1.0)
    assert shown[-1][2:] == (1.0, 0.0)


def test_the_terminal_shows_stage_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with on_terminal({"FEFF": 60, "training": 90}, console) as stages:
        stages.begin("FEFF")
        stages.begin("training")
        stages.report(0.0, "theta -19")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "training: theta -19" in text
    assert "1:30 left" in text


def test_only_some_warnings_are_printed() -> None:
    class OurWarning(Warning):
        pass

    console = Console(file=io.StringIO())
    with only_warnings(OurWarning, console):
        warnings.warn("two sites", OurWarning, stacklevel=1)
        warnings.warn("rounded", UserWarning, stacklevel=1)
    assert console.file.getvalue() == "warning: two sites\n"  # type: ignore[attr-defined]
