"""One run's documents to sweeps, by direct dispatch on the document name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from event_model import unpack_datum_page, unpack_event_page

from exafsd.contract.vocabulary import BACKFILLED_KEY, Flag, Problem, Reason
from exafsd.documents import assets
from exafsd.documents.asset_files import AssetError
from exafsd.documents.asset_reader import READER
from exafsd.documents.binding import Binding, bind, first, lookup
from exafsd.documents.block import Block
from exafsd.documents.context import Context
from exafsd.documents.corrections import Corrections, corrections
from exafsd.documents.external import Fetch
from exafsd.documents.items import Trouble
from exafsd.documents.joiner import Joiner
from exafsd.documents.numbering import LARGEST_GAP
from exafsd.documents.stream import SharedByStreams, Stream
from exafsd.settings.analysis import Adapter, Analysis
from exafsd.spectra import Edge, Run, SpectrumError, Sweep

#: descriptors, resources and places in files that a run may have open; more cannot be a scan's
MAX_DESCRIPTORS, MAX_RESOURCES, MAX_DATA = 1000, 100_000, 100_000


class RunAssembler:
    """Cuts one run into sweeps. Every method yields what its document completes."""

    def __init__(
        self,
        start: Mapping[str, Any],
        analysis: Analysis,
        roots: tuple[Path, ...],
        patience: float,
        turn: float,
    ) -> None:
        self._start = start
        self._patience = patience
        self._streams: dict[str, Stream] = {}  # by name
        self._described: dict[str, tuple[Stream, Binding]] = {}  # by descriptor uid
        self._join: tuple[Joiner, Stream] | None = None
        self._resources: dict[str, Mapping[str, Any]] = {}
        self._data: dict[str, tuple[str, Mapping[str, Any]]] = {}  # datum id -> resource, datum
        self._refused: set[str] = set()  # what has been told of files that will not be read
        self._stop: Mapping[str, Any] | None = None
        self._given_up = False
        self._gave_sweeps = False
        self._renumbered = False  # a sweep with missing points has come
        self.refused: SpectrumError | None = None
        try:
            analysis = analysis.for_run(start)
        except ValueError as error:
            self.refused = SpectrumError(Reason.BAD_SETTINGS, str(error))
        adapter = analysis.adapter
        counts = Corrections({}, {})
        try:
            counts = corrections(adapter, lambda key: lookup(start, key))
        except SpectrumError as error:
            self.refused = self.refused or error
        self.run = describe(start, analysis)
        self._shared = SharedByStreams(
            run=self.run,
            context=Context(adapter, start),
            corrections=counts,
            delays=adapter.delay,
            turn=turn,
            roots=roots,
            refused=self.refused,
        )

    @property
    def owned(self) -> list[str]:
        """Descriptor and resource uids of this run."""
        return [*self._described, *self._resources]

    @property
    def waiting(self) -> bool:
        """Whether some sweep waits for an external file."""
        return any(stream.pending for stream in self._streams.values())

    @property
    def finished(self) -> bool:
        """Whether the run has stopped and nothing is waited for any more."""
        return self._given_up or (self._stop is not None and not self.waiting)

    @property
    def exit_status(self) -> str:
        """What the stop document said, or ``lost``."""
        return "lost" if self._stop is None else str(self._stop.get("exit_status", "success"))

    def gap_before(self, name: str, document: Mapping[str, Any]) -> tuple[str, range] | None:
        """Points that are missing before an event or page of points: their stream and numbers.

        None where nothing is missing, and where each row is a sweep, which can come later as well.
        """
        described = self._described.get(str(document.get("descriptor")))
        if name not in ("event", "event_page") or described is None:
            return None
        stream = described[0]
        if stream.binding.rowwise or not stream.binding.columns or stream.external.announced:
            return None
        numbers = document.get("seq_num")
        first = numbers[0] if isinstance(numbers, Sequence) and numbers else numbers
        if not isinstance(first, int) or not 0 < first - stream.expected <= LARGEST_GAP:
            return None
        return stream.binding.stream, range(stream.expected, first)

    def missing(self, stop: Mapping[str, Any]) -> dict[str, frozenset[int]]:
        """Rows that have not come by the end of the run, by stream.

        Parameters
        ----------
        stop
            The stop document, which says how many events each stream has.
        """
        missing: dict[str, frozenset[int]] = {}
        num_events = stop.get("num_events")
        for name, total in num_events.items() if isinstance(num_events, Mapping) else ():
            if not isinstance(total, int) or total > LARGEST_GAP:
                continue
            stream = self._streams.get(name)
            rows = frozenset(range(1, total + 1))
            if stream is not None:
                if stream.pending or not stream.binding.columns:
                    continue
                tail = range(stream.expected, total + stream.numbering.first)
                rows = stream.numbering.missing.union(tail)
            if rows:
                missing[name] = rows
        return missing

    def resume(self, later: float) -> None:
        """Go on in another process, whose clock is `later` s ahead of this state's."""
        for stream in self._streams.values():
            stream.external.postpone(later)

    def descriptor(self, document: Mapping[str, Any]) -> Iterator[Sweep | Trouble]:
        """Bind a stream; yields what is wrong with it, and what was held under its last one."""
        if len(self._described) >= MAX_DESCRIPTORS:
            raise ValueError(f"the run has more than {MAX_DESCRIPTORS} descriptors")
        binding = bind(self.run.analysis.adapter, document, self._start)
        if binding.problem is not None:
            yield Trouble(Problem.BAD_DOCUMENT, f"run {self.run.uid}: {binding.problem}")
        stream = self._streams.get(binding.stream)
        if stream is None:
            stream = self._streams[binding.stream] = Stream(binding, self._shared)
            self._joined(stream)
            if binding.problem is not None and self._join is not None:
                self._join[1].refuse(binding)
        self._described[str(document["uid"])] = stream, binding
        yield from self._bound(stream, binding)

    def _bound(self, stream: Stream, binding: Binding) -> Iterator[Sweep | Trouble]:
        """Have a stream read events by a binding; it goes on when it is described anew."""
        if stream.binding is not binding:
            yield from self._rows(stream, stream.bind(binding))

    def _joined(self, stream: Stream) -> None:
        """Add a stream that has only energy or only signals to the run's join.

        A stream that has both needs no other: then nothing is joined.
        """
        if any(s.binding.has_energy and s.binding.has_signals for s in self._streams.values()):
            self._join = None
            return
        binding = stream.binding
        if binding.has_energy == binding.has_signals:
            return
        if self._join is None:
            joined = Binding("", {}, (), {}, {})
            self._join = (Joiner(), Stream(joined, self._shared, joined=True))
        delays = stream.delays()
        # where rows are missing is told at the time of the readings beside it
        delays[stream.gap_role] = next(iter(delays.values()), 0.0)
        self._join[0].add_stream(binding.stream, [*binding.columns, stream.gap_role], delays)

    def resource(self, document: Mapping[str, Any]) -> Iterator[Sweep | Trouble]:
        """Remember a file."""
        if len(self._resources) >= MAX_RESOURCES:
            raise ValueError(f"the run has more than {MAX_RESOURCES} resources")
        READER.start()
        self._resources[str(document["uid"])] = document
        return iter(())

    stream_resource = resource

    def datum(
        self, document: Mapping[str, Any], received: float | None, now: float
    ) -> Iterator[Sweep | Trouble]:
        """Remember a place in a file."""
        return self._remember(str(document["datum_id"]), document)

    def _remember(self, datum_id: str, datum: Mapping[str, Any]) -> Iterator[Sweep | Trouble]:
        self._data[datum_id] = (str(datum["resource"]), datum)
        if len(self._data) > MAX_DATA:  # the oldest is of an event that has not come
            del self._data[next(iter(self._data))]
        return iter(())

    def datum_page(
        self, document: Mapping[str, Any], received: float | None, now: float
    ) -> Iterator[Sweep | Trouble]:
        """Remember many places in a file."""
        columns = dict(document["datum_kwargs"]).values()
        if any(len(values) != len(document["datum_id"]) for values in columns):
            raise ValueError("the columns of a datum_page differ in length")
        for datum in unpack_datum_page(document):  # type: ignore[arg-type]  # any mapping will do
            self._remember(str(datum["datum_id"]), datum)
        return iter(())

    def event(
        self, document: Mapping[str, Any], received: float | None, now: float
    ) -> Iterator[Sweep | Trouble]:
        """One row."""
        stream, binding = self._described[str(document["descriptor"])]
        yield from self._bound(stream, binding)
        filled = document.get("filled")
        external = filled and [key for key in stream.binding.keys if filled.get(key) is False]
        if external:
            fetches = {key: self._fetch_datum(document["data"][key]) for key in external}
            block = Block.of_event(document, stream.binding, without=external)
            stream.external.wait(block, fetches, received, now + self._patience)
            yield from self.poll(now)
        elif stream.external.announced and BACKFILLED_KEY not in document:
            # ophyd-async: the arrays come by stream_datum
            stream.external.note(document)
        else:
            yield from self._rows(stream, stream.hold(document, received))

    def event_page(
        self, document: Mapping[str, Any], received: float | None, now: float
    ) -> Iterator[Sweep | Trouble]:
        """Many rows."""
        stream, binding = self._described[str(document["descriptor"])]
        yield from self._bound(stream, binding)
        filled = document.get("filled") or {}
        if any(False in list(filled.get(key, ())) for key in stream.binding.keys):
            for row in _rows_of_page(document):
                yield from self.event(row, received, now)
        elif stream.external.announced and BACKFILLED_KEY not in document:
            for row in _rows_of_page(document):
                stream.external.note(row)
        else:
            yield from self._rows(stream, stream.flush())
            yield from self._rows(stream, [Block.of_page(document, stream.binding, received)])

    def stream_datum(
        self, document: Mapping[str, Any], received: float | None, now: float
    ) -> Iterator[Sweep | Trouble]:
        """Rows that have been written to a file."""
        stream, binding = self._described[str(document["descriptor"])]
        yield from self._bound(stream, binding)
        uid = str(document["stream_resource"])
        resource = self._resources.get(uid)
        if resource is None:
            yield Trouble(
                Problem.UNKNOWN_RESOURCE,
                f"run {self.run.uid}: stream_datum for an unknown stream_resource"
                f" {uid}; its rows are lost",
            )
            return
        key = str(resource["data_key"])
        if key not in stream.binding.keys:
            return
        try:
            file = Fetch(*assets.stream_dataset(resource))
        except (AssetError, KeyError, TypeError, ValueError) as error:
            file = Fetch(error=str(error))
            if uid not in self._refused:
                self._refused.add(uid)
                yield Trouble(Problem.ASSET_REFUSED, f"run {self.run.uid}, {key}: {error}")
        stream.external.announce(key, document, file, received, now + self._patience)
        yield from self.poll(now)

    def stop(self, document: Mapping[str, Any], now: float) -> Iterator[Sweep | Trouble]:
        """End the run."""
        self._stop = document
        yield from self.poll(now)

    def poll(self, now: float) -> Iterator[Sweep | Trouble]:
        """Read external rows that have become available; end the run when all are in."""
        for stream in self._streams.values():
            if stream.pending:
                yield from self._rows(
                    stream, stream.external.fetch(stream.binding, now, final=self._stop is not None)
                )
        if self.finished:
            yield from self._finish()

    def abandon(self) -> Iterator[Sweep | Trouble]:
        """End a run that will get no more documents."""
        for stream in self._streams.values():
            while (
                stream.pending
            ):  # a part at a time; past the deadline each gives its rows or says why
                before = stream.external.left
                blocks = stream.external.fetch(stream.binding, float("inf"), final=True)
                yield from self._rows(stream, blocks)
                if stream.external.left == before:
                    break
        self._given_up = True
        yield from self._finish()

    def _finish(self) -> Iterator[Sweep | Trouble]:
        whole = self.exit_status == "success"
        for stream in self._streams.values():
            yield from self._rows(stream, stream.flush())
            yield from self._out(stream.finish(whole))
            num_events = (self._stop or {}).get("num_events")
            expected = (
                num_events.get(stream.binding.stream) if isinstance(num_events, Mapping) else None
            )
            if (
                isinstance(expected, int)
                and stream.binding.has_signals
                and stream.numbering.rows < expected
            ):
                yield Trouble(
                    Problem.GAP,
                    f"run {self.run.uid}: {stream.numbering.rows} of {expected} events of stream"
                    f" {stream.binding.stream!r} arrived; replay it from the archive",
                )
        if self._join is not None:
            joiner, target = self._join
            points = joiner.finish()
            if points is not None and joiner.base is not None:
                yield from self._out(target.cut(points, joiner.base, None))
            yield from self._out(target.finish(whole))
        if not self._gave_sweeps:
            columns = {s.binding.stream: sorted(s.binding.columns) for s in self._streams.values()}
            yield Trouble(
                Problem.NO_SPECTRUM,
                f"run {self.run.uid} gave no sweep; recognised columns by stream: {columns}. If it"
                " is an XAFS scan, name its columns under [adapter]",
            )

    def _rows(self, stream: Stream, blocks: Iterable[Block]) -> Iterator[Sweep | Trouble]:
        """Blocks of rows to sweeps; what goes wrong with one is told, and the next is read."""
        for block in blocks:
            try:
                yield from self._block(stream, block)
            except Exception as error:  # whatever is in a document, the next one is still read
                where = f"run {self.run.uid}, stream {stream.binding.stream!r}"
                text = f"{where}: {type(error).__name__}: {error}; the rows were skipped"
                yield Trouble(Problem.BAD_DOCUMENT, text)

    def _block(self, stream: Stream, arrived: Block) -> Iterator[Sweep | Trouble]:
        """Rows to sweeps, through the join where energy and signals are apart."""
        where = f"run {self.run.uid}, stream {stream.binding.stream!r}"
        if arrived.outside and arrived.error not in self._refused:
            self._refused.add(str(arrived.error))
            yield Trouble(Problem.ASSET_REFUSED, f"run {self.run.uid}, {arrived.error}")
        rows = stream.numbering.take(arrived, where, arrived.binding.rowwise)
        if rows.trouble is not None:
            yield rows.trouble
        if rows.again is not None:
            self._shared.context.remember(arrived.binding, rows.again)
            yield from self._again(stream, rows.again, where)
        else:
            yield from self._out(stream.revised())
        if rows.new is None:
            return
        block, binding = rows.new, arrived.binding
        self._shared.context.remember(binding, block)
        if binding.has_energy and binding.has_signals:
            yield from self._out(stream.accept(block))
        elif self._join is not None and (binding.has_energy or binding.has_signals):
            joiner, target = self._join
            if block.error is not None:
                yield from self._out(target.accept(block))
                return
            points = joiner.push(binding.stream, stream.points(block, stamps=True))
            if points is not None and joiner.base is not None:
                yield from self._out(target.cut(points, joiner.base, block.received))

    def _again(self, stream: Stream, block: Block, where: str) -> Iterator[Sweep | Trouble]:
        """Rows that came again: the later reading counts, where that is possible."""
        if not block.binding.columns:
            return
        if self._join is not None:
            self._join[1].stale = True
        sweeps, changed = stream.amend(block)
        yield from self._out(sweeps)
        if not sweeps and not changed:
            first, last = block.seq[[0, -1]]
            text = f"{where}: events {first} to {last} came again, or too late, and were skipped"
            yield Trouble(Problem.REPEATED, text)

    def _out(self, sweeps: list[Sweep]) -> list[Sweep]:
        """Sweeps, with flags for what they suffer from rows that are missing before them."""
        self._gave_sweeps |= bool(sweeps)
        lasting = [
            Flag.AFTER_GAP
            for stream in self._streams.values()
            if stream.binding.rowwise and stream.binding.columns and stream.numbering.incomplete
        ]
        flagged: list[Sweep] = []
        for sweep in sweeps:
            flags = (*lasting[:1], *((Flag.RENUMBERED,) if self._renumbered else ()))
            self._renumbered |= Flag.GAP in sweep.flags
            flagged.append(replace(sweep, flags=(*sweep.flags, *flags)) if flags else sweep)
        return flagged

    def _fetch_datum(self, datum_id: Any) -> Fetch:
        if str(datum_id) not in self._data:
            return Fetch(error=f"datum {datum_id} was never sent")
        uid, datum = self._data.pop(str(datum_id))
        resource = self._resources.get(uid)
        if resource is None:
            return Fetch(error=f"resource {uid} was never sent")
        try:
            return Fetch(*assets.datum_rows(resource, datum))
        except (AssetError, KeyError, TypeError, ValueError) as error:
            return Fetch(error=str(error))


