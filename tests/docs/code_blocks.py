"""Code blocks of the documentation, and which of them say that they are not run here."""

import re
from dataclasses import dataclass
from pathlib import Path

from synthetic import ROOT

FENCE = re.compile(r"^( *)```(.*)$")
MARK = re.compile(r"<!-- (not run here: .+|run by (\S+)) -->")
#: pages whose Python blocks another test runs, word for word
PYTHON_ELSEWHERE = {
    "docs/howto/subscribe.md": "tests/client/test_subscribe_docs.py",
    "docs/reference/messages.md": "tests/client/test_subscribe_docs.py",
    "docs/howto/secure.md": "tests/client/test_subscribe_docs.py",
    "README.md": "tests/client/test_subscribe_docs.py",
}
TUTORIAL = "docs/tutorial/first-subscriber.md"


@dataclass(frozen=True)
class Block:
    """A code block of a page; `mark` is the comment before it, if it is one of ours."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None

    @property
    def runs_here(self) -> bool:
        """Whether tests/docs/test_blocks.py has to run it."""
        elsewhere = self.language == "python" and self.page in PYTHON_ELSEWHERE
        return self.mark is None and not elsewhere and self.page != TUTORIAL


def pages() -> list[Path]:
    """README and everything below docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """Code blocks of a page in order, without their indentation."""
    parsed, opened, before = [], None, ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fence = FENCE.match(line)
        if fence and opened is None:
            mark = MARK.fullmatch(before.strip())
            opened = (number, len(fence[1]), fence[2].partition(" ")[0], mark and mark[0], [])
        elif fence and opened:
            start, _, language, mark, lines = opened
            page = str(path.relative_to(ROOT))
            parsed.append(Block(page, start, language, "\n".join(lines) + "\n", mark))
            opened = None
        elif opened:
            opened[-1].append(line[opened[1] :])
        before = line
    return parsed


def everything() -> list[Block]:
    """All blocks of all pages."""
    return [block for path in pages() for block in blocks(path)]


def by_page(language: str) -> dict[str, list[Block]]:
    """Blocks of a language that are to be run here, by page."""
    pages: dict[str, list[Block]] = {}
    for block in everything():
        if block.language == language and block.runs_here:
            pages.setdefault(block.page, []).append(block)
    return pages
