"""Archived runs through the pipeline of the live daemon again: ``exafsd replay``."""

from exafsd.replay.outputs import Options
from exafsd.replay.runs import Selection, replay

__all__ = ["Options", "Selection", "replay"]
