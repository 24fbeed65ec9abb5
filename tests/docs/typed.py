"""Run lines of ``exafsd ...`` as a shell would, in one process: Larch is imported only once."""

import os
import shlex
import sys

from exafsd.commands.cli import app


def main() -> int:
    """Run the lines of standard input; the exit status of the first that fails."""
    os.environ["COLUMNS"] = "160"
    for line in sys.stdin.read().splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        print(f"$ {line}", flush=True)
        if words[0] != "exafsd":
            print(f"no command of exafsd: {line}")
            return 1
        try:
            app(words[1:], prog_name="exafsd")
        except SystemExit as end:
            if end.code:
                return int(end.code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
