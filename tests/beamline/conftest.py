"""A real proxy, and the documents of all six shapes from a real RunEngine in another process."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from beamline_wire import SHAPES, Documents, Wire


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def proxy() -> Iterator[tuple[str, str]]:
    """Input and output address."""
    addresses = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    command = str(Path(sys.executable).parent / "bluesky-0MQ-proxy")
    process = subprocess.Popen(
        [command, "--in-address", addresses[0], "--out-address", addresses[1]],
        stdout=subprocess.DEVNULL,
    )
    yield addresses[0], addresses[1]
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with FEFF's paths for copper."""
    from exafsd.testing.heating import feff_paths

    folder = tmp_path_factory.mktemp("cache")
    feff_paths(folder / "exafsd")
    return folder


@pytest.fixture(scope="session")
def start(cache: Path, proxy: tuple[str, str]) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a beamline with these arguments."""

    def starter(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "exafsd.testing.beamline", "--proxy", proxy[0], *arguments],
            env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
        )

    return starter


@pytest.fixture
def wire(proxy: tuple[str, str]) -> Iterator[Wire]:
    wire = Wire(proxy[1])
    yield wire
    wire.close()


@pytest.fixture(scope="session")
def published(
    start: Callable[..., subprocess.Popen[bytes]],
    proxy: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Documents]]:
    """Documents of two runs in each shape."""
    wire = Wire(proxy[1])
    assets = tmp_path_factory.mktemp("assets")
    process = start("--shape", *SHAPES, "--runs", "2", "--sweeps", "2", "--assets", str(assets),
                    "--rate", "10", "--points", "250")  # fmt: skip
    documents = wire.until(lambda: process.poll() is not None)
    wire.close()
    assert process.returncode == 0
    by_shape: dict[str, list[Documents]] = {shape: [] for shape in SHAPES}
    run: Documents = []
    for name, document in documents:
        run.append((name, document))
        if name == "stop":
            by_shape[shape_of(run)].append(run)
            run = []
    assert not run
    return by_shape


def shape_of(run: Documents) -> str:
    names = {name for name, _ in run}
    keys = next(d for n, d in run if n == "descriptor")["data_keys"]
    if "stream_datum" in names:
        return "stream"
    if "datum" in names:
        return "resource"
    if "event_page" in names:
        return "page"
    if sum(n == "descriptor" for n, _ in run) == 2:
        return "monitor"
    return "array" if keys["energy"]["shape"] else "event"
