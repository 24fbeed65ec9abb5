"""Presets on streams of the shape that the beamlines' own code gives; it is named beside them."""

import time

import numpy as np
import pytest
from event_model import compose_run

from documents_in import feed, problems_of, sweeps_of
from exafsd.documents.energy import HC
from exafsd.settings.analysis import Analysis, adapter
from synthetic import sweep_columns

ENERGY, COLUMNS, _ = sweep_columns(0, points=600)
#: mV, as inverting amplifiers give them, without their offsets
I0 = np.full(600, -2000.0)
IT, IR = I0 * COLUMNS["It"] / COLUMNS["I0"], I0 * COLUMNS["Ir"] / COLUMNS["I0"] * 0.5
OFFSETS = {"ch1_offset": 12.0, "ch2_offset": -7.0, "ch3_offset": 3.0, "ch4_offset": 0.5}
ANGLE_OFFSET = 0.05


def value(n, dtype="number"):
    return {"source": f"PV:{n}", "dtype": dtype, "shape": []}


@pytest.mark.parametrize(
    ("listed", "elements"),
    [(["Cu1", "Cu2", "Cu3", "Cu4"], 4), (["Cu8"], 1), (("Cu1", "Cu2"), 2), (None, 2)],
)
def test_bmm_step_scans(listed, elements):
    xdi = {
        "Element": {"symbol": "Cu", "edge": "K"}, "Sample": {"name": "foil", "temperature": 25.0},
        "Mono": {"d_spacing": "3.1356369", "direction": "forward"}, "_mode": ("fluorescence",),
    }  # fmt: skip
    if listed is not None:
        xdi["_dtc"] = listed
    names = listed or ["DTC1", "DTC3"]
    run = compose_run(metadata={"XDI": xdi, "plan_name": "scan_nd xafs fluorescence"})
    keys = ("dcm_energy", "dcm_energy_setpoint", "dwti_dwell_time", "I0", "It", "Ir", *names)
    more = {} if listed is None else {"DTC1": value("old")}
    stream = run.compose_descriptor(
        name="primary", data_keys={k: {**value(k), "units": ""} for k in keys} | more
    )
    documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for n in range(600):
        data = {
            "dcm_energy": ENERGY[n], "dcm_energy_setpoint": ENERGY[n], "dwti_dwell_time": 0.5,
            "I0": -I0[n], "It": -IT[n], "Ir": -IR[n],
        } | {name: 10.0 * i + n for i, name in enumerate(names)}  # fmt: skip
        data |= {"DTC1": 1e6} if more else {}
        event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0), validate=False)
        documents.append(("event", event))
    documents.append(("stop", run.compose_stop()))
    items = feed(documents, analysis=Analysis(adapter=adapter("bmm")))
    (sweep,) = sweeps_of(items)
    np.testing.assert_allclose(sweep.energy, ENERGY)
    np.testing.assert_allclose(sweep.signals["i0"], -I0)
    expected = np.sum([10.0 * i + np.arange(600) for i in range(elements)], axis=0)
    np.testing.assert_allclose(sweep.signals["iff"], expected)
    assert [(e.element, e.edge) for e in sweep.run.edges] == [("Cu", "K")]
    assert sweep.run.sample == "foil" and sweep.context["XDI.Sample.temperature"]["value"] == 25.0
    assert problems_of(items) == []


def pizza_box(path, times, mirrored=0):
    """Rows of ten int32: eight readings in microvolt with their offsets, s and ticks."""
    table = np.zeros((len(times) + mirrored, 10), "<i4")
    readings = np.array([np.interp(times, TIMES, column) for column in (I0, IT, IR, IR)])
    offsets = np.array(list(OFFSETS.values()))[:, None]
    table[: len(times), :4] = np.round(1e3 * (readings + offsets)).T
    table[: len(times), 8] = np.floor(times)
    table[: len(times), 9] = np.round((times % 1) / 8.0051232e-9)
    table[len(times) :, 8] = 1000  # what an earlier scan has left
    path.write_bytes(table.tobytes())


def encoder(path, times, pulses, d, wrapped):
    """Text rows of s, ns, counts, index and state; a first row that was never filled."""
    energy = np.interp(times, TIMES, ENERGY)
    angle = np.degrees(np.arcsin(HC / (2 * d * energy))) + ANGLE_OFFSET
    counts = -np.round(angle * pulses).astype(int)
    if wrapped:
        counts = counts + (1 << 24)
    rows = [
        f"{int(t)} {round(t % 1 * 1e9)} {c} {i} 1"
        for i, (t, c) in enumerate(zip(times, counts, strict=True))
    ]
    path.write_text("\n".join(["0 0 0 0 0", *rows]))


