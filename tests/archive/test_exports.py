"""Files for other programs hold the numbers of the results, by those programs' own readers."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from heated_runs import POINTS, SWEEPS, Published, cards
from larch.io import read_athena, read_xdi

from exafsd.archive.catalog import CatalogError
from exafsd.archive.result_writer import ResultWriter
from exafsd.archive.results import find_result_run
from exafsd.contract.frames import Message
from exafsd.exports.export import export
from exafsd.exports.nexus import write_nexus
from exafsd.testing.catalog_server import CatalogServer

ENTRY = "transmission_Cu_K"


@pytest.fixture(scope="module")
def stored(catalog_server: CatalogServer, journal_folder: Path) -> list[Message]:
    """Results of the last run, in the catalog, as they were on the wire."""

    def report(reason: str, detail: str) -> None:
        pytest.fail(f"{reason}: {detail}")

    out = Published(ResultWriter(catalog_server.uri, cards(), report))
    wire = out.run(journal_folder, "raw-run-2")
    out.sink.close()
    return wire


@pytest.fixture(scope="module")
def transmission(stored: list[Message]) -> list[Message]:
    return [message for message in stored if message.header["channel"] == "transmission"]


def results(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.header["kind"] == "result"]


@pytest.fixture(scope="module")
def nexus(
    catalog_server: CatalogServer, stored: list[Message], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("exports") / "results.h5"
    assert f"{2 * SWEEPS} outcomes" in export(catalog_server.uri, "raw-run-2", path)
    return path


def plotted(group: h5py.Group) -> h5py.Group:
    """The group that a viewer plots: along the default attributes, as NeXus says."""
    while group.attrs["NX_class"] != "NXdata":
        group = group[group.attrs["default"]]
    return group


def check_plot(data: h5py.Group) -> None:
    """Signal and axes are there and fit each other."""
    signal, axes = data[data.attrs["signal"]], data.attrs["axes"]
    assert len(axes) == signal.ndim
    for place, name in enumerate(axes):
        along = np.atleast_1d(data.attrs[f"{name}_indices"])
        assert data[name].shape == tuple(signal.shape[i] for i in along)
        assert place in along
    for name in data.attrs["auxiliary_signals"]:
        assert data[name].shape == signal.shape


def test_nexus_is_plotted_by_default(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        data = plotted(file)
        assert data.name == f"/{ENTRY}/spectra"
        for entry in file.values():
            assert entry.attrs["NX_class"] == "NXentry"
            for name in ("spectra", "chi", "chir", "parameters"):
                assert entry[name].attrs["NX_class"] == "NXdata"
                check_plot(entry[name])


def test_nexus_has_what_the_definition_wants(nexus: Path) -> None:
    with h5py.File(nexus) as file:
        assert set(file) == {ENTRY, "reference_Cu_K"}
        entry = file[ENTRY]
        assert entry["definition"].asstr()[()] == "NXxas"
        assert "contributed_definitions/NXxas" in entry["definition"].attrs["URL"]
        assert not entry["is_experimental"][()]  # the foil is simulated
        assert entry["element/name"].asstr()[()] == "copper"
        assert entry["element"].attrs["NX_class"] == "NXelement"
        assert entry["edge/name"].asstr()[()] == "K"
        assert entry["edge"].attrs["NX_class"] == "NXabsorption_edge"
        assert entry["sample/name"].asstr()[()] == "Cu foil 2"
        assert entry["energy"].shape == (POINTS,)
        assert entry["energy"].attrs["units"] == "eV"
        assert entry["intensity"].shape == (SWEEPS, POINTS)
        assert entry["spectra/intensity"] == entry["intensity"]
        assert entry["spectra/energy"] == entry["energy"]


def test_nexus_numbers_are_the_results(nexus: Path, transmission: list[Message]) -> None:
    with h5py.File(nexus) as file:
        entry = file[ENTRY]
        for place, message in enumerate(transmission):
            header, arrays = message.header, message.arrays
            assert entry["outcomes/id"].asstr()[place] == header["id"]
            if header["kind"] == "rejected":
                assert entry["outcomes/reason"].asstr()[place] == header["reason"]
                assert np.isnan(entry["intensity"][place]).all()
                assert np.isnan(entry["parameters/Cu_1_r"][place])
                continue
            np.testing.assert_array_equal(entry["energy"], arrays["energy"])
            np.testing.assert_array_equal(entry["intensity"][place], arrays["norm"])
            for where, name in (("spectra", "flat"), ("chi", "chi_k2"), ("chi", "chi_k2_pred"),
                                ("chir", "chir_mag"), ("chir", "chir_mag_pred")):  # fmt: skip
                np.testing.assert_array_equal(entry[where][name][place], arrays[name])
            np.testing.assert_array_equal(entry["chi/k"], arrays["k"])
            np.testing.assert_array_equal(entry["chir/r"], arrays["r"])
            for shell in header["shells"]:
                for name in ("n_s02", "r", "sigma2"):
                    key = f"parameters/{shell['id'].replace('/', '_')}_{name}"
                    assert entry[key][place] == shell[name]["value"]
                    assert entry[f"{key}_errors"][place] == shell[name]["std"]
            temperature = header["context"]["temperature"]["value"]
            assert entry["parameters/context_temperature"][place] == temperature
        assert entry["parameters/Cu_1_r"].attrs["units"] == "angstrom"


def test_nexus_of_unequal_energies(
    client: Any, transmission: list[Message], tmp_path: Path
) -> None:
    """Each spectrum keeps its own energies, and the file does not claim a definition."""
    start = find_result_run(client, "raw-run-2").metadata["start"]
    mu = ("energy", "norm", "flat")
    shorter = [
        Message("", m.header, {k: a[place:] if k in mu else a for k, a in m.arrays.items()})
        for place, m in enumerate(transmission)
    ]
    write_nexus(tmp_path / "x.h5", start, shorter)
    with h5py.File(tmp_path / "x.h5") as file:
        entry = file[ENTRY]
        assert "definition" not in entry
        check_plot(entry["spectra"])
        for place, message in enumerate(shorter):
            for name, stored in (("energy", "energy"), ("norm", "intensity")):
                if name in message.arrays:
                    length = len(message.arrays[name])
                    row = entry[stored][place]
                    np.testing.assert_array_equal(row[:length], message.arrays[name])
                    assert np.isnan(row[length:]).all()


def test_averages_and_nothing_but_rejections(
    client: Any, transmission: list[Message], tmp_path: Path
) -> None:
    start = find_result_run(client, "raw-run-2").metadata["start"]
    good = results(transmission)[0]
    average = Message("", {**good.header, "id": good.header["id"] + "-9"}, good.arrays)
    (rejected,) = (m for m in transmission if m.header["kind"] == "rejected")
    other = Message("", {**rejected.header, "channel": "fluorescence"}, {})
    write_nexus(tmp_path / "x.h5", start, [good, average, other])
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file) == {ENTRY, f"{ENTRY}_average", "fluorescence_Cu_K"}
        assert "intensity" not in file["fluorescence_Cu_K"]
        assert file["fluorescence_Cu_K/outcomes/kind"].asstr()[0] == "rejected"


def test_athena_project(
    catalog_server: CatalogServer, stored: list[Message], tmp_path: Path
) -> None:
    path = tmp_path / "results.prj"
    export(catalog_server.uri, "raw-run-2", path)
    project = read_athena(str(path), do_preedge=False)
    groups = project.groups
    expected = results(stored)
    assert len(groups) == len(expected)
    for message in expected:
        header = message.header
        group = groups[f"{header['channel']}_Cu_K_{header['sweep']}"]
        np.testing.assert_array_equal(group.energy, message.arrays["energy"])
        np.testing.assert_array_equal(group.mu.astype("f4"), message.arrays["norm"])
        assert float(group.athena_params.bkg.e0) == header["e0"]
        assert int(group.athena_params.is_nor) == 1
        assert group.athena_params.bkg.z == "Cu"


def test_xdi_files(catalog_server: CatalogServer, stored: list[Message], tmp_path: Path) -> None:
    folder = tmp_path / "results.xdi"
    export(catalog_server.uri, "raw-run-2", folder)
    expected = results(stored)
    assert len(list(folder.iterdir())) == len(expected)
    for message in expected:
        header = message.header
        xdi = read_xdi(str(folder / f"{header['channel']}_Cu_K_{header['sweep']}.xdi"))
        assert xdi.xdi_version == "1.0"
        assert (xdi.element, xdi.edge) == ("Cu", "K")
        assert xdi.array_labels == ["energy", "norm", "flat"]
        assert xdi.array_units[0] == "eV"
        assert xdi.attrs["sample"]["name"] == "Cu foil 2"
        assert xdi.attrs["exafsd"]["id"] == header["id"]
        np.testing.assert_array_equal(xdi.energy, message.arrays["energy"])
        for name in ("norm", "flat"):
            np.testing.assert_array_equal(getattr(xdi, name).astype("f4"), message.arrays[name])


def test_refusals(catalog_server: CatalogServer, stored: list[Message], tmp_path: Path) -> None:
    taken = tmp_path / "taken.h5"
    taken.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        export(catalog_server.uri, "raw-run-2", taken)
    with pytest.raises(ValueError, match=r"\.prj"):
        export(catalog_server.uri, "raw-run-2", tmp_path / "results.txt")
    with pytest.raises(CatalogError, match="no run"):
        export(catalog_server.uri, "no-such-run", tmp_path / "results.h5")
    assert taken.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [taken]
