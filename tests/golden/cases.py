"""The queries whose way through the passes is kept in golden files, and each pass's outcome as text.

One file a pass in ``passes/``, one section a query. Texts are for people: s-expressions for expressions, one fact a
line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from insitu_privacy.dataset import Dataset
from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression
from insitu_privacy.passes.frontier import Frontier, frontier
from insitu_privacy.passes.parse import parse
from insitu_privacy.passes.qualify import qualify
from insitu_privacy.passes.statistics import statistics
from insitu_privacy.passes.track import track
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import PrivacyPlan, Release, Scope
from insitu_privacy.relations import Body, Combination, Derived, Projection, Relation, Single, Windowing
from insitu_privacy.render import render
from sqlglot import exp

from tests.testkit.care import care, care_pairs, plan, whole

FOLDER = Path(__file__).parent / "passes"


@dataclass(frozen=True, kw_only=True)
class Case:
    sql: str
    pairs: bool = False
    exact: bool = True
    """Whether the plain query gives the same where no bound binds: not where groups were selected before HAVING."""

    @property
    def dataset(self) -> Dataset:
        return care_pairs() if self.pairs else care()


CASES: Mapping[str, Case] = {
    "count": Case(sql="SELECT COUNT(*) AS n FROM visit"),
    "count_values": Case(sql="SELECT COUNT(weight) AS w, COUNT(kind) AS k, COUNT(*) AS n FROM visit"),
    "persons": Case(sql="SELECT COUNT(DISTINCT person_id) AS persons FROM visit WHERE kind = 'in'"),
    "persons_of_two_columns": Case(
        sql="SELECT COUNT(DISTINCT (person_id, rang)) AS persons, COUNT(*) AS n FROM visit", pairs=True
    ),
    "sum_and_average": Case(sql="SELECT SUM(cost) AS s, AVG(cost) AS a, SUM(stage) AS t, AVG(stage) AS b FROM visit"),
    "bounded_in_sql": Case(sql="SELECT SUM(LEAST(GREATEST(weight, -100), 250.5)) AS w FROM visit"),
    "one_public_key": Case(sql="SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind ORDER BY kind"),
    "nullable_public_key": Case(sql="SELECT stage, blood, COUNT(*) AS n FROM visit GROUP BY stage, blood"),
    "computed_public_key": Case(
        sql="SELECT 10 * FLOOR(birth_year / 10) AS decade, sex, COUNT(*) AS n FROM person GROUP BY 1, 2"
    ),
    "key_limited_by_where": Case(
        sql="SELECT YEAR(start) AS y, COUNT(DISTINCT person_id) AS n FROM visit "
        "WHERE ward = 2 AND YEAR(start) BETWEEN 2016 AND 2019 GROUP BY 1 ORDER BY 1"
    ),
    "listed_key": Case(sql="SELECT ward, COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE ward IN (1, 3) GROUP BY ward"),
    "private_key": Case(sql="SELECT diagnosis, COUNT(*) AS n FROM visit GROUP BY diagnosis"),
    "private_and_public_keys": Case(
        sql="SELECT diagnosis, kind, COUNT(DISTINCT person_id) AS n, AVG(cost) AS a FROM visit GROUP BY 1, 2"
    ),
    "constant_key": Case(sql="SELECT sex, region, COUNT(*) AS n, AVG(score) AS a FROM person GROUP BY sex, region"),
    "person_joined": Case(
        sql="SELECT p.sex, v.kind, COUNT(*) AS n, AVG(v.cost) AS a FROM visit v "
        "JOIN person p ON p.person_id = v.person_id WHERE p.birth_year >= 1950 GROUP BY p.sex, v.kind"
    ),
    "person_in_the_values": Case(
        sql="SELECT AVG(YEAR(v.start) - p.birth_year) AS age, SUM(v.cost * p.score) AS x "
        "FROM person p, visit v WHERE v.person_id = p.person_id"
    ),
    "date_range_join": Case(
        sql="SELECT a.kind, COUNT(*) AS n FROM visit a JOIN visit b ON a.person_id = b.person_id "
        "AND b.start > a.start AND date_diff('day', a.start, b.start) <= 365 GROUP BY a.kind"
    ),
    "entity_key_join": Case(
        sql="SELECT v.kind, COUNT(*) AS n, SUM(a.amount) AS s FROM visit v JOIN act a ON a.visit_id = v.visit_id "
        "GROUP BY v.kind"
    ),
    "unit_path": Case(sql="SELECT code, COUNT(*) AS n, AVG(points) AS a FROM act GROUP BY code"),
    "unit_path_of_two_columns": Case(
        sql="SELECT p.sex, COUNT(*) AS n FROM act a JOIN visit v ON a.visit_id = v.visit_id "
        "JOIN person p ON p.person_id = v.person_id AND p.rang = v.rang GROUP BY p.sex",
        pairs=True,
    ),
    "unit_path_of_two_steps": Case(
        sql="SELECT v.kind, COUNT(*) AS n, SUM(l.price) AS s FROM line l JOIN act a ON a.act_id = l.act_id "
        "JOIN visit v ON v.visit_id = a.visit_id GROUP BY v.kind"
    ),
    "entity_key_under_another_name": Case(
        sql="SELECT b.kind, COUNT(*) AS n FROM visit a JOIN visit b ON a.previous = b.visit_id GROUP BY b.kind"
    ),
    "public_table": Case(
        sql="SELECT i.chapter, COUNT(*) AS n, SUM(i.severity) AS s FROM act a JOIN icd i ON i.code = a.code "
        "WHERE i.severity > 1 GROUP BY i.chapter"
    ),
    "public_table_left": Case(
        sql="SELECT COALESCE(i.chapter, 'none') AS c, COUNT(*) AS n FROM act a "
        "LEFT JOIN icd i ON i.code = a.code AND i.severity < 9 GROUP BY 1"
    ),
    "conditional_aggregates": Case(
        sql="SELECT COUNT(*) FILTER (WHERE cost > 100) AS dear, SUM(CASE WHEN kind = 'in' THEN stage ELSE 0 END) AS s, "
        "COUNT_IF(stage = 2) AS two, COUNT(DISTINCT CASE WHEN kind = 'er' THEN person_id END) AS p FROM visit"
    ),
    "dates": Case(
        sql="SELECT QUARTER(start) AS q, AVG(date_diff('day', start, finish)) AS days FROM visit "
        "WHERE finish >= start + INTERVAL 3 DAY AND DATE_TRUNC('month', start) > '2015-06-15' GROUP BY 1"
    ),
    "text": Case(
        sql="SELECT UPPER(LEFT(kind, 1)) || '.' AS k, COUNT(*) AS n FROM visit "
        "WHERE diagnosis LIKE '_' AND LENGTH(kind) < 3 AND NOT blood IS NULL GROUP BY 1"
    ),
    "moments": Case(
        sql="SELECT STRFTIME(start, '%Y-%m') AS month, COUNT(*) AS n FROM visit WHERE start + TO_DAYS(ward) > finish "
        "OR TRY_CAST(diagnosis AS DATE) > start OR date_diff('hour', start, finish) > 24 GROUP BY 1"
    ),
    "post_processing": Case(
        sql="SELECT kind AS k, ROUND(100.0 * SUM(stage) / COUNT(*), 2) AS share FROM visit WHERE stage IS NOT NULL "
        "GROUP BY kind HAVING COUNT(*) > 10 ORDER BY share DESC, k LIMIT 2"
    ),
    "derived_per_person": Case(
        sql="SELECT k, COUNT(*) AS n, SUM(dear) AS s, AVG(mean) AS a FROM (SELECT person_id, COUNT(*) AS k, "
        "SUM(cost) AS dear, AVG(stage) AS mean FROM visit GROUP BY person_id HAVING COUNT(*) < 3) f GROUP BY k"
    ),
    "derived_per_stay": Case(
        sql="SELECT kinds, COUNT(*) AS n FROM (SELECT v.visit_id, COUNT(DISTINCT a.code) AS kinds FROM visit v "
        "JOIN act a ON a.visit_id = v.visit_id GROUP BY v.visit_id) s GROUP BY kinds"
    ),
    "with_and_using": Case(
        sql="WITH f AS (SELECT person_id, MIN(start) AS first, MAX(kind) AS last FROM visit GROUP BY 1) "
        "SELECT p.sex, last, COUNT(*) AS n, AVG(YEAR(first) - birth_year) AS age FROM f JOIN person p USING (person_id) "
        "GROUP BY 1, 2"
    ),
    "distinct_with_the_unit": Case(
        sql="SELECT kind, COUNT(*) AS n FROM (SELECT DISTINCT person_id, kind, stage > 2 AS late FROM visit) d "
        "WHERE late GROUP BY kind"
    ),
    "union_of_rows": Case(
        sql="SELECT what, COUNT(*) AS n, SUM(x) AS s FROM (SELECT person_id, kind AS what, cost AS x FROM visit "
        "UNION ALL SELECT person_id, sex, score FROM person) u GROUP BY what"
    ),
    "sets_of_persons": Case(
        sql="SELECT COUNT(*) AS n FROM (SELECT person_id FROM visit WHERE kind = 'in' UNION SELECT person_id FROM person "
        "WHERE sex = 'F' EXCEPT SELECT person_id FROM visit WHERE stage = 1) s"
    ),
    "cohort_in": Case(
        sql="SELECT p.sex, COUNT(*) AS n FROM person p WHERE p.person_id IN (SELECT v.person_id FROM visit v "
        "WHERE v.cost > 500) AND p.person_id NOT IN (SELECT v.person_id FROM visit v WHERE v.kind = 'er') GROUP BY p.sex"
    ),
    "cohort_with_nulls": Case(
        sql="SELECT COUNT(*) AS n FROM visit WHERE visit_id NOT IN (SELECT v.visit_id FROM visit v WHERE v.stage = 1) "
        "AND (stage IS NULL OR previous IN (SELECT v.visit_id FROM visit v WHERE v.kind = 'in'))"
    ),
    "cohort_exists": Case(
        sql="SELECT v.kind, COUNT(*) AS n FROM visit v WHERE NOT EXISTS (SELECT 1 FROM visit w "
        "WHERE w.person_id = v.person_id AND w.start < v.start) GROUP BY v.kind"
    ),
    "cohort_of_codes": Case(
        sql="SELECT COUNT(*) AS n FROM act WHERE code IN (SELECT i.code FROM icd i JOIN icd j ON i.chapter = j.chapter "
        "WHERE j.code = 'I10') AND act_id IN (SELECT l.act_id FROM line l WHERE l.price > 1)"
    ),
    "left_to_a_protected_table": Case(
        sql="SELECT p.sex, COUNT(*) AS n, COUNT(v.kind) AS k, COUNT(DISTINCT v.person_id) AS p, SUM(v.cost) AS s "
        "FROM person p LEFT JOIN visit v ON v.person_id = p.person_id AND v.kind = 'in' GROUP BY p.sex"
    ),
    "left_twice": Case(
        sql="SELECT p.sex, COUNT(*) AS n, COUNT(a.act_id) AS acts, SUM(a.amount) AS s FROM person p "
        "LEFT JOIN visit v ON v.person_id = p.person_id AND v.kind = 'in' LEFT JOIN act a ON a.visit_id = v.visit_id "
        "GROUP BY p.sex"
    ),
    "public_fan_out": Case(
        sql="SELECT j.chapter, COUNT(*) AS n FROM act a JOIN icd i ON i.code = a.code "
        "JOIN icd j ON j.severity > i.severity GROUP BY j.chapter"
    ),
    "variances": Case(
        sql="SELECT kind, VARIANCE(cost) AS v, STDDEV(stage) AS s, VAR_POP(cost) AS vp, STDDEV_POP(date_diff('day', start, "
        "finish)) AS sp, AVG(cost) AS a FROM visit GROUP BY kind"
    ),
    "entities": Case(
        sql="SELECT v.kind, COUNT(DISTINCT v.visit_id) AS visits, COUNT(DISTINCT a.act_id) AS acts, COUNT(*) AS n "
        "FROM visit v JOIN act a ON a.visit_id = v.visit_id GROUP BY v.kind"
    ),
    "first_stay": Case(
        sql="SELECT kind, COUNT(*) AS n, SUM(cost) AS s FROM (SELECT v.*, ROW_NUMBER() OVER (PARTITION BY person_id "
        "ORDER BY start, visit_id) AS place, MAX(stage) OVER (PARTITION BY person_id) AS worst FROM visit v) f "
        "WHERE place = 1 AND worst > 1 GROUP BY kind ORDER BY kind"
    ),
    "first_and_last_stay": Case(
        sql="SELECT first, last, COUNT(*) AS n FROM (SELECT kind, ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY "
        "start, visit_id) AS first, ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY start DESC, visit_id) AS last "
        "FROM visit) f WHERE first IN (1, 2) AND last IN (1, 2) GROUP BY 1, 2 ORDER BY 1, 2"
    ),
    "stay_before": Case(
        sql="SELECT kind, COUNT(*) AS n, AVG(gap) AS g FROM (SELECT kind, date_diff('day', LAG(start) OVER (PARTITION BY "
        "person_id ORDER BY start, visit_id), start) AS gap, COUNT(*) OVER (PARTITION BY person_id) AS k FROM visit) f "
        "WHERE k > 1 AND gap IS NOT NULL GROUP BY kind ORDER BY kind"
    ),
    "ranks_of_groups": Case(
        sql="SELECT r, COUNT(*) AS n FROM (SELECT person_id, kind, DENSE_RANK() OVER (PARTITION BY person_id ORDER BY "
        "COUNT(*) DESC) AS r FROM visit GROUP BY person_id, kind) f WHERE r IN (1, 2) GROUP BY r ORDER BY r"
    ),
    "keys_alone": Case(sql="SELECT noted IS NULL AS unknown, stage % 2 AS odd FROM visit GROUP BY 1, 2", exact=False),
}


@cache
def planned(name: str, *, exactly: bool = False) -> PrivacyPlan:
    """The plan of a case; ``exactly`` with bounds that do not bind and noise that rounds to nothing."""
    case = CASES[name]
    asked: dict[str, Any] = {"max_rows_per_group": 1000, "max_groups": 1000, "epsilon": "1e25"} if exactly else {}
    return plan(case.sql, dataset=case.dataset, **asked)


def release(name: str) -> Release:
    (only,) = planned(name).releases
    return only


# -- passes as text --------------------------------------------------------------------------------------------------


def shown(expression: Expression) -> str:
    """An expression on one line."""
    if isinstance(expression, ColumnRef):
        return f"{expression.scan}.{expression.column}"
    if isinstance(expression, Call):
        return f"({expression.op} {' '.join(shown(argument) for argument in expression.args)})"
    if isinstance(expression, Exists):
        return f"(exists {expression.cohort} {' '.join(shown(term) for term in expression.on)})"
    return f"{expression.type}:{expression.value}"


def _qualified(name: str) -> exp.Select:
    case = CASES[name]
    return qualify(parse(case.sql, "duckdb"), dialect="duckdb", dataset=case.dataset, scope=Scope(accounting="zcdp"))


def _tracked(name: str) -> tuple[exp.Select, Tracked]:
    tree = _qualified(name)
    return tree, track(tree, dataset=CASES[name].dataset)


def _front(name: str) -> tuple[Frontier, Tracked]:
    tree, tracked = _tracked(name)
    return frontier(tree, tracked, "r0"), tracked


def _parse(name: str) -> str:
    return repr(parse(CASES[name].sql, "duckdb"))


def _qualify(name: str) -> str:
    return _qualified(name).sql("duckdb", pretty=True)


def _allow(name: str) -> str:
    front, tracked = _front(name)
    lines = [f"where {shown(term)}" for term in tracked.relation.where]
    lines += [f"on {shown(term)}" for join in tracked.relation.joins for term in join.on]
    lines += [f"key {key.name} {shown(key.expression)}" for key in front.keys]
    lines += [f"value {place} {shown(value)}" for place, value in enumerate(release(name).values)]
    return "\n".join(lines)


def _track(name: str) -> str:
    relation = _tracked(name)[1].relation
    return "\n".join(_shown_relation(relation))


def _shown_relation(relation: Relation) -> list[str]:
    kinds = {join.source.alias: join.kind for join in relation.joins}
    lines = []
    for scan in relation.sources:
        if isinstance(scan, Derived):
            unit = f" unit {', '.join(scan.unit)}" if scan.unit else " public"
            lines.append(f"{kinds.get(scan.alias, 'from')} derived {scan.alias}{unit}")
            lines += [f"  {line}" for line in _shown_body(scan.body)]
            continue
        path = "".join(f" through {step.path.through} on {', '.join(step.path.on)}" for step in scan.unit_path)
        unit = f" unit {', '.join(scan.unit)}{path}" if scan.unit else " public"
        columns = ", ".join(column.name for column in scan.columns)
        lines.append(f"{kinds.get(scan.alias, 'from')} {scan.table} as {scan.alias}{unit} reads {columns}")
    lines.append(f"unit {', '.join(shown(ref) for ref in relation.unit)}")
    for cohort in relation.cohorts:
        lines.append(f"cohort {cohort.alias} unit {', '.join(cohort.unit) or 'none'}")
        lines += [f"  {line}" for line in _shown_body(cohort.body)]
    for join in relation.joins:
        lines += [f"on {shown(term)}" for term in join.on]
    return [*lines, *(f"where {shown(term)}" for term in relation.where)]


def _shown_body(body: Body) -> list[str]:
    if isinstance(body, Combination):
        return [*_shown_body(body.left), body.kind, *_shown_body(body.right)]
    lines = _shown_relation(body.relation)
    if isinstance(body, Single):
        return "one row"
    if isinstance(body, Projection):
        return lines + [f"{'distinct ' * body.distinct}{name} = {shown(one)}" for name, one in body.columns]
    if isinstance(body, Windowing):
        lines += [f"{name} = {shown(one)}" for name, one in body.columns]
        return lines + [
            f"{name} = {one.function}({'' if one.value is None else shown(one.value)}) over "
            f"{' '.join(shown(part) for part in one.partition)} order {' '.join(shown(part) for part, _, _ in one.order)}"
            for name, one in body.windows
        ]
    lines += [f"group by {name} = {shown(one)}" for name, one in body.keys]
    return lines + [
        f"{name} = {one.kind}({'' if one.value is None else shown(one.value)}) within {one.limit}"
        for name, one in body.aggregates
    ]


def _frontier(name: str) -> str:
    front, _ = _front(name)
    lines = [f"{key.name} = {key.node.sql('duckdb')}" for key in front.keys]
    lines += [f"{aggregate.name} = {aggregate.node.sql('duckdb')}" for aggregate in front.aggregates]
    return "\n".join([*lines, front.outer.sql("duckdb")])


def _statistics(name: str) -> str:
    measured = statistics(*_front(name))
    lines = []
    for place, wanted in enumerate(measured.wanted):
        value = "" if wanted.value is None else f" of {shown(wanted.value)}"
        lines.append(f"s{place} {wanted.kind}{value}{' centred' if wanted.centred else ''}")
    reads = [f"{name} reads {reading.kind} of {reading.parts}" for name, reading in measured.readings.items()]
    return "\n".join([*lines, *reads])


def _bounds(name: str) -> str:
    found = release(name)
    lines = [f"max_rows_per_group {found.bounds.max_rows_per_group}", f"max_groups {found.bounds.max_groups}"]
    for place, one in enumerate(found.statistics):
        lines.append(f"s{place} {one.kind} granularity {one.granularity} center {one.center} linf {one.linf}")
    return "\n".join(lines)


def _keys(name: str) -> str:
    lines = []
    for key in release(name).keys:
        domain = "private" if key.domain is None else f"{len(key.domain)} values {_ends(key.domain)}"
        lines.append(f"{key.name} {key.type} {'constant ' if key.constant else ''}{domain}: {key.reason}")
    return "\n".join(lines)


def _ends(values: tuple[Any, ...]) -> str:
    texts = [repr(value) for value in values]
    return ", ".join(texts) if len(texts) <= 12 else f"{', '.join(texts[:3])}, ..., {texts[-1]}"


def _mechanisms(name: str) -> str:
    made, found = planned(name), release(name)
    lines = [
        f"{found.mechanism} loss epsilon {made.loss.epsilon} delta {made.loss.delta} rho {float(made.loss.rho):.9g}"
    ]
    for place, one in enumerate(found.statistics):
        lines.append(f"s{place} scale {float(one.scale):.12g} epsilon {one.epsilon} rho {float(one.rho):.9g}")
    if found.threshold is not None:
        lines.append(
            f"threshold s{found.threshold.statistic} above {found.threshold.tau} delta {found.threshold.delta}"
        )
    return "\n".join(lines)


def _postprocessing(name: str) -> str:
    made = planned(name)
    columns = ", ".join(f"{column.name}{' noisy' if column.noisy else ''}" for column in made.output)
    return f"{made.postprocessing}\n{made.copies_sql}\n{columns}"


def _rendered(dialect: Any) -> Callable[[str], str]:
    return lambda name: render(release(name), dialect=dialect, tables=whole(), cap_key="k")


PASSES: Mapping[str, Callable[[str], str]] = {
    "1-parse": _parse,
    "2-qualify": _qualify,
    "3-allow": _allow,
    "4-track": _track,
    "5-frontier": _frontier,
    "6-statistics": _statistics,
    "7-bounds": _bounds,
    "8-keys": _keys,
    "9-mechanisms": _mechanisms,
    "postprocessing": _postprocessing,
    "rendered-duckdb": _rendered("duckdb"),
    "rendered-postgres": _rendered("postgres"),
}


def section(name: str, text: str) -> str:
    """One query's part of a golden file."""
    return f"==== {name}\n{text.rstrip()}\n\n"


def stored(stage: str) -> dict[str, str]:
    """The sections of a golden file, by query."""
    path = FOLDER / f"{stage}.txt"
    parts = path.read_text().split("==== ")[1:] if path.exists() else []
    return {part.split("\n", 1)[0]: f"==== {part}" for part in parts}


def written(stage: str) -> str:
    """What a golden file should hold."""
    return "".join(section(name, PASSES[stage](name)) for name in CASES)
