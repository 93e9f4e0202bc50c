"""Bounds and shares of the budget that a request names for the releases of its query: public numbers, and only that.

Whoever asks chooses them (``fitting`` does, from profiles) and signs them with the request, so that every node plans
the same. The guarantee does not depend on them: whatever is asked for, the statement cuts a unit to it, and the noise
is scaled by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

WEIGHT_LIMIT = 10**6
LINF_LIMIT = 2**61
CENTER_LIMIT = 10**18


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticFit:
    """How one statistic is bounded, and its part of the query's budget."""

    weight: int = 1
    """In proportion to the weights of all statistics of the query: from 1 to 10^6."""
    linf: int | None = None
    """The most that a unit may add to one group, in multiples of the granularity; None for what m rows may add."""
    center: Fraction | None = None
    """What the values of an average are taken from; None for the middle of their bounds."""
    ends: tuple[Fraction, Fraction] | None = None
    """The least and greatest value that a tree of counts has leaves for; None for the bounds of its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFit:
    """The contribution bounds of one release, and its statistics in the order of the plan."""

    max_rows_per_group: int
    max_groups: int
    statistics: tuple[StatisticFit, ...]


def in_range(fit: ReleaseFit) -> bool:
    """Whether all numbers are within their limits; ``passes.bounds`` has those of m and C."""
    return all(
        1 <= one.weight <= WEIGHT_LIMIT
        and (one.linf is None or 1 <= one.linf <= LINF_LIMIT)
        and all(abs(each) <= CENTER_LIMIT and each.denominator <= CENTER_LIMIT for each in _values(one))
        and (one.ends is None or one.ends[0] <= one.ends[1])
        for one in fit.statistics
    )


def _values(fit: StatisticFit) -> tuple[Fraction, ...]:
    return (*(() if fit.center is None else (fit.center,)), *(fit.ends or ()))
