"""Writes expressions in the dialects of the engines: the only place where text for a database is made of a query.

Every operation is written so that it is total on that engine (DESIGN.md section 4, No side doors): divisors of 0 give
NULL, floats that would overflow or underflow an error are caught, casts cannot fail. Identifiers are always quoted,
text literals always escaped. The two dialects give the same values; a contract test runs both on both engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

from insitu_privacy.dataset import Bound, Column, ColumnType, Scalar
from insitu_privacy.domains import INTEGER_LIMIT
from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression, Literal, Op
from insitu_privacy.guarded import TEXTS, TINY

_NO_COHORTS: Mapping[str, str] = MappingProxyType({})
_TINY, _HUGE = TINY, "1e150"
"""Quotients by larger ones are zero, for the same reason."""
_WIDEST = Fraction(10**300)
"""Decimals without bounds are read within these."""
_LEAST = -(2**63)
"""Has no absolute value in 64 bits."""
_MOST = 2**63 - 1
_CODES = 255
"""Values of a DuckDB ENUM that is stored in one byte; making one of many takes seconds."""
_SHORT = 32
"""Values that PostgreSQL finds one by one in less time than it takes to group by texts."""
_PLACES, _PLAIN = 8, 10**18
_JOINED = 1_000
"""Characters of each part that CONCAT puts together: text cannot grow on and on from one derived table to the next."""


class Dialect(ABC):
    """Text for one engine. What differs between engines is abstract."""

    name: str
    bigint: str
    double: str
    collation: str
    """In which only equal bytes are equal."""
    fence: str = ""
    """Ends a derived table whose expressions are to be computed once a row, however often they are used."""

    def write(self, expression: Expression, cohorts: Mapping[str, str] = _NO_COHORTS) -> str:
        """The text of an expression: columns as ``"source"."column"``, cohorts as the text given for them."""
        if isinstance(expression, ColumnRef):
            return f"{self.identifier(expression.scan)}.{self.identifier(expression.column)}"
        if isinstance(expression, Literal):
            return self.literal(expression.type, expression.value)
        if isinstance(expression, Exists):
            terms = " AND ".join(self.write(term, cohorts) for term in expression.on) or "TRUE"
            return f"EXISTS (SELECT 1 FROM {cohorts[expression.cohort]} WHERE {terms})"
        return self._call(expression, cohorts)

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

    def conditions(self, column: Column, raw: str) -> list[str]:
        """What holds for the values of a column that are within its declaration."""
        raw = self.exactly(column.type, raw)
        if column.values is not None:
            return [f"{raw} IN ({', '.join(self.literal(column.type, value) for value in column.values)})"]
        low, high = self._limits(column)
        return [f"{raw} >= {low}"] * (low is not None) + [f"{raw} <= {high}"] * (high is not None)

    def _limits(self, column: Column) -> tuple[str | None, str | None]:
        if column.type == "decimal":
            low = self._plain(-_WIDEST if column.minimum is None else column.minimum)
            return low, self._plain(_WIDEST if column.maximum is None else column.maximum)
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
        return f"CASE WHEN ABS({number}) >= {_TINY} THEN {number} / {step} WHEN {number} IS NOT NULL THEN 0 END"

    def whole(self, most: int) -> str:
        """The narrowest integer type for values up to ``most``: sums of narrower ones are faster."""
        return "INTEGER" if most < 2**31 else self.bigint

    def _call(self, expression: Call, cohorts: Mapping[str, str]) -> str:
        own = _OPERATIONS.get(expression.op) or TEXTS.get(expression.op)
        args = [self.write(argument, cohorts) for argument in expression.args]
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


def _infix(operator: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: "(" + f" {operator} ".join(args) + ")"


def _like(operator: str) -> Callable[[Dialect, Sequence[str]], str]:
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
    quotient = f"CASE WHEN ABS({b}) <= {_HUGE} AND ABS({a}) >= {_TINY} THEN {a} / {b} ELSE {a} * 0.0 END"
    return f"CASE WHEN ABS({b}) >= {_TINY} THEN {quotient} END"


def _joined(dialect: Dialect, args: Sequence[str]) -> str:
    return "(" + " || ".join(f"LEFT({arg}, {_JOINED})" for arg in args) + ")"


def _unless_least(arg: str) -> str:
    """An integer that has an absolute value; of decimals, one value less."""
    return f"NULLIF({arg}, CAST('{_LEAST}' AS BIGINT))"


def _part(name: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: f"CAST(DATE_PART('{name}', {args[0]}) AS {dialect.bigint})"


def _trunc(unit: str) -> Callable[[Dialect, Sequence[str]], str]:
    return lambda dialect, args: f"CAST(DATE_TRUNC('{unit}', {args[0]}) AS DATE)"


_OPERATIONS: Mapping[Op, Callable[[Dialect, Sequence[str]], str]] = {
    Op.ADD: _infix("+"),
    Op.SUB: _infix("-"),
    Op.DIV: _divide,
    Op.NEG: lambda dialect, args: f"(-{_unless_least(args[0])})",
    Op.ABS: lambda dialect, args: f"ABS({_unless_least(args[0])})",
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
    Op.LIKE: _like("LIKE"),
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
            return _like("ILIKE")(self, args)
        if op is Op.MUL:
            return f"({args[0]} * {args[1]})"
        if op is Op.INTDIV:
            return f"({_unless_least(args[0])} // NULLIF({args[1]}, 0))"
        if op is Op.MOD:
            return f"({_unless_least(args[0])} % NULLIF({args[1]}, 0))"
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
        if abs(bound) == _WIDEST:
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
        return f"CASE WHEN {raw} >= {_TINY} AND {high} THEN {number} WHEN {inside} THEN 0 END"

    def read(self, column: Column, raw: str) -> str:
        if column.type == "decimal":  # a NUMERIC may be too near to zero for a double
            number = super().read(column, raw)
            return f"CASE WHEN ABS({raw}) >= {_TINY} THEN {number} WHEN {raw} IS NOT NULL THEN 0 END"
        return super().read(column, raw)

    def special(self, op: Op, args: Sequence[str]) -> str:
        if op in (Op.LOWER, Op.UPPER):  # C knows the case of ASCII letters alone
            return f'({op.value.upper()}({args[0]} COLLATE "default") COLLATE "C")'
        if op is Op.ILIKE:
            return _like("ILIKE")(self, [f'{args[0]} COLLATE "default"', *args[1:]])
        if op is Op.MUL:
            a, b = args
            apart = f"ABS({a}) >= {_TINY} AND ABS({b}) >= {_TINY}"
            return f"CASE WHEN {apart} THEN {a} * {b} WHEN {a} IS NOT NULL AND {b} IS NOT NULL THEN 0 END"
        if op is Op.INTDIV:
            return f"({_unless_least(args[0])} / NULLIF({args[1]}, 0))"
        if op is Op.MOD:
            return f"({_unless_least(args[0])} % NULLIF({args[1]}, 0))"
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
