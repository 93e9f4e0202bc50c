"""Every refusal of a query or of its parameters: its code, and the clause it underlines. Nothing is planned then."""

from __future__ import annotations

from typing import Any

import pytest
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import CATALOGUE, AccessRefused, ParameterRefused, Refused, SqlRefused
from insitu_privacy.passes.parse import SQL_BYTES
from insitu_privacy.plan import Scope

from tests.testkit.care import care_pairs, changed, plan

UNMARKED = None
"""The refusal is of the whole text."""

_SQL: list[tuple[str, str, str | None]] = [
    ("INSITU-SQL-SYNTAX", "SELECT COUNT(*) FROM person WHERE sex = = 'F'", "="),
    ("INSITU-SQL-TOO-LONG", "SELECT " + "1" * SQL_BYTES, UNMARKED),
    ("INSITU-SQL-TOO-DEEP", "SELECT " + "(" * 201 + "1" + ")" * 201, "("),
    ("INSITU-SQL-NOT-ONE", "SELECT COUNT(*) FROM person; SELECT 1", UNMARKED),
    ("INSITU-SQL-NOT-SELECT", "DELETE FROM person", "person"),
    ("INSITU-SQL-UNKNOWN-TABLE", "SELECT COUNT(*) FROM persons", "persons"),
    ("INSITU-SQL-UNKNOWN-TABLE", "SELECT COUNT(*) FROM main.person", "main.person"),
    ("INSITU-SQL-UNKNOWN-TABLE", "SELECT COUNT(*) FROM '/etc/passwd'", "'/etc/passwd'"),
    ("INSITU-SQL-UNKNOWN-TABLE", "SELECT COUNT(*) FROM information_schema.tables", "information_schema.tables"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(*) FROM person WHERE agee > 3", "agee"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(*) FROM person WHERE person.agee > 3", "person.agee"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(*) FROM person WHERE q.sex = 'F'", "q.sex"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(DISTINCT person_id) FROM act", "person_id"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(*) FROM act WHERE _unit_0 = 3", "_unit_0"),
    ("INSITU-SQL-UNKNOWN-COLUMN", "SELECT COUNT(*) FROM person WHERE rowid = 3", "rowid"),
    ("INSITU-SQL-AMBIGUOUS-COLUMN", "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id WHERE person_id = 3", "person_id"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT COUNT(*) FROM person WHERE pg_sleep(10) = 1", "pg_sleep(10)"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT pg_sleep(COUNT(*)) FROM person", "pg_sleep(COUNT(*))"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT COUNT(*) FROM visit WHERE md5(diagnosis) = 'a'", "md5(diagnosis)"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT SUM(getvariable('x')) FROM visit", "getvariable('x')"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT COUNT(*) FILTER (WHERE pg_read_file('x') = '') FROM visit", "pg_read_file('x')"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT kind, COUNT(*) FROM visit GROUP BY kind HAVING query_me('x') = 1", "query_me('x')"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT current_setting('x'), COUNT(*) FROM visit GROUP BY current_setting('x')", "current_setting('x')"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM read_csv('/etc/passwd')", "read_csv('/etc/passwd')"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "WITH RECURSIVE x AS (SELECT person_id FROM person) SELECT COUNT(*) FROM x", "x AS (SELECT person_id FROM person)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) k JOIN visit v ON v.kind = k.kind", "visit v"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT DISTINCT kind FROM visit WHERE cost > 1) k JOIN person p ON p.sex = k.kind", "person p"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT kind FROM visit UNION SELECT sex FROM person) k", "kind FROM visit UNION SELECT sex FROM person"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT kind FROM visit EXCEPT SELECT sex FROM person) k", "kind FROM visit EXCEPT SELECT sex FROM person"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT person_id FROM visit LIMIT 5) k", "5"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM person WHERE birth_year = (SELECT MIN(birth_year) FROM person)", "birth_year) FROM person"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM visit WHERE kind IN (SELECT v.kind FROM visit v WHERE v.ward = 3)", "kind IN (SELECT v.kind FROM visit v WHERE v.ward = 3)"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM visit WHERE NOT EXISTS (SELECT 1 FROM visit v WHERE v.ward > visit.ward)", "1 FROM visit v WHERE v.ward > visit.ward"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM (SELECT person_id, ward FROM visit) a JOIN visit b ON a.ward = b.ward", "visit b ON a.ward = b.ward"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT p, COUNT(*) FROM (SELECT COALESCE(person_id, 1) AS p FROM visit) a GROUP BY p", "p"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT p, COUNT(*) FROM (SELECT kind, MAX(person_id) AS p FROM visit GROUP BY kind, person_id) a GROUP BY p", "p"),
    ("INSITU-SQL-AGGREGATE", "SELECT COUNT(DISTINCT ward) FROM visit", "ward"),
    ("INSITU-SQL-UNBOUNDED", "SELECT STDDEV(weight) FROM visit", "weight"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (ORDER BY start) AS r FROM visit) v WHERE r = 1", "ROW_NUMBER() OVER (ORDER BY start)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY kind ORDER BY start) AS r FROM visit) v WHERE r = 1", "ROW_NUMBER() OVER (PARTITION BY kind ORDER BY start)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT SUM(s) FROM (SELECT SUM(stage) OVER (PARTITION BY person_id ORDER BY start RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) AS s FROM visit) v", "SUM(stage) OVER (PARTITION BY person_id ORDER BY start RANGE BETWEEN 2 PRECEDING AND CURRENT ROW)"),
    ("INSITU-SQL-ROW-OUTPUT", "SELECT COUNT(*) OVER () FROM visit", "*"),
    ("INSITU-SQL-UNGROUPED", "SELECT person_id FROM (SELECT person_id, COUNT(*) AS n FROM visit GROUP BY person_id) f", "person_id"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT kind, pg_sleep(n) FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) f", "pg_sleep(n)"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT kind, random() * n FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) f", "random"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT kind, CORR(n, n) OVER (ORDER BY n) FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) f", "CORR(n, n) OVER (ORDER BY n)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit LIMIT 1 + 1", "1 + 1"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT SUM(DISTINCT cost) FROM visit", "SUM(DISTINCT cost)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM person, person", "person"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE start < finish + INTERVAL 1 DECADE", "finish"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE start < finish + INTERVAL 1 CENTURY", "finish"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM person TABLESAMPLE (10 PERCENT)", "person TABLESAMPLE (10 PERCENT)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM person AS p(a, b)", "person AS p(a, b)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM person p LEFT JOIN icd i ON i.code = a.code JOIN visit v ON v.person_id = p.person_id JOIN act a ON a.visit_id = v.visit_id", "icd i ON i.code = a.code"),
    ("INSITU-SQL-ROW-OUTPUT", "SELECT * FROM person", "*"),
    ("INSITU-SQL-ROW-OUTPUT", "SELECT 1 FROM person", "1"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT person_id, COUNT(*) FROM visit GROUP BY person_id", "person_id"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM visit GROUP BY person_id", "person_id"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM visit GROUP BY person_id % 10", "person_id % 10"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM visit GROUP BY kind, person_id % 5", "person_id % 5"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM visit GROUP BY visit_id", "visit_id"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM act GROUP BY visit_id", "visit_id"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM visit GROUP BY previous", "previous"),
    ("INSITU-SQL-GROUP-BY-UNIT", "SELECT COUNT(*) FROM line GROUP BY item, act_id", "act_id"),
    ("INSITU-SQL-UNGROUPED", "SELECT sex, COUNT(*) FROM person", "sex"),
    ("INSITU-SQL-UNGROUPED", "SELECT person_id FROM person", "person_id"),
    ("INSITU-SQL-UNGROUPED", "SELECT kind, start, COUNT(*) FROM visit GROUP BY kind", "start"),
    ("INSITU-SQL-UNGROUPED", "SELECT kind, COUNT(*) FROM visit GROUP BY kind HAVING start > DATE '2020-01-01'", "start"),
    ("INSITU-SQL-UNGROUPED", "SELECT kind, COUNT(*) FROM visit GROUP BY kind ORDER BY start", "start"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p JOIN visit v ON p.birth_year = v.ward", "visit v ON p.birth_year = v.ward"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p, visit v", "visit v"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id OR active", "visit v ON p.person_id = v.person_id OR active"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p JOIN visit v ON NOT p.person_id <> v.person_id", "visit v ON NOT p.person_id <> v.person_id"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id % 7", "visit v ON p.person_id = v.person_id % 7"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM visit v JOIN act a ON v.visit_id = a.act_id", "act a ON v.visit_id = a.act_id"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM visit a JOIN visit b ON a.ward = b.ward AND a.person_id <> b.person_id", "visit b ON a.ward = b.ward AND a.person_id <> b.person_id"),
    ("INSITU-SQL-JOIN-PUBLIC", "SELECT COUNT(*) FROM visit v, icd i", "icd i"),
    ("INSITU-SQL-JOIN-PUBLIC", "SELECT COUNT(*) FROM act v LEFT JOIN icd i ON TRUE", "icd i"),
    ("INSITU-SQL-JOIN", "SELECT COUNT(*) FROM person p LEFT JOIN visit v ON p.birth_year = v.ward", "visit v ON p.birth_year = v.ward"),
    ("INSITU-SQL-JOIN-KIND", "SELECT COUNT(*) FROM icd i LEFT JOIN visit v ON v.kind = i.chapter FULL JOIN person p ON p.person_id = v.person_id", "person p ON p.person_id = v.person_id"),
    ("INSITU-SQL-JOIN-KIND", "SELECT COUNT(*) FROM person p FULL JOIN visit v ON p.person_id < v.person_id", "visit v ON p.person_id < v.person_id"),
    ("INSITU-SQL-JOIN-KIND", "SELECT COUNT(*) FROM act b JOIN icd i ON i.code = b.code RIGHT JOIN act a ON b.act_id = a.act_id", "act a ON b.act_id = a.act_id"),
    ("INSITU-SQL-JOIN-KIND", "SELECT COUNT(*) FROM person p ANTI JOIN visit v ON p.person_id = v.person_id", "visit v ON p.person_id = v.person_id"),
    ("INSITU-SQL-NO-PROTECTED", "SELECT 1 + 1", "1 + 1"),
    ("INSITU-SQL-AGGREGATE", "SELECT MODE(kind) FROM visit", "MODE(kind)"),
    ("INSITU-SQL-AGGREGATE", "SELECT MAX(person_id) FROM visit", "person_id"),
    ("INSITU-SQL-UNBOUNDED", "SELECT MEDIAN(weight) FROM visit", "weight"),
    ("INSITU-SQL-TYPE", "SELECT MAX(kind) FROM visit", "kind"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE_CONT(cost, stage) FROM visit", "cost, stage"),
    ("INSITU-SQL-AGGREGATE", "SELECT COUNT(DISTINCT kind) FROM visit", "COUNT(DISTINCT kind)"),
    ("INSITU-SQL-AGGREGATE", "SELECT SUM(person_id) FROM visit", "SUM(person_id)"),
    ("INSITU-SQL-AGGREGATE", "SELECT AVG(visit_id % 7) FROM visit", "AVG(visit_id % 7)"),
    ("INSITU-SQL-UNBOUNDED", "SELECT SUM(weight) FROM visit", "weight"),
    ("INSITU-SQL-UNBOUNDED", "SELECT AVG(ABS(weight)) FROM visit", "ABS(weight)"),
    ("INSITU-SQL-UNBOUNDED", "SELECT SUM(LEAST(weight, 5)) FROM visit", "LEAST(weight, 5)"),
    ("INSITU-SQL-UNBOUNDED", "SELECT SUM(ward) FROM visit", "ward"),
    ("INSITU-SQL-UNBOUNDED", "SELECT COUNT(*) FROM visit WHERE weight * 2 > 3", "weight * 2"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE start < CURRENT_DATE - 5", ""),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE start < NOW()", ""),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE start < DATE(diagnosis, kind)", "kind"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE STRFTIME(start, '%Y Q') = ''", "start, '%Y Q'"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT LPAD('x', 2000000000, 'y'), COUNT(*) FROM visit", "'x', 2000000000, 'y'"),
    ("INSITU-SQL-FORBIDDEN-FUNCTION", "SELECT kind, REPLACE(kind, 'e', 'eee') FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) f", "kind, 'e', 'eee'"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE diagnosis LIKE 'a!' ESCAPE '!'", "diagnosis LIKE"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE STRFTIME(start, '%U') = 'May'", "start"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE REPLACE(diagnosis, kind, '') = ''", "kind"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT COUNT(*) FROM visit WHERE LPAD(diagnosis, 5000, 'x') = ''", "5000"),
    ("INSITU-SQL-UNBOUNDED", "SELECT COUNT(*) FROM visit WHERE ward = 99999999999999999999", "99999999999999999999"),
    ("INSITU-SQL-UNBOUNDED", "SELECT SUM(CAST(diagnosis AS INTEGER)) FROM visit", "diagnosis"),
    ("INSITU-SQL-NOT-TOTAL", "SELECT COUNT(*) FROM visit WHERE CAST(weight AS INTEGER) = 1", "weight"),
    ("INSITU-SQL-TYPE", "SELECT SUM(kind) FROM visit", "kind"),
    ("INSITU-SQL-TYPE", "SELECT COUNT(*) FROM visit WHERE kind", "kind"),
    ("INSITU-SQL-TYPE", "SELECT COUNT(*) FROM visit WHERE ward = 'east'", "east"),
    ("INSITU-SQL-UNBOUNDED", "SELECT COUNT(*) FROM visit WHERE ward * ward > 3", "ward * ward"),
    ("INSITU-SQL-NOT-TOTAL", "SELECT SUM(CAST(diagnosis AS BOOLEAN)) FROM visit", "diagnosis"),
    ("INSITU-SQL-TYPE", "SELECT COUNT(*) FROM visit WHERE noted = TRUE", "noted"),
    ("INSITU-SQL-TYPE", "SELECT COUNT(*) FROM visit WHERE cost + kind > 3", "kind"),
    ("INSITU-SQL-TYPE", "SELECT COUNT(*) FROM visit WHERE start = 'yesterday'", "'yesterday'"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "sql", "mark"), _SQL, ids=[f"{code[11:]}-{sql[7:60]}" for code, sql, _ in _SQL])
def test_a_query_outside_the_language_is_refused_at_its_clause(code: str, sql: str, mark: str | None) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(sql)
    error = refused.value
    assert error.code == code
    marked = None if error.span is None else sql[error.span.start : error.span.end]
    if mark is None:
        assert marked is None
    else:
        assert marked is not None
        assert mark in marked
        assert len(marked) <= len(mark) + 16, "the underline is wider than its clause"
    assert "\n" not in error.line()
    assert error.remedy


def test_every_sql_refusal_is_tested_here() -> None:
    elsewhere = {"INSITU-SQL-UNKNOWN-DIALECT", "INSITU-SQL-TOO-MANY-ROWS"}  # the latter in test_postprocess
    tested = {code for code, _, _ in _SQL} | elsewhere
    assert {code for code, entry in CATALOGUE.items() if entry.category == "sql"} == tested


_NO_BOUNDS = parse_dataset(
    changed(("max_rows_per_group = 3\nmax_groups = 2\n[tables.visit.columns]", "[tables.visit.columns]"))
)
_COUNT, _PRIVATE = "SELECT COUNT(*) FROM visit", "SELECT diagnosis, COUNT(*) FROM visit GROUP BY diagnosis"
_PURE = {"scope": Scope(accounting="pure")}
_PARAMETERS: list[tuple[str, str, dict[str, Any]]] = [
    ("INSITU-PARAM-EPSILON", _COUNT, {"epsilon": "0"}),
    ("INSITU-PARAM-EPSILON", _COUNT, {"epsilon": "-1"}),
    ("INSITU-PARAM-EPSILON", _COUNT, {"epsilon": "1e-13"}),
    ("INSITU-PARAM-EPSILON", _COUNT, {"epsilon": "1e400"}),
    ("INSITU-PARAM-DELTA", _COUNT, {"delta": "-1e-9"}),
    ("INSITU-PARAM-DELTA", _COUNT, {"delta": "1"}),
    ("INSITU-PARAM-DELTA", _COUNT, {"delta": "1e-400"}),
    ("INSITU-PARAM-DELTA-NEEDED", _PRIVATE, {"delta": "0"}),
    ("INSITU-PARAM-DELTA-NEEDED", _PRIVATE, {"delta": "0", "mechanism": "laplace"}),
    ("INSITU-PARAM-DELTA-NEEDED", _PRIVATE, {"delta": "1e-20"}),
    ("INSITU-PARAM-DELTA-NEEDED", _COUNT, {"delta": "0", "mechanism": "gaussian"}),
    ("INSITU-PARAM-BOUND", _COUNT, {"max_rows_per_group": 0}),
    ("INSITU-PARAM-BOUND", _COUNT, {"max_groups": -1}),
    ("INSITU-PARAM-BOUND", _COUNT, {"max_rows_per_group": 1_000_001}),
    ("INSITU-PARAM-BOUND", "SELECT kind, ward, SUM(cost * 1e9) FROM visit GROUP BY kind, ward", {"max_rows_per_group": 10**6, "max_groups": 10**6}),
    ("INSITU-PARAM-BOUND-NEEDED", _COUNT, {"dataset": _NO_BOUNDS}),
    ("INSITU-PARAM-BOUND-NEEDED", _COUNT, {"dataset": _NO_BOUNDS, "max_groups": 3}),
    ("INSITU-PARAM-MECHANISM", _COUNT, {"mechanism": "gaussian", **_PURE}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "sql", "asked"), _PARAMETERS)
def test_a_parameter_out_of_range_is_refused(code: str, sql: str, asked: dict[str, Any]) -> None:
    with pytest.raises(ParameterRefused) as refused:
        plan(sql, **asked)
    assert refused.value.code == code
    assert len(refused.value.line()) < 400


def test_every_parameter_refusal_of_planning_is_tested_here() -> None:
    clients = ("NODES", "DATASET", "TIMEOUT", "ACCURACY", "IMPROVE", "FITS")
    elsewhere = {f"INSITU-PARAM-{name}" for name in clients}
    tested = {code for code, _, _ in _PARAMETERS}
    known = {code for code, entry in CATALOGUE.items() if entry.category == "parameter"}
    assert known - elsewhere == tested


@pytest.mark.parametrize("epsilon", ["1e-9", "0.001", "1", "1e6", "1e15", "1e30"])
@pytest.mark.parametrize("sql", [_COUNT, "SELECT kind, SUM(cost), AVG(stage) FROM visit GROUP BY kind", _PRIVATE])
def test_every_epsilon_of_the_range_has_a_plan(epsilon: str, sql: str) -> None:
    assert plan(sql, epsilon=epsilon).loss.epsilon > 0


def test_tables_and_columns_outside_the_grant_are_refused_and_not_listed() -> None:
    scope = Scope(accounting="zcdp", tables={"visit": frozenset({"kind", "cost"}), "icd": None})
    assert plan("SELECT kind, SUM(cost) FROM visit GROUP BY kind", scope=scope)
    for sql in (
        "SELECT COUNT(*) FROM person",
        "SELECT COUNT(start) FROM visit",
        "SELECT COUNT(*) FROM visit WHERE ward = 3",
    ):
        with pytest.raises(AccessRefused) as refused:
            plan(sql, scope=scope)
        assert refused.value.code == "INSITU-ACCESS-NOT-GRANTED"
    with pytest.raises(SqlRefused) as unknown:
        plan("SELECT COUNT(*) FROM persons", scope=scope)
    assert "person," not in unknown.value.line()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id",
        "SELECT COUNT(*) FROM person p JOIN visit v ON p.rang = v.rang",
        "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.rang AND p.rang = v.person_id",
        "SELECT COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id AND (p.rang = v.rang OR p.active)",
    ],
)
def test_a_join_on_half_of_a_composite_unit_is_refused(sql: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(sql, dataset=care_pairs())
    assert refused.value.code == "INSITU-SQL-JOIN"


@pytest.mark.parametrize(
    "sql", ["SELECT COUNT(DISTINCT person_id) FROM visit", "SELECT rang, COUNT(*) FROM visit GROUP BY rang"]
)
def test_half_of_a_composite_unit_neither_counts_persons_nor_groups(sql: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(sql, dataset=care_pairs())
    assert refused.value.code in ("INSITU-SQL-AGGREGATE", "INSITU-SQL-GROUP-BY-UNIT")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(DISTINCT (person_id, rang)) FROM visit",
        "SELECT COUNT(DISTINCT person_id || rang) FROM visit",
        "SELECT COUNT(DISTINCT rang || person_id) FROM visit",
    ],
)
def test_a_whole_composite_unit_counts_persons(sql: str) -> None:
    try:
        (statistic,) = plan(sql, dataset=care_pairs()).releases[0].statistics
    except Refused as refused:
        pytest.fail(refused.line())
    assert (statistic.kind, statistic.value, statistic.linf) == ("units", None, 1)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM visit WHERE active IS NULL", "SELECT COUNT(*) FROM visit GROUP BY kind ORDER BY COUNT(*)",
        "SELECT kind, COUNT(*) FROM visit GROUP BY kind ORDER BY 2 DESC LIMIT 3", "SELECT kind AS k, COUNT(*) AS n FROM visit GROUP BY k HAVING n > 5 ORDER BY n",
        "SELECT COUNT(*) FROM person p, visit v WHERE p.person_id = v.person_id", "SELECT COUNT(*) FROM person JOIN visit USING (person_id)",
        "SELECT COUNT(DISTINCT person_id) FROM person JOIN visit USING (person_id)", "SELECT SUM(cost) / COUNT(*) FROM visit WHERE 1 = 1",
        "SELECT COUNT(*) FROM act a JOIN act b ON a.visit_id = b.visit_id", "SELECT SUM(LEAST(GREATEST(weight, 0), 5)) FROM visit",
        "SELECT COUNT(*) FROM act WHERE at > TIMESTAMP '2020-01-01 10:00:00'", "SELECT SUM(CASE WHEN kind = 'in' THEN cost ELSE 0 END) FROM visit",
        "SELECT AVG(EXTRACT(YEAR FROM start) - 2000) FROM visit", "SELECT COUNT(*) FILTER (WHERE stage > 1) * 100.0 / COUNT(*) FROM visit",
        "SELECT kind FROM visit GROUP BY kind", "SELECT ROUND(AVG(cost), 1) FROM visit", "SELECT SQRT(COUNT(*)), LN(COUNT(*)) FROM visit",
    ],
)  # fmt: skip
def test_what_the_language_holds_is_planned(sql: str) -> None:
    if "active" in sql:
        sql = sql.replace("visit", "person")
    try:
        assert plan(sql).releases
    except Refused as refused:
        pytest.fail(refused.line())
