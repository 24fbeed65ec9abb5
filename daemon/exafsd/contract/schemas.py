"""Write the JSON schemas of card and messages: ``python -m exafsd.contract.schemas DIR``."""

import json
import sys
from pathlib import Path
from typing import Any

from exafsd.contract.card import Card
from exafsd.contract.messages import MESSAGES


def schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON schema."""
    found = {"card.json": Card.model_json_schema(by_alias=True, mode="serialization")}
    for message in MESSAGES:
        kind = message.model_fields["kind"].default
        schema = message.model_json_schema(by_alias=True, mode="serialization")
        found[f"message.{kind}.json"] = schema
    return found


def write(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
