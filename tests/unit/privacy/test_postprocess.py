"""The outer SQL: locked down, bounded, and with intervals that hold the exact value in about 95 of 100 runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from insitu_privacy.errors import SqlRefused
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.postprocess import Postprocessor, ResultTable

from tests.testkit.care import care, plan


@pytest.fixture(scope="module")
def post() -> Iterator[Postprocessor]:
    with Postprocessor() as made:
        yield made


def answer(post: Postprocessor, made: PrivacyPlan, *nodes: Any, level: float = 0.95) -> ResultTable:
    """The answer to public cells, one list of statistics a node."""
    released = [(ReleasedValues(keys=None, statistics=tuple(tuple(row) for row in node)),) for node in nodes]
    return post.run(made, merge(made, released), level=level)


# -- what it computes --------------------------------------------------------------------------------------------------


def test_rows_come_sorted_by_their_keys_with_every_public_cell(post: Postprocessor) -> None:
    made = plan("SELECT stage, COUNT(*) AS n FROM visit GROUP BY stage", epsilon="1e9")
    found = answer(post, made, [[5, 0, 3, 0, 0, 1]], [[1, 1, 1, 1, 1, 1]])
    assert [(column.name, column.type, column.noisy) for column in found.columns] == [
        ("stage", "integer", False),
        ("n", "integer", True),
    ]
    assert found.rows == ((None, 6), (0, 1), (1, 4), (2, 1), (3, 1), (4, 2))


def test_arithmetic_having_order_and_limit_run_on_what_was_released(post: Postprocessor) -> None:
    made = plan(
        "SELECT kind, 100.0 * SUM(stage) / COUNT(*) AS share FROM visit GROUP BY kind HAVING COUNT(*) > 10 ORDER BY share DESC LIMIT 1",
        epsilon="1e9",
    )
    found = answer(post, made, [[50, 90, 100], [100, 300, 5]])
    assert [row[0] for row in found.rows] == ["er"]
    assert found.rows[0][1] == pytest.approx(50.0)


def test_an_average_of_nobody_is_null_and_not_the_middle_of_its_bounds(post: Postprocessor) -> None:
    made = plan("SELECT AVG(cost) AS c FROM visit", epsilon="1e9")
    assert answer(post, made, [[0], [0]]).rows == ((None,),)
    assert answer(post, made, [[0], [-3]]).rows == ((None,),)
    step = float(made.releases[0].statistics[0].granularity)
    assert answer(post, made, [[round(100 / step)], [10]]).rows[0][0] == pytest.approx(510.0)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT COUNT(*) / (COUNT(*) - COUNT(*)) FROM visit", None),
        ("SELECT LN(COUNT(*) - COUNT(*)) FROM visit", None),
        ("SELECT SQRT(0 - COUNT(*)) FROM visit", None),
        ("SELECT CASE WHEN COUNT(*) > 5 THEN 'many' ELSE 'few' END FROM visit", "many"),
        ("SELECT COUNT(*) > 5 FROM visit", True),
        ("SELECT CAST(COUNT(*) AS VARCHAR) FROM visit", "9"),
        ("SELECT NULLIF(COUNT(*), 9) FROM visit", None),
        ("SELECT 7 + 0 * COUNT(*) FROM visit", 7),
    ],
)
def test_the_outer_sql_is_total(post: Postprocessor, sql: str, expected: Any) -> None:
    assert answer(post, plan(sql, epsilon="1e9"), [[9]]).rows == ((expected,),)


def test_keys_of_every_type_come_as_json_scalars(post: Postprocessor) -> None:
    made = plan("SELECT noted, ward, weight, COUNT(*) AS n FROM visit GROUP BY 1, 2, 3", epsilon="1e9")
    values = ReleasedValues(
        keys=(("2020-01-01", 3, 0.5), (None, None, None)), statistics=tuple((9, 8) for _ in made.releases[0].statistics)
    )
    found = post.run(made, merge(made, [(values,)]))
    assert found.rows == ((None, None, None, 8), ("2020-01-01", 3, 0.5, 9))


def test_the_same_values_have_the_same_intervals_everywhere(post: Postprocessor) -> None:
    made = plan("SELECT kind, AVG(cost) AS c, COUNT(*) AS n FROM visit GROUP BY kind")
    node = [[10**6 * place, 2 * 10**6, 700] for place, _ in enumerate(made.releases[0].statistics)]
    with Postprocessor(memory_limit_mb=256) as other:
        assert answer(post, made, node) == answer(other, made, node)


def test_suppressed_cells_show_neither_value_nor_interval(post: Postprocessor) -> None:
    made = plan(
        "SELECT kind, COUNT(*) AS n, SUM(stage) AS s FROM visit GROUP BY kind",
        dataset=care(min_units=11),
        epsilon="1e9",
    )
    found = answer(post, made, [[10, 11, 500], [1, 2, 3]])
    assert found.rows == (("er", None, None), ("in", 11, 2), ("out", 500, 3))
    assert found.intervals[0] == (None, None, None)
    assert all(interval is not None for interval in found.intervals[2][1:])
    assert len(found.warnings) == 1
    assert "1 of 3 cells" in found.warnings[0]
    assert found.suppressed == (0,)
    shown = plan("SELECT kind, COUNT(*) AS n, SUM(stage) AS s FROM visit GROUP BY kind", epsilon="1e9")
    assert answer(post, shown, [[10, 11, 500], [1, 2, 3]]).warnings == ()


def test_suppression_goes_by_persons_where_they_are_counted(post: Postprocessor) -> None:
    made = plan(
        "SELECT kind, COUNT(*) AS n, COUNT(DISTINCT person_id) AS p FROM visit GROUP BY kind",
        dataset=care(min_units=11),
        epsilon="1e9",
    )
    assert answer(post, made, [[500, 500, 500], [10, 11, 12]]).rows[0] == ("er", None, None)


def test_null_is_not_called_suppressed(post: Postprocessor) -> None:
    sql = "SELECT kind, CASE WHEN COUNT(*) > 90 THEN COUNT(*) END AS n FROM visit GROUP BY kind ORDER BY kind DESC"
    made = plan(sql, dataset=care(min_units=11), epsilon="1e9")
    found = answer(post, made, [[10, 50, 500]])
    assert found.rows == (("out", 500), ("in", None), ("er", None))
    assert found.suppressed == (2,)
    assert answer(post, made, [[20, 50, 500]]).suppressed == ()


def test_over_whole_releases_rows_without_any_value_are_taken_for_suppressed(post: Postprocessor) -> None:
    sql = "SELECT kind, n / SUM(n) OVER () AS share FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) AS t ORDER BY kind"
    made = plan(sql, dataset=care(min_units=11), epsilon="1e9")
    assert not made.rows_are_cells
    assert answer(post, made, [[10, 50, 500]]).suppressed == (0,)
    assert answer(post, made, [[20, 50, 500]]).suppressed == ()


# -- lockdown ----------------------------------------------------------------------------------------------------------

SECRET = "the content of a file"
COUNT = plan("SELECT COUNT(*) AS n FROM visit", epsilon="1e9")
_HOSTILE = [
    "SELECT 0, content FROM read_text('{file}')", "SELECT 0, * FROM read_csv('{file}')", "SELECT 0, * FROM '{file}'",
    "SELECT 0, * FROM read_parquet('{file}')", "SELECT 0, * FROM read_blob('{file}')", "SELECT 0, * FROM glob('/*')",
    "COPY (SELECT 1) TO '{file}'", "EXPORT DATABASE '{folder}'", "ATTACH '{folder}/x.db' AS x", "ATTACH ':memory:' AS x; SELECT 0, 1",
    "INSTALL httpfs", "LOAD httpfs", "LOAD '{file}'", "FROM read_csv('https://localhost:1/x.csv')", "SELECT 0, * FROM read_text('https://localhost:1/')",
    "SET enable_external_access = true", "SET lock_configuration = false", "SET memory_limit = '99GB'", "RESET memory_limit",
    "PRAGMA memory_limit='99GB'", "SET threads = 99", "SET autoload_known_extensions = true", "CREATE SECRET x (TYPE s3)",
    "SELECT 0, getenv('HOME')", "SET extension_directory = '{folder}'", "SET temp_directory = '{folder}'", "CALL pragma_version()",
]  # fmt: skip


@pytest.mark.parametrize("hostile", _HOSTILE)
def test_no_file_no_network_no_extension_and_no_setting_is_reached(
    post: Postprocessor, tmp_path: Path, hostile: str
) -> None:
    file = tmp_path / "secret.csv"
    file.write_text(SECRET)
    text = hostile.format(file=file, folder=tmp_path)
    for broken in (replace(COUNT, postprocessing=text), replace(COUNT, copies_sql=text)):
        if "pragma_version" in text or ":memory:" in text:
            break
        with pytest.raises(SqlRefused) as refused:
            answer(post, broken, [[9]])
        assert refused.value.code == "INSITU-SQL-NOT-TOTAL"
        assert SECRET not in refused.value.line()
        assert str(tmp_path) not in refused.value.line()
    assert file.read_text() == SECRET
    assert list(tmp_path.iterdir()) == [file]
    assert answer(post, COUNT, [[9]]).rows == ((9,),), "what was tried may not outlast it"


_ENDLESS = "SELECT 0, COUNT(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3"


@pytest.mark.parametrize("part", ["postprocessing", "copies_sql"])
def test_a_query_that_takes_too_long_is_stopped(part: str) -> None:
    with Postprocessor(timeout_s=0.3) as short:
        start = time.monotonic()
        with pytest.raises(SqlRefused) as refused:
            answer(short, replace(COUNT, **{part: _ENDLESS}), [[9]])
        assert time.monotonic() - start < 10
        assert refused.value.code == "INSITU-SQL-NOT-TOTAL"
        assert answer(short, COUNT, [[9]]).rows == ((9,),)


def test_a_query_that_takes_too_much_memory_is_stopped() -> None:
    with Postprocessor(memory_limit_mb=64, timeout_s=60) as small:
        with pytest.raises(SqlRefused):
            answer(
                small,
                replace(
                    COUNT,
                    postprocessing="SELECT 0, length(list(a.range::VARCHAR || 'xxxxxxxxxxxxxxxx')) FROM range(30000000) a",
                ),
                [[9]],
            )
        assert answer(small, COUNT, [[9]]).rows == ((9,),)


def test_an_answer_of_too_many_rows_is_refused_before_it_fills_the_memory(post: Postprocessor) -> None:
    made = replace(COUNT, postprocessing="SELECT range, 1 FROM range(200000)")
    with pytest.raises(SqlRefused) as refused:
        answer(post, made, [[9]])
    assert refused.value.code == "INSITU-SQL-TOO-MANY-ROWS"
    assert answer(post, COUNT, [[9]]).rows == ((9,),)


def test_threads_may_share_it() -> None:
    made = plan("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind", epsilon="1e9")
    wrong: list[Any] = []
    with Postprocessor() as shared:

        def work(number: int) -> None:
            for _ in range(5):
                rows = answer(shared, made, [[number, number, number]]).rows
                if rows != (("er", number), ("in", number), ("out", number)):
                    wrong.append(rows)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# -- intervals ---------------------------------------------------------------------------------------------------------

EXACT_ROWS, EXACT_MEAN = 40_000, 3.25


def exact(release: Release) -> list[np.ndarray[Any, Any]]:
    """Statistics of a site where every cell has the same rows with the same mean."""
    found = []
    for statistic in release.statistics:
        if statistic.kind == "sum":
            value = round((EXACT_MEAN - float(statistic.center)) / float(statistic.granularity) * EXACT_ROWS)
        else:
            value = EXACT_ROWS
        found.append(np.full(release.cells or 0, value))
    return found


def draw(generator: np.random.Generator, release: Release, spread: float) -> list[list[int]]:
    """What one node releases: exact values with noise of the plan's law, ``spread`` times as wide."""
    law = generator.laplace if release.mechanism == "laplace" else generator.normal
    return [
        [int(x) for x in np.rint(values + law(0.0, float(statistic.scale) * spread, len(values)))]
        for values, statistic in zip(exact(release), release.statistics, strict=True)
    ]


