"""The one way signed JSON is written and read: exact types, no unknown, missing or repeated field.

A payload is one JSON object in UTF-8. ``Fields`` reads it field by field, each by name and type; what is left
unread at the end is refused, so that a signer and a verifier can never understand different things by one text.
Exact numbers travel as text ("1/2", "1e-6"), times as whole Unix seconds. Every refusal is ``Malformed``, whose
reason names the field and never repeats its value.

Not here: what values mean (``invariants`` and the domain modules), signatures (``jose``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import TracebackType
from typing import TypeVar

from insitu_privacy.untrusted import Refusable, read_json

JsonScalar = int | float | str | bool | None
T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAYLOAD_BYTES = 48 * 2**20
"""As long as the longest token may be; ``jose`` limits each kind to less."""
LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second a datetime can hold."""

# The length and the exponent are limited because Fraction("1e999999999") would fill the memory.
_NUMBER = re.compile(r"[0-9]{1,1000}(?:/[0-9]{1,1000}|(?:\.[0-9]{1,400})?(?:e[+-]?[0-9]{1,3})?)", re.ASCII)


class Malformed(ValueError):
    """A payload or a value that is not what it must be. ``reason`` names the field, never its value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def write(value: Mapping[str, object]) -> bytes:
    """The payload bytes of a JSON object; equal values give equal bytes. Raises Malformed for what JSON cannot say.

    Entries of logs are read and written again: a lone surrogate or an infinity comes this far.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise Malformed("it holds text or a number that cannot be written") from error


def read(data: bytes) -> Fields:
    """The fields of a payload. Raises Malformed where it is not one JSON object without repeated keys (B1, B2)."""
    try:
        value = read_json(data, limit=PAYLOAD_BYTES, pairs=_unique)
    except Refusable as error:
        raise Malformed(str(error)) from error
    return Fields(value, "")


def read_number(text: str) -> Fraction | None:
    """The exact non-negative number that ``text`` writes, or None."""
    try:
        return Fraction(text) if _NUMBER.fullmatch(text) else None
    except ZeroDivisionError:
        return None


def seconds_down(moment: datetime) -> int:
    """Whole Unix seconds at or before ``moment``: how starts and issue times are written."""
    return (moment - _EPOCH) // timedelta(seconds=1)


def seconds_up(moment: datetime) -> int:
    """Whole Unix seconds at or after ``moment``: how deadlines are written."""
    return -((_EPOCH - moment) // timedelta(seconds=1))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a field stands twice in one object")
    return found


class Fields:
    """The fields of one JSON object, to be read in a ``with`` block; leaving it refuses what nobody read."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{path or 'the payload'} must be an object")
        self._left: dict[str, object] = dict(value)
        self._path = path

    def __enter__(self) -> Fields:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None and self._left:
            raise Malformed(f"{self._path or 'the payload'} has fields that are not known")

    def text(self, name: str) -> str:
        return as_text(self._take(name), self._at(name))

    def optional_text(self, name: str) -> str | None:
        return self._optional(name, as_text)

    def integer(self, name: str) -> int:
        return as_integer(self._take(name), self._at(name))

    def optional_integer(self, name: str) -> int | None:
        return self._optional(name, as_integer)

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise Malformed(f"{self._at(name)} must be true or false")
        return value

    def moment(self, name: str) -> datetime:
        return self.item(name, as_moment)

    def number(self, name: str) -> Fraction:
        value = read_number(self.text(name))
        if value is None:
            raise Malformed(f'{self._at(name)} must be an exact number as text, such as "1/2"')
        return value

    def item(self, name: str, each: Callable[[object, str], T]) -> T:
        return each(self._take(name), self._at(name))

    def optional_item(self, name: str, each: Callable[[object, str], T]) -> T | None:
        return self._optional(name, each)

    def fields(self, name: str) -> Fields:
        return self.item(name, Fields)

    def optional_fields(self, name: str) -> Fields | None:
        return self._optional(name, Fields)

    def items(self, name: str, each: Callable[[object, str], T]) -> tuple[T, ...]:
        return as_items(self._take(name), self._at(name), each)

    def optional_items(self, name: str, each: Callable[[object, str], T]) -> tuple[T, ...] | None:
        return self._optional(name, lambda value, path: as_items(value, path, each))

    def optional_mapping(self, name: str, each: Callable[[object, str], T]) -> dict[str, T] | None:
        """An object with free keys, or null."""
        return self._optional(name, lambda value, path: as_mapping(value, path, each))

    def texts(self, name: str) -> tuple[str, ...]:
        return self.items(name, as_text)

    def _take(self, name: str) -> object:
        if name not in self._left:
            raise Malformed(f"{self._at(name)} is missing")
        return self._left.pop(name)

    def _optional(self, name: str, each: Callable[[object, str], T]) -> T | None:
        # null is written out: a field that may be left away is one that a careless reader does not see
        value = self._take(name)
        return None if value is None else each(value, self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def as_text(value: object, path: str) -> str:
    if not isinstance(value, str) or not is_unicode(value):
        raise Malformed(f"{path} must be text")
    return value


def as_integer(value: object, path: str) -> int:
    if type(value) is not int:  # a bool is an int to isinstance
        raise Malformed(f"{path} must be an integer")
    return value


def as_moment(value: object, path: str) -> datetime:
    seconds = as_integer(value, path)
    if not 0 <= seconds <= LAST_SECOND:
        raise Malformed(f"{path} must be a time in Unix seconds")
    return datetime.fromtimestamp(seconds, UTC)


def as_items(value: object, path: str, each: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise Malformed(f"{path} must be a list")
    return tuple(each(item, f"{path}[{index}]") for index, item in enumerate(value))


def as_mapping(value: object, path: str, each: Callable[[object, str], T]) -> dict[str, T]:
    if not isinstance(value, dict):
        raise Malformed(f"{path} must be an object")
    return {as_text(key, path): each(item, f"{path}.{key}") for key, item in value.items()}


def is_unicode(value: str) -> bool:
    """Whether ``value`` can be written as UTF-8: lone surrogates cannot, and would fail much later."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
