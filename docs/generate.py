"""Write the generated pages: settings, fields of messages and files, commands, lists of pages.

``python docs/generate.py``; `make schemas` does it, and a test fails when they are stale.
"""

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exafsd.contract.schemas import KNOWN, schemas
from exafsd.contract.vocabulary import Code, Flag, Problem, Reason
from exafsd.settings.analysis import PRESETS, Adapter
from exafsd.settings.settings import Settings

DOCS = Path(__file__).parent
MADE = "<!-- made by `make schemas`; do not edit -->\n"
#: module of each command
COMMANDS = {
    "exafsd": "exafsd.commands.cli",
    "exafsd-train": "exafsd_training.cli",
    "exafsd-export": "exafsd_export.cli",
}
SETTINGS_HEAD = """\
# Settings

Every key of `exafsd.toml`. `exafsd config init` writes a file with all keys and their defaults.
`exafsd check --config FILE` lists the problems of a file. `exafsd config show --config FILE` prints
the settings in use. An unknown key is an error. Environment variables override the file:
`EXAFSD_PUBLISH__ADDRESS` sets `publish.address`.
"""
MESSAGES_HEAD = """\
# Fields of the messages

Every field of every message on the wire, of every request, and of every reply. What they are for
is on the page about [messages](messages.md); the same as JSON schemas is in
[schemas](../schemas/index.md).
"""
CARD_HEAD = """\
# Fields of files

The card of a model bundle (`card.json`) and the file of `exafsd calibrate-s02`.
`exafsd models show NAME` prints a card. The same as JSON schemas is in
[schemas](../schemas/index.md).
"""

