"""Bluesky's default pickle frames, read through an allow-list: numpy arrays and builtins only."""

import io
import pickle
from typing import Any

#: (module, name) of everything numpy needs to rebuild plain arrays and scalars
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "complex"),
    ("builtins", "slice"),
    ("builtins", "range"),
    ("builtins", "bytearray"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


class _AllowList(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is not on the list."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a document")
        return super().find_class(module, name)


def loads(data: bytes) -> Any:
    """Unpickle a document.

    Raises
    ------
    ValueError
        If the pickle is broken or holds anything but builtins and numpy arrays.
    """
    try:
        return _AllowList(io.BytesIO(data)).load()
    except Exception as error:  # a broken pickle raises whatever its opcodes hit
        raise ValueError(f"pickle refused: {type(error).__name__}: {error}") from None
