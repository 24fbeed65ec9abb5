"""The ``exafsd`` command: what can be typed, and the help for it."""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from exafsd._version import __version__

# Its matrices are too small to share: a second BLAS thread only takes the core of the receiver.
# To be set before numpy is imported, which the commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(no_args_is_help=True, add_completion=False)
models_app = typer.Typer(no_args_is_help=True, help="List, show and check the models.")
config_app = typer.Typer(no_args_is_help=True, help="Write, show and describe settings.")
references_app = typer.Typer(
    no_args_is_help=True, help="Add, list, show and remove reference spectra."
)
#: parts of the menu that `exafsd --help` prints
LIVE, STORED, SETUP = "At the beamline", "Files and archives", "Set-up"
app.add_typer(models_app, name="models", rich_help_panel=SETUP)
app.add_typer(references_app, name="references", rich_help_panel=SETUP)
app.add_typer(config_app, name="config", rich_help_panel=SETUP)
results_app = typer.Typer(no_args_is_help=True, help="List, show and export results of past runs.")
app.add_typer(results_app, name="results", rich_help_panel=STORED)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Use only this model (name or folder); none: no model."),
]
#: where a daemon with default settings publishes
DEFAULT_ADDRESS = "tcp://127.0.0.1:5580"
AddressArgument = Annotated[str, typer.Argument(help="Address where the daemon publishes.")]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Folder with this client's keys, made by exafsd keys.")
]
ComponentsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Resolve the near edges of a run into N components instead."),
]
AnchorOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A reference that is one of them; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


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


