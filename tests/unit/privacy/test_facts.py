"""What is inferred of an expression holds for every row: intervals, finite domains, nullability, types."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from insitu_privacy.domains import Facts, Inference, is_bounded
from insitu_privacy.errors import SqlRefused
from insitu_privacy.evaluate import evaluate
from insitu_privacy.expressions import Call, ColumnRef, Op, walk

from tests.testkit.care import plan
from tests.testkit.expressions import Row, conditions, facts, lowered, refined, rows, scalars

MANY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
_SLACK = Fraction(1, 10**9)
_PYTHON = {"integer": int, "decimal": (int, float), "text": str, "boolean": bool}


def assert_holds(known: Facts, value: Any) -> None:
    """A value agrees with what is known of its expression."""
    if value is None:
        assert known.nullable, "a value that cannot be NULL is NULL"
        return
    if known.type in _PYTHON:
        assert isinstance(value, _PYTHON[known.type])
        assert known.type == "boolean" or not isinstance(value, bool)
    if known.values is not None:
        assert value in known.values, "a value outside the finite domain"
    if known.interval is not None:
        low, high = known.interval
        exact = Fraction(value) if isinstance(value, (int, float)) else value
        if isinstance(exact, Fraction):  # the engines' floats may round the last place
            room = _SLACK * max(1, abs(exact))
            assert low - room <= exact <= high + room, "a value outside the interval"
        else:
            assert low <= exact <= high, "a moment outside the interval"


@MANY
@given(sql=scalars(), some=st.lists(rows(), min_size=6, max_size=6))
def test_values_lie_within_the_inferred_interval_and_domain(sql: str, some: list[Row]) -> None:
    expression = lowered(sql)
    known = facts(expression)
    for row in some:
        assert_holds(known, evaluate(expression, row))


@MANY
@given(where=conditions(), sql=scalars(), some=st.lists(rows(), min_size=12, max_size=12))
def test_what_a_condition_teaches_holds_on_the_rows_that_satisfy_it(where: str, sql: str, some: list[Row]) -> None:
    known = refined(where)
    condition, expression = lowered(where), lowered(sql)
    kept = [row for row in some if evaluate(condition, row) is True]
    assume(kept)
    for row in kept:
        assert_holds(known.facts(expression), evaluate(expression, row))
        for column in row:
            assert_holds(known.facts(column), row[column])


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.TO_INTEGER])
def test_every_operation_is_reached_by_the_generator(op: Op) -> None:
    """The strategies above speak of the whole language: one example of each, found by hand."""
    examples = {
        Op.ADD: "i + 1", Op.SUB: "i - 1", Op.MUL: "i * d", Op.DIV: "i / 2", Op.INTDIV: "i // 2", Op.MOD: "i % 2",
        Op.NEG: "-i", Op.ABS: "ABS(i)", Op.FLOOR: "FLOOR(d)", Op.CEIL: "CEIL(d)", Op.ROUND: "ROUND(d)",
        Op.EQ: "i = 1", Op.NE: "i <> 1", Op.LT: "i < 1", Op.LE: "i <= 1", Op.GT: "i > 1", Op.GE: "i >= 1",
        Op.IN: "i IN (1)", Op.IS_NULL: "i IS NULL", Op.LIKE: "x LIKE 'a'", Op.ILIKE: "x ILIKE 'a'", Op.AND: "b AND f",
        Op.OR: "b OR f", Op.NOT: "NOT b", Op.CASE: "CASE WHEN b THEN 1 END", Op.COALESCE: "COALESCE(n, 1)",
        Op.NULLIF: "NULLIF(i, 1)", Op.LEAST: "LEAST(i, 1)", Op.GREATEST: "GREATEST(i, 1)", Op.YEAR: "YEAR(k)",
        Op.QUARTER: "QUARTER(k)", Op.MONTH: "MONTH(k)", Op.DAY: "DAY(k)", Op.TRUNC_YEAR: "DATE_TRUNC('year', k)",
        Op.TRUNC_MONTH: "DATE_TRUNC('month', k)", Op.DAYS_BETWEEN: "date_diff('day', k, m)", Op.ADD_DAYS: "k + 1",
        Op.TO_DATE: "CAST(z AS DATE)", Op.TO_DECIMAL: "CAST(i AS DOUBLE)", Op.LOWER: "LOWER(x)", Op.UPPER: "UPPER(x)",
        Op.LENGTH: "LENGTH(x)", Op.SUBSTRING: "SUBSTRING(x, 1, 2)", Op.CONCAT: "x || s",
        Op.ADD_MONTHS: "k + INTERVAL 2 MONTH", Op.TO_WHOLE: "CAST(d AS INTEGER)", Op.TO_TEXT: "CAST(i AS VARCHAR)",
        Op.BUCKET: "WIDTH_BUCKET(e, 0, 100, 10)", Op.HOUR: "HOUR(z)", Op.MINUTE: "MINUTE(z)", Op.SECOND: "SECOND(z)",
        Op.DOW: "EXTRACT(DOW FROM k)", Op.ISODOW: "ISODOW(k)", Op.DOY: "DAYOFYEAR(k)", Op.WEEK: "WEEK(k)",
        Op.EPOCH: "EPOCH(z)", Op.TRUNC_QUARTER: "DATE_TRUNC('quarter', k)", Op.TRUNC_WEEK: "DATE_TRUNC('week', k)",
        Op.UNITS_BETWEEN: "date_diff('hour', z, z)", Op.ADD_SECONDS: "z + INTERVAL 5 MINUTE",
        Op.MAKE_DATE: "MAKE_DATE(2000 + i, i, i)", Op.TO_TIMESTAMP: "CAST(k AS TIMESTAMP)",
        Op.TEXT_TO_INTEGER: "CAST(x AS INT)", Op.TEXT_TO_DECIMAL: "CAST(x AS DOUBLE)", Op.TEXT_TO_DATE: "x::DATE",
        Op.TEXT_TO_TIMESTAMP: "x::TIMESTAMP", Op.TRIM: "TRIM(x)", Op.LTRIM: "LTRIM(x)", Op.RTRIM: "RTRIM(x)",
        Op.REPLACE: "REPLACE(x, 'a', 'b')", Op.POSITION: "POSITION('a' IN x)", Op.RIGHT: "RIGHT(x, 2)",
        Op.LPAD: "LPAD(x, 3, '0')", Op.RPAD: "RPAD(x, 3, '0')", Op.SPLIT_PART: "SPLIT_PART(x, 'a', 2)",
        Op.SQRT: "SQRT(i)", Op.LN: "LN(i)", Op.LOG10: "LOG10(i)", Op.EXP: "EXP(i)", Op.POWER: "POWER(i, 2)",
        Op.SIN: "SIN(d)", Op.COS: "COS(d)", Op.ASIN: "ASIN(d)", Op.ACOS: "ACOS(d)", Op.ATAN: "ATAN(d)",
    }  # fmt: skip
    assert op in {node.op for node in walk(lowered(examples[op])) if hasattr(node, "op")}


@pytest.mark.parametrize(
    ("sql", "low", "high"),
    [
        ("i + 1", -19, 21),
        ("i * d", -40, 40),
        ("-e", -1000, 0),
        ("ABS(i)", 0, 20),
        ("i % 5", -5, 5),
        ("e / 4", 0, 250),
        ("FLOOR(d * 0.3)", -1, 1),
        ("YEAR(k)", 2015, 2024),
        ("MONTH(m)", 1, 12),
        ("date_diff('day', k, k)", -3652, 3652),
        ("LEAST(GREATEST(u, -1), 7)", -1, 7),
        ("CASE WHEN b THEN 5 ELSE i END", -20, 20),
        ("CAST(b AS INTEGER)", 0, 1),
        ("COALESCE(n, 0)", -(10**9), 10**9),
        ("2000000000 + 2000000000", 4 * 10**9, 4 * 10**9),
    ],
)
def test_intervals_are_no_wider_than_arithmetic_asks(sql: str, low: int, high: int) -> None:
    known = facts(lowered(sql))
    assert is_bounded(known.interval)
    assert known.interval is not None
    assert known.interval[0] >= low
    assert known.interval[1] <= high


@pytest.mark.parametrize(
    "sql", ["u", "ABS(u)", "LEAST(u, 5)", "GREATEST(u, 5)", "COALESCE(u, 0)", "i / u", "x", "1 / u"]
)
def test_what_has_no_public_bounds_has_no_bounded_interval(sql: str) -> None:
    assert not is_bounded(facts(lowered(sql)).interval)


@pytest.mark.parametrize("sql", ["u * 2", "u + 1", "w * w", "n * n * n", "u - u"])
def test_arithmetic_that_could_overflow_is_refused(sql: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        lowered(sql)
    assert refused.value.code == "INSITU-SQL-UNBOUNDED"


@pytest.mark.parametrize(
    ("where", "sql", "values"),
    [
        ("s IN ('a', 'zz')", "s", ("a",)),
        ("i BETWEEN 3 AND 5", "i", (3, 4, 5)),
        ("5 > i AND i > 2", "i", (3, 4)),
        ("i = NULL", "i", ()),
        ("x = 'only'", "x", ("only",)),
        ("n IN (1, 1, 7, NULL)", "n", (1, 7)),
        ("YEAR(m) BETWEEN 2019 AND 2020", "YEAR(m)", None),
        ("k >= DATE '2024-06-01'", "YEAR(k)", (2024,)),
        ("f = FALSE", "f", (False,)),
        ("1 = 1", "f", (False, True)),
    ],
)
def test_conditions_narrow_domains(where: str, sql: str, values: tuple[Any, ...] | None) -> None:
    known = refined(where).facts(lowered(sql))
    if values is not None:
        assert known.values == values
        assert not known.nullable
    else:
        assert known.interval is None or known.interval[0] >= 2019


def test_a_constant_of_a_unit_stays_one_through_operations_and_not_through_a_public_table() -> None:
    keys = plan("SELECT 10 * FLOOR(birth_year / 10) AS decade, COUNT(*) FROM person GROUP BY 1").releases[0].keys
    assert keys[0].constant
    public = plan("SELECT i.chapter, COUNT(*) FROM act a JOIN icd i ON i.code = a.code GROUP BY 1").releases[0].keys
    assert not public[0].constant
    mixed = plan(
        "SELECT p.sex || v.kind AS k, COUNT(*) FROM person p JOIN visit v ON v.person_id = p.person_id GROUP BY 1"
    )
    assert not mixed.releases[0].keys[0].constant


# ------------------------------------------------------------------------------------------------------------ periods


@pytest.mark.parametrize(
    ("unit", "first", "count"),
    [
        ("year", "2015-01-01", 10),
        ("quarter", "2015-01-01", 40),
        ("month", "2015-01-01", 120),
        ("week", "2014-12-29", 523),
    ],
)
def test_the_periods_of_bounded_dates_are_a_public_domain(unit: str, first: str, count: int) -> None:
    (release,) = plan(f"SELECT DATE_TRUNC('{unit}', start) AS p, COUNT(*) AS n FROM visit GROUP BY 1").releases
    (key,) = release.keys
    assert release.threshold is None
    assert key.domain is not None
    assert [str(key.domain[0]), len(key.domain)] == [first, count]
    assert list(key.domain) == sorted(set(key.domain))  # type: ignore[type-var]


@pytest.mark.parametrize("interval", [None, (date(1900, 1, 1), date(2020, 1, 6))], ids=["unbounded", "too many"])
def test_periods_of_other_dates_are_not_listed(interval: tuple[date, date] | None) -> None:
    column = ColumnRef("t", "d")
    known = Inference({column: Facts(type="date", nullable=False, interval=interval)})
    assert known.facts(Call(Op.TRUNC_WEEK, (column,))).values is None
