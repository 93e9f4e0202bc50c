"""How operations are written that all engines write alike (P1: a closed set).

Each is total: whatever it is given, it gives no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from insitu_privacy.expressions import Op
from insitu_privacy.guarded import TINY

if TYPE_CHECKING:
    from insitu_privacy.dialect import Dialect

_HUGE = "1e150"
"""Quotients by larger ones are zero: others may be too near to zero for a double."""
_LEAST = -(2**63)
"""Has no absolute value in 64 bits."""
_JOINED = 1_000
"""Characters of each part that CONCAT puts together: text cannot grow on and on from one derived table to the next."""


def _infix(operator: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: "(" + f" {operator} ".join(args) + ")"


def like(operator: str) -> Callable[[Dialect, Sequence[str]], str]:
    def text(dialect: Dialect, args: Sequence[str]) -> str:
        escape = f" ESCAPE {args[2]}" if len(args) > 2 else ""
        return f"({args[0]} {operator} {args[1]}{escape})"

    return text


def _function(name: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: f"{name}({', '.join(args)})"


def _case(dialect: Dialect, args: Sequence[str]) -> str:
    whens = " ".join(f"WHEN {args[i]} THEN {args[i + 1]}" for i in range(0, len(args) - 1, 2))
    return f"CASE {whens} ELSE {args[-1]} END"


def _to_integer(dialect: Dialect, args: Sequence[str]) -> str:
    one, zero = dialect.number("integer", 1), dialect.number("integer", 0)
    return f"CASE WHEN {args[0]} THEN {one} WHEN NOT {args[0]} THEN {zero} END"


def _bucket(dialect: Dialect, args: Sequence[str]) -> str:
    value, low, high, parts = args
    place = f"FLOOR((CAST({value} AS {dialect.double}) - {low}) * {parts} / ({high} - {low}))"
    inside = f"CAST(LEAST({place}, {parts} - 1) AS {dialect.bigint}) + 1"
    outside = f"WHEN {value} < {low} THEN 0 WHEN {value} >= {high} THEN {parts} + 1"
    return f"CASE {outside} WHEN {value} IS NOT NULL THEN {inside} END"


def _divide(dialect: Dialect, args: Sequence[str]) -> str:
    a, b = (f"CAST({arg} AS {dialect.double})" for arg in args)
    quotient = f"CASE WHEN ABS({b}) <= {_HUGE} AND ABS({a}) >= {TINY} THEN {a} / {b} ELSE {a} * 0.0 END"
    return f"CASE WHEN ABS({b}) >= {TINY} THEN {quotient} END"


def _joined(dialect: Dialect, args: Sequence[str]) -> str:
    return "(" + " || ".join(f"LEFT({arg}, {_JOINED})" for arg in args) + ")"


def unless_least(arg: str) -> str:
    """An integer that has an absolute value; of decimals, one value less."""
    return f"NULLIF({arg}, CAST('{_LEAST}' AS BIGINT))"


def _part(name: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: f"CAST(DATE_PART('{name}', {args[0]}) AS {dialect.bigint})"


def _trunc(unit: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: f"CAST(DATE_TRUNC('{unit}', {args[0]}) AS DATE)"


OPERATIONS: Mapping[Op, Callable[[Dialect, Sequence[str]], str]] = {
    Op.ADD: _infix("+"),
    Op.SUB: _infix("-"),
    Op.DIV: _divide,
    Op.NEG: lambda dialect, args: f"(-{unless_least(args[0])})",
    Op.ABS: lambda dialect, args: f"ABS({unless_least(args[0])})",
    Op.FLOOR: _function("FLOOR"),
    Op.CEIL: _function("CEIL"),
    Op.ROUND: lambda dialect, args: f"(SIGN({args[0]}) * FLOOR(ABS({args[0]}) + 0.5))",
    Op.EQ: _infix("="),
    Op.NE: _infix("<>"),
    Op.LT: _infix("<"),
    Op.LE: _infix("<="),
    Op.GT: _infix(">"),
    Op.GE: _infix(">="),
    Op.IN: lambda dialect, args: f"({args[0]} IN ({', '.join(args[1:])}))",
    Op.IS_NULL: lambda dialect, args: f"({args[0]} IS NULL)",
    Op.LIKE: like("LIKE"),
    Op.AND: _infix("AND"),
    Op.OR: _infix("OR"),
    Op.NOT: lambda dialect, args: f"(NOT {args[0]})",
    Op.CASE: _case,
    Op.COALESCE: _function("COALESCE"),
    Op.NULLIF: _function("NULLIF"),
    Op.LEAST: _function("LEAST"),
    Op.GREATEST: _function("GREATEST"),
    Op.YEAR: _part("YEAR"),
    Op.QUARTER: _part("QUARTER"),
    Op.MONTH: _part("MONTH"),
    Op.DAY: _part("DAY"),
    Op.DOW: _part("DOW"),
    Op.ISODOW: _part("ISODOW"),
    Op.DOY: _part("DOY"),
    Op.WEEK: _part("WEEK"),
    Op.TRUNC_YEAR: _trunc("year"),
    Op.TRUNC_QUARTER: _trunc("quarter"),
    Op.TRUNC_MONTH: _trunc("month"),
    Op.TRUNC_WEEK: _trunc("week"),
    Op.TO_DATE: lambda dialect, args: f"CAST({args[0]} AS DATE)",
    Op.TO_DECIMAL: lambda dialect, args: f"CAST({args[0]} AS {dialect.double})",
    Op.TO_INTEGER: _to_integer,
    Op.TO_WHOLE: lambda dialect, args: f"CAST({args[0]} AS {dialect.bigint})",
    Op.TO_TEXT: lambda dialect, args: f"CAST({args[0]} AS VARCHAR)",
    Op.BUCKET: _bucket,
    Op.LENGTH: lambda dialect, args: f"CAST(LENGTH({args[0]}) AS {dialect.bigint})",
    Op.SUBSTRING: lambda dialect, args: (
        f"SUBSTRING({args[0]} FROM CAST({args[1]} AS INTEGER) FOR CAST({args[2]} AS INTEGER))"
    ),
    Op.CONCAT: _joined,
}
