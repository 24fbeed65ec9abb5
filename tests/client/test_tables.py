"""Messages as rows, as a pandas table and as an xarray dataset."""

import sys

import numpy as np
import pytest

from exafsd.client import rows, to_pandas, to_xarray
from exafsd.contract.frames import decode, encode
from messages import ARRAYS, SHELL, rejected, result, run_start, value


def fitted(number):
    return {"value": number, "std": 0.001, "std_feffit": 0.003}


POLISH = {
    "status": "converged", "r_factor": 0.01, "n_idp": 12.0, "n_var": 4,
    "phases": [{"phase": "Cu", "fraction": None, "e0_shift": fitted(5.5)}],
    "shells": [{"id": "Cu/1", "n_s02": fitted(11.0), "r": fitted(2.543), "sigma2": fitted(0.0088)}],
    "correlation": None,
}  # fmt: skip


@pytest.fixture
def messages():
    second = {**SHELL, "id": "Cu/2", "shell": 2, "r": value(3.6)}
    shorter = {**ARRAYS, **{name: np.linspace(0, 1, 400) for name in ("energy", "norm", "flat")}}
    sent = [
        (run_start(), None),
        (result(1, shells=[SHELL, second], polish=POLISH), ARRAYS),
        (rejected(2), None),
        (result(3), shorter),
        (result(4, shells=None, phases=None, best=None, epsilon_k=float("nan")), {}),
    ]
    return [decode(encode(message, arrays)) for message, arrays in sent]


def test_rows_one_per_shell(messages):
    table = rows(messages)
    assert [(row["sweep"], row["shell"]) for row in table] == [
        (1, "Cu/1"), (1, "Cu/2"), (2, None), (3, "Cu/1"), (4, None),
    ]  # fmt: skip
    first, other, bad, _, unread = table
    assert (first["r"], first["r_std"], first["sigma2"]) == (2.54, 0.01, 0.009)
    assert first["polish_r"] == 2.543
    assert first["polish_r_std_feffit"] == 0.003
    assert "polish_r" not in other
    assert first["e0_shift"] == 5.0
    assert first["polish_e0_shift"] == 5.5
    assert (first["context_temperature"], first["truth_r"]) == (301.0, 2.55)
    assert (first["model"], first["trust"], first["quality"]) == ("cu", 0.9, "noisy")
    assert (bad["kind"], bad["reason"], bad["r"]) == ("rejected", "no_edge", None)
    assert unread["r"] is None
    assert first["acquired"] == 1.7e9 + 1


def test_tables_have_near_edge_and_composition():
    composition = {
        "references": ["Cu", "CuO"], "in_domain": True, "reason": None,
        "fractions": [{"phase": "CuO", "value": 0.7, "std": 0.01}],
        "components": {
            "count": 2, "by_noise": 2, "by_structure": 2, "sweeps": 9, "left": 1e-3, "noise": 1e-3,
            "scores": [value(0.1)], "reason": None,
        },
    }  # fmt: skip
    phase = {"phase": "CuO", "share": value(0.7), "shells": [{**SHELL, "r": value(1.95)}]}
    mixed = result(1, composition=composition, mixture={"phases": [phase]})
    mixed, bad = (decode(encode(one, {})) for one in (mixed, rejected(2)))
    table = to_pandas([mixed, bad])
    columns = ["edge_energy", "change", "share_CuO", "share_CuO_std", "mixture_r_CuO"]
    assert table[columns].iloc[0].tolist() == [8985.8, "steady", 0.7, 0.01, 1.95]
    assert table[["components", "component_2"]].iloc[0].tolist() == [2, 0.1]
    assert table[["share_CuO", "mixture_r_CuO", "components"]].iloc[1].isna().all()
    assert to_xarray([mixed])["share_CuO"].values.tolist() == [0.7]


def test_pandas(messages):
    table = to_pandas(messages)
    assert len(table) == 5
    assert table["r"].tolist()[:2] == [2.54, 3.6]
    assert np.isnan(table["r"].iloc[2])
    assert str(table["acquired"].iloc[0]).startswith("2023-11-14 22:13:21")
    mean = table[table["shell"] == "Cu/1"].groupby("channel")["sigma2"].mean()
    assert mean["transmission"] == pytest.approx(0.009)
    assert to_pandas([]).empty


def test_xarray(messages):
    data = to_xarray(messages)
    assert dict(data.sizes) == {"spectrum": 3, "k": 401, "r": 326, "point": 500, "shell": 2}
    assert data["chi_k2"].dims == ("spectrum", "k")
    assert data["k"].attrs["units"] == "1/angstrom"
    np.testing.assert_array_equal(data["chi_k2"][0], ARRAYS["chi_k2"].astype("f4"))
    assert data["energy"].dtype == np.float64
    assert np.isnan(data["norm"][1, 400:]).all()
    assert np.isnan(data["chi_k2"][2]).all()  # sent without arrays
    assert data["shell_r"].sel(shell="Cu/1").values.tolist()[:2] == [2.54, 2.54]
    assert np.isnan(data["shell_r"].values[1:, 1]).all()
    assert data["sweep"].values.tolist() == [1, 3, 4]
    assert data["context_temperature"].values.tolist() == [301.0, 303.0, 304.0]
    assert to_xarray([]).sizes == {}


@pytest.mark.parametrize(("name", "function"), [("pandas", to_pandas), ("xarray", to_xarray)])
def test_what_is_not_installed_is_said(monkeypatch, name, function):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        function([])