#: known values of a field that are listed beside it; longer lists have a page of their own
FEW = 10
REASONS_HEAD = """\
# Reasons and quality flags

Every code that exafsd publishes. A later version may have more: a reader takes one that it does not
know as it is.
"""
#: title, codes and last words of each part of the page of reasons
REASONS: tuple[tuple[str, type[Code], str], ...] = (
    ("Reasons of rejection (`rejected.reason`)", Reason, ""),
    (
        "Quality flags (`quality`)",
        Flag,
        "An average has the flags of all sweeps in it. Sweeps with `partial`, `gap` or"
        " `energy_unsorted` do not\nenter averages, and decide neither the grid nor the reference"
        " foil of their run.\n",
    ),
    ("Problems with documents (`status.problems`, `status.drops`)", Problem, ""),
)

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Path below docs to text."""
    found = schemas()
    files = {name: found[name] for name in ("card.json", "s02.json")}
    wire = {name: schema for name, schema in found.items() if name not in files}
    return {
        "reference/settings.md": settings_page(),
        "reference/message-fields.md": fields_page(MESSAGES_HEAD, wire),
        "reference/file-fields.md": fields_page(CARD_HEAD, files),
        "reference/reasons.md": reasons_page(),
        "reference/commands.md": commands_page(),
        "decisions/index.md": decisions_page(),
        "schemas/index.md": schemas_page(),
    }


def settings_page() -> str:
    """Return all settings by table of the TOML file, then the presets of adapters."""
    schema = Settings.model_json_schema()
    names = Adapter.model_json_schema()
    lines = [MADE, SETTINGS_HEAD]
    for path, table, defs in _toml_tables("", schema, schema["$defs"]):
        plain = {k: v for k, v in table["properties"].items() if path or not _refs(v)}
        lines += [f"## [{path}]" if path else "## Outside of any table", "", _prose(table)]
        lines += [*_table(["key", "type", "default", "meaning"], _keys(table, plain, defs)), ""]
        if path == "adapter":
            lines += [_prose(names), *_table(
                ["key", "type", "default", "meaning"],
                _keys(names, names["properties"], names["$defs"]),
            ), "", "### adapter.energy", "", *_table(
                ["key", "type", "default", "meaning"],
                _keys(names["$defs"]["EnergyColumn"], names["$defs"]["EnergyColumn"]["properties"],
                      names["$defs"]),
            ), "", *_presets()]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _toml_tables(path: str, schema: Schema, defs: Schema) -> Iterator[tuple[str, Schema, Schema]]:
    yield path, schema, defs
    for key, field in schema["properties"].items():
        for name in _refs(field):
            inner = f"{path}.{key}" if path else key
            if "properties" in defs[name]:
                yield from _toml_tables(inner, defs[name], defs)


def _presets() -> list[str]:
    lines = ["### Presets of adapters", "", "What is not listed is as in the table above.", ""]
    keys = sorted({key for preset in PRESETS.values() for key in preset if key != "energy"})
    head = ["key", *PRESETS]
    energy = ["energy", *(_code(p["energy"]) for p in PRESETS.values())]
    rest = [[key, *(_code(p.get(key)) for p in PRESETS.values())] for key in keys]
    return [*lines, *_table(head, [energy, *rest]), ""]


def fields_page(head: str, documents: Mapping[str, Schema]) -> str:
    """Return the fields of documents, and once each those of the parts they are made of."""
    lines, parts = [MADE, head], dict[str, Schema]()
    for name, schema in documents.items():
        for part, definition in schema.get("$defs", {}).items():
            if parts.setdefault(part, definition) != definition:
                raise ValueError(f"two parts are called {part}")
        lines += [f"## {name.removesuffix('.json')}", "", *_fields(schema, parts)]
    lines += ["## Parts", ""]
    for name, definition in sorted(parts.items()):
        if "properties" in definition:
            lines += [f"### {name}", "", *_fields(definition, parts)]
    return "\n".join(lines).rstrip() + "\n"


def _fields(schema: Schema, parts: Schema) -> list[str]:
    body = [
        [f"`{name}`", _kind(field), _meaning(field, schema.get("$defs", parts))]
        for name, field in schema["properties"].items()
    ]
    return [_prose(schema), *_table(["field", "type", "meaning"], body), ""]


def reasons_page() -> str:
    """Return every code with its meaning."""
    lines = [MADE, REASONS_HEAD]
    for title, codes, after in REASONS:
        body = [[f"`{code.value}`", code.meaning] for code in codes]
        lines += [f"## {title}", "", *_table(["code", "meaning and what to do"], body), "", after]
    return "\n".join(lines).rstrip() + "\n"


def commands_page() -> str:
    """Return the help of every command, as Typer writes it down."""
    texts = [f"{MADE}\n# Commands\n"]
    for name, module in COMMANDS.items():
        command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        # one heading level down: the page has a title of its own
        told = [f"#{line}" if line.startswith("#") else line for line in done.stdout.splitlines()]
        texts.append(html.unescape("\n".join(told)).strip() + "\n")
    return "\n".join(texts)


def decisions_page() -> str:
    """List the records of decisions by number."""
    lines = [MADE, "# Decisions", "", "What was decided, why, and what was rejected.", ""]
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def schemas_page() -> str:
    """List the JSON schemas."""
    lines = [
        MADE,
        "# JSON schemas",
        "",
        "Generated from the models; a daemon gives them out, too.",
        "",
    ]
    lines += [f"- [{name}]({name})" for name in sorted([*schemas(), "settings.json"])]
    return "\n".join(lines) + "\n"


def _keys(table: Schema, fields: Schema, defs: Schema) -> list[list[str]]:
    required = table.get("required", [])
    return [
        [
            f"`{name}`",
            _kind(field, defs),
            "required" if name in required else _default(field, defs),
            _meaning(field),
        ]
        for name, field in fields.items()
    ]


def _default(field: Schema, defs: Schema) -> str:
    if any("properties" in defs[name] for name in _refs(field)):
        return "not set" if field.get("default", {}) is None else "a table of its own"
    return _code(field.get("default")) or "not set"


def _refs(field: Schema) -> list[str]:
    """Names of the definitions that a field is made of, those in maps and lists left out."""
    choices = [field, *field.get("anyOf", []), *field.get("allOf", [])]
    return [c["$ref"].rpartition("/")[2] for c in choices if "$ref" in c]


def _kind(field: Schema, expand: Schema | None = None) -> str:
    """Type in words. References become links, or the words of what they refer to in `expand`."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        if expand is None:
            return f"[{name}](#{name.lower()})"
        return "table" if "properties" in expand[name] else _kind(expand[name], expand)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(c, expand) for c in field["anyOf"]))
    if "const" in field:
        return _code(field["const"])
    if "enum" in field:
        return ", ".join(map(_code, field["enum"]))
    if field.get("type") == "string" and len(field.get(KNOWN, ())) in range(1, FEW):
        return ", ".join(map(_code, field[KNOWN]))
    if field.get("type") == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(_kind(item, expand) for item in field["prefixItems"]) + "]"
        return f"list of {_kind(field.get('items', {}), expand)}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"map of name to {_kind(values, expand)}" if isinstance(values, dict) else "map"
    if field.get("format") == "path":
        return "path"
    return str(field.get("type", "anything")) + _limits(field)


def _limits(field: Schema) -> str:
    words = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    told = [f"{sign} {field[key]:g}" for key, sign in words.items() if key in field]
    return f" ({', '.join(told)})" if told else ""


def _meaning(field: Schema, parts: Schema | None = None) -> str:
    """What a field is for; without a word of its own, what it is made of is for."""
    told = field.get("description", "")
    names = re.findall(r'"#/\$defs/(\w+)"', json.dumps(field))
    if not told and parts and names:
        told = parts[names[0]].get("description", "").partition("\n")[0]
    return html.escape(told, quote=False)


def _prose(schema: Schema) -> str:
    """Return the docstring of a model, as one paragraph."""
    words = schema.get("description", "").split("\n\n")[0]
    return f"{html.escape(' '.join(words.split()), quote=False)}\n" if words else ""


def _code(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    for page, text in pages().items():
        (DOCS / page).write_text(text)
