"""Whether the near edge shows several phases, or others than those that a model has read."""

from collections.abc import Collection

from exafsd.contract.messages import Composition
from exafsd.formula import compound

#: Share of a sample that may be other phases: in measured mixtures of copper and zinc compounds a
#: tenth of another phase moves the first shell's R by up to 0.007 angstrom, this by up to 0.004.
PURE = 0.03
#: standard deviations beyond it
SURE = 3.0
#: The same where the near edge has something that is like no reference, and how much of that there
#: may be, of the edge step; but not where the energies differ from the references' by all that the
#: combination allows, 2 eV. In ZnSe with half of selenium they are 0.3 and 0.04; of 25 measured
#: spectra of a reference's compound none that is trusted is beyond.
MIXED, STRANGE, NEAR = 0.1, 0.045, 1.95


def has_other_phases(composition: Composition | None, formulas: Collection[str]) -> bool:
    """Whether more of a sample than `PURE` is of other phases than these, beyond doubt.

    Parameters
    ----------
    composition
        Of the sample. Where it is not in its domain, it says only that something else is there; but
        not where the energies are off, which makes something else of any sample.
    formulas
        Of the model's phases. Where no reference is of one of them, nothing is known.
    """
    if composition is None:
        return False
    compounds = {compound(formula) for formula in formulas}
    own = [
        (one.value, one.std)
        for one in composition.fractions
        if compound(one.phase) in compounds and one.value is not None and one.std is not None
    ]
    if not own:
        return False
    rest, std = 1.0 - sum(value for value, _ in own), max(std for _, std in own)
    if composition.in_domain:
        return rest > PURE + SURE * std
    other, shift = composition.other, composition.energy_shift
    if other is None or shift is None or other.value is None or shift.value is None:
        return False
    return abs(shift.value) < NEAR and (rest > MIXED or other.value > STRANGE)


def is_mixture(composition: Composition | None) -> bool:
    """Whether there may be more than `PURE` of a second phase, where the composition says so."""
    if composition is None or not composition.in_domain:
        return False
    return sum(one.value is not None and one.value > PURE for one in composition.fractions) > 1