def _rows_of_page(page: Mapping[str, Any]) -> Iterator[Any]:
    """Events of a page, whatever it leaves out."""
    whole = {"uid": page["seq_num"], "timestamps": {}, "filled": {}} | {
        name: part for name, part in page.items() if part
    }
    return unpack_event_page(whole)  # type: ignore[arg-type]  # any mapping will do


def describe(start: Mapping[str, Any], analysis: Analysis) -> Run:
    """What a start document says about its run."""
    adapter: Adapter = analysis.adapter
    scan_id = start.get("scan_id")
    override = start.get("exafsd")
    asked = override if isinstance(override, Mapping) else {}
    return Run(
        uid=str(start["uid"]),
        scan_id=scan_id if isinstance(scan_id, int) else None,
        edges=_edges(
            asked.get("element") or first(start, adapter.element),
            asked.get("edge") or first(start, adapter.edge),
        ),
        sample=first(start, adapter.sample),
        analysis=analysis,
    )


def _edges(elements: Any, edges: Any) -> tuple[Edge, ...]:
    """Element and edge as given: one of each, or lists, of which a single one holds for all."""
    if elements is None and edges is None:
        return ()
    names = list(elements) if isinstance(elements, (list, tuple)) else [elements or ""]
    kinds = list(edges) if isinstance(edges, (list, tuple)) else [edges or ""]
    count = max(len(names), len(kinds))
    names, kinds = (
        part * count if len(part) == 1 else part + [""] * (count - len(part))
        for part in (names, kinds)
    )
    pairs = (Edge.of(str(name), str(kind)) for name, kind in zip(names, kinds, strict=True))
    return tuple(dict.fromkeys(pairs))
