"""Results of one run out of a catalog into a file: NeXus, Athena project, or XDI files."""

from pathlib import Path
from typing import Any

from exafsd.archive.catalog import CatalogError, open_catalog
from exafsd.archive.logged_results import find_logged, logged_messages
from exafsd.archive.results import find_result_run, messages
from exafsd.contract.frames import Message, latest


def export(catalog: str, uid: str, path: Path) -> str:
    """Write the latest results of a run; return a sentence about it.

    Parameters
    ----------
    catalog
        Tiled profile or URI that has the result run, or the folder of a journal.
    uid
        Of the raw run, or of one of its result runs.
    path
        ``.h5``, ``.hdf5`` or ``.nxs``: NeXus; ``.prj``: Athena; ``.xdi``: a folder of XDI files.

    Raises
    ------
    ValueError, OSError
        If the ending is another, or there is something of this name already.
    CatalogError
        If there are no results.
    """
    kind = path.suffix.lower()
    if kind not in (".h5", ".hdf5", ".nxs", ".prj", ".xdi"):
        raise ValueError(f"{path}: the name must end in .h5, .hdf5, .nxs, .prj or .xdi")
    if path.exists():
        raise FileExistsError(f"{path} exists already; it is not overwritten")
    start, outcomes = _read(catalog, uid)
    of_run = f"results of run {start['original_run_uid']}, analysed by exafsd"
    if kind == ".xdi":
        from exafsd.exports.spectra_files import write_xdi

        return f"wrote {write_xdi(path, start, outcomes)} files: {of_run}"
    partial = path.with_name(path.name + ".part")  # whole or not at all
    try:
        if kind == ".prj":
            from exafsd.exports.spectra_files import write_athena

            summary = f"wrote {write_athena(partial, outcomes)} spectra: {of_run}"
        else:
            from exafsd.exports.nexus import write_nexus

            write_nexus(partial, start, outcomes)
            summary = f"wrote {len(outcomes)} outcomes: {of_run}"
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return summary


def _read(catalog: str, uid: str) -> tuple[dict[str, Any], list[Message]]:
    """Start document and latest outcomes of a run."""
    if Path(catalog).is_dir():
        logged = find_logged(Path(catalog), uid)
        if logged.damage is not None:
            raise CatalogError(f"{logged.damage}; make the results again with `exafsd replay`")
        return logged.start, latest(logged_messages(logged))
    opened = open_catalog(catalog)
    try:
        run = find_result_run(opened, uid)
        return run.metadata["start"], latest(messages(run))
    finally:
        opened.context.close()
