"""Mixtures of measured CuO and copper, whose foil is another beamline's than the reference's."""

import numpy as np
import pytest

from exafsd.composition.composer import Composer
from exafsd.composition.references import load, shipped_folder
from exafsd.contract.columns import best_answer
from exafsd.inference.registry import Registry, load_bundle
from exafsd.inference.registry import shipped_folder as models_folder
from exafsd.pipeline import Pipeline
from mixing import normalised, on_one_scale, sweeps

SWEEPS = 41


@pytest.fixture(scope="module")
def references():
    return load([shipped_folder()])[0]


@pytest.fixture(scope="module")
def phases(data, references):
    """CuO as it ships (Larch's tenorite), and foils of two beamlines on its energy scale."""
    composer = Composer(references)
    files = [data / "xas" / "Cu" / f"{n}.xdi" for n in ("Cu_Foil_rt_2016Foils", "cu_metal_rt")]
    foils = [on_one_scale(file, composer) for file in files]
    return normalised(next(one for one in references if one.name == "CuO")), foils


@pytest.mark.measured
@pytest.mark.parametrize("foil", [0, 1])
@pytest.mark.parametrize("named", [("Cu", "CuO"), ()], ids=["two", "all"])
def test_every_sweep_has_its_shares_and_the_run_two_components(phases, references, foil, named):
    oxide, foils = phases
    shares = np.linspace(0, 1, SWEEPS)
    jobs = sweeps("Cu", {"CuO": oxide, "Cu": foils[foil]}, shares, foil, named)
    pipe = Pipeline(Registry({}, {}), (), composer=Composer(references))
    messages = [outcomes[0].message for outcomes in pipe.process_many(jobs)]
    values = [{one.phase: one.value for one in m.composition.fractions} for m in messages]
    assert all(m.composition.in_domain for m in messages)
    errors = [one.get("Cu", 0.0) - share for one, share in zip(values, shares, strict=True)]
    assert np.abs(errors).max() <= (0.006 if named else 0.015)  # 0.03 is asked for
    assert messages[-1].composition.components.by_structure == 2
    assert messages[-1].composition.components.by_noise == 2


@pytest.mark.measured
def test_each_phase_has_the_distance_that_it_has_alone(phases, references):
    oxide, (_, foil) = phases
    names = ("cu-k-cuo", "cu-k-fcc")
    registry = Registry({name: load_bundle(models_folder() / name) for name in names}, {})
    pipe = Pipeline(registry, (), composer=Composer(references))
    jobs = sweeps("Cu", {"CuO": oxide, "Cu": foil}, (0.0, 0.3, 0.5, 0.7, 0.99, 1.0))
    cuo, *mixed, little, copper = [outcome.message for (outcome,) in pipe.process_many(jobs)]
    alone = {
        name: best_answer(one.model_dump(mode="json"))[0][0]["r"]["value"]
        for name, one in (("CuO", cuo), ("Cu", copper))
    }
    for message in mixed:
        fitted = {one.phase: one for one in message.mixture.phases if one.shells}
        assert {one.phase for one in message.mixture.phases if one.share.value >= 0.3} <= {*fitted}
        for name, one in fitted.items():
            r = one.shells[0].r
            assert abs(r.value - alone[name]) < max(0.02, 1.645 * r.std)
    assert little.mixture.phases == []
