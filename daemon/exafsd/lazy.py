"""Imports that wait until they are needed, and what to install where they fail."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def front_door(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` of a package.

    Parameters
    ----------
    package
        Its name, for the error message.
    places
        Name to ``module:attribute``.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = places[name].partition(":")
        return getattr(import_module(module), attribute)

    return get


class MissingExtraError(OSError):
    """A library that an extra of the package installs is not there."""


def of_extra(module: str, extra: str) -> Any:
    """Import a module that only those have who have installed an extra.

    Raises
    ------
    MissingExtraError
        If it is not there; the text says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{error}; this needs: pip install 'exafsd[{extra}]'") from None
