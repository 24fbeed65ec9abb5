"""Commands, settings files and example configurations, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exafsd.commands.cli import app
from exafsd.commands.cli.options import nested
from exafsd.documents.inbox import Inbox
from exafsd.documents.proxy import ProxySource
from exafsd.settings.settings import load
from synthetic import ROOT, foil
from typed_commands import exafsd

EXAMPLES = sorted((ROOT / "deploy").rglob("*.toml"))


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    """Two good files and a bad one."""
    folder = tmp_path_factory.mktemp("spectra")
    for i in range(2):
        energy, mu = foil(500, noise=1e-4, seed=i)
        np.savetxt(folder / f"good{i}.dat", np.column_stack([energy, mu]), header="energy mutrans")
    (folder / "bad.dat").write_text("this is no spectrum\n")
    return folder


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_configurations_load(path):
    assert load(path).analysis.adapter.energy.key


def test_the_journal_of_the_deployed_settings_is_in_the_volume_of_the_container(monkeypatch):
    for name in (
        "STATE_DIRECTORY",
        "EXAFSD_DATA",
    ):  # the first is of systemd, the second of our tests
        monkeypatch.delenv(name, raising=False)
    settings = load(ROOT / "deploy" / "exafsd.toml")
    volume = "/var/lib/exafsd"
    assert f"exafsd-state:{volume}" in (ROOT / "deploy" / "compose.yaml").read_text()
    assert str(settings.journal_folder) == f"{volume}/journal"
    assert settings.journal.folder is None  # so that it takes a tenth of the disk at most


def test_every_command_has_help():
    runner = CliRunner()
    for command in (
        "run", "check", "demo", "analyze", "replay", "watch", "models", "config",
        "models list", "models show", "models verify", "config init", "config show",
        "config schema", "status", "keys", "export",
    ):  # fmt: skip
        result = runner.invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0, command
        assert len(result.output) > 40


def test_help_is_quick_to_import():
    """What --help needs is not the whole daemon."""
    code = "import sys, exafsd.cli; sys.exit(bool({'larch', 'zmq', 'tiled'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_models_are_listed_without_the_daemon():
    """Larch alone would take longer than the whole list does."""
    code = (
        "import sys; from exafsd.commands.cli import app\n"
        "app(['models', 'list'], standalone_mode=False)\n"
        "sys.exit(bool({'larch', 'scipy', 'tiled', 'bluesky'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_spectrum_is_analysed_without_larch(spectra):
    """Larch takes longer to import than a file to analyse."""
    code = (
        "import sys; from exafsd.commands.cli import app\n"
        "app(['analyze', sys.argv[1], '--element', 'Cu', '--edge', 'K'], standalone_mode=False)\n"
        "sys.exit(bool({'larch', 'lmfit', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(spectra / "good0.dat")]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def test_analyze_goes_on_after_a_bad_file(spectra):
    files = [spectra / n for n in ("good0.dat", "bad.dat", "missing.dat", "good1.dat")]
    done = exafsd("analyze", *files, "--json", "--element", "Cu", "--edge", "K", expect=1)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["result", "rejected", "rejected", "result"]
    assert [Path(line["file"]).name for line in lines] == [f.name for f in files]
    assert "bad.dat" in done.stderr
    assert "missing.dat" in done.stderr
    first = lines[0]
    assert first["element"] == "Cu"
    assert len(first["arrays"]["chi_k2"]) == 401
    assert first["edge_step"]["value"] == pytest.approx(2.0, rel=0.1)


def test_analyze_without_a_model_and_as_a_table(spectra):
    done = exafsd("analyze", spectra / "good0.dat", "--model", "none")
    assert "1 results, 0 rejected" in done.stdout
    done = exafsd("analyze", spectra / "good0.dat", "--model", "none", "--json")
    line = json.loads(done.stdout)
    assert line["trust"]["reason"] == "inference is off"
    assert line["guessed"] == ["element", "edge"]
    done = exafsd("analyze", spectra / "good0.dat", "--model", "nobody", "--json")
    assert "nobody" in json.loads(done.stdout)["trust"]["reason"]
    empty = exafsd("analyze", spectra / "good0.dat", "--model", spectra, expect=1)
    assert "card.json" in empty.stderr


def test_a_column_is_named_on_the_command_line(spectra, tmp_path):
    """Columns with other names and energies in keV need no settings file."""
    energy, mu = np.loadtxt(spectra / "good0.dat", unpack=True)
    file = tmp_path / "escan.dat"
    columns = energy / 1e3, np.full(len(mu), 1e5), 1e5 * np.exp(-mu)
    np.savetxt(file, np.column_stack(columns), header="E I0 I1")
    refused = exafsd("analyze", file, "--model", "none", expect=1)
    assert "--set adapter.energy.key=E --set" in refused.stderr
    changes = ("adapter.energy.key=E", "adapter.energy.unit=keV", "adapter.it=I1")
    options = [word for change in changes for word in ("--set", change)]
    lines = [
        json.loads(exafsd("analyze", *given, "--model", "none", "--json").stdout)
        for given in ((spectra / "good0.dat",), (file, *options))
    ]
    first, second = (line["edge_step"]["value"] for line in lines)
    assert second == pytest.approx(first, rel=1e-6)
    assert lines[1]["e0"] == pytest.approx(lines[0]["e0"], abs=1e-3)


def test_changed_settings_that_are_wrong_are_said(spectra):
    wrong = exafsd("analyze", spectra / "good0.dat", "--set", "adapter.enrgy=E", expect=2)
    assert "--set) are not valid" in wrong.stderr
    assert "enrgy" in wrong.stderr
    wrong = exafsd("analyze", spectra / "good0.dat", "--set", "adapter.it", expect=2)
    assert "KEY=VALUE" in wrong.stderr


def test_values_of_changed_settings_are_read_as_in_a_file():
    changes = ["adapter.it=I1", "adapter.iff=['a', 'b']", "a.b.c=2.5", "a.d=true", "e='1'"]
    assert nested(changes) == {
        "adapter": {"it": "I1", "iff": ["a", "b"]}, "a": {"b": {"c": 2.5}, "d": True}, "e": "1",
    }  # fmt: skip
    for wrong in (["a=1", "a.b=2"], ["a.b=2", "a=1"], ["=1"], ["a..b=1"]):
        with pytest.raises(ValueError, match="--set"):
            nested(wrong)


@pytest.mark.expects_error_log
def test_check_says_what_is_wrong(tmp_path):
    assert "ok" in exafsd("check").stdout
    config = tmp_path / "exafsd.toml"
    config.write_text(
        'models = ["/nowhere"]\n[publish]\naddress = "tcp://0.0.0.0:1"\n'
        '[inference]\nmodel = "nobody"\n[reduction]\ne0_policy = "fixed"\n'
    )
    complaint = exafsd("check", "--config", config, expect=1).stderr
    for word in ("/nowhere", "loopback", "nobody", "reduction.e0"):
        assert word in complaint
    config.write_text("[publish]\nadress = 'tcp://127.0.0.1:1'\n")
    assert "adress" in exafsd("check", "--config", config, expect=2).stderr
    exafsd("check", "--config", tmp_path / "missing.toml", expect=2)
    config.write_text("not toml at all [")
    exafsd("check", "--config", config, expect=2)


def test_config_commands(tmp_path):
    path = tmp_path / "exafsd.toml"
    exafsd("config", "init", path)
    exafsd("config", "init", path, expect=1)  # never overwrites
    shown = json.loads(exafsd("config", "show", "--config", path).stdout)
    assert shown["publish"]["address"] == "tcp://127.0.0.1:5580"
    assert json.loads(exafsd("config", "schema").stdout)["title"] == "Settings"


def test_models_commands(tmp_path):
    assert "cu-k-fcc" in exafsd("models", "list").stdout
    card = json.loads(exafsd("models", "show", "cu-k-fcc").stdout)
    assert card["absorber"] == "Cu"
    assert "ok" in exafsd("models", "verify").stdout
    assert "nobody" in exafsd("models", "show", "nobody", expect=1).stderr
    (tmp_path / "broken").mkdir()
    done = exafsd("models", "verify", tmp_path / "broken", expect=1)
    assert "card.json" in done.stdout


def test_replay_of_nothing_is_said(tmp_path):
    assert "no run" in exafsd("replay", tmp_path, expect=1).stderr
    assert "exafsd:" in exafsd("replay", "no-such-profile", expect=1).stderr
    complaint = exafsd("replay", tmp_path, "--since", "yesterday-ish", expect=1).stderr
    assert "yesterday-ish" in complaint


@pytest.mark.parametrize(
    "address", ["localhost:5578", "tcp://[::1", "tcp://127.0.0.1:port", "5578"]
)
def test_addresses_are_checked_before_anything_starts(address, tmp_path):
    config = tmp_path / "exafsd.toml"
    for section in ("source", "publish"):
        config.write_text(f'[{section}]\naddress = "{address}"\n')
        assert "tcp://HOST:PORT" in exafsd("check", "--config", config, expect=2).stderr


def test_a_source_that_cannot_be_is_said():
    source = ProxySource(Inbox(1), "ipc://" + "x" * 200)  # longer than a socket's name may be
    with pytest.raises(OSError, match=r"source\.address"):
        source.start()


def test_run_refuses_an_address_in_the_open(tmp_path):
    config = tmp_path / "exafsd.toml"
    config.write_text('[publish]\naddress = "tcp://0.0.0.0:5999"\n')
    assert "loopback" in exafsd("run", "--config", config, expect=1).stderr
