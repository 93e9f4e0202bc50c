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


SAME = {
    "fetch": ("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind ORDER BY n DESC FETCH FIRST 2 ROWS ONLY", "oracle",
              "SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind ORDER BY n DESC NULLS FIRST LIMIT 2"),
    "is not": ("SELECT COUNT(*) AS n FROM visit WHERE cost IS NOT NULL AND (stage > 1) IS NOT TRUE", "postgres",
               "SELECT COUNT(*) AS n FROM visit WHERE NOT cost IS NULL AND NOT (stage > 1) IS TRUE"),
    "any of an array": ("SELECT COUNT(*) AS n FROM visit WHERE ward = ANY (ARRAY[1, 2])", "postgres",
                        "SELECT COUNT(*) AS n FROM visit WHERE ward IN (1, 2)"),
    "like any": ("SELECT COUNT(*) AS n FROM visit WHERE diagnosis LIKE ANY (ARRAY['a%', 'b%'])", "postgres",
                 "SELECT COUNT(*) AS n FROM visit WHERE (diagnosis LIKE 'a%' OR diagnosis LIKE 'b%')"),
    "values": ("SELECT x.w, COUNT(*) AS n FROM visit v JOIN (VALUES (1, 'a'), (2, 'b')) AS x(ward, w) ON x.ward = v.ward GROUP BY x.w",
               "postgres", "SELECT x.w, COUNT(*) AS n FROM visit v JOIN (SELECT 1 AS ward, 'a' AS w UNION ALL SELECT 2, 'b') x "
               "ON x.ward = v.ward GROUP BY x.w"),
    "values of a with query": ("WITH x(ward, w) AS (VALUES (1, 'a'), (2, 'b')) SELECT x.w, COUNT(*) AS n FROM visit v JOIN x "
                               "ON x.ward = v.ward GROUP BY x.w", "duckdb",
                               "WITH x AS (SELECT 1 AS ward, 'a' AS w UNION ALL SELECT 2, 'b') SELECT x.w, COUNT(*) AS n FROM "
                               "visit v JOIN x ON x.ward = v.ward GROUP BY x.w"),
    "spread": ("SELECT STD(cost) AS s FROM visit", "duckdb", "SELECT STDDEV_POP(cost) AS s FROM visit"),
    "similar to": ("SELECT COUNT(*) AS n FROM visit WHERE diagnosis SIMILAR TO '(a|b_)%'", "postgres",
                   "SELECT COUNT(*) AS n FROM visit WHERE (diagnosis LIKE 'a%' OR diagnosis LIKE 'b_%')"),
    "an operator for them": ("SELECT COUNT(*) AS n FROM visit WHERE diagnosis ~* '^a.*b$'", "postgres",
                             "SELECT COUNT(*) AS n FROM visit WHERE diagnosis ILIKE 'a%b'"),
    "signs of like in them": ("SELECT COUNT(*) AS n FROM visit WHERE REGEXP_LIKE(diagnosis, '5%_', 'c')", "duckdb",
                              "SELECT COUNT(*) AS n FROM visit WHERE diagnosis LIKE '%5!%!_%' ESCAPE '!'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_another_spelling_is_the_same_query(name: str) -> None:
    written, dialect, plain = SAME[name]
    assert plan(written, dialect=dialect).digest == plan(plain).digest


@pytest.mark.parametrize(
    "pattern",
    ["a+", "(a)*", "a{2}", r"\\d", r"a\\\\b", "a(?=b)", "[^a]", "^*", "a^b", "(a", "[a-Z]", "x" * 501, "[a-z][a-z]"],
)
def test_regular_expressions_that_no_like_says_are_refused(pattern: str) -> None:
    with pytest.raises(SqlRefused, match="INSITU-SQL-FORBIDDEN-CONSTRUCT"):
        plan(f"SELECT COUNT(*) FROM visit WHERE diagnosis ~ '{pattern}'", dialect="postgres")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM visit v CROSS JOIN (SELECT AVG(cost) AS c FROM visit) t WHERE v.cost > t.c",
        "SELECT v.cost > t.c AS dear, COUNT(*) FROM visit v CROSS JOIN (SELECT AVG(cost) AS c FROM visit) t GROUP BY 1",
        "SELECT SUM(v.cost - t.c) FROM visit v CROSS JOIN (SELECT AVG(cost) AS c FROM visit) t",
        "SELECT COUNT(*) FROM visit v JOIN (SELECT MAX(stage) AS s FROM visit) t ON v.stage = t.s",
        "SELECT v.kind, COUNT(*), MAX(t.n) FROM visit v CROSS JOIN (SELECT stage, COUNT(*) AS n FROM visit GROUP BY stage) t GROUP BY 1",
    ],
)
def test_a_second_stage_over_persons_rows_is_refused(sql: str) -> None:
    with pytest.raises(SqlRefused, match="beside noisy results"):
        plan(sql)


def test_a_total_that_is_read_twice_is_made_once() -> None:
    sql = "SELECT v.kind, COUNT(*) / t.n AS a, SUM(v.cost) / t.n AS b FROM visit v CROSS JOIN (SELECT COUNT(*) AS n FROM visit) t "
    assert len(plan(f"{sql} GROUP BY v.kind, t.n HAVING COUNT(*) > t.n / 100").releases) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM visit a WHERE a.cost > (SELECT AVG(b.cost) FROM visit b WHERE b.kind = a.kind)",
        "SELECT COUNT(*) FROM person p WHERE (SELECT COUNT(*) FROM visit v WHERE v.person_id < p.person_id) > 1",
        "SELECT COUNT(*) FROM visit a FULL JOIN visit b ON a.kind = b.kind",
        "SELECT COUNT(*) FROM act WHERE code = (SELECT a.code FROM act a WHERE a.amount = 7)",
    ],
)
def test_what_looks_at_other_persons_is_refused(sql: str) -> None:
    with pytest.raises(SqlRefused):
        plan(sql)
