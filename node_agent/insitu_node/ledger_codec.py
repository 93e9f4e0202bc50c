"""How the ledger writes exact numbers and released values down: text that reads back equal, and nothing else.

Reading is strict: what was not written by this module is a ValueError. Not a wire format: what leaves the node is
encoded by ``insitu_access.release``.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from insitu_privacy.plan import ReleasedValues


def fraction_text(value: Fraction) -> str:
    """An exact number as text: hexadecimal, which Python reads and writes at any length in linear time."""
    return f"{value.numerator:x}/{value.denominator:x}"


def fraction(text: str) -> Fraction:
    """The exact number that ``fraction_text`` wrote."""
    numerator, _, denominator = text.partition("/")
    return Fraction(int(numerator, 16), int(denominator, 16))


def pack_values(values: tuple[ReleasedValues, ...]) -> bytes:
    """Released values as bytes."""
    document = [{"keys": release.keys, "statistics": release.statistics} for release in values]
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def unpack_values(data: bytes) -> tuple[ReleasedValues, ...]:
    """The released values that ``pack_values`` wrote."""
    try:
        return tuple(_release(item) for item in json.loads(data))  # noqa: TID251  our own ledger
    except (KeyError, TypeError) as error:
        raise ValueError("stored values are malformed") from error


def _release(item: Any) -> ReleasedValues:
    keys = item["keys"]
    statistics = tuple(tuple(column) for column in item["statistics"])
    if not all(type(value) is int for column in statistics for value in column):
        raise ValueError("stored statistics are integers")
    return ReleasedValues(keys=None if keys is None else tuple(tuple(row) for row in keys), statistics=statistics)
