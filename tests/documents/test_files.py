"""Files of many kinds: read as they are meant, or refused with names and columns side by side."""

import gzip
import os

import h5py
import numpy as np
import pytest

from exafsd.contract.vocabulary import Flag, Problem, Reason
from exafsd.documents.energy import HC
from exafsd.documents.files.reading import read_file
from exafsd.settings.analysis import Analysis, adapter
from exafsd.spectra import SpectrumError
from synthetic import sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=200)
I0, IT, IR = COLUMNS["I0"], COLUMNS["It"], COLUMNS["I0"] * 0.3
ROWS = np.stack([ENERGY, I0, IT, IR]).T
D = 3.1356


def lines(rows=ROWS, delimiter=" ", form="{:.6f}"):
    return "\n".join(delimiter.join(form.format(x) for x in row) for row in rows)


def read(path, content=None, analysis=None, **options):
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_file(path, analysis or Analysis(), **options)


def expect(reading, *sweeps, tolerance=1e-5):
    """Sweeps with these energies and signals, by role."""
    assert len(reading.sweeps) == len(sweeps)
    for sweep, (energy, signals) in zip(reading.sweeps, sweeps, strict=True):
        np.testing.assert_allclose(sweep.energy, energy, atol=tolerance)
        assert set(sweep.signals) == set(signals)
        for name, values in signals.items():
            np.testing.assert_allclose(sweep.signals[name], values, rtol=1e-6, atol=1e-5)


