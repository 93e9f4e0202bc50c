"""What every name, text, number and time in a signed object must satisfy; used by the domain values themselves.

Each check raises ``Malformed`` with a reason that names the field and never repeats its value. Names are narrow on
purpose: they stand in certificates, file names, logs and terminals.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from insitu_access.payload import Malformed, is_unicode

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_JURISDICTION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)

LINE_LIMIT = 500
NUMBER_LIMIT = 10**1000
"""Numerator and denominator stay below this, so that a number always fits what ``payload`` reads back."""


def check(holds: bool, reason: str) -> None:
    """Raise Malformed(reason) unless ``holds``."""
    if not holds:
        raise Malformed(reason)


def check_name(value: str, what: str) -> None:
    """Federation, party, dataset, grant: letters, digits, dot, dash and underscore."""
    check(_NAME.fullmatch(value) is not None, f"{what} must be 1 to 63 letters, digits, '.', '_' or '-'")


def check_names(values: Sequence[str], what: str) -> None:
    """At least one name, none twice, also not in another case."""
    for value in values:
        check_name(value, what)
    check(bool(values), f"{what} must not be empty")
    check_unique([value.casefold() for value in values], what)


def check_unique(values: Collection[Hashable], what: str) -> None:
    check(len(set(values)) == len(values), f"{what} must not repeat")


def check_column_name(value: str, what: str) -> None:
    """Tables and columns, as the dataset file names them."""
    check(_COLUMN.fullmatch(value) is not None, f"{what} must be a table or column name in lower case")


def check_line(value: str, what: str) -> None:
    """One line of text for people: printable, so that it cannot play tricks on the terminal that shows it."""
    fits = 0 < len(value) <= LINE_LIMIT and value.isprintable() and bool(value.strip())
    check(fits, f"{what} must be one line of 1 to {LINE_LIMIT} printable characters")


def check_text(value: str, what: str, limit: int) -> None:
    """Longer text: valid Unicode of at most ``limit`` bytes."""
    check(is_unicode(value) and len(value.encode()) <= limit, f"{what} must be Unicode text of at most {limit} bytes")


def check_sha256(value: str, what: str) -> None:
    check(_SHA256.fullmatch(value) is not None, f"{what} must be a SHA-256 in 64 lower-case hex digits")


def check_request_id(value: str) -> None:
    check(_UUID.fullmatch(value) is not None, "request_id must be a UUID in 32 lower-case hex digits")


def check_jurisdiction(value: str, what: str) -> None:
    check(_JURISDICTION.fullmatch(value) is not None, f"{what} must be an ISO 3166 code, such as FR")


def check_countries(values: Collection[str], what: str) -> None:
    """Accepted jurisdictions: countries, or ``EU``."""
    for value in values:
        check(_COUNTRY.fullmatch(value) is not None, f"{what} must be ISO 3166-1 codes of countries, such as FR, or EU")


def check_number(value: Fraction, what: str) -> None:
    """Not negative, and short enough to be read back."""
    check(0 <= value.numerator < NUMBER_LIMIT and value.denominator < NUMBER_LIMIT, f"{what} must not be negative")


def check_epsilon(value: Fraction, what: str) -> None:
    check_number(value, what)
    check(value > 0, f"{what} must be above 0")


def check_delta(value: Fraction, what: str) -> None:
    check_number(value, what)
    check(value < 1, f"{what} must be below 1")


def check_moments(moments: Sequence[datetime], what: str) -> None:
    """In UTC, and each before the next."""
    for moment in moments:
        check(moment.utcoffset() == timedelta(0) and moment.year >= 1970, f"{what}: times must be in UTC")
    for earlier, later in pairwise(moments):
        check(earlier < later, f"{what}: the end must be after the start")
