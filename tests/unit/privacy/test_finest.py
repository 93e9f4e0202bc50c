"""Grouping sets as sums of the finest one: how they are written, when they are, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from insitu_privacy.merge import merge
from insitu_privacy.passes.finest import is_more_accurate
from insitu_privacy.passes.grouping_sets import without_grouping_sets
from insitu_privacy.passes.parse import parse
from insitu_privacy.plan import ReleasedValues
from insitu_privacy.postprocess import Postprocessor

from tests.testkit.care import care, plan

WRITTEN = {
    "a total": (
        "SELECT kind, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY ROLLUP (kind)",
        "WITH _finest0 AS (SELECT kind AS _finest0k0, COUNT(*) AS _finest0a0 FROM visit WHERE cost > 5 GROUP BY kind) "
        "SELECT * FROM (SELECT _finest0k0 AS kind, TRY_CAST(COALESCE(SUM(_finest0a0), 0) AS BIGINT) AS n FROM _finest0 "
        "GROUP BY _finest0k0 UNION ALL SELECT NULL AS kind, TRY_CAST(COALESCE(SUM(_finest0a0), 0) AS BIGINT) AS n FROM "
        "_finest0) AS _finest0_sets",
    ),
    "having, order and marks": (
        "WITH v AS (SELECT * FROM visit) SELECT sex, GROUPING(sex) AS g, SUM(x) FROM v GROUP BY GROUPING SETS ((sex), ()) "
        "HAVING SUM(x) > 3 AND sex IS NULL ORDER BY sex LIMIT 2",
        "WITH v AS (SELECT * FROM visit), _finest0 AS (SELECT sex AS _finest0k0, SUM(x) AS _finest0a0 FROM v GROUP BY sex) "
        "SELECT * FROM (SELECT _finest0k0 AS sex, 0 AS g, SUM(_finest0a0) AS \"sum(x)\" FROM _finest0 GROUP BY _finest0k0 "
        "HAVING SUM(_finest0a0) > 3 AND _finest0k0 IS NULL UNION ALL SELECT NULL AS sex, 1 AS g, SUM(_finest0a0) AS "
        "\"sum(x)\" FROM _finest0 HAVING SUM(_finest0a0) > 3 AND NULL IS NULL) AS _finest0_sets ORDER BY sex LIMIT 2",
    ),
    "an average of some": (
        "SELECT k, AVG(x) FILTER(WHERE y) AS a FROM t GROUP BY ROLLUP (k)",
        "WITH _finest0 AS (SELECT k AS _finest0k0, AVG(x) FILTER(WHERE y) AS _finest0a0, SUM(x) FILTER(WHERE y) AS "
        "_finest0a1, COUNT(x) FILTER(WHERE y) AS _finest0a2 FROM t GROUP BY k) SELECT * FROM (SELECT _finest0k0 AS k, CASE "
        "WHEN SUM(_finest0a2) > 0 THEN CAST(SUM(_finest0a1) AS DOUBLE) / NULLIF(SUM(_finest0a2), 0) END AS a FROM _finest0 "
        "GROUP BY _finest0k0 UNION ALL SELECT NULL AS k, CASE WHEN SUM(_finest0a2) > 0 THEN CAST(SUM(_finest0a1) AS "
        "DOUBLE) / NULLIF(SUM(_finest0a2), 0) END AS a FROM _finest0) AS _finest0_sets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_sets_are_selects_above_the_finest_table(name: str) -> None:
    sql, expected = WRITTEN[name]
    tree, (table,) = without_grouping_sets(parse(sql, "duckdb"), [0])
    assert tree.sql("duckdb") == expected
    assert table.sets == ((0,), ())


V = "COUNT(*) AS n FROM visit GROUP BY"
P = "FROM person GROUP BY"
RELEASES = {
    f"SELECT kind, {V} ROLLUP (kind)": 1,
    f"SELECT kind, stage, {V} CUBE (kind, stage)": 4,  # sums of 18 cells, the root of which is more than 4
    f"SELECT kind, stage, {V} GROUPING SETS ((kind, stage), (kind))": 2,  # the root of 6 is more than 2
    f"SELECT stage, kind, {V} GROUPING SETS ((kind, stage), (stage))": 1,  # the root of 3 is less
    f"SELECT kind, stage, {V} GROUPING SETS ((kind), (stage))": 2,  # the finest is not asked for
    f"SELECT sex, region, COUNT(DISTINCT person_id) AS n {P} CUBE (sex, region)": 1,
    "SELECT kind, COUNT(DISTINCT person_id) AS n FROM visit GROUP BY ROLLUP (kind)": 2,  # in several kinds
    "SELECT kind, COUNT(DISTINCT visit_id) AS n FROM visit GROUP BY ROLLUP (kind)": 2,
    f"SELECT ward, {V} ROLLUP (ward)": 2,  # private keys
    f"SELECT node_id, {V} ROLLUP (node_id)": 2,
    "SELECT kind, MEDIAN(cost) AS m FROM visit GROUP BY ROLLUP (kind)": 2,
    "SELECT kind, STDDEV(cost) AS m FROM visit GROUP BY ROLLUP (kind)": 2,
    "SELECT kind, 1.0 * COUNT(*) / (SELECT COUNT(*) FROM person) AS s FROM visit GROUP BY ROLLUP (kind)": 4,
    f"SELECT a.kind, a.n, b.sex, b.n FROM (SELECT kind, {V} ROLLUP (kind)) a CROSS JOIN (SELECT sex, COUNT(*) AS n {P} "
    "ROLLUP (sex)) b": 2,
    f"SELECT a.kind, a.n, b.ward, b.n FROM (SELECT kind, {V} ROLLUP (kind)) a CROSS JOIN (SELECT ward, {V} ROLLUP "
    "(ward)) b": 4,  # a sum of 3 cells at a third of the budget is no better than a cell at a quarter
    f"SELECT a.sex, a.n, b.ward, b.n FROM (SELECT sex, COUNT(*) AS n {P} ROLLUP (sex)) a CROSS JOIN (SELECT ward, {V} "
    "ward) b": 2,  # but a sum of 2 at a half is better than a cell at a third
}  # fmt: skip


@pytest.mark.parametrize("sql", RELEASES)
def test_a_finest_table_is_released_alone_where_that_is_right_and_more_accurate(sql: str) -> None:
    assert len(plan(sql).releases) == RELEASES[sql]


def test_suppressed_cells_are_in_no_sum() -> None:
    sql = f"SELECT kind, {V} ROLLUP (kind)"
    assert len(plan(sql, dataset=care(min_units=11)).releases) == 2


def test_columns_and_statistics_are_those_of_separate_releases() -> None:
    sql = "SELECT kind, COUNT(*) AS n, AVG(cost) AS a, SUM(cost) AS s FROM visit GROUP BY ROLLUP (kind)"
    summed, separate = plan(sql), plan(sql, dataset=care(min_units=1))
    assert summed.output == separate.output
    (one,), others = summed.releases, separate.releases
    assert [s.center for s in one.statistics] == [s.center for s in others[0].statistics]
    assert summed.loss.epsilon == separate.loss.epsilon == 1
    assert float(one.statistics[0].scale) == pytest.approx(float(others[0].statistics[0].scale) / 2)


def test_a_total_over_no_cells_is_none_of_anything() -> None:
    """No year is below 3, so that there is no group; plain SQL has a row for the total all the same."""
    sql = "SELECT birth_year, COUNT(*) AS n, AVG(score) AS a FROM person WHERE birth_year < 3 GROUP BY ROLLUP (birth_year)"
    made = plan(sql)
    (release,) = made.releases
    assert release.cells == 0
    nothing = ReleasedValues(keys=None, statistics=((),) * release.width)
    with Postprocessor() as post:
        assert post.run(made, merge(made, [(nothing,)])).rows == ((None, 0, None),)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("sizes", [(2, 3), (3, 3), (2, 2, 2), (12,), (2,)])
def test_what_is_taken_has_the_less_noisy_worst_set(sizes: tuple[int, ...], mechanism: str) -> None:
    """Against noise that is drawn: every set alone at its share, and sums of the finest."""
    sets = [tuple(range(count)) for count in range(len(sizes) + 1)]
    generator = np.random.default_rng(1)
    draw = generator.laplace if mechanism == "laplace" else generator.normal
    finest = draw(0, 1, (4000, *sizes))
    summed = max(
        np.std(finest.sum(axis=tuple(1 + axis for axis in range(len(sizes)) if axis not in one))) for one in sets
    )
    separate = len(sets) * np.std(finest)
    if abs(summed / separate - 1) > 0.05:
        assert is_more_accurate(sizes, sets, summed=1, separate=len(sets)) == (summed < separate)
