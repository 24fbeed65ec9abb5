"""A catalog in a folder: a tiled server that owns it while it is written, a profile for later.

DuckDB lets one process in at a time: use the profile only after the server has stopped.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from exafsd.archive.catalog import CatalogError

#: Without this line of a configuration ``run.documents()`` is answered by 406.
MEDIA_TYPES = {
    "BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}
}
#: Seconds that a server may take until it answers (3 to 6 on two cores), and to stop.
START_DEADLINE, STOP_DEADLINE = 60.0, 10.0
#: Becomes another program, after telling Linux to send it SIGTERM (15) when its parent ends (1),
#: unless that has happened already.
TIE = """
import ctypes, os, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


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
                    "init_if_not_exists": True,
                    "writable_storage": [str(data), f"duckdb:///{folder / 'tables.duckdb'}"],
                    "readable_storage": [str(path.absolute()) for path in (folder, *assets)],
                    "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
                },
            }
        ],
    }


def write_server_config(folder: Path, assets: Sequence[Path] = ()) -> Path:
    """File for ``tiled serve config``; it holds no secret."""
    path = folder / "server.yml"
    config = configuration(folder, assets)
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


def tied(*arguments: str) -> list[str]:
    """Command of a Python that ends with the process that starts it, even if that is killed.

    Only on Linux; elsewhere it ends when it is told to.
    """
    command = [sys.executable, *arguments]
    if sys.platform == "linux":
        return [sys.executable, "-I", "-S", "-c", TIE, str(os.getpid()), *command]
    return command


class CatalogServer:
    """``tiled serve config`` on a free loopback port, for as long as the context lasts.

    Attributes
    ----------
    uri, api_key
        For ``tiled.client.from_uri``; give the key to other processes as ``TILED_API_KEY``.
    """

    def __init__(self, folder: Path, assets: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._assets = assets
        self.api_key = secrets.token_hex(32)
        self.uri = ""

    def __enter__(self) -> Self:
        """Start, and wait until it answers.

        Raises
        ------
        CatalogError
            If the server ends, or says nothing for a minute; with its last words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        config = write_server_config(self.folder, self._assets)
        port = _free_port()
        command = tied("-m", "tiled", "serve", "config", str(config))
        environment = os.environ | {"TILED_SINGLE_USER_API_KEY": self.api_key}
        self._log = (self.folder / "server.log").open("wb")
        self._process = subprocess.Popen(  # our own interpreter and arguments
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for who started it: there may be more to write
        )
        self.uri = f"http://127.0.0.1:{port}/api/v1"
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop, so that the storage is free for the embedded profile; again does no harm."""
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/", timeout=1.0):  # noqa: S310  # http
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.1)
        tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
        raise CatalogError(f"the tiled server did not start:\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