def coverage(
    post: Postprocessor, made: PrivacyPlan, truth: list[float], nodes: int, runs: int, spread: float = 1.0
) -> list[float]:
    """How often each noisy column's interval holds the exact value."""
    (release,) = made.releases
    generator = np.random.default_rng(20260301)
    held, seen = np.zeros(len(truth)), 0
    for _ in range(runs):
        found = answer(post, made, *(draw(generator, release, spread) for _ in range(nodes)))
        for intervals in found.intervals:
            seen += 1
            for place, interval in enumerate(intervals[-len(truth) :]):
                assert interval is not None
                held[place] += interval[0] <= truth[place] <= interval[1]
    return list(held / seen)


MEASURES = "COUNT(*) AS n, SUM(LEAST(GREATEST(weight, 0), 10)) AS s, AVG(LEAST(GREATEST(weight, 0), 10)) AS a, 100.0 * COUNT(*) / SUM(LEAST(GREATEST(weight, 0), 10)) AS r"
GROUPED = f"SELECT kind, stage, {MEASURES} FROM visit WHERE weight IS NOT NULL GROUP BY kind, stage"


@pytest.mark.parametrize(("mechanism", "nodes"), [("laplace", 3), ("gaussian", 2)])
def test_intervals_hold_the_exact_value_in_about_95_of_100_runs(
    post: Postprocessor, mechanism: Any, nodes: int
) -> None:
    """1,080 intervals a column: 95% gives 92.9% to 97%; intervals 30% too narrow give under 90, too wide over 97.5."""
    made = plan(GROUPED, mechanism=mechanism, epsilon="1")
    truth = [EXACT_ROWS * nodes, EXACT_ROWS * EXACT_MEAN * nodes, EXACT_MEAN, 100 / EXACT_MEAN]
    for share in coverage(post, made, truth, nodes, runs=60):
        assert 0.929 <= share <= 0.972


