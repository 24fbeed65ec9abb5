"""What the columns of a file are: how mu was measured, names that two columns have, own runs."""

import h5py
import numpy as np
import pytest

from exafsd.contract.vocabulary import Flag, Reason
from exafsd.documents.files.reading import read_file
from exafsd.settings.analysis import Analysis, adapter
from exafsd.spectra import Edge, SpectrumError
from synthetic import sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=200)
I0, IT = COLUMNS["I0"], COLUMNS["It"]
MU = np.log(I0 / IT)
IFF = I0 * (0.01 + 0.02 * MU)


def rows(header, *columns):
    lines = (" ".join(f"{x:.8g}" for x in row) for row in zip(*columns, strict=True))
    return header + "\n" + "\n".join(lines) + "\n"


def read(path, content, analysis=None):
    path.write_text(content)
    return read_file(path, analysis or Analysis())


def only(path, content):
    (sweep,) = read(path, content).sweeps
    return sweep


XDI = (
    "# XDI/1.0\n# Column.1: energy eV\n# Column.2: {}\n# Column.3: {}\n# Element.symbol: Cu\n# ---"
)


@pytest.mark.parametrize(
    "remark",
    [
        "# fluorescence, 4 element detector\n# energy mu",
        "# Fluoreszenz\n# energy mu",
        "# mode=TFY\n# energy mu",
        "# mu = If/I0\n# energy mu",
        "# Scan.mode: fluorescence\n# energy xmu",
        "# Athena.numerator: dtc1 + dtc2\n# energy xmu",
        "[fluorescence]\nenergy mu",
    ],
)
def test_mu_that_was_measured_in_fluorescence_is_no_transmission(remark, tmp_path):
    sweep = only(tmp_path / "a.dat", rows(remark, ENERGY, IFF / I0))
    assert sweep.signals.keys() == {"mufluor"}


@pytest.mark.parametrize(
    ("header", "signals"),
    [
        ("# energy mu", {"mutrans"}),
        ("# Copper(II) fluoride, fluorite\n# energy mu", {"mutrans"}),
        ("# Detector.fluorescence: Vortex\n# Scan.plot_hint: ln(I0/It)\n# energy xmu", {"mutrans"}),
        ("# recorded in fluorescence mode, transmission with I1\n# energy mu", {"mufluor"}),
        ("# recorded in transmission mode, fluorescence off\n# energy mu", {"mutrans"}),
        ("# Transmission mode\n# Vortex retracted\n# energy mu", {"mutrans"}),
        ("# Detection mode: fluorescence\n# reference = ln(I1/I2)\n# energy mu", {"mufluor"}),
        ("# mu = If/I0\n# foil: ln(I1/I2)\n# energy mu", {"mufluor"}),
        ("# fluorescence detection not used\n# energy mu", {"mutrans"}),
        ("# Filling mode: uniform\n# Scan mode: fluorescence\n# energy mu", {"mufluor"}),
        ("# hybrid mode\n# Transmission of filters: 40 %\n# Vortex\n# energy mu", {"mufluor"}),
        ("# Scan.mode: transmission\n# the fluorescence detector\n# energy mu", {"mutrans"}),
        ("# fluorescence beside it\n# energy mutrans", {"mutrans"}),
        ("[Reference Fe foil]\nenergy mu", {"murefer"}),
        ("[refined]\nenergy mu", {"mutrans"}),
    ],
)
def test_mu_by_what_is_said_of_it(header, signals, tmp_path):
    assert only(tmp_path / "a.dat", rows(header, ENERGY, MU)).signals.keys() == signals


@pytest.mark.parametrize(
    "text",
    [
        rows("# Mode: fluorescence\n# energy mu", ENERGY, MU) + rows("# energy  xmu", ENERGY, MU),
        "# Mode: fluorescence\n"
        + rows("#S 1 a\n#L energy  mu", ENERGY, MU)
        + rows("#S 2 b\n#L energy  mu", ENERGY, MU),
    ],
)
def test_what_the_beginning_of_a_file_says_holds_for_all_its_tables(text, tmp_path):
    assert [{*s.signals} for s in read(tmp_path / "a.dat", text).sweeps] == [{"mufluor"}] * 2


def test_what_stands_above_a_table_comes_before_the_beginning_of_the_file(tmp_path):
    text = rows("# Mode: fluorescence\n# energy mu", ENERGY, MU)
    text += rows("# Mode: transmission\n# energy  mu", ENERGY, MU)
    assert [{*s.signals} for s in read(tmp_path / "a.dat", text).sweeps] == [
        {"mufluor"},
        {"mutrans"},
    ]
    text = rows("# mu = ln(I0/It)\n# energy mu", ENERGY, MU)
    text += rows("# mu = If/I0\n# energy  mu", ENERGY, MU)
    assert [{*s.signals} for s in read(tmp_path / "b.dat", text).sweeps] == [
        {"mutrans"},
        {"mufluor"},
    ]


