"""What publishers before the present one still owe a subscription, and have left in their log."""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exafsd.contract.answers import AnyReply, AskReplay, ReplayReply
from exafsd.contract.frames import Message

#: publishers that are remembered, and series of outcomes
PUBLISHERS, SERIES = 8, 20_000


@dataclass
class _Left:
    """How far a publisher was followed: what is next of each topic, and what came beyond it."""

    expected: dict[str, int]
    beyond: dict[str, set[int]]
    complete: bool


@dataclass(frozen=True)
class Span:
    """Messages of a topic of one publisher."""

    publisher: str
    topic: str
    first: int
    last: int


class Owed:
    """Asks for what is missing of former publishers, one page at a time."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, _Left] = OrderedDict()
        self._spans: deque[Span] = deque()

    def leave(
        self, publisher: str, expected: dict[str, int], beyond: dict[str, set[int]], complete: bool
    ) -> None:
        """A publisher is followed no longer; what was owed before is told anew by the next."""
        self._left[publisher] = _Left(expected, beyond, complete)
        while len(self._left) > PUBLISHERS:
            self._left.popitem(last=False)
        self._spans.clear()

    def tell(
        self, former: Iterable[Mapping[str, Any]], everything: bool, wanted: Callable[[str], bool]
    ) -> None:
        """Take what the present publisher says of those before it.

        Parameters
        ----------
        everything
            Whether messages of publishers that were never followed are owed, too.
        """
        for one in former:
            left = self._left.get(one["publisher"])
            for topic, last in one["last"].items():
                if not wanted(topic):
                    continue
                first: int = one["first"].get(topic, 1)
                if left is not None:
                    first = left.expected.get(topic, first if left.complete else last + 1)
                elif not everything:
                    continue
                if first <= last:
                    self._spans.append(Span(one["publisher"], topic, first, last))
            everything |= left is not None  # those after one that was followed

    def ask(self) -> AskReplay | None:
        """Return the next request; None where nothing is owed."""
        if not self._spans:
            return None
        span = self._spans[0]
        return AskReplay(topic=span.topic, from_=span.first, to=span.last, publisher=span.publisher)

    def take(
        self, reply: AnyReply, messages: Iterable[Message]
    ) -> tuple[list[Message], Span | None]:
        """Messages that a reply has brought and that are new, and those that are lost."""
        span = self._spans.popleft()
        if not isinstance(reply, ReplayReply):
            return [], self._lose(span)
        left = self._left.setdefault(span.publisher, _Left({}, {}, True))
        beyond = left.beyond.get(span.topic, set())
        fresh = [one for one in messages if one.header["seq"] not in beyond]
        following = reply.next or span.last + 1
        left.expected[span.topic] = following
        if following <= span.last:
            self._spans.appendleft(Span(span.publisher, span.topic, following, span.last))
        lost = None
        if reply.missing is not None:
            lost = Span(span.publisher, span.topic, reply.missing.first, reply.missing.last)
        return fresh, lost

    def give_up(self) -> Span:
        """Go on without what was asked for."""
        return self._lose(self._spans.popleft())

    def _lose(self, span: Span) -> Span:
        if span.publisher in self._left:
            self._left[span.publisher].expected[span.topic] = span.last + 1
        return span


class Delivered:
    """Which outcomes have been handed out, so that one that was made again is not.

    The sweeps of a run, channel and edge are numbers in a row, so a run of any length takes little.
    """

    def __init__(self) -> None:
        self._series: OrderedDict[int, _Series] = OrderedDict()

    def again(self, header: Mapping[str, Any]) -> bool:
        """Whether an outcome is one that was handed out before, made again by another publisher.

        The one that goes on with a run makes its outcomes again (``resumed``); what the one before
        has still sent may come later.
        """
        if "id" not in header or header.get("delivery") == "replay":
            return False
        model: dict[str, Any] = header.get("model") or {}
        name, _, sweep = header["id"].rpartition("/")
        key = hash(
            (name, header.get("revision", 1), header.get("settings_sha256"), model.get("sha256"))
        )
        series = self._series.setdefault(key, _Series())
        self._series.move_to_end(key)
        if len(self._series) > SERIES:
            self._series.popitem(last=False)
        before = series.add(int(sweep) if sweep.isdecimal() else hash(sweep))
        publisher = header.get("publisher")
        if header.get("delivery") == "resumed":
            series.resumed_by = publisher
            return before
        return before and series.resumed_by not in (None, publisher)


@dataclass
class _Series:
    """Sweeps of a run, channel and edge, as spans in order; `resumed_by`: who made some again."""

    spans: list[list[int]] = field(default_factory=list[list[int]])
    resumed_by: str | None = None

    def add(self, number: int) -> bool:
        """Take a number; whether it was there."""
        at = bisect_right(self.spans, [number, number])
        for near in (at - 1, at):
            if 0 <= near < len(self.spans) and self.spans[near][0] <= number <= self.spans[near][1]:
                return True
        before = at > 0 and self.spans[at - 1][1] == number - 1
        after = at < len(self.spans) and self.spans[at][0] == number + 1
        if before and after:
            self.spans[at - 1][1] = self.spans.pop(at)[1]
        elif before:
            self.spans[at - 1][1] = number
        elif after:
            self.spans[at][0] = number
        else:
            self.spans.insert(at, [number, number])
        return False
