"""The command: help without TensorFlow."""

import subprocess
import sys

CODE = """
import sys
from typer.testing import CliRunner
from exafsd_training.cli import app
for command in ([], ["paths"], ["fit"], ["ablate"], ["evaluate"], ["coverage"],
                ["theory"], ["trend"], ["encoder"]):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, result.output
assert "tensorflow" not in sys.modules and "larch" not in sys.modules
"""


def test_help_loads_no_tensorflow() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
