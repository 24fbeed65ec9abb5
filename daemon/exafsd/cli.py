"""``python -m exafsd.cli``, which scripts and unit files use."""

from exafsd.commands.cli import app

if __name__ == "__main__":
    app()
