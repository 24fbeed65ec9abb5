"""Parts of a beamline as processes on this machine: proxy and daemon."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exafsd.testing.catalog_server import CatalogServer
from exafsd.testing.parts import PythonProcess, free_ports, python_process, wait_for, wait_for_port


@contextmanager
def proxy(folder: Path) -> Iterator[tuple[str, str]]:
    """``bluesky-0MQ-proxy`` on free loopback ports; its addresses to publish to and subscribe."""
    ports = free_ports(2)
    into, out = (f"tcp://127.0.0.1:{port}" for port in ports)
    code = "from bluesky.commandline.zmq_proxy import main; main()"
    arguments = ("-c", code, "--in-address", into, "--out-address", out)
    with python_process("proxy", folder, *arguments) as running:
        for port in ports:
            wait_for_port(port, running)
        yield into, out


#: FEFF's near edge is not a measured one
NOT_COMPARED = '[composition]\nenabled = "off"\n'


@contextmanager
def daemon(
    folder: Path,
    source: str,
    publish: str,
    journal: Path,
    assets: Path,
    *,
    answers: str | None = None,
    results: CatalogServer | None = None,
    settings: str = NOT_COMPARED,
) -> Iterator[tuple[PythonProcess, str]]:
    """``exafsd run`` with settings written into `folder`; its process and bound address.

    Parameters
    ----------
    folder
        For settings, log and address.
    source, publish, answers
        Addresses; without `answers` the port after that of `publish`.
    journal, assets
        Folders of documents and of external files.
    results
        Server that result runs are written to; None: they are not kept.
    settings
        More of the settings, as TOML.
    """
    address_file = folder / "address"
    address_file.unlink(missing_ok=True)  # of another time
    config = folder / "exafsd.toml"
    config.write_text(
        "# settings of the demo's daemon\n"
        f'[source]\naddress = "{source}"\nasset_roots = ["{assets}"]\n'
        f'[publish]\naddress = "{publish}"\naddress_file = "{address_file}"\n'
        + (f'answers = "{answers}"\n' if answers else "")
        + f'[journal]\nfolder = "{journal}"\n'
        + settings
        + (f'[results]\ncatalog = "{results.uri}"  # while the demo runs\n' if results else "")
    )
    command = ("-m", "exafsd.cli", "run", "--config", str(config))
    environment = {"TILED_API_KEY": results.api_key} if results else {}
    with python_process("daemon", folder, *command, environment=environment) as running:
        wait_for(address_file.exists, running, "address")
        yield running, address_file.read_text().strip()
