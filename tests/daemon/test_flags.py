"""What the pipeline notices of spectra that it reads."""

from dataclasses import replace

import numpy as np
import pytest

from bundles import copper
from exafsd.contract import ETOK, K_GRID
from exafsd.contract.card import NearEdge, PoorFit
from exafsd.contract.recipe import Recipe
from exafsd.inference import near_edge
from exafsd.inference.judgement import signal_end
from exafsd.inference.registry import load_bundle, shipped_folder
from exafsd.reduction.engine import reduce_mu
from exafsd.spectra import Edge, Run, Sweep
from exafsd_training.reference.feffit import read_mu
from pipelines import CU, analysis, bundle_of, counted, one, pipeline


@pytest.mark.parametrize("off, flagged", [(0.0, False), (15.0, True), (-15.0, True)])
def test_an_energy_scale_that_is_off_is_flagged_and_nothing_withheld(tmp_path, foil, off, flagged):
    thresholds = copper().thresholds.model_copy(update={"edge_shift": (-7.0, 9.0)})
    counts = counted(foil)
    counts = replace(counts, energy=counts.energy + off)
    result = one(pipeline(bundle_of(tmp_path, "cu-k-own", CU, 0.9, thresholds=thresholds)), counts)
    assert ("edge_moved" in result["quality"]) == flagged
    assert result["trust"]["in_domain"]
    # where a material has its edge is not always known
    unknown = copper().thresholds.model_copy(update={"edge_shift": None})
    result = one(pipeline(bundle_of(tmp_path, "cu-k-other", CU, 0.9, thresholds=unknown)), counts)
    assert "edge_moved" not in result["quality"]


def test_what_fits_worse_than_measured_spectra_of_the_material_is_flagged(tmp_path, foil):
    def quality(ood, limit, r_factor=None, signal=None):
        def table(value):
            return value and ((value, value), (value, value))

        usual = limit and PoorFit(
            noise=(1e-5, 1e-1),
            k_end=(8.0, 16.0),
            limit=table(limit),
            r_factor=table(r_factor),
            signal=signal and (signal, signal),
        )
        thresholds = copper().thresholds.model_copy(update={"poor_fit": usual})
        own = bundle_of(
            tmp_path / f"{ood} {limit} {r_factor} {signal}",
            "cu-k-own",
            CU,
            0.9,
            ood,
            thresholds=thresholds,
        )
        result = one(pipeline(own), counted(foil))
        assert (result["shells"] is None) == (ood > 1)
        return "poor_fit" in result["quality"]

    assert quality(0.5, 0.4)
    assert not quality(0.5, 0.6)
    assert not quality(0.5, None)
    assert not quality(1.2, 0.4)  # withheld, and says so
    # it explains nine tenths of the amplitude: the R-factor is 0.01
    assert quality(0.5, 0.6, r_factor=0.009)
    assert not quality(0.5, 0.6, r_factor=0.011)
    assert quality(0.5, 0.4, r_factor=0.011)
    # a hot sample has less signal than is usual, and what it misses counts against that
    assert quality(0.5, 0.6, r_factor=0.009, signal=1e-6)
    assert not quality(0.5, 0.6, r_factor=0.009, signal=1e6)


@pytest.mark.measured
def test_a_measured_mixture_is_flagged_and_the_measured_phase_is_not(data):
    pipe = pipeline(bundles=[load_bundle(shipped_folder() / "zn-k-zns")])

    def flags(share, of="ZnC2O4"):
        energy, mu = read_mu(data / "xas/Zn/Chorover13BM_ZnS_aldrich_rt_02.xdi")
        other = np.interp(energy, *read_mu(data / f"xas/Zn/Chorover13BM_{of}_rt_01.xdi"))
        mixed = (1 - share) * mu / np.ptp(mu) + share * other / np.ptp(other)
        signals = {"i0": np.ones_like(mu), "it": np.exp(-mixed)}
        run = Run(uid="mixed", edges=(Edge("Zn", "K"),), analysis=analysis())
        counts = Sweep(run, "primary", 1, energy, signals)
        ((outcome,),) = pipe.process_many([counts])
        return outcome.message.quality

    assert not {"poor_fit", "edge_shape"} & set(flags(0.0))
    # what the score cannot tell from FEFF's errors, the R-factor of measured ZnS can
    for other in ("ZnC2O4", "Zn_hopeite", "Zn_smithsonite"):
        assert {"poor_fit", "edge_shape"} <= set(flags(0.3, other))
    assert "edge_shape" in flags(0.1, "Zn_smithsonite")


