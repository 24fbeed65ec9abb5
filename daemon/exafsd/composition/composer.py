"""What each spectrum is made of: references of its edge, those with the same ones together."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from exafsd.composition import temperatures
from exafsd.composition.combination import (
    ALIKE,
    ALL,
    REPEATS,
    SHIFT,
    SHIFT_ALONE,
    Combination,
    Fractions,
)
from exafsd.composition.references import Reference, chosen
from exafsd.composition.window import NearEdge, Ranges, near_edge
from exafsd.contract.messages import Composition, Fraction, Value
from exafsd.contract.vocabulary import Flag, Reason
from exafsd.reduction.edges import edge_energy
from exafsd.spectra import Edge, Spectrum, SpectrumError

#: Combinations that are kept; a run has one for each edge.
KEPT = 16
#: References that there must be for an edge: with one, everything is that one.
LEAST = 2
#: Nuisances beyond so many standard deviations of what is allowed make the fractions doubtful.
FAR = 3.0
#: Least share of a reference whose temperature counts.
SHARE = 0.05
#: what these are called, and what to do
WORDS = {
    "energy_shift": "its energies are {shift:+.2f} eV or more from the references': calibrate by a"
    " foil, or measure references here",
    "resolution": "its resolution is far from the references'",
    "heat": "it is much hotter or colder than the references",
    "tilt": "its normalisation is far from the references'",
    "offset": "its normalisation is far from the references'",
    "over_absorption": "over-absorption is strong",
}


class _Ready(NamedTuple):
    """References of an edge as they are compared, and the ranges they share with a sample."""

    combination: Combination
    ranges: Ranges


class Composer:
    """Composition of spectra by references.

    Parameters
    ----------
    references
        Of all edges.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        self._references = references
        self._ready = lru_cache(maxsize=KEPT)(self._made)
        self._chosen = lru_cache(maxsize=KEPT)(self._names)
        self._lent: dict[str, tuple[Reference, ...]] = {}

    def lend(self, run_uid: str, references: Sequence[Reference]) -> None:
        """Compare the spectra of a run with these, and with others only where they are named.

        Without a uid: those of all runs that have none of their own.
        """
        self._lent[run_uid] = tuple(references)
        self._clear()

    def forget(self, run_uid: str) -> None:
        """Forget references that were lent to a run."""
        if self._lent.pop(run_uid, None) is not None:
            self._clear()

    def flags(self, spectrum: Spectrum, composition: Composition) -> tuple[Flag, ...]:
        """What was noticed: that a reference in the sample was measured much hotter or colder."""
        sample = temperatures.of_context(spectrum.id.sweep.context)
        if sample is None:
            return ()
        shares = {one.phase for one in composition.fractions if (one.value or 0.0) >= SHARE}
        far = any(
            abs(one.temperature - sample) > temperatures.FAR
            for one in self._of_run(spectrum.id.sweep.run.uid)
            if one.name in shares and one.edge == spectrum.id.edge and one.temperature is not None
        )
        return (Flag.REFERENCE_TEMPERATURE,) if far else ()

    def middles(self, spectrum: Spectrum) -> dict[str, float]:
        """Where mu of the references of a spectrum's edge has risen by half, eV."""
        references = self._of_run(spectrum.id.sweep.run.uid)
        middles = {r.name: r.middle for r in references if r.edge == spectrum.id.edge}
        return {name: middle for name, middle in middles.items() if middle is not None}

    def _of_run(self, run_uid: str) -> Sequence[Reference]:
        lent = self._lent_to(run_uid)
        return (*lent, *self._references) if lent else self._references

    def _lent_to(self, run_uid: str) -> tuple[Reference, ...]:
        return self._lent.get(run_uid) or self._lent.get("", ())

    def _clear(self) -> None:
        self._ready.cache_clear()
        self._chosen.cache_clear()

    def _names(self, edge: Edge, names: tuple[str, ...], run_uid: str) -> tuple[str, ...]:
        """Names of the references that spectra are compared with."""
        own = tuple(one.name for one in self._lent_to(run_uid) if one.edge == edge)
        names = (*own, *names) if own else names
        return tuple(one.name for one in chosen(self._of_run(run_uid), edge, names))

    def __call__(self, spectra: Sequence[Spectrum]) -> list[Composition | None]:
        """Composition of each; None where its edge has fewer than two references."""
        done: list[Composition | None] = [None] * len(spectra)
        groups: dict[tuple[Any, ...], list[tuple[int, NearEdge]]] = defaultdict(list)
        for i, spectrum in enumerate(spectra):
            edge, names = spectrum.id.edge, spectrum.id.analysis.composition.phases
            compared: tuple[str, ...] = ()
            uid = spectrum.id.sweep.run.uid
            uid = uid if uid in self._lent else ""
            try:
                compared = self._chosen(edge, names, uid)
                if len(compared) > ALL:
                    raise _few(f"there are more than {ALL} for {edge.element} {edge.edge}")
                if names and len(compared) < LEAST:
                    raise _few(f"fewer than {LEAST} are of {edge.element} {edge.edge}")
                if len(compared) >= LEAST:
                    ranges = Ranges.of(spectrum.energy, edge_energy(edge.element, edge.edge))
                    ready = self._ready(edge, compared, ranges, uid)
                    binned = near_edge(spectrum.energy, spectrum.mu, ready.ranges)
                    held = SHIFT if spectrum.energy_shift is not None else SHIFT_ALONE
                    fluorescent = spectrum.id.channel == "fluorescence"
                    groups[ready.combination, compared, held, fluorescent].append((i, binned))
            except SpectrumError as error:
                done[i] = _nothing(compared, error.detail)
        for (combination, compared, held, fluorescent), members in groups.items():
            fits = combination([binned for _, binned in members], held, fluorescent)
            for (i, _), fit in zip(members, fits, strict=True):
                done[i] = (
                    _said(compared, fit) if fit else _nothing(compared, "no reference is like it")
                )
        return done

    def _made(self, edge: Edge, names: tuple[str, ...], ranges: Ranges, run_uid: str) -> "_Ready":
        """References normalised in the ranges that all of them and the sample have."""
        references = chosen(self._of_run(run_uid), edge, names)
        for one in references:
            ranges = ranges.shared(one.ranges)
        binned = [near_edge(one.energy, one.mu, ranges) for one in references]
        return _Ready(Combination(binned, ranges.centres, ranges.edge), ranges)


