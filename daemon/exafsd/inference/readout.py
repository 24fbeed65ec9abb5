"""theta and its covariance to phases and shells, by the card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from exafsd.contract.card import Card, Parameter
from exafsd.contract.messages import Phase, Shell, Value
from exafsd.spectra import Floats, Prediction

#: of a sample that is one phase
ONE_PHASE = Value(1.0, None)


#: values, standard deviations and whether they are limited by the prior, of one prediction
_Row = tuple[list[float], list[float | None], list[bool]]
#: fields of a phase or shell without its numbers, and the names and places of these
_Blank = tuple[dict[str, Any], list[tuple[str, int]]]
Part = TypeVar("Part", Phase, Shell)


@dataclass(frozen=True)
class _Linear:
    """A published quantity of a phase or shell: offset + sum of weights (by id) * parameters."""

    owner: str
    name: str
    weights: dict[str, float]
    offset: float = 0.0


class Readout:
    """Phases and shells of predictions, by one card.

    A shell without its own ``n_s02`` has that of the phase's first shell, or else of the card's
    first, in the ratio of crystallographic degeneracies. One without its own ``r`` follows its
    phase's isotropic ``expansion``. Of several phases one may be without ``fraction``: it is what
    the others leave. N S0^2 is that of an absorber in its phase, whatever the phase's fraction.

    Raises
    ------
    ValueError
        If the card lacks a parameter that this needs.
    """

    def __init__(self, card: Card) -> None:
        self._phases = [structure.phase for structure in card.structures]
        self._shells = _shells(card)
        try:
            self._linear = [*_of_phases(card), *_of_shells(card, self._shells)]
        except KeyError as error:
            missing = "/".join(str(part) for part in error.args[0] if part is not None)
            raise ValueError(f"the card has no parameter {missing}") from None
        index = {parameter.id: i for i, parameter in enumerate(card.parameters)}
        self._weights = np.zeros((len(self._linear), len(index)))
        for row, quantity in zip(self._weights, self._linear, strict=True):
            for id_, weight in quantity.weights.items():
                row[index[id_]] = weight
        self._offsets = np.array([quantity.offset for quantity in self._linear])
        prior = np.array([parameter.prior.std for parameter in card.parameters])
        self._vague: Floats = (card.thresholds.prior_limited * prior) ** 2
        self._uses = self._weights != 0
        own: dict[str, list[tuple[str, int]]] = {}
        for i, quantity in enumerate(self._linear):
            own.setdefault(quantity.owner, []).append((quantity.name, i))
        self._of_phase = [
            ({"phase": phase, "fraction": ONE_PHASE}, own.get(phase, [])) for phase in self._phases
        ]
        self._of_shell = [(shell, own.get(shell["id"], [])) for shell in self._shells]

    def __call__(self, prediction: Prediction) -> tuple[list[Phase], list[Shell]]:
        """Phases and shells of a prediction."""
        return self.many([prediction])[0]

    def many(self, predictions: Sequence[Prediction]) -> list[tuple[list[Phase], list[Shell]]]:
        """The same of several predictions."""
        weights = self._weights
        theta = np.array([one.theta for one in predictions])
        cov = np.array([one.theta_cov for one in predictions])
        values = (self._offsets + theta @ weights.T).tolist()
        variance = np.einsum("bij,ij->bi", weights @ cov, weights)
        stds = [[one**0.5 if one >= 0 else None for one in row] for row in variance.tolist()]
        # parameters about which the spectrum says little more than was known before
        vague = np.einsum("bii->bi", cov) > self._vague
        limited = (vague @ self._uses.T).tolist()
        rows = zip(values, stds, limited, strict=True)
        return [(self._parts(Phase, row, self._of_phase), self._parts(Shell, row, self._of_shell))
                for row in rows]  # fmt: skip

    @staticmethod
    def _parts(part: type[Part], row: _Row, blanks: Sequence[_Blank]) -> list[Part]:
        """Phases or shells of one prediction."""
        values, stds, limited = row
        parts: list[Part] = []
        for blank, own in blanks:
            fields = blank.copy()
            fields["prior_limited"] = [name for name, i in own if limited[i]]
            for name, i in own:
                fields[name] = Value(values[i], stds[i])
            parts.append(part(**fields))
        return parts


def _shells(card: Card) -> list[dict[str, Any]]:
    """What is fixed of every shell, phase by phase."""
    disorder = {(p.phase, p.shell): p for p in card.parameters if p.name == "sigma2"}
    return [
        {
            "id": f"{structure.phase}/{p.shell}",
            "phase": structure.phase,
            "shell": p.shell,
            "site": structure.absorber_site,
            "scatterer": str(p.scatterer),
            "degeneracy": float(p.degeneracy or 0.0),
            "r_eff": float(p.r_eff or 0.0),
        }
        for structure in card.structures
        for (phase, _), p in sorted(disorder.items(), key=lambda item: item[0][1] or 0)
        if phase == structure.phase
    ]


def _of_phases(card: Card) -> list[_Linear]:
    ids = {(p.phase, p.shell, p.name): p.id for p in card.parameters}
    phases = [structure.phase for structure in card.structures]
    rows: list[_Linear] = []
    for phase in phases:
        if (phase, None, "fraction") in ids:
            rows.append(_Linear(phase, "fraction", {ids[phase, None, "fraction"]: 1.0}))
        elif len(phases) > 1:
            others = [ids[other, None, "fraction"] for other in phases if other != phase]
            rows.append(_Linear(phase, "fraction", dict.fromkeys(others, -1.0), 1.0))
        rows.append(_Linear(phase, "e0_shift", {ids[phase, None, "e0_shift"]: 1.0}))
    return rows


def _of_shells(card: Card, shells: list[dict[str, Any]]) -> list[_Linear]:
    parameters = {(p.phase, p.shell, p.name): p for p in card.parameters}
    rows: list[_Linear] = []
    for shell in shells:
        owner, phase, number = shell["id"], shell["phase"], shell["shell"]
        amplitude = _amplitude(card, phase, number)
        ratio = shell["degeneracy"] / float(amplitude.degeneracy or 1.0)
        rows.append(_Linear(owner, "n_s02", {amplitude.id: ratio}))
        r, r_eff = parameters.get((phase, number, "r")), shell["r_eff"]
        if r is not None:
            rows.append(_Linear(owner, "r", {r.id: 1.0}))
        else:
            rows.append(
                _Linear(owner, "r", {parameters[phase, None, "expansion"].id: r_eff}, r_eff)
            )
        own = {name: parameters.get((phase, number, name)) for name in ("sigma2", "c3")}
        rows += [
            _Linear(owner, name, {p.id: 1.0}, p.split) for name, p in own.items() if p is not None
        ]
    return rows


def _amplitude(card: Card, phase: str, number: int) -> Parameter:
    """Parameter that a shell's N S0^2 follows from."""
    amplitudes = [p for p in card.parameters if p.name == "n_s02"]
    if not amplitudes:
        raise KeyError((phase, number, "n_s02"))
    nearest = {(phase, number): 0, (phase, 1): 1}
    return min(amplitudes, key=lambda p: nearest.get((p.phase, p.shell or 0), 2))
