"""Files of facilities that name their columns in other ways than in one line."""

import numpy as np
import pytest

from exafsd.contract.vocabulary import Reason
from exafsd.documents.energy import HC
from exafsd.documents.files.reading import read_file
from exafsd.settings.analysis import Analysis, adapter
from exafsd.spectra import SpectrumError
from synthetic import sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=200)
I0, IT, IR = COLUMNS["I0"], COLUMNS["It"], COLUMNS["Ir"]
D = 3.13551
ANGLE = np.degrees(np.arcsin(HC / (2 * D * ENERGY)))
TIME = np.where(ENERGY < 9200, 1.0, 3.0)


def table(columns, forms):
    rows = zip(*columns, strict=True)
    return "\n".join(" ".join(f.format(x) for f, x in zip(forms, row, strict=True)) for row in rows)


def file_9809(
    modes, counts, place="KEK-PF   BL12C", d=f"D= {D:.5f} A", mode="Mode", offset="Offset"
):
    """File of the program 9809; `counts` per second without dark counts, which are 100, 200, ..."""
    dark = 100.0 * np.arange(1, len(modes) + 1)
    columns = [
        ANGLE + 0.0003,
        ANGLE,
        TIME,
        *((c + o) * TIME for c, o in zip(counts, dark, strict=True)),
    ]
    head = [
        f"  9809     {place}", " Cu foil 3        22.05.11 17:26 - 22.05.11 18:33", " a comment",
        " Ring :   2.5 GeV   425.1 mA -  449.9 mA",
        f" Mono :   Si(111)       {d}    Initial angle= 13.01509 deg",
        " BL12C     Transmission( 2)   Repetition=  1     Points=  200",
        " Param file : Cu  energy axis(2)     Block =    2", "",
        " Block      Init-Eng  Final-Eng      Step/eV     Time/s       Num",
        "     1        8800.00   9200.00         5.50       1.00        72",
        "     2        9200.00   9900.00         5.50       3.00       128",
        f" Ortec( 0)     NDCH = {len(modes)}",
        "  Angle(c)  Angle(o)    time/s " + " ".join(f"{i + 2:9d}" for i in range(len(modes))),
        f"      {mode}         0         0 " + " ".join(f"{m:9d}" for m in modes),
        f"    {offset}         0         0 " + " ".join(f"{x:9.3f}" for x in dark),
    ]  # fmt: skip
    return "\n".join(head) + "\n" + table(columns, ["{:.7f}"] * 2 + ["{:.2f}"] * (len(columns) - 2))


def read(path, content, **names):
    path.write_text(content)
    return read_file(path, Analysis(adapter=adapter(**names)))


@pytest.mark.parametrize("place", ["KEK-PF   BL12C", "SPring-8 BL14B2", "SAGA-LS  BL11"])
def test_9809_by_its_modes_with_dark_counts_subtracted(place, tmp_path):
    content = file_9809((1, 2, 3), (I0, IT, IR), place)
    ((run, (sweep,)),), _ = read(tmp_path / "a.dat", content)
    assert run.sample == "Cu foil 3"
    np.testing.assert_allclose(sweep.energy, ENERGY, atol=0.01)  # the angle that was observed
    assert sweep.signals.keys() == {"i0", "it", "iff"}
    for name, counts in (("i0", I0), ("it", IT), ("iff", IR)):
        np.testing.assert_allclose(sweep.signals[name], counts * TIME, rtol=1e-5)


def test_9809_with_elements_of_a_detector_and_their_resets(tmp_path):
    content = file_9809((3, 3, 1, 103, 103, 101), (IR, 2 * IR, I0, 3 * IR, 3 * IR, 0 * I0))
    (sweep,) = read(tmp_path / "a.dat", content).sweeps
    assert sweep.signals.keys() == {"i0", "iff"}
    np.testing.assert_allclose(sweep.signals["iff"], 3 * IR * TIME, rtol=1e-5)


def test_9809_with_two_chambers_behind_the_sample_asks_which(tmp_path):
    content = file_9809((1, 2, 2), (I0, IT, IR))
    assert read(tmp_path / "a.dat", content).sweeps[0].signals.keys() == {"i0"}
    (sweep,) = read(tmp_path / "a.dat", content, it="it1", ir="it2").sweeps
    np.testing.assert_allclose(sweep.signals["it"], IT * TIME, rtol=1e-5)
    np.testing.assert_allclose(sweep.signals["ir"], IR * TIME, rtol=1e-5)


def test_two_files_of_9809_in_one_are_refused(tmp_path):
    content = file_9809((1, 2), (I0, IT))
    with pytest.raises(SpectrumError, match="second table") as error:
        read(tmp_path / "a.dat", f"{content}\n{content}")
    assert error.value.reason is Reason.AMBIGUOUS_COLUMNS


@pytest.mark.parametrize("change", [{"mode": "Kind"}, {"offset": "Dark"}, {"d": "unknown"}])
def test_9809_that_lacks_what_it_needs_is_refused(change, tmp_path):
    with pytest.raises(SpectrumError, match="rows Mode and Offset, or D") as error:
        read(tmp_path / "a.dat", file_9809((1, 2), (I0, IT), **change))
    assert error.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    "first", ["SSRL   EXAFS Data Collector 1.3", "SSRL   MicroEXAFS Data Collector 1.0"]
)
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_ssrl_by_the_names_after_data(first, separator, tmp_path):
    names = ["Real time clock", "Requested Energy", "Achieved Energy", "I0", "I1", "I2", "SCA1.1"]
    columns = [TIME, ENERGY + 0.5, ENERGY, I0, IT, IR, IR * 0.1]
    weights, offsets = (
        separator.join(["1.000"] * 7),
        separator.join(["0.000"] * 3 + ["150.000"] * 4),
    )
    content = "\n".join([
        first, "Sun May 21 00:13:57 2006", "PTS: 200 COLS: 7",
        "4 2000 25 RST 0 0", "I0 and I1: N2", "Weights:", weights, "Offsets:", offsets, "Data:",
        *names, "", *table(columns, ["{:.5f}"] * 7).replace(" ", separator).split("\n"),
    ])  # fmt: skip
    (sweep,) = read(tmp_path / "a.dat", content).sweeps
    np.testing.assert_allclose(sweep.energy, ENERGY, atol=1e-4)
    assert sweep.signals.keys() == {"i0", "it", "ir"}
    for name, counts in (("i0", I0), ("it", IT), ("ir", IR)):
        np.testing.assert_allclose(sweep.signals[name], counts, rtol=1e-5)
    (sweep,) = read(tmp_path / "a.dat", content, iff="SCA1.1").sweeps
    np.testing.assert_allclose(sweep.signals["iff"], IR * 0.1, rtol=1e-4)


def test_ssrl_without_names_is_refused(tmp_path):
    with pytest.raises(SpectrumError, match="names no columns") as error:
        read(tmp_path / "a.dat", "SSRL   EXAFS Data Collector 1.3\n1 2 3\n4 5 6\n")
    assert error.value.reason is Reason.UNREADABLE