def test_another_near_edge_is_flagged_and_nothing_withheld(tmp_path, foil):
    counts = counted(foil)
    reduced = reduce_mu(counts.energy, np.log(counts.i0 / counts.it), Recipe())
    own, _ = near_edge.profile(reduced.energy, reduced.norm, reduced.e0)

    def result(profile):
        usual = profile and NearEdge(profile=tuple(profile), limit=0.0175)
        thresholds = copper().thresholds.model_copy(update={"near_edge": usual})
        bundle = bundle_of(tmp_path / str(len(list(tmp_path.iterdir()))), "cu-k-own", CU, 0.9,
                      thresholds=thresholds)  # fmt: skip
        return one(pipeline(bundle), counts)

    assert "edge_shape" not in result(list(own))["quality"]
    assert "edge_shape" not in result(None)["quality"]  # not known
    other = own + 0.1 * np.exp(-0.5 * ((near_edge.CENTRES - 12.0) / 3.0) ** 2)
    flagged = result(list(other))
    assert "edge_shape" in flagged["quality"]
    assert flagged["trust"]["in_domain"]
    assert flagged["shells"]


def test_a_scan_too_short_to_be_normalised_well_is_not_judged_by_its_near_edge(shipped, foil):
    whole = counted(foil)
    line = 0.2 * np.exp(-0.5 * ((whole.energy - 8995.0) / 3.0) ** 2)
    other = replace(whole, it=whole.it * np.exp(-line))
    assert "edge_shape" in one(pipeline(bundles=[shipped]), other)["quality"]
    near = whole.energy < 9100.0
    short = {name: getattr(other, name)[near] for name in ("energy", "i0", "it", "ir")}
    result = one(pipeline(bundles=[shipped]), replace(other, **short))
    assert result["shells"] is None
    assert "edge_shape" not in result["quality"]


def drifting(counts, start, size):
    """Counts of a detector that drifts above `start`, 1/angstrom: noise that is not white."""
    k = np.sqrt(np.maximum(counts.energy - 8979.0, 0) * ETOK)
    rng = np.random.default_rng(5)
    drift = sum(rng.normal() * np.sin(2 * r * k + rng.uniform(0, 6)) for r in np.arange(1, 6, 0.2))
    lost = size * (k - start) * drift
    return replace(counts, it=counts.it * np.exp(np.where(k > start, lost, 0.0)))


def test_a_noisy_end_is_left_out_where_the_rest_fits(shipped, foil):
    pipe = pipeline(bundles=[shipped])
    clean, noisy = (one(pipe, c) for c in (counted(foil), drifting(counted(foil), 11.0, 2e-3)))
    assert "noisy_end" not in clean["quality"]
    assert "noisy_end" in noisy["quality"]
    assert "poor_fit" not in noisy["quality"]
    assert noisy["trust"]["in_domain"]
    assert noisy["shells"][0]["r"] == pytest.approx(clean["shells"][0]["r"], abs=0.01)
    # noise that begins early leaves too little to tell a structure from another
    early = one(pipe, drifting(counted(foil), 6.0, 4e-3))
    assert early["shells"] is None
    assert "noisy_end" not in early["quality"]


def test_what_is_read_without_its_end_may_fit_poorly_too(shipped, foil):
    def quality(at_12, at_16):
        rows = ((at_12, at_16), (at_12, at_16))
        usual = PoorFit(noise=(1e-5, 1.0), k_end=(12.0, 16.0), limit=rows, r_factor=rows)
        thresholds = shipped.card.thresholds.model_copy(update={"poor_fit": usual})
        own = replace(shipped, card=shipped.card.model_copy(update={"thresholds": thresholds}))
        return one(pipeline(bundles=[own]), drifting(counted(foil), 10.5, 2e-3))["quality"]

    assert {"noisy_end", "poor_fit"} <= set(quality(1e-6, 1e6))
    # neither what the end would have counts, nor the R-factor with it
    assert {"noisy_end", "poor_fit"} & set(quality(1.0, 1e-6)) == {"noisy_end"}


def test_noise_begins_where_the_prediction_no_longer_explains():
    signal = np.sin(4 * K_GRID) * np.exp(-K_GRID / 10)
    mask = np.float32((K_GRID >= 2.5) & (K_GRID <= 14))
    noise = np.random.default_rng(1).normal(0, 1, K_GRID.size) * (K_GRID > 10)
    ends = signal_end(np.float32([signal, signal + noise]), np.array([signal, signal]), mask)
    assert ends[0] == K_GRID[mask > 0].max()
    assert ends[1] == pytest.approx(10, abs=0.3)
