"""What DuckDB and PostgreSQL write each in its own way. See ``dialect`` for what they share and promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from insitu_privacy.dataset import Bound, Column, ColumnType, Scalar
from insitu_privacy.dialect import WIDEST, Dialect
from insitu_privacy.expressions import Op
from insitu_privacy.guarded import TINY
from insitu_privacy.operations import like, unless_least

_CODES = 255
"""Values of a DuckDB ENUM that is stored in one byte; making one of many takes seconds."""
_SHORT = 32
"""Values that PostgreSQL finds one by one in less time than it takes to group by texts."""


class DuckDB(Dialect):
    """DuckDB 2."""

    name = "duckdb"
    bigint = "BIGINT"
    double = "DOUBLE"
    collation = "binary"

    def codes(self, kind: ColumnType, domain: Sequence[Scalar | None] | None) -> bool:
        return kind == "text" and 0 < len(_texts(domain)) <= _CODES and _has_no_nul(domain)

    def coded(self, text: str, domain: Sequence[Scalar | None]) -> str:  # grouped and compared as single bytes
        return f"TRY_CAST({text} AS ENUM({', '.join(map(self.text, _texts(domain)))}))"

    def decoded(self, code: str, domain: Sequence[Scalar | None]) -> str:
        return code

    def special(self, op: Op, args: Sequence[str]) -> str:
        if op in (Op.LOWER, Op.UPPER):
            return f"{op.value.upper()}({args[0]})"
        if op is Op.ILIKE:
            return like("ILIKE")(self, args)
        if op is Op.MUL:
            return f"({args[0]} * {args[1]})"
        if op is Op.INTDIV:
            return f"({unless_least(args[0])} // NULLIF({args[1]}, 0))"
        if op is Op.MOD:
            return f"({unless_least(args[0])} % NULLIF({args[1]}, 0))"
        if op is Op.DAYS_BETWEEN:
            return f"DATE_DIFF('day', CAST({args[0]} AS DATE), CAST({args[1]} AS DATE))"
        raise KeyError(op)

    def matches(self, text: str, pattern: str) -> str:
        return f"REGEXP_FULL_MATCH({text}, '{pattern}')"

    def microseconds(self, moment: str) -> str:
        return f"EPOCH_US(CAST({moment} AS TIMESTAMP))"

    def quotient(self, a: str, b: str) -> str:
        return f"({a} // {b})"

    def months(self, count: str) -> str:
        return f"TO_MONTHS({count})"

    def seconds(self, count: str) -> str:
        return f"TO_MICROSECONDS({count} * 1000000)"

    def scaled_wide(self, total: str, rows: str, most: int) -> str:
        return f"(CAST({total} AS HUGEINT) * {most} // {rows})"

    def least_of(self, kind: ColumnType, text: str) -> str:
        return f"MIN({text})"

    def greatest_of(self, kind: ColumnType, text: str) -> str:
        return f"MAX({text})"

    def as_text(self, text: str) -> str:
        return f"COALESCE(CAST({text} AS VARCHAR), '')"

    def hashed(self, text: str) -> str:
        return f"MD5({text})"


class PostgreSQL(Dialect):
    """PostgreSQL 14 and later."""

    name = "postgres"
    bigint = "BIGINT"
    double = "DOUBLE PRECISION"
    collation = "C"
    fence = "\nOFFSET 0"

    def codes(self, kind: ColumnType, domain: Sequence[Scalar | None] | None) -> bool:
        return kind == "text" and 0 < len(_texts(domain)) <= _SHORT and _has_no_nul(domain)

    def coded(self, text: str, domain: Sequence[Scalar | None]) -> str:
        return f"CAST(ARRAY_POSITION({self._array(domain)}, {text}) AS SMALLINT)"

    def decoded(self, code: str, domain: Sequence[Scalar | None]) -> str:
        return f"({self._array(domain)})[{code}]"

    def _array(self, domain: Sequence[Scalar | None]) -> str:
        return f"CAST(ARRAY[{', '.join(map(self.text, _texts(domain)))}] AS TEXT[])"

    def _plain(self, bound: Bound) -> str:
        """NUMERIC, whatever the column is: such a one may hold what no double does, and comparing the two fails."""
        assert isinstance(bound, Fraction)
        if abs(bound) == WIDEST:
            return f"{'-' if bound < 0 else ''}1e300"
        text = str(Decimal(bound.numerator) / Decimal(bound.denominator))
        return f"({text})" if bound < 0 else text

    def guard(self, column: Column, raw: str) -> str:
        """Where nothing is below zero, the comparison with what is too near to zero spares one with zero."""
        low = column.minimum
        if (
            column.type != "decimal"
            or column.values is not None
            or not isinstance(low, Fraction)
            or not (low == 0 or low >= 1)
        ):
            return super().guard(column, raw)
        inside, number = " AND ".join(self.conditions(column, raw)), super().read(column, raw)
        if low > 0:
            return f"CASE WHEN {inside} THEN {number} END"
        high = self.conditions(column, raw)[1]
        return f"CASE WHEN {raw} >= {TINY} AND {high} THEN {number} WHEN {inside} THEN 0 END"

    def read(self, column: Column, raw: str) -> str:
        if column.type == "decimal":  # a NUMERIC may be too near to zero for a double
            number = super().read(column, raw)
            return f"CASE WHEN ABS({raw}) >= {TINY} THEN {number} WHEN {raw} IS NOT NULL THEN 0 END"
        return super().read(column, raw)

    def special(self, op: Op, args: Sequence[str]) -> str:
        if op in (Op.LOWER, Op.UPPER):  # C knows the case of ASCII letters alone
            return f'({op.value.upper()}({args[0]} COLLATE "default") COLLATE "C")'
        if op is Op.ILIKE:
            return like("ILIKE")(self, [f'{args[0]} COLLATE "default"', *args[1:]])
        if op is Op.MUL:
            a, b = args
            apart = f"ABS({a}) >= {TINY} AND ABS({b}) >= {TINY}"
            return f"CASE WHEN {apart} THEN {a} * {b} WHEN {a} IS NOT NULL AND {b} IS NOT NULL THEN 0 END"
        if op is Op.INTDIV:
            return f"({unless_least(args[0])} / NULLIF({args[1]}, 0))"
        if op is Op.MOD:
            return f"({unless_least(args[0])} % NULLIF({args[1]}, 0))"
        if op is Op.DAYS_BETWEEN:
            return f"CAST(CAST({args[1]} AS DATE) - CAST({args[0]} AS DATE) AS BIGINT)"
        raise KeyError(op)

    def matches(self, text: str, pattern: str) -> str:
        return f"({text} ~ '^({pattern})$')"

    def microseconds(self, moment: str) -> str:
        return f"CAST(EXTRACT(EPOCH FROM CAST({moment} AS TIMESTAMP)) * 1000000 AS BIGINT)"

    def quotient(self, a: str, b: str) -> str:
        return f"({a} / {b})"

    def months(self, count: str) -> str:
        return f"MAKE_INTERVAL(months => {count})"

    def seconds(self, count: str) -> str:  # of many seconds at once a double would lose some
        return f"MAKE_INTERVAL(days => CAST({count} / 86400 AS INTEGER), secs => {count} % 86400)"

    def scaled_wide(self, total: str, rows: str, most: int) -> str:
        return f"DIV(CAST({total} AS NUMERIC) * {most}, {rows})"

    def least_of(self, kind: ColumnType, text: str) -> str:
        return f"BOOL_AND({text})" if kind == "boolean" else f"MIN({text})"

    def greatest_of(self, kind: ColumnType, text: str) -> str:
        return f"BOOL_OR({text})" if kind == "boolean" else f"MAX({text})"

    def as_text(self, text: str) -> str:
        return f"COALESCE(CAST({text} AS TEXT), '')"

    def hashed(self, text: str) -> str:  # under a collation that compares bytes: the server's own may be slow, or odd
        return f'MD5({text}) COLLATE "C"'


def _texts(domain: Sequence[Scalar | None] | None) -> list[str]:
    """The texts of a domain, in the order of their bytes: that of their code points."""
    return sorted(value for value in domain or () if isinstance(value, str))


def _has_no_nul(domain: Sequence[Scalar | None] | None) -> bool:
    return not any("\0" in value for value in _texts(domain))


DIALECTS: Mapping[str, Dialect] = {"duckdb": DuckDB(), "postgres": PostgreSQL()}
