"""The ``exafsd`` command. Every command is a few lines that call one function."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from exafsd._version import __version__

# Its matrices are too small to share: a second BLAS thread only takes the core of the receiver.
# To be set before numpy is imported, which the commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
models_app = typer.Typer(no_args_is_help=True, help="Model bundles.")
config_app = typer.Typer(no_args_is_help=True, help="Settings.")
references_app = typer.Typer(
    no_args_is_help=True, help="Measured standards that samples are compared with."
)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(references_app, name="references")
results_app = typer.Typer(
    no_args_is_help=True, help="Results of past runs, from the outcome logs beside a journal."
)
app.add_typer(results_app, name="results")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Bundle name or folder, or none for no model.")
]
#: where a daemon with default settings publishes
DEFAULT_ADDRESS = "tcp://127.0.0.1:5580"
AddressArgument = Annotated[str, typer.Argument(help="Of the daemon's PUB socket.")]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Folder with this client's keys (exafsd keys).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def fail(text: object, code: int = 1) -> NoReturn:
    """Say what is wrong and end."""
    typer.echo(f"exafsd: {text}", err=True)
    raise typer.Exit(code)


@contextmanager
def failing(*errors: type[Exception], code: int = 1) -> Iterator[None]:
    """Say what is wrong and end, where one of these errors says so."""
    try:
        yield
    except errors as error:
        fail(error, code)


#: what archives and catalogs raise where they cannot be read
UNREADABLE = (ValueError, LookupError, OSError, RuntimeError)


def _settings(config: Path | None, **overrides: Any) -> Any:
    from pydantic import ValidationError

    from exafsd.settings import load

    try:
        return load(config, **overrides)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        fail("\n".join([f"settings {config or '(environment)'} are not valid:", *lines]), 2)
    except (OSError, ValueError) as error:
        fail(error, 2)


def _with_model(config: Path | None, model: str | None) -> Any:
    from exafsd.commands.models import with_model
    from exafsd.inference.registry import BundleError

    with failing(BundleError):
        return with_model(_settings(config), model)


def _log(level: str) -> None:
    """One line an event on stderr; only our own, whatever libraries do to the root logger."""
    handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
    handler.setFormatter(logging.Formatter(form))
    logger = logging.getLogger("exafsd")
    logger.handlers = [handler]
    logger.setLevel(level)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Say it and end.")] = False,
) -> None:
    """Live structural parameters from quick-XAFS scans."""
    # else the interpreter looks for garbage in 2,500 modules on its way out: 0.7 s
    atexit.register(gc.freeze)
    if version:
        typer.echo(f"exafsd {__version__}")
        raise typer.Exit


@app.command()
def run(config: ConfigOption = None) -> None:
    """Listen to bluesky-0MQ-proxy and publish results until SIGTERM."""
    settings = _settings(config)
    _log(settings.service.log_level)
    from exafsd.service.intake import Intake

    with failing(OSError):
        intake = Intake.open(settings, folder=settings.journal_folder)
        intake.start()  # documents are taken and written down while the rest is loaded
    from exafsd.publishing import AddressError, KeyFileError
    from exafsd.service.wiring import make_service

    with failing(AddressError, KeyFileError, OSError):
        service, _ = make_service(settings, intake=intake)
        service.handle_signals()
        service.run()


@app.command()
def check(
    config: ConfigOption = None,
    journal: Annotated[
        bool, typer.Option("--journal", help="Read every record of the journal, too.")
    ] = False,
) -> None:
    """Build everything, connect nothing, say what is wrong."""
    settings = _settings(config)
    from exafsd.commands.check import check_settings

    report, problems = check_settings(settings, journal)
    for line in report:
        typer.echo(line)
    for problem in problems:
        typer.echo(f"PROBLEM  {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("ok")


@app.command()
def analyze(
    files: Annotated[list[Path], typer.Argument(help="XDI, column ASCII or HDF5.")],
    config: ConfigOption = None,
    model: ModelOption = None,
    element: Annotated[str | None, typer.Option(help="For example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="For example K.")] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Also compare with the references there."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Analyse spectra in files with the pipeline of the live daemon."""
    from exafsd.commands.analyze import analyze_files

    settings = _with_model(config, model)
    if references:
        composition = settings.composition.model_copy(
            update={"references": (*settings.composition.references, *references)}
        )
        settings = settings.model_copy(update={"composition": composition.read()})
    _log("ERROR")
    if not analyze_files(files, settings, element, edge, json):
        raise typer.Exit(1)


