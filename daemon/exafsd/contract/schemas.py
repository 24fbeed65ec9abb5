"""Write the JSON schemas of card, S0² file, messages, requests and replies.

``python -m exafsd.contract.schemas DIR``
"""

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from exafsd.contract.answers import ASKS, REPLIES
from exafsd.contract.card import Card
from exafsd.contract.messages import MESSAGES
from exafsd.contract.s02 import S02File


@lru_cache(maxsize=1)
def schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON schema."""
    found = {"card.json": Card.model_json_schema(by_alias=True, mode="serialization")}
    found["s02.json"] = S02File.model_json_schema(by_alias=True, mode="serialization")
    for message in MESSAGES:
        kind = message.model_fields["kind"].default
        schema = message.model_json_schema(by_alias=True, mode="serialization")
        found[f"message.{kind}.json"] = schema
    for request in ASKS:
        kind = request.model_fields["ask"].default
        found[f"ask.{kind}.json"] = request.model_json_schema(by_alias=True, mode="validation")
    for reply in REPLIES:
        kind = reply.model_fields["kind"].default
        found[f"{kind}.json"] = reply.model_json_schema(by_alias=True, mode="serialization")
    return found


def write(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
