"""Bounds that a request names for its releases: they bind as said, and those that are not the query's are refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.fits import CENTER_LIMIT, LINF_LIMIT, WEIGHT_LIMIT, ReleaseFit, StatisticFit

from tests.testkit.care import plan

AVERAGE = "SELECT AVG(cost) AS mean FROM visit"


def fit(*statistics: StatisticFit, rows: int = 7, groups: int = 3) -> ReleaseFit:
    return ReleaseFit(max_rows_per_group=rows, max_groups=groups, statistics=statistics)


def test_bounds_center_and_shares_are_those_of_the_request() -> None:
    sum_, count = StatisticFit(weight=3, linf=1000, center=Fraction(40)), StatisticFit(weight=1)
    (release,) = plan(AVERAGE, fits=(fit(sum_, count),), delta="0").releases
    assert (release.bounds.max_rows_per_group, release.bounds.max_groups) == (7, 1)
    total, rows = release.statistics
    assert (total.kind, total.linf, total.center) == ("sum", 1000, 40)
    assert (rows.kind, rows.linf) == ("rows", 7)
    assert total.epsilon == 3 * rows.epsilon == Fraction(3, 4)


def test_a_cap_above_what_rows_may_add_changes_nothing() -> None:
    plain = plan(AVERAGE, max_rows_per_group=7, delta="0").releases[0]
    wide = plan(AVERAGE, fits=(fit(StatisticFit(linf=LINF_LIMIT), StatisticFit()),), delta="0").releases[0]
    assert wide.statistics[0].linf == plain.statistics[0].linf == 7 * plain.statistics[0].most


def test_a_center_is_taken_from_within_the_bounds_of_the_values() -> None:
    for center in (Fraction(-(10**9)), Fraction(10**9)):
        (release,) = plan(AVERAGE, fits=(fit(StatisticFit(center=center), StatisticFit()),)).releases
        assert 0 <= release.statistics[0].center <= 1000


@pytest.mark.parametrize(
    "fits",
    [
        (fit(StatisticFit()),),
        (fit(StatisticFit(), StatisticFit(), StatisticFit()),),
        (fit(StatisticFit(), StatisticFit()), fit(StatisticFit())),
        (fit(StatisticFit(weight=0), StatisticFit()),),
        (fit(StatisticFit(weight=WEIGHT_LIMIT + 1), StatisticFit()),),
        (fit(StatisticFit(linf=0), StatisticFit()),),
        (fit(StatisticFit(center=Fraction(CENTER_LIMIT + 1)), StatisticFit()),),
    ],
    ids=["too few", "too many", "another release", "no weight", "too heavy", "no cap", "far away"],
)
@pytest.mark.attacks("P2")
def test_bounds_that_are_not_this_querys_are_refused(fits: tuple[ReleaseFit, ...]) -> None:
    with pytest.raises(ParameterRefused, match="INSITU-PARAM-FITS"):
        plan(AVERAGE, fits=fits)


@pytest.mark.parametrize(("rows", "groups"), [(0, 1), (1, 0), (2 * 10**6, 1)])
def test_bounds_out_of_range_are_refused_as_any_are(rows: int, groups: int) -> None:
    with pytest.raises(ParameterRefused, match="INSITU-PARAM-BOUND"):
        plan(AVERAGE, fits=(fit(StatisticFit(), StatisticFit(), rows=rows, groups=groups),))


def test_shares_of_several_releases_are_as_their_weights() -> None:
    sql = "SELECT (SELECT COUNT(*) FROM visit) AS visits, (SELECT COUNT(*) FROM person) AS persons"
    one = replace(fit(StatisticFit(weight=9)), max_groups=1)
    two = replace(fit(StatisticFit(weight=1)), max_rows_per_group=1, max_groups=1)
    made = plan(sql, fits=(one, two), mechanism="laplace")
    assert [release.statistics[0].epsilon for release in made.releases] == [Fraction(9, 10), Fraction(1, 10)]
    assert made.loss.epsilon == 1
