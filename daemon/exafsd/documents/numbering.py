"""Sequence numbers of a stream's rows: what is new, what came again, what is missing."""

from dataclasses import dataclass, replace

import numpy as np

from exafsd.contract.vocabulary import Problem
from exafsd.documents.block import Block
from exafsd.documents.items import Trouble

#: a jump of the sequence number beyond this is no gap but nonsense
LARGEST_GAP = 1_000_000
#: missing rows remembered in case they come late; a run's memory must not grow with its losses
REMEMBERED_ROWS = 10_000


@dataclass(frozen=True)
class Rows:
    """Rows of a block that are new and that came again, and what is wrong with their numbers."""

    new: Block | None = None
    again: Block | None = None
    trouble: Trouble | None = None


class Numbering:
    """Rows of one stream in the order of their numbers, which begin at 1, or at 0."""

    def __init__(self) -> None:
        self._first = self._next = 1
        self._missing: set[int] = set()
        self._incomplete = False  # rows are missing that cannot be waited for
        self.rows = 0

    @property
    def first(self) -> int:
        """Number of the first row: 1, or 0."""
        return self._first

    @property
    def expected(self) -> int:
        """Number of the next row."""
        return self._next

    @property
    def missing(self) -> frozenset[int]:
        """Rows that are missing, and would be taken if they came late."""
        return frozenset(self._missing)

    @property
    def incomplete(self) -> bool:
        """Whether rows before the latest are missing."""
        return self._incomplete or bool(self._missing)

    def take(self, block: Block, where: str, rowwise: bool) -> Rows:
        """Sort out the rows of a block; of a number that comes twice the later row counts.

        `where` names run and stream in a problem's text; `rowwise`: each row is a sweep.
        """
        if len(block.seq) == 0:
            return Rows()
        low, high = int(block.seq.min()), int(block.seq.max())
        if self.rows == 0 and low == 0:
            self._first = self._next = 0
        expected = self._next
        if high > expected + LARGEST_GAP or low < self._first:
            text = f"{where}: events {block.seq[0]} to {block.seq[-1]} cannot be; they were skipped"
            return Rows(trouble=Trouble(Problem.BAD_DOCUMENT, text))
        if (block.seq[1:] <= block.seq[:-1]).any():
            _, from_end = np.unique(block.seq[::-1], return_index=True)
            block = block.only(len(block.seq) - 1 - from_end)
        if low >= expected:
            new, trouble = self._new(block, where, rowwise)
            return Rows(new, None, trouble)
        # late, but never seen: a sweep of its own
        late = np.array([rowwise and int(n) in self._missing for n in block.seq])
        self._missing.difference_update(block.seq[late].tolist())
        self.rows += int(late.sum())
        ahead = block.seq >= expected
        again = block.only(~late & ~ahead) if not (late | ahead).all() else None
        new, trouble = None, None
        if ahead.any():
            new, trouble = self._new(block.only(ahead), where, rowwise)
        if late.any():
            new = block.only(late | ahead)
        return Rows(new, again, trouble)

    def _new(self, block: Block, where: str, rowwise: bool) -> tuple[Block, Trouble | None]:
        """Count new rows, which ascend; flag and tell where rows before them are missing."""
        expected, seq = self._next, block.seq
        high = int(seq[-1])
        self.rows += len(seq)
        self._next = high + 1
        absent = high + 1 - expected - len(seq)
        if absent == 0:
            return block, None
        steps = np.diff(seq, prepend=expected - 1)
        at = int(np.argmax(steps > 1))
        lost_from = int(seq[at] - steps[at]) + 1
        if rowwise and len(self._missing) + absent <= REMEMBERED_ROWS:
            self._missing |= set(np.setdiff1d(np.arange(expected, high), seq).tolist())
        else:
            self._incomplete = True
        text = f"{where}: {absent} events from {lost_from} on are missing"
        sweeps = absent if rowwise else 0
        gap = Trouble(Problem.GAP, f"{text}; replay the run from the archive", absent, sweeps)
        return replace(block, gap=steps > 1), gap
