"""Quantiles, MIN and MAX: which trees are planned, what they cost, what is refused, and the law of their noise."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from insitu_privacy.errors import ExecutionFailed, IntegrityFailed, Refused, SqlRefused
from insitu_privacy.mechanisms import ExactCells, check_claims, privatize
from insitu_privacy.merge import MergedRelease, merge
from insitu_privacy.plan import PrivacyPlan, Quantile, Release, ReleasedValues, tree_levels
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.released import deviation
from insitu_privacy.tree import grown

from tests.testkit.care import care, plan

NO_ROWS = ExactCells(rows=())
WEIGHT = 2**16
"""What a counted row adds to a tree: its noise is as many times larger."""
HUGE = "1e15"
"""An epsilon at which noise is nought."""


def trees(made: PrivacyPlan) -> list[Release]:
    return [one for one in made.releases if one.tree is not None]


def tree(sql: str, **asked: Any) -> Release:
    (only,) = trees(plan(sql, **asked))
    return only


def asked_for(made: PrivacyPlan) -> list[tuple[str, Fraction]]:
    return [(one.kind, one.level) for one in made.quantiles]


def quantile(sql: str, dialect: str = "duckdb") -> Quantile:
    (only,) = plan(sql, dialect=dialect).quantiles
    return only


# -- which trees -------------------------------------------------------------------------------------------------------

ALL_OF_COST = (
    "SELECT kind, MEDIAN(cost), PERCENTILE_CONT(cost, 0.9), QUANTILE(cost, 0.25), MIN(cost), MAX(cost) "
    "FROM visit GROUP BY kind"
)


def test_all_quantiles_of_an_expression_are_read_from_one_tree_and_nothing_else_is_released() -> None:
    made = plan(ALL_OF_COST)
    (release,) = made.releases
    assert release.tree is not None
    assert release.tree.keys_of is None
    assert release.threshold is None
    assert made.loss.delta == 0
    assert {one.tree for one in made.quantiles} == {release.name}
    assert asked_for(made) == [
        ("continuous", Fraction(1, 2)),
        ("continuous", Fraction(9, 10)),
        ("discrete", Fraction(1, 4)),
        ("least", Fraction(0)),
        ("greatest", Fraction(1)),
    ]


def test_two_expressions_have_two_trees_beside_the_statistics_that_are_asked_for() -> None:
    made = plan("SELECT kind, COUNT(*), MEDIAN(cost), MEDIAN(stage), MAX(cost) FROM visit GROUP BY kind")
    base, cost, stage = made.releases
    assert base.tree is None
    assert [one.kind for one in base.statistics] == ["rows"]
    assert [one.tree for one in made.quantiles] == [cost.name, stage.name, cost.name]
    assert {one.relation for one in made.quantiles} == {base.name}
    assert [one.statistics[0].kind for one in (cost, stage)] == ["leaves", "leaves"]


def test_a_condition_of_an_aggregate_makes_a_tree_of_its_own() -> None:
    made = plan(
        "SELECT MEDIAN(cost), MEDIAN(cost) FILTER (WHERE stage > 1), MAX(cost) FILTER (WHERE stage > 1) FROM visit"
    )
    assert len(trees(made)) == 2
    assert [one.tree for one in made.quantiles] == [one.name for one in (*trees(made), trees(made)[1])]


def test_trees_of_private_keys_follow_the_release_that_selects_them() -> None:
    made = plan("SELECT diagnosis, MEDIAN(cost), MAX(stage) FROM visit GROUP BY diagnosis")
    base, *others = made.releases
    assert base.threshold is not None
    assert [one.kind for one in base.statistics] == ["units"]
    assert [one.tree.keys_of for one in others if one.tree is not None] == [base.name, base.name]
    assert all(one.threshold is None for one in others)


def test_suppression_goes_by_a_number_of_persons_that_is_released_beside_the_tree() -> None:
    base, followed = plan("SELECT kind, MEDIAN(cost) FROM visit GROUP BY kind", dataset=care(min_units=20)).releases
    assert [one.kind for one in base.statistics] == ["units"]
    assert base.suppress_below == 20
    assert followed.tree is not None


def test_minimum_and_maximum_of_released_numbers_cost_nothing() -> None:
    made = plan("SELECT MAX(n), MIN(n) FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) k")
    assert made.quantiles == ()
    assert len(made.releases) == 1


def test_queries_that_differ_in_the_level_alone_are_one_charge() -> None:
    texts = ("PERCENTILE_CONT(cost, 0.1)", "PERCENTILE_CONT(cost, 0.9)", "MEDIAN(cost)", "MAX(cost)", "MIN(cost) + 1")
    digests = {plan(f"SELECT kind, {text} FROM visit GROUP BY kind").digest for text in texts}
    assert len(digests) == 1
    others = ("MEDIAN(cost + 1)", "MEDIAN(stage)", "SUM(cost)", "MEDIAN(cost) FILTER (WHERE stage > 1)")
    assert digests.isdisjoint({plan(f"SELECT kind, {text} FROM visit GROUP BY kind").digest for text in others})


# -- leaves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "leaves", "granularity", "center"),
    [
        ("SELECT MEDIAN(stage) FROM visit", 5, 1, 0),
        ("SELECT MEDIAN(amount) FROM act", 551, 1, -50),
        ("SELECT MEDIAN(cost) FROM visit", 2001, Fraction(1, 2), 0),
        ("SELECT MEDIAN(score) FROM person", 2001, Fraction(1, 200), 0),
        ("SELECT MEDIAN(points) FROM act", 4001, Fraction(1, 2000), -1),
        ("SELECT MEDIAN(birth_year) FROM person", 131, 1, 1900),
        ("SELECT MEDIAN(start) FROM visit", 3653, 1, 0),
        ("SELECT MEDIAN(at) FROM act", 3654, 1, 0),
        ("SELECT MEDIAN(amount * 1000) FROM act", 2751, 200, -50_000),
        ("SELECT diagnosis, MEDIAN(cost) FROM visit GROUP BY 1", 201, 5, 0),
        ("SELECT diagnosis, MEDIAN(start) FROM visit GROUP BY 1", 184, 20, 0),
        ("SELECT MEDIAN(5) FROM visit", 1, 1, 5),
    ],
)
def test_leaves_stand_at_round_numbers_from_the_lower_bound_to_the_upper(
    sql: str, leaves: int, granularity: Fraction, center: Fraction
) -> None:
    release = tree(sql)
    (statistic,) = release.statistics
    assert release.tree is not None
    assert (release.tree.leaves, statistic.granularity, statistic.center) == (leaves, granularity, center)
    assert statistic.levels == len(tree_levels(leaves))
    assert release.width == sum(tree_levels(leaves))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT MEDIAN(cost) FROM visit",
        "SELECT kind, stage, blood, MEDIAN(cost) FROM visit GROUP BY 1, 2, 3",
        "SELECT YEAR(start) AS y, MONTH(start) AS m, MEDIAN(cost) FROM visit GROUP BY 1, 2",
        "SELECT birth_year, sex, MEDIAN(score) FROM person GROUP BY 1, 2",
        "SELECT start, MEDIAN(cost) FROM visit GROUP BY start",
        "SELECT ward, MEDIAN(amount * 1.5) FROM act a JOIN visit v ON a.visit_id = v.visit_id GROUP BY ward",
    ],
)
def test_groups_share_a_limited_number_of_leaves(sql: str) -> None:
    release = tree(sql)
    assert release.tree is not None
    assert release.tree.leaves <= (256 if release.cells is None else 4096)
    assert (release.cells or 1) * release.tree.leaves <= 2**16
    assert release.tree.leaves >= 8, "coarser than it has to be"


def test_more_groups_than_there_may_be_leaves_for_are_refused() -> None:
    sql = "SELECT birth_year, sex, region, active, score > 5 AS high, MEDIAN(score) FROM person GROUP BY 1, 2, 3, 4, 5"
    with pytest.raises(SqlRefused) as refused:
        plan(sql)
    assert refused.value.code == "INSITU-SQL-FORBIDDEN-CONSTRUCT"
    assert "4096 groups" in refused.value.text


def test_a_quantile_of_no_groups_is_planned_as_a_count_of_none_is() -> None:
    """A condition that no value of the key's domain meets leaves no cells."""
    assert plan("SELECT kind, COUNT(*) FROM visit WHERE kind = 'zz' GROUP BY kind").releases[0].cells == 0
    release = tree("SELECT kind, MEDIAN(cost) FROM visit WHERE kind = 'zz' GROUP BY kind")
    assert release.cells == 0
    assert privatize(release, NO_ROWS).statistics == ((),) * release.width


