"""Queries over every feature of the language, for tests on neighbouring databases."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

from insitu_privacy.dataset import Dataset
from insitu_privacy.fits import ReleaseFit, StatisticFit
from insitu_privacy.plan import PrivacyPlan, Release, Statistic

from tests.testkit.care import care, care_pairs, care_twins, plan

QUERIES = {
    "rows": "SELECT COUNT(*) FROM visit",
    "values that are there": "SELECT COUNT(weight), COUNT(diagnosis), COUNT(cost) FROM visit",
    "persons": "SELECT COUNT(DISTINCT person_id) AS n FROM visit",
    "sums and averages": "SELECT SUM(cost), AVG(stage), SUM(cost - 500), AVG(-cost) FROM visit",
    "public key": "SELECT kind, COUNT(*), SUM(cost), AVG(cost) FROM visit GROUP BY kind",
    "two public keys": "SELECT kind, stage, COUNT(*), COUNT(DISTINCT person_id) FROM visit GROUP BY kind, stage",
    "computed public key": "SELECT YEAR(start) AS y, cost > 500 AS dear, COUNT(*) FROM visit GROUP BY 1, 2",
    "key limited by WHERE": "SELECT kind, SUM(stage) FROM visit WHERE kind IN ('in', 'er', 'zz') GROUP BY kind",
    "conditions in place of guards": """SELECT kind, COUNT(*), SUM(cost), AVG(stage) FROM visit
        WHERE cost > 100 AND stage < 4 AND ward IN (1, 2, 3) AND weight > -1000 GROUP BY kind""",
    "conditions on parts of dates": """SELECT YEAR(start) AS y, SUM(cost) FROM visit
        WHERE YEAR(start) BETWEEN 2015 AND 2021 AND MONTH(noted) < 6 AND finish >= DATE '2015-01-01' GROUP BY 1""",
    "conditions on both sides of a join": """SELECT YEAR(v.start) AS y, SUM(a.amount) FROM act a JOIN visit v
        ON a.visit_id = v.visit_id WHERE YEAR(a.at) = 2020 AND YEAR(v.start) >= 2015 AND a.amount > 0 GROUP BY 1""",
    "private text key": "SELECT diagnosis, COUNT(*), SUM(stage), AVG(cost) FROM visit GROUP BY diagnosis",
    "private integer and date keys": "SELECT ward, noted, COUNT(*) FROM visit GROUP BY ward, noted",
    "private decimal key": "SELECT weight, COUNT(*), SUM(cost) FROM visit GROUP BY weight",
    "private rounded key": "SELECT ROUND(cost / 100), COUNT(*) FROM visit GROUP BY 1",
    "private and public keys": "SELECT kind, diagnosis, COUNT(DISTINCT person_id) FROM visit GROUP BY 1, 2",
    "constant key": "SELECT sex, COUNT(*), AVG(birth_year), SUM(score) FROM person GROUP BY sex",
    "constant keys of a dirty table": "SELECT region, active, COUNT(*) FROM person GROUP BY region, active",
    "declared constant key": "SELECT blood, kind, COUNT(*), SUM(cost) FROM visit GROUP BY blood, kind",
    "person joined": """SELECT p.sex, v.kind, COUNT(*), AVG(v.cost)
        FROM visit v JOIN person p ON p.person_id = v.person_id GROUP BY p.sex, v.kind""",
    "person first, with conditions": """SELECT p.region, COUNT(*), SUM(v.stage)
        FROM person p, visit v WHERE v.person_id = p.person_id AND p.birth_year > 1920 AND v.stage > 0
        GROUP BY p.region""",
    "person in the values": """SELECT SUM(v.cost * p.score), SUM(YEAR(v.start) - p.birth_year)
        FROM visit v JOIN person p ON p.person_id = v.person_id""",
    "person in a condition between tables": """SELECT v.kind, COUNT(*)
        FROM visit v JOIN person p ON p.person_id = v.person_id AND v.stage < p.score GROUP BY v.kind""",
    "two persons' tables alone": """SELECT a.sex, COUNT(*) FROM person a JOIN person b ON a.person_id = b.person_id
        WHERE b.active GROUP BY a.sex""",
    "self join": """SELECT a.kind, COUNT(*), SUM(b.cost) FROM visit a JOIN visit b ON a.person_id = b.person_id
        WHERE b.start >= a.start GROUP BY a.kind""",
    "join on an entity key": """SELECT a.kind, COUNT(*) FROM visit a JOIN visit b ON a.visit_id = b.visit_id
        GROUP BY a.kind""",
    "unit path": "SELECT code, COUNT(*), SUM(amount), AVG(points) FROM act GROUP BY code",
    "unit path by time": "SELECT CAST(at AS DATE) AS day, COUNT(*) FROM act GROUP BY 1",
    "unit path joined": """SELECT v.kind, a.code, SUM(a.amount), SUM(a.points)
        FROM act a JOIN visit v ON a.visit_id = v.visit_id GROUP BY v.kind, a.code""",
    "unit path joined to persons": """SELECT p.sex, COUNT(*), SUM(a.amount)
        FROM person p JOIN visit v ON v.person_id = p.person_id JOIN act a ON a.visit_id = v.visit_id
        GROUP BY p.sex""",
    "two unit paths": "SELECT COUNT(*), SUM(a.amount) FROM act a JOIN act b ON a.visit_id = b.visit_id",
    "unit path of two steps": "SELECT item, COUNT(*), SUM(price) FROM line GROUP BY item",
    "unit path of two steps joined": """SELECT a.code, v.kind, COUNT(*), SUM(l.price) FROM line l
        JOIN act a ON a.act_id = l.act_id JOIN visit v ON v.visit_id = a.visit_id GROUP BY a.code, v.kind""",
    "entity key under another name": """SELECT a.kind, COUNT(*), AVG(b.cost) FROM visit a
        JOIN visit b ON a.previous = b.visit_id GROUP BY a.kind""",
    "public table": """SELECT i.chapter, COUNT(*), SUM(i.severity) FROM act a JOIN icd i ON i.code = a.code
        GROUP BY i.chapter""",
    "public table left": """SELECT i.severity, COUNT(*) FROM act a LEFT JOIN icd i ON i.code = a.code AND a.amount > 0
        GROUP BY i.severity""",
    "conditional aggregates": """SELECT COUNT(*) FILTER (WHERE cost > 100), SUM(CASE WHEN kind = 'in' THEN cost END),
        COUNT_IF(stage = 2), COUNT(DISTINCT CASE WHEN kind = 'in' THEN person_id END),
        AVG(stage) FILTER (WHERE kind <> 'in') FROM visit""",
    "unit in a condition": """SELECT kind, COUNT(*), SUM(cost) FROM visit
        WHERE person_id % 2 = 0 OR stage >= 0 GROUP BY kind""",
    "unit compared": "SELECT kind, SUM(cost), AVG(cost), COUNT(*) FROM visit WHERE person_id > 1 OR kind = 'er' GROUP BY kind",
    "unit in an aggregate": "SELECT SUM(cost) FILTER (WHERE person_id < 3), COUNT_IF(ABS(person_id) > 2) FROM visit",
    "unit of a part in a condition": """SELECT p.sex, COUNT(*) FROM visit v JOIN person p ON p.person_id = v.person_id
        WHERE ABS(p.person_id) > 1 OR p.active GROUP BY p.sex""",
    "differences of dates": "SELECT AVG(date_diff('day', start, finish)), SUM(MONTH(finish)) FROM visit",
    "variances": "SELECT kind, VARIANCE(cost), STDDEV(stage) FROM visit GROUP BY kind",
    "entities": """SELECT v.kind, COUNT(DISTINCT v.visit_id), COUNT(DISTINCT a.act_id), COUNT(DISTINCT v.previous)
        FROM visit v JOIN act a ON a.visit_id = v.visit_id GROUP BY v.kind""",
    "frames of a window": """SELECT kind, COUNT(*), SUM(s) FROM (SELECT kind, MAX(stage) OVER (PARTITION BY person_id ORDER
        BY start ROWS UNBOUNDED PRECEDING) AS m, SUM(LEAST(stage, 3)) OVER (PARTITION BY person_id ORDER BY start, visit_id ROWS
        BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM visit) f WHERE m > 1 AND s < 9 GROUP BY kind""",
    "public table first": """SELECT i.chapter, COUNT(*), COUNT(a.amount) FROM icd i LEFT JOIN act a ON a.code = i.code
        GROUP BY i.chapter""",
    "rows that are written out": """WITH k AS (SELECT 'in' AS kind, 1 AS least UNION ALL SELECT 'er', 2)
        SELECT v.kind, COUNT(*), SUM(v.stage) FROM visit v JOIN k ON k.kind = v.kind AND v.stage >= k.least GROUP BY v.kind""",
    "doubled text": """SELECT COUNT(*), COUNT(d) FROM (SELECT person_id,
        diagnosis || diagnosis AS d FROM visit) f WHERE d || d <> 'xxxx'""",
    "first stay by a window": """SELECT kind, COUNT(*), SUM(cost) FROM (SELECT kind, cost, ROW_NUMBER() OVER
        (PARTITION BY person_id ORDER BY start) AS place FROM visit) f WHERE place = 1 GROUP BY kind""",
    "stay before": """SELECT kind, COUNT(*), AVG(gap) FROM (SELECT kind, date_diff('day', LAG(start) OVER (PARTITION BY
        person_id ORDER BY start), start) AS gap, SUM(stage) OVER (PARTITION BY person_id ORDER BY start) AS s,
        FIRST_VALUE(diagnosis) OVER (PARTITION BY person_id ORDER BY finish DESC) AS d FROM visit) f
        WHERE s > 1 OR d = 'x' GROUP BY kind""",
    "first and last stay": """SELECT first, last, COUNT(*), SUM(cost) FROM (SELECT cost, ROW_NUMBER() OVER (PARTITION BY
        person_id ORDER BY start) AS first, ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY kind DESC) AS last
        FROM visit) f WHERE first IN (1, 2) AND last IN (1, 2) GROUP BY first, last""",
    "windows per stay": """SELECT r, COUNT(*) FROM (SELECT visit_id, RANK() OVER (PARTITION BY visit_id ORDER BY amount)
        AS r FROM act) f WHERE r IN (1, 2, 3) GROUP BY r""",
    "keys alone": "SELECT diagnosis FROM visit GROUP BY diagnosis",
    "stays per person": """SELECT k, COUNT(*), SUM(dear), AVG(longest) FROM (SELECT person_id, COUNT(*) AS k,
        SUM(cost) AS dear, MAX(date_diff('day', start, finish)) AS longest FROM visit GROUP BY person_id) f GROUP BY k""",
    "averages per person and kind": """SELECT kind, COUNT(*), SUM(mean), AVG(many) FROM (SELECT person_id, kind,
        AVG(cost) AS mean, COUNT(DISTINCT ward) AS many FROM visit GROUP BY 1, 2 HAVING COUNT(*) > 1) f GROUP BY kind""",
    "per stay": """SELECT n, COUNT(*) FROM (SELECT visit_id, COUNT(*) AS n, MIN(code) AS c FROM act GROUP BY visit_id) f
        WHERE c <> 'B99' GROUP BY n""",
    "first stay and person": """WITH f AS (SELECT person_id, MIN(start) AS first FROM visit WHERE kind <> 'er' GROUP BY 1)
        SELECT p.sex, YEAR(f.first) AS y, COUNT(*), AVG(YEAR(f.first) - p.birth_year) FROM f
        JOIN person p USING (person_id) GROUP BY 1, 2""",
    "first stay itself": """SELECT v.kind, COUNT(*), SUM(v.cost) FROM visit v JOIN (SELECT person_id, MIN(start) AS first
        FROM visit GROUP BY person_id) f ON f.person_id = v.person_id AND f.first = v.start GROUP BY v.kind""",
    "distinct with the unit": """SELECT diagnosis, COUNT(*) FROM (SELECT DISTINCT person_id, diagnosis FROM visit) d
        GROUP BY diagnosis""",
    "united": """SELECT what, COUNT(*), COUNT(DISTINCT person_id), SUM(x) FROM (SELECT person_id, kind AS what, cost AS x
        FROM visit UNION ALL SELECT person_id, sex, score FROM person) u GROUP BY what""",
    "sets of persons": """SELECT COUNT(*), COUNT(DISTINCT person_id) FROM (SELECT person_id FROM visit WHERE kind = 'in'
        UNION SELECT person_id FROM person WHERE sex = 'F' EXCEPT SELECT person_id FROM visit WHERE stage = 1
        INTERSECT SELECT person_id FROM person WHERE active) s""",
    "cohort": """SELECT sex, COUNT(*), AVG(score) FROM person WHERE person_id IN (SELECT person_id FROM visit
        WHERE diagnosis = 'x') GROUP BY sex""",
    "not in a cohort": """SELECT kind, COUNT(*), SUM(cost) FROM visit WHERE person_id NOT IN (SELECT person_id FROM person
        WHERE active) GROUP BY kind""",
    "cohort of stays": """SELECT kind, COUNT(*) FROM visit WHERE visit_id IN (SELECT visit_id FROM act WHERE amount > 0)
        OR visit_id NOT IN (SELECT previous FROM visit WHERE stage > 1) GROUP BY kind""",
    "cohort by date": """SELECT v.kind, COUNT(*) FROM visit v WHERE NOT EXISTS (SELECT 1 FROM visit w
        WHERE w.person_id = v.person_id AND w.start < v.start AND w.kind = v.kind) GROUP BY v.kind""",
    "cohort of codes": """SELECT COUNT(*), SUM(amount) FROM act WHERE code IN (SELECT code FROM icd WHERE severity > 2)
        AND code NOT IN (SELECT i.code FROM icd i JOIN icd j ON i.chapter = j.chapter WHERE j.severity = 9)""",
    "left to stays": """SELECT p.sex, v.kind, COUNT(*), COUNT(v.visit_id), COUNT(DISTINCT v.person_id), SUM(v.cost)
        FROM person p LEFT JOIN visit v ON v.person_id = p.person_id AND v.stage > 0 GROUP BY p.sex, v.kind""",
    "left to stays on an entity key": """SELECT COUNT(*), COUNT(w.kind), SUM(w.cost) FROM visit v
        LEFT JOIN visit w ON v.previous = w.visit_id AND w.start <= v.start""",
    "left twice": """SELECT p.sex, COUNT(*), COUNT(a.act_id), SUM(a.amount) FROM person p LEFT JOIN visit v
        ON v.person_id = p.person_id AND v.kind = 'in' LEFT JOIN act a ON a.visit_id = v.visit_id GROUP BY p.sex""",
    "fan-out to a public table": """SELECT i.chapter, COUNT(*), SUM(i.severity) FROM act a JOIN icd i
        ON i.severity >= a.amount GROUP BY i.chapter""",
    "public table of a table": """SELECT c.worst, COUNT(*) FROM act a JOIN (SELECT i.code, MAX(j.severity) AS worst
        FROM icd i JOIN icd j ON i.chapter = j.chapter GROUP BY i.code) c ON c.code = a.code GROUP BY c.worst""",
    "three levels": """WITH a AS (SELECT person_id, visit_id, COUNT(*) AS acts FROM (SELECT v.person_id, v.visit_id, a.code
        FROM visit v JOIN act a ON a.visit_id = v.visit_id) x GROUP BY 1, 2), b AS (SELECT person_id, MAX(acts) AS most
        FROM a GROUP BY 1) SELECT most, COUNT(*) FROM b WHERE person_id NOT IN (SELECT person_id FROM a WHERE acts > 3)
        GROUP BY most""",
    "shares": "SELECT kind, 100.0 * SUM(stage) / COUNT(*) AS s FROM visit GROUP BY kind HAVING COUNT(*) > 2 ORDER BY s",
    "both or either": "SELECT COUNT(*) AS n, COUNT(a.k) AS x, COUNT(b.k) AS y, SUM(CASE WHEN a.k > b.k THEN 1 ELSE 0 END) "
    "AS z FROM (SELECT person_id, COUNT(*) AS k FROM visit WHERE kind = 'in' GROUP BY person_id) a FULL "
    "JOIN (SELECT person_id, COUNT(*) AS k FROM visit WHERE kind = 'out' GROUP BY person_id) b ON "
    "a.person_id = b.person_id",
    "either of them": "SELECT p.sex, COUNT(DISTINCT x.id) AS n FROM (SELECT COALESCE(a.person_id, b.person_id) AS id FROM "
    "(SELECT DISTINCT person_id FROM visit WHERE kind = 'in') a FULL OUTER JOIN (SELECT DISTINCT "
    "person_id FROM visit WHERE stage = 1) b ON b.person_id = a.person_id) x JOIN person p ON p.person_id"
    " = x.id GROUP BY p.sex",
    "joined to the right": "SELECT p.sex, COUNT(*) AS n, COUNT(v.kind) AS k FROM visit v RIGHT JOIN person p ON v.person_id = "
    "p.person_id AND v.kind = 'in' GROUP BY p.sex",
    "looked up for each row": "SELECT COUNT(*) AS n FROM visit a WHERE a.start = (SELECT MIN(b.start) FROM visit b WHERE "
    "b.person_id = a.person_id) AND a.stage > 0",
    "counted for each row": "SELECT p.sex, AVG((SELECT COUNT(*) FROM visit v WHERE v.person_id = p.person_id AND v.kind = 'in')) "
    "AS k FROM person p GROUP BY p.sex",
    "values written out": "SELECT s.w, COUNT(*) AS n FROM visit v JOIN (VALUES ('in', 2), ('out', 1), ('er', 1)) AS s(kind, w) "
    "ON s.kind = v.kind GROUP BY s.w",
    "regular expressions": "SELECT COUNT_IF(REGEXP_MATCHES(kind, '^(in|er)$')) AS a, COUNT_IF(REGEXP_MATCHES(kind, 'u.')) AS b, "
    "COUNT_IF(REGEXP_MATCHES(kind, '[n-r]')) AS c, COUNT_IF(REGEXP_MATCHES(code, '^.*[0-9]1$')) AS d, "
    "COUNT_IF(NOT REGEXP_MATCHES(code, '^A?I')) AS e FROM act a JOIN visit v ON v.visit_id = a.visit_id",
    "parts of a difference": "SELECT SUM(EXTRACT(DAY FROM (a.at - b.at))) AS d, SUM(ABS(EXTRACT(HOUR FROM (a.at - b.at)))) AS h, "
    "SUM(EXTRACT(MINUTE FROM (a.at - b.at))) AS m FROM act a JOIN act b ON a.visit_id = b.visit_id AND "
    "a.at >= b.at",
    "digits of days": "SELECT CAST(STRFTIME(start, '%Y%m') AS INTEGER) AS ym, COUNT(*) AS n FROM visit WHERE YEAR(start) = "
    "2020 GROUP BY 1 HAVING COUNT(*) > 0",
    "names of days": "SELECT DAYNAME(start) AS d, MONTHNAME(start) AS m, STRFTIME(start, '%a %b') AS s, COUNT(*) AS n FROM"
    " visit WHERE MONTH(start) < 3 AND YEAR(start) > 2019 GROUP BY 1, 2, 3 HAVING COUNT(*) > 0",
    "rounded to tens": "SELECT ROUND(birth_year, -1) AS d, TRUNC(birth_year / 10) AS t, COUNT(*) AS n FROM person WHERE "
    "birth_year > 1950 GROUP BY 1, 2 HAVING COUNT(*) > 0",
    "equal to what a subquery finds": "SELECT COUNT(*) AS n FROM act WHERE visit_id = (SELECT v.visit_id FROM visit v WHERE v.visit_id = 3)",
    "words of whole decimals": "SELECT CONCAT(FLOOR(birth_year / 10) * 10, 's') AS d, COUNT(*) FROM person WHERE birth_year > 1990 "
    "GROUP BY 1",
    "whole years of ages": "SELECT EXTRACT(YEAR FROM AGE(v.finish, v.start)) AS y, COUNT(*), AVG(p.score) FROM visit v JOIN "
    "person p ON p.person_id = v.person_id GROUP BY 1",
}
PAIRS = {
    "rows": "SELECT kind, COUNT(*), SUM(cost) FROM visit GROUP BY kind",
    "pairs": "SELECT COUNT(DISTINCT (person_id, rang)) AS n FROM visit",
    "private key": "SELECT diagnosis, COUNT(*), SUM(stage) FROM visit GROUP BY diagnosis",
    "person joined": """SELECT p.sex, COUNT(*), AVG(v.cost)
        FROM visit v JOIN person p ON p.person_id = v.person_id AND v.rang = p.rang GROUP BY p.sex""",
    "half of the unit in a condition": """SELECT kind, SUM(cost), COUNT(*) FROM visit
        WHERE person_id % 2 = 0 OR ABS(rang) > 0 OR stage >= 0 GROUP BY kind""",
    "unit path": "SELECT code, COUNT(*), SUM(amount) FROM act GROUP BY code",
    "unit path joined": """SELECT v.kind, SUM(a.amount) FROM act a JOIN visit v ON a.visit_id = v.visit_id
        GROUP BY v.kind""",
    "unit path of two steps": "SELECT item, COUNT(*), SUM(price) FROM line GROUP BY item",
    "stays per person": """SELECT k, COUNT(*), SUM(dear) FROM (SELECT person_id, rang, COUNT(*) AS k, SUM(cost) AS dear
        FROM visit GROUP BY 1, 2) f GROUP BY k""",
    "cohort": """SELECT sex, COUNT(*) FROM person WHERE (person_id, rang) IN (SELECT person_id, rang FROM visit
        WHERE kind = 'in') GROUP BY sex""",
    "cohort of stays": "SELECT COUNT(*) FROM visit WHERE visit_id NOT IN (SELECT visit_id FROM act WHERE amount > 0)",
    "sets of persons": """SELECT COUNT(*) FROM (SELECT person_id, rang FROM visit EXCEPT SELECT person_id, rang FROM person
        WHERE sex = 'F') s""",
}
TWINS = {
    "pseudonyms": "SELECT kind, COUNT(DISTINCT person_id) AS n FROM visit GROUP BY kind",
    "some pseudonyms": "SELECT COUNT(DISTINCT CASE WHEN stage > 1 THEN person_id END) AS n FROM visit",
    "pseudonyms joined": """SELECT p.sex, COUNT(DISTINCT v.person_id), SUM(v.cost) FROM person p
        LEFT JOIN visit v ON v.person_id = p.person_id GROUP BY p.sex""",
    "cohort of pseudonyms": """SELECT sex, COUNT(*) FROM person WHERE person_id IN (SELECT DISTINCT person_id FROM visit
        WHERE kind = 'in') GROUP BY sex""",
    "stays per pseudonym": """SELECT k, COUNT(*), SUM(dear) FROM (SELECT person_id, COUNT(*) AS k, SUM(cost) AS dear
        FROM visit GROUP BY 1) f GROUP BY k""",
}


@cache
def planned(rows: int, groups: int, width: int = 1) -> dict[str, PrivacyPlan]:
    """The plan of each query over a unit of one or two columns, under contribution bounds that bind."""
    dataset, queries = (care(), QUERIES) if width == 1 else (care_pairs(), PAIRS)
    plans = {name: _bounded(sql, dataset, rows, groups) for name, sql in queries.items()}
    if width == 2:
        plans |= {name: _bounded(sql, care_twins(), rows, groups) for name, sql in TWINS.items()}
    return plans


def _bounded(sql: str, dataset: Dataset, rows: int, groups: int) -> PrivacyPlan:
    """The plan of a query; with an odd number of groups its sums are held to less than its rows could add to them, and
    the leaves of its trees lie over a half of their bounds."""
    made = plan(sql, dataset=dataset, max_rows_per_group=rows, max_groups=groups)
    return made if groups % 2 == 0 else plan(sql, dataset=dataset, fits=tuple(map(_held, made.releases)))


def _held(release: Release) -> ReleaseFit:
    return ReleaseFit(
        max_rows_per_group=release.bounds.max_rows_per_group,
        max_groups=release.bounds.max_groups,
        statistics=tuple(
            StatisticFit(
                weight=place + 1, linf=max(1, one.linf // 3), center=one.center * 3 / 2, ends=_half(release, one)
            )
            for place, one in enumerate(release.statistics)
        ),
    )


def _half(release: Release, statistic: Statistic) -> tuple[Fraction, Fraction] | None:
    if release.tree is None:
        return None
    quarter = statistic.granularity * (release.tree.leaves // 4)
    return statistic.center + quarter, statistic.center + 2 * quarter
