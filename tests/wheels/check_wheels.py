"""Build the three wheels and try each in an environment of its own: ``make test-wheels``.

Not collected by pytest: it installs for minutes. Prints one line per check and a closing count.
"""

import json
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

#: what the bare client may install: its four dependencies and theirs
BARE = {
    "exafsd", "numpy", "orjson", "pydantic", "pydantic_core", "pyzmq", "annotated-types",
    "typing_extensions", "typing-inspection", "pip", "setuptools",
}  # fmt: skip

#: all wheels together, bytes
LARGEST = 60e6

CLIENT = """
import sys
from exafsd.client import Answers, Follower, Subscriber, rows, to_pandas
with Subscriber(sys.argv[1], "run.stop.") as subscriber:
    message = subscriber.receive(20)
assert message is not None, "nothing came"
assert message.header["run_uid"] == "wheel-test", message.header
with Follower(sys.argv[1], "run.stop.", start="ring") as follower:
    assert follower.receive(20).header["seq"] == 1, "what was sent before did not come"
with Answers(sys.argv[1]) as ask:
    assert [m.topic for m in ask.snapshot()] == ["run.stop."]
assert rows([message]) == []
try:
    to_pandas([message])
except ImportError as error:
    assert "pip install pandas" in str(error)
else:
    sys.exit("pandas is not in the bare install")
print(sorted({m.split(".")[0] for m in sys.modules} & {"larch", "bluesky", "tiled", "scipy"}))
"""


def run(*command, **options):
    """Run, and show everything if it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=1800, **options
    )
    if done.returncode:
        raise SystemExit(f"FAILED {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def environment(folder, *requirements):
    """Make an environment with only these installed; its python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--upgrade", "pip")
    constraints = ["-c", ROOT / "constraints.txt"]
    run(python, "-m", "pip", "install", "-q", *constraints, *requirements)
    return python


def build(folder):
    """Build every distribution; name to wheel."""
    wheels = {}
    for name in ("daemon", "training", "export"):
        run(sys.executable, "-m", "build", "-q", "--wheel", "--outdir", folder, ROOT / name)
        newest = max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)
        wheels[name] = newest
    return wheels


def check_contents(wheels):
    """Licence, type marker, models and configurations are inside; nothing of the tests is."""
    for name, wheel in wheels.items():
        names = zipfile.ZipFile(wheel).namelist()
        assert any(n.endswith("LICENSE") for n in names), f"{wheel.name} has no LICENSE"
        assert any(n.endswith("py.typed") for n in names), f"{wheel.name} has no py.typed"
        assert not any(n.startswith("tests") for n in names), wheel.name
        if name == "daemon":
            assert "exafsd/models/cu-k-fcc/pinn.onnx" in names
            assert "exafsd/models/cu-k-fcc/card.json" in names
        if name == "training":
            assert "exafsd_training/zoo/cu-k-fcc.toml" in names
            assert "exafsd_training/zoo/licoo2.cif" in names
            assert "exafsd_training/model/encoder.npz" in names
    sizes = {name: wheel.stat().st_size for name, wheel in wheels.items()}
    assert sum(sizes.values()) < LARGEST, sizes


def check_bare(wheels, folder):
    """A working client from numpy, pydantic and pyzmq alone."""
    python = environment(folder / "bare", wheels["daemon"])
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    installed = {package["name"] for package in listed}
    assert installed <= BARE, f"the bare install brings {sorted(installed - BARE)}"

    from exafsd.contract.messages import RunStop
    from exafsd.publishing import Publisher

    publisher = Publisher("tcp://127.0.0.1:*")
    client = subprocess.Popen(
        [python, "-c", CLIENT, publisher.address], stdout=subprocess.PIPE, text=True
    )
    while client.poll() is None:  # PUB drops what it sends before the client is there
        publisher.send(
            RunStop(run_uid="wheel-test", scan_id=1, exit_status="success", results=1, rejected=0)
        )
        time.sleep(0.1)
    out, _ = client.communicate()
    publisher.close()
    assert client.returncode == 0
    assert out.strip() == "[]", f"the client imports {out}"


def check_daemon(wheels, folder):
    """`exafsd check` and `exafsd analyze`, without TensorFlow."""
    import numpy as np

    from synthetic import foil

    python = environment(folder / "daemon", f"{wheels['daemon']}[daemon]")
    exafsd = python.parent / "exafsd"
    assert "ok" in run(exafsd, "check", cwd=folder)
    spectrum = folder / "foil.dat"
    np.savetxt(spectrum, np.column_stack(foil(600, noise=1e-4)), header="energy mutrans")
    line = json.loads(run(exafsd, "analyze", spectrum, "--element", "Cu", "--edge", "K", "--json"))
    assert line["kind"] == "result"
    assert line["model"]["name"] == "cu-k-fcc"
    assert "0.1" in run(exafsd, "--version")
    packages = {p["name"] for p in json.loads(run(python, "-m", "pip", "list", "--format", "json"))}
    assert not packages & {"tensorflow", "keras", "tf2onnx"}, packages


def check_help(wheels, folder, name, command):
    """Training and export say what they do."""
    needed = [wheels["daemon"], wheels["training"]]
    if name == "export":
        needed.append(wheels["export"])
    python = environment(folder / name, *needed)
    assert "Usage" in run(python.parent / command, "--help")


def main():
    """Run every check."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheels = build(folder)
        checks = {
            "contents": lambda: check_contents(wheels),
            "bare client": lambda: check_bare(wheels, folder),
            "daemon": lambda: check_daemon(wheels, folder),
            "training": lambda: check_help(wheels, folder, "training", "exafsd-train"),
            "export": lambda: check_help(wheels, folder, "export", "exafsd-export"),
        }
        for name, check in checks.items():
            began = time.monotonic()
            check()
            print(f"ok  {name}  {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(checks)} passed, 0 failed")


if __name__ == "__main__":
    main()
