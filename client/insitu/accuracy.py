"""An accuracy instead of an epsilon: the least epsilon at which a query is expected to be so accurate.

``±50`` asks that the interval of every noisy column reach at most 50 to each side; ``±5%`` that it reach at most 5% of
the value. What is expected are the intervals of ``explain``, of groups as large as profiles let expect or, without
these, of ``bounds.REPRESENTATIVE_ROWS`` rows at each node. The most that is tried is what nodes say is left of the
grant. Pure: nothing is read or spent while an epsilon is looked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from insitu_privacy.errors import ParameterRefused

_SPACES = " \u00a0\u2009\u202f"
"""Part thousands: a space, a thin one, and those that do not break."""
_WHOLE = rf"[0-9]{{1,3}}(?:[{_SPACES}][0-9]{{3}}){{1,4}}|[0-9]{{1,15}}"
_FORM = re.compile(rf"(?:±|\+/-|\+-)?\s*((?:{_WHOLE})(?:\.[0-9]{{1,15}})?)\s*(%?)")
_HINT = "Write it as '±50' or '±5%'."
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


def read_accuracy(text: object) -> Accuracy:
    """``±50``, ``±5%``, ``50``, ``+-5%`` or ``±1 000``. Raises ParameterRefused for anything else, and for zero."""
    if not isinstance(text, str):
        raise _refused("an accuracy is text, not a number", _HINT)
    match = _FORM.fullmatch(text.strip())
    value = float(match[1].translate(dict.fromkeys(map(ord, _SPACES)))) if match else 0.0
    if not match or value <= 0:
        with_comma = "Decimals follow a point, as in '±5.5%'; thousands are parted by a space, as in '±1 000'."
        raise _refused(f"{text[:24]!r} is no accuracy", with_comma if "," in text else _HINT)
    return Accuracy(value / 100 if match[2] else value, relative=bool(match[2]))


@dataclass(frozen=True, slots=True)
class Most:
    """The most epsilon that may be tried: the grant's, or what is left of it at the node that has least."""

    epsilon: Fraction
    node: str | None = None
    """None where it is all of the grant's: nothing is spent, or no node could be asked."""

    def __str__(self) -> str:
        if self.node is None:
            return f"all of the grant's epsilon, {float(self.epsilon):g}"
        return f"what is left of the grant, ε {float(self.epsilon):.3g} at {self.node}"

    def refusal(self, wanted: Accuracy, bought: Accuracy | None) -> ParameterRefused:
        """That ``wanted`` is out of reach, and what this buys; None where it buys nothing that can be foretold."""
        again = ""
        if self.node is not None:
            again = "; an answer that you have had costs nothing at the --epsilon that it was asked with"
        reason = f"{wanted} is out of reach: {self}, buys {bought or 'nothing'}"
        hint = f"Ask for {bought} or wider, or pass" if bought else "`insitu budget` shows what is left. Pass"
        return _refused(reason, f"{hint} --epsilon{again}.")


def least_epsilon(wanted: Accuracy, most: Most, columns_at: Callable[[Fraction], Sequence[Reach]]) -> Fraction:
    """The least epsilon that is expected to reach it, of three digits, at most ``most``.

    ``columns_at`` gives the reach of every noisy column at an epsilon. Raises ParameterRefused where it is out of
    reach, saying what ``most`` buys.
    """
    if most.epsilon < _LEAST:
        raise most.refusal(wanted, None)
    try:
        worst = wanted.times_too_wide(columns_at(most.epsilon))
    except ParameterRefused:  # no noise that may be used is possible there
        if most.node is None:
            raise
        raise most.refusal(wanted, None) from None
    if worst is None:
        why = "a column of the answer has no interval that can be foretold"
        raise _refused(f"{wanted} cannot be promised: {why}", "Pass --epsilon; `insitu explain` shows what it buys.")
    if worst > 1:
        raise most.refusal(wanted, Accuracy(wanted.most * worst, wanted.relative))
    low, high = _LEAST, most.epsilon
    guess = _between(low, high, high * Fraction(worst))  # noise is about as 1 / epsilon: a good place to begin
    for _ in range(_STEPS):
        at = _rounded_up(guess)
        if not low < at < high:
            break
        try:
            found = wanted.times_too_wide(columns_at(at))
        except ParameterRefused:
            found = None
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
