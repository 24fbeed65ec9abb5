"""Commands that are used while a beamline measures."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from exafsd.commands.cli.options import (
    DEFAULT_ADDRESS,
    AddressArgument,
    ConfigOption,
    JsonOption,
    KeysOption,
    begin_log,
    fail,
    failing,
    settings_from,
)

app = typer.Typer()
PANEL = "At the beamline"


@app.command(rich_help_panel=PANEL)
def run(config: ConfigOption = None) -> None:
    """Run the daemon: analyse the scans of a beamline and publish the results."""
    settings = settings_from(config)
    begin_log(settings.service.log_level, settings.service.log_format)
    from exafsd.service.intake import Intake

    with failing(OSError, ValueError):
        intake = Intake.open(settings, folder=settings.journal_folder)
        intake.start()  # documents are taken and written down while the rest is loaded
    from exafsd.publishing import AddressError, KeyFileError
    from exafsd.service.garbage import settle
    from exafsd.service.wiring import make_service

    with failing(AddressError, KeyFileError, OSError, ValueError):
        try:
            service, _ = make_service(settings, intake=intake)
        except BaseException:
            intake.stop()
            raise
        settle()
        service.handle_signals()
        service.run()


@app.command(rich_help_panel=PANEL)
def watch(
    address: AddressArgument = DEFAULT_ADDRESS,
    topic: Annotated[
        str,
        typer.Option(
            help="Show only messages whose topic starts with this text, for example"
            " 'result.Cu.K.' with the last dot."
        ),
    ] = "",
    json: JsonOption = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    keys: KeysOption = None,
) -> None:
    """Show results in the terminal as they come."""
    from exafsd.commands.terminal import watch_address

    with failing(ValueError):  # the keys
        watch_address(address, topic, json, seconds, keys)


def _curves(folders: list[Path]) -> Any:
    """References that viewers can choose; none where nothing but the page is installed."""
    try:
        from exafsd.commands.references import curves
    except ImportError as error:
        if folders:
            typer.echo(
                f"exafsd: {error}; --references needs: pip install 'exafsd[daemon]'", err=True
            )
        return {}
    drawn, refused = curves(folders)
    for text in refused:
        typer.echo(f"exafsd: {text}", err=True)
    return drawn


@app.command(rich_help_panel=PANEL)
def dashboard(
    address: Annotated[
        list[str] | None,
        typer.Argument(
            help="Address where the daemon publishes; give one address for each daemon.",
            show_default=DEFAULT_ADDRESS,
        ),
    ] = None,
    connect: Annotated[str | None, typer.Option(help="Another way to give ADDRESS.")] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="Address where the daemon answers requests; by default ADDRESS with the next port"
            " number."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Network interface that browsers connect to.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 selects a free port.")] = 5100,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name under which browsers may open the page; may be repeated."),
    ] = None,
    keys: KeysOption = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Folder with additional reference spectra; may be repeated."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show results on a web page as they come."""
    try:
        from exafsd.dashboard import Dashboard
    except ImportError as error:
        fail(f"{error}; the dashboard needs: pip install 'exafsd[dashboard]'")
    addresses = [connect] if connect else address or [DEFAULT_ADDRESS]
    begin_log("WARNING")
    os.nice(10)  # where it shares a machine with the daemon, spectra come first
    with failing(ValueError, OSError):  # the keys, or the port is taken
        page = Dashboard(
            addresses, answers, keys, host, port, name or [], partial(_curves, references or [])
        )
    typer.echo(f"dashboard at {page.url}, following {', '.join(addresses)}")
    if browser:
        typer.launch(page.url)
    page.run()


@app.command(rich_help_panel=PANEL)
def status(
    address: AddressArgument = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the daemon.")] = 3.0,
    json: JsonOption = False,
    keys: KeysOption = None,
) -> None:
    """Show the state of the daemon.

    The exit code is 0 if the daemon is ready, 1 if no daemon answers, 3 if the daemon is
    starting, overloaded or stopping, and 4 if it works but loses documents or results
    or cannot store them.
    """
    from exafsd.commands.terminal import hear_status, status_lines

    with failing(ValueError):  # the keys, or something else talks there
        header = hear_status(address, timeout, keys)
    if header is None:
        fail(f"no daemon answers at {address} within {timeout:g} s")
    if json:
        import json as encoder

        typer.echo(encoder.dumps(header))
    else:
        for line in status_lines(header):
            typer.echo(line)
    if header["state"] != "ready":
        raise typer.Exit(4 if header["state"] == "degraded" else 3)


@app.command(rich_help_panel=PANEL)
def demo(
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to measure; 0: until Ctrl-C.")
    ] = 60.0,
    rate: Annotated[float, typer.Option(help="Sweeps per second.")] = 5.0,
    publish: Annotated[
        str, typer.Option(help="Address to publish at; the port * selects a free port.")
    ] = "tcp://127.0.0.1:*",
    answers: Annotated[
        str | None,
        typer.Option(
            help="Address for requests to the daemon; by default --publish with its port number"
            " plus 1."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the dashboard; by default a free one.")
    ] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="How the simulated beamline sends a sweep: array (one event with arrays), event"
            " (one event per point), page (event pages), monitor (monitor streams), resource"
            " (external files, announced by resource and datum documents) or stream (external"
            " files, announced by stream_resource and stream_datum documents)."
        ),
    ] = "array",
    folder: Annotated[
        Path | None, typer.Option(help="Folder for catalog and journal; by default a new one.")
    ] = None,
    scenario: Annotated[
        Literal["reduction", "heating"],
        typer.Option(
            help="reduction: copper oxide that is heated in hydrogen; heating: a copper foil that"
            " is heated."
        ),
    ] = "reduction",
) -> None:
    """Try exafsd: run a simulated beamline, the daemon and the dashboard on this machine."""
    from exafsd.commands.demo import DemoError, Options, run_demo

    with failing(DemoError):
        run_demo(Options(seconds, rate, shape, publish, answers, port, folder, scenario))
