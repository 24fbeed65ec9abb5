"""One tiled server, which takes seconds to start, for all tests of result runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heated_runs import RUNS, Documents, archive, heated, journal
from tiled.client import from_uri

from exafsd.testing.catalog_server import CatalogServer


@pytest.fixture(scope="package")
def heated_documents() -> list[Documents]:
    return [heated(number) for number in range(RUNS)]


@pytest.fixture(scope="package")
def journal_folder(
    heated_documents: list[Documents], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("heated") / "journal"
    for documents in heated_documents:
        journal(documents, folder)
    return folder


@pytest.fixture(scope="package")
def catalog_server(
    heated_documents: list[Documents], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CatalogServer]:
    """A server with the raw runs; ``TILED_API_KEY`` is its key while it runs."""
    with (
        CatalogServer(tmp_path_factory.mktemp("result-catalog")) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TILED_API_KEY", server.api_key)
        client = from_uri(server.uri)
        for documents in heated_documents:
            archive(documents, client)
        client.context.close()
        yield server


@pytest.fixture
def client(catalog_server: CatalogServer) -> Iterator[Any]:
    client = from_uri(catalog_server.uri)
    yield client
    client.context.close()
