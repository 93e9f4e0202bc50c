"""Queries of several releases, or with SQL over whole results: both engines give the plain query's answer."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.render import render

from tests.testkit.care import Row, plan, run_duckdb, run_postgres, whole

QUERIES = {
    "shares": "WITH a AS (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind), b AS (SELECT SUM(n) AS t FROM a) "
    "SELECT a.kind, 1.0 * a.n / b.t AS share FROM a CROSS JOIN b ORDER BY share DESC",
    "ranked": "SELECT kind, n, RANK() OVER (ORDER BY n DESC) AS r FROM (SELECT kind, COUNT(*) AS n FROM visit "
    "GROUP BY kind) x WHERE n > 5 ORDER BY r, kind",
    "ranked at once": "SELECT kind, DENSE_RANK() OVER (ORDER BY COUNT(*) DESC) AS r FROM visit GROUP BY kind ORDER BY 2, 1",
    "one over the other": "SELECT (SELECT COUNT(*) FROM visit WHERE kind = 'in') * 1.0 / (SELECT COUNT(*) FROM person) AS q",
    "joined": "SELECT a.sex, a.n, b.v, 1.0 * b.v / a.n AS per FROM (SELECT sex, COUNT(*) AS n FROM person GROUP BY sex) a "
    "JOIN (SELECT p.sex, COUNT(*) AS v FROM visit v JOIN person p USING (person_id) GROUP BY p.sex) b ON a.sex = b.sex "
    "ORDER BY 1",
    "united": "SELECT 'persons' AS what, COUNT(*) AS n FROM person UNION ALL SELECT 'visits', COUNT(*) FROM visit",
    "above a larger one": "SELECT kind, n FROM (SELECT kind, AVG(cost) AS n FROM visit GROUP BY kind) x "
    "WHERE n >= (SELECT AVG(cost) FROM visit) ORDER BY kind",
    "how many groups": "SELECT COUNT(*) AS groups FROM (SELECT DISTINCT kind, stage FROM visit WHERE stage < 2) d",
    "cumulative": "WITH s AS (SELECT stage, COUNT(*) AS total, ROW_NUMBER() OVER (ORDER BY stage) AS rn FROM visit "
    "WHERE stage IS NOT NULL GROUP BY stage), p AS (SELECT s.stage, s.total, SUM(q.total) AS accumulated FROM s "
    "JOIN s q ON q.rn <= s.rn GROUP BY s.stage, s.total, s.rn) SELECT MIN(CASE WHEN accumulated >= 0.5 * t.n THEN stage END) "
    "AS median FROM p CROSS JOIN (SELECT SUM(total) AS n FROM s) t",
    "beside another": "SELECT kind, COUNT(*) AS n, ROUND(100.0 * COUNT(*) / (SELECT COUNT(*) FROM visit), 1) AS percent "
    "FROM visit GROUP BY kind HAVING COUNT(*) > (SELECT COUNT(*) FROM visit) / 10 ORDER BY kind",
    "everything of it": "WITH a AS (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) SELECT * FROM a WHERE n > 3 "
    "ORDER BY n DESC, kind",
    "persons first": "WITH per AS (SELECT person_id, COUNT(*) AS k FROM visit GROUP BY person_id), "
    "h AS (SELECT k, COUNT(*) AS persons FROM per GROUP BY k) SELECT k, persons, SUM(persons) OVER (ORDER BY k) AS cum "
    "FROM h ORDER BY k",
    "era by frames": "SELECT COUNT(*) AS n, SUM(k) AS s FROM (SELECT person_id, MAX(stage) OVER (PARTITION BY person_id ORDER BY "
    "start, visit_id ROWS UNBOUNDED PRECEDING) AS m, COUNT(*) OVER (PARTITION BY person_id ORDER BY start, visit_id ROWS "
    "BETWEEN 2 PRECEDING AND CURRENT ROW) AS k FROM visit) f WHERE m >= 2",
    "pairs": "SELECT kind, COVAR_POP(cost, stage) AS a, COVAR_SAMP(cost, stage) AS b, CORR(cost, stage) AS c, "
    "REGR_SLOPE(cost, stage) AS d, REGR_INTERCEPT(cost, stage) AS e, REGR_R2(cost, stage) AS f, REGR_AVGX(cost, stage) AS "
    "g, REGR_AVGY(cost, stage) AS h, REGR_COUNT(cost, stage) AS i FROM visit GROUP BY kind ORDER BY kind",
    "sums of pairs": "SELECT REGR_SXX(v.cost, p.birth_year) AS a, REGR_SYY(v.cost, p.birth_year) AS b, REGR_SXY(v.cost, "
    "p.birth_year) AS c, CORR(v.cost, p.birth_year) FILTER (WHERE v.stage > 1) AS d FROM visit v JOIN person p ON "
    "p.person_id = v.person_id",
    "spread of some": "SELECT kind, VARIANCE(cost) FILTER (WHERE stage > 1) AS v, STDDEV(cost) FILTER (WHERE stage < 3) AS s "
    "FROM visit GROUP BY kind ORDER BY kind",
    "cube": "SELECT sex, birth_year // 20 AS g, COUNT(*) AS n, AVG(birth_year) AS a FROM person WHERE birth_year >= 1940 "
    "GROUP BY CUBE (sex, g) ORDER BY n DESC, sex NULLS FIRST, g NULLS FIRST",
    "rollup": "SELECT v.kind, v.stage, COUNT(*) AS n, GROUPING(v.stage) AS whole FROM visit v WHERE v.stage > 0 "
    "GROUP BY ROLLUP (kind, v.stage) HAVING COUNT(*) > 3 ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 4",
    "grouping sets": "WITH g AS (SELECT kind, stage, SUM(cost) AS c FROM visit WHERE stage IS NOT NULL GROUP BY GROUPING "
    "SETS ((kind), (stage), ())) SELECT kind, stage, c FROM g ORDER BY kind NULLS LAST, stage NULLS LAST LIMIT 5",
    "a share of last rows": "SELECT kind, 100.0 * COUNT_IF(stage > 1) / COUNT(*) AS s FROM (SELECT DISTINCT ON (person_id) "
    "person_id, kind, stage FROM visit ORDER BY person_id, start DESC, visit_id) f WHERE stage IS NOT NULL GROUP BY kind "
    "ORDER BY kind",
    "first rows": "SELECT kind, COUNT(*) AS n FROM (SELECT kind, person_id FROM visit QUALIFY ROW_NUMBER() OVER (PARTITION "
    "BY person_id ORDER BY start, visit_id) = 1) f GROUP BY kind ORDER BY kind",
    "largest groups": "SELECT kind, stage, COUNT(*) AS n FROM visit WHERE stage > 0 GROUP BY kind, stage QUALIFY RANK() OVER "
    "(PARTITION BY kind ORDER BY COUNT(*) DESC, stage) <= 2 ORDER BY kind, n DESC, stage LIMIT 5",
    "a power of a listed number": "SELECT SUM(POWER(2, LEAST(stage, 3))) AS mask FROM visit WHERE stage > 0",
    "an axis of years": "WITH y AS (SELECT DISTINCT YEAR(start) AS y FROM visit) SELECT y.y, COUNT(DISTINCT v.person_id) AS n "
    "FROM visit v, y WHERE YEAR(v.start) <= y.y AND YEAR(v.finish) >= y.y GROUP BY y.y HAVING COUNT(DISTINCT v.person_id) > 0 "
    "ORDER BY y.y",
    "written out": "WITH k (kind, label) AS (VALUES ('er', 'urgent'), ('in', 'stays')), s AS (SELECT * FROM (VALUES (1, 2), (3, 4)) "
    "AS t (low, high)) SELECT k.label, s.low, COUNT(*) AS n FROM visit v JOIN k ON k.kind = v.kind JOIN s ON v.stage BETWEEN "
    "s.low AND s.high GROUP BY 1, 2 ORDER BY 1, 2",
    "last values": "SELECT a, b, c, COUNT(*) AS n FROM (SELECT person_id, LAST_VALUE(stage) OVER (PARTITION BY person_id ORDER BY "
    "start, visit_id) AS a, LAST_VALUE(stage) OVER (PARTITION BY person_id ORDER BY start, visit_id ROWS BETWEEN UNBOUNDED "
    "PRECEDING AND UNBOUNDED FOLLOWING) AS b, FIRST_VALUE(stage) OVER (PARTITION BY person_id ORDER BY start DESC, visit_id RANGE "
    "BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS c FROM visit) f GROUP BY 1, 2, 3 HAVING COUNT(*) > 0 ORDER BY 1 "
    "NULLS LAST, 2 NULLS LAST, 3 NULLS LAST",
    "days as text": "SELECT CAST(start AS VARCHAR) AS d, COUNT(*) AS n FROM visit WHERE start BETWEEN DATE '2020-01-01' "
    "AND DATE '2020-02-10' GROUP BY 1 HAVING COUNT(*) > 0 ORDER BY 1",
    "sets of expressions": "SELECT UPPER(sex) AS u, sex, GROUPING((UPPER(sex))) AS gu, GROUPING(sex) AS gs, COUNT(*) AS n, "
    "COUNT(*) FILTER (WHERE sex = 'F') AS f FROM person GROUP BY ROLLUP (UPPER(sex), sex) HAVING COUNT(*) > 0 ORDER BY 1 NULLS "
    "LAST, 2 NULLS LAST, 3, 4",
    "sums of the finest set": "SELECT region, sex, GROUPING(region) AS g, COUNT(*) AS n, COUNT(DISTINCT person_id) AS p, SUM(score) "
    "AS s, AVG(score) FILTER (WHERE active) AS a, AVG(birth_year) AS b, 100.0 * COUNT_IF(active) / COUNT(*) AS c FROM person GROUP "
    "BY CUBE (region, sex) HAVING COUNT(score) > 0 AND (sex IS NULL OR sex > 'A') ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3, n",
    "sums of sets in a table": "WITH g AS (SELECT v.kind AS k, YEAR(start) AS y, AVG(cost) AS c, SUM(cost) AS s FROM visit v WHERE "
    "YEAR(start) IN (2018, 2019) GROUP BY ROLLUP (y, v.kind)) SELECT k, y, c, s / (SELECT MAX(s) FROM g) AS share FROM g "
    "WHERE c IS NOT NULL ORDER BY k NULLS LAST, y NULLS LAST",
    "sets and ranks": "SELECT stage, kind, COUNT(*) AS n, RANK() OVER (PARTITION BY GROUPING(kind), kind ORDER BY COUNT(*) "
    "DESC, stage) AS r FROM visit WHERE stage > 0 GROUP BY CUBE (stage, kind) ORDER BY 1 NULLS LAST, 2 NULLS LAST, 3, 4",
    "public beside results": "SELECT i.chapter, i.severity, x.n FROM icd i JOIN (SELECT code, COUNT(*) AS n FROM act "
    "GROUP BY code) x ON x.code = i.code ORDER BY i.code",
    "public left beside results": "WITH x AS (SELECT code, COUNT(*) AS n FROM act WHERE code < 'B' GROUP BY code), c AS "
    "(SELECT code, chapter FROM icd WHERE severity > 0) SELECT c.code, c.chapter, COALESCE(x.n, 0) AS n FROM c "
    "LEFT JOIN x ON x.code = c.code WHERE c.code < 'I2' ORDER BY c.code",
    "public among the first": "SELECT chapter FROM icd WHERE code IN (SELECT code FROM (SELECT code, DENSE_RANK() OVER "
    "(ORDER BY COUNT(*) DESC) AS r FROM act WHERE code IS NOT NULL GROUP BY code) t WHERE r <= 1) ORDER BY code",
    "public alone": "WITH c AS (SELECT chapter, COUNT(*) AS codes, MAX(severity) AS worst FROM icd GROUP BY chapter) "
    "SELECT chapter, codes, worst FROM c WHERE codes > (SELECT MIN(codes) FROM c) ORDER BY chapter",
    "a total beside groups": "SELECT v.kind, COUNT(*) * 1.0 / t.n AS share, t.n AS total FROM visit v CROSS JOIN (SELECT COUNT(*) "
    "AS n FROM visit) t GROUP BY v.kind, t.n ORDER BY v.kind",
    "totals by name": "WITH t AS (SELECT COUNT(*) AS n, AVG(cost) AS c FROM visit) SELECT kind, COUNT(*) / MAX(t.n) AS "
    "share, AVG(cost) - MIN(t.c) AS d FROM visit, t WHERE stage > 0 GROUP BY kind HAVING COUNT(*) * 20 > "
    "MAX(t.n) ORDER BY kind",
    "rows after a total": "SELECT t.n, COUNT(*) AS persons, AVG(p.birth_year) AS a FROM (SELECT COUNT(*) AS n FROM visit) t "
    "CROSS JOIN person p GROUP BY t.n",
    "both or either": "SELECT COUNT(*) AS n, COUNT(a.k) AS x, COUNT(b.k) AS y, SUM(CASE WHEN a.k > b.k THEN 1 ELSE 0 END) "
    "AS z FROM (SELECT person_id, COUNT(*) AS k FROM visit WHERE kind = 'in' GROUP BY person_id) a FULL "
    "JOIN (SELECT person_id, COUNT(*) AS k FROM visit WHERE kind = 'out' GROUP BY person_id) b ON "
    "a.person_id = b.person_id",
    "either of them": "SELECT p.sex, COUNT(DISTINCT x.id) AS n FROM (SELECT COALESCE(a.person_id, b.person_id) AS id FROM "
    "(SELECT DISTINCT person_id FROM visit WHERE kind = 'in') a FULL OUTER JOIN (SELECT DISTINCT "
    "person_id FROM visit WHERE stage = 1) b ON b.person_id = a.person_id) x JOIN person p ON p.person_id"
    " = x.id GROUP BY p.sex ORDER BY p.sex",
    "joined to the right": "SELECT p.sex, COUNT(*) AS n, COUNT(v.kind) AS k FROM visit v RIGHT JOIN person p ON v.person_id = "
    "p.person_id AND v.kind = 'in' GROUP BY p.sex ORDER BY 1",
    "looked up for each row": "SELECT COUNT(*) AS n FROM visit a WHERE a.start = (SELECT MIN(b.start) FROM visit b WHERE "
    "b.person_id = a.person_id) AND a.stage > 0",
    "counted for each row": "SELECT p.sex, AVG((SELECT COUNT(*) FROM visit v WHERE v.person_id = p.person_id AND v.kind = 'in')) "
    "AS k FROM person p GROUP BY p.sex ORDER BY p.sex",
    "values written out": "SELECT s.w, COUNT(*) AS n FROM visit v JOIN (VALUES ('in', 2), ('out', 1), ('er', 1)) AS s(kind, w) "
    "ON s.kind = v.kind GROUP BY s.w ORDER BY s.w",
    "numbers written out": "SELECT g.y, COUNT(*) AS n FROM visit v JOIN generate_series(2016, 2019) AS g(y) ON g.y BETWEEN "
    "YEAR(v.start) AND YEAR(v.finish) GROUP BY g.y HAVING COUNT(*) > 0 ORDER BY g.y",
    "lists of names": "WITH per(p, k) AS (SELECT person_id, COUNT(*) FROM visit GROUP BY person_id), h(k, n) AS (SELECT k, "
    "COUNT(*) FROM per GROUP BY k) SELECT k, n FROM h WHERE k BETWEEN 1 AND 3 AND n > 0 ORDER BY k",
    "regular expressions": "SELECT COUNT_IF(REGEXP_MATCHES(kind, '^(in|er)$')) AS a, COUNT_IF(REGEXP_MATCHES(kind, 'u.')) AS b, "
    "COUNT_IF(REGEXP_MATCHES(kind, '[n-r]')) AS c, COUNT_IF(REGEXP_MATCHES(code, '^.*[0-9]1$')) AS d, "
    "COUNT_IF(NOT REGEXP_MATCHES(code, '^A?I')) AS e FROM act a JOIN visit v ON v.visit_id = a.visit_id",
    "whole years and months": "SELECT SUM(EXTRACT(YEAR FROM AGE(finish, start))) AS y, SUM(EXTRACT(MONTH FROM AGE(finish, start))) "
    "AS m FROM visit WHERE finish >= start",
    "parts of a difference": "SELECT SUM(EXTRACT(DAY FROM (a.at - b.at))) AS d, SUM(ABS(EXTRACT(HOUR FROM (a.at - b.at)))) AS h, "
    "SUM(EXTRACT(MINUTE FROM (a.at - b.at))) AS m FROM act a JOIN act b ON a.visit_id = b.visit_id AND "
    "a.at >= b.at",
    "digits of days": "SELECT CAST(STRFTIME(start, '%Y%m') AS INTEGER) AS ym, COUNT(*) AS n FROM visit WHERE YEAR(start) = "
    "2020 GROUP BY 1 HAVING COUNT(*) > 0 ORDER BY 1",
    "names of days": "SELECT COUNT_IF(DAYNAME(start) = 'Monday') AS d, COUNT_IF(MONTHNAME(start) >= 'M') AS m, "
    "COUNT_IF(STRFTIME(start, '%a %b') LIKE 'S% J%') AS s FROM visit",
    "rows of two": "SELECT COUNT(*) AS n FROM visit WHERE (kind, stage) IN (('in', 1), ('out', 2), ('er', 0))",
    "rounded to tens": "SELECT ROUND(birth_year, -1) AS d, TRUNC(birth_year / 10) AS t, COUNT(*) AS n FROM person WHERE "
    "birth_year > 1950 GROUP BY 1, 2 HAVING COUNT(*) > 0 ORDER BY 1, 2",
    "equal to what a subquery finds": "SELECT COUNT(*) AS n FROM act WHERE visit_id = (SELECT v.visit_id FROM visit v WHERE v.visit_id = 3)",
    "a total in WITH": "WITH t AS (SELECT COUNT(*) AS n FROM visit) SELECT kind, COUNT(*) * 1.0 / (SELECT n FROM t) AS share "
    "FROM visit GROUP BY kind ORDER BY kind",
    "first days of months": "SELECT CAST(CAST(DATE_TRUNC('month', start) AS DATE) AS VARCHAR) AS m, COUNT(*) AS n FROM visit WHERE start BETWEEN DATE "
    "'2018-03-15' AND DATE '2019-02-20' GROUP BY 1 HAVING COUNT(*) > 0 ORDER BY 1",
    "rows of both sides": "SELECT k, COUNT(*) AS n FROM (SELECT person_id, COUNT(*) AS k FROM (SELECT person_id, sex AS x FROM "
    "person UNION SELECT person_id, region FROM person) u GROUP BY person_id) c WHERE k > 1 GROUP BY k HAVING COUNT(*) > 0",
    "public in order": "SELECT code, severity FROM icd WHERE severity < 3 ORDER BY code LIMIT 2",
}
_SORTED = {"united"}


def exact_plan(sql: str) -> PrivacyPlan:
    return plan(sql, max_rows_per_group=1000, max_groups=1000, epsilon="1e25")


def answer(made: PrivacyPlan, dialect: Any, run: Any) -> ResultTable:
    """What a researcher would get from one node."""
    values = tuple(
        privatize(one, ExactCells(rows=tuple(run(render(one, dialect=dialect, tables=whole(), cap_key="k")))))
        for one in made.releases
    )
    with Postprocessor() as post:
        return post.run(made, merge(made, [values]))


def close(one: Any, other: Any) -> bool:
    if one is None or other is None or isinstance(other, str):
        return bool(one == other)
    return math.isclose(float(one), float(other), rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("name", QUERIES)
def test_the_answer_is_that_of_the_plain_query(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], name: str
) -> None:
    made = exact_plan(QUERIES[name])
    plain: list[Row] = run_duckdb(duck, QUERIES[name])
    for dialect, run in (
        ("duckdb", lambda text: run_duckdb(duck, text)),
        ("postgres", lambda text: run_postgres(pg, text)),
    ):
        rows = [row for row in answer(made, dialect, run).rows if name != "persons first" or row[1]]
        expected = sorted(plain) if name in _SORTED else plain
        found = sorted(rows) if name in _SORTED else rows  # type: ignore[type-var]
        assert len(found) == len(expected)
        for row, exact in zip(found, expected, strict=True):
            assert all(close(a, b) for a, b in zip(row, exact, strict=True)), (row, exact)


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("accounting", ["laplace", "gaussian", "auto"])
def test_the_releases_share_the_budget_and_spend_no_more(name: str, accounting: Any) -> None:
    made = plan(QUERIES[name], epsilon="1", delta="1e-6", mechanism=accounting)
    if not made.releases:
        assert (made.loss.epsilon, made.loss.delta, made.loss.rho) == (0, 0, 0)
        return
    assert made.loss.epsilon == 1
    assert made.loss.delta <= Fraction(1, 10**6)
    assert made.loss.rho == sum(one.rho for release in made.releases for one in release.statistics)
    if accounting == "laplace":
        assert sum(one.epsilon for release in made.releases for one in release.statistics) <= 1
        assert made.loss.pure == 1
    if accounting == "gaussian":
        assert made.loss.pure is None


def test_intervals_go_through_the_sql_above_several_releases(duck: duckdb.DuckDBPyConnection) -> None:
    made = plan(QUERIES["joined"], max_rows_per_group=3, max_groups=2, epsilon="1")
    table = answer(made, "duckdb", lambda text: run_duckdb(duck, text))
    assert [column.noisy for column in table.columns] == [False, True, True, True]
    for row, intervals in zip(table.rows, table.intervals, strict=True):
        assert intervals[0] is None
        for value, interval in zip(row[1:], intervals[1:], strict=True):
            assert interval is not None
            assert interval[0] < value < interval[1]  # type: ignore[operator]


def test_a_release_that_is_read_twice_is_made_once() -> None:
    assert len(plan(QUERIES["cumulative"]).releases) == 1
    assert len(plan(QUERIES["shares"]).releases) == 1
    assert len(plan(QUERIES["joined"]).releases) == 2
