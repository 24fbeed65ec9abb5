"""``exafsd results``: what was published, from the outcome logs beside a journal."""

from pathlib import Path

from rich.table import Table

from exafsd.archive.logged_results import find_logged, logged_messages, logged_runs
from exafsd.commands.terminal import ResultTable, as_json
from exafsd.contract.frames import latest


def runs_table(journal: Path) -> tuple[Table, list[str]]:
    """Runs that have results, oldest first, and what is damaged."""
    table = Table("run", "scan", "edge", "results", "rejected", "ended")
    damage: list[str] = []
    for run in logged_runs(journal):
        start = run.start
        edge = f"{start.get('element', '')} {start.get('edge', '')}"
        scan, ended = start.get("parent_scan_id"), run.stopped or "open"
        counts = [str(run.counts[kind]) for kind in ("result", "rejected")]
        table.add_row(run.uid, "" if scan is None else str(scan), edge, *counts, ended)
        damage += [] if run.damage is None else [run.damage]
    return table, damage


def outcomes_table(journal: Path, uid: str) -> tuple[Table, str | None]:
    """Outcomes of a run, of each id the latest revision, and what is damaged."""
    run = find_logged(journal, uid)
    table = ResultTable()
    for message in latest(logged_messages(run)):
        table.add(message.header, run.uid[:6])
    return table.render(), run.damage


def outcomes_lines(journal: Path, uid: str) -> tuple[list[str], str | None]:
    """Outcomes of a run as JSON, every revision, and what is damaged."""
    run = find_logged(journal, uid)
    return [as_json(message) for message in logged_messages(run)], run.damage
