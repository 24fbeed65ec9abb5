"""The documentation builds without a broken link, and its generated pages are those of the code."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from exafsd.settings.analysis import Adapter
from exafsd.settings.settings import Settings
from synthetic import ROOT

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "tutorial" / "first-subscriber.html").read_text()
    loaded = re.findall(
        r'<(?:script|link rel="stylesheet"|img)[^>]*(?:src|href)="(http[^"]*)"', text
    )
    assert loaded == [], "a page loads something from the internet"


def test_links_of_the_readme_lead_somewhere():
    links = LINK.findall((ROOT / "README.md").read_text())
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def generated():
    """Import docs/generate.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_generated_pages_are_up_to_date():
    stale = [
        page for page, text in generated().items() if (ROOT / "docs" / page).read_text() != text
    ]
    assert stale == [], "run `make schemas`"


def keys(path, table, parts):
    """Every key of a table and of those in it, as (path, schema)."""
    for key, field in table["properties"].items():
        names = re.findall(r'"#/\$defs/(\w+)"', json.dumps(field))
        inner = [parts[name] for name in names if "properties" in parts[name]]
        yield f"{path}.{key}", field, bool(inner)
        for one in inner:
            yield from keys(f"{path}.{key}", one, parts)


@pytest.mark.parametrize("model", [Settings, Adapter])
def test_every_setting_is_explained(model):
    schema = model.model_json_schema()
    settings = {
        path: field for path, field, table in keys("", schema, schema["$defs"]) if not table
    }
    assert len(settings) > 15
    assert [path for path, field in settings.items() if not field.get("description")] == []
