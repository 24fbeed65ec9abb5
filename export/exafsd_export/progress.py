"""``exafsd-export quick`` on a terminal."""

import os
import time
import warnings
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def quick_with_progress(
    cif: list[Path],
    amcsd: list[int],
    site: int,
    absorber: str,
    edge: str,
    name: str | None,
    out: Path,
    work: Path | None,
) -> None:
    """Make a bundle, and say what is being done and what has been made."""
    # before TensorFlow is loaded, which else fills the terminal
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    began = time.monotonic()
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading TensorFlow", total=1.0)
        from exafsd_export.quick import Material, make_quick
        from exafsd_training.fitting.workflow import chosen_crystal
        from exafsd_training.theory.structures import StructureError, StructureWarning, model_name

        crystal = chosen_crystal(cif, amcsd, site)
        name = name or model_name(crystal, absorber, edge)

        def report(stage: str, share: float) -> None:
            progress.update(task, description=stage, completed=share)

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", StructureWarning)
            try:
                card = make_quick(Material(crystal, absorber, edge, name), out, work, report)
            except (StructureError, ValueError) as error:
                progress.stop()
                raise SystemExit(f"no bundle: {error}") from None
    for warning in said:
        if issubclass(warning.category, StructureWarning):
            console.print(f"warning: {warning.message}", highlight=False)
    for parameter in card.parameters:
        if parameter.name == "sigma2":
            typer.echo(
                f"shell {parameter.shell}: {parameter.degeneracy:.3g} {parameter.scatterer}"
                f" at {parameter.r_eff:.3f} angstrom"
            )
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file()) / 1e3
    seconds = time.monotonic() - began
    typer.echo(f"{out}: written, model {card.name}, {size:.0f} kB, {seconds:.0f} s")


def zoo_with_progress(names: list[str], out: Path, work: Path) -> None:
    """Make bundles of the table of crystals, and go on where one fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from exafsd_export.quick import Material, make_quick
    from exafsd_training.theory.structures import StructureError, StructureWarning
    from exafsd_training.zoo.crystals import zoo

    table = zoo()
    if unknown := [name for name in names if name not in table]:
        raise SystemExit(f"not in the table of crystals: {', '.join(unknown)}")
    failed = []
    for name in names or table:
        began, entry = time.monotonic(), table[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StructureWarning)
            try:
                material = Material(entry.crystal(), entry.absorber, entry.edge, name)
                card = make_quick(material, out / name, work)
            except (StructureError, ValueError) as error:
                failed.append(name)
                typer.echo(f"{name}: no bundle: {error}", err=True)
                continue
        nearest = next(p for p in card.parameters if p.name == "r" and p.shell == 1)
        typer.echo(
            f"{name}: {nearest.degeneracy:.3g} {nearest.scatterer} at {nearest.r_eff:.3f} angstrom,"
            f" {time.monotonic() - began:.0f} s"
        )
    if failed:
        raise SystemExit(f"not made: {', '.join(failed)}")
