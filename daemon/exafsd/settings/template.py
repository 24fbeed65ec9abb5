"""The settings file as text: a commented template and its JSON schema, from the models."""

import json
from typing import Any

from pydantic import BaseModel

from exafsd.settings.analysis import PRESETS
from exafsd.settings.settings import Settings

HEADER = """\
# Settings of exafsd. You can leave out every key; the values here are the defaults.
# A key that is commented out has no default, or its default is null. Environment variables
# override this file: EXAFSD_PUBLISH__ADDRESS=tcp://127.0.0.1:5580 sets publish.address.
"""


def schema_text() -> str:
    """JSON schema of the settings."""
    schema = Settings.model_json_schema(mode="serialization")
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def template() -> str:
    """Return a TOML file with every setting, its meaning and its default."""
    lines = [HEADER]
    tables = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            tables.append((name, default))
        else:
            lines += _entry(name, field.description, default)
    for name, default in tables:
        lines += ["", f"[{name}]"]
        if name == "adapter":
            lines.append(f"# the beamline's names; presets: {', '.join(PRESETS)}")
            lines.append('# to replace names: i0 = "ring_i0"  energy = { key = "e", unit = "eV" }')
        nested = []
        for key, field in type(default).model_fields.items():
            value = getattr(default, key)
            if isinstance(value, BaseModel):
                nested.append((key, value))
            else:
                lines += _entry(key, field.description, value)
        for key, value in nested:
            lines += ["", f"[{name}.{key}]"]
            for inner, field in type(value).model_fields.items():
                lines += _entry(inner, field.description, getattr(value, inner))
    return "\n".join(lines) + "\n"


def _entry(name: str, meaning: str | None, default: Any) -> list[str]:
    lines = [f"# {meaning}"] if meaning else []
    if default is None:
        return [*lines, f"# {name} ="]
    if isinstance(default, tuple):
        default = [str(item) for item in default]
    return [*lines, f"{name} = {json.dumps(default)}"]
