"""The table of feffit's answers: every measured spectrum of every model, as JSON and Markdown."""

import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from exafsd.contract import file_sha256
from exafsd.contract.recipe import FitWindow, Recipe
from exafsd.reduction.transform import fit_window
from exafsd_training.reference.feffit import (
    Chi,
    FeffitResult,
    feffit_reference,
    read_chi_k2,
    reduce_file,
)
from exafsd_training.theory.parametrisation import Parametrisation, parametrise
from exafsd_training.theory.paths import read_paths
from exafsd_training.theory.structures import run_feff
from exafsd_training.zoo import configurations
from exafsd_training.zoo.configurations import Measured, ModelConfig

SCHEMA = "exafsd.oracle/2"
#: The committed table.
TABLE = configurations.FOLDER / "oracle.json"
#: Digits kept: what a second run gives again, and more than any comparison needs.
DIGITS = 9
#: Two runs agree if no number differs by more, relatively.
SAME = 1e-6
#: What is between these lines of a page is generated.
BEGIN, END = "<!-- exafsd-train oracle: begin -->", "<!-- exafsd-train oracle: end -->"
#: Packages that decide the numbers.
PACKAGES = ("xraylarch", "larixite", "lmfit", "numpy", "scipy")

console = Console(stderr=True)


@dataclass(frozen=True)
class Material:
    """A model's parametrisation and the FEFF run behind it."""

    config: ModelConfig
    parametrisation: Parametrisation
    feff: Path


def prepare(config: ModelConfig, feff: Path) -> Material:
    """Run FEFF below `feff`, or find its run there, and group its shells."""
    folder = run_feff(config.crystal(), config.absorber, config.edge, feff)
    parametrisation = parametrise(config.phase, read_paths(folder), config.fit, config.priors)
    return Material(config, parametrisation, folder)


def read_spectrum(measured: Measured, data: Path) -> tuple[Chi, float | None]:
    """chi(k) of a measured spectrum, by Larch where it is mu(E), and its E0 in eV."""
    if measured.kind == "chi_k2":
        return read_chi_k2(data / measured.file), None
    reduced = reduce_file(data / measured.file, Recipe(), engine="larch")
    return reduced, reduced.e0