ALL = (ENERGY, {"i0": I0, "it": IT, "ir": IR})


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("# energy i0 it ir", " "),
        ("# Energy (eV)  I0  It  Ir", " "),
        ("# Energy (eV) I0 (A) It (A) Ir (A)", " "),
        ("# Energy[eV] I0[A] It[A] Ir[A]", " "),
        ("Energy (eV),I0 (A),It (A),Ir (A)", ","),
        ('"Energy (eV)","I0","It","Ir"', ", "),
        ("Energy/eV;I0/A;It/A;Ir/A".replace("/A", ""), ";"),
        ("Energy (eV)\tI0\tIt\tIr", "\t"),
        ("Energy / eV, I0 / nA, It / nA, Ir / nA", ","),
        ("# energy i0 it ir\n#------------------", "  "),
        ("# sample: foil at 300 K\n# energy i0 it ir\n# ready to go", " "),
        ("!energy i0 it ir", " "),
        ("# Column 1: Energy (eV)\n# Column 2: I0\n# Column 3: It\n# Column 4: Ir\n# ---", " "),
        ("# Column.1: energy eV\n# Column.2: i0\n# Column.3: it nA\n# Column.4: ir", " "),
        ("% Energy* I0* It* Ir*", " "),
        ("#F a\n#S 1 ascan energy\n#N 4\n#L energy  I0  It  Ir", " "),
    ],
)
def test_headers_as_people_write_them(header, delimiter, tmp_path):
    expect(read(tmp_path / "a.dat", f"{header}\n{lines(delimiter=delimiter)}\n"), ALL)


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("# energy time i0 it ir", " "),
        ("# energy i0 it", " "),
        ("energy,i0,it", ","),
        ("#L energy  time  I0  It  Ir", " "),
        ("# Energy eV I0 It Ir", " "),  # a unit in words of its own
    ],
)
def test_names_that_are_not_as_many_as_columns_are_refused_with_both(header, delimiter, tmp_path):
    with pytest.raises(SpectrumError, match=r"names \d columns \(.*has 4 columns") as error:
        read(tmp_path / "a.dat", f"{header}\n{lines(delimiter=delimiter)}\n")
    assert error.value.reason is Reason.AMBIGUOUS_COLUMNS
    assert f"{ENERGY[0]:.6f}" in error.value.detail


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(SpectrumError, match="have the same name"):
        read(tmp_path / "a.dat", f"# energy energy i0 it\n{lines()}\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(encoding, newline, tmp_path):
    text = f"# Kupfer, \u00c5ngstr\u00f6m\n# energy i0 it ir\n{lines()}\n"
    expect(read(tmp_path / "a.dat", text.replace("\n", newline).encode(encoding)), ALL)


def test_decimal_commas_where_they_cannot_be_separators(tmp_path):
    german = lines(delimiter=";").replace(".", ",")
    expect(read(tmp_path / "a.csv", f"energy;i0;it;ir\n{german}\n"), ALL)
    quoted = "\n".join('"' + row.replace(";", '","') + '"' for row in german.splitlines())
    expect(read(tmp_path / "c.csv", f'"energy","i0","it","ir"\n{quoted}\n'), ALL)
    for delimiter in (" ", "  "):
        with pytest.raises(SpectrumError, match="may separate columns or stand for"):
            unclear = lines(delimiter=delimiter).replace(".", ",")
            read(tmp_path / "b.dat", f"# energy i0 it ir\n{unclear}\n")


def test_fortran_and_other_numbers(tmp_path):
    double = lines(form="{:.8E}").replace("E", "D")
    expect(read(tmp_path / "a.dat", f"# energy i0 it ir\n{double}\n"), ALL, tolerance=1e-3)


@pytest.mark.parametrize("token", ["N/A", "OVER", "---"])
def test_rows_without_readings_are_dropped_and_not_lost_silently(token, tmp_path):
    text = [" ".join(row.split()[:3]) for row in lines().splitlines()]
    for place in (0, 1, 90, 199):
        text[place] = " ".join([text[place].split()[0], token, token])
    (sweep,) = read(tmp_path / "a.dat", "# energy i0 it\n" + "\n".join(text)).sweeps
    bad = np.flatnonzero(np.isnan(sweep.signals["it"])).tolist()
    assert bad == [0, 1, 90, 199] and len(sweep.energy) == 200


def test_the_minus_sign_of_spreadsheets(tmp_path):
    text = lines(np.stack([ENERGY, np.log(I0 / IT) - 1]).T).replace("-", "\u2212")
    assert "\u2212" in text
    expect(read(tmp_path / "a.dat", f"# energy mu\n{text}\n"),
           (ENERGY, {"mutrans": np.log(I0 / IT) - 1}))  # fmt: skip


def test_element_and_edge_in_lines_of_the_header(tmp_path):
    text = f"# Element: Cu\n# Edge: K\n# energy i0 it ir\n{lines()}\n"
    ((run, _),) = read(tmp_path / "a.dat", text).runs
    assert [(edge.element, edge.edge) for edge in run.edges] == [("Cu", "K")]
    ((run, _),) = read(tmp_path / "b.dat", text.replace("# Edge", "# Element: Zn\n# Edge")).runs
    assert [(edge.element, edge.edge) for edge in run.edges] == [("", "K")]


@pytest.mark.parametrize("token", ["******", "NaN", "-", "1.#QNAN", "overflow"])
def test_a_bad_cell_costs_its_point_and_not_the_rows_before_it(token, tmp_path):
    text = lines().splitlines()
    cells = text[150].split()
    text[150] = " ".join([*cells[:2], token, cells[3]])
    (sweep,) = read(tmp_path / "a.dat", "# energy i0 it ir\n" + "\n".join(text)).sweeps
    assert np.flatnonzero(np.isnan(sweep.signals["it"])).tolist() == [150]
    np.testing.assert_allclose(sweep.energy, ENERGY, atol=1e-5)


def test_rows_that_are_cut_off_or_run_together_cost_their_points(tmp_path):
    text = lines().splitlines()
    text[100] = text[100].replace(" ", "-", 2)  # no blank between columns that are full
    text[-1] = text[-1][:20]
    (sweep,) = read(tmp_path / "a.dat", "# energy i0 it ir\n" + "\n".join(text)).sweeps
    assert np.flatnonzero(np.isnan(sweep.energy)).tolist() == [100]
    assert sweep.flags == (Flag.PADDED,)  # the row that is cut off is at the end
    good = np.isfinite(sweep.energy)
    assert good.sum() == 198
    assert np.isin(np.round(sweep.energy[good], 6), np.round(ENERGY, 6)).all()


def test_many_odd_rows_are_refused(tmp_path):
    text = [row if i % 4 else row + " 7.0" for i, row in enumerate(lines().splitlines())]
    with pytest.raises(SpectrumError, match="rows have not 4 columns but 5"):
        read(tmp_path / "a.dat", "# energy i0 it ir\n" + "\n".join(text))


def test_comments_inside_a_table_are_comments(tmp_path):
    text = lines().splitlines()
    text.insert(120, "# beam lost at noon")
    text.insert(60, "! refill")
    expect(read(tmp_path / "a.dat", "# energy i0 it ir\n" + "\n".join(text)), ALL)


def test_a_comment_that_ends_with_a_backslash_costs_no_row(tmp_path):
    text = "# energy i0 it ir\n# saved in C:\\data\\\n" + lines()
    expect(read(tmp_path / "a.dat", text), ALL)


def test_spectra_of_a_multichannel_analyser_in_spec_are_no_rows(tmp_path):
    rows = lines().splitlines()
    mca = "\n@A 1 2 3 4\\\n 5 6 7 8\\\n 9 10 11 12\n"
    text = "#F a\n#S 1 ascan\n#L energy  I0  It  Ir\n" + mca.join(rows) + "\n"
    expect(read(tmp_path / "a.spec", text), ALL)


def scan(number, rows, labels="energy  I0  It  Ir"):
    return f"#S {number}  ascan\n#D today\n#N 4\n#L {labels}\n{lines(rows)}\n\n"


def test_scans_of_a_spec_file_are_sweeps(tmp_path):
    other = "#S 2  ascan  th\n#N 2\n#L th  I0\n" + "\n".join(f"{i} {i * i}" for i in range(30))
    text = "#F foil\n#E 1\n\n" + scan(1, ROWS) + other + "\n\n" + scan(3, ROWS[:150])
    text += scan(
        9, (ROWS + np.array([1400, 0, 0, 0]))[:140]
    )  # of another edge, and not a part of the first
    turned = scan(4, ROWS[:, [0, 2, 1, 3]], "energy  It  I0  Ir")
    reading = read(tmp_path / "a.spec", text + turned)
    short = (ENERGY[:150], {"i0": I0[:150], "it": IT[:150], "ir": IR[:150]})
    other_edge = (ENERGY[:140] + 1400, {"i0": I0[:140], "it": IT[:140], "ir": IR[:140]})
    expect(reading, ALL, short, other_edge, ALL)
    partial = [Flag.PARTIAL in sweep.flags for sweep in reading.sweeps]
    assert partial == [False, True, False, False]
    assert [sweep.number for sweep in reading.sweeps] == [1, 2, 3, 4]
    assert [trouble.reason for trouble in reading.troubles] == [Problem.NO_SPECTRUM]
    assert "th" in reading.troubles[0].detail


def test_stacked_and_repeated_tables_are_sweeps(tmp_path):
    header = "# energy i0 it ir\n"
    for text in (
        header + lines() + "\n" + header + lines() + "\n",  # headers again
        header + lines() + "\n" + lines() + "\n",  # begun anew
        header + lines() + "\n\n\n" + lines() + "\n",  # blocks as gnuplot has them
    ):
        expect(read(tmp_path / "a.dat", text), ALL, ALL)
    to_and_fro = header + lines() + "\n" + lines(ROWS[::-1]) + "\n"
    up, down = read(tmp_path / "b.dat", to_and_fro).sweeps
    assert (up.direction, down.direction) == ("up", "down")
    assert abs(len(up.energy) - 200) <= 1 and len(up.energy) + len(down.energy) == 400


def test_a_table_in_no_order_is_one_spectrum(tmp_path):
    order = np.random.default_rng(1).permutation(len(ROWS))
    (sweep,) = read(tmp_path / "a.dat", "# energy i0 it ir\n" + lines(ROWS[order])).sweeps
    np.testing.assert_allclose(sweep.energy, ENERGY[order], atol=1e-5)


def xdi(*fields, labels="energy i0 it ir", rows=ROWS):
    header = "\n".join(f"# {field}" for field in ("XDI/1.0 test", "Element.symbol: Cu", *fields))
    return f"{header}\n# ///\n# a comment\n#-----\n# {labels}\n{lines(rows)}\n"


NAMES = ("Column.1: energy eV", "Column.2: i0", "Column.3: it", "Column.4: ir")


@pytest.mark.parametrize(
    "field", ["Mono.d_spacing: 3.13 \u00c5", "Mono.d_spacing: unknown", "Mono.d_spacing: "]
)
def test_xdi_with_any_d_spacing_where_energies_are_in_ev(field, tmp_path):
    expect(read(tmp_path / "a.xdi", xdi("Element.edge: K", *NAMES, field)), ALL)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("(eV)", 1.0), ("electronvolt", 1.0), ("Electron_Volts", 1.0), ("EV", 1.0),
        ("keV", 1e-3), ("[keV]", 1e-3), ("kiloelectronvolt", 1e-3),
        ("eV || 13BMA:E:Energy.VAL", 1.0),
    ],
)  # fmt: skip
def test_spellings_of_the_energy_unit(unit, scale, tmp_path):
    rows = ROWS * [scale, 1, 1, 1]
    text = xdi(f"Column.1: energy {unit}", *NAMES[1:], rows=rows)
    expect(read(tmp_path / "a.xdi", text), ALL, tolerance=2e-3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in zip(("energy", "I0", "It"), rows.T[:3], strict=True):
            file[name] = column
        file["energy"].attrs["units"] = unit.partition(" ||")[0]
    expect(read(tmp_path / "a.h5"), (ENERGY, {"i0": I0, "it": IT}))


@pytest.mark.parametrize("unit", ["MeV", "meV", "J", "nm", "steps of the motor"])
def test_a_unit_that_is_none_is_refused(unit, tmp_path):
    with pytest.raises(SpectrumError, match=r"which is not one of") as error:
        read(tmp_path / "a.xdi", xdi(f"Column.1: energy {unit}", *NAMES[1:]))
    assert error.value.reason is Reason.ENERGY_UNIT


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (NAMES, "energy it i0 ir"),  # another order
        (NAMES[:3], "energy i0 it"),  # fewer than columns
        ((*NAMES, "Column.5: iff"), "energy i0 it ir iff"),
    ],
)
def test_xdi_that_contradicts_itself_is_refused(names, labels, tmp_path):
    with pytest.raises(SpectrumError, match="it is not clear which name is whose"):
        read(tmp_path / "a.xdi", xdi(*names, labels=labels))


