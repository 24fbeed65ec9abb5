"""theta and its covariance to phases and shells, by the card."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from exafsd.contract.card import Card, Parameter
from exafsd.contract.messages import Phase, Shell, Value
from exafsd.spectra import Floats, Prediction


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
        self._vague: Floats = card.thresholds.prior_limited * prior

    def __call__(self, prediction: Prediction) -> tuple[list[Phase], list[Shell]]:
        """Phases and shells of a prediction."""
        weights, cov = self._weights, prediction.theta_cov
        value = self._offsets + weights @ prediction.theta
        variance = np.sum(weights @ cov * weights, axis=1)
        # parameters about which the spectrum says little more than was known before
        vague = np.sqrt(np.maximum(np.diag(cov), 0.0)) > self._vague
        limited = ((weights != 0) & vague).any(axis=1)
        values: defaultdict[str, dict[str, Any]] = defaultdict(lambda: {"prior_limited": []})
        for i, quantity in enumerate(self._linear):
            std = float(variance[i]) ** 0.5 if variance[i] >= 0 else None
            of_owner = values[quantity.owner]
            of_owner[quantity.name] = Value(value=float(value[i]), std=std)
            if limited[i]:
                of_owner["prior_limited"].append(quantity.name)
        whole: dict[str, Any] = {"fraction": Value(value=1.0, std=None)}  # of one phase
        phases = [Phase(phase=phase, **(whole | values[phase])) for phase in self._phases]
        return phases, [Shell(**shell, **values[shell["id"]]) for shell in self._shells]


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
