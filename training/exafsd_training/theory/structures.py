"""From a crystal structure to checked FEFF8L runs, cached by what went into them."""

import gc
import hashlib
import itertools
import json
import multiprocessing
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Larger clusters only add paths that no fit window reaches, angstrom.
CLUSTER_SIZE = 8.0
#: Share of the sum of two covalent radii (Cordero 2008) below which no bond is. The shortest
#: bonds there are, uranyl and vanadyl, come to 0.68 and 0.72.
SHORTEST_BOND = 0.6
#: Distances in a first shell of ligands that differ by more deserve a second look, angstrom:
#: the odd zincite and greenockite of Wyckoff's book differ by 0.25 and 0.09.
SPLIT_SHELL = 0.08
#: A ligand farther than this beyond the nearest belongs to another shell, angstrom.
FIRST_SHELL = 0.5
#: Site number that stands for the average of all sites of the absorber.
ALL_SITES = 0
#: Decides which element larixite puts where several share a site.
MIXED_SITE_SEED = 1
#: Record of a finished run: the crystal, and the share of each site.
RECORD = "crystal.json"


class StructureError(ValueError):
    """A structure that cannot be trained on, with the reason."""


class StructureWarning(Warning):
    """Something about a structure that a person should look at.

    Not a UserWarning: importing larixite silences all of those.
    """


@dataclass(frozen=True)
class Crystal:
    """A crystal structure and where it comes from.

    `absorber_site` counts the crystallographic sites of the absorber from 1, in the order of the
    CIF; `ALL_SITES` averages over all of them by multiplicity.
    """

    formula: str
    source: str
    cif: str
    space_group: str | None
    absorber_site: int = 1

    @property
    def cif_sha256(self) -> str:
        """SHA-256 of the CIF text."""
        return hashlib.sha256(self.cif.encode()).hexdigest()


@dataclass(frozen=True)
class FeffSetup:
    """Approximations of a FEFF run, by their numbers in FEFF's manual.

    `exchange` is FEFF's exchange-correlation potential: 0 Hedin-Lundqvist, 1 Dirac-Hara.
    `scf_radius` is that of the cluster whose potentials are made self-consistent, angstrom; None
    for overlapped atomic potentials. Without `core_hole` the absorber is in its ground state.
    `criteria` are the importances in per cent of the strongest path, with curved and with plane
    waves, below which a path is left out; None for FEFF's own, 4 and 2.5.
    """

    exchange: int = 0
    scf_radius: float | None = None
    core_hole: bool = True
    criteria: tuple[float, float] | None = None

    def cards(self) -> str:
        """Lines of ``feff.inp``."""
        lines = [f"EXCHANGE  {self.exchange}     0.0  0.0"]
        if self.scf_radius is not None:
            lines.append(f"SCF  {self.scf_radius:.2f}")
        if not self.core_hole:
            lines.append("NOHOLE")
        if self.criteria:
            lines.append("CRITERIA  {:.2f}  {:.2f}".format(*self.criteria))
        return "\n".join(lines)


#: What larixite writes, and every model is trained with.
STANDARD = FeffSetup()


@dataclass(frozen=True)
class Site:
    """A crystallographic site of the absorber."""

    #: number among all sites of the structure, as larixite counts them
    index: int
    #: atoms in the conventional cell
    multiplicity: int
    wyckoff: str
    #: share of the site that is the absorber
    occupancy: float


def from_amcsd(ams_id: int, site: int = 1) -> Crystal:
    """Structure of the American Mineralogist database that ships inside larixite.

    That file itself is opened, for reading: `larixite.get_amcsd` looks for a larger one on the
    internet first, and alters the file at its first use, which two processes cannot do at once.
    """
    from larixite.amcsd import AMCSD

    entry = AMCSD(read_only=True).get_cif(ams_id)
    if entry is None:
        raise StructureError(f"AMCSD has no entry {ams_id}")
    return _crystal(entry.ciftext, f"AMCSD {ams_id}", site)


def from_cif(path: Path, site: int = 1) -> Crystal:
    """Structure of a CIF file."""
    return _crystal(path.read_text(), path.name, site)


def _crystal(cif: str, source: str, site: int) -> Crystal:
    def item(key: str) -> str | None:
        line = re.search(rf"^{key}\s+(.+)$", cif, re.MULTILINE)
        return line.group(1).strip().strip("'\"") if line else None

    space_group = item("_symmetry_space_group_name_H-M") or item("_space_group_name_H-M_alt")
    return Crystal(item("_chemical_formula_sum") or source, source, cif, space_group, site)


