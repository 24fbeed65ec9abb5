"""Model bundles: found, checked and refused with a reason, chosen by element and edge."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from exafsd.contract.card import CARD_FILE, EQUATION_FILE, PINN_FILE, REFINEMENT_FILE, Card
from exafsd.inference.predictor import Equation, Predictor, Waves
from exafsd.inference.readout import Readout
from exafsd.logs import get_logger
from exafsd.spectra import Edge

log = get_logger(__name__)
#: In every graph that keeps weights in another file, whatever tensor they belong to: the key under
#: which onnxruntime looks up which file, after its length as protobuf writes it, 8, or 8 with zeros
#: after it. (Given a graph as bytes, onnxruntime would look for the file in the current folder.)
OUTSIDE = (b"\x08location", b"\x00location")


class BundleError(ValueError):
    """A bundle that must not be used; the text says which and why."""


@dataclass(frozen=True)
class Bundle:
    """A checked model: its card and its running graphs."""

    folder: Path
    card: Card
    #: None where there is no network: spectra are read by fitting
    predictor: Predictor | None
    equation: Equation
    #: None in an older bundle
    waves: Waves | None = None


def shipped_folder() -> Path:
    """Folder of the bundles that come with exafsd."""
    return Path(str(files("exafsd") / "models"))


def read_card(folder: Path) -> Card:
    """Card of a bundle, its files checked, see `read_bundle`."""
    return read_bundle(folder)[0]


def read_bundle(folder: Path) -> tuple[Card, dict[str, bytes]]:
    """Card of a bundle, and its graphs, each read once: what runs is what was checked.

    Raises
    ------
    BundleError
        If the card is missing or invalid, or a graph is missing, differs from its hash, or has
        weights in another file, of which there is no hash.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise BundleError(f"{folder} has no {CARD_FILE}: it is not a model bundle")
    try:
        card = Card.model_validate_json(path.read_text())
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not a valid card: {error}") from None
    graphs: dict[str, bytes] = {}
    for name in card.sha256:
        graph = folder / name
        if not graph.is_file():
            raise BundleError(f"{folder}: {name} is missing")
        graphs[name] = graph.read_bytes()
        if hashlib.sha256(graphs[name]).hexdigest() != card.sha256[name]:
            raise BundleError(
                f"{graph} does not have the SHA-256 of its card: it was changed or damaged;"
                " export the bundle again"
            )
        if any(key in graphs[name] for key in OUTSIDE):
            raise BundleError(
                f"{graph} has weights in another file (ONNX external data), which the SHA-256 of"
                " its card does not cover: save it with its weights inside, and write the card anew"
            )
    return card, graphs


def load_bundle(folder: Path, later: bool = False) -> Bundle:
    """Read, check and start a bundle.

    Parameters
    ----------
    folder
        Of the bundle.
    later
        Whether graphs of a bundle without a network are started by the first spectrum: dozens of
        these ship, and few are used.

    Raises
    ------
    BundleError
        If it must not be used.
    """
    card, graphs = read_bundle(folder)
    name = PINN_FILE
    try:
        predictor = Predictor(graphs[name], card) if name in graphs else None
        later = later and predictor is None
        name = EQUATION_FILE
        equation = Equation(graphs[name], card, later)
        name = REFINEMENT_FILE
        waves = Waves(graphs[name], card, later) if name in graphs else None
        Readout(card)
    except Exception as error:  # onnxruntime raises its own kinds on bad graphs
        raise BundleError(f"{folder / name} cannot be run: {error}") from None
    return Bundle(folder, card, predictor, equation, waves)


def bundle_folders(roots: Iterable[Path]) -> list[Path]:
    """Folders that look like bundles: each root itself, or the folders below it."""
    folders: list[Path] = []
    for root in roots:
        if (root / CARD_FILE).is_file() or not root.is_dir():
            folders.append(root)
        else:
            folders += sorted(f for f in root.iterdir() if f.is_dir() and f.name[0] not in "._")
    return folders


@dataclass
class Registry:
    """Bundles by name, and why others were refused."""

    bundles: dict[str, Bundle] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, roots: Iterable[Path] = (), running: "Registry | None" = None) -> "Registry":
        """Load what is shipped and what is in `roots`; a later bundle of a name wins.

        Bundles that are `running` already are not loaded again.
        """
        registry = cls()
        started = {b.folder: b for b in running.bundles.values()} if running else {}
        for folder in bundle_folders([shipped_folder(), *roots]):
            try:
                bundle = started.get(folder) or load_bundle(
                    folder, later=folder.parent == shipped_folder()
                )
            except BundleError as error:
                registry.refused[folder.name] = str(error)
                log.error("model refused", folder=str(folder), detail=str(error))
            else:
                registry.bundles[bundle.card.name] = bundle
        return registry

    def of_folders(self, folders: Iterable[Path]) -> "Registry":
        """Those bundles that ship, or are in `folders`."""
        chosen = {*folders}
        return Registry(
            {
                name: bundle
                for name, bundle in self.bundles.items()
                if bundle.folder in chosen or bundle.folder.parent == shipped_folder()
            }
        )

    @property
    def sha256(self) -> str:
        """Hash of the set of models."""
        models = sorted((name, b.card.model_sha256) for name, b in self.bundles.items())
        return hashlib.sha256(repr(models).encode()).hexdigest()

    def candidates(
        self, edge: Edge, name: str | None = None, structure: str | None = None
    ) -> tuple[list[Bundle], str | None]:
        """Bundles that may read an edge, the latest loaded last; or none, and the reason."""
        if name is not None:
            return self._named(edge, name)
        fitting = [
            bundle
            for bundle in self.bundles.values()
            if (bundle.card.absorber, bundle.card.edge) == (edge.element, edge.edge)
        ]
        if not fitting:
            return [], f"no model for {edge.element} {edge.edge} is loaded{_suggestion(edge)}"
        if structure is None:
            return fitting, None
        holding = [
            bundle
            for bundle in fitting
            if any(structure in (s.phase, s.formula) for s in bundle.card.structures)
        ]
        if holding:
            return holding, None
        names = ", ".join(bundle.card.name for bundle in fitting)
        return [], f"the structure {structure!r} was asked for, but is in none of {names}"

    def _named(self, edge: Edge, name: str) -> tuple[list[Bundle], str | None]:
        bundle = self.bundles.get(name)
        if bundle is None:
            why = self.refused.get(name)
            have = ", ".join(self.bundles) or "none"
            text = f"it was refused: {why}" if why else f"loaded are: {have}"
            return [], f"the model {name!r} was asked for, but {text}"
        if (bundle.card.absorber, bundle.card.edge) != (edge.element, edge.edge):
            return [], (
                f"the model {name!r} is for {bundle.card.absorber} {bundle.card.edge},"
                f" the spectrum is {edge.element} {edge.edge}"
            )
        return [bundle], None


def _suggestion(edge: Edge) -> str:
    """Which crystals a model of an edge could be made of; nothing where none is known."""
    crystals = suggested_crystals().get(edge.element)
    if not crystals:
        return ""
    each = ", ".join(f"{formula} (--amcsd {number})" for formula, number in crystals)
    command = f"exafsd-export quick --absorber {edge.element} --edge {edge.edge}"
    return f"; {command} makes one of a crystal: {each}"


@lru_cache(maxsize=1)
def suggested_crystals() -> dict[str, list[tuple[str, int]]]:
    """Formula and number in the American Mineralogist database of simple crystals, by element."""
    return json.loads(Path(__file__).with_name("crystals.json").read_text())