# -- what it costs -----------------------------------------------------------------------------------------------------

SHARED = "SELECT diagnosis, COUNT(*), SUM(stage), MEDIAN(cost), MAX(stage) FROM visit GROUP BY diagnosis"


@pytest.mark.parametrize("sql", [SHARED, ALL_OF_COST, "SELECT MEDIAN(score), AVG(birth_year) FROM person"])
@pytest.mark.parametrize("mechanism", ["laplace", "gaussian", "auto"])
def test_releases_share_the_budget_in_equal_parts_and_spend_it(sql: str, mechanism: Any) -> None:
    made = plan(sql, epsilon="2", delta="1e-6", mechanism=mechanism)
    assert made.loss.epsilon == 2
    assert made.loss.delta <= Fraction(1, 10**6)
    assert made.loss.rho == sum(one.rho for release in made.releases for one in release.statistics)
    if mechanism != "laplace":
        return
    spent = [sum(one.epsilon for one in release.statistics) for release in made.releases]
    assert all(0 <= Fraction(2, len(made.releases)) - one < Fraction(1, 10**9) for one in spent)


@pytest.mark.parametrize("sql", ["SELECT MEDIAN(cost) FROM visit", "SELECT kind, MAX(stage) FROM visit GROUP BY 1"])
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (3, 2), (50, 3)])
def test_a_tree_is_measured_with_noise_for_a_unit_on_every_level(sql: str, rows: int, groups: int) -> None:
    release = tree(sql, mechanism="laplace", epsilon="1", max_rows_per_group=rows, max_groups=groups)
    (statistic,) = release.statistics
    assert release.tree is not None
    assert statistic.linf == rows * release.tree.weight
    moved = release.bounds.max_groups * statistic.levels * statistic.linf
    assert 0 <= statistic.scale - moved < statistic.scale / 10**11
    gaussian = tree(sql, mechanism="gaussian", delta="1e-5", max_rows_per_group=rows, max_groups=groups)
    (other,) = gaussian.statistics
    squares = gaussian.bounds.max_groups * other.levels * other.linf**2
    assert 0 <= other.scale**2 - squares / (2 * other.rho) < other.scale**2 / 10**6


