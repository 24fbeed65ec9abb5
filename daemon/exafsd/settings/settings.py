"""exafsd.toml and EXAFSD_* environment variables: frozen, unknown keys refused."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from exafsd.contract.frames import ARRAY_UNITS
from exafsd.contract.s02 import S02, S02File
from exafsd.settings.analysis import (
    PRESETS,
    Adapter,
    Analysis,
    Composition,
    Convergence,
    Inference,
    Reduction,
    adapter,
)
from exafsd.settings.kafka import KafkaResults, KafkaSource
from exafsd.settings.tiled import TiledSource


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


#: what ZeroMQ takes: a port alone would listen on every interface
ADDRESS = re.compile(r"tcp://([A-Za-z0-9._*-]+|\[[0-9a-fA-F:]+\]):(\d{1,5}|\*)|ipc://.+")
#: TCP has no more
HIGHEST_PORT = 65535


def _address(value: str) -> str:
    match = ADDRESS.fullmatch(value)
    port = match[2] if match else None
    if not match or (port and port != "*" and int(port) > HIGHEST_PORT):
        raise ValueError(f"{value!r} is not an address; write tcp://HOST:PORT")
    return value


Address = Annotated[str, AfterValidator(_address)]


class Source(_Frozen):
    """Where documents come from."""

    address: Address = Field(
        default="tcp://127.0.0.1:5578",
        description="output address of bluesky-0MQ-proxy, as tcp://HOST:PORT",
    )
    prefix: str = Field(
        default="", description="receive only documents that are published with this prefix"
    )
    pickle: bool = Field(
        default=False,
        description="true: also accept bluesky's default encoding (pickle), restricted to numpy"
        " arrays and Python's basic types; false: only msgpack, the encoding of exafsd.dumps",
    )
    kafka: KafkaSource | None = Field(
        default=None,
        description='receive documents from Kafka instead of address: { servers = ["HOST:9092"],'
        ' topics = ["TOPIC"] }. exafsd then writes no journal, because Kafka stores the documents',
    )
    tiled: TiledSource | None = Field(
        default=None,
        description="follow the runs of a tiled catalog instead of address:"
        ' { catalog = "http://HOST:8000/api/v1" }; what is missed is fetched from it as well',
    )
    queue: int = Field(
        default=20000,
        gt=0,
        description="largest number of documents that wait to be processed; further documents are"
        " lost",
    )
    asset_roots: tuple[Path, ...] = Field(
        default=(),
        description="folders inside which exafsd may open external HDF5 files; by default it opens"
        " no files",
    )
    asset_patience: float = Field(
        default=5.0, ge=0, description="seconds to wait for an external file that arrives late"
    )
    turn: float = Field(
        default=20.0,
        gt=0,
        description="eV; a sweep in a stream ends when the energy has gone back by this much, or"
        " by six standard deviations of the encoder's noise if that is more",
    )


class Curve(_Frozen):
    """Encryption keys, made by `exafsd keys`. Only clients with a key can connect."""

    secret: Path = Field(
        description="file server.key_secret; only the user of the daemon may read it"
    )
    clients: Path = Field(description="folder with the public keys of the clients that may connect")


class Publish(_Frozen):
    """Where results go."""

    address: Address = Field(
        default="tcp://127.0.0.1:5580",
        description="address of the PUB socket; port * selects a free port. Without curve or"
        " insecure it must be an address of this machine only (loopback)",
    )
    answers: Address | None = Field(
        default=None,
        description="address of the socket for requests, for example for missed messages; null: the"
        " port number of address plus 1, where clients look first",
    )
    insecure: bool = Field(
        default=False, description="allow connections from other machines without encryption"
    )
    curve: Curve | None = Field(
        default=None,
        description="encryption: { secret = server.key_secret, clients = folder of public keys },"
        " both made by `exafsd keys`; only these clients may connect",
    )
    arrays: tuple[str, ...] = Field(
        default=tuple(ARRAY_UNITS), description="arrays sent with a result"
    )
    array_every: int = Field(
        default=1,
        ge=1,
        description="N: the first and then every Nth result of a channel and edge contain arrays;"
        " the other results contain everything else",
    )
    ring_messages: int = Field(
        default=10_000,
        ge=1,
        description="number of past messages that are stored for subscribers that missed them",
    )
    ring_bytes: int = Field(
        default=300_000_000,
        ge=0,
        description="largest size of the stored messages in bytes; beyond it the oldest are"
        " deleted",
    )
    high_water: int = Field(
        default=1000,
        gt=0,
        description="largest number of messages that wait for a slow subscriber; it misses further"
        " messages",
    )
    heartbeat: float = Field(default=1.0, gt=0, description="seconds between status messages")
    kafka: KafkaResults | None = Field(
        default=None,
        description='publish results to Kafka, too: { servers = ["HOST:9092"], topic = "TOPIC" }',
    )
    address_file: Path | None = Field(
        default=None, description="file to which the daemon writes its actual address, for port *"
    )

    @field_validator("arrays")
    @classmethod
    def _known(cls, arrays: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(arrays) - set(ARRAY_UNITS)
        if unknown:
            raise ValueError(f"unknown arrays {sorted(unknown)}; there are {list(ARRAY_UNITS)}")
        return arrays


class JournalSettings(_Frozen):
    """Raw documents on disk, one file per run, written before the documents are analysed."""

    enabled: bool = Field(default=True, description="false: `exafsd run` writes no journal")
    folder: Path | None = Field(
        default=None,
        description="null: `journal` in the data folder; inside a RunEngine's process there is no"
        " journal unless a folder is set. Results and rejections are logged in"
        " FOLDER-outcomes",
    )
    fsync: Literal["never", "stop", "always"] = Field(
        default="stop",
        description="when documents are forced to the disk (fsync): never, at the stop document of"
        " a run, or always (after every document)",
    )
    max_bytes: int = Field(
        default=50_000_000_000,
        ge=0,
        description="largest size in bytes of all documents, results and rejections; beyond it the"
        " oldest runs are deleted; 0: no limit. If journal.folder is null, the limit is never"
        " more than a tenth of the disk",
    )


class BackfillSettings(_Frozen):
    """Documents of a run that exafsd missed are read from the beamline's own archive."""

    catalog: str | None = Field(
        default=None,
        description="tiled profile, or URI of a tiled server, with the raw data; the API key is"
        " read from TILED_API_KEY. null: gaps remain and are reported",
    )
    wait: float = Field(
        default=10.0,
        ge=0,
        description="seconds to wait for missed documents at the end of a run and, if sweeps are"
        " cut from a stream, after a gap. Archives often contain a run only after it has stopped",
    )


