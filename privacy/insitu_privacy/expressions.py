"""Scalar expressions that may reach a database: a closed set of total operations, as frozen values.

Nothing of a researcher's SQL text is ever sent to a database. The ``allow`` pass translates the syntax tree into
these values and refuses what has no translation; ``dialects`` writes them out again for each engine. So the list of
operations below *is* the allowlist. Every operation is total: on any input it gives a value or NULL and never raises
(DESIGN.md section 4, No side doors).

What is not here: facts about an expression (``domains``), its evaluation (``evaluate``), its text (``dialects``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from fractions import Fraction

from insitu_privacy.dataset import ColumnType


class Op(StrEnum):
    """The operations. The comment gives arity and what makes it total where that is not plain."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"  # real division; NULL where the divisor is 0
    INTDIV = "intdiv"  # truncates; NULL where the divisor is 0
    MOD = "mod"  # sign of the dividend; NULL where the divisor is 0
    NEG = "neg"
    ABS = "abs"
    FLOOR = "floor"
    CEIL = "ceil"
    ROUND = "round"  # half away from zero, to whole numbers
    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    IN = "in"  # value, then literals
    IS_NULL = "is_null"
    LIKE = "like"  # value, literal pattern, literal escape or none
    ILIKE = "ilike"
    AND = "and"
    OR = "or"
    NOT = "not"
    CASE = "case"  # condition, value, condition, value, ..., default
    COALESCE = "coalesce"
    NULLIF = "nullif"
    LEAST = "least"  # ignores NULL, as both engines do
    GREATEST = "greatest"
    YEAR = "year"
    QUARTER = "quarter"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"
    SECOND = "second"  # whole seconds
    DOW = "dow"  # 0 is Sunday
    ISODOW = "isodow"  # 1 is Monday
    DOY = "doy"
    WEEK = "week"  # of ISO 8601
    EPOCH = "epoch"  # seconds since 1970, with fractions
    TRUNC_YEAR = "trunc_year"
    TRUNC_QUARTER = "trunc_quarter"
    TRUNC_MONTH = "trunc_month"
    TRUNC_WEEK = "trunc_week"  # the week's Monday
    DAYS_BETWEEN = "days_between"  # start, end: end - start in days
    UNITS_BETWEEN = "units_between"  # start, end, literal seconds: how many multiples of so many seconds lie between
    ADD_DAYS = "add_days"  # date, whole number of days; NULL outside the calendar, as the next two
    ADD_MONTHS = "add_months"  # date, whole number of months; the last day where there is no such
    ADD_SECONDS = "add_seconds"  # timestamp, whole number of seconds
    MAKE_DATE = "make_date"  # year, month, day; NULL where there is no such day
    TO_DATE = "to_date"  # a timestamp's day
    TO_TIMESTAMP = "to_timestamp"  # a day's midnight
    TO_DECIMAL = "to_decimal"
    TO_INTEGER = "to_integer"  # a boolean's 0 or 1
    TO_WHOLE = "to_whole"  # a bounded decimal, rounded half to even
    TO_TEXT = "to_text"  # an integer's digits
    TEXT_TO_INTEGER = "text_to_integer"  # NULL where the text is not of its pattern in ``written``, as the next three
    TEXT_TO_DECIMAL = "text_to_decimal"
    TEXT_TO_DATE = "text_to_date"
    TEXT_TO_TIMESTAMP = "text_to_timestamp"
    BUCKET = "bucket"  # number, literal low, high and count of equal parts: 0 below, count + 1 from high on
    LOWER = "lower"
    UPPER = "upper"
    LENGTH = "length"
    SUBSTRING = "substring"  # text, literal start from 1, literal length
    CONCAT = "concat"
    TRIM = "trim"  # of spaces
    LTRIM = "ltrim"
    RTRIM = "rtrim"
    REPLACE = "replace"  # text, literals: what to replace, not empty, and by what
    POSITION = "position"  # text, literal to find, not empty: from 1, or 0
    RIGHT = "right"  # text, literal length
    LPAD = "lpad"  # text, literal length, literal filling, not empty
    RPAD = "rpad"
    SPLIT_PART = "split_part"  # text, literal separator, not empty, literal number from 1: empty where there is none
    SQRT = "sqrt"  # these are of decimals, and NULL outside the domain that ``intervals`` gives them
    LN = "ln"
    LOG10 = "log10"
    EXP = "exp"
    POWER = "power"  # number, literal whole exponent
    SIN = "sin"
    COS = "cos"
    ASIN = "asin"
    ACOS = "acos"
    ATAN = "atan"


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """A column of one source of the relation, by the source's alias."""

    scan: str
    column: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. ``value`` is exact: decimals are Fractions."""

    type: ColumnType
    value: int | Fraction | str | bool | date | datetime | None


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on arguments."""

    op: Op
    args: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a cohort of the relation, by its alias, has a row for which all conditions are true. Never NULL."""

    cohort: str
    on: tuple[Expression, ...]


Expression = ColumnRef | Literal | Call | Exists

TRUE = Literal("boolean", True)


def call(op: Op, *args: Expression) -> Call:
    """``Call(op, args)``, for readable construction."""
    return Call(op, args)


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and all below it, depth first."""
    stack = [expression]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Call):
            stack.extend(node.args)
        elif isinstance(node, Exists):
            stack.extend(node.on)


def columns_of(expression: Expression) -> frozenset[ColumnRef]:
    """The columns an expression reads of its relation's row; those of cohorts it looks into are not among them."""
    if isinstance(expression, ColumnRef):
        return frozenset((expression,))
    nodes = list(walk(expression))
    cohorts = {node.cohort for node in nodes if isinstance(node, Exists)}
    return frozenset(node for node in nodes if isinstance(node, ColumnRef) and node.scan not in cohorts)


def scans_of(expression: Expression) -> frozenset[str]:
    """The aliases of the scans an expression reads."""
    return frozenset(column.scan for column in columns_of(expression))


def replace(expression: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with each node for which ``change`` gives one replaced by that, from the top down."""
    changed = change(expression)
    if changed is not None:
        return changed
    if isinstance(expression, Call):
        return Call(expression.op, tuple(replace(argument, change) for argument in expression.args))
    if isinstance(expression, Exists):
        return Exists(expression.cohort, tuple(replace(term, change) for term in expression.on))
    return expression


def conjuncts(expression: Expression) -> tuple[Expression, ...]:
    """The terms of a conjunction, left to right."""
    if isinstance(expression, Call) and expression.op is Op.AND:
        return tuple(term for argument in expression.args for term in conjuncts(argument))
    return () if expression == TRUE else (expression,)
