"""Every module, class and function that the pages for developers name is there."""

import ast
import re
from pathlib import Path

import pytest

from synthetic import ROOT

PAGES = sorted((ROOT / "docs" / "developer").glob("*.md"))
PACKAGES = [
    ROOT / "daemon" / "exafsd",
    ROOT / "training" / "exafsd_training",
    ROOT / "export" / "exafsd_export",
]
#: rooms that names begin with
ROOMS = {path.stem for package in PACKAGES for path in package.iterdir()}


def source_of(parts: list[str]) -> tuple[Path, list[str]] | None:
    """File of a dotted name, and what is left of the name inside it."""
    for package in PACKAGES:
        for length in range(len(parts), 0, -1):
            path = package.joinpath(*parts[:length]).with_suffix(".py")
            if path.is_file():
                return path, parts[length:]
    return None


def names_in(path: Path) -> set[str]:
    """Functions, methods, classes and module names that a file defines."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in ast.walk(tree) if hasattr(node, "name")}
    assigned = [
        target
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return names | {target.id for target in assigned if isinstance(target, ast.Name)}


def mentioned(page: Path) -> list[str]:
    """Names in backticks outside of code blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_is_there(page):
    for name in mentioned(page):
        if re.fullmatch(r"(daemon/|training/|export/|tests/)?[\w/]+\.(py|gz)", name):
            homes = [ROOT, *PACKAGES]
            assert any((home / name).is_file() for home in homes), name
        elif re.fullmatch(r"[a-z_]+(\.\w+)+", name) and name.split(".")[0] in ROOMS:
            if any(package.joinpath(*name.split(".")).is_dir() for package in PACKAGES):
                continue  # a room in a room
            source = source_of(name.split("."))
            assert source, name
            path, rest = source
            assert set(rest) <= names_in(path), name


def test_classes_and_methods_of_the_map_are_there():
    files = [path for package in PACKAGES for path in package.rglob("*.py")]
    everything = {path.stem for path in files}.union(*map(names_in, files))
    for name in mentioned(ROOT / "docs" / "developer" / "map.md"):
        if re.fullmatch(r"[A-Z]\w+(\.\w+)?|[a-z_]+_[a-z_]+", name):
            assert set(name.split(".")) <= everything, name
