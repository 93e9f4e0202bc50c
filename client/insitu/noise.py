"""How wide the noise of several nodes together is: exact quantiles of sums of Laplace and of Gaussian noise.

Used to say, before anything is spent, how far a plain count or sum may lie from the truth. The continuous
distributions stand for the discrete ones, which differ from them by less than one unit: half a unit is added.
No noise is drawn here, and nothing here is needed for a guarantee.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

from insitu_privacy.plan import Mechanism

_MANY_NODES = 60
"""From here on the sum of Laplace noise is taken as normal; the quantile is then within 1 per cent."""


def half_width(mechanism: Mechanism, scale: Fraction, nodes: int, level: float = 0.95) -> float:
    """The half-width within which the noise of ``nodes`` nodes together stays with probability ``level``."""
    tail = (1 - level) / 2
    size = float(scale)
    if size == 0:
        return 0.0
    if mechanism == "gaussian":
        return size * math.sqrt(nodes) * NormalDist().inv_cdf(1 - tail) + 0.5
    if nodes >= _MANY_NODES:
        return size * math.sqrt(2 * nodes) * NormalDist().inv_cdf(1 - tail) + 0.5
    return size * _laplace_quantile(nodes, tail) + 0.5


def _laplace_quantile(nodes: int, tail: float) -> float:
    """The x that a sum of ``nodes`` standard Laplace variables exceeds with probability ``tail``, by bisection."""
    low, high = 0.0, 40.0 * math.sqrt(nodes) + 40.0
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if laplace_tail(nodes, middle) > tail else (low, middle)
    return high


def laplace_tail(nodes: int, x: float) -> float:
    """P(S > x) for x >= 0 and S a sum of ``nodes`` standard Laplace variables.

    S is a difference of two Gamma(nodes) variables G and H, and G > x + H exactly when a Poisson process has fewer
    than ``nodes`` arrivals by x + H: sum the Poisson terms, each with its expectation over H in closed form.
    """
    weights = [math.comb(nodes + i - 1, i) * 0.5 ** (nodes + i) for i in range(nodes)]
    reached = 0.0
    total = 0.0
    for rest in range(nodes - 1, -1, -1):
        reached += weights[nodes - 1 - rest]
        total += reached * _poisson(rest, x)
    return total


def _poisson(count: int, mean: float) -> float:
    if mean == 0:
        return 1.0 if count == 0 else 0.0
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
