"""From a crystal structure to a checked FEFF8L run, cached by what went into it."""

import gc
import hashlib
import json
import re
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

#: Larger clusters only add paths that no fit window reaches, angstrom.
CLUSTER_SIZE = 8.0
#: No two atoms of a sound structure are nearer than this, angstrom.
SHORTEST_BOND = 1.2


class StructureError(ValueError):
    """A structure that cannot be trained on, with the reason."""


@dataclass(frozen=True)
class Crystal:
    """A crystal structure and where it comes from."""

    formula: str
    source: str
    cif: str
    space_group: str | None
    absorber_site: int = 1

    @property
    def cif_sha256(self) -> str:
        """SHA-256 of the CIF text."""
        return hashlib.sha256(self.cif.encode()).hexdigest()


def from_amcsd(ams_id: int) -> Crystal:
    """Structure of the American Mineralogist database that ships inside larixite."""
    from larixite import get_amcsd

    entry = get_amcsd().get_cif(ams_id)
    if entry is None:
        raise StructureError(f"AMCSD has no entry {ams_id}")
    return _crystal(entry.ciftext, f"AMCSD {ams_id}")


def from_cif(path: Path) -> Crystal:
    """Structure of a CIF file."""
    return _crystal(path.read_text(), path.name)


def _crystal(cif: str, source: str) -> Crystal:
    def item(key: str) -> str | None:
        found = re.search(rf"^{key}\s+(.+)$", cif, re.MULTILINE)
        return found.group(1).strip().strip("'\"") if found else None

    space_group = item("_symmetry_space_group_name_H-M") or item("_space_group_name_H-M_alt")
    return Crystal(item("_chemical_formula_sum") or source, source, cif, space_group)


def feff_input(crystal: Crystal, absorber: str, edge: str) -> str:
    """Text of ``feff.inp``, without the comments that carry dates and versions."""
    from larixite import cif2feffinp

    with warnings.catch_warnings():
        # pymatgen warns about rounded fractional coordinates, which CIF files of AMCSD all have
        warnings.simplefilter("ignore")
        text = cif2feffinp(
            crystal.cif,
            absorber=absorber,
            edge=edge,
            cluster_size=CLUSTER_SIZE,
            absorber_site=crystal.absorber_site,
        )
    return "\n".join(line for line in text.splitlines() if not line.startswith("*")) + "\n"


def check_shells(text: str) -> list[tuple[float, int]]:
    """Distances (angstrom) and neighbours per shell of a ``feff.inp``, if they make sense.

    Raises
    ------
    StructureError
        If the absorber has no neighbours or two atoms coincide.
    """
    atoms = text.split("ATOMS", 1)[1].splitlines()
    rows = [line.split() for line in atoms if len(line.split()) >= 6]
    distances = sorted(float(row[5]) for row in rows)[1:]
    if not distances:
        raise StructureError("the absorber has no neighbours in the cluster")
    if distances[0] < SHORTEST_BOND:
        raise StructureError(
            f"the nearest neighbour is at {distances[0]:.2f} angstrom: an atom position in the"
            " structure is wrong, or two partly occupied sites overlap"
        )
    shells: list[tuple[float, int]] = []
    for distance in distances:
        if shells and distance - shells[-1][0] < 0.01:
            shells[-1] = (shells[-1][0], shells[-1][1] + 1)
        else:
            shells.append((distance, 1))
    return shells


def run_feff(crystal: Crystal, absorber: str, edge: str, work: Path) -> Path:
    """Run FEFF8L below `work`, or find the run of the same input there.

    Returns
    -------
    Path
        Folder with the ``feffNNNN.dat`` files.
    """
    from larch.xafs.feffrunner import feff8l

    text = feff_input(crystal, absorber, edge)
    check_shells(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = work / f"feff-{absorber}-{edge}-{digest}"
    done = folder / "crystal.json"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feff.inp").write_text(text)
    with warnings.catch_warnings():
        # Larch's runner leaves pipes and logs open: close them here, not in somebody's test
        warnings.simplefilter("ignore", ResourceWarning)
        feff8l(feffinp="feff.inp", folder=str(folder), verbose=False)
        gc.collect()
    if not list(folder.glob("feff0*.dat")):
        raise StructureError(f"FEFF8L produced no paths; its logs are in {folder}")
    done.write_text(json.dumps(asdict(crystal), indent=1))
    return folder
