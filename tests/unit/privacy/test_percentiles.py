"""From copies to intervals: ends, ties, dates, what has none and why; and the draws that copies are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime

import numpy as np
import pytest
from insitu_privacy.draws import _exact_pool, sum_law
from insitu_privacy.merge import merge
from insitu_privacy.percentiles import as_number, percentiles, row_spread
from insitu_privacy.plan import PrivacyPlan, ReleasedValues
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.reaches import interval, reach, unbounded
from insitu_privacy.stacked import for_all_copies

from tests.testkit.care import plan


@pytest.fixture(scope="module")
def post() -> Iterator[Postprocessor]:
    with Postprocessor(timeout_s=60) as made:
        yield made


def level(made: PrivacyPlan, each: int) -> list[list[ReleasedValues]]:
    """Two nodes at which every statistic of every cell is the same."""
    return [
        [
            ReleasedValues(keys=None, statistics=tuple((each,) * (one.cells or 0) for _ in range(one.width)))
            for one in made.releases
        ]
    ] * 2


def answered(post: Postprocessor, sql: str, each: int, epsilon: str = "1") -> ResultTable:
    made = plan(sql, epsilon=epsilon)
    return post.run(made, merge(made, level(made, each)))


def spread(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=float).reshape(-1, 1)


# -- draws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("nodes", [1, 3])
def test_the_law_of_a_sum_has_the_variance_of_discrete_noise(scale: float, nodes: int) -> None:
    values, shares = sum_law("laplace", scale, nodes)
    ratio = math.exp(-1 / scale)
    assert shares.sum() == pytest.approx(1)
    assert (values**2 * shares).sum() == pytest.approx(nodes * 2 * ratio / (1 - ratio) ** 2, rel=1e-9)
    assert (values * shares).sum() == pytest.approx(0, abs=1e-9)


def test_small_gaussian_noise_is_not_rounded_continuous_noise() -> None:
    values, shares = sum_law("gaussian", 0.3, 1)
    assert shares[values == 0][0] == pytest.approx(1 / (1 + 2 * math.exp(-1 / 0.18)), rel=1e-4)


def test_the_pool_has_each_integer_as_often_as_it_should() -> None:
    values, shares = sum_law("laplace", 1.0, 3)
    pool = _exact_pool("laplace", 1.0, 3)
    for value in (-5, 0, 4):
        assert (pool == value).mean() == pytest.approx(shares[values == value][0], abs=1e-5)


# -- ends --------------------------------------------------------------------------------------------------------------


def test_both_ends_leave_the_same_number_of_ranks_beyond() -> None:
    found = percentiles(spread([float(one) for one in range(-99, 100)]), 0.95)
    assert (found.low[0], found.high[0]) == (-95, 95)


def test_an_end_that_many_copies_share_counts_as_half_reached() -> None:
    tails = [-5.0] * 4 + [5.0] * 4  # 2% on each side: half of them is 1%, less than 2.5%
    middle = [float(one % 9 - 4) for one in range(191)]
    found = percentiles(spread(tails + middle), 0.95)
    assert (found.low[0], found.high[0]) == (-4, 4)
    tails = [-5.0] * 12 + [5.0] * 12
    found = percentiles(spread(tails + middle[:175]), 0.95)
    assert (found.low[0], found.high[0]) == (-5, 5)


def test_a_value_that_most_copies_repeat_is_not_biased() -> None:
    found = percentiles(spread([0.0] * 130 + [1.0] * 69), 0.95)
    assert (found.low[0], found.high[0]) == (0, 1)


def test_a_copy_without_a_value_leaves_no_interval() -> None:
    found = percentiles(spread([1.0] * 198 + [math.nan]), 0.95)
    assert reach(found, 0) == "lost"
    found = percentiles(spread([1.0 + one for one in range(199)]), 0.95)
    assert reach(found, 0) == "edge"


# -- dates -------------------------------------------------------------------------------------------------------------


def test_dates_are_days_and_timestamps_microseconds() -> None:
    assert as_number(date(2020, 1, 2)) == as_number(date(2020, 1, 1)) + 1  # type: ignore[operator]
    assert as_number(datetime(1970, 1, 1, 0, 0, 1)) == 1_000_000
    assert as_number("2020-01-01") is None
    days = [date.fromordinal(737425 + one) for one in range(-99, 100)]
    assert reach(row_spread(days, date.fromordinal(737425), 0.95), 0) == (-95, 95)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (date(2020, 1, 5), -2.0, 4.0, ("2020-01-03", "2020-01-09")),
        (datetime(2020, 1, 5, 12), -1e6, 2e6, ("2020-01-05T11:59:59", "2020-01-05T12:00:02")),
        (date(1, 1, 2), -5.0, 1e9, ("0001-01-01", "9999-12-31")),
        (7, -2.0, 2.0, (5, 9)),
        (7.5, -2.0, 2.0, (5.5, 9.5)),
        (None, -2.0, 2.0, None),
    ],
)
def test_an_interval_is_of_the_kind_of_its_value(value: object, low: float, high: float, expected: object) -> None:
    assert interval((low, high), value) == expected


@pytest.mark.parametrize("column", ["MEDIAN(start)", "MIN(start)", "MAX(start) + INTERVAL 1 DAY"])
def test_dates_have_intervals_around_them(post: Postprocessor, column: str) -> None:
    found = answered(post, f"SELECT kind, {column} AS d FROM visit GROUP BY kind", 10**9, "10")
    for (_, value), (_, ends) in zip(found.rows, found.intervals, strict=True):
        assert ends is not None
        assert ends[0] <= value <= ends[1]  # type: ignore[operator]
    assert not any("d:" in one for one in found.warnings)


# -- what has none -----------------------------------------------------------------------------------------------------


def test_a_ratio_whose_denominator_may_be_zero_says_so(post: Postprocessor) -> None:
    found = answered(post, "SELECT kind, 1.0 * SUM(stage) / COUNT(*) AS mean FROM visit GROUP BY kind", 4, "0.1")
    assert all(ends is None for _, ends in found.intervals)
    assert any("mean: 3 of 3 values have no bounded interval" in one and "denominator" in one for one in found.warnings)


def test_text_made_of_noise_says_that_it_has_none() -> None:
    (found,) = unbounded({0: "big"}, [("yes",), (None,)], [(None,), (None,)], [{}, {}])
    assert found.startswith("big: 1 of 1 values have no bounded interval: they are neither")


# -- whole answers -----------------------------------------------------------------------------------------------------


def test_rows_near_a_limit_or_a_condition_have_intervals(post: Postprocessor) -> None:
    sql = (
        "SELECT kind, COUNT(*) AS n, COUNT(*) * 1.0 / (SELECT COUNT(*) FROM person) AS share FROM visit "
        "GROUP BY kind HAVING COUNT(*) > 990 ORDER BY n DESC LIMIT 2"
    )
    found = answered(post, sql, 500)
    assert len(found.rows) == 2
    assert all(ends[1] is not None and ends[2] is not None for ends in found.intervals)


def test_a_largest_value_has_the_interval_of_the_largest(post: Postprocessor) -> None:
    sql = "SELECT MAX(n) AS most, MIN(n) AS least FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) AS c"
    found = answered(post, sql, 500)
    assert found.rows == ((1000, 1000),)


def test_all_copies_are_one_statement_with_the_copy_first() -> None:
    sql = for_all_copies("WITH c AS (SELECT a.s0 FROM r0 AS a) SELECT c.s0 FROM c, r1", ("r0", "r1"))
    assert sql.count("__copy = insitu_copies.__copy") == 2
    assert "AS a" in sql
    assert "AS r1" in sql
    assert sql.startswith("SELECT insitu_copies.__copy, insitu_answer.*")


def test_what_cannot_be_one_statement_is_run_copy_by_copy(post: Postprocessor, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT kind, COUNT(*) AS n, (SELECT COUNT(*) FROM person) AS every FROM visit GROUP BY kind"
    fast = answered(post, sql, 500)
    monkeypatch.setattr("insitu_privacy.postprocess.for_all_copies", lambda *_: "SELECT nothing")
    slow = answered(post, sql, 500)
    for one, other in zip(fast.intervals, slow.intervals, strict=True):
        assert one[1] is not None
        assert other[1] is not None
        assert abs(one[1][0] - other[1][0]) < 25  # type: ignore[operator]
