"""mu(E) to chi(k): Larch's own numbers, E0 policies, channels, files, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exafsd.contract import Autobk, FitWindow, Recipe, Xftf, rows_to_grid, to_grid
from exafsd.reduction.engine import reduce_mu
from exafsd.reduction.reducer import ReductionJob
from exafsd.reduction.transform import grid_transform, misfit
from exafsd.settings.analysis import Analysis, Reduction, adapter
from exafsd.spectra import Edge, Rejected, Run, Spectrum, SpectrumError, SpectrumId, Sweep
from reducing import Preparation, Reducing, analysed, sweeps_of_file
from synthetic import foil, sweep_columns

ONES = np.ones(400)
RUN = Run(uid="run", edges=(Edge("Cu", "K"),))


def sweep(energy=None, run=RUN, number=1, **signals):
    if energy is None:
        energy, columns, _ = sweep_columns()
        signals = {name.lower(): column for name, column in columns.items()} | signals
    return Sweep(run, "primary", number, np.asarray(energy, float), signals)


def outcomes(a_sweep, analysis=None):
    return Preparation().spectra(a_sweep, analysis or Analysis())


def reduce(reducer, spectrum, analysis=None):
    sweep = analysed(spectrum.id.sweep, analysis or Analysis())
    (reduced,) = reducer.reduce([replace(spectrum, id=replace(spectrum.id, sweep=sweep))])
    if isinstance(reduced, SpectrumError):
        raise reduced
    return reduced


def rejection(a_sweep, analysis=None):
    items = outcomes(a_sweep, analysis)
    assert isinstance(items[0], Rejected), items
    return items[0]


@pytest.mark.measured
def test_frozen_ranges_change_nothing_on_measured_spectra(data):
    for path in sorted((data / "xas" / "Cu").glob("*.xdi")):
        analysis = Analysis()
        (a_sweep,) = sweeps_of_file(path, analysis.adapter)
        spectrum = outcomes(a_sweep)[0]
        first = reduce_mu(spectrum.energy, spectrum.mu, Recipe())
        again = reduce_mu(spectrum.energy, spectrum.mu, first.recipe, first.e0)
        np.testing.assert_allclose(again.chi, first.chi, atol=1e-9)


def test_chi_r_of_the_grid_is_xftf():
    reduced = reduce_mu(*foil(), Recipe(), engine="larch")
    k_end = reduced.k_data[1]
    chi_k2, _ = to_grid(reduced.k, reduced.chi, 0.0, k_end)
    transform = grid_transform(Xftf(), k_end)
    np.testing.assert_allclose(transform.r, reduced.r)
    np.testing.assert_allclose(
        np.abs(transform(chi_k2)), reduced.chir_mag, atol=1e-5 * reduced.chir_mag.max()
    )
    rows = np.stack([chi_k2, chi_k2, 0 * chi_k2])
    models = np.stack([chi_k2, 0 * chi_k2, chi_k2])
    np.testing.assert_allclose(misfit(rows, models, FitWindow(), 14.0).r_factor(), [0, 1, np.nan])


def test_the_misfit_in_a_window_is_that_of_the_transform():
    rng = np.random.default_rng(0)
    data = np.zeros((5, 401))
    data[:, 60:280] = rng.normal(size=(5, 220))
    models = data + 0.01 * rng.normal(size=data.shape)
    window = FitWindow(r=(1.2, 5.3))
    transform = grid_transform(
        Xftf(kmin=window.k[0], kmax=window.k[1], dk=window.dk, kweight=window.kweight,
             window=window.window), 14.0,
    )  # fmt: skip
    inside = (transform.r > 1.2 - 0.031) & (transform.r <= 5.3 - 0.031)
    missed, signal = (
        (np.abs(transform(rows)[:, inside]) ** 2).sum(axis=1) for rows in (data - models, data)
    )
    np.testing.assert_allclose(misfit(data, models, window, 14.0).signal, signal, rtol=1e-9)
    np.testing.assert_allclose(misfit(data, models, window, 14.0).missed, missed, rtol=1e-9)


def test_rows_to_grid_is_to_grid():
    for high in (9200.0, 9900.0, 10700.0):
        reduced = reduce_mu(*foil(high=high), Recipe())
        for k_end in (reduced.k_data[1], 5.03, 30.0):
            rows, mask = rows_to_grid(reduced.chi[None], 2.0, k_end)
            expected, expected_mask = to_grid(reduced.k, reduced.chi, 2.0, k_end)
            np.testing.assert_array_equal(mask, expected_mask)
            np.testing.assert_allclose(rows[0], expected, atol=1e-6)


def test_spectra_reduced_together_are_as_one_by_one():
    """Runs, channels and grids mixed; the first of each run decides for it."""
    spectra = []
    for number in range(24):
        energy, mu = foil(400 if number % 5 else 300, e0=8979 + number % 3, seed=number, noise=1e-4)
        run = Run(uid=f"run{number % 4}", edges=RUN.edges)
        channel = "transmission" if number % 2 else "reference"
        a_sweep = sweep(run=run, number=number)
        spectra.append(Spectrum(SpectrumId(a_sweep, channel, RUN.edges[0]), energy, mu))
    together, apart = Reducing(), Reducing()
    for spectrum, reduced in zip(spectra, together.reduce(spectra), strict=True):
        (single,) = apart.reduce([spectrum])
        assert reduced.e0 == single.e0
        np.testing.assert_allclose(reduced.chi, single.chi, atol=1e-10)


def test_a_bad_spectrum_in_a_batch_hurts_no_other():
    energy, mu = foil(noise=1e-4)
    mus = [mu, -mu, mu, np.ones(400), mu]
    spectra = [
        Spectrum(SpectrumId(sweep(number=i), "transmission", RUN.edges[0]), energy, m)
        for i, m in enumerate(mus)
    ]
    reduced = Reducing().reduce(spectra)
    assert [isinstance(one, SpectrumError) for one in reduced] == [False, True, False, True, False]


def test_noise_estimate_follows_the_noise():
    estimates = [
        reduce_mu(*foil(points=900, noise=noise), Recipe()).epsilon_k for noise in (1e-3, 1e-2)
    ]
    assert estimates[1] == pytest.approx(10 * estimates[0], rel=0.5)


def test_e0_policies():
    reducer = Reducing()
    run_policy = Analysis()
    auto = Analysis(reduction=Reduction(e0_policy="auto"))
    fixed = Analysis(reduction=Reduction(e0_policy="fixed", e0=8985.0))

    def e0_of(number, shift, analysis, uid):
        energy, mu = foil(e0=8979.0 + shift, noise=1e-4)
        a_sweep = sweep(run=Run(uid=uid, edges=RUN.edges), number=number)
        spectrum = Spectrum(SpectrumId(a_sweep, "transmission", RUN.edges[0]), energy, mu)
        return reduce(reducer, spectrum, analysis).e0

    first = e0_of(1, 0.0, run_policy, "a")
    assert e0_of(2, 6.0, run_policy, "a") == first  # the run's first decides
    assert e0_of(1, 6.0, run_policy, "b") > first + 3  # another run has its own
    del reducer.memories["a"]
    assert e0_of(3, 6.0, run_policy, "a") > first + 3  # forgotten with its run
    assert e0_of(2, 0.0, auto, "c") != e0_of(3, 6.0, auto, "c")
    assert e0_of(1, 0.0, fixed, "d") == 8985.0
    with pytest.raises(SpectrumError, match=r"reduction\.e0"):
        e0_of(1, 0.0, Analysis(reduction=Reduction(e0_policy="fixed")), "e")


def test_channels_side_by_side():
    energy, columns, _ = sweep_columns()
    signals = {n.lower(): c for n, c in columns.items()} | {"iff": columns["I0"] * 0.1}
    spectra = outcomes(sweep(energy, **signals))
    assert [f.id.channel for f in spectra] == ["transmission", "fluorescence", "reference"]
    np.testing.assert_allclose(spectra[0].mu, np.log(columns["I0"] / columns["It"]))
    np.testing.assert_allclose(spectra[1].mu, 0.1)
    np.testing.assert_allclose(spectra[2].mu, np.log(columns["It"] / columns["Ir"]))
    only = Analysis(reduction=Reduction(channels=("reference",)))
    assert [f.id.channel for f in outcomes(sweep(energy, **signals), only)] == ["reference"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_repeats_do_not_change_mu(seed):
    rng = np.random.default_rng(seed)
    energy, columns, _ = sweep_columns(points=200)
    order = rng.permutation(200)
    order = np.concatenate([order, order[:5]])  # some points twice
    (got, *_) = outcomes(sweep(energy[order], **{n.lower(): c[order] for n, c in columns.items()}))
    np.testing.assert_allclose(got.energy, energy)
    np.testing.assert_allclose(got.mu, np.log(columns["I0"] / columns["It"]), rtol=1e-9)
    assert set(got.quality) == {"energy_unsorted", "energies_merged"}


def test_a_down_sweep_is_no_disorder():
    energy, columns, _ = sweep_columns(number=1)
    spectra = outcomes(sweep(energy, **{n.lower(): c for n, c in columns.items()}))
    assert spectra[0].quality == ()
    assert (np.diff(spectra[0].energy) > 0).all()


def broken(name, value, share=1.0):
    energy, columns, _ = sweep_columns()
    signals = {n.lower(): c.copy() for n, c in columns.items()}
    target = energy if name == "energy" else signals[name]
    count = max(int(share * len(target)), 1)
    target[:count] = value
    return sweep(energy, **signals)


@pytest.mark.parametrize(
    ("bad", "reason", "says"),
    [
        (broken("i0", 0.0), "i0_zero", "shutter"),
        (broken("it", 0.0), "it_zero", "it is zero"),
        (broken("it", np.nan, 0.1), "non_finite", "NaN"),
        (broken("energy", np.nan), "non_finite", "NaN"),
        (sweep(np.linspace(8.9, 9.9, 400), i0=ONES, it=ONES), "energy_unit", "keV"),
        (sweep(np.linspace(-5, 9000, 400), i0=ONES, it=ONES), "energy_unit", "unit"),
        (sweep(np.linspace(8900, 9000, 5), i0=np.ones(5), it=np.ones(5)), "too_few_points", "5 "),
        (sweep(np.full(400, 9000.0), i0=ONES, it=ONES), "too_few_points", "1 "),
        (sweep(np.linspace(8900, 9900, 400), i0=ONES), "missing_column", "it"),
        (sweep(np.linspace(8900, 9900, 400), i0=np.ones(9), it=np.ones(9)), "shape_mismatch", "9"),
        (sweep(np.linspace(7000, 8000, 400), i0=ONES, it=ONES), "no_edge", "Cu K"),
        (sweep(run=Run(uid="r", edges=(Edge("Xx", "K"),))), "unknown_element", "Xx"),
        (sweep(run=Run(uid="r", edges=(Edge("Cu", "Q9"),))), "unknown_element", "Q9"),
        (sweep(run=Run(uid="r", edges=(Edge("Au", ""),))), "no_edge", "Au"),
    ],
)  # fmt: skip
def test_bad_sweeps_are_rejected_with_a_reason(bad, reason, says):
    rejected = rejection(bad)
    assert rejected.error.reason == reason
    assert says in rejected.error.detail


@pytest.mark.parametrize(
    "mu",
    [
        np.ones(400),
        np.random.default_rng(0).normal(1, 0.01, 400),
        -foil()[1],
        np.linspace(2, 1, 400),
    ],
    ids=["flat", "noise", "upside down", "slope"],
)
def test_no_edge_is_said(mu):
    energy, _ = foil()
    spectrum = Spectrum(SpectrumId(sweep(), "transmission", RUN.edges[0]), energy, mu)
    with pytest.raises(SpectrumError) as caught:
        reduce(Reducing(), spectrum)
    assert caught.value.reason in ("no_edge", "larch_failed")


def test_a_few_bad_points_are_dropped_and_said():
    (got, *_) = outcomes(broken("i0", np.nan, 0.01))
    assert isinstance(got, Spectrum)
    assert "points_dropped" in got.quality
    assert len(got.energy) == 396


def test_saturation_is_flagged():
    analysis = Analysis(adapter=adapter("generic", saturation={"i0": 1e6}))
    assert "saturated_i0" in outcomes(sweep(), analysis)[0].quality


def test_wrong_element_and_short_range_are_flagged():
    energy, mu = foil(e0=9040.0)
    spectrum = Spectrum(SpectrumId(sweep(), "transmission", RUN.edges[0]), energy, mu)
    assert "wrong_element" in reduce(Reducing(), spectrum).quality
    energy, mu = foil(high=9080.0)
    spectrum = Spectrum(SpectrumId(sweep(), "transmission", RUN.edges[0]), energy, mu)
    assert "short_k_range" in reduce(Reducing(), spectrum).quality


def test_element_and_edge_are_guessed_where_they_are_missing():
    spectrum = outcomes(sweep(run=Run(uid="r")))[0]
    assert (spectrum.id.edge, spectrum.id.guessed) == (Edge("Cu", "K"), ("element", "edge"))
    spectrum = outcomes(sweep(run=Run(uid="r", edges=(Edge("Cu", ""),))))[0]
    assert (spectrum.id.edge, spectrum.id.guessed) == (Edge("Cu", "K"), ("edge",))


def test_a_sweep_over_two_edges_gives_both():
    energy = np.linspace(8100, 9900, 1800)
    mu = foil(1800, low=8100, high=9900)[1] + 0.7 * (np.arctan(energy - 8333) / np.pi + 0.5)
    run = Run(uid="r", edges=(Edge("Ni", "K"), Edge("Cu", "K")))
    spectra = outcomes(sweep(energy, run=run, i0=np.ones(1800), it=np.exp(-mu)))
    assert [f.id.edge.element for f in spectra] == ["Ni", "Cu"]
    assert spectra[0].energy[-1] < 8979 - 25
    assert spectra[1].energy[0] > 8979 - 310


def test_recipe_reaches_larch():
    energy, mu = foil()
    a = reduce_mu(energy, mu, Recipe(autobk=Autobk(rbkg=1.0)))
    b = reduce_mu(energy, mu, Recipe(autobk=Autobk(rbkg=1.4)))
    assert not np.allclose(a.chi, b.chi)


@pytest.mark.measured
def test_files_of_every_measured_folder_are_read(data):
    analysis = Analysis()
    files, refused = 0, []
    for path in sorted((data / "xas").glob("*/*.xdi")):
        for a_sweep in sweeps_of_file(path, analysis.adapter):
            for outcome in outcomes(a_sweep):
                files += 1
                if isinstance(outcome, Rejected):
                    refused.append((path.name, outcome.id.channel, outcome.error.reason))
                    continue
                assert (
                    outcome.id.edge.element == path.parent.name or outcome.id.channel == "reference"
                )
    assert files >= 100
    # a rejection is allowed only where a column really is unusable
    assert all(channel == "reference" for _, channel, _ in refused), refused


def test_ascii_and_hdf5_files(tmp_path):
    energy, mu = foil()
    table = np.column_stack([energy, mu])
    bare = tmp_path / "bare.dat"
    np.savetxt(bare, table)
    named = tmp_path / "named.dat"
    np.savetxt(named, np.column_stack([energy, np.full(400, 1e5), 1e5 * np.exp(-mu)]),
               header="energy i0 itrans")  # fmt: skip
    stack = tmp_path / "stack.h5"
    with h5py.File(stack, "w") as file:
        file["entry/energy"] = energy
        file["entry/mutrans"] = np.stack([mu, mu + 0.1, mu + 0.2])
    kev = tmp_path / "kev.h5"
    with h5py.File(kev, "w") as file:
        file["entry/energy"] = energy / 1e3
        file["entry/energy"].attrs["units"] = "keV"
        file["entry/mutrans"] = mu
    for path, count in ((bare, 1), (named, 1), (stack, 3), (kev, 1)):
        sweeps = sweeps_of_file(path, adapter())
        assert len(sweeps) == count, path
        spectrum = outcomes(sweeps[0])[0]
        assert isinstance(spectrum, Spectrum), spectrum
        np.testing.assert_allclose(spectrum.energy, energy, rtol=1e-6)
        np.testing.assert_allclose(spectrum.mu, mu, atol=1e-5)
        assert spectrum.id.edge == Edge("Cu", "K")


def test_groups_of_an_hdf5_file_are_never_mixed(tmp_path):
    energy, mu = foil()
    columns = {"I0": np.full(400, 1e5), "It": 1e5 * np.exp(-mu)}
    two, mixed, rows = (tmp_path / f"{name}.h5" for name in ("two", "mixed", "rows"))
    with h5py.File(two, "w") as file:
        for i in (1, 2):
            file[f"scan{i}/energy"] = energy + i
            for name, column in columns.items():
                file[f"scan{i}/{name}"] = column
    sweeps = sweeps_of_file(two, adapter())
    assert [s.number for s in sweeps] == [1, 2]
    assert [s.energy[0] for s in sweeps] == [energy[0] + 1, energy[0] + 2]
    with h5py.File(mixed, "w") as file:
        file["a/energy"], file["a/other"] = energy, energy
        file["b/energy"], file["c/It"] = energy + 500, columns["It"]
    with pytest.raises(SpectrumError, match="not clear which belong"):
        sweeps_of_file(mixed, adapter())
    with h5py.File(rows, "w") as file:
        file["energy"] = np.stack([energy] * 3)
        file["I0"], file["It"] = np.stack([columns["I0"]] * 2), np.stack([columns["It"]] * 3)
    with pytest.raises(SpectrumError, match="which of them are sweeps"):
        sweeps_of_file(rows, adapter())
    apart = tmp_path / "apart.h5"  # as NeXus likes it: one group per detector
    with h5py.File(apart, "w") as file:
        file["mono/mono_energy"] = energy / 1e3
        file["mono/mono_energy"].attrs["units"] = np.bytes_(b"keV")
        file["entry/element"] = b"C\xfcu"
        file["i0/I0"], file["it/It"] = columns["I0"], columns["It"]
    (one,) = sweeps_of_file(apart, adapter())
    np.testing.assert_allclose(one.energy, energy)


def test_a_short_first_sweep_does_not_cut_the_run():
    reducer = Reducing()

    def reduced(number, high):
        energy, mu = foil(500, noise=1e-4, high=high)
        one = sweep(run=Run(uid="a", edges=RUN.edges), number=number)
        spectrum = Spectrum(SpectrumId(one, "transmission", RUN.edges[0]), energy, mu)
        return reduce(reducer, spectrum)

    short, long, again = reduced(1, 9400.0), reduced(2, 9900.0), reduced(3, 9900.0)
    assert short.k_data[1] < 11
    assert long.k_data[1] > 15
    assert again.k_data == long.k_data
    assert long.e0 == short.e0
    later = reduced(4, 9930.0)  # jitter of the end does not move the ranges
    assert later.recipe == again.recipe


def test_unreadable_files_are_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("this is no spectrum\n")
    binary = tmp_path / "image.bin"
    binary.write_bytes(bytes(range(256)) * 10)
    empty = tmp_path / "empty.dat"
    empty.write_text("")
    unknown = tmp_path / "unknown.dat"
    np.savetxt(unknown, np.ones((50, 4)), header="a b c d")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    for path in (text, binary, empty, unknown, cut, tmp_path / "missing.xdi", tmp_path):
        with pytest.raises(SpectrumError, match=str(path)):
            sweeps_of_file(path, adapter())


def test_reduction_loads_no_wire_and_no_archive():
    code = (
        "import exafsd.reduction.reducer, exafsd.documents.files, sys;"
        "bad = {'zmq', 'databroker', 'tiled', 'tensorflow', 'onnxruntime'} & set(sys.modules);"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_e0_that_is_placed_is_not_that_of_jobs_without():
    """Fits have Larch's E0 beside networks that place theirs, in one run and by one recipe."""
    spectra = outcomes(sweep())
    reducing = Reducing()
    memory = reducing.memories["run"]
    usual = reducing.reduce(spectra[:1])[0].e0
    memory.settled.clear()
    jobs = [
        ReductionJob(spectra[0], Recipe(), memory, usual - 6.0),
        ReductionJob(spectra[0], Recipe(), memory, unplaced=True),
    ]
    for _ in range(2):
        placed, unplaced = reducing.reducer.reduce(jobs)
        assert placed.e0 == pytest.approx(usual - 6.0)
        assert unplaced.e0 == pytest.approx(usual)