def test_a_unit_with_one_row_has_a_weight_of_one() -> None:
    assert tree("SELECT MEDIAN(score) FROM person").statistics[0].linf == 1
    per_person = "SELECT MEDIAN(k) FROM (SELECT person_id, COUNT(*) AS k FROM visit GROUP BY person_id) f"
    assert tree(per_person, max_rows_per_group=5, max_groups=4).statistics[0].linf == 1


# -- how it may be written ---------------------------------------------------------------------------------------------

_WITHIN = "SELECT PERCENTILE_{}({}) WITHIN GROUP (ORDER BY cost{}) AS q FROM visit"


@pytest.mark.parametrize("dialect", ["postgres", "oracle", "tsql", "snowflake", "duckdb"])
def test_quantiles_within_groups_are_understood_in_each_dialect(dialect: str) -> None:
    upper, lower, least = (
        quantile(_WITHIN.format(*parts), dialect)
        for parts in (("CONT", "0.9", ""), ("CONT", "0.9", " DESC"), ("DISC", "0", ""))
    )
    assert (upper.kind, upper.level) == ("continuous", Fraction(9, 10))
    assert (lower.kind, lower.level) == ("continuous", Fraction(1, 10))
    assert (least.kind, least.level) == ("discrete", Fraction(0))


@pytest.mark.parametrize(
    ("dialect", "text", "kind", "level"),
    [
        ("oracle", "MEDIAN(cost)", "continuous", "1/2"),
        ("snowflake", "MEDIAN(cost)", "continuous", "1/2"),
        ("snowflake", "APPROX_PERCENTILE(cost, 0.3)", "discrete", "3/10"),
        ("duckdb", "MEDIAN(cost)", "continuous", "1/2"),
        ("duckdb", "QUANTILE(cost, 0.3)", "discrete", "3/10"),
        ("duckdb", "QUANTILE_CONT(cost, 0.3)", "continuous", "3/10"),
        ("duckdb", "QUANTILE_DISC(cost, .3)", "discrete", "3/10"),
        ("duckdb", "APPROX_QUANTILE(cost, (1 - 0.25))", "discrete", "3/4"),
        ("postgres", "MIN(cost)", "least", "0"),
        ("tsql", "MAX(cost)", "greatest", "1"),
    ],
)
def test_quantiles_are_understood_as_functions(dialect: str, text: str, kind: str, level: str) -> None:
    found = quantile(f"SELECT {text} AS q FROM visit", dialect)
    assert (found.kind, found.level) == (kind, Fraction(level))


