"""What scripts import: the front door, and the paths that stood in documentation before."""

import subprocess
import sys

import pytest

import exafsd


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("Live", "exafsd.service.live"),
        ("load_settings", "exafsd.settings.settings"),
        ("Subscriber", "exafsd.client.subscriber"),
        ("Follower", "exafsd.client.follower"),
        ("dumps", "exafsd.codec"),
    ],
)
def test_the_front_door_has_what_scripts_need(name, home):
    assert name in exafsd.__all__
    assert getattr(exafsd, name).__module__ == home


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match="'exafsd' has no attribute 'Life'"):
        exafsd.Life  # noqa: B018


def test_former_paths_lead_to_the_same():
    from exafsd.archive.journal import Journal
    from exafsd.client import Follower
    from exafsd.codec import dumps
    from exafsd.composition import Live
    from exafsd.settings import Settings, load

    assert (Live, load, dumps) == (exafsd.Live, exafsd.load_settings, exafsd.dumps)
    assert Follower is exafsd.Follower
    assert isinstance(load(), Settings)
    assert Journal.__module__ == "exafsd.archive.journal"


@pytest.mark.parametrize("module", ["exafsd", "exafsd.cli"])
def test_the_command_is_a_module_too(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"exafsd {exafsd.__version__}\n"


def test_a_client_loads_no_daemon():
    code = (
        "import sys, exafsd; exafsd.Follower, exafsd.Subscriber;"
        "heavy = {'larch', 'h5py', 'onnxruntime', 'bluesky', 'tiled', 'typer', 'jinja2'};"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
