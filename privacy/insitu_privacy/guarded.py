"""Texts of operations that both engines have but that fail outside a domain: each stands in a CASE that rules that out.

A database may evaluate conditions in any order, so the guard is part of the text itself and rests on no WHERE. An
argument is written as often as ``WRITTEN`` says. What differs between the engines is asked of the dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from insitu_privacy import written
from insitu_privacy.calendar import SECONDS
from insitu_privacy.expressions import Op

TINY = "1e-150"
"""Floats nearer to zero count as zero in products, quotients and powers: PostgreSQL raises an error on underflow."""
DAYS = 4_000_000
"""More days than the calendar has; also more months."""
_FIRST, _LAST = "DATE '0001-01-01'", "DATE '9999-12-31'"
_BEFORE_1970 = 62_135_596_800
_LEAP = "({0} % 4 = 0 AND ({0} % 100 <> 0 OR {0} % 400 = 0))"


class Engine(Protocol):
    """What these texts ask of a dialect."""

    bigint: str
    double: str

    def matches(self, text: str, pattern: str) -> str:
        """Whether all of a text is of a pattern of ``written``."""

    def microseconds(self, moment: str) -> str:
        """Of a timestamp, since 1970."""

    def quotient(self, a: str, b: str) -> str:
        """Of whole numbers, truncated towards zero."""

    def months(self, count: str) -> str:
        """An interval of so many months."""

    def seconds(self, count: str) -> str:
        """An interval of so many seconds, exactly."""


Text = Callable[[Engine, Sequence[str]], str]


def _add_days(engine: Engine, args: Sequence[str]) -> str:
    day, count = args
    return (
        f"CASE WHEN {count} BETWEEN ({_FIRST} - {day}) AND ({_LAST} - {day}) THEN {day} + CAST({count} AS INTEGER) END"
    )


def _add_months(engine: Engine, args: Sequence[str]) -> str:
    day, count = args
    place = f"CAST(DATE_PART('year', {day}) * 12 + DATE_PART('month', {day}) AS {engine.bigint}) + {count}"
    moved = f"CAST({day} + {engine.months(f'CAST({count} AS INTEGER)')} AS DATE)"
    inside = f"CASE WHEN {place} BETWEEN 13 AND 120000 THEN {moved} END"
    return f"CASE WHEN {count} BETWEEN -{DAYS} AND {DAYS} THEN {inside} END"


def _seconds_of(engine: Engine, moment: str) -> str:
    """Whole seconds since the year 1."""
    return engine.quotient(f"({engine.microseconds(moment)} + {_BEFORE_1970}000000)", "1000000")


def _add_seconds(engine: Engine, args: Sequence[str]) -> str:
    moment, count = args
    inside = f"{_seconds_of(engine, moment)} + {count} BETWEEN 0 AND 315537897599"
    moved = f"{moment} + {engine.seconds(count)}"
    return f"CASE WHEN {count} BETWEEN -{SECONDS} AND {SECONDS} THEN CASE WHEN {inside} THEN {moved} END END"


def _units_between(engine: Engine, args: Sequence[str]) -> str:
    start, end, unit = args
    first, last = (engine.quotient(_seconds_of(engine, moment), unit) for moment in (start, end))
    return f"({last} - {first})"


def _epoch(engine: Engine, args: Sequence[str]) -> str:
    return f"(CAST({engine.microseconds(args[0])} AS {engine.double}) / CAST(1000000 AS {engine.double}))"


def _make_date(engine: Engine, args: Sequence[str]) -> str:
    year, month, day = args
    february = f"CASE WHEN {_LEAP.format(year)} THEN 29 ELSE 28 END"
    days = f"CASE WHEN {month} IN (4, 6, 9, 11) THEN 30 WHEN {month} <> 2 THEN 31 ELSE {february} END"
    inside = f"{year} BETWEEN 1 AND 9999 AND {month} BETWEEN 1 AND 12 AND {day} BETWEEN 1 AND {days}"
    made = ", ".join(f"CAST({arg} AS INTEGER)" for arg in args)
    return f"CASE WHEN {inside} THEN MAKE_DATE({made}) END"


def _cast(pattern: str, kind: str) -> Text:
    def text(engine: Engine, args: Sequence[str]) -> str:
        name = engine.double if kind == "DOUBLE" else kind
        made = f"CAST({args[0]} AS {name})"
        return f"CASE WHEN {engine.matches(args[0], pattern)} THEN {made} END"

    return text


def _text_to_date(engine: Engine, args: Sequence[str]) -> str:
    return f"CAST({_cast(written.MOMENT, 'TIMESTAMP')(engine, args)} AS DATE)"


def _inside(name: str, condition: str) -> Text:
    return lambda engine, args: f"CASE WHEN {condition.format(args[0])} THEN {name}({args[0]}) END"


def _exp(engine: Engine, args: Sequence[str]) -> str:
    value = args[0]
    return f"CASE WHEN {value} BETWEEN -300 AND 300 THEN EXP({value}) WHEN {value} < -300 THEN 0 END"


def _power(engine: Engine, args: Sequence[str]) -> str:
    value, exponent = args
    power = f"POWER({value}, CAST({exponent} AS {engine.double}))"
    return f"CASE WHEN ABS({value}) <= 1e25 THEN CASE WHEN ABS({value}) >= 1e-25 THEN {power} ELSE 0 END END"


def _near_zero(name: str, at_zero: str, condition: str) -> Text:
    def text(engine: Engine, args: Sequence[str]) -> str:
        near = f"CASE WHEN ABS({args[0]}) >= {TINY} THEN {name}({args[0]}) ELSE {at_zero} END"
        return f"CASE WHEN {condition.format(args[0])} THEN {near} END"

    return text


def _clock(name: str) -> Text:
    return lambda engine, args: f"CAST(FLOOR(DATE_PART('{name}', CAST({args[0]} AS TIMESTAMP))) AS {engine.bigint})"


def _with_numbers(name: str, *places: int) -> Text:
    """A function of text, whose numbers are of 32 bits."""

    def text(engine: Engine, args: Sequence[str]) -> str:
        written_out = [f"CAST({arg} AS INTEGER)" if place in places else arg for place, arg in enumerate(args)]
        return f"{name}({', '.join(written_out)})"

    return text


TEXTS: Mapping[Op, Text] = {
    Op.HOUR: _clock("hour"),
    Op.MINUTE: _clock("minute"),
    Op.SECOND: _clock("second"),
    Op.EPOCH: _epoch,
    Op.UNITS_BETWEEN: _units_between,
    Op.ADD_DAYS: _add_days,
    Op.ADD_MONTHS: _add_months,
    Op.ADD_SECONDS: _add_seconds,
    Op.MAKE_DATE: _make_date,
    Op.TO_TIMESTAMP: lambda engine, args: f"CAST({args[0]} AS TIMESTAMP)",
    Op.TEXT_TO_INTEGER: _cast(written.INTEGER, "BIGINT"),
    Op.TEXT_TO_DECIMAL: _cast(written.DECIMAL, "DOUBLE"),
    Op.TEXT_TO_DATE: _text_to_date,
    Op.TEXT_TO_TIMESTAMP: _cast(written.MOMENT, "TIMESTAMP"),
    Op.TRIM: lambda engine, args: f"LTRIM(RTRIM({args[0]}, ' '), ' ')",
    Op.LTRIM: lambda engine, args: f"LTRIM({args[0]}, ' ')",
    Op.RTRIM: lambda engine, args: f"RTRIM({args[0]}, ' ')",
    Op.REPLACE: _with_numbers("REPLACE"),
    Op.POSITION: lambda engine, args: f"CAST(STRPOS({args[0]}, {args[1]}) AS {engine.bigint})",
    Op.RIGHT: _with_numbers("RIGHT", 1),
    Op.LPAD: _with_numbers("LPAD", 1),
    Op.RPAD: _with_numbers("RPAD", 1),
    Op.SPLIT_PART: _with_numbers("SPLIT_PART", 2),
    Op.SQRT: _inside("SQRT", "{0} >= 0"),
    Op.LN: _inside("LN", f"{{0}} >= {TINY}"),
    Op.LOG10: _inside("LOG10", f"{{0}} >= {TINY}"),
    Op.EXP: _exp,
    Op.POWER: _power,
    Op.SIN: _near_zero("SIN", "0", "ABS({0}) <= 1e9"),
    Op.COS: _near_zero("COS", "1", "ABS({0}) <= 1e9"),
    Op.ASIN: _near_zero("ASIN", "0", "{0} BETWEEN -1 AND 1"),
    Op.ACOS: _inside("ACOS", "{0} BETWEEN -1 AND 1"),
    Op.ATAN: _near_zero("ATAN", "0", "{0} IS NOT NULL"),
}
WRITTEN: Mapping[Op, int] = {
    Op.ADD_DAYS: 3, Op.ADD_MONTHS: 3, Op.ADD_SECONDS: 5, Op.MAKE_DATE: 5, Op.UNITS_BETWEEN: 2, Op.TEXT_TO_INTEGER: 2,
    Op.TEXT_TO_DECIMAL: 2, Op.TEXT_TO_DATE: 2, Op.TEXT_TO_TIMESTAMP: 2, Op.SQRT: 2, Op.LN: 2, Op.LOG10: 2, Op.EXP: 3,
    Op.POWER: 3, Op.SIN: 3, Op.COS: 3, Op.ASIN: 3, Op.ACOS: 2, Op.ATAN: 3,
}  # fmt: skip
"""How often an argument is written, at most."""
