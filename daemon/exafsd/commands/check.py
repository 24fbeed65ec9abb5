"""``exafsd check``: what is wrong with settings, without connecting anything."""

import os

from exafsd.commands.references import gathered
from exafsd.inference.registry import Registry
from exafsd.publishing import AddressError, KeyFileError, check_address
from exafsd.service.wiring import make_pipeline, make_router, server_keys, unresolved, versions
from exafsd.settings import Settings


def check_settings(settings: Settings) -> tuple[list[str], list[str]]:
    """Build what `make_service` builds, without sockets; a report, and what is wrong."""
    report, problems = [], []
    registry = Registry.load(settings.models)
    make_pipeline(settings, registry)
    make_router(settings)
    report.append("versions  " + "  ".join(f"{n} {v}" for n, v in versions().items()))
    report.append(f"source    {settings.source.address}")
    if unreachable := unresolved(
        settings.source.address
    ):  # it may be known later: no reason not to run
        report.append(f"warning   {unreachable}")
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
    report.append(f"journal   {settings.journal.folder or 'off'}")
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
    folder = settings.journal.folder
    if folder is not None:
        nearest = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        if not os.access(nearest, os.W_OK):
            problems.append(f"journal.folder {folder} cannot be written")
    return report, problems
