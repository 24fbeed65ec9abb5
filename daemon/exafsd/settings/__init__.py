"""What a beamline may set: the settings file, and the part of it that decides numbers."""

from typing import TYPE_CHECKING

from exafsd.lazy import front_door

if TYPE_CHECKING:
    from exafsd.settings.settings import Settings, load

__all__ = ["Settings", "load"]
#: lazily, because training uses `exafsd.settings.analysis` and has no pydantic-settings
__getattr__ = front_door(__name__, {name: f"exafsd.settings.settings:{name}" for name in __all__})