def _log(level: str, form: Any = "auto") -> None:
    """Begin to write the log to stderr."""
    from exafsd.logs import configure

    configure(level, form)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Read the local structure from quick-XAFS scans while they are measured."""
    # else the interpreter looks for garbage in 2,500 modules on its way out: 0.7 s
    atexit.register(gc.freeze)
    if version:
        typer.echo(f"exafsd {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=LIVE)
def run(config: ConfigOption = None) -> None:
    """Run the daemon: analyse the scans of a beamline and publish the results."""
    settings = _settings(config)
    _log(settings.service.log_level, settings.service.log_format)
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


@app.command(rich_help_panel=SETUP)
def check(
    config: ConfigOption = None,
    journal: Annotated[
        bool, typer.Option("--journal", help="Read every record of the journal, too.")
    ] = False,
) -> None:
    """Check settings, models and references without connecting to anything."""
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


@app.command(rich_help_panel=STORED)
def analyze(
    files: Annotated[list[Path], typer.Argument(help="Spectra as XDI, columns, SPEC or HDF5.")],
    config: ConfigOption = None,
    model: ModelOption = None,
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of further references; may be repeated."),
    ] = None,
    components: ComponentsOption = None,
    anchor: AnchorOption = None,
    json: JsonOption = False,
) -> None:
    """Analyse spectra in files, exactly as the daemon analyses scans."""
    from exafsd.commands.analyze import analyze_files
    from exafsd.commands.resolved import resolved

    settings = _with_model(config, model)
    if references:
        composition = settings.composition.model_copy(
            update={"references": (*settings.composition.references, *references)}
        )
        settings = settings.model_copy(update={"composition": composition.read()})
    _log("ERROR")
    if anchor and components is None:
        fail("--anchor needs --components: it is one of them", 2)
    with failing(ValueError):
        asked = None if components is None else resolved(settings, components, anchor or [], json)
    if not analyze_files(files, settings, element, edge, json, asked):
        raise typer.Exit(1)


@app.command(rich_help_panel=STORED)
def replay(
    catalog: Annotated[
        str, typer.Argument(help="tiled profile or URI, or the folder of a journal.")
    ],
    uid: Annotated[
        str | None, typer.Option(help="Only this run; the first characters of its uid will do.")
    ] = None,
    last: Annotated[int | None, typer.Option(help="Only the latest N runs.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs from this date (ISO) on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only runs up to this date (ISO).")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with KEY=VALUE in their start document; may be repeated."),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime/--fast", help="At the pace of the measurement, or at once.")
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the results, as the daemon does.")
    ] = False,
    json: JsonOption = False,
    write: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Write the results into this catalog.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Leave out runs whose results are there already (with --write)."
        ),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="CATALOG",
            help="Print the stored results of this catalog, the new ones and the difference.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of runs to analyse at the same time.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have the workers of this Dask scheduler analyse the runs, tcp://HOST:8786.",
        ),
    ] = None,
    components: ComponentsOption = None,
    anchor: AnchorOption = None,
    config: ConfigOption = None,
    model: ModelOption = None,
) -> None:
    """Analyse archived runs again, with the settings and models of today."""
    from exafsd.commands.replay.outputs import Options
    from exafsd.commands.replay.runs import Selection
    from exafsd.commands.replay.runs import replay as replay_runs

    settings = _with_model(config, model)
    _log("ERROR")
    options = Options(
        realtime, processes, resume, write, compare, publish, json, scheduler, components,
        tuple(anchor or ()),
    )  # fmt: skip
    with failing(*UNREADABLE):
        chosen = Selection.parse(uid, last, since, until, search or [])
        complete = replay_runs(catalog, chosen, settings, options)
    if not complete:
        raise typer.Exit(1)


@app.command(rich_help_panel=STORED)
def export(
    catalog: Annotated[
        str, typer.Argument(help="tiled profile or URI, or the folder of a journal.")
    ],
    uid: Annotated[str, typer.Option(help="Uid of the measured run.")],
    to: Annotated[
        Path,
        typer.Option(help="FILE.h5 or FILE.nxs (NeXus), FILE.prj (Athena) or FOLDER.xdi to write."),
    ],
) -> None:
    """Write the results of a run to a NeXus, Athena or XDI file."""
    from exafsd.exports.export import export as export_run

    with failing(*UNREADABLE):
        typer.echo(export_run(catalog, uid, to))


@app.command("calibrate-s02", rich_help_panel=SETUP)
def calibrate_s02(
    sources: Annotated[
        list[str], typer.Argument(help="Spectra of a foil; with --uid: the archive of its run.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="File to write; by default s02-ELEMENT-EDGE.json.")
    ] = None,
    uid: Annotated[str | None, typer.Option(help="Uid of the foil's run in the archive.")] = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    channel: Annotated[
        str, typer.Option(help="Detection channel: transmission, fluorescence or reference.")
    ] = "transmission",
    at_least: Annotated[
        int | None,
        typer.Option(
            min=1, help="Smallest number of spectra; by default 3 from a run, 1 from files."
        ),
    ] = None,
) -> None:
    """Measure S0² on a foil, so that coordination numbers can be given."""
    from exafsd.commands.calibrate_s02 import FoilData, calibrate_to_file

    settings = _with_model(config, model)
    _log("ERROR")
    with failing(*UNREADABLE):
        foil = FoilData.parse(sources, uid, element, edge, channel, at_least)
        for line in calibrate_to_file(foil, settings, to):
            typer.echo(line)


@app.command(rich_help_panel=LIVE)
def watch(
    address: AddressArgument = DEFAULT_ADDRESS,
    topic: Annotated[
        str, typer.Option(help="Show only topics that begin so, for example result.Cu.K.")
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


@app.command(rich_help_panel=LIVE)
def dashboard(
    address: Annotated[
        list[str] | None,
        typer.Argument(
            help="Address where the daemon publishes; several for several daemons.",
            show_default=DEFAULT_ADDRESS,
        ),
    ] = None,
    connect: Annotated[str | None, typer.Option(help="Another way to give ADDRESS.")] = None,
    answers: Annotated[
        str | None,
        typer.Option(help="Address for requests; by default the port after that of ADDRESS."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Network interface that browsers connect to.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 5100,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name under which browsers may open the page; may be repeated."),
    ] = None,
    keys: KeysOption = None,
    references: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of further references; may be repeated."),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show results on a web page as they come."""
    try:
        from exafsd.dashboard import Dashboard
    except ImportError as error:
        fail(f"{error}; the dashboard needs: pip install 'exafsd[dashboard]'")
    addresses = [connect] if connect else address or [DEFAULT_ADDRESS]
    _log("WARNING")
    os.nice(10)  # where it shares a machine with the daemon, spectra come first
    with failing(ValueError, OSError):  # the keys, or the port is taken
        page = Dashboard(
            addresses, answers, keys, host, port, name or [], partial(_curves, references or [])
        )
    typer.echo(f"dashboard at {page.url}, following {', '.join(addresses)}")
    if browser:
        typer.launch(page.url)
    page.run()