ANGLES = np.degrees(np.arcsin(HC / (2 * D * ENERGY)))


@pytest.mark.parametrize(
    ("unit", "scale", "d_spacing"),
    [
        ("degrees", 1.0, "3.1356"), ("deg", 1.0, "0.31356 nm"), ("mdeg", 1e3, "3.1356 \u00c5"),
        ("radians", np.pi / 180, "3.1356"), ("", 1.0, "3.1356"),
    ],
)  # fmt: skip
def test_angles_in_xdi_by_its_own_d_spacing(unit, scale, d_spacing, tmp_path):
    rows = np.stack([ANGLES * scale, I0, IT, IR]).T
    names = (f"Column.1: angle {unit}", *NAMES[1:], f"Mono.d_spacing: {d_spacing}")
    text = xdi(*names, labels="angle i0 it ir", rows=rows).replace(
        lines(rows), lines(rows, form="{:.9f}")
    )
    expect(read(tmp_path / "a.xdi", text), ALL, tolerance=0.01)


def test_angles_in_columns_by_the_settings(tmp_path):
    rows = np.stack([ANGLES, I0, IT, IR]).T
    names = adapter(energy={"key": "angle", "unit": "deg", "d_spacing": D})
    text = "# angle i0 it ir\n" + lines(rows, form="{:.9f}")
    expect(read(tmp_path / "a.dat", text, Analysis(adapter=names)), ALL, tolerance=0.01)
    without = adapter(energy={"key": "angle", "unit": "deg"})
    with pytest.raises(SpectrumError, match=r"d_spacing = None gives no number"):
        read(tmp_path / "a.dat", None, Analysis(adapter=without))


