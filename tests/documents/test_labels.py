"""Which line names the columns: a wrong one would shift them, and is refused."""

import pytest

from exafsd.contract.vocabulary import Reason
from exafsd.documents.files.reading import read_file
from exafsd.settings.analysis import Analysis
from exafsd.spectra import SpectrumError
from synthetic import sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=200)
OF = {
    "energy": ENERGY, "i0": COLUMNS["I0"], "it": COLUMNS["It"], "ir": COLUMNS["It"] * 0.3,
    "time": ENERGY * 0 + 1.5,
}  # fmt: skip


def text(header, columns, separator=" "):
    rows = zip(*(OF[name] for name in columns.split()), strict=True)
    return header + "\n" + "\n".join(separator.join(f"{x:.6f}" for x in row) for row in rows) + "\n"


def signals(path, content):
    """First value of each signal of the only sweep of a file."""
    path.write_text(content)
    (sweep,) = read_file(path, Analysis()).sweeps
    assert abs(sweep.energy[0] - ENERGY[0]) < 1e-5
    return {name: values[0] for name, values in sweep.signals.items()}


def is_right(read):
    return all(abs(value - OF[name][0]) < 1e-5 for name, value in read.items())


def refusal(path, content):
    path.write_text(content)
    with pytest.raises(SpectrumError) as error:
        read_file(path, Analysis())
    return error.value


@pytest.mark.parametrize(
    "header",
    [
        "# Energy  Dwell time  I0  It",  # wide blanks say that it is one name
        "# Energy Dwell time I0 It",  # single ones do not, but people do
        "# Energy\tDwell time\tI0\tIt",
        "# Energy, Dwell time, I0, It",
        "# Energy Mono pos I0 It",
        "# Energy Ring current I0 It",
        "# Energy  My thing  I0  It",
    ],
)
def test_a_name_of_two_words_does_not_stand_in_for_a_column_without_a_name(header, tmp_path):
    error = refusal(tmp_path / "a.dat", text(header, "energy time i0 it ir"))
    assert error.reason is Reason.AMBIGUOUS_COLUMNS
    assert "names 4 columns" in error.detail and "has 5 columns" in error.detail
    # with a name for every column the same words are read
    read = signals(tmp_path / "b.dat", text(header, "energy time i0 it"))
    assert read.keys() == {"i0", "it"} and is_right(read)


@pytest.mark.parametrize(
    "header",
    [
        "# energy      i0  it   ir",
        "# energy    i0 it ir",  # a name as wide as its column
        "#   energy i0 it ir",
        "# Columns: energy i0 it ir",
        "# energy, i0, it, ir",
        "# energy i0 it ir\n# was the energy right? it drifts",
        "# energy i0 it ir\n# eV counts counts counts",
        "# energy and mu of a foil\n# energy i0 it ir\n",
        "# energy i0 it ir\n# keV 8.7 10.1 9",
    ],
)
def test_labels_however_they_are_set(header, tmp_path):
    read = signals(tmp_path / "a.dat", text(header, "energy i0 it ir"))
    assert read.keys() == {"i0", "it", "ir"} and is_right(read)


@pytest.mark.parametrize(
    "header",
    [
        "# energy calibrated, mu unknown\n# E n1 n2 clock",
        "# energy calibrated; mu unknown\n# E n1 n2 clock",
        "# mu versus energy here\n# E n1 n2 clock",
        "# mu and energy below",
    ],
)
def test_a_remark_names_no_columns(header, tmp_path):
    error = refusal(tmp_path / "a.dat", text(header, "energy i0 it time"))
    assert error.reason is Reason.MISSING_COLUMN


def test_two_lines_that_could_both_name_the_columns_are_refused_with_both(tmp_path):
    header = "# energy scale it mu\n# E n1 n2 clock"
    error = refusal(tmp_path / "a.dat", text(header, "energy i0 it time"))
    assert error.reason is Reason.AMBIGUOUS_COLUMNS
    assert "'energy scale it mu'" in error.detail and "'E n1 n2 clock'" in error.detail


@pytest.mark.parametrize("label", ["mu'", "mu (1)", "If (1)", "If (A)"])
def test_a_derivative_or_one_of_several_is_not_the_signal(label, tmp_path):
    header = f"# energy\ti0\t{label}\t{label.replace('1', '2').replace('A', 'B')}"
    header = header if "(" in label else "# energy\ti0\ttime\tmu'"
    (tmp_path / "a.dat").write_text(text(header, "energy i0 it ir", "\t"))
    (sweep,) = read_file(tmp_path / "a.dat", Analysis()).sweeps
    assert sweep.signals.keys() == {"i0"}


@pytest.mark.parametrize(
    "header", ["#S 1 a\n#L energy  i0  it  As", "energy, i0, it, In", "# energy  i0  it  No"]
)
def test_names_of_elements_are_no_prose_where_they_are_set_apart(header, tmp_path):
    read = signals(tmp_path / "a.dat", text(header, "energy i0 it time"))
    assert read.keys() == {"i0", "it"} and is_right(read)


def test_words_in_a_table_are_a_remark_where_the_energy_goes_back_a_little(tmp_path):
    rows = text("# energy i0 it", "energy i0 it").splitlines()
    lost = [*rows[:101], "# beam lost 10:32", *rows[98:]]
    (tmp_path / "a.dat").write_text("\n".join(lost))
    (sweep,) = read_file(tmp_path / "a.dat", Analysis()).sweeps
    assert abs(sweep.energy.max() - ENERGY[-1]) < 1e-5 and len(sweep.energy) == 203
