"""Log-normal numbers that a noisy histogram of units bears out, where nothing else is known of how they are spread.

Rows of a unit are mostly spread so, more or less. A tail that noise hides then follows from what is seen of the rest,
where the histogram taken as it is (``curves``) errs towards long ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from insitu_privacy.data_profile import Histogram
from insitu_privacy.fitting.curves import Array, Curve, grid

_MEDIANS = tuple(2 ** (power / 4) for power in range(-8, 53))
_SPREADS = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2, 1.5, 2.0)
_ROUGH = 0.1
"""How far off a guess may be besides noise, in shares of what was counted: nothing is spread just so."""
_UNEXPLAINED = 3.0
"""Deviations by which the sum of squares may be above its mean, the number of bins. Of Laplace noise the variance of a
square is five times that of the noise, squared."""
_SEEN = 25.0
"""By how much it must be less than that of nobody at all: five deviations, for of many guesses some fit noise."""
_STAND_FOR = (1 / 6, 1 / 2, 5 / 6)
"""Quantiles of what is believed."""


def smooth(histogram: Histogram) -> tuple[Curve, ...]:
    """Up to three log-normals that stand for those that are borne out, by ascending mean; none where noise hides all
    units, or none explains them. Numbers are from 1 on."""
    expected = _expected(histogram.measure.edges)
    errors, sizes = off(expected, histogram)
    counts = np.array(histogram.counts)
    nobody = float(counts**2 @ (1 / variances(histogram)))
    if nobody - float(errors.min()) < _SEEN or not is_explained(errors, histogram):
        return ()
    ways = [(median, spread) for median in _MEDIANS for spread in _SPREADS]
    means = np.array([median * math.exp(spread**2 / 2) for median, spread in ways])
    return tuple(_curve(*ways[place], float(sizes[place])) for place in borne_out(errors, np.argsort(means)))


def off(expected: Array, histogram: Histogram, most: float = math.inf) -> tuple[Array, Array]:
    """How far each row of ``expected`` is off, in squared deviations, at the multiple of it that comes closest.

    Multiples are at least what noise would hide, for no units at all would have no bounds, and at most ``most``.
    """
    counts, weights = np.array(histogram.counts), 1 / variances(histogram)
    squares = expected**2 @ weights
    sizes = np.maximum((expected * counts) @ weights / squares, 1 / np.sqrt(squares))
    sizes = np.minimum(sizes, most)
    errors: Array = (counts - sizes[:, None] * expected) ** 2 @ weights
    return errors, sizes


def variances(histogram: Histogram) -> Array:
    """Of each bin: of the noise, and of what guesses may be off besides."""
    found: Array = histogram.deviation**2 + (_ROUGH * np.maximum(np.array(histogram.counts), 0.0)) ** 2 + 1e-9
    return found


def is_explained(errors: Array, histogram: Histogram) -> bool:
    """Whether the best of guesses that are so far off is as near as noise lets be expected."""
    bins = histogram.measure.bins
    return float(errors.min()) <= bins + _UNEXPLAINED * math.sqrt(5 * bins)


def borne_out(errors: Array, order: Array) -> list[int]:
    """The places of three guesses that stand for all, as likely as their errors make them, in an order of size."""
    believed = np.cumsum(np.exp((errors.min() - errors[order]) / 2))
    places = np.searchsorted(believed / believed[-1], _STAND_FOR)
    return list(dict.fromkeys(int(order[place]) for place in places))


def _curve(median: float, spread: float, units: float) -> Curve:
    levels, shares = grid()
    normal = NormalDist()
    values = [max(1.0, median * math.exp(spread * normal.inv_cdf(level))) for level in levels.tolist()]
    return Curve(values=np.array(values), units=shares * units)


@cache
def _expected(edges: tuple[Fraction, ...]) -> Array:
    """Of one unit, the chance of each bin, a row for each median and spread."""
    ends = [float(edge) - 0.5 for edge in edges]
    rows = [_chances(median, spread, ends) for median in _MEDIANS for spread in _SPREADS]
    return np.array(rows)


def _chances(median: float, spread: float, ends: Sequence[float]) -> list[float]:
    normal = NormalDist(math.log(median), spread)
    below = [0.0, *(0.0 if end < 1 else normal.cdf(math.log(end)) for end in ends), 1.0]
    return [high - low for low, high in pairwise(below)]