def model_name(crystal: Crystal, absorber: str, edge: str) -> str:
    """Name of a model that nobody named: absorber, edge and formula, for example au-l3-au."""
    formula = re.sub("[^a-z0-9]", "", crystal.formula.lower())
    return f"{absorber}-{edge}-{formula}".lower()


def absorber_sites(crystal: Crystal, absorber: str) -> tuple[Site, ...]:
    """Crystallographic sites of the absorber.

    Raises
    ------
    StructureError
        If the structure does not contain the absorber, or cannot be read.
    """
    from larixite.cif_cluster import CIF_Cluster

    with warnings.catch_warnings():
        # pymatgen warns about rounded fractional coordinates, which CIF files of AMCSD all have
        warnings.simplefilter("ignore")
        try:
            cluster = CIF_Cluster(ciftext=crystal.cif, absorber=absorber)
        except ValueError as error:
            raise StructureError(f"{crystal.source}: {error}") from error
    if absorber not in cluster.atom_sites:
        raise StructureError(
            f"{crystal.source} has no {absorber}, only {', '.join(cluster.atom_sites)}"
        )
    sites = []
    for index in cluster.atom_sites[absorber]:
        site, multiplicity, wyckoff = cluster.unique_sites[index - 1]
        share = sum(part for kind, part in site.species.items() if kind.symbol == absorber)
        sites.append(Site(index, multiplicity, wyckoff, float(share)))
    return tuple(sites)


def chosen_sites(crystal: Crystal, absorber: str) -> tuple[tuple[Site, float], ...]:
    """Sites to calculate, with the share of each; the shares add up to 1."""
    sites = absorber_sites(crystal, absorber)
    if crystal.absorber_site == ALL_SITES:
        atoms = [site.multiplicity * site.occupancy for site in sites]
        return tuple((s, n / sum(atoms)) for s, n in zip(sites, atoms, strict=True))
    if not 1 <= crystal.absorber_site <= len(sites):
        raise StructureError(
            f"{crystal.source} has {len(sites)} sites of {absorber}, not {crystal.absorber_site};"
            f" site {ALL_SITES} averages over them"
        )
    return ((sites[crystal.absorber_site - 1], 1.0),)


def check(crystal: Crystal, absorber: str) -> None:
    """Refuse what cannot be, and warn of what is odd.

    Raises
    ------
    StructureError
        No absorber, no such site, or atoms nearer than any bond.

    Warns
    -----
    StructureWarning
        Sites that are partly occupied or shared, several sites of which one is taken, a first
        shell of ligands with uneven distances.
    """
    sites = absorber_sites(crystal, absorber)
    chosen = chosen_sites(crystal, absorber)
    structure = _structure(crystal)
    _check_distances(crystal, structure)
    said = []
    partial = sorted({site.species_string for site in structure if not site.is_ordered})
    if partial:
        said.append(
            f"partly occupied or shared sites ({'; '.join(partial)}): FEFF sees every site filled,"
            " a shared one with atoms drawn at random"
        )
    if len(sites) > 1 and len(chosen) == 1:
        said.append(
            f"{absorber} has {len(sites)} sites of"
            f" {', '.join(str(site.multiplicity) for site in sites)} atoms; only number"
            f" {crystal.absorber_site} is taken (site {ALL_SITES} averages over all)"
        )
    said += _split_shells(structure, absorber)
    for sentence in said:
        warnings.warn(f"{crystal.source}: {sentence}", StructureWarning, stacklevel=2)


def _structure(crystal: Crystal) -> "Structure":
    from larixite.cif_cluster import read_cif_structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_cif_structure(crystal.cif)


