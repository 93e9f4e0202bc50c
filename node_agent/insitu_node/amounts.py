"""Exact numbers in configuration files: what a custodian wrote, and no float in between."""

from __future__ import annotations

from fractions import Fraction

from insitu_access.payload import read_number
from pydantic import StrictFloat, StrictInt, StrictStr

Amount = StrictInt | StrictFloat | StrictStr


def exact(value: float | str | None) -> Fraction | None:
    """The number; a float is read as the decimal it is written as. Raises ValueError where it is none."""
    if value is None:
        return None
    number = read_number(str(value))  # B3: Fraction("1e999999999") would fill the memory
    if number is None:
        raise ValueError('numbers must be exact and not negative, such as 1, 0.5 or "1/3"')
    return number