def test_intervals_hold_where_noise_is_bent() -> None:
    """Ratios and products of a count whose noise is a sixth of it: intervals that only mirror the copies hold less."""
    made = plan("SELECT 1e6 / COUNT(*) AS r, COUNT(*) * COUNT(*) AS q FROM visit", mechanism="gaussian", epsilon="1")
    scale = float(made.releases[0].statistics[0].scale)
    generator = np.random.default_rng(20260302)
    truth = round(6 * scale)
    held = np.zeros(2)
    with Postprocessor() as post:
        for _ in range(1000):
            found = answer(post, made, [[round(truth + generator.normal(0, scale))]])
            for place, exact_value in enumerate((1e6 / truth, truth**2)):
                interval = found.intervals[0][place]
                held[place] += interval is None or interval[0] <= exact_value <= interval[1]
    for share in held / 1000:
        assert 0.929 <= share <= 0.972


def test_a_ratio_whose_denominator_may_be_zero_has_no_interval(post: Postprocessor) -> None:
    for sql in (
        "SELECT 1000 * COUNT(*) / SUM(stage) AS r FROM visit",
        "WITH a AS (SELECT COUNT(*) AS n FROM visit), b AS (SELECT SUM(stage) AS s FROM visit) "
        "SELECT 1000 * a.n / b.s AS r FROM a, b",
    ):
        made = plan(sql, epsilon="1")
        lost = [round(float(release.statistics[-1].scale)) for release in made.releases]
        for times, bounded in ((1, False), (1000, True)):
            nodes = [
                tuple(
                    ReleasedValues(keys=None, statistics=tuple((times * one,) for _ in release.statistics))
                    for one, release in zip(lost, made.releases, strict=True)
                )
            ]
            found = post.run(made, merge(made, nodes))
            assert (found.intervals[0][0] is not None) == bounded


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_a_scale_that_is_thirty_percent_off_would_be_seen(post: Postprocessor, mechanism: Any) -> None:
    """What the test above rests on: with other noise than the plan's, coverage leaves its bounds."""
    made = plan(GROUPED, mechanism=mechanism, epsilon="1")
    truth = [EXACT_ROWS, EXACT_ROWS * EXACT_MEAN, EXACT_MEAN, 100 / EXACT_MEAN]
    assert all(share < 0.929 for share in coverage(post, made, truth, 1, runs=60, spread=1.3))
    assert all(share > 0.972 for share in coverage(post, made, truth, 1, runs=60, spread=0.7))


