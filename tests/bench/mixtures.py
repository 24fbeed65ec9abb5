"""What the shipped models say of mixtures, photon noise, a wrong energy and over-absorption.

``python tests/bench/mixtures.py DATA LARCH``: DATA is the folder with measured spectra, LARCH the
unpacked source of xraylarch 0.9.57, whose examples hold the others. Every spectrum goes through the
daemon's own pipeline; the tables of docs/explanation/trust.md are made so.
"""

import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import numpy as np
from larch import Group
from larch.io import read_athena
from larch.xafs import pre_edge

from exafsd.contract.frames import ARRAY_UNITS
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.reduction.reducer import Reducer
from exafsd.settings.analysis import Analysis, Inference, Reduction
from exafsd.spectra import Edge, Run, Sweep
from exafsd_training.reference.feffit import read_mu

SHARE, COUNTS, COPIES, OFF = 0.3, (1e8, 1e7, 1e6), 20, 15.0
#: What else absorbs, relative to the edge step: thick samples in fluorescence keep A / (A + 1).
ABSORBS = (4.0, 2.0, 1.0)
FLAGS = ("poor_fit", "edge_shape", "edge_moved", "noisy_end")
EDGES = {"Cu": "K", "Fe": "K", "Pt": "L3", "Cd": "K", "Zn": "K"}
# model: its own spectra in DATA/xas, in LARCH's folder of columns, and in Athena projects
GOOD = {
    "cu-k-fcc": [
        "Cu/cu_metal_rt.xdi", "Cu/Cu_Foil_rt_2016Foils.xdi", "cu_10k.xmu", "cu_50k.xmu",
        "cu_150k.xmu", "cu_rt01.xmu", "athena4.prj:cufoil_001",
    ],
    "cu-k-cu2o": ["athena4.prj:cu_cuprite_001"],
    "cu-k-cuo": ["athena4.prj:cu_tenorite_001"],
    "fe-k-bcc": [
        "Fe/Fe_Foil_rt_2016Foils.xdi", "Fe/Fe_metal_rt_01.xdi", "Fe/Fe_metal_rt_02.xdi",
        *(f"stacked_plot.prj:Fe_{kelvin}" for kelvin in (60, 150, 300)),
        "FeFoil_QXAFS_Compare.prj:Fe_foil_500msec_stepscan_001",
    ],
    "pt-l3-fcc": ["Pt/pt_metal_rt.xdi", "PtData.prj:d_20wt_300K", "PtData.prj:d_10wt_300K"],
    "cd-k-cds": ["Cd/CdS_10K_01.xdi", "Cd/CdS_10K_02.xdi", "Cd.prj:CdS"],
    "zn-k-zns": [
        "Zn/Chorover13BM_Zn_sphalerite_rt_01.xdi",
        *(f"Zn/Chorover13BM_ZnS_aldrich_rt_0{scan}.xdi" for scan in (1, 2, 3)),
    ],
    "zn-k-zno": ["Zn/ZnO.xdi"],
}  # fmt: skip
OTHERS = {
    "Cu": [
        "Cu/Cu2S_13K_01.xdi",
        *(f"cuybco.prj:cuybco_{scan}" for scan in (
            "010", "011", "012", "100", "101", "102", "200", "201", "202", "303", "304", "305")),
        *(f"athena4.prj:{name}" for name in (
            "cu2s_cu_xafs_001", "cu_azurite_001", "cu_cuprite_001", "cu_tenorite_001",
            "cucl2_5h2o_cu_xafs_001", "cus_cu_xafs_001", "cusulfate_cu_xafs_001", "cufoil_001")),
    ],
    "Fe": [
        "Fe/FeS2_rt_01.xdi", "Fe/FeO_rt_01.xdi", "Fe/Fe3O4_rt_01.xdi", "Fe/Fe2O3_rt_01.xdi",
        *(f"Fe.prj:{n}" for n in ("Hematite", "Goerthite", "Ferrihydrite", "Lepidocrocite")),
        "FeO.prj:FeO", "Fe-K-ALS-10.3.2.prj:Olivine_Fo80", "FeS2.prj:fes2_rt01_mar02_xmu",
        "FeS2_ex.prj:FeS2", "fbo.prj:febaa_300",
        *(f"ESRF_Athena0920.prj:endmember_{name}" for name in ("FeO6", "FeCl4")),
        *(f"athena2.prj:fe_xafs_{name}" for name in (
            "feo_006", "fe2o3_006", "fe2o3_010", "fen_006", "feso4_005")),
    ],
    "Zn": [
        "Zn/ZnO.xdi",
        *(f"zn_solution.prj:{name}" for name in (
            "fmtf", "jjlv", "mmty", "tjvt", "ytzy", "oycb", "qbrk", "mqhu", "hroa")),
        *(f"Zn/Chorover13BM_{name}_rt_01.xdi" for name in (
            "Znfoil", "ZnC2O4", "Zn_hopeite", "Zn_smithsonite", "Zn_sphalerite")),
    ],
    "Cd": [f"Cd.prj:{name}" for name in ("CdCO3", "CdSO4", "Cd_OH_2", "Cd_foil", "CdNO3")],
    "Pt": [],
}  # fmt: skip
# not looked at until all limits, of poor_fit and of edge_shape, had been chosen
LATER = {
    "Cu": ["cu_romanglass.xdi"],
    "Fe": ["fe3c_rt.xdi", *(f"align_merge.prj:Fe_Ga_alloy_scan_{scan}" for scan in (1, 2, 3))],
    "Zn": [
        *(f"Zn/Chorover13BM_{name}_rt_0{scan}.xdi" for scan in (2, 3) for name in (
            "ZnC2O4", "Zn_hopeite", "Zn_smithsonite")),
        "znse_zn_xafs.001",
    ],
}  # fmt: skip
# what of OTHERS is the model's own material
OWN = {
    "cu-k-fcc": "cufoil", "cu-k-cu2o": "cuprite", "cu-k-cuo": "tenorite", "zn-k-zns": "sphalerite",
    "zn-k-zno": "ZnO.xdi",
}  # fmt: skip


