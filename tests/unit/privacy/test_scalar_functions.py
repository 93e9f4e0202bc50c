"""Functions as the dialects write them: what they become, what of them is known, and constants worked out.

That engines give their values is ``tests/contract/test_dialects.py``.
"""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction
from typing import Any

import pytest
import sqlglot
from insitu_privacy.errors import SqlRefused
from insitu_privacy.evaluate import evaluate
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op
from insitu_privacy.passes.allow import Allow

from tests.testkit.care import plan
from tests.testkit.expressions import facts, inference, lowered, refined


def read(dialect: str, sql: str) -> Expression:
    tree = sqlglot.parse_one(sql, read=dialect)
    for column in tree.find_all(sqlglot.exp.Column):
        column.set("table", sqlglot.exp.to_identifier("t"))
    return Allow(inference(), lambda _, name: ColumnRef("t", name)).expression(tree)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("CAST(CAST(2017 AS VARCHAR) || '-' || CAST(01 AS VARCHAR) || '-' || CAST(01 AS VARCHAR) AS DATE)", date(2017, 1, 1)),
        ("MAKE_DATE(2020, 2, 29)", date(2020, 2, 29)),
        ("MAKE_DATE(2021, 2, 29)", None),
        ("DATE '2020-01-31' + INTERVAL 1 MONTH", date(2020, 2, 29)),
        ("TIMESTAMP '2020-01-31 10:00:00' + INTERVAL 14 HOUR", datetime(2020, 2, 1)),
        ("CAST('2020-1-5 10:00' AS DATE)", date(2020, 1, 5)),
        ("CAST('2020-01-05' AS TIMESTAMP)", datetime(2020, 1, 5)),
        ("DATE '9999-12-31' + 1", None),
        ("60 * 60 * 24", 86_400),
        ("10 / 4", Fraction(5, 2)),
        ("CAST('12' AS INTEGER) + 1", 13),
        ("STRFTIME(DATE '2020-02-03', '%d/%m/%y')", "03/02/20"),
        ("CAST(NULL AS DATE)", None),
        ("LPAD('7', 3, '0')", "007"),
    ],
)  # fmt: skip
def test_constants_are_worked_out(sql: str, value: Any) -> None:
    folded = lowered(sql)
    assert isinstance(folded, Literal)
    assert folded.value == value
    assert type(folded.value) is type(value)


def test_a_constant_that_grows_stays_what_it_is_computed_from() -> None:
    grown = lowered("REPLACE(REPLACE(LPAD('x', 1000, 'x'), 'x', 'xxxxxxxxxx'), 'x', 'xxxxxxxxxx')")
    assert isinstance(grown, Call)