def test_a_filter_stands_behind_a_group_too() -> None:
    within = "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY cost) FILTER (WHERE kind = 'in') AS q FROM visit"
    assert (
        plan(within, dialect="postgres").digest
        == plan("SELECT MEDIAN(cost) FILTER (WHERE kind = 'in') FROM visit").digest
    )


REFUSED = [
    ("INSITU-SQL-UNBOUNDED", "SELECT MEDIAN(weight) FROM visit", "weight"),
    ("INSITU-SQL-UNBOUNDED", "SELECT kind, MAX(noted) FROM visit GROUP BY kind", "noted"),
    ("INSITU-SQL-UNBOUNDED", "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY weight DESC) FROM visit", "weight"),
    ("INSITU-SQL-UNBOUNDED", "SELECT MIN(ward) FROM visit", "ward"),
    ("INSITU-SQL-TYPE", "SELECT MEDIAN(kind) FROM visit", "kind"),
    ("INSITU-SQL-TYPE", "SELECT MIN(sex) FROM person", "sex"),
    ("INSITU-SQL-TYPE", "SELECT MAX(active) FROM person", "active"),
    ("INSITU-SQL-AGGREGATE", "SELECT MAX(person_id) FROM visit", "person_id"),
    ("INSITU-SQL-AGGREGATE", "SELECT MEDIAN(visit_id) FROM visit", "MEDIAN(visit_id)"),
    ("INSITU-SQL-AGGREGATE", "SELECT QUANTILE(visit_id % 10, 0.5) FROM visit", "visit_id % 10, 0.5"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT MEDIAN(DISTINCT cost) FROM visit", "MEDIAN(DISTINCT cost)"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT MAX(DISTINCT cost) FROM visit", "cost"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT MAX(cost, 3) FROM visit", "3"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT MIN(cost ORDER BY stage) FROM visit", "cost ORDER BY stage"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost, stage) FROM visit", "cost, stage"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost, 1.5) FROM visit", "cost, 1.5"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost, -0.5) FROM visit", "cost, -0.5"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost, '0.5') FROM visit", "cost, '0.5'"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost, [0.25, 0.5]) FROM visit", "cost, [0.25, 0.5"),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "SELECT QUANTILE(cost) FROM visit", "cost"),
    (
        "INSITU-SQL-FORBIDDEN-CONSTRUCT",
        "SELECT PERCENTILE_CONT(stage) WITHIN GROUP (ORDER BY cost DESC) FROM visit",
        "PERCENTILE_CONT(stage) WITHIN GROUP (ORDER BY cost DESC)",
    ),
    (
        "INSITU-SQL-FORBIDDEN-CONSTRUCT",
        "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY cost, stage) FROM visit",
        "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY cost, stage)",
    ),
    (
        "INSITU-SQL-FORBIDDEN-CONSTRUCT",
        "SELECT MODE() WITHIN GROUP (ORDER BY cost) FROM visit",
        "MODE() WITHIN GROUP (ORDER BY cost)",
    ),
]


@pytest.mark.parametrize(("code", "sql", "marked"), REFUSED)
def test_a_quantile_that_cannot_be_had_is_refused_and_underlined(code: str, sql: str, marked: str) -> None:
    with pytest.raises(Refused) as refused:
        plan(sql)
    assert refused.value.code == code
    assert isinstance(refused.value, SqlRefused)
    assert refused.value.span is not None
    assert sql[refused.value.span.start : refused.value.span.end] == marked


