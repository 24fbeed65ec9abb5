"""Sequence numbers of a stream's rows: what came again, what is missing."""

from dataclasses import replace

import numpy as np

from exafsd.contract.vocabulary import Problem
from exafsd.documents.block import Block
from exafsd.documents.items import Trouble

#: a jump of the sequence number beyond this is no gap but nonsense
LARGEST_GAP = 1_000_000
#: missing rows remembered in case they come late; a run's memory must not grow with its losses
REMEMBERED_ROWS = 10_000


class Numbering:
    """Rows of one stream in the order of their numbers, which begin at 1."""

    def __init__(self) -> None:
        self._next = 1
        self._missing: set[int] = set()
        self.rows = 0

    def take(self, block: Block, where: str, rowwise: bool) -> tuple[Block | None, Trouble | None]:
        """Return the rows of a block that are new, and what is wrong with their numbers.

        `where` names run and stream in a problem's text; `rowwise`: each row is a sweep.
        """
        seq, expected = block.seq, self._next
        if len(seq) == 0:
            return None, None
        low, high = int(seq.min()), int(seq.max())
        if high > expected + LARGEST_GAP or low < 1:
            text = f"{where}: events {seq[0]} to {seq[-1]} cannot be; they were skipped"
            return None, Trouble(Problem.BAD_DOCUMENT, text)
        if rowwise and len(seq) == 1 and low in self._missing:
            self._missing.discard(low)  # late, but never seen: a sweep of its own
            self.rows += 1
            return block, None
        problem = None
        if low < expected:
            text = f"{where}: events up to {expected - 1} came again and were skipped"
            problem = Trouble(Problem.REPEATED, text)
            if high < expected:
                return None, problem
            block = block.only(seq >= expected)
            seq = block.seq
        self.rows += len(seq)
        self._next = high + 1
        if high + 1 - expected == len(seq) and (seq[1:] > seq[:-1]).all():
            return block, problem
        absent = high + 1 - expected - len(np.unique(seq))
        if absent == 0:
            return block, problem
        steps = np.diff(seq, prepend=expected - 1)
        at = int(np.argmax(steps > 1))
        lost_from = int(seq[at] - steps[at]) + 1
        if rowwise and len(self._missing) + absent <= REMEMBERED_ROWS:
            self._missing |= set(np.setdiff1d(np.arange(expected, high), seq).tolist())
        text = f"{where}: {absent} events from {lost_from} on are missing"
        gap = Trouble(Problem.GAP, f"{text}; replay the run from the archive")
        return replace(block, gap=steps > 1), problem or gap
