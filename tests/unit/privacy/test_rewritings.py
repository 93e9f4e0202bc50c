"""What is read as something else: the time of now, columns that HAVING pins, conditions among identifiers."""

from __future__ import annotations

from datetime import date

import pytest
from insitu_privacy.errors import SqlRefused

from tests.testkit.care import plan

DAY = date(2024, 3, 1)


@pytest.mark.parametrize(
    ("now", "dialect", "literal"),
    [
        ("CURRENT_DATE", "duckdb", "DATE '2024-03-01'"),
        ("CURRENT_DATE()", "mysql", "DATE '2024-03-01'"),
        ("CAST(CURRENT_TIMESTAMP AS DATE)", "postgres", "CAST(TIMESTAMP '2024-03-01 00:00:00' AS DATE)"),
        ("CAST(NOW() AS DATE)", "postgres", "CAST(TIMESTAMP '2024-03-01 00:00:00' AS DATE)"),
        ("CAST(GETDATE() AS DATE)", "tsql", "CAST(TIMESTAMP '2024-03-01 00:00:00' AS DATE)"),
        ("CAST(CURRENT_TIME AS DATE)", "duckdb", "DATE '2024-03-01'"),
    ],
)
def test_now_is_the_day_of_the_request(now: str, dialect: str, literal: str) -> None:
    asked = plan(f"SELECT COUNT(*) AS n FROM visit WHERE start < {now}", dialect=dialect, today=DAY)
    assert asked.digest == plan(f"SELECT COUNT(*) AS n FROM visit WHERE start < {literal}").digest


def test_on_another_day_it_is_another_query_and_a_query_without_now_is_the_same_one() -> None:
    now, other = "SELECT COUNT(*) AS n FROM visit WHERE start < CURRENT_DATE", "SELECT COUNT(*) AS n FROM visit"
    later = date(2024, 3, 2)
    assert plan(now, today=DAY).digest != plan(now, today=later).digest
    assert plan(other, today=DAY).digest == plan(other, today=later).digest == plan(other).digest


@pytest.mark.parametrize(
    "sql", ["SELECT COUNT(*) FROM act WHERE at < CURRENT_TIME", "SELECT COUNT(*) FROM act WHERE at < RANDOM()"]
)
def test_a_time_without_a_day_has_no_meaning(sql: str) -> None:
    with pytest.raises(SqlRefused):
        plan(sql, today=DAY)


@pytest.mark.parametrize(
    ("pinned", "plain"),
    [
        (
            "SELECT person_id, start FROM visit GROUP BY person_id HAVING MIN(start) = start",
            "SELECT person_id, MIN(start) AS start FROM visit GROUP BY person_id HAVING MIN(start) IS NOT NULL",
        ),
        (
            "SELECT v.person_id, YEAR(v.start) AS y FROM visit v GROUP BY v.person_id HAVING v.start = MAX(v.start) AND COUNT(*) > 1",
            "SELECT v.person_id, YEAR(MAX(v.start)) AS y FROM visit v GROUP BY v.person_id "
            "HAVING MAX(v.start) IS NOT NULL AND COUNT(*) > 1",
        ),
    ],
)
def test_a_column_that_having_holds_equal_to_an_extreme_is_that_extreme(pinned: str, plain: str) -> None:
    asked = "SELECT COUNT(*) AS n FROM ({}) f JOIN person p ON p.person_id = f.person_id"
    assert plan(asked.format(pinned)).digest == plan(asked.format(plain)).digest


@pytest.mark.parametrize(
    "inner",
    [
        "SELECT person_id, finish FROM visit GROUP BY person_id HAVING MIN(start) = start",
        "SELECT person_id, start FROM visit GROUP BY person_id HAVING MIN(start) = start OR COUNT(*) > 1",
        "SELECT person_id, start FROM visit GROUP BY person_id HAVING MIN(start) = finish",
        "SELECT person_id, start FROM visit GROUP BY person_id HAVING MIN(start) < start",
    ],
)
def test_other_columns_beside_aggregates_are_refused(inner: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(f"SELECT COUNT(*) FROM ({inner}) f WHERE {inner.split()[2]} > DATE '2016-01-01'")
    assert refused.value.code == "INSITU-SQL-UNGROUPED"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT CASE WHEN person_id >= 40000 THEN 'new' ELSE 'old' END AS source, COUNT(*) AS n FROM visit GROUP BY 1",
        "SELECT person_id > 3 AS late, COUNT(*) AS n FROM visit GROUP BY 1",
        "SELECT SUM(CASE WHEN previous IS NULL THEN 1 ELSE 0 END) AS n FROM visit",
    ],
)
def test_a_condition_on_an_identifier_is_none(sql: str) -> None:
    (release,) = plan(sql).releases
    assert release.threshold is None


@pytest.mark.parametrize(
    "key",
    [
        "CASE WHEN stage > 1 THEN person_id END",
        "CASE WHEN person_id > 1 THEN visit_id ELSE 0 END",
        "COALESCE(previous, 0)",
        "person_id % 2",
    ],
)
def test_what_an_identifier_is_computed_into_is_one(key: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(f"SELECT {key} AS k, COUNT(*) FROM visit GROUP BY 1")
    assert refused.value.code == "INSITU-SQL-GROUP-BY-UNIT"