@pytest.mark.parametrize(
    "text",
    [
        "MEDIAN(weight)",
        "MAX(weight)",
        "PERCENTILE_CONT(weight, 0.9)",
        "QUANTILE(weight, 0.9)",
        "APPROX_QUANTILE(weight, 0.9)",
    ],
)
def test_what_is_recommended_for_unbounded_values_can_be_asked(text: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(f"SELECT {text} FROM visit")
    _, found, hint = refused.value.remedy.partition("for example ")
    assert found
    plan(f"SELECT {hint.rstrip('.')} FROM visit")


@pytest.mark.parametrize("level", ["1e3000000", "1e-3000000"])
def test_a_level_of_any_size_is_read_at_once(level: str) -> None:
    """The text comes from strangers: as an exact number this one has three million digits."""
    start = time.process_time()
    with suppress(SqlRefused):
        plan(f"SELECT QUANTILE(cost, {level}) FROM visit")
    assert time.process_time() - start < 0.5


# -- the law of the noise ----------------------------------------------------------------------------------------------


def fits(sample: np.ndarray[Any, Any], mechanism: str, scale: float) -> bool:
    """Whether 2,000 draws and more have the width of the law: ten deviations of its estimate are less than 0.2."""
    width = np.abs(sample).mean() if mechanism == "laplace" else sample.std()
    return bool(abs(width / scale - 1) < 0.12 and abs(sample.mean()) < 0.12 * scale)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("rows", [(), tuple((leaf, 10**6) for leaf in range(0, 2001, 3))])
def test_every_node_has_noise_of_the_claimed_width_and_not_one_that_is_thirty_percent_off(
    mechanism: Any, rows: tuple[Any, ...]
) -> None:
    release = tree("SELECT MEDIAN(cost) FROM visit", mechanism=mechanism)
    exact = np.array(grown(2001, rows), dtype=float)
    noise = np.array(privatize(release, ExactCells(rows)).statistics, dtype=float)[:, 0] - exact
    scale = float(release.statistics[0].scale)
    assert noise.shape == (8 + 126 + 2001,)
    assert fits(noise, mechanism, scale)
    assert not fits(noise, mechanism, scale * 1.3)
    assert not fits(noise, mechanism, scale * 0.7)
    assert float(deviation(release, [1])[0]) == pytest.approx(noise.std(), rel=0.15)
    assert float(deviation(release, [4])[0]) == pytest.approx(2 * float(deviation(release, [1])[0]))


def test_groups_and_nodes_have_noise_of_their_own() -> None:
    release = tree("SELECT sex, region, MEDIAN(score) FROM person GROUP BY 1, 2", mechanism="gaussian", epsilon="0.1")
    noise = np.array(privatize(release, NO_ROWS).statistics, dtype=float)
    assert noise.shape == (release.width, 8)
    assert np.abs(np.corrcoef(noise.T) - np.eye(8)).max() < 0.2
    assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.2


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", [ALL_OF_COST, "SELECT diagnosis, MEDIAN(cost) FROM visit GROUP BY diagnosis"])
@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("change", ["scale", "linf", "levels"])
def test_no_tree_is_drawn_for_which_more_is_claimed_than_its_noise_pays_for(
    sql: str, mechanism: Any, change: str
) -> None:
    release = tree(sql, mechanism=mechanism, delta="1e-5")
    (honest,) = release.statistics
    weak = {
        "scale": replace(honest, scale=honest.scale * Fraction(99, 100)),
        "linf": replace(honest, linf=honest.linf + honest.linf // 50),
        "levels": replace(honest, levels=honest.levels + 1),
    }[change]
    check_claims(release)
    with pytest.raises(ExecutionFailed) as failed:
        privatize(replace(release, statistics=(weak,)), NO_ROWS, ())
    assert failed.value.code == "INSITU-MECHANISM-CLAIM"


FOLLOWED = "SELECT noted, MEDIAN(stage) FROM visit GROUP BY noted"


def test_a_followed_release_without_selected_keys_is_not_drawn() -> None:
    release = tree(FOLLOWED, epsilon=HUGE)
    rows = ExactCells(((date(2020, 1, 1), 2, 5000),))
    with pytest.raises(ExecutionFailed) as failed:
        privatize(release, rows)
    assert failed.value.code == "INSITU-MECHANISM-CLAIM"
    assert privatize(release, rows, ()).statistics == ((),) * 5
    found = privatize(release, rows, (("2019-01-01",), ("2020-01-01",)))
    assert found.keys == (("2019-01-01",), ("2020-01-01",))
    assert found.statistics == ((0, 0), (0, 0), (0, 5000), (0, 0), (0, 0))


def test_trees_of_public_keys_stand_in_the_order_of_their_domains() -> None:
    release = tree("SELECT kind, MEDIAN(stage) FROM visit GROUP BY kind", epsilon=HUGE)
    rows = (("out", 4, 7), ("er", 0, 3), ("zz", 1, 9), ("er", 2, 1))
    found = privatize(release, ExactCells(rows))
    assert found.keys is None
    assert found.statistics == ((3, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 7))


# -- merging -----------------------------------------------------------------------------------------------------------


def node(keys: Sequence[Any], followed: Sequence[Any], units: int = 900) -> tuple[ReleasedValues, ReleasedValues]:
    """What a node would release for FOLLOWED: so many units in each group, and their values all on leaf 2."""
    base = ReleasedValues(keys=tuple((key,) for key in keys), statistics=((units,) * len(keys),))
    counts = tuple((units * WEIGHT * (leaf == 2),) * len(followed) for leaf in range(5))
    return base, ReleasedValues(keys=tuple((key,) for key in followed), statistics=counts)


def test_trees_of_selected_groups_are_added_group_by_group() -> None:
    nodes = [node(("2020-01-01", "2021-01-01"), ("2020-01-01", "2021-01-01")), node(("2021-01-01",), ("2021-01-01",))]
    _, found = merge(plan(FOLLOWED), nodes)
    assert found.keys == ((date(2020, 1, 1),), (date(2021, 1, 1),))
    assert found.statistics[2] == (900 * WEIGHT, 1800 * WEIGHT)
    assert found.nodes == (1, 2)


@pytest.mark.parametrize(
    "followed", [(), ("2020-01-01",), ("2021-01-01", "2020-01-01"), ("2020-01-01", "2021-01-01", "2022-01-01")]
)
def test_a_tree_with_other_keys_than_its_release_is_no_answer(followed: tuple[str, ...]) -> None:
    with pytest.raises(IntegrityFailed) as failed:
        merge(plan(FOLLOWED), [node(("2020-01-01", "2021-01-01"), followed)])
    assert failed.value.code == "INSITU-VERIFY-RESULT"


def test_a_tree_of_public_keys_or_another_width_is_no_answer() -> None:
    base, followed = node(("2020-01-01",), ("2020-01-01",))
    for wrong in (replace(followed, keys=None), replace(followed, statistics=followed.statistics[:-1])):
        with pytest.raises(IntegrityFailed) as failed:
            merge(plan(FOLLOWED), [(base, wrong)])
        assert failed.value.code == "INSITU-VERIFY-RESULT"


# -- types and what is shown -------------------------------------------------------------------------------------------


def answer(made: PrivacyPlan, rows: Sequence[tuple[Any, ...]]) -> ResultTable:
    """The answer of one tree without noise, from the leaves of its one group."""
    (release,) = made.releases
    merged: tuple[MergedRelease, ...] = merge(made, [(privatize(release, ExactCells(tuple(rows))),)])
    with Postprocessor() as post:
        return post.run(made, merged)


@pytest.mark.parametrize(
    ("text", "table", "leaf", "kind", "value"),
    [
        ("MIN(stage)", "visit", 3, "integer", 3),
        ("PERCENTILE_DISC(stage, 0.5)", "visit", 3, "integer", 3),
        ("MEDIAN(stage)", "visit", 3, "decimal", 3.0),
        ("MAX(amount)", "act", 0, "integer", -50),
        ("MAX(cost)", "visit", 25, "decimal", 12.5),
        ("MEDIAN(points)", "act", 1, "decimal", -0.9995),
        ("MAX(start)", "visit", 366, "date", "2016-01-02"),
        ("MEDIAN(start)", "visit", 366, "date", "2016-01-02"),
        ("MIN(at)", "act", 1, "timestamp", "2015-01-02T00:00:00"),
        ("MAX(cost) - MIN(cost) + 1", "visit", 25, "decimal", 1.0),
        ("MAX(stage) + 1", "visit", 3, "integer", 4),
        ("MAX(date_diff('day', start, finish))", "visit", 1826, "integer", 0),
    ],
)
def test_an_answer_has_the_type_of_what_is_asked(text: str, table: str, leaf: int, kind: str, value: Any) -> None:
    found = answer(plan(f"SELECT {text} AS q FROM {table}", epsilon=HUGE), [(leaf, WEIGHT * 50)])
    assert [(column.type, column.noisy) for column in found.columns] == [(kind, True)]
    assert found.rows == ((value,),)
    assert type(found.rows[0][0]) is type(value)


@pytest.mark.parametrize(
    "text", ["MEDIAN(stage)", "PERCENTILE_DISC(stage, 0.5)", "MIN(stage)", "MAX(start)", "MAX(cost) + 1"]
)
def test_what_nobody_has_is_null_without_an_interval(text: str) -> None:
    found = answer(plan(f"SELECT {text} AS q FROM visit", epsilon=HUGE), [])
    assert found.rows == ((None,),)
    assert found.intervals == ((None,),)


def test_few_persons_suppress_their_quantiles_too() -> None:
    made = plan("SELECT kind, MEDIAN(stage) AS m FROM visit GROUP BY kind", dataset=care(min_units=20), epsilon=HUGE)
    base, followed = made.releases
    units = ExactCells((("er", 19), ("in", 20)))
    leaves = ExactCells((("er", 3, WEIGHT * 19), ("in", 3, WEIGHT * 20)))
    with Postprocessor() as post:
        found = post.run(made, merge(made, [(privatize(base, units), privatize(followed, leaves))]))
    assert found.rows == (("er", None), ("in", 3.0), ("out", None))
    assert math.isfinite(sum(found.intervals[1][1] or (math.nan,)))
    assert found.intervals[0][1] is None
    assert "2 of 3 cells" in found.warnings[0]


def test_no_selected_groups_give_an_empty_answer() -> None:
    made = plan(FOLLOWED)
    with Postprocessor() as post:
        assert post.run(made, merge(made, [node((), ())])).rows == ()


def test_a_group_that_one_node_left_out_has_no_interval() -> None:
    made = plan(FOLLOWED)
    nodes = [node(("2020-01-01", "2021-01-01"), ("2020-01-01", "2021-01-01")), node(("2021-01-01",), ("2021-01-01",))]
    with Postprocessor() as post:
        found = post.run(made, merge(made, nodes))
    assert found.rows == (("2020-01-01", 2.0), ("2021-01-01", 2.0))
    assert found.intervals[0][1] is None
    assert found.intervals[1][1] is not None


# -- percentiles written by hand ---------------------------------------------------------------------------------------

BY_HAND = """SELECT MIN(CASE WHEN place < .5 * size THEN 9999 ELSE stage END) AS m FROM (SELECT stage, ROW_NUMBER() OVER
    (ORDER BY {order}) AS place, {size} AS size FROM visit WHERE stage > 1) o"""
SAME_ROWS = "(SELECT COUNT(*) FROM visit WHERE stage > 1)"


def test_a_percentile_written_by_hand_is_a_quantile() -> None:
    made = plan(BY_HAND.format(order="stage", size=SAME_ROWS))
    assert [(one.kind, one.level) for one in made.quantiles] == [("discrete", Fraction(1, 2))]
    written = (
        "SELECT PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY stage) FROM (SELECT stage FROM visit WHERE stage > 1) o"
    )
    assert made.digest == plan(written).digest


@pytest.mark.parametrize(
    "parts",
    [
        {"order": "cost", "size": SAME_ROWS},
        {"order": "stage DESC", "size": SAME_ROWS},
        {"order": "stage", "size": "(SELECT COUNT(*) FROM visit)"},
        {"order": "stage", "size": "(SELECT COUNT(*) FROM visit WHERE stage > 2)"},
        {"order": "stage", "size": "(SELECT COUNT(*) FROM act WHERE amount > 1)"},
        {"order": "stage", "size": "(SELECT COUNT(DISTINCT person_id) FROM visit WHERE stage > 1)"},
        {"order": "stage", "size": "COUNT(*) OVER (PARTITION BY kind)"},
        {"order": "stage", "size": "100"},
    ],
)
def test_what_numbers_or_counts_other_rows_is_not(parts: dict[str, str]) -> None:
    """The answer would be another one than the text asks for: the window is refused as any other over persons' rows."""
    with pytest.raises(SqlRefused) as refused:
        plan(BY_HAND.format(**parts))
    assert refused.value.code == "INSITU-SQL-FORBIDDEN-CONSTRUCT"
