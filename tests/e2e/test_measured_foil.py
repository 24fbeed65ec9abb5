"""`exafsd analyze` on measured copper, beside a Larch feffit that this test does itself."""

import json

import numpy as np
import pytest
from larch import Group
from larch.fitting import param, param_group
from larch.io import read_xdi
from larch.xafs import autobk, feffit, feffit_dataset, feffit_transform, feffpath, pre_edge

from exafsd.testing.heating import feff_paths
from typed_commands import exafsd


def reference_fit(path, first_path):
    """The design's reference: k 3 to min(14, kmax - 0.5), R 1.4 to 3.0, kw 2, dk 2, hanning."""
    data = read_xdi(str(path))
    mu = data.mutrans if hasattr(data, "mutrans") else np.log(data.i0 / data.itrans)
    group = Group(energy=data.energy, mu=mu)
    pre_edge(group)
    autobk(group, rbkg=1.0, kweight=2)
    free = param_group(
        s02=param(0.9, vary=True),
        e0=param(3.0, vary=True),
        dr=param(0.0, vary=True),
        s2=param(0.006, vary=True, min=0),
    )
    window = feffit_transform(
        kmin=3, kmax=min(14, group.k[-1] - 0.5), kw=2, dk=2, window="hanning", rmin=1.4, rmax=3.0
    )
    one = feffpath(str(first_path), s02="s02", e0="e0", deltar="dr", sigma2="s2")
    fit = feffit(free, feffit_dataset(data=group, pathlist=[one], transform=window))
    best = {name: float(fit.params[name].value) for name in ("s02", "e0", "dr", "s2")}
    return {
        "r": one.reff + best["dr"],
        "sigma2": best["s2"],
        "n_s02": 12 * best["s02"],
        "e0_shift": best["e0"],
    }


@pytest.mark.measured
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Larch leaves files open
@pytest.mark.parametrize("name", ["cu_metal_rt.xdi", "Cu_Foil_rt_2016Foils.xdi"])
def test_first_shell_agrees_with_feffit(data, tmp_path, name):
    path = data / "xas" / "Cu" / name
    done = exafsd("analyze", path, "--json")
    (result,) = [json.loads(line) for line in done.stdout.splitlines()]
    expected = reference_fit(path, feff_paths(tmp_path)[0])
    shell = result["shells"][0]
    assert result["trust"]["in_domain"]
    assert shell["r"]["value"] == pytest.approx(expected["r"], abs=0.02)
    assert shell["sigma2"]["value"] == pytest.approx(expected["sigma2"], abs=0.002)
    assert shell["n_s02"]["value"] == pytest.approx(expected["n_s02"], rel=0.1)
    shift = result["phases"][0]["e0_shift"]["value"]
    assert shift == pytest.approx(expected["e0_shift"], abs=1.0)


# Files of elements that have networks, each with the phase that may be trusted in it, if any ships.
OTHER_SAMPLES = {
    "Cu/Cu2S_13K_01.xdi": None, "Co/co_metal_rt.xdi": "Co", "Fe/Fe2O3_rt_01.xdi": "Fe2O3",
    "Fe/FeO_rt_01.xdi": "FeO", "Fe/FeS2_rt_01.xdi": "FeS2", "Ni/NiOH2_rt_01.xdi": "Ni(O2H2)",
    "Zn/Chorover13BM_Znfoil_rt_01.xdi": "Zn",
}  # fmt: skip


@pytest.mark.measured
def test_no_sample_is_trusted_as_another(data):
    done = exafsd("analyze", *(data / "xas" / name for name in OTHER_SAMPLES), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    samples = [line for line in lines if line["channel"] != "reference"]  # a foil beside the sample
    assert len(samples) == len(OTHER_SAMPLES)
    for line in samples:
        (phase,) = [phase for name, phase in OTHER_SAMPLES.items() if line["file"].endswith(name)]
        if line["trust"]["state"] == "trusted":
            assert {shell["phase"] for shell in line["shells"]} == {phase}, line["file"]
        if line["shells"] is None:
            assert line["trust"]["reason"], line["file"]
