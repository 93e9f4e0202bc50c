"""Writes expressions in the dialects of the engines: the only place where text for a database is made of a query.

Every operation is written so that it is total on that engine (DESIGN.md section 4, No side doors): divisors of 0 give
NULL, floats that would overflow or underflow an error are caught, casts cannot fail. Identifiers are always quoted,
text literals always escaped. The two dialects give the same values; a contract test runs both on both engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

from insitu_privacy.dataset import Bound, Column, ColumnType, Scalar
from insitu_privacy.domains import INTEGER_LIMIT
from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression, Literal, Op
from insitu_privacy.guarded import TEXTS, TINY
from insitu_privacy.implied import BOTH_ENDS, NO_ENDS, Ends
from insitu_privacy.operations import OPERATIONS

Given = Mapping[str | ColumnRef, str]
_NOTHING: Given = MappingProxyType({})
WIDEST = Fraction(10**300)
"""Decimals without bounds are read within these."""
_MOST = 2**63 - 1
_PLACES, _PLAIN = 8, 10**18


class Dialect(ABC):
    """Text for one engine. What differs between engines is abstract."""

    name: str
    bigint: str
    double: str
    collation: str
    """In which only equal bytes are equal."""
    fence: str = ""
    """Ends a derived table whose expressions are to be computed once a row, however often they are used."""

    def write(self, expression: Expression, given: Given = _NOTHING) -> str:
        """The text of an expression: cohorts and columns as the text given for them, else ``"source"."column"``."""
        if isinstance(expression, ColumnRef):
            return given.get(expression) or self.place(expression.scan, expression.column)
        if isinstance(expression, Literal):
            return self.literal(expression.type, expression.value)
        if isinstance(expression, Exists):
            terms = " AND ".join(self.write(term, given) for term in expression.on) or "TRUE"
            return f"EXISTS (SELECT 1 FROM {given[expression.cohort]} WHERE {terms})"
        return self._call(expression, given)

    def place(self, source: str, column: str) -> str:
        """A column of a source."""
        return f"{self.identifier(source)}.{self.identifier(column)}"

    def identifier(self, name: str) -> str:
        """A quoted identifier."""
        return '"' + name.replace('"', '""') + '"'

    def literal(self, kind: ColumnType, value: Scalar | Fraction | None) -> str:
        """A typed constant."""
        if value is None:
            return f"CAST(NULL AS {self.type(kind)})"
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, datetime):
            return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
        if isinstance(value, date):
            return f"DATE '{value.isoformat()}'"
        return self.number(kind, value)

    def number(self, kind: ColumnType, value: int | float | Fraction) -> str:
        """A numeric constant: whole ones as 64-bit integers, others as doubles."""
        if kind == "integer":  # DuckDB would take a small constant for 32 bits, and overflow
            return f"{int(value)}::{self.bigint}" if value >= 0 else f"({int(value)})::{self.bigint}"
        return f"CAST('{float(value)!r}' AS {self.double})"

    def text(self, value: str) -> str:
        """A text constant. NUL cannot stand in PostgreSQL text, and equals nothing there."""
        return "'" + value.replace("\0", "").replace("'", "''") + "'"

    def type(self, kind: ColumnType) -> str:
        """The engine's name of a type."""
        names: Mapping[ColumnType, str] = {
            "integer": self.bigint,
            "decimal": self.double,
            "text": "VARCHAR",
            "date": "DATE",
            "timestamp": "TIMESTAMP",
            "boolean": "BOOLEAN",
        }
        return names[kind]

    def guard(self, column: Column, raw: str) -> str:
        """Reads a column: what is outside its declared domain or bounds, NaN and infinities become NULL."""
        checks = self.conditions(column, raw)
        read = self.read(column, raw)
        return f"CASE WHEN {' AND '.join(checks)} THEN {read} END" if checks else read

    def conditions(self, column: Column, raw: str, *, known: Ends = NO_ENDS) -> list[str]:
        """What holds for the values of a column that are within its declaration, and is not ``known`` already."""
        if known == BOTH_ENDS:
            return []
        raw = self.exactly(column.type, raw)
        if column.values is not None:
            return [f"{raw} IN ({', '.join(self.literal(column.type, value) for value in column.values)})"]
        low, high = self._limits(column)
        lower = [] if low is None or known.low else [f"{raw} >= {low}"]
        return lower if high is None or known.high else [*lower, f"{raw} <= {high}"]

    def _limits(self, column: Column) -> tuple[str | None, str | None]:
        if column.type == "decimal":
            low = self._plain(-WIDEST if column.minimum is None else column.minimum)
            return low, self._plain(WIDEST if column.maximum is None else column.maximum)
        low_bound, high_bound = column.minimum, column.maximum
        if column.type == "integer":
            low_bound = -INTEGER_LIMIT if low_bound is None else low_bound
            high_bound = INTEGER_LIMIT if high_bound is None else high_bound
        if column.type in ("date", "timestamp"):  # what Python's dates hold; infinities are beyond
            low_bound = date(1, 1, 1) if low_bound is None else low_bound
            high_bound = date(9999, 12, 31) if high_bound is None else high_bound
        ends = [None if end is None else self.literal(column.type, end) for end in (low_bound, high_bound)]
        return ends[0], ends[1]

    def _plain(self, bound: Bound) -> str:
        """A bound as a plain decimal: the database compares it in the column's own type, without converting rows.

        A short one, for DuckDB compares decimals in a type that must hold both and fails beyond 38 digits.
        """
        assert isinstance(bound, Fraction)
        text = str(Decimal(bound.numerator) / Decimal(bound.denominator))
        short = "E" not in text and len(text.partition(".")[2]) <= _PLACES and abs(bound) < _PLAIN
        return text if short and Fraction(text) == bound else self.literal("decimal", bound)

    def read(self, column: Column, raw: str) -> str:
        """A value of a column in the type that expressions are written for."""
        if column.type in ("text", "boolean"):
            return self.exactly(column.type, raw)
        return f"CAST({raw} AS {self.type(column.type)})"

    def identity(self, column: Column, raw: str) -> str:
        """A unit's column in the type that expressions are written for. What is wider than 64 bits is nobody's: a cast
        of it would be an error, and one person's row would make it."""
        read = self.read(column, raw)
        return f"CASE WHEN {raw} BETWEEN -{_MOST} AND {_MOST} THEN {read} END" if column.type == "integer" else read

    def exactly(self, kind: ColumnType, raw: str) -> str:
        """Text under a collation in which only equal bytes are equal, whatever the column's own: else a group could
        take its name, and with it its place, from the spelling of one person's row."""
        return f'(CAST({raw} AS {self.type("text")}) COLLATE "{self.collation}")' if kind == "text" else raw

    def scaled_by(self, number: str, step: Fraction) -> str:
        """A double in multiples of a step, which is a whole number or one part of it."""
        if step <= 1:
            return f"{number} * {1 / step}"
        return f"CASE WHEN ABS({number}) >= {TINY} THEN {number} / {step} WHEN {number} IS NOT NULL THEN 0 END"

    def whole(self, most: int) -> str:
        """The narrowest integer type for values up to ``most``: sums of narrower ones are faster."""
        return "INTEGER" if most < 2**31 else self.bigint

    def _call(self, expression: Call, given: Given) -> str:
        own = OPERATIONS.get(expression.op) or TEXTS.get(expression.op)
        args = [self.write(argument, given) for argument in expression.args]
        if own is not None:
            return own(self, args)
        return self.special(expression.op, args)

    @abstractmethod
    def special(self, op: Op, args: Sequence[str]) -> str:
        """An operation that the engines write differently."""

    @abstractmethod
    def matches(self, text: str, pattern: str) -> str:
        """Whether all of a text is of a pattern of ``written``."""

    @abstractmethod
    def microseconds(self, moment: str) -> str:
        """Of a day or timestamp, since 1970."""

    @abstractmethod
    def quotient(self, a: str, b: str) -> str:
        """Of whole numbers, truncated towards zero."""

    @abstractmethod
    def months(self, count: str) -> str:
        """An interval of so many months."""

    @abstractmethod
    def seconds(self, count: str) -> str:
        """An interval of so many seconds, exactly."""

    def codes(self, kind: ColumnType, domain: Sequence[Scalar | None] | None) -> bool:
        """Whether ``coded`` may stand for a key of this domain."""
        return False

    def coded(self, text: str, domain: Sequence[Scalar | None]) -> str:
        """A text as a small number of its domain, ordered alike; NULL outside the domain."""
        raise NotImplementedError

    def decoded(self, code: str, domain: Sequence[Scalar | None]) -> str:
        """The text that a small number of a domain stands for."""
        raise NotImplementedError

    def scaled(self, total: str, rows: str, most: int, *, reach: int) -> str:
        """``total * most / rows``, truncated towards zero, ``total`` being the sum of ``rows`` values within ``reach``.

        The quotient fits 64 bits. Where the product is sure to fit, it is computed in 64 bits, which is faster.
        """
        narrow = self.quotient(f"CAST({total} AS {self.bigint}) * {most}", f"CAST({rows} AS {self.bigint})")
        wide = f"CAST({self.scaled_wide(total, rows, most)} AS {self.bigint})"
        return f"CASE WHEN {rows} <= {_MOST // (most * reach)} THEN {narrow} ELSE {wide} END"

    @abstractmethod
    def scaled_wide(self, total: str, rows: str, most: int) -> str:
        """The same in more than 64 bits."""

    @abstractmethod
    def least_of(self, kind: ColumnType, text: str) -> str:
        """The aggregate MIN of a column."""

    @abstractmethod
    def greatest_of(self, kind: ColumnType, text: str) -> str:
        """The aggregate MAX of a column."""

    @abstractmethod
    def as_text(self, text: str) -> str:
        """Any value as text, for hashing."""

    @abstractmethod
    def hashed(self, text: str) -> str:
        """A hash of text whose order is the same on every engine."""