def _few(why: str) -> SpectrumError:
    return SpectrumError(
        Reason.BAD_SETTINGS,
        f"no linear combination: of the references, {why}; name those that can be there by phases",
    )


def _nothing(names: Sequence[str], reason: str) -> Composition:
    return Composition(references=list(names), fractions=[], in_domain=False, reason=reason)


def _said(names: Sequence[str], fit: Fractions) -> Composition:
    compared = [names[place] for place in fit.places]
    fractions = [
        Fraction(phase=name, value=value, std=std)
        for name, value, std in zip(compared, fit.value.tolist(), fit.std.tolist(), strict=True)
    ]
    reason = _reason(names, compared, fit)
    return Composition(
        references=list(names),
        fractions=fractions,
        other=Value(fit.rest, max(fit.usual, REPEATS)),
        energy_shift=Value(fit.shift, fit.shift_std),
        r_factor=fit.r_factor,
        in_domain=reason is None,
        reason=reason,
    )


def _reason(references: Sequence[str], names: Sequence[str], fit: Fractions) -> str | None:
    """Why the fractions must not be believed, in words; None if they may be."""
    if fit.other:
        other = (
            f"something else is there: {fit.rest:.4f} of the edge step is like no reference"
            f" ({', '.join(names)})"
        )
        shifted = abs(fit.pulls["energy_shift"]) > FAR  # which makes something else of any sample
        energies = WORDS["energy_shift"].format(shift=fit.shift)
        return f"{other}; or {energies}" if shifted else other
    if not fit.converged:
        return "the fit did not end"
    if fit.rivals:
        rivals = ", ".join(references[place] for place in fit.rivals)
        return f"{rivals} would do as well as some of {', '.join(names)}"
    far = max(fit.pulls, key=lambda name: abs(fit.pulls[name]), default="")
    if far and abs(fit.pulls[far]) > FAR:
        return WORDS[far].format(shift=fit.shift)
    unsure = [name for name, std in zip(names, fit.std, strict=True) if std > ALIKE]
    if unsure:
        return f"{' and '.join(unsure)} cannot be told apart by this spectrum"
    return None