def test_an_empty_end_is_cut_off(tmp_path):
    for fill in ("nan nan nan nan\n", "0 0 0 0\n"):
        (sweep,) = read(tmp_path / "a.dat", f"# energy i0 it ir\n{lines()}\n{fill * 20}").sweeps
        assert len(sweep.energy) == 200 and Flag.PADDED in sweep.flags


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            gzip.compress(b"# Athena project file -- version 0.9\n", mtime=0),
            "Athena or Larix project",
        ),
        (b"# Athena project file -- version 0.9\n", "Athena or Larix project"),
        (gzip.compress(b"anything", mtime=0), "compressed"),
        (b"PK\x03\x04....", "zip archive or spreadsheet"),
        (b"%PDF-1.4", "PDF"),
        (b'{"energy": [1, 2, 3]}', "JSON"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"\0\1\2\3" * 100, "binary"),
        (b"", "no table"),
        (b"# energy i0 it\n", "no table"),
        ("# k chi\n" + lines(ROWS[:, :2]), r"chi\(k\), which is reduced already"),
    ],
)
def test_what_is_no_spectrum_is_named_for_what_it_is(content, match, tmp_path):
    with pytest.raises(SpectrumError, match=match):
        read(tmp_path / "file", content)


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SpectrumError, match="not a regular file"):
        read(tmp_path / "pipe")