def _check_distances(crystal: Crystal, structure: "Structure") -> None:
    """Compare every distance below 3 angstrom with the covalent radii."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius

    radii = CovalentRadius.radius
    for site in structure:
        for other in structure.get_neighbors(site, 3.0):
            for a, b in itertools.product(site.species, other.species):
                shortest = SHORTEST_BOND * (radii.get(a.symbol, 1.5) + radii.get(b.symbol, 1.5))
                if other.nn_distance < shortest:
                    raise StructureError(
                        f"{crystal.source}: {a.symbol} and {b.symbol} are"
                        f" {other.nn_distance:.2f} angstrom apart, no bond is below"
                        f" {shortest:.2f}: an atom position is wrong, or two partly occupied"
                        " sites overlap"
                    )


def _split_shells(structure: "Structure", absorber: str) -> list[str]:
    said = []
    for site in structure:
        if absorber not in [kind.symbol for kind in site.species]:
            continue
        around = sorted(structure.get_neighbors(site, 3.5), key=lambda other: other.nn_distance)
        if not around or around[0].species == site.species:
            continue  # a metal: bcc has two distances and nothing odd about it
        first = [other.nn_distance for other in around if other.species == around[0].species]
        first = [distance for distance in first if distance < first[0] + FIRST_SHELL]
        if first[-1] - first[0] > SPLIT_SHELL:
            said.append(
                f"the nearest {around[0].species_string} are at {first[0]:.3f} to {first[-1]:.3f}"
                " angstrom: real where Jahn-Teller or lone pairs distort, else a wrong coordinate"
            )
    return sorted(set(said))


def feff_input(
    crystal: Crystal,
    absorber: str,
    edge: str,
    site: Site | None = None,
    setup: FeffSetup = STANDARD,
) -> str:
    """Text of ``feff.inp``, without the comments that carry dates and versions.

    Parameters
    ----------
    crystal, absorber, edge
        What to calculate.
    site
        Site of the absorber; by default the first that the crystal chooses.
    setup
        Approximations of the calculation.
    """
    from larixite import cif2feffinp

    site = site or chosen_sites(crystal, absorber)[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = cif2feffinp(
            crystal.cif,
            absorber=absorber,
            edge=edge,
            cluster_size=CLUSTER_SIZE,
            absorber_site=site.index,
            rng_seed=MIXED_SITE_SEED,
        )
    lines = [line for line in text.splitlines() if not line.startswith("*")]
    if STANDARD.cards() not in lines:
        raise StructureError(f"{crystal.source}: larixite's FEFF input has no {STANDARD.cards()!r}")
    lines[lines.index(STANDARD.cards())] = setup.cards()
    return "\n".join(lines) + "\n"


def run_feff(
    crystal: Crystal, absorber: str, edge: str, work: Path, setup: FeffSetup = STANDARD
) -> Path:
    """Run FEFF8L below `work`, or find the run of the same input there.

    Returns
    -------
    Path
        Folder with the ``feffNNNN.dat`` files; where sites are averaged, in a folder for each.
    """
    check(crystal, absorber)
    sites = chosen_sites(crystal, absorber)
    texts = [feff_input(crystal, absorber, edge, site, setup) for site, _ in sites]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
    folder = work / f"feff-{absorber}-{edge}-{digest}"
    if (folder / RECORD).exists():
        return folder
    parts = [folder / f"site{i}" for i in range(1, len(sites) + 1)] if len(sites) > 1 else [folder]
    for part, text in zip(parts, texts, strict=True):
        _run(part, text)
    shares = {part.name: share for part, (_, share) in zip(parts, sites, strict=True)}
    record = asdict(crystal) | {"shares": shares if len(sites) > 1 else {}}
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    return folder


@contextmanager
def running_ahead(
    runs: Sequence[tuple[Crystal, str, str, FeffSetup]], work: Path
) -> Iterator[Callable[[], None]]:
    """Do FEFF runs in another process; the function that is given waits until they are done.

    After it, `run_feff` finds them. What fails there fails again where the run is asked for.
    """
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_all, args=(runs, work), daemon=True)
    process.start()
    try:
        yield process.join
    finally:
        process.terminate()
        process.join()


def _run_all(runs: Sequence[tuple[Crystal, str, str, FeffSetup]], work: Path) -> None:
    warnings.simplefilter("ignore")
    for crystal, absorber, edge, setup in runs:
        with suppress(StructureError):
            run_feff(crystal, absorber, edge, work, setup)


def _run(folder: Path, text: str) -> None:
    from larch.xafs.feffrunner import feff8l

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feff.inp").write_text(text)
    with warnings.catch_warnings():
        # Larch's runner leaves pipes and logs open: close them here, not in somebody's test
        warnings.simplefilter("ignore", ResourceWarning)
        # where FEFF stops it prints bytes of its memory that are no text
        with suppress(UnicodeDecodeError):
            feff8l(feffinp="feff.inp", folder=str(folder), verbose=False)
        gc.collect()
    if not list(folder.glob("feff0*.dat")):
        raise StructureError(f"FEFF8L produced no paths; its logs are in {folder}")
