"""Where the leaves of a tree of counts lie: over the bounds of its values, or the part of them that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.fits import CENTER_LIMIT, ReleaseFit, StatisticFit
from insitu_privacy.leaves import leaves_over, round_step
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.postprocess import Postprocessor, ResultTable

from tests.testkit.care import plan

MEDIAN = "SELECT MEDIAN(cost) AS m FROM visit"
WEIGHT = 2**16
HUGE = "1e15"
_number = st.fractions(-(10**6), 10**6, max_denominator=1000)


def narrowed(low: str, high: str, sql: str = MEDIAN, **asked: Any) -> PrivacyPlan:
    """The plan with leaves from ``low`` to ``high``."""
    one = StatisticFit(ends=(Fraction(low), Fraction(high)))
    return plan(sql, fits=(ReleaseFit(max_rows_per_group=20, max_groups=1, statistics=(one,)),), **asked)


# -- leaves ------------------------------------------------------------------------------------------------------------


@given(ends=st.tuples(_number, _number).map(sorted), limit=st.integers(5, 4096), whole=st.booleans())
def test_leaves_reach_over_all_values_and_are_no_more_than_may_be(ends: Any, limit: int, whole: bool) -> None:
    found = leaves_over(*ends, whole=whole, limit=limit)
    assert found.first <= ends[0]
    assert found.last >= ends[1]
    assert found.first > ends[0] - found.step
    assert found.last < ends[1] + 2 * found.step
    assert 1 <= found.count <= limit
    assert not whole or found.step.denominator == 1


@given(least=st.fractions(Fraction(1, 10**9), 10**9))
def test_a_step_is_round_and_not_much_more_than_it_has_to_be(least: Fraction) -> None:
    step = round_step(least)
    assert least <= step < Fraction(5, 2) * least
    assert str(step.numerator).rstrip("0") in "125"


# -- plans -------------------------------------------------------------------------------------------------------------


def test_leaves_are_finer_over_a_part_of_the_bounds_and_say_how_far_values_may_lie_beyond() -> None:
    (wide,), (narrow,) = plan(MEDIAN).releases, narrowed("20", "60").releases
    assert wide.tree is not None
    assert narrow.tree is not None
    assert (wide.statistics[0].granularity, narrow.statistics[0].granularity) == (Fraction(1, 2), Fraction(1, 100))
    assert (narrow.statistics[0].center, narrow.tree.leaves) == (20, 4001)
    assert (wide.tree.beyond, narrow.tree.beyond) == ((None, None), (0, 1000))


@pytest.mark.parametrize(("low", "high"), [("-5", "2000"), ("0", "1000")])
def test_leaves_never_lie_outside_of_the_public_bounds(low: str, high: str) -> None:
    assert narrowed(low, high).digest == narrowed("0", "1000").digest
    (release,) = narrowed(low, high).releases
    assert release.tree is not None
    assert release.tree.beyond == (None, None)


@pytest.mark.attacks("P2")
@pytest.mark.parametrize(
    ("low", "high"),
    [("1001", "1002"), ("-2", "-1"), ("60", "20"), ("0", str(CENTER_LIMIT + 1)), (f"1/{CENTER_LIMIT + 1}", "20")],
)
def test_ends_outside_of_the_bounds_or_out_of_range_are_refused(low: str, high: str) -> None:
    with pytest.raises(ParameterRefused, match="INSITU-PARAM-FITS"):
        narrowed(low, high)


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(made: PrivacyPlan, leaves: Mapping[int, int]) -> ResultTable:
    (release,) = made.releases
    rows = ExactCells(tuple((leaf, count * WEIGHT) for leaf, count in leaves.items()))
    with Postprocessor() as post:
        return post.run(made, merge(made, [(privatize(release, rows),)]))


def interval(found: ResultTable) -> tuple[Any, Any]:
    ((one,),) = found.intervals
    assert one is not None
    return one


def test_without_noise_a_quantile_lies_anywhere_in_its_leaf() -> None:
    found = answer(narrowed("20", "60", epsilon=HUGE), {0: 20, 1000: 900, 4000: 20})
    assert found.rows == ((30.0,),)
    assert interval(found) == pytest.approx((29.99525, 30.00475), abs=0.0005)
    assert found.warnings == ()


def test_a_quantile_of_whole_numbers_is_exactly_one() -> None:
    found = answer(plan("SELECT MEDIAN(stage) AS m FROM visit", epsilon=HUGE), {3: 900})
    assert interval(found) == (3.0, 3.0)


@pytest.mark.parametrize(("leaf", "value"), [(0, 20.0), (4000, 60.0)])
def test_a_quantile_in_the_first_or_last_leaf_has_no_interval_and_a_warning(leaf: int, value: float) -> None:
    found = answer(narrowed("20", "60", epsilon=HUGE), {leaf: 900, 1000: 20})
    assert found.rows == ((value,),)
    assert found.intervals == ((None,),)
    assert any("1 quantile(s) may lie beyond" in one for one in found.warnings)
    uncut = answer(narrowed("0", "1000", epsilon=HUGE), {0: 900})
    assert uncut.rows == ((0.0,),)
    assert interval(uncut) == pytest.approx((0.0, 0.2375), abs=0.02), "no value lies below the bounds"
    assert uncut.warnings == ()


def test_an_end_leaf_has_no_interval_under_noise_either() -> None:
    made = narrowed("20", "60", "SELECT PERCENTILE_CONT(cost, 0.9) AS m FROM visit", epsilon="1")
    drawn = [answer(made, {1000: 8_000, 4000: 2_000}) for _ in range(20)]
    ended = [found for found in drawn if found.rows == ((60.0,),)]
    assert len(ended) > 10
    assert all(found.intervals == ((None,),) for found in ended)


def test_an_interval_that_reaches_the_last_leaf_reaches_as_far_as_values_may_lie() -> None:
    """The last leaf has 50 rows less than the quantile needs, and noise of 85."""
    made = narrowed("20", "60", "SELECT PERCENTILE_CONT(cost, 0.9) AS m FROM visit", epsilon="1")
    drawn = [answer(made, {1000: 8_000, 3000: 1_050, 4000: 950}) for _ in range(10)]
    highs = [found.intervals[0][0][1] for found in drawn if found.intervals[0][0] is not None and found.rows[0][0] < 60]
    assert highs
    assert max(highs) == 1000.0