@app.command(rich_help_panel=LIVE)
def status(
    address: AddressArgument = DEFAULT_ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the daemon.")] = 3.0,
    json: JsonOption = False,
    keys: KeysOption = None,
) -> None:
    """Show the state of the daemon.

    The exit code is 0 if it is ready, 1 if none answers, 3 if it is starting, overloaded, stopping
    or stopped, and 4 if it works but something is being lost or not kept.
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


@app.command(rich_help_panel=SETUP)
def keys(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the key files; it is made if there is none.")
    ],
    client: Annotated[
        list[str] | None, typer.Option(help="Name of a client that needs keys; may be repeated.")
    ] = None,
) -> None:
    """Make keys for encrypted connections, for the daemon and its clients."""
    from exafsd.publishing import KeyFileError, make_keys

    with failing(KeyFileError, OSError):
        paths = make_keys(folder, client or [])
    for path in paths:
        typer.echo(f"wrote {path}")
    typer.echo(
        f'server: [publish] curve = {{ secret = "{folder / "server.key_secret"}",'
        f' clients = "{folder / "allowed"}" }}'
    )
    for name in client or []:
        typer.echo(f"{name}: give them the folder {folder / 'clients' / name}, for --keys")


@app.command(rich_help_panel=LIVE)
def demo(
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to measure; 0: until Ctrl-C.")
    ] = 60.0,
    rate: Annotated[float, typer.Option(help="Sweeps per second.")] = 5.0,
    publish: Annotated[
        str, typer.Option(help="Address to publish at; port * takes a free one.")
    ] = "tcp://127.0.0.1:*",
    answers: Annotated[
        str | None, typer.Option(help="Address for requests; by default the port after.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the dashboard; by default a free one.")
    ] = None,
    shape: Annotated[
        str,
        typer.Option(help="Kind of documents: array, event, page, monitor, resource or stream."),
    ] = "array",
    folder: Annotated[
        Path | None, typer.Option(help="Folder for catalog and journal; by default a new one.")
    ] = None,
    scenario: Annotated[
        Literal["reduction", "heating"],
        typer.Option(help="Copper oxide that is reduced to copper, or a copper foil; both heated."),
    ] = "reduction",
) -> None:
    """Try it: a simulated beamline, the daemon and the dashboard on this machine."""
    from exafsd.commands.demo import DemoError, Options, run_demo

    with failing(DemoError):
        run_demo(Options(seconds, rate, shape, publish, answers, port, folder, scenario))


@models_app.command("list")
def models_list(config: ConfigOption = None) -> None:
    """List the models, and why others were refused."""
    from exafsd.commands.models import models_table

    models_table(_settings(config))


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Name of a model, or its folder.")],
    config: ConfigOption = None,
    text: Annotated[
        bool,
        typer.Option(
            "--text", help="Print a summary for reading, with the accuracy against feffit."
        ),
    ] = False,
) -> None:
    """Print what a model says about itself (its card), as JSON."""
    from exafsd.commands.models import find_card, show_card
    from exafsd.inference.registry import BundleError

    with failing(BundleError):
        card = find_card(name, _settings(config))
    if text:
        show_card(card)
    else:
        typer.echo(card.model_dump_json(by_alias=True, indent=2))


@models_app.command("add")
def models_add(
    file: Annotated[Path, typer.Argument(help="Crystal structure, CIF.")],
    absorber: Annotated[str, typer.Option(help="Absorbing element, for example Ni.")],
    edge: Annotated[str, typer.Option(help="For example K.")],
    config: ConfigOption = None,
    site: Annotated[
        int, typer.Option(min=0, help="Which site of the absorber; 0 averages over all.")
    ] = 1,
    name: Annotated[str | None, typer.Option(help="Of the model.")] = None,
) -> None:
    """Make a model of a crystal in a minute; a running daemon takes it up by itself."""
    from exafsd.commands.model_add import NotMadeError, add_model

    with failing(NotMadeError):
        folder = add_model(file, absorber, edge, _settings(config), site, name)
    typer.echo(f"{folder}: a daemon with these settings takes it up within seconds")


@models_app.command("reload")
def models_reload(
    address: AddressArgument = DEFAULT_ADDRESS,
    config: ConfigOption = None,
    keys: KeysOption = None,
    wait: Annotated[float, typer.Option(min=0, help="s to wait for what is missing.")] = 10.0,
) -> None:
    """Wait until a running daemon has taken up what is in its model folders, and say so."""
    from exafsd.commands.model_add import taken_up

    with failing(ValueError):  # the keys, or something else talks there
        lines, complete = taken_up(_settings(config), address, keys, wait)
    for line in lines:
        typer.echo(line)
    if not complete:
        raise typer.Exit(1)


@models_app.command("page")
def models_page() -> None:
    """Print a page about the models that ship, in Markdown."""
    from exafsd.commands.models import models_page as page

    typer.echo(page(), nl=False)


@models_app.command("verify")
def models_verify(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Folders of models; by default all that are in use.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check that models are complete and unchanged, by loading them."""
    from exafsd.commands.models import verify_models

    lines, good = verify_models(bundles or [], _settings(config))
    for line in lines:
        typer.echo(line)
    if not good:
        raise typer.Exit(1)


