"""Near edges as shares and spectra of components, and between what these may be."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from exafsd.commands.cli import app
from exafsd.composition.mcr_als import McrError, mcr_als, meeting_points
from exafsd.composition.xanes import BELOW, BIN, near_edges
from near_edge_runs import measured, ramp, smooth_references

NOISE = 1e-3


@pytest.fixture(scope="module")
def shapes():
    return smooth_references()


def series(shapes, names, sweeps=60):
    """Near edges (n, m), those of the pure phases (c, m), and the shares (n, c)."""
    shares = ramp(len(names), sweeps)
    rng = np.random.default_rng(0)
    energy, mus, edge = measured(shapes, names, shares, rng, NOISE, jitter=0.0)
    flat = np.array([one.flat for one in near_edges(energy, mus, edge)])
    pure = np.array([shapes[name](energy) for name in names])
    return flat, np.array([one.flat for one in near_edges(energy, pure, edge)]), shares


@pytest.mark.parametrize("names", [["CuO", "Cu"], ["CuO", "Cu2O", "Cu"], ["ZnS", "ZnO"]])
def test_shares_and_spectra_come_back_and_lie_in_their_band(shapes, names):
    flat, pure, shares = series(shapes, names)
    resolution = mcr_als(flat, len(names), NOISE)
    assert resolution.converged
    assert resolution.rest < NOISE
    np.testing.assert_allclose(resolution.shares.sum(axis=1), 1.0)
    assert resolution.shares.min() >= 0
    order = [int(np.argmin(np.sum((resolution.spectra - one) ** 2, axis=1))) for one in pure]
    assert sorted(order) == list(range(len(names)))
    np.testing.assert_allclose(resolution.shares[:, order], shares, atol=0.02)
    np.testing.assert_allclose(resolution.spectra[order], pure, atol=0.02)
    low, high = resolution.low[:, order], resolution.high[:, order]
    assert np.all(low <= shares + 0.02)
    assert np.all(high >= shares - 0.02)
    assert np.all(low <= resolution.shares[:, order] + 1e-9)


def test_without_pure_spectra_the_band_is_wide_and_an_anchor_narrows_it(shapes):
    flat, pure, shares = series(shapes, ["CuO", "Cu"])
    middle = slice(15, 45)
    free = mcr_als(flat[middle], 2, NOISE)
    assert np.mean(free.high - free.low) > 0.3
    order = [int(np.argmin(np.sum((free.spectra - one) ** 2, axis=1))) for one in pure]
    assert np.all(free.low[:, order] <= shares[middle] + 0.02)
    assert np.all(free.high[:, order] >= shares[middle] - 0.02)
    held = mcr_als(flat[middle], 2, NOISE, pure)
    np.testing.assert_allclose(held.spectra, pure)
    np.testing.assert_allclose(held.shares, shares[middle], atol=0.01)
    np.testing.assert_allclose(held.low, held.high)


def test_two_phases_meet_where_their_spectra_cross_and_three_do_not(shapes):
    flat, pure, _ = series(shapes, ["CuO", "Cu"])
    energy = 8979.0 + BELOW + BIN / 2 + BIN * np.arange(flat.shape[1])
    points = meeting_points(energy, flat, NOISE)
    assert points
    for point in points:
        values = [np.interp(point, energy, one) for one in pure]
        assert values[0] == pytest.approx(values[1], abs=0.01)
    three, _, _ = series(shapes, ["CuO", "Cu2O", "Cu"])
    assert meeting_points(energy, three, NOISE) == []


@pytest.mark.parametrize(
    ("count", "rows", "anchors", "why"),
    [(1, 9, 0, "2 to 5"), (6, 9, 0, "2 to 5"), (3, 3, 0, "too few"), (2, 9, 3, "3 spectra")],
)
def test_what_cannot_be_resolved_is_refused(count, rows, anchors, why):
    with pytest.raises(McrError, match=why):
        mcr_als(np.ones((rows, 20)), count, NOISE, np.ones((anchors, 20)) if anchors else None)


@pytest.fixture(scope="module")
def files(shapes, tmp_path_factory):
    """Spectra of one sample in files; and of another edge in one."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    energy, mus, _ = measured(shapes, ["CuO", "Cu"], ramp(2, 10), rng, high=600.0)
    paths = []
    for i, mu in enumerate(mus):
        paths.append(folder / f"s{i}.xdi")
        head = "# XDI/1.0\n# Column.1: energy eV\n# Column.2: mutrans\n"
        head += "# Element.symbol: Cu\n# Element.edge: K\n#---\n"
        rows = "\n".join(f"{e:.3f} {m:.7f}" for e, m in zip(energy, mu, strict=True))
        paths[-1].write_text(f"{head}{rows}\n")
    return list(map(str, paths))


def test_files_as_components(files):
    run = CliRunner()
    done = run.invoke(
        app, ["analyze", *files, "--model", "none", "--components", "2", "--anchor", "Cu", "--json"]
    )
    assert done.exit_code == 0, done.output
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert line["kind"] == "components"
    assert line["places"] == [f"s{i}.xdi" for i in range(10)]
    assert [one["name"] for one in line["components"]] == ["Cu", "2"]
    assert line["components"][0]["share"] == pytest.approx(np.linspace(0, 1, 10), abs=0.03)
    assert line["counted"] == {"by_noise": 2, "by_structure": 2}
    assert line["isosbestic"]
    shown = run.invoke(app, ["analyze", *files, "--model", "none", "--components", "2"])
    assert "suggests two phases" in shown.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--components", "9"], "2 to 5"),
        (["--components", "2", "--anchor", "Xx"], "no reference Xx"),
        (["--anchor", "Cu"], "needs --components"),
    ],
)
def test_options_that_do_not_fit_say_so(files, options, why):
    done = CliRunner().invoke(app, ["analyze", files[0], *options])
    assert done.exit_code
    assert why in done.output


def test_ends_of_a_series_of_files_are_what_it_is_compared_with(files, tmp_path):
    config = tmp_path / "exafsd.toml"
    config.write_text("[composition]\nends = 2\n")
    done = CliRunner().invoke(
        app, ["analyze", *files, "--model", "none", "--config", str(config), "--json"]
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert all(one["composition"]["references"] == ["first", "last"] for one in lines)
    last = [one["composition"]["fractions"][-1]["value"] for one in lines]
    # the ends are means of two, so what lies beyond is all one end
    truth = np.clip((np.linspace(0, 1, 10) - 0.5 / 9) / (1 - 1 / 9), 0, 1)
    assert last == pytest.approx(truth, abs=0.03)
