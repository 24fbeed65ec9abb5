"""``python -m exafsd``."""

from exafsd.commands.cli import app

app()