OutOption = Annotated[Path, typer.Option("--out", help="Folder of references.")]


@references_app.command("add")
def references_add(
    name: Annotated[str, typer.Argument(help="Name of the compound, for example Cu2O.")],
    file: Annotated[
        Path | None,
        typer.Argument(help="File with its spectrum, in any format that analyze reads."),
    ] = None,
    out: OutOption = Path("references"),
    element: Annotated[str | None, typer.Option(help="Absorbing element, for example Cu.")] = None,
    edge: Annotated[str | None, typer.Option(help="Edge, for example K.")] = None,
    run: Annotated[
        str | None, typer.Option(metavar="UID", help="The mean of sweeps of this run instead.")
    ] = None,
    sweeps: Annotated[
        str | None, typer.Option(help="Which sweeps of the run, 1-20 or 1-20,25; all of it.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Which channel of the run, where there are several.")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="Journal, tiled URI or profile of the run; the journal of the settings."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Add a measured spectrum, or the mean of sweeps of a run, to the references."""
    from exafsd.composition.references import ReferenceFileError, add
    from exafsd.spectra import Edge

    named = Edge.of(element or "", edge or "") if element or edge else None
    if (file is None) == (run is None):
        fail("name a FILE, or a run by --run", 2)
    of = ""
    with failing(ReferenceFileError, *UNREADABLE):
        if file is not None:
            reference = add(out, name, file, named)
        else:
            from exafsd.commands.run_reference import RunSweeps, add_from_run

            chosen = RunSweeps.parse(str(run), sweeps, channel, named)
            reference, count = add_from_run(out, name, chosen, _settings(config), archive)
            of = f"mean of {count} sweeps, "
    typer.echo(
        f"wrote {reference.file}: {of}{reference.edge.element} {reference.edge.edge},"
        f" noise {reference.noise:.2g}"
    )
    typer.echo(f'use it: [composition] references = ["{out.resolve()}"]')


@references_app.command("list")
def references_list(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders; by default those of the settings.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the references, and files that cannot be used as one."""
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
    name: Annotated[str, typer.Argument(help="Name of the reference.")],
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders; by default those of the settings.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Show where a reference comes from and how good it is."""
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
    name: Annotated[str, typer.Argument(help="Name of the reference.")],
    out: OutOption = Path("references"),
) -> None:
    """Delete a reference from its folder."""
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
    """Write a settings file with every setting, explained, at its default."""
    from exafsd.settings.template import template

    if path.exists():
        fail(f"{path} exists already; it is not overwritten")
    path.write_text(template())
    typer.echo(f"wrote {path}")


@config_app.command("show")
def config_show(config: ConfigOption = None) -> None:
    """Print the settings that are in force, as JSON."""
    typer.echo(_settings(config).model_dump_json(indent=2))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the settings."""
    from exafsd.settings.template import schema_text

    typer.echo(schema_text(), nl=False)
