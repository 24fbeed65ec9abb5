"""A run's outcomes as CSV and HDF5, numbers as they were on the wire."""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from exafsd.client import Message, rows
from exafsd.contract.frames import ARRAY_UNITS, stacked
from exafsd.contract.messages import MESSAGE_SCHEMA

#: Text that begins so is a formula to one spreadsheet or another. They skip white space (also the
#: ideographic one) and what nobody sees before it, and read full-width signs as the others.
FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@|＝＋－＠]")


def as_csv(messages: Sequence[Message]) -> bytes:
    """One row per shell, see `exafsd.client.rows`; floats with all their digits."""
    table = rows(messages)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(_columns(table)), restval="")
    writer.writerow({name: _plain(name) for name in writer.fieldnames})
    for row in table:
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return out.getvalue().encode()


def _plain(value: Any) -> Any:
    """Cell that a spreadsheet takes for the text that it is; a number stays a number."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _columns(table: list[dict[str, Any]]) -> dict[str, None]:
    """Names of all rows, in their order."""
    return dict.fromkeys(name for row in table for name in row)


def as_hdf5(messages: Sequence[Message]) -> bytes:
    """Table, spectra and whole messages.

    Group ``table`` has a dataset per column of the CSV; ``spectra`` has ``id`` and the arrays,
    (spectrum, point), NaN beyond the end of a shorter one; ``message`` every header as JSON.
    """
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["schema"] = MESSAGE_SCHEMA
        columns = rows(messages)
        group = file.create_group("table")
        for name in _columns(columns):
            group[name.replace("/", "|")] = _dataset([row.get(name) for row in columns])
        whole = [json.dumps(message.header) for message in messages]
        file.create_dataset("message", data=whole, dtype=h5py.string_dtype(), compression="gzip")
        group = file.create_group("spectra")
        held = [message for message in messages if message.arrays]
        group["id"] = _dataset([message.header["id"] for message in held])
        for name, unit in ARRAY_UNITS.items():
            table = stacked(held, name)
            if table is not None:
                group.create_dataset(name, data=table, compression="gzip").attrs["unit"] = unit
    return out.getvalue()


def _dataset(values: list[Any]) -> Any:
    """Numbers where all are numbers or missing, else text."""
    if all(value is None or isinstance(value, (int, float)) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=float)
    text = ["" if value is None else str(value).replace("\0", " ") for value in values]
    return np.array(text, dtype=h5py.string_dtype())
