"""Where the leaves of a tree of counts lie: at round numbers from a first to a last value.

The planner lays them over the public bounds of an expression, or over the part of those that a request names
(``fits``). What lies beyond that part counts in its first or last leaf, so that ranks stay right.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

_FINEST = 10**6
"""A range of decimals has at most so many steps, however many leaves there may be."""
_SMALLEST = Fraction(1, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """Leaf i holds the values that are nearest to ``first + step * i``."""

    first: Fraction
    step: Fraction
    count: int

    @property
    def last(self) -> Fraction:
        """What the last leaf is about."""
        return self.first + self.step * (self.count - 1)


def leaves_over(low: Fraction, high: Fraction, *, whole: bool, limit: int) -> Leaves:
    """As many leaves as the limit allows; no finer than whole numbers where values are whole."""
    step = Fraction(1) if whole else round_step((high - low) / _FINEST)
    while (count := _count(low, high, step)) > limit:
        step = round_step(step * Fraction(3, 2))
    return Leaves(first=Fraction((low / step).__floor__()) * step, step=step, count=count)


def _count(low: Fraction, high: Fraction, step: Fraction) -> int:
    return (high / step).__ceil__() - (low / step).__floor__() + 1


def round_step(least: Fraction) -> Fraction:
    """The least of 1, 2, 5, 10, 20, 50, ... and 0.5, 0.2, 0.1, ... that is not below ``least``."""
    step = Fraction(1)
    while step > max(least, _SMALLEST):
        step /= 10
    while step < least:
        step *= next(factor for factor in (2, 5, 10) if step * factor >= least or factor == 10)
    return step
