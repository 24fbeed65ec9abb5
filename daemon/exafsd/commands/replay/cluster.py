"""Archived runs over the workers of a Dask cluster, a run at a time; what comes out, in run order.

Workers read the archive themselves, so they must reach it under the same name.
"""

import pickle
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from exafsd._version import __version__
from exafsd.archive.sources import ArchiveSource, open_source
from exafsd.commands.replay.analysis import Failed, analyse
from exafsd.lazy import of_extra
from exafsd.pipeline import Pipeline
from exafsd.service import wiring
from exafsd.service.session import Event
from exafsd.settings import Settings

#: runs under way for each thread of the workers: one that is done must not wait for the next
AHEAD = 4
#: s for the scheduler, and for a first worker
PATIENCE = 30
#: archive, settings and pipeline of this worker; its threads take turns, as a pipeline is for one
_ready: list[tuple[tuple[str, str], ArchiveSource, Settings, Pipeline]] = []
_turn = threading.Lock()


def on_workers(
    archive: str, uids: Sequence[str], settings: Settings, scheduler: str
) -> Iterator[tuple[str, Iterator[Event | Failed]]]:
    """Items of each run, in the same order; runs wait on the workers until it is their turn.

    A run whose worker dies is analysed by another one.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    OSError
        If no scheduler answers, or it has no workers.
    """
    distributed = of_extra("distributed", "dask")
    with distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=PATIENCE)
        about = settings.model_dump()  # the class of settings from a file exists here only
        waiting = deque(uids)
        under_way: deque[tuple[str, Any]] = deque()
        try:
            while waiting or under_way:
                slots = AHEAD * max(sum(client.nthreads().values()), 1)  # workers come and go
                while waiting and len(under_way) < slots:
                    uid = waiting.popleft()
                    task = client.submit(_analysed, archive, uid, about, __version__, pure=False)
                    under_way.append((uid, task))
                uid, task = under_way.popleft()
                yield uid, _received(uid, task)
        finally:
            client.cancel([task for _, task in under_way])


def _received(uid: str, task: Any) -> Iterator[Event | Failed]:
    try:
        items = pickle.loads(task.result())  # noqa: S301  # whoever has workers runs code on them
    except Exception as error:  # whatever went wrong on a worker, other runs go on
        items = [Failed(f"run {uid}: {type(error).__name__}: {error}")]
    task.release()
    yield from items


def _analysed(archive: str, uid: str, settings: dict[str, Any], version: str) -> bytes:
    """On a worker: items of a run, packed at once, as Dask would look at each of them."""
    if version != __version__:
        raise RuntimeError(f"this worker has exafsd {__version__}, the replay {version}")
    key = (archive, repr(settings))
    with _turn:
        if not _ready or _ready[0][0] != key:
            for _, source, _, pipeline in _ready:
                pipeline.close()
                source.close()
            asked = Settings(**settings)
            _ready[:] = [(key, open_source(archive), asked, wiring.make_pipeline(asked))]
        _, source, asked, pipeline = _ready[0]
        return pickle.dumps(list(analyse(source, uid, asked, pipeline, realtime=False)))