# HDF5


def group(file, name, columns=ALL):
    energy, signals = columns
    for key, values in {"energy": energy, **signals}.items():
        file[f"{name}/{key}"] = values


def test_links_of_an_hdf5_file_are_followed_within_its_folder(tmp_path):
    folder = tmp_path / "data"
    (folder / "scans").mkdir(parents=True)
    for number in (1, 2, 10):
        with h5py.File(folder / "scans" / f"{number}.h5", "w") as file:
            group(file, f"{number}.1/measurement", (ENERGY + number, {"i0": I0, "it": IT}))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        group(file, "entry")
    with h5py.File(folder / "master.h5", "w") as file:
        for number in (10, 2, 1):
            file[f"{number}.1"] = h5py.ExternalLink(f"scans/{number}.h5", f"/{number}.1")
        file["again"] = h5py.SoftLink("/2.1")
        file["self"] = h5py.SoftLink("/")
        file["round"] = h5py.ExternalLink("master.h5", "/")
        file["nowhere"] = h5py.SoftLink("/not/there")
        file["gone"] = h5py.ExternalLink("gone.h5", "/")
        file["outside"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "/entry")
    reading = read(folder / "master.h5")
    expect(reading, *[(ENERGY + n, {"i0": I0, "it": IT}) for n in (1, 2, 10)])
    said = " ".join(trouble.detail for trouble in reading.troubles)
    assert all(name in said for name in ("/nowhere", "/gone", "/outside"))
    assert {trouble.reason for trouble in reading.troubles} == {Problem.ASSET_REFUSED}
    assert len(read(folder / "master.h5", roots=(tmp_path,)).sweeps) == 4


def test_values_outside_of_an_hdf5_file_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(np.asarray(IT).tobytes())
    layout = h5py.VirtualLayout(shape=(200,), dtype="f8")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["energy"], file["i0"] = ENERGY, I0
        file.create_dataset("it", (200,), "f8", external=[(str(tmp_path / "secret"), 0, 1600)])
        file.create_virtual_dataset("ir", layout)
    reading = read(tmp_path / "a.h5")
    assert set(reading.sweeps[0].signals) == {"i0"}
    assert len(reading.troubles) == 2


def test_stacks_of_sweeps_by_the_length_of_the_energy(tmp_path):
    mu = np.log(I0 / IT)
    three = np.stack([mu, mu + 1, mu + 2])
    sweeps = [(ENERGY, {"mutrans": mu + n}) for n in range(3)]
    for name, energy, stack, expected in (
        ("column", ENERGY[:, None], mu[:, None], sweeps[:1]),
        ("row", ENERGY[None], mu[None], sweeps[:1]),
        ("rows", ENERGY, three, sweeps),
        ("columns", ENERGY, three.T, sweeps),
        ("both", np.stack([ENERGY] * 3), three, sweeps),
        ("both turned", np.stack([ENERGY] * 3).T, three.T, sweeps),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["energy"], file["mu"] = energy, stack
        expect(read(tmp_path / f"{name}.h5"), *expected)


def test_stacks_that_could_be_read_in_two_ways_are_refused(tmp_path):
    mu = np.log(I0 / IT)
    for name, columns in {
        "square": {"energy": ENERGY, "mu": np.stack([mu] * 200)},
        "elements": {"energy": ENERGY, "i0": I0, "iff": np.stack([IT] * 4).T},
        "flat": {"energy": np.ones((3, 3)), "mu": np.ones((3, 3))},
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, values in columns.items():
                file[key] = values
        with pytest.raises(SpectrumError, match=r"shapes") as error:
            read(tmp_path / f"{name}.h5")
        assert error.value.reason is Reason.SHAPE_MISMATCH