def read(name, data, larch):
    """Energy in eV and mu."""
    folder = larch / "examples/xafsdata"
    if name.endswith(".xdi"):
        return read_mu((data / "xas" if "/" in name else folder) / name)
    if name.endswith(".xmu"):
        energy, mu = np.loadtxt(folder / name, comments="#", usecols=(0, 1), unpack=True)
    elif name.endswith(".001"):
        energy, _, i0, it = np.loadtxt(folder / name, comments=[";", "#"], unpack=True)
        mu = np.log(i0 / it)
    else:
        project, group = name.split(":")
        spectrum = getattr(read_athena(str(folder / "AthenaProjectFiles" / project)), group)
        energy, mu = spectrum.energy, spectrum.mu
    energy, first = np.unique(energy, return_index=True)
    return energy, mu[first]


def steps(energy, mu):
    """mu with an edge step of 1."""
    group = Group()
    pre_edge(energy, mu, group=group)
    return group.norm


def counted(rng, mu, counts=None):
    """mu with a range of 1, and photon noise."""
    mu = (mu - mu.min()) / np.ptp(mu) + 0.5
    return mu if counts is None else mu + np.sqrt((1 + np.exp(mu)) / counts) * rng.normal(
        size=len(mu)
    )  # fmt: skip


def states(pipe, element, spectra, model=None):
    """How each of the (energy, mu) came out: read, withheld, or the flags that matter."""
    how = Analysis(
        reduction=Reduction(channels=("transmission",)), inference=Inference(model=model)
    )
    jobs = []
    for energy, mu in spectra:
        # a run of its own each: the first spectrum of a run decides its E0
        run = Run(uid=str(uuid4()), edges=(Edge(element, EDGES[element]),), analysis=how)
        signals = {"i0": np.full(len(energy), 1e8), "it": 1e8 * np.exp(-mu)}
        jobs.append(Sweep(run, "primary", 1, energy, signals))
    answers = []
    for (outcome,) in pipe.process_many(jobs):
        message = outcome.message
        flags = [f for f in getattr(message, "quality", ()) if f in FLAGS]
        has_shells = getattr(message, "shells", None) is not None
        answers.append((",".join(flags) or "read") if has_shells else "withheld")
    return answers


def main(data, larch):
    bundles = [load_bundle(folder) for folder in sorted(shipped_folder().iterdir())]
    models = Registry({bundle.card.name: bundle for bundle in bundles})
    pipe = Pipeline(models, tuple(ARRAY_UNITS), Reducer())
    rng = np.random.default_rng(5)
    noisy, moved = {counts: Counter() for counts in COUNTS}, Counter()
    thick = {absorbs: Counter() for absorbs in ABSORBS}
    for model, names in GOOD.items():
        element = model.split("-")[0].capitalize()
        mixed, later = Counter(), Counter()
        for name in names:
            energy, mu = read(name, data, larch)
            off = [(energy + shift, counted(rng, mu)) for shift in (-OFF, OFF)]
            moved.update(states(pipe, element, off))
            step = np.maximum(steps(energy, mu), 0.0)
            for a in ABSORBS:
                damped = counted(rng, step * (1 + a) / (step + a))
                thick[a].update(states(pipe, element, [(energy, damped)], model))
            for counts in COUNTS if name.endswith(".xdi") else ():
                copies = [(energy, counted(rng, mu, counts)) for _ in range(COPIES)]
                noisy[counts].update(states(pipe, element, copies))
            for other in (*OTHERS[element], *LATER.get(element, ())):
                if other == name or OWN.get(model, "nothing") in other:
                    continue
                theirs, other_mu = read(other, data, larch)
                both = (energy >= theirs[0]) & (energy <= theirs[-1])
                if energy[both][-1] - energy[0] < 400:
                    continue
                mix = (1 - SHARE) * steps(energy, mu)[both]
                mix = mix + SHARE * np.interp(energy[both], theirs, steps(theirs, other_mu))
                tried = [(energy[both], counted(rng, mix, c)) for c in (None, 1e7, 1e7)]
                count = mixed if other in OTHERS[element] else later
                count.update(states(pipe, element, tried, model))
        print(f"{SHARE:.0%} of others, {model}: {dict(mixed)}; later {dict(later)}", flush=True)
    for counts, tally in noisy.items():
        print(f"{counts:.0e} photons: {dict(tally)}")
    for a, tally in thick.items():
        print(f"over-absorbed to {a / (a + 1):.0%} of the amplitude: {dict(tally)}")
    print(f"{OFF:g} eV off: {dict(moved)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