def table(data: Path, feff: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Fit every measured spectrum of the models named, one entry after the other.

    Parameters
    ----------
    data
        Folder with the measured spectra.
    feff
        Folder with FEFF runs, filled where they are missing.
    names
        Of models that ship.
    """
    for name in names:
        config = configurations.load(name)
        if not config.measured:
            continue
        material = prepare(config, feff)
        for measured in config.measured:
            yield fit_entry(material, measured, data)


def fit_entry(material: Material, measured: Measured, data: Path) -> dict[str, Any]:
    """One spectrum's entry; ``skipped`` says why there is no fit."""
    config = material.config
    spectrum, e0 = read_spectrum(measured, data)
    entry: dict[str, Any] = {
        "model": config.name,
        "spectrum": measured.file,
        "sha256": file_sha256(data / measured.file),
        "kind": measured.kind,
        "sample": measured.sample,
        "e0": _rounded(e0),
        "k_end": round(spectrum.k_data[1], 3),
    }
    if reason := too_short(spectrum, material.parametrisation, config.fit):
        return entry | {"skipped": reason}
    first_shell, whole = (
        feffit_reference(spectrum, material.parametrisation, material.feff, config.fit, whole=whole)
        for whole in (False, True)
    )
    whole = {"values": _values(whole), "r_factor": _rounded(whole.r_factor)}
    return entry | _fit(first_shell, material) | {"whole": whole}


def too_short(spectrum: Chi, parametrisation: Parametrisation, window: FitWindow) -> str | None:
    """Why a spectrum allows no reference fit: too few points for the variables; else None."""
    low, high = fit_window(window, spectrum.k_data[1]).k
    points = 1 + 2 * (high - low) * (window.r[1] - window.r[0]) / np.pi
    variables = 2 + 2 * len(parametrisation.fitted)
    if points - variables >= 1:
        return None
    return (
        f"data end at {spectrum.k_data[1]:.1f} 1/angstrom: {max(points, 0.0):.1f} independent"
        f" points for {variables} variables"
    )


def _values(fit: FeffitResult) -> dict[str, dict[str, float | None]]:
    return {
        id_: {"value": _rounded(value), "stderr": _rounded(fit.stderr[id_])}
        for id_, value in fit.value.items()
    }


def _fit(fit: FeffitResult, material: Material) -> dict[str, Any]:
    par, window = material.parametrisation, material.config.fit
    return {
        "window": {
            "k": [round(k, 3) for k in fit.k], "r": list(window.r), "kweight": window.kweight,
            "window": window.window, "dk": window.dk,
        },
        "values": _values(fit),
        "r_factor": _rounded(fit.r_factor),
        "n_idp": _rounded(fit.n_idp),
        "n_var": fit.n_var,
        "correlation": {pair: _rounded(value) for pair, value in fit.correlation.items()},
        "shells": [
            {
                "shell": number, "scatterer": par.shells[number - 1].scatterer,
                "degeneracy": par.shells[number - 1].degeneracy,
                "r_eff": round(par.shells[number - 1].reff, 5),
                "paths": [
                    {
                        "file": par.table.paths[i].file, "reff": par.table.paths[i].reff,
                        "degeneracy": par.table.paths[i].degeneracy,
                    }
                    for i in places
                ],
            }
            for number, places in fit.paths.items()
        ],
    }  # fmt: skip


def document(fits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole table, with everything that decides its numbers."""
    models = {name: configurations.load(name) for name in sorted({fit["model"] for fit in fits})}
    return {
        "schema": SCHEMA,
        "command": f"exafsd-train oracle --data DATA --feff FEFF --out {TABLE.name}",
        "software": {name: importlib.metadata.version(name) for name in PACKAGES},
        "recipe": Recipe().model_dump(),
        "models": {
            name: {
                "structure": (crystal := config.crystal()).source,
                "cif_sha256": crystal.cif_sha256,
                "site": config.structure.site,
                "absorber": config.absorber,
                "edge": config.edge,
            }
            for name, config in models.items()
        },
        "fits": list(fits),
    }


def largest_difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Largest relative difference between two tables' fits; infinite if not alike."""

    def walk(a: Any, b: Any) -> float:
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            return max((walk(a[key], b[key]) for key in a), default=0.0)
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            return max((walk(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
        if isinstance(a, float) and isinstance(b, float):
            return abs(a - b) / max(abs(a), abs(b), 1e-12)
        return 0.0 if a == b else float("inf")

    return walk(one["fits"], two["fits"])


def make(data: Path, feff: Path, out: Path, page: Path | None, check: bool) -> bool:
    """Fit everything; write the table and the page, or compare with the table that is there.

    Returns
    -------
    bool
        Whether a comparison found the same numbers; true where nothing was compared.
    """
    fits = []
    for entry in table(data, feff, configurations.names()):
        fits.append(entry)
        said = entry.get("skipped") or f"R-factor {entry['r_factor']:.4f}"
        console.print(f"{entry['model']}  {Path(entry['spectrum']).name}  {said}")
    entries = document(fits)
    if check:
        difference = largest_difference(entries, json.loads(out.read_text()))
        console.print(f"largest relative difference from {out.name}: {difference:.1e}")
        return difference <= SAME
    # one key a line, so that a change shows as one
    out.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    if page:
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{markdown(entries)}\n{END}{after}")
    return True


def _rounded(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def markdown(document_: dict[str, Any]) -> str:
    """The table for people, one section a model."""
    lines = []
    for name, model in document_["models"].items():
        fits = [fit for fit in document_["fits"] if fit["model"] == name]
        lines += [f"### {name}", "", _about(name, model, fits), ""]
        for fit in fits:
            lines += _section(fit)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _about(name: str, model: dict[str, Any], fits: Sequence[dict[str, Any]]) -> str:
    window = configurations.load(name).fit
    text = (
        f"{model['absorber']} {model['edge']}, {model['structure']}, R {window.r[0]:g} to"
        f" {window.r[1]:g} Å."
    )
    shells = next((fit["shells"] for fit in fits if "shells" in fit), [])
    inside = ", ".join(
        f"{s['shell']}: {s['degeneracy']:g} {s['scatterer']} at {s['r_eff']:.4f} Å" for s in shells
    )
    return f"{text} Shells: {inside}." if inside else text


def _section(fit: dict[str, Any]) -> list[str]:
    file = Path(fit["spectrum"]).name
    head = f"`{file}` ({fit['sample']})"
    if "skipped" in fit:
        return [f"{head}: no fit, {fit['skipped']}.", ""]
    k = fit["window"]["k"]
    head += f", k {k[0]:g} to {k[1]:.2f} 1/Å, {fit['n_var']} variables in {fit['n_idp']:.1f} points"
    columns = ["fit", "R-factor", "shell", "N·S0²/N", "E0 (eV)", "R (Å)", "σ² (Å²)"]
    rows = [head, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, entry in (("reference", fit), ("whole", fit["whole"])):
        values = entry["values"]
        for i, shell in enumerate(fit["shells"]):
            n = shell["shell"]
            r, sigma2 = _shown(values[f"{n}/r"], 4), _shown(values[f"{n}/sigma2"], 5)
            amplitude = e0 = said = ""
            if i == 0:
                said = f"{name} | {entry['r_factor']:.4f}"
                amplitude = _shown(values[f"{n}/n_s02"], 3, shell["degeneracy"])
                e0 = _shown(values["e0_shift"], 2)
            rows.append(f"| {said or ' | '} | {n} | {amplitude} | {e0} | {r} | {sigma2} |")
    return [*rows, ""]


def _shown(number: dict[str, float | None], digits: int, scale: float = 1.0) -> str:
    value, stderr = number["value"], number["stderr"]
    assert value is not None  # only an error bar can be missing, where a value is on its bound
    bar = "no error bar" if stderr is None else f"{stderr / scale:.{digits}f}"
    return f"{value / scale:.{digits}f} ± {bar}" if stderr is not None else f"{value:g} ({bar})"