@app.command()
def replay(
    catalog: Annotated[str, typer.Argument(help="databroker/tiled profile, tiled URI or journal.")],
    uid: Annotated[str | None, typer.Option(help="One run.")] = None,
    last: Annotated[int | None, typer.Option(help="The latest N runs.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO date or s since 1970.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO date or s since 1970.")] = None,
    search: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the start document; may be repeated.")
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime/--fast", help="As measured, or at once.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Results over ZeroMQ.")] = False,
    json: JsonOption = False,
    write: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Write result runs there.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what --write has there already.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(metavar="CATALOG", help="Beside the result runs there: old, new, difference."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs analysed at a time.")] = 1,
    config: ConfigOption = None,
    model: ModelOption = None,
) -> None:
    """Analyse archived runs again."""
    from exafsd.commands.replay.outputs import Options
    from exafsd.commands.replay.runs import Selection
    from exafsd.commands.replay.runs import replay as replay_runs

    settings = _with_model(config, model)
    _log("ERROR")
    options = Options(realtime, processes, resume, write, compare, publish, json)
    with failing(*UNREADABLE):
        chosen = Selection.parse(uid, last, since, until, search or [])
        complete = replay_runs(catalog, chosen, settings, options)
    if not complete:
        raise typer.Exit(1)


@app.command()
def export(
    catalog: Annotated[str, typer.Argument(help="databroker/tiled profile, tiled URI or journal.")],
    uid: Annotated[str, typer.Option(help="Raw run whose latest results are wanted.")],
    to: Annotated[
        Path, typer.Option(help="FILE.h5, FILE.nxs (NeXus), FILE.prj (Athena) or FOLDER.xdi.")
    ],
) -> None:
    """Write the results of a run into a file."""
    from exafsd.exports.export import export as export_run

    with failing(*UNREADABLE):
        typer.echo(export_run(catalog, uid, to))


@app.command("calibrate-s02")
def calibrate_s02(
    sources: Annotated[
        list[str], typer.Argument(help="Files of a foil; with --uid the archive, as for replay.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="File to write; default: s02-ELEMENT-EDGE.json.")
    ] = None,
    uid: Annotated[str | None, typer.Option(help="Run of the foil in the archive.")] = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    element: Annotated[str | None, typer.Option(help="For example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="For example K.")] = None,
    channel: Annotated[
        str, typer.Option(help="transmission, fluorescence or reference.")
    ] = "transmission",
    at_least: Annotated[
        int | None, typer.Option(min=1, help="Spectra needed; default: 3 of a run, 1 of files.")
    ] = None,
) -> None:
    """Measure S0² on a foil, so that N can be given."""
    from exafsd.commands.calibrate_s02 import FoilData, calibrate_to_file

    settings = _with_model(config, model)
    _log("ERROR")
    with failing(*UNREADABLE):
        foil = FoilData.parse(sources, uid, element, edge, channel, at_least)
        for line in calibrate_to_file(foil, settings, to):
            typer.echo(line)


@app.command()
def watch(
    address: AddressArgument = DEFAULT_ADDRESS,
    topic: Annotated[str, typer.Option(help="Topic prefix, for example result.Cu.K.")] = "",
    json: JsonOption = False,
    seconds: Annotated[float | None, typer.Option(help="End after this time.")] = None,
    keys: KeysOption = None,
) -> None:
    """Follow results in the terminal, truth beside prediction where there is one."""
    from exafsd.commands.terminal import watch_address

    with failing(ValueError):  # the keys
        watch_address(address, topic, json, seconds, keys)


@app.command()
def dashboard(
    address: AddressArgument = DEFAULT_ADDRESS,
    connect: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    answers: Annotated[
        str | None, typer.Option(help="Address for requests, if it is not the port after.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface for browsers.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 5100,
    name: Annotated[
        list[str] | None, typer.Option(help="Host name in the browser's address; may be repeated.")
    ] = None,
    keys: KeysOption = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Serve a web page that follows results, until Ctrl-C."""
    try:
        from exafsd.dashboard import Dashboard
    except ImportError as error:
        fail(f"{error}; the dashboard needs: pip install 'exafsd[dashboard]'")
    _log("WARNING")
    os.nice(10)  # where it shares a machine with the daemon, spectra come first
    with failing(ValueError, OSError):  # the keys, or the port is taken
        page = Dashboard(connect or address, answers, keys, host, port, name or [])
    typer.echo(f"dashboard at {page.url}, following {connect or address}")
    if browser:
        typer.launch(page.url)
    page.run()


@app.command()
def status(
    address: AddressArgument = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(help="s to wait for a heartbeat.")] = 3.0,
    json: JsonOption = False,
    keys: KeysOption = None,
) -> None:
    """Say how the daemon is.

    Exit 0: ready; 1: none answers; 3: starting, overloaded, stopping or stopped; 4: it works, but
    something is being lost or not kept.
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


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Where the key files are, or are to be.")],
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client; may be repeated.")
    ] = None,
) -> None:
    """Make keys of the server, if there are none yet, and of clients."""
    from exafsd.publishing import KeyFileError, make_keys

    with failing(KeyFileError, OSError):
        made = make_keys(folder, client or [])
    for path in made:
        typer.echo(f"made {path}")
    typer.echo(
        f'server: [publish] curve = {{ secret = "{folder / "server.key_secret"}",'
        f' clients = "{folder / "allowed"}" }}'
    )
    for name in client or []:
        typer.echo(f"{name}: give them the folder {folder / 'clients' / name}, for --keys")


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to measure; 0: until Ctrl-C.")
    ] = 60.0,
    rate: Annotated[float, typer.Option(help="Sweeps a second.")] = 5.0,
    publish: Annotated[
        str, typer.Option(help="Where results go; port * is any free one.")
    ] = "tcp://127.0.0.1:*",
    answers: Annotated[
        str | None, typer.Option(help="Where requests are answered; default: the port after.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of the dashboard; default: a free one.")] = None,
    shape: Annotated[
        str, typer.Option(help="Documents: array, event, page, monitor, resource, stream.")
    ] = "array",
    folder: Annotated[
        Path | None, typer.Option(help="Keep catalog and journal here; default: a new folder.")
    ] = None,
) -> None:
    """Simulated beamline to published results, all on this machine."""
    from exafsd.commands.demo import DemoError, Options, run_demo

    with failing(DemoError):
        run_demo(Options(seconds, rate, shape, publish, answers, port, folder))


@models_app.command("list")
def models_list(config: ConfigOption = None) -> None:
    """Show bundles and the reasons of refused ones."""
    from exafsd.commands.models import models_table

    models_table(_settings(config))


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Bundle name or folder.")],
    config: ConfigOption = None,
    text: Annotated[
        bool, typer.Option("--text", help="For people: in short, with accuracy against feffit.")
    ] = False,
) -> None:
    """Print the card of a bundle, as JSON."""
    from exafsd.commands.models import find_card, show_card
    from exafsd.inference.registry import BundleError

    with failing(BundleError):
        card = find_card(name, _settings(config))
    if text:
        show_card(card)
    else:
        typer.echo(card.model_dump_json(by_alias=True, indent=2))


@models_app.command("page")
def models_page() -> None:
    """Print a page about the shipped models, in Markdown."""
    from exafsd.commands.models import models_page as page

    typer.echo(page(), nl=False)


@models_app.command("verify")
def models_verify(
    bundles: Annotated[list[Path] | None, typer.Argument(help="Folders; default: all.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check hashes, cards and graphs by loading them."""
    from exafsd.commands.models import verify_models

    lines, good = verify_models(bundles or [], _settings(config))
    for line in lines:
        typer.echo(line)
    if not good:
        raise typer.Exit(1)


OutOption = Annotated[Path, typer.Option("--out", help="Folder of the references.")]


@references_app.command("add")
def references_add(
    name: Annotated[str, typer.Argument(help="Of the compound, for example Cu2O.")],
    file: Annotated[Path, typer.Argument(help="Measured spectrum, any format of analyze.")],
    out: OutOption = Path("references"),
    element: Annotated[str | None, typer.Option(help="For example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="For example K.")] = None,
) -> None:
    """Keep a measured spectrum as a reference."""
    from exafsd.composition.references import ReferenceFileError, add
    from exafsd.spectra import Edge

    named = Edge.of(element or "", edge or "") if element or edge else None
    with failing(ReferenceFileError, OSError):
        reference = add(out, name, file, named)
    typer.echo(
        f"wrote {reference.file}: {reference.edge.element} {reference.edge.edge},"
        f" noise {reference.noise:.2g}"
    )
    typer.echo(f'use it: [composition] references = ["{out.resolve()}"]')


@references_app.command("list")
def references_list(
    folders: Annotated[list[Path] | None, typer.Argument(help="Default: of the settings.")] = None,
    config: ConfigOption = None,
) -> None:
    """List references, and what is no reference."""
    from rich.console import Console

    from exafsd.commands.references import as_table, gathered

    asked = _settings(config).composition
    references, refused = gathered(folders or asked.references, asked.shipped)
    Console().print(as_table(references))
    for text in refused:
        typer.echo(f"PROBLEM  {text}", err=True)
    if refused:
        raise typer.Exit(1)


@references_app.command("show")
def references_show(
    name: Annotated[str, typer.Argument(help="Of the reference.")],
    folders: Annotated[list[Path] | None, typer.Argument(help="Default: of the settings.")] = None,
    config: ConfigOption = None,
) -> None:
    """Say what is known of a reference."""
    from exafsd.commands.references import described, gathered

    asked = _settings(config).composition
    references, _ = gathered(folders or asked.references, asked.shipped)
    chosen = [one for one in references if one.name == name]
    if not chosen:
        names = ", ".join(one.name for one in references)
        fail(f"there is no reference {name}; there are: {names}")
    for one in chosen:
        typer.echo("\n".join(described(one)))


@references_app.command("remove")
def references_remove(
    name: Annotated[str, typer.Argument(help="Of the reference.")],
    out: OutOption = Path("references"),
) -> None:
    """Remove a reference from a folder."""
    from exafsd.composition.references import ReferenceFileError, remove

    with failing(ReferenceFileError, OSError):
        typer.echo(f"removed {remove(out, name)}")


JournalOption = Annotated[
    Path | None, typer.Option("--journal", help="Folder; default: of the settings.")
]


def _journal(folder: Path | None, config: Path | None) -> Path:
    chosen = folder or _settings(config).journal_folder
    if chosen is None or not chosen.is_dir():
        fail(f"there is no journal {chosen or 'in the settings'}; name one with --journal")
    return chosen


def _end_damaged(damage: list[str]) -> None:
    for text in damage:
        typer.echo(f"PROBLEM  {text}", err=True)
    if damage:
        raise typer.Exit(1)


@results_app.command("list")
def results_list(journal: JournalOption = None, config: ConfigOption = None) -> None:
    """List runs that have results; exit 1 if a log is damaged."""
    from rich.console import Console

    from exafsd.commands.results import runs_table

    table, damage = runs_table(_journal(journal, config))
    Console().print(table)
    _end_damaged(damage)


@results_app.command("show")
def results_show(
    uid: Annotated[str, typer.Argument(help="Run, or how its uid begins.")],
    journal: JournalOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the outcomes of a run; exit 1 if its log is damaged."""
    from rich.console import Console

    from exafsd.commands.results import outcomes_lines, outcomes_table

    folder = _journal(journal, config)
    with failing(*UNREADABLE):
        if json:
            lines, damage = outcomes_lines(folder, uid)
            for line in lines:
                typer.echo(line)
        else:
            table, damage = outcomes_table(folder, uid)
            Console().print(table)
    _end_damaged([] if damage is None else [damage])


@results_app.command("export")
def results_export(
    uid: Annotated[str, typer.Argument(help="Run, or how its uid begins.")],
    to: Annotated[
        Path, typer.Option(help="FILE.h5, FILE.nxs (NeXus), FILE.prj (Athena) or FOLDER.xdi.")
    ],
    journal: JournalOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the outcomes of a run into a file."""
    from exafsd.exports.export import export as export_run

    folder = _journal(journal, config)
    with failing(*UNREADABLE):
        typer.echo(export_run(str(folder), uid, to))


@config_app.command("init")
def config_init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("exafsd.toml"),
) -> None:
    """Write a commented settings file with every default."""
    from exafsd.settings.template import template

    if path.exists():
        fail(f"{path} exists already; it is not overwritten")
    path.write_text(template())
    typer.echo(f"wrote {path}")


@config_app.command("show")
def config_show(config: ConfigOption = None) -> None:
    """Print the settings in force, as JSON."""
    typer.echo(_settings(config).model_dump_json(indent=2))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the settings."""
    from exafsd.settings.template import schema_text

    typer.echo(schema_text(), nl=False)
