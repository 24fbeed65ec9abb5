"""Result runs of a catalog: found by the raw run, read back as the messages they were."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from exafsd.archive.catalog import RESULT_PLAN, CatalogError, documents
from exafsd.archive.result_run import STREAM, model_hashes
from exafsd.contract.card import Card
from exafsd.contract.frames import Message


def result_runs(catalog: Any, raw_uid: str) -> list[Any]:
    """Result runs of a raw run, oldest first.

    Parameters
    ----------
    catalog
        From `exafsd.archive.catalog.open_catalog`.
    raw_uid
        Of the raw run, in full.
    """
    from tiled.queries import Eq

    runs = catalog.search(Eq("start.plan_name", RESULT_PLAN))
    runs = runs.search(Eq("start.original_run_uid", raw_uid))
    return list(runs.sort(("start.time", 1)).values())


def find_result_run(catalog: Any, uid: str) -> Any:
    """The latest result run of a raw run, or the result run that has this uid itself.

    Raises
    ------
    CatalogError
        If there is none.
    """
    runs = result_runs(catalog, uid)
    if not runs:
        try:
            run = catalog[uid]
        except (KeyError, ValueError):
            raise CatalogError(f"no run {uid!r}") from None
        start = run.metadata["start"]
        if start.get("plan_name") == RESULT_PLAN:
            return run
        runs = result_runs(catalog, start["uid"])  # only its beginning was given
    if not runs:
        raise CatalogError(f"no results of run {uid}; make them with `exafsd replay --write`")
    return runs[-1]


def is_done(
    catalog: Any, raw_uid: str, settings_sha256: str, version: str, cards: Mapping[str, Card]
) -> bool:
    """Whether a raw run has a whole result run that was made in this way."""
    expected = {
        "settings_sha256": settings_sha256,
        "version": version,
        "models": model_hashes(cards),
    }
    for run in result_runs(catalog, raw_uid):
        analysis = run.metadata["start"]["analysis"]
        stop = run.metadata.get("stop") or {}
        if stop.get("exit_status") == "success" and expected.items() <= analysis.items():
            return True
    return False


def headers(run: Any) -> Iterator[dict[str, Any]]:
    """Headers of the outcomes of a result run, as they were on the wire, in order."""
    base = run.base
    if STREAM not in list(base):
        return
    table = base[STREAM].base["internal"].read(["seq_num", "message"])
    for text in table.sort_values("seq_num")["message"]:
        yield json.loads(text)


def messages(run: Any) -> Iterator[Message]:
    """Outcomes of a result run, as they were on the wire, in order; arrays are read in slices.

    Energies of a spectrum that had no room are missing among its arrays.
    """
    for name, document in documents(run):
        if name != "event":
            continue
        header = json.loads(document["data"]["message"])
        arrays = {}
        for spec in header.get("arrays", ()):
            stored = np.asarray(document["data"].get(spec["name"], ()))
            (length,) = spec["shape"]
            if length <= len(stored):
                arrays[spec["name"]] = stored[:length].astype(spec["dtype"])
        yield Message("", header, arrays)