def test_mu_beside_a_fluorescence_detector_and_no_other_is_of_it(tmp_path):
    sweep = only(tmp_path / "a.dat", rows("# energy i0 if mu", ENERGY, I0, IFF, IFF / I0))
    assert sweep.signals.keys() == {"i0", "iff", "mufluor"} and not sweep.flags


@pytest.mark.parametrize(("dark", "flags"), [(0.0, ()), (0.03, (Flag.COLUMNS_DISAGREE,))])
def test_readings_that_do_not_give_the_mu_beside_them_are_flagged(dark, flags, tmp_path):
    counts = [column + dark * I0.max() for column in (I0, IT)]
    for scale in (1.0, 0.4):  # per thickness
        columns = ENERGY, *counts, 0.1 + scale * MU
        assert only(tmp_path / "a.dat", rows("# energy i0 it mu", *columns)).flags == flags
        rounded = ENERGY, *counts, np.round(columns[-1], 3)
        assert only(tmp_path / "a.dat", rows("# energy i0 it mu", *rounded)).flags == flags


def test_words_after_a_name_in_xdi_belong_to_it_unless_they_are_a_unit(tmp_path):
    columns = ENERGY, I0, IT
    for first, second in (
        ("i0 counts || 13BMD:scaler1", "it # behind the sample"),
        ("i0 nA", "it (A)"),
    ):
        sweep = only(tmp_path / "a.xdi", rows(XDI.format(first, second), *columns))
        assert sweep.signals.keys() == {"i0", "it"}
    for first, second in (("i0 (sample) i1", "it"), ("i0", "it reference")):
        text = rows(XDI.format(first, second), *columns)
        assert len(only(tmp_path / "b.xdi", text).signals) == 1
    with pytest.raises(SpectrumError, match="mu reference foil") as error:
        read(tmp_path / "c.xdi", rows(XDI.format("mu reference foil", "mu_sample"), *columns))
    assert error.value.reason is Reason.MISSING_COLUMN


@pytest.mark.parametrize(
    ("header", "both"),
    [
        ("# energy i0 If iff", "If and iff"),
        ("# energy i0 If If_dtc", "If and If_dtc"),
        ("# energy i0 iff IFF_corrected", "iff and IFF_corrected"),
        ("# energy i0 iff iff.1", "iff and iff.1"),  # as pandas calls the second of a name
    ],
)
def test_two_spellings_of_a_signal_are_refused_and_one_can_be_chosen(header, both, tmp_path):
    text = rows(header, ENERGY, I0, IFF, IFF * 1.02)
    with pytest.raises(SpectrumError, match=f"{both} may all be iff") as error:
        read(tmp_path / "a.dat", text)
    assert error.value.reason is Reason.AMBIGUOUS_COLUMNS
    last = header.split()[-1]
    assert error.value.detail.endswith(f"--set adapter.iff={last}")
    (sweep,) = read(tmp_path / "a.dat", text, Analysis(adapter=adapter(iff=last))).sweeps
    np.testing.assert_allclose(sweep.signals["iff"], IFF * 1.02, rtol=1e-6)


def test_names_of_an_hdf5_file_that_differ_in_case_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["energy"], file["Energy"], file["mu"] = ENERGY, ENERGY + 7, MU
    with pytest.raises(SpectrumError, match="Energy and energy may all be energy"):
        read_file(tmp_path / "a.h5", Analysis())


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("I0 Vortex", "mufluor"),
        ("I0 Zn_Ka", "mufluor"),
        ("I0 ROI_sum", "mufluor"),
        ("PFY I1", "mutrans"),
        ("I0 time", "mutrans"),
        ("I0 angle", "mutrans"),
    ],
)
def test_mu_beside_columns_that_the_adapter_does_not_have(names, role, tmp_path):
    sweep = only(tmp_path / "a.dat", rows(f"# energy {names} mu", ENERGY, I0, IFF, MU))
    assert role in sweep.signals


def test_rows_of_several_samples_are_told_by_a_column(tmp_path):
    long = [f"{e:.3f},{m:.6f},{s}" for s, mu in (("CuO", MU), ("Cu2O", 2 * MU)) for e, m in
            zip(ENERGY, mu, strict=True)]  # fmt: skip
    sorted_by_energy = sorted(long, key=lambda row: float(row.split(",")[0]))
    for lines in (long, sorted_by_energy):
        for change in (str, lambda line: line.replace("CuO", "1").replace("Cu2O", "2")):
            text = "energy,mu,sample\n" + "\n".join(map(change, lines))
            runs = read(tmp_path / "a.csv", text).runs
            assert [len(sweep.energy) for _, (sweep,) in runs] == [200, 200]
            assert [sweep.signals["mutrans"].max() > 3 for _, (sweep,) in runs] == [False, True]
            assert "sample" in runs[0][0].sample
            turned = "\n".join(",".join(reversed(row.split(","))) for row in text.splitlines())
            assert len(read(tmp_path / "a.csv", turned).runs) == 2
    status = [
        line.replace("CuO", "ok" if i % 90 else "refill") for i, line in enumerate(long[:200])
    ]
    text = "energy,mu,state\n" + "\n".join(status)
    assert len(read(tmp_path / "b.csv", text).sweeps) == 1


