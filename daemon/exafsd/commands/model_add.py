"""``exafsd models add`` and ``reload``: a bundle of a crystal, and what a daemon has taken up."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from exafsd.commands.terminal import hear_status
from exafsd.inference.registry import Registry
from exafsd.settings import Settings

#: s in which a daemon that is there has sent its status
PATIENCE = 5.0


class NotMadeError(RuntimeError):
    """No bundle was made; the text says why and what to do."""


def add_model(
    file: Path, absorber: str, edge: str, settings: Settings, site: int, name: str | None
) -> Path:
    """Make a bundle of a crystal in the first folder of `models`; return its folder.

    Training and FEFF are not part of the daemon: ``exafsd-export`` of this Python, or of the path,
    is run.

    Raises
    ------
    NotMadeError
        If there is no folder to write to, no ``exafsd-export``, or it failed.
    """
    if not file.is_file():
        raise NotMadeError(f"there is no file {file}")
    if not settings.models:
        raise NotMadeError(
            "the settings name no folder of models: put models = ['models'] into the settings file"
            " (--config), or write the bundle anywhere with exafsd-export quick"
        )
    folder = settings.models[0] / (name or f"{absorber}-{edge}-{file.stem}".lower())
    arguments = ["quick", "--cif", str(file), "--absorber", absorber, "--edge", edge]
    arguments += ["--site", str(site), "--name", folder.name, "--out", str(folder)]
    command = _exporter()
    if command is None:
        raise NotMadeError(
            "exafsd-export is not installed here: pip install exafsd-export (it brings FEFF and"
            " TensorFlow), or run it on another machine and copy the folder here:\n"
            f"exafsd-export {' '.join(arguments)}"
        )
    done = subprocess.run([command, *arguments], check=False)  # noqa: S603  # our own command
    if done.returncode:
        raise NotMadeError(f"exafsd-export ended with status {done.returncode}")
    return folder


def _exporter() -> str | None:
    beside = Path(sys.executable).with_name("exafsd-export")
    return str(beside) if beside.is_file() else shutil.which("exafsd-export")


def taken_up(
    settings: Settings, address: str, keys: Path | None, wait: float
) -> tuple[list[str], bool]:
    """What a running daemon has of the models in the folders, and whether it has all of them.

    Parameters
    ----------
    settings
        Of the daemon.
    address
        Of its publisher.
    keys
        Folder with this client's keys, where the daemon asks for them.
    wait
        s until which the daemon may take up what is missing.
    """
    expected = sorted(Registry.load(settings.models).bundles)
    end = time.monotonic() + max(wait, PATIENCE)
    header = None
    while (header is None or header["models"] != expected) and time.monotonic() < end:
        header = hear_status(address, 1.0, keys) or header
    if header is None:
        return [f"no daemon is heard at {address}"], False
    loaded = header["models"]
    lines = [f"loaded    {', '.join(loaded) or 'none'}"]
    lines += [f"missing   {name}" for name in expected if name not in loaded]
    lines += [
        f"surplus   {name}: not in the folders of these settings"
        for name in loaded
        if name not in expected
    ]
    lines += [f"refused   {name}: {why}" for name, why in sorted(header["refused_models"].items())]
    return lines, loaded == expected
