"""What the near edge says of other phases makes numbers of one material doubtful."""

import numpy as np
import pytest
from larch import Group
from larch.xafs import pre_edge

from exafsd.composition import references
from exafsd.composition.composer import Composer
from exafsd.composition.purity import has_other_phases, is_mixture
from exafsd.composition.references import measured
from exafsd.contract.columns import best_answer
from exafsd.contract.frames import ARRAY_UNITS
from exafsd.contract.messages import Composition, Fraction, Value
from exafsd.formula import compound
from exafsd.inference.registry import Registry, load_bundle, shipped_folder
from exafsd.pipeline import Pipeline
from exafsd.settings.analysis import Analysis, Reduction
from exafsd.spectra import Edge, Run, Sweep
from exafsd.testing.oxide_to_copper import OxideToCopper


def composition(in_domain=True, **fractions):
    parts = [Fraction(phase=name, value=v, std=std) for name, (v, std) in fractions.items()]
    return Composition(references=list(fractions), fractions=parts, in_domain=in_domain)


@pytest.mark.parametrize(
    ("fractions", "doubtful"),
    [
        ({"Cu": (0.9, 0.01), "Cu2O": (0.1, 0.01)}, True),
        ({"Cu": (0.9, 0.03), "Cu2O": (0.1, 0.03)}, False),  # not beyond doubt
        ({"Cu": (0.98, 0.001), "Cu2O": (0.02, 0.001)}, False),  # too little to matter
        ({"Cu2O": (0.5, 0.01), "CuO": (0.5, 0.01)}, False),  # the model's phase was not compared
    ],
)
def test_a_share_of_other_phases_counts_where_it_is_sure(fractions, doubtful):
    assert has_other_phases(composition(**fractions), {"Cu"}) is doubtful


@pytest.mark.parametrize(
    ("name", "formula", "same"),
    [
        ("NiO2H2", "Ni (O2 H2)", True),  # a reference's name, and as a structure file has it
        ("Ni(OH)2", "Ni(O2H2)", True),
        ("NiOOH", "Ni(O2H2)", False),
        ("my hydroxide", "my hydroxide", True),
        ("Co", "CO", False),
    ],
)
def test_compounds_are_told_by_their_atoms(name, formula, same):
    assert (compound(name) == compound(formula)) is same
    doubtful = has_other_phases(composition(**{name: (0.8, 0.01), "NiS": (0.2, 0.01)}), [formula])
    assert doubtful is same


@pytest.mark.parametrize(
    ("said", "mixed"),
    [
        (composition(Cu=(0.9, 0.03), Cu2O=(0.1, 0.03)), True),  # also where it is not beyond doubt
        (composition(Cu=(0.98, 0.001), Cu2O=(0.02, 0.001)), False),
        (composition(Cu=(0.5, 0.01), Cu2O=(0.5, 0.01), in_domain=False), False),
        (None, False),
    ],
)
def test_a_mixture_has_a_second_phase(said, mixed):
    assert is_mixture(said) is mixed


def test_a_run_learns_nothing_of_copper_from_its_mixture_with_oxide():
    oxide, rng = OxideToCopper(500, photons=1e9), np.random.default_rng(0)
    registry = Registry({"cu-k-fcc": load_bundle(shipped_folder() / "cu-k-fcc")}, {})
    composer = Composer(references.load([references.shipped_folder()])[0])

    def last(kelvin):
        pipe = Pipeline(registry, tuple(ARRAY_UNITS), composer=composer)
        analysis = Analysis(reduction=Reduction(channels=("transmission",)))
        run = Run("r", 1, (Edge("Cu", "K"),), analysis=analysis)
        for number, one in enumerate(kelvin):
            counts = oxide.sweep(one, "up", rng)
            columns = {"i0": counts.i0, "it": counts.it, "ir": counts.ir}
            sweep = Sweep(run, "primary", number + 1, counts.energy, columns, direction="up")
            (outcome, *_) = pipe.process(sweep)
        (shell, *_), _ = best_answer(outcome.message.model_dump(mode="json", by_alias=True))
        return shell

    alone, after = last([760.0]), last([690.0, 700.0, 710.0, 720.0, 760.0])
    for name in ("r", "sigma2", "n_s02"):  # taught by them, N S0^2 was 3 standard deviations off
        assert abs(after[name]["value"] - alone[name]["value"]) < alone[name]["std"]


def test_fractions_that_must_not_be_believed_say_nothing():
    half = {"Cu": (0.5, 0.01), "CuO": (0.5, 0.01)}
    assert has_other_phases(composition(**half), {"Cu"})
    assert not has_other_phases(composition(**half), {"Cu", "CuO"})  # a model of both
    assert not has_other_phases(composition(in_domain=False, **half), {"Cu"})
    assert not has_other_phases(None, {"Cu"})


@pytest.mark.parametrize(
    ("own", "other", "shift", "doubtful"),
    [
        (0.85, 0.01, 0.3, True),  # shares are not right, but there is something
        (0.95, 0.06, -1.2, True),  # the near edge is another one
        (0.95, 0.02, 0.3, False),  # as at another temperature
        (0.80, 0.06, 2.0, False),  # as with energies that are off
    ],
)
def test_what_is_like_no_reference_counts_where_energies_are_right(own, other, shift, doubtful):
    strange = Composition(
        references=["Cu", "CuO"],
        fractions=[
            Fraction(phase="Cu", value=own, std=0.02),
            Fraction(phase="CuO", value=1 - own, std=0.02),
        ],
        other=Value(other, 0.001),
        energy_shift=Value(shift, 0.01),
        in_domain=False,
    )
    assert has_other_phases(strange, {"Cu"}) is doubtful
    assert not has_other_phases(strange, {"Cu2O"})


def test_zinc_in_zinc_oxide_is_not_trusted_as_zinc_oxide(data):
    oxide = measured(data / "xas/Zn/ZnO.xdi")
    metal = measured(data / "xas/Zn/Chorover13BM_Znfoil_rt_01.xdi")
    both = (oxide.energy > metal.energy[0]) & (oxide.energy < metal.energy[-1])
    energy = oxide.energy[both]
    other = np.interp(energy, metal.energy, normalised(metal))
    bundles = [load_bundle(shipped_folder() / name) for name in ("zn-k-zno", "zn-k-zns")]
    shipped, _ = references.load([references.shipped_folder()])
    registry = Registry({bundle.card.name: bundle for bundle in bundles})
    pipe = Pipeline(registry, (), composer=Composer(shipped))
    analysis = Analysis(reduction=Reduction(channels=("transmission",)))
    states = []
    for share in (0.0, 0.1):
        mu = (1 - share) * normalised(oxide)[both] + share * other
        run = Run(uid=f"{share}", edges=(Edge("Zn", "K"),), analysis=analysis)
        signals = {"i0": np.full(len(energy), 1e8), "it": 1e8 * np.exp(-0.5 - mu)}
        (outcome,) = pipe.process(Sweep(run, "primary", 1, energy, signals))
        states.append((outcome.message.trust.state, "other_phases" in outcome.message.quality))
    assert states == [("trusted", False), ("flagged", True)]


def normalised(spectrum):
    group = Group(energy=spectrum.energy, mu=spectrum.mu)
    pre_edge(group)
    return np.maximum(group.norm, -0.1)
