"""``exafsd check``: what is wrong with settings, without connecting anything."""

import os
import shutil
from collections import deque
from pathlib import Path

from exafsd.archive.journaled import SUFFIX, JournaledRun
from exafsd.archive.outcome_log import folder_beside, open_runs
from exafsd.archive.retention import Retention
from exafsd.commands.references import gathered
from exafsd.inference.registry import Registry
from exafsd.lazy import MissingExtraError, of_extra
from exafsd.publishing import AddressError, KeyFileError, check_address
from exafsd.service.wiring import make_pipeline, make_router, server_keys, unresolved, versions
from exafsd.settings import Settings


def check_settings(settings: Settings, thorough: bool = False) -> tuple[list[str], list[str]]:
    """Build what `make_service` builds, without sockets; a report, and what is wrong.

    `thorough`: every record of the journal is read; else those of runs that are open.
    """
    report, problems = [], []
    registry = Registry.load(settings.models)
    make_pipeline(settings, registry)
    make_router(settings)
    report.append("versions  " + "  ".join(f"{n} {v}" for n, v in versions().items()))
    kafka = settings.source.kafka
    if kafka is not None:
        report.append(f"source    {', '.join(kafka.topics)} at {', '.join(kafka.servers)} (Kafka)")
    elif settings.source.tiled is not None:
        report.append(f"source    {settings.source.tiled.catalog} (tiled)")
    else:
        report.append(f"source    {settings.source.address}")
        # it may be known later: no reason not to run
        if unreachable := unresolved(settings.source.address):
            report.append(f"warning   {unreachable}")
    if kafka is not None or settings.publish.kafka is not None:
        try:
            of_extra("confluent_kafka", "kafka")
        except MissingExtraError as error:
            problems.append(str(error))
    report.append(f"publish   {settings.publish.address}")
    report.append(f"models    {', '.join(sorted(registry.bundles)) or 'none'}")
    composition = settings.composition
    if composition.enabled != "off":
        references, refused = gathered(composition.references, composition.shipped)
        names = sorted({f"{one.name} ({one.edge.element} {one.edge.edge})" for one in references})
        report.append(f"reference {', '.join(names) or 'none'}")
        problems += refused
        every = {one.name for one in references}
        problems += [
            f"composition.phases: there is no reference {name}"
            for name in composition.phases
            if name not in every
        ]
    folder = settings.journal_folder
    if folder is None:
        report.append("journal   off")
    else:
        about, damage = check_journal(folder, settings.journal.max_bytes, thorough)
        report += about
        problems += damage
    for edge, s02 in settings.inference.s02.items():
        report.append(f"S0²       {edge} {s02.value:.3f} ± {s02.std:.3f}, {s02.source}")
    report.append(f"settings  {settings.analysis.sha256}")
    problems += registry.refused.values()
    problems += [f"models folder {f} does not exist" for f in settings.models if not f.is_dir()]
    problems += [
        f"source.asset_roots: {folder} does not exist"
        for folder in settings.source.asset_roots
        if not folder.is_dir()
    ]
    model = settings.inference.model
    if model is not None and model not in registry.bundles:
        problems.append(f"inference.model {model!r} is not loaded")
    if settings.reduction.e0_policy == "fixed" and settings.reduction.e0 is None:
        problems.append("reduction.e0_policy is fixed, but reduction.e0 is not set")
    publish = settings.publish
    for name, address in (("address", publish.address), ("answers", publish.answers)):
        try:
            if address is not None:
                waived = publish.insecure or publish.curve is not None
                check_address(address, waived, f"publish.{name}")
        except AddressError as error:
            problems.append(str(error))
    try:
        server_keys(settings)
    except (KeyFileError, OSError) as error:
        problems.append(f"publish.curve: {error}")
    if settings.journal.folder is not None and not os.access(
        nearest_existing_folder(folder), os.W_OK
    ):
        problems.append(f"journal.folder {folder} cannot be written")
    return report, problems


def nearest_existing_folder(folder: Path | None) -> Path:
    """Folder itself, or the nearest above it that there is."""
    folder = (folder or Path()).absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def check_journal(folder: Path, max_bytes: int, thorough: bool) -> tuple[list[str], list[str]]:
    """What a journal holds and may hold, and which of its files are damaged."""
    free = shutil.disk_usage(nearest_existing_folder(folder)).free
    limit = f"at most {max_bytes / 1e9:g} GB" if max_bytes else "all"
    if not folder.is_dir():
        return [f"journal   {folder}, to be made; keeps {limit}, {free / 1e9:.1f} GB are free"], []
    beside = folder_beside(folder)
    size = Retention([one for one in (folder, beside) if one.is_dir()], 0).total
    files = sorted(folder.glob(f"*{SUFFIX}"))
    unfinished = open_runs(beside) if beside.is_dir() else []
    report = [
        f"journal   {folder}, {len(files)} runs, {size / 1e9:.1f} GB; keeps {limit},"
        f" {free / 1e9:.1f} GB are free",
        f"open      {len(unfinished)} runs have not ended",
    ]
    problems: list[str] = []
    for path in files:
        if thorough or path.stem in unfinished:
            deque(JournaledRun(path).documents(problems.append), maxlen=0)
    if folder.stat().st_mode & 0o077:
        report.append(f"warning   others may read {folder}: chmod 700 {folder}")
    return report, problems