class Results(_Frozen):
    """Results stored as Bluesky runs in a catalog, that of the raw data or another one."""

    catalog: str | None = Field(
        default=None,
        description="tiled profile, or URI of a tiled server; the API key is read from"
        " TILED_API_KEY. null: results are not stored in a catalog",
    )
    queue: int = Field(
        default=2000,
        gt=0,
        description="largest number of results and rejections that wait for the catalog, 35 kB"
        " each; further ones are not stored there",
    )


class Service(_Frozen):
    """High load, checks, shutdown and log of the daemon."""

    max_lag: float = Field(
        default=30.0,
        gt=0,
        description="seconds; sweeps that waited longer are rejected as overload",
    )
    batch: int = Field(
        default=32,
        gt=0,
        le=1024,
        description="largest number of sweeps that are processed together",
    )
    batch_wait: float = Field(
        default=0.0,
        ge=0,
        le=1.0,
        description="seconds to wait for more sweeps to process together; 0: do not wait",
    )
    audit_every: int = Field(
        default=200,
        ge=0,
        description="N: the first spectrum of a run, channel and edge, and then every Nth one, is"
        " also reduced with Larch itself, in another process; 0: none",
    )
    models_every: float = Field(
        default=2.0,
        ge=0,
        description="seconds between two checks of the folders of `models` for new, changed and"
        " removed models; 0: only at the start",
    )
    shutdown: float = Field(
        default=4.0,
        gt=0,
        description="seconds after SIGTERM to finish the sweeps that have arrived and to write"
        " results; the rest is counted and reported",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="lowest level that is logged"
    )
    log_format: Literal["auto", "plain", "logfmt", "json"] = Field(
        default="auto",
        description="plain: readable text; logfmt: key=value; json: one object per line; auto:"
        " plain on a terminal, otherwise logfmt",
    )