def test_a_wider_level_gives_wider_intervals_around_the_value(post: Postprocessor) -> None:
    made = plan("SELECT COUNT(*) AS n FROM visit", epsilon="0.1")
    widths = []
    for level in (0.5, 0.9, 0.99):
        ((interval,),) = answer(post, made, [[1000]], level=level).intervals
        assert interval is not None
        assert interval[0] <= 1000 <= interval[1]
        assert all(isinstance(end, int) for end in interval)
        widths.append(interval[1] - interval[0])
    assert widths == sorted(set(widths))


def test_keys_and_constants_have_no_interval(post: Postprocessor) -> None:
    made = plan("SELECT kind, 7 AS seven, COUNT(*) AS n FROM visit GROUP BY kind")
    for intervals in answer(post, made, [[5, 5, 5]]).intervals:
        assert intervals[:2] == (None, None)
        assert intervals[2] is not None


def test_the_interval_of_a_cell_stays_with_its_row_when_rows_are_sorted_otherwise(post: Postprocessor) -> None:
    made = plan("SELECT stage, COUNT(*) AS n FROM visit GROUP BY stage ORDER BY n DESC")
    counts = [10**5, 10, 10**7, 10**3, 10**6, 10**4]
    found = answer(post, made, [counts])
    assert [row[1] for row in found.rows] == sorted(counts, reverse=True)
    for row, intervals in zip(found.rows, found.intervals, strict=True):
        assert intervals[1] is not None
        assert intervals[1][0] <= row[1] <= intervals[1][1]
        assert intervals[1][1] - intervals[1][0] < 10**4


def test_many_cells_are_answered_in_time(post: Postprocessor) -> None:
    sql = "SELECT birth_year, YEAR(v.start) AS y, MONTH(v.start) AS m, kind, COUNT(*) AS n FROM person p JOIN visit v ON v.person_id = p.person_id GROUP BY 1, 2, 3, 4"
    made = plan(sql)
    cells = made.releases[0].cells
    assert cells is not None
    start = time.process_time()
    found = answer(post, made, [[7] * cells])
    assert len(found.rows) == cells == len(list(product(range(131), range(10), range(12), range(3))))
    assert time.process_time() - start < 20
