"""Write the JSON schemas of card, S0² file, messages, requests and replies.

``python -m exafsd.contract.schemas DIR``
"""

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from exafsd.contract.answers import ASKS, REPLIES
from exafsd.contract.card import Card
from exafsd.contract.messages import MESSAGES
from exafsd.contract.s02 import S02File

#: keyword for the values that this version knows, where others are valid as well
KNOWN = "x-known-values"


@lru_cache(maxsize=1)
def schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON schema."""
    read: dict[str, type[BaseModel]] = {"card.json": Card, "s02.json": S02File}
    read |= {f"message.{m.model_fields['kind'].default}.json": m for m in MESSAGES}
    read |= {f"{reply.model_fields['kind'].default}.json": reply for reply in REPLIES}
    named = {
        name: _opened(model.model_json_schema(by_alias=True, mode="serialization"))
        for name, model in read.items()
    }
    for request in ASKS:  # what a daemon does not understand it must not half answer
        kind = request.model_fields["ask"].default
        named[f"ask.{kind}.json"] = request.model_json_schema(by_alias=True, mode="validation")
    return named


def _opened(schema: Any) -> Any:
    """Schema for a reader: fields and codes of a later version are valid, today's are listed."""
    if isinstance(schema, list):
        return [_opened(item) for item in schema]  # type: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    opened: dict[str, Any] = {
        str(key): _opened(value)  # type: ignore[reportUnknownArgumentType]
        for key, value in schema.items()  # type: ignore[reportUnknownVariableType]
        if not (key == "additionalProperties" and value is False)
    }
    if isinstance(opened.get("enum"), list):
        opened[KNOWN] = opened.pop("enum")
    return opened


def write(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
