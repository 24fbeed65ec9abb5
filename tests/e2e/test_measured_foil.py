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


@pytest.mark.measured
def test_other_samples_get_no_parameters(data):
    """Other structures of elements that have models: never a number with confidence."""
    names = [
        "Cu/Cu2S_13K_01.xdi", "Co/co_metal_rt.xdi", "Fe/Fe2O3_rt_01.xdi", "Fe/FeO_rt_01.xdi",
        "Fe/FeS2_rt_01.xdi", "Zn/Chorover13BM_Znfoil_rt_01.xdi", "Ni/NiOH2_rt_01.xdi",
    ]  # fmt: skip
    files = [data / "xas" / name for name in names]
    done = exafsd("analyze", *files, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        if line["channel"] != "reference":  # the reference beside Cu2S is a copper foil
            assert line["shells"] is None, line["file"]
            assert line["trust"]["reason"]