@pytest.mark.parametrize("labels", ["", "# energy mu\n"])
def test_a_table_that_begins_anew_is_a_run_of_its_own(labels, tmp_path):
    higher = ENERGY + 1500.0  # of another element
    text = rows("# energy mu", ENERGY, MU) + rows(f"{labels}# now it is nickel", ENERGY - 300, MU)
    text += rows(labels.strip(), higher, MU)
    runs = read(tmp_path / "a.dat", text).runs
    assert [[sweep.energy[0] for sweep in sweeps] for _, sweeps in runs] == [
        [pytest.approx(first)] for first in (ENERGY[0], ENERGY[0] - 300, higher[0])
    ]


def test_tables_of_xdi_have_their_own_samples(tmp_path):
    parts = [
        rows(f"{XDI.format('mu', 'time')}".replace("# ---", f"# Sample.name: {n}\n# ---"), *c)
        for n, c in (("one", (ENERGY, MU, I0)), ("two", (ENERGY, MU, I0)))
    ]
    runs = read(tmp_path / "a.xdi", "".join(parts)).runs
    assert [run.sample for run, _ in runs] == ["one (table 1)", "two (table 2)"]


@pytest.mark.parametrize(
    ("header", "second", "clear"),
    [
        ("# mono_energy energy mu", ENERGY + 6, False),
        ("# mono_energy energy mu", ENERGY + 0.1, True),
        ("# energy xmu mu", MU + 0.1 * np.sin(ENERGY / 40), False),
        ("# energy norm mu", 0.4 * MU - 0.2, True),
    ],
)
def test_two_columns_of_energy_or_mu_that_differ_are_refused(header, second, clear, tmp_path):
    text = rows(header, ENERGY, second, MU)
    if clear:
        assert read(tmp_path / "a.dat", text).sweeps[0].signals.keys() == {"mutrans"}
        return
    with pytest.raises(SpectrumError, match="differ, and may both be") as error:
        read(tmp_path / "a.dat", text)
    assert error.value.reason is Reason.AMBIGUOUS_COLUMNS


def test_an_element_above_the_first_table_is_not_that_of_the_second(tmp_path):
    text = rows("# Element: Cu\n# energy mu", ENERGY, MU)
    text += rows("# energy  mu", ENERGY + 700, MU)
    text += rows("# Element: Ni\n# energy mu", ENERGY - 600, MU)
    runs = read(tmp_path / "a.dat", text).runs
    assert [[edge.element for edge in run.edges] for run, _ in runs] == [["Cu"], [], ["Ni"]]


