"""A training on the terminal: the stage, the time left, and nothing that libraries say."""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

#: Share of a stage after which the time that it took says how long it will take.
TELLING = 0.1


class Stages:
    """Stages one after another.

    The time left is that of the present stage, by what is done of it, and what is expected of the
    later ones.

    Parameters
    ----------
    expected
        Seconds by stage, in their order.
    show
        Called with the stage, what it says about itself, the share done of everything and the
        seconds left.
    clock
        Seconds that never go back.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        show: Callable[[str, str, float, float], None] = lambda *shown: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._later = dict(expected)
        self._show, self._clock = show, clock
        self._began = self._stage_began = clock()
        self._name, self._expected = "", 0.0

    def begin(self, name: str) -> None:
        """Begin a stage, which ends the one before."""
        self._name, self._expected = name, self._later.pop(name)
        self._stage_began = self._clock()
        self.report(0.0)

    def report(self, share: float, said: str = "") -> None:
        """Say how much of the stage is done, from 0 to 1."""
        now = self._clock()
        spent = now - self._stage_began
        whole = spent / share if share > TELLING else max(spent, self._expected)
        left = whole * (1 - share) + sum(self._later.values())
        done = now - self._began
        self._show(self._name, said, done / (done + left) if left else 1.0, left)


@contextmanager
def on_terminal(expected: Mapping[str, float], console: Console) -> Iterator[Stages]:
    """Stages as a line on the terminal."""
    left_column = TextColumn("{task.fields[left]}")
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), left_column
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=1.0, left="")

        def show(name: str, said: str, share: float, seconds: float) -> None:
            minutes, rest = divmod(round(seconds), 60)
            progress.update(
                task, description=f"{name}: {said}" if said else name, completed=share,
                left=f"{minutes}:{rest:02d} left", refresh=True,
            )  # fmt: skip

        yield Stages(expected, show)
        progress.update(task, description="done", completed=1.0, left="")


def load_tensorflow() -> None:
    """Import TensorFlow without the lines about processors that it prints."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # before it has read its settings it writes to the file descriptor
    own = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf
        finally:
            os.dup2(own, 2)
            os.close(own)
    tf.get_logger().setLevel("ERROR")


@contextmanager
def only_warnings(kind: type[Warning], console: Console) -> Iterator[None]:
    """Print warnings of a kind, a line each, and no others."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        console.print(f"warning: {message}", highlight=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", kind)
        warnings.showwarning = show
        yield