@pytest.mark.parametrize(
    ("dialect", "sql", "same"),
    [
        ("tsql", "DATEFROMPARTS(i, 1, 2)", "MAKE_DATE(i, 1, 2)"),
        ("postgres", "MAKE_DATE(i, 1, 2)", "MAKE_DATE(i, 1, 2)"),
        ("snowflake", "DATE_FROM_PARTS(2020, 1, 2)", "DATE '2020-01-02'"),
        ("tsql", "DATEADD(hour, 3, z)", "z + INTERVAL 3 HOUR"),
        ("bigquery", "TIMESTAMP_ADD(z, INTERVAL 3 HOUR)", "z + INTERVAL 3 HOUR"),
        ("postgres", "k + 3 * INTERVAL '2 days'", "k + 6"),
        ("postgres", "TO_CHAR(z, 'YYYY-MM')", "STRFTIME(z, '%Y-%m')"),
        ("oracle", "TO_CHAR(z, 'YYYY-MM')", "STRFTIME(z, '%Y-%m')"),
        ("mysql", "DATE_FORMAT(z, '%Y-%m')", "STRFTIME(z, '%Y-%m')"),
        ("tsql", "FORMAT(z, 'yyyy-MM')", "STRFTIME(z, '%Y-%m')"),
        ("sqlite", "STRFTIME('%Y', z)", "STRFTIME(z, '%Y')"),
        ("tsql", "EOMONTH(k)", "LAST_DAY(k)"),
        ("tsql", "CHARINDEX('a', x)", "POSITION('a' IN x)"),
        ("tsql", "ISNULL(n, 1)", "IFNULL(n, 1)"),
        ("tsql", "IIF(i = 1, 2, 3)", "IF(i = 1, 2, 3)"),
        ("bigquery", "SAFE_CAST(x AS INT64)", "TRY_CAST(x AS BIGINT)"),
        ("mysql", "LOG(e)", "LN(e)"),
        ("postgres", "LOG(e)", "LOG10(e)"),
        ("postgres", "DATE_PART('hour', z)", "HOUR(z)"),
        ("oracle", "DECODE(i, 1, 'a', 'b')", "CASE WHEN i IS NOT DISTINCT FROM 1 THEN 'a' ELSE 'b' END"),
    ],
)
def test_dialects_name_the_same_function(dialect: str, sql: str, same: str) -> None:
    assert read(dialect, sql) == lowered(same)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("snowflake", "DATE_FROM_PARTS(2020, 13, 2)"),
        ("snowflake", "DATE_FROM_PARTS(2020, i, 2)"),
        ("postgres", "TO_CHAR(k, 'YYYY-Q')"),
        ("postgres", "TO_CHAR(k, 'FMMM')"),
        ("oracle", "TO_CHAR(k, 'MON')"),
        ("bigquery", "DATE_DIFF(k, k, WEEK)"),
        ("mysql", "TIMESTAMPDIFF(MICROSECOND, z, z)"),
        ("tsql", "DATEDIFF(week, k, k)"),
        ("mysql", "WEEK(k, 3)"),
        ("sqlite", "DATE(k, '+1 day')"),
        ("oracle", "ADD_MONTHS(k, 2)"),
        ("postgres", "x ~ 'a+'"),
        ("postgres", "AGE(z, z)"),
        ("mysql", "ATAN(d, e)"),
        ("duckdb", "LEFT(x, '²')"),
        ("duckdb", "SUBSTRING(x)"),
        ("duckdb", "i IN ('a')"),
        ("duckdb", "COALESCE(i, 'a')"),
        ("duckdb", "x LIKE 'a%' ESCAPE '%'"),
        ("duckdb", "x LIKE 'a!b' ESCAPE '!'"),
        ("duckdb", "TRIM(x, 'ab')"),
        ("duckdb", "POWER(d, -1)"),
    ],
)
def test_what_might_mean_something_else_is_refused(dialect: str, sql: str) -> None:
    with pytest.raises(SqlRefused):
        read(dialect, sql)


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("STRFTIME(DATE_TRUNC('year', k), '%Y')", tuple(str(year) for year in range(2015, 2025))),
        ("SIGN(d)", (-1, 0, 1)),
        ("HOUR(z)", tuple(range(24))),
        ("CAST(CASE WHEN b THEN '2020-02-30' ELSE '2020-3-1' END AS DATE)", (date(2020, 3, 1),)),
    ],
)
def test_finite_domains_go_through(sql: str, values: tuple[Any, ...]) -> None:
    known = facts(lowered(sql))
    found = known.values
    if sql.startswith("STRFTIME"):
        keys = plan("SELECT STRFTIME(start, '%Y') AS y, COUNT(*) FROM visit GROUP BY 1").releases[0].keys
        assert keys[0].domain == values
    else:
        assert found == values


def test_days_next_to_midnights_stay_days_so_that_conditions_narrow_them() -> None:
    narrowed = refined("k >= TIMESTAMP '2024-01-01 00:00:00'").facts(ColumnRef("t", "k"))
    assert narrowed.interval == (date(2024, 1, 1), date(2024, 12, 31))
    assert lowered("k >= TIMESTAMP '2024-01-01 00:00:01'") == Call(
        Op.GE,
        (Call(Op.TO_TIMESTAMP, (ColumnRef("t", "k"),)), Literal("timestamp", datetime(2024, 1, 1, 0, 0, 1))),
    )


@pytest.mark.parametrize(
    ("sql", "nullable"), [("k + 1", False), ("k + 3000000", True), ("k + w", True), ("SQRT(d)", True)]
)
def test_only_what_may_leave_its_domain_may_be_null(sql: str, nullable: bool) -> None:
    assert facts(lowered(sql)).nullable is nullable


@pytest.mark.parametrize("text", ["1", "+007", "1_000", "", "9" * 15, "9" * 16, "1.0", " 1", "1\n", "²", "１"])
def test_integers_are_read_of_plain_digits_alone(text: str) -> None:
    plain = text.lstrip("+").isdecimal() and text.isascii() and len(text) <= 15
    value = evaluate(Call(Op.TEXT_TO_INTEGER, (Literal("text", text),)), {})
    assert value == (int(text) if plain else None)


def test_every_day_of_the_calendar_is_read_and_no_other() -> None:
    for year in (1, 4, 100, 400, 1900, 2000, 2020, 2021, 9999):
        for month in range(14):
            for day in range(33):
                value = evaluate(Call(Op.TEXT_TO_DATE, (Literal("text", f"{year:04}-{month}-{day:02}"),)), {})
                made = evaluate(Call(Op.MAKE_DATE, tuple(Literal("integer", part) for part in (year, month, day))), {})
                assert value == made