def test_a_group_that_cannot_be_read_costs_no_other(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("bad", "good"):
            file[f"{name}/energy"], file[f"{name}/mu"] = ENERGY, MU
        file["bad/energy"].attrs["units"] = "furlong"
        file["timestamps/energy"], file["timestamps/mu"] = ENERGY * 1e5, ENERGY * 1e5
    reading = read_file(tmp_path / "a.h5", Analysis())
    assert len(reading.sweeps) == 1
    assert ["furlong" in trouble.detail for trouble in reading.troubles] == [True]


def test_datasets_with_axes_of_one_point_and_what_they_are_called(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:  # as MATLAB writes it
        file["energy"], file["mu"] = ENERGY[:, None, None], MU[:, None, None]
        file["mu"].attrs["long_name"] = "fluorescence yield"
    (sweep,) = read_file(tmp_path / "a.h5", Analysis()).sweeps
    assert sweep.signals.keys() == {"mufluor"}
    np.testing.assert_array_equal(sweep.energy, ENERGY)


def test_tables_of_a_file_are_runs_of_their_own(tmp_path):
    scans = "".join(
        rows(
            f"#S {number}  escan\n#N 3\n#L energy  I0  It",
            ENERGY[::step] + step,
            I0[::step],
            IT[::step],
        )
        for number, step in ((1, 2), (7, 1))
    )
    reading = read(tmp_path / "a.spec", scans)
    runs = [run for run, _ in reading.runs]
    assert [run.sample for run in runs] == ["a.spec (scan 1)", "a.spec (scan 7)"]
    assert len({run.uid for run in runs}) == 2
    assert [sweep.number for sweep in reading.sweeps] == [1, 2]
    to_and_fro = rows("# energy i0 it", *(np.r_[c, c[::-1]] for c in (ENERGY, I0, IT)))
    reading = read(tmp_path / "b.dat", to_and_fro)
    assert [len(sweeps) for _, sweeps in reading.runs] == [2]


def test_groups_of_an_hdf5_file_by_their_names_elements_and_modes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/element"], file["entry/edge"] = "Cu", "K"
        file["entry/zinc/element"] = "Zn"
        for place, name in (
            ("entry/transmission", "mu"), ("entry/fluorescence", "mu"), ("entry/reference", "mu"),
            ("entry/zinc", "mu"), ("foils/reference_2/data", "mu"), ("references/CuO", "mu"),
            ("reference/scan1/data", "mu"), ("fluorescence/1.1/measurement", "mu"),
        ):  # fmt: skip
            file[f"{place}/energy"], file[f"{place}/{name}"] = ENERGY, MU
        file["foils/ref_scan/energy"] = ENERGY
        file["foils/ref_scan/i0"], file["foils/ref_scan/it"] = I0, IT
    runs = read_file(tmp_path / "a.h5", Analysis()).runs
    assert {
        run.sample.rpartition("/")[2].rstrip(")"): (
            [(edge.element, edge.edge) for edge in run.edges],
            set(sweep.signals),
        )
        for run, (sweep,) in runs
    } == {
        "transmission": ([("Cu", "K")], {"mutrans"}),
        "fluorescence": ([("Cu", "K")], {"mufluor"}),
        "reference": ([("Cu", "K")], {"murefer"}),
        "zinc": ([("Zn", "K")], {"mutrans"}),
        "ref_scan": ([], {"it", "ir"}),
        "data": ([], {"murefer"}),
        "CuO": ([], {"mutrans"}),
        "measurement": ([], {"mufluor"}),
    }


def test_an_element_beside_the_table_counts_where_nothing_contradicts(tmp_path):
    for name, elements, expected in (
        ("a", {"sample": "Cu"}, [("Cu", "")]),
        ("b", {"sample": "Cu", "calibration": "Fe"}, []),
        ("c", {"detector": 29}, []),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["entry/data/energy"], file["entry/data/mu"] = ENERGY, MU
            for place, element in elements.items():
                file[f"entry/{place}/element"] = element
        ((run, _),) = read_file(tmp_path / f"{name}.h5", Analysis()).runs
        assert [(edge.element, edge.edge) for edge in run.edges] == expected


@pytest.mark.parametrize(
    ("energy", "good"),
    [
        ("entry/energy", True),
        ("entry/counters/mono/energy", True),
        ("entry/monochromator/energy", True),
        ("entry/plan/energy", False),
        ("foil/energy", False),
    ],
)
def test_energy_and_signals_in_groups_apart(energy, good, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[energy] = ENERGY
        file["entry/counters/i0"], file["entry/counters/it"] = I0, IT
        file["entry/source/energy"] = np.array([3.0])  # of the ring, GeV
    if good:
        assert read_file(tmp_path / "a.h5", Analysis()).sweeps[0].signals.keys() == {"i0", "it"}
        return
    with pytest.raises(SpectrumError, match=f"is /{energy} the energy of") as error:
        read_file(tmp_path / "a.h5", Analysis())
    assert error.value.reason is Reason.AMBIGUOUS_COLUMNS
    key = error.value.detail.rpartition("=")[2]
    (sweep,) = read_file(tmp_path / "a.h5", Analysis(adapter=adapter(energy=key))).sweeps
    np.testing.assert_array_equal(sweep.energy, ENERGY)


def test_the_unit_of_a_key_in_the_settings_counts_for_files(tmp_path):
    energy = {"key": ["E"], "units": {"E": "keV"}}
    text = rows("# E i0 it", ENERGY / 1e3, I0, IT)
    (sweep,) = read(tmp_path / "a.dat", text, Analysis(adapter=adapter(energy=energy))).sweeps
    np.testing.assert_allclose(sweep.energy, ENERGY, atol=0.01)


@pytest.mark.parametrize(
    ("element", "edge", "expected"),
    [
        ("cu", "k", ("Cu", "K")), ("PT", "L-III", ("Pt", "L3")), ("Pt", "LIII", ("Pt", "L3")),
        ("Cu", "K-edge", ("Cu", "K")), ("Pt", "l3 edge", ("Pt", "L3")), ("W", "L_2", ("W", "L2")),
        ("Ce", "LI", ("Ce", "L1")), ("Pt", "L", ("Pt", "L")), ("U", "M4", ("U", "M4")),
    ],
)  # fmt: skip
def test_edges_as_people_spell_them(element, edge, expected):
    assert Edge.of(element, edge) == Edge(*expected)
