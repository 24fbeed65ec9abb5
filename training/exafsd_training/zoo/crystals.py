"""Crystals that bundles without a network are made of: one table of AMCSD numbers."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from exafsd_training.theory.structures import Crystal, from_amcsd
from exafsd_training.zoo.configurations import ModelConfig, load

TABLE = Path(__file__).parent / "by_fit" / "crystals.toml"
#: Configurations that are only judged by, since nothing of them is trained.
JUDGED = Path(__file__).parent / "by_fit" / "judged"


@dataclass(frozen=True)
class ZooCrystal:
    """One crystal at one edge; `site` 0 averages over all sites of the absorber."""

    name: str
    absorber: str
    edge: str
    amcsd: int
    site: int = 1

    def crystal(self) -> Crystal:
        """Its structure."""
        return from_amcsd(self.amcsd, self.site)


def judged(name: str) -> ModelConfig:
    """What a crystal is judged by: a configuration of its own, or that of a trained model.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    own = JUDGED / f"{name}.toml"
    return load(own if own.is_file() else name)


def zoo() -> dict[str, ZooCrystal]:
    """All by name, in the order of the table."""
    with TABLE.open("rb") as stream:
        groups = tomllib.load(stream)
    entries: dict[str, ZooCrystal] = {}
    for group in groups.values():
        for name, row in group.items():
            absorber, edge = row["edge"].split()
            entries[name] = ZooCrystal(name, absorber, edge, row["amcsd"], row.get("site", 1))
    return entries