class AdapterSettings(BaseModel):
    """[adapter]: a preset, and names of your beamline that replace those of the preset."""

    model_config = ConfigDict(frozen=True, extra="allow")
    preset: str = Field(default="generic", description=f"one of {', '.join(PRESETS)}")

    def build(self) -> Adapter:
        """Return the adapter itself."""
        return adapter(self.preset, **(self.model_extra or {}))


class Settings(BaseSettings):
    """All settings of a beamline."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="EXAFSD_", env_nested_delimiter="__"
    )

    source: Source = Source()
    adapter: AdapterSettings = AdapterSettings()
    reduction: Reduction = Reduction()
    inference: Inference = Inference()
    composition: Composition = Composition()
    convergence: Convergence = Convergence()
    models: tuple[Path, ...] = Field(
        default=(),
        description="folders with model bundles, in addition to those that come with exafsd",
    )
    data: Path | None = Field(
        default=None,
        description="folder for the files of the daemon, unless another setting names one; null:"
        " the state folder of the service (STATE_DIRECTORY), or ~/.local/share/exafsd",
    )
    publish: Publish = Publish()
    journal: JournalSettings = JournalSettings()
    backfill: BackfillSettings = BackfillSettings()
    results: Results = Results()
    service: Service = Service()

    @field_validator("adapter")
    @classmethod
    def _buildable(cls, value: AdapterSettings) -> AdapterSettings:
        value.build()
        return value

    @field_validator("composition")
    @classmethod
    def _references_read(cls, value: Composition) -> Composition:
        return value.read() if value.references else value

    @field_validator("inference", mode="before")
    @classmethod
    def _files_read(cls, value: Any) -> Any:
        """S0² from files: what is in them decides numbers, and not where they are."""
        if not isinstance(value, Mapping) or not isinstance(value.get("s02"), Mapping):
            return value
        read = {n: _s02_file(n, v) if isinstance(v, str) else v for n, v in value["s02"].items()}
        return {**value, "s02": read}

    @model_validator(mode="after")
    def _documents_kept_once(self) -> "Settings":
        if self.source.kafka is not None and self.journal.folder is not None:
            raise ValueError(
                "journal.folder is set beside source.kafka: Kafka keeps the documents, and another"
                " daemon goes on with a run from there. Leave journal.folder out"
            )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> "Settings":
        if self.source.kafka is not None and self.source.tiled is not None:
            raise ValueError("source.kafka and source.tiled are both set; a daemon has one source")
        return self

    @property
    def journal_folder(self) -> Path | None:
        """Where `exafsd run` keeps its journal; None: nowhere."""
        if not self.journal.enabled or self.source.kafka is not None:
            return None
        return self.journal.folder or self.data_folder / "journal"

    @property
    def data_folder(self) -> Path:
        """Where the daemon keeps what no other setting has a folder for."""
        if self.data is not None:
            return self.data
        if state := os.environ.get("STATE_DIRECTORY"):
            return Path(state.partition(":")[0])
        home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return Path(home) / "exafsd"

    @property
    def analysis(self) -> Analysis:
        """The part that decides numbers."""
        return Analysis(
            adapter=self.adapter.build(),
            reduction=self.reduction,
            inference=self.inference,
            composition=self.composition,
            convergence=self.convergence,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file, so that a unit can override a shared file."""
        toml = TomlConfigSettingsSource(settings_cls, settings_cls.model_config.get("toml_file"))
        return init_settings, env_settings, toml


def _s02_file(name: str, path: str) -> S02:
    try:
        calibration = S02File.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError) as error:
        cause = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise ValueError(
            f"s02.{name}: {path} is not a file written by exafsd calibrate-s02: {cause}"
        ) from None
    if calibration.name != name:
        raise ValueError(f"s02.{name}: {path} is for {calibration.name}")
    return calibration.s02


def load(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from a file, the environment and overrides, the last winning.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    ValueError
        If a key is unknown or a value not allowed; the text names it.
    """
    if path is None:
        return Settings(**overrides)
    if not path.is_file():
        raise FileNotFoundError(f"settings file {path} does not exist")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    return FromFile(**overrides)