START = 1.7e9
TIMES = START + np.linspace(0, 10, 600)


@pytest.mark.parametrize(
    ("preset", "device", "spec", "pulses", "d", "wrapped"),
    [
        ("iss", "pb9_enc1", "PIZZABOX_ENC_FILE_TXT_PD", 360000, 3.1356, False),
        ("iss", "pb9_enc1", "PIZZABOX_ENC_FILE_TXT_PD", 360000, 3.1356, True),
        ("qas", "pb1_enc1", "PIZZABOX_ENC_FILE_TXT", 26222.222, 3.1352004, False),
    ],
)
def test_iss_and_qas_fly_scans(preset, device, spec, pulses, d, wrapped, tmp_path):
    pizza_box(tmp_path / "box.bin", START + np.linspace(0, 10, 6000), mirrored=50)
    encoder(tmp_path / "en_1", START + np.linspace(0.003, 9.997, 3000), pulses, d, wrapped)
    gains = {f"ch{n}_amp_gain": 6 for n in range(1, 5)}
    offset = str(ANGLE_OFFSET) if preset == "qas" else ANGLE_OFFSET
    run = compose_run(
        metadata={
            "experiment": "fly_scan", "element": "Cu", "edge": "K", "e0": 8979.0, "name": "Cu scan",
            "angle_offset": offset, "mono_d_spacing": "3.1354951", **OFFSETS, **gains,
        }
    )  # fmt: skip
    documents, pages = [("start", run.start_doc)], []
    for name, key, file, kind, kwargs in (
        ("apb_stream", "apb_stream", "box.bin", "APB", {}),
        (device, device, "en_1", spec, {"chunk_num": 0} if preset == "qas" else {}),
    ):
        external = {"source": kind, "dtype": "array", "shape": [-1, -1], "external": "FILESTORE:"}
        stream = run.compose_descriptor(name=name, data_keys={key: external}, validate=False)
        documents.append(("descriptor", stream.descriptor_doc))
        resource = run.compose_resource(
            spec=kind, root=str(tmp_path), resource_path=file, resource_kwargs={}, validate=False
        )
        datum = resource.compose_datum(datum_kwargs=kwargs)
        page = stream.compose_event_page(
            data={key: [datum["datum_id"]]}, timestamps={key: [time.time()]}, seq_num=[1],
            filled={key: [False]}, time=[time.time()], validate=False,
        )  # fmt: skip
        pages.append(("event_page", page))
        documents += [("resource", resource.resource_doc), ("datum", datum)]
    documents += [*pages, ("stop", run.compose_stop())]
    items = feed(documents, roots=[tmp_path], analysis=Analysis(adapter=adapter(preset)))
    (sweep,) = sweeps_of(items)
    assert problems_of(items) == []
    assert abs(sweep.energy.min() - ENERGY[0]) < 1 and abs(sweep.energy.max() - ENERGY[-1]) < 1
    for name, column in (("i0", I0), ("it", IT), ("ir", IR)):
        expected = np.interp(sweep.energy, ENERGY, column)
        np.testing.assert_allclose(sweep.signals[name], expected, rtol=0.05)
    assert sweep.run.sample == "Cu scan"


def test_iss_step_scans():
    keys = {"hhm_energy": {**value("hhm"), "units": "deg"}}  # the preset knows better
    keys |= {f"apb_ave_ch{n}_mean": value("apb") for n in range(1, 5)}
    run = compose_run(metadata={"element": "Cu", "edge": "K", **OFFSETS})
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for n in range(600):
        readings = zip((I0, IT, IR, IR), OFFSETS.values(), strict=True)
        data = {"hhm_energy": ENERGY[n]} | {
            f"apb_ave_ch{i}_mean": column[n] + offset
            for i, (column, offset) in enumerate(readings, start=1)
        }
        event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0))
        documents.append(("event", event))
    documents.append(("stop", run.compose_stop()))
    (sweep,) = sweeps_of(feed(documents, analysis=Analysis(adapter=adapter("iss"))))
    np.testing.assert_allclose(sweep.energy, ENERGY)
    np.testing.assert_allclose(sweep.signals["i0"], I0)
    np.testing.assert_allclose(sweep.signals["it"], IT)
