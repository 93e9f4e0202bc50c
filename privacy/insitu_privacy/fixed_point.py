"""Decimals as whole multiples of a public granularity: what makes sums exact, whatever the order of rows."""

from __future__ import annotations

from fractions import Fraction

from insitu_privacy.facts import Facts

STEPS = 10**8
"""A decimal's range is divided into at least this many steps: an average is off by at most half of one."""
VALUE_LIMIT = 2**40
"""Largest |v|: with m up to 2^20, sums stay below 2^62 for two units of everybody's largest, and below in practice."""


def granularity(facts: Facts) -> Fraction:
    """A power of ten: 1 for integers that fit, else the largest that divides the range into enough steps."""
    assert facts.interval is not None
    low, high = facts.interval
    size = max(abs(low), abs(high), high - low)
    step = Fraction(1)
    if facts.type != "integer":
        while step > 0 and (high - low or size or 1) / step < STEPS:
            step /= 10
    while size / step >= VALUE_LIMIT:
        step *= 10
    return step
