"""Names that a package offers without importing what they need before they are asked for."""

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
