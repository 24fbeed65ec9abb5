"""Which of several models of one edge a spectrum belongs to, or that nobody can say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exafsd.contract.card import Structure
from exafsd.contract.recipe import FitWindow

#: Models of one edge that are asked at most, the latest loaded: each costs what one costs.
MOST = 8
#: Odds below which two models count as fitting equally well: "strong" evidence by Kass and
#: Raftery (1995). With 18 independent points it is a ratio of 1.4 between two R-factors.
ODDS = 20.0
#: R-factor below which differences mean nothing, since FEFF is not better than that: the best
#: reference fit of a measured spectrum has 0.0021.
FLOOR = 0.002


@dataclass(frozen=True)
class Contender:
    """A candidate, and how it did on a spectrum.

    `structures` are its card's. `trust` is its own trust score, `in_domain` whether that is
    enough. `misfit` is the R-factor of its EXAFS equation in the window that all candidates
    share; NaN where that is not known.
    """

    structures: Sequence[Structure]
    trust: float
    in_domain: bool
    misfit: float


@dataclass(frozen=True)
class Choice:
    """The most plausible candidate by its place, the scores of all, and its rivals' places."""

    best: int
    scores: tuple[float, ...]
    rivals: tuple[int, ...]


def choose(candidates: Sequence[Contender], n_idp: float) -> Choice:
    """Choose among models that read the same spectrum.

    A model's own score says how usual its misfit is for its own material. Limits differ among
    models, so that a model which is content with little would win over a better one. Therefore
    the misfits are compared directly: with unknown noise the likelihood of a model goes with
    its R-factor to the power of -n/2, for n independent points. A candidate's score is its trust
    times its likelihood relative to the best misfit among all.

    Of models that fit equally well the one with the fewest phases is chosen: a mixture can be
    the pure phase as well. Models are rivals only if their structures differ, and beside one that
    is in its domain only if they are in theirs: what is refused for itself is no alternative.

    Parameters
    ----------
    candidates
        At least one.
    n_idp
        Independent points in the window they share.
    """
    if len(candidates) == 1:
        return Choice(0, (candidates[0].trust,), ())
    trust = np.array([one.trust for one in candidates])
    misfit = np.maximum([one.misfit for one in candidates], FLOOR)
    misfit[np.isnan(misfit)] = np.inf
    likely = np.zeros(len(misfit))
    if np.isfinite(misfit.min()):
        likely = (misfit.min() / misfit) ** (n_idp / 2)
    scores = trust * likely
    near = [int(i) for i in np.flatnonzero(ODDS * scores >= scores.max())]
    best = int(np.argmax(scores))
    fitting = [i for i in near if candidates[i].in_domain]
    if fitting:
        best = min(fitting, key=lambda i: (len(candidates[i].structures), -scores[i]))
    own_materials = materials(candidates[best].structures)
    rivals = tuple(
        i
        for i in near
        if not own_materials <= materials(candidates[i].structures)
        and (candidates[i].in_domain or not fitting)
    )
    return Choice(best, tuple(map(float, scores)), rivals)


def materials(structures: Sequence[Structure]) -> set[tuple[str, str | None]]:
    """What makes two bundles mean the same: formula and space group of each phase."""
    return {(s.formula.replace(" ", ""), s.space_group) for s in structures}


def common_window(windows: Sequence[FitWindow]) -> FitWindow:
    """Window of several: the k that all of them have, the R that any of them has.

    Weight and shape are those of the first.
    """
    first = windows[0]
    return first.model_copy(
        update={
            "k": (max(w.k[0] for w in windows), min(w.k[1] for w in windows)),
            "r": (min(w.r[0] for w in windows), max(w.r[1] for w in windows)),
        }
    )


def independent_points(window: FitWindow) -> float:
    """Independent points of a window, as Larch counts them."""
    return 1.0 + 2.0 * (window.r[1] - window.r[0]) * (window.k[1] - window.k[0]) / np.pi
