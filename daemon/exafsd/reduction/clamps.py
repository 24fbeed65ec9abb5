"""The one number of AUTOBK that is not linear algebra: x, by which its clamps hold (`background`).

    f(x) = q + (0.1 + kappa q)^2 g,   q = q0 + x^2 sum of d u^2 / (1 + x d)^2,
                                      g = rest + sum of u^2 / (1 + x d)^2

Of many spectra they are arrays, and of one plain floats: three terms are not worth an array.
"""

import math

import numpy as np

from exafsd.spectra import Floats

#: values of x tried before Newton's method, since f may have several minima
SCAN = np.linspace(0.0, 1.0, 17)
NEWTON_STEPS = 12
#: relative precision of x; f is flat at its minimum, so that its error is the square of this
PRECISION = 1e-9


def lowest(
    q0: Floats, rest: Floats, u2: Floats, strength: Floats, kappa: float
) -> tuple[Floats, Floats]:
    """X where f is least, and f there.

    Parameters
    ----------
    q0, rest
        (b,) what does not depend on x in q and g.
    u2
        (b, r) squares of u.
    strength
        (r,) d.
    kappa
        10 over the number of Fourier components.

    Returns
    -------
    x, objective
        (b,) each.
    """
    if len(q0) == 1:
        x, objective = _of_one(
            float(q0[0]), float(rest[0]), list(zip(u2[0].tolist(), strength.tolist(), strict=True)),
            kappa,
        )  # fmt: skip
        return np.array([x]), np.array([objective])
    return _of_many(q0, rest, u2, strength, kappa)


def _of_many(
    q0: Floats, rest: Floats, u2: Floats, d: Floats, kappa: float
) -> tuple[Floats, Floats]:
    def along(x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return q, g and their derivatives by x, that of q over x, at x (b, t)."""
        share = 1 / (1 + x[:, :, None] * d)
        part = u2[:, None, :] * share * share
        slope = 2 * ((part * share) @ d)
        q = q0[:, None] + x * x * (part @ d)
        return q, rest[:, None] + part @ np.ones(len(d)), x * slope, -slope

    # f(x) <= f(0) at the minimum, which bounds q and with it s and x
    s0 = 0.1 + kappa * q0
    g0 = rest + u2.sum(axis=1)
    s1 = 0.1 + kappa * (q0 + s0**2 * g0)
    low, high = np.log(s0**2 / (1 + 2 * kappa * s1 * g0)), 2 * np.log(s1)
    width = high - low
    t = low[:, None] + width[:, None] * SCAN
    q, g, _, _ = along(np.exp(t))
    best = np.argmin(q + (0.1 + kappa * q) ** 2 * g, axis=1)
    step = width[:, None] / (len(SCAN) - 1)
    t = np.take_along_axis(t, best[:, None], axis=1)
    lower, upper = t - step, t + step
    for _ in range(NEWTON_STEPS):
        x = np.exp(t)
        q, g, dq, dg = along(x)
        s = 0.1 + kappa * q
        extra = 1 + 2 * kappa * s * g
        miss = t + np.log(extra) - 2 * np.log(s)
        slope = 1 + x * kappa * (2 * (kappa * dq * g + s * dg) / extra - 2 * dq / s)
        with np.errstate(divide="ignore", invalid="ignore"):
            move = np.where(slope > 0, -miss / slope, -np.sign(miss) * step / 4)
        moved = np.clip(t + move, lower, upper)
        change = np.abs(moved - t).max(initial=0.0)
        t = moved
        if change < PRECISION:
            break
    x = np.exp(t)
    q, g, _, _ = along(x)
    return x[:, 0], (q + (0.1 + kappa * q) ** 2 * g)[:, 0]


def _of_one(
    q0: float, rest: float, terms: list[tuple[float, float]], kappa: float
) -> tuple[float, float]:
    """The same of one spectrum; `terms` are u^2 and d."""

    def along(x: float) -> tuple[float, float, float]:
        q, g, slope = 0.0, rest, 0.0
        for u2, d in terms:
            share = 1 / (1 + x * d)
            part = u2 * share * share
            g += part
            q += part * d
            slope += part * share * d
        return q0 + x * x * q, g, 2 * slope

    def f(x: float) -> float:
        q, g, _ = along(x)
        return q + (0.1 + kappa * q) ** 2 * g

    s0 = 0.1 + kappa * q0
    g0 = rest + sum(u2 for u2, _ in terms)
    s1 = 0.1 + kappa * (q0 + s0 * s0 * g0)
    if not math.isfinite(s1):
        return math.nan, math.nan
    low, high = math.log(s0 * s0 / (1 + 2 * kappa * s1 * g0)), 2 * math.log(s1)
    step = (high - low) / (len(SCAN) - 1)
    t = min((low + step * i for i in range(len(SCAN))), key=lambda t: f(math.exp(t)))
    lower, upper = t - step, t + step
    for _ in range(NEWTON_STEPS):
        x = math.exp(t)
        q, g, slope = along(x)
        s = 0.1 + kappa * q
        extra = 1 + 2 * kappa * s * g
        miss = t + math.log(extra) - 2 * math.log(s)
        dq, dg = x * slope, -slope
        steep = 1 + x * kappa * (2 * (kappa * dq * g + s * dg) / extra - 2 * dq / s)
        move = -miss / steep if steep > 0 else math.copysign(step / 4, -miss) if miss else 0.0
        moved = min(max(t + move, lower), upper)
        change, t = abs(moved - t), moved
        if change < PRECISION:
            break
    x = math.exp(t)
    return x, f(x)
