"""A catalog in a folder: a tiled server that owns it while it is written, a profile for later.

DuckDB lets one process in at a time: use the profile only after the server has stopped.
"""

import json
import secrets
import sqlite3
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self

from exafsd.archive.catalog import CatalogError
from exafsd.testing.parts import PartError, free_ports, python_process, wait_for

#: Without this line of a configuration ``run.documents()`` is answered by 406.
MEDIA_TYPES = {
    "BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}
}


def configuration(folder: Path, assets: Sequence[Path] = ()) -> dict[str, Any]:
    """Tiled's configuration of the catalog in `folder`.

    External files are read where they are, but only below `folder` and `assets`.
    """
    folder = folder.absolute()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    return {
        "media_types": MEDIA_TYPES,
        "trees": [
            {
                "path": "/",
                "tree": "catalog",
                "args": {
                    "uri": f"sqlite:///{folder / 'catalog.db'}",
                    "init_if_not_exists": not _initialised(folder / "catalog.db"),
                    "writable_storage": [str(data), f"duckdb:///{folder / 'tables.duckdb'}"],
                    "readable_storage": [str(path.absolute()) for path in (folder, *assets)],
                    "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
                },
            }
        ],
    }


def _initialised(file: Path) -> bool:
    """Whether a catalog's tables are there; tiled takes a process of three seconds to find out."""
    if not file.is_file():
        return False
    with closing(sqlite3.connect(file)) as database, suppress(sqlite3.Error):
        # the last that tiled writes at its first start
        return database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    return False


def write_server_config(folder: Path, assets: Sequence[Path] = (), streaming: bool = False) -> Path:
    """File for ``tiled serve config``; it holds no secret."""
    path = folder / "server.yml"
    config = configuration(folder, assets)
    if streaming:
        config["streaming_cache"] = {"uri": "memory"}
    path.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML, and quotes every path
    return path


def write_profile(folder: Path, name: str, profiles: Path, assets: Sequence[Path] = ()) -> Path:
    """Write the tiled profile `name`, which opens the catalog in `folder` without a server.

    Parameters
    ----------
    folder
        The catalog's folder.
    name
        For ``databroker.catalog[name]``.
    profiles
        Where tiled looks for profiles: ``TILED_PROFILES`` or ``~/.config/tiled/profiles``.
    assets
        Folders of external files.
    """
    profiles.mkdir(parents=True, exist_ok=True)
    path = profiles / f"{name}.yml"
    # the key never leaves the process that opens the profile, but tiled insists on one
    direct = configuration(folder, assets) | {
        "authentication": {"single_user_api_key": secrets.token_hex(16)}
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps({name: {"direct": direct}}, indent=2) + "\n")
    return path


class CatalogServer:
    """``tiled serve config`` on a free loopback port, for as long as the context lasts.

    Parameters
    ----------
    folder, assets
        Of the catalog, and of external files.
    streaming
        Whether runs can be followed while they are written.

    Attributes
    ----------
    uri, api_key
        For ``tiled.client.from_uri``; give the key to other processes as ``TILED_API_KEY``.
    """

    def __init__(self, folder: Path, assets: Sequence[Path] = (), streaming: bool = False) -> None:
        self.folder = folder
        self._streaming = streaming
        (self._port,) = free_ports(1)
        self._assets = assets
        self.api_key = secrets.token_hex(32)
        self.uri = ""

    def __enter__(self) -> Self:
        """`start`."""
        self.start()
        return self

    def start(self) -> None:
        """Start, and wait until it answers; it ends with the thread that calls this.

        Raises
        ------
        CatalogError
            If the server ends, or says nothing for a minute; with its last words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        config = write_server_config(self.folder, self._assets, self._streaming)
        self.uri = f"http://127.0.0.1:{self._port}/api/v1"
        command = ("-m", "tiled", "serve", "config", str(config), "--host", "127.0.0.1")
        environment = {"TILED_SINGLE_USER_API_KEY": self.api_key}
        with ExitStack() as stack:
            arguments = (*command, "--port", str(self._port))
            server = python_process("server", self.folder, *arguments, environment=environment)
            self._process = stack.enter_context(server)
            try:
                wait_for(self._answers, self._process, "answer")
            except PartError as error:
                raise CatalogError(f"the tiled server did not start: {error}") from None
            self._running = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def kill(self) -> None:
        """End it without a word; `start` has it again at the same address."""
        self._process.process.kill()
        self.stop()

    def stop(self) -> None:
        """Stop, so that the storage is free for the embedded profile; again does no harm."""
        self._running.close()

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/", timeout=1.0):  # noqa: S310
            return True
        return False
