"""An accuracy instead of an epsilon: the least epsilon at which a query is expected to be so accurate.

``±50`` asks that the interval of every noisy column reach at most 50 to each side; ``±5%`` that it reach at most 5% of
the value. What is expected are the intervals of ``explain``, of groups as large as profiles let expect or, without
these, of ``bounds.REPRESENTATIVE_ROWS`` rows at each node. Pure: nothing is read or spent while an epsilon is looked
for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from insitu_privacy.errors import ParameterRefused

_FORM = re.compile(r"(?:±|\+/-|\+-)?\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(%?)")
_DIGITS = 3
_STEPS = 20
_LEAST = Fraction(1, 10**9)
Reach = tuple[float | None, float | None]
"""Of one column, the widest interval's half-width, and the widest in shares of its value; None where there is none."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far an interval may reach to each side: so much, or such a share of the value."""

    most: float
    relative: bool

    def __str__(self) -> str:
        return f"±{self.most * 100:g}%" if self.relative else f"±{self.most:g}"

    def times_too_wide(self, columns: Sequence[Reach]) -> float | None:
        """The widest column's reach in what is allowed, None where a noisy column has no interval to go by."""
        reaches = [reach[1] if self.relative else reach[0] for reach in columns]
        known = [reach for reach in reaches if reach is not None]
        return max(known) / self.most if known and len(known) == len(reaches) else None


def read_accuracy(text: str) -> Accuracy:
    """``±50``, ``±5%``, ``50`` or ``+-5%``. Raises ParameterRefused for anything else, and for zero."""
    match = _FORM.fullmatch(text.strip())
    value = float(match[1]) if match else 0.0
    if not match or value <= 0:
        raise _refused(f"{text[:24]!r} is no accuracy", "Write it as '±50' or '±5%'.")
    return Accuracy(value / 100 if match[2] else value, relative=bool(match[2]))


def least_epsilon(wanted: Accuracy, most: Fraction, columns_at: Callable[[Fraction], Sequence[Reach]]) -> Fraction:
    """The least epsilon that is expected to reach it, of three digits, at most ``most``: what the grant has in all.

    ``columns_at`` gives the reach of every noisy column at an epsilon. Raises ParameterRefused where it is out of
    reach, saying what ``most`` buys.
    """
    worst = wanted.times_too_wide(columns_at(most))
    if worst is None:
        why = "a column of the answer has no interval that can be foretold"
        raise _refused(f"{wanted} cannot be promised: {why}", "Pass --epsilon; `insitu explain` shows what it buys.")
    if worst > 1:
        bought = Accuracy(wanted.most * worst, wanted.relative)
        reason = f"{wanted} is out of reach: all of the grant's epsilon, {float(most):g}, buys {bought}"
        raise _refused(reason, f"Ask for {bought} or wider, or pass --epsilon.")
    low, high = _LEAST, most
    guess = _between(low, high, most * Fraction(worst))  # noise is about as 1 / epsilon: a good place to begin
    for _ in range(_STEPS):
        at = _rounded_up(guess)
        if not low < at < high:
            break
        found = wanted.times_too_wide(columns_at(at))
        low, high = (low, at) if found is not None and found <= 1 else (at, high)
        guess = _between(low, high, at * Fraction(found or 0))
    return high


def _between(low: Fraction, high: Fraction, guess: Fraction) -> Fraction:
    """The guess, if it is inside; else the middle of what is left, in orders of magnitude."""
    return guess if low < guess < high else Fraction(math.sqrt(low * high))


def _rounded_up(value: Fraction) -> Fraction:
    step = Fraction(10) ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return math.ceil(value / step) * step


def _refused(reason: str, hint: str) -> ParameterRefused:
    return ParameterRefused("INSITU-PARAM-ACCURACY", reason=reason, hint=hint)
