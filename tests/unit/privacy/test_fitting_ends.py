"""Where leaves are laid by a profile: finer around the quantiles asked for, and nowhere that a researcher bounded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from insitu_privacy.data_profile import DataProfile
from insitu_privacy.plan import PrivacyPlan, Release

from tests.testkit.care import plan
from tests.unit.privacy.test_fitting import Counted, fit, heavy, profile

COSTS = [min(1000.0, float(one)) for one in np.random.default_rng(9).lognormal(2.5, 0.8, 20_000)]
"""Half of them below 12, where the declared bounds are 0 and 1000."""
SEEN: Counted = {("visit", "rows", None): heavy(), ("visit", "values", "cost"): COSTS}


def trees(made: PrivacyPlan) -> list[Release]:
    return [one for one in made.releases if one.tree is not None]


def asked(sql: str, known: DataProfile) -> tuple[Release, Release]:
    """The tree as it is without profiles, and as it is fitted."""
    before = plan(sql)
    found = fit(before, known).fits
    after = plan(sql, fits=found)
    return trees(before)[0], trees(after)[0]


def ends(release: Release) -> tuple[float, float]:
    (statistic,) = release.statistics
    assert release.tree is not None
    return float(statistic.center), float(statistic.center + statistic.granularity * (release.tree.leaves - 1))


@pytest.mark.parametrize("noise", [0.0, 12.0])
@pytest.mark.parametrize("keys", ["", "kind, ", "diagnosis, "])
def test_leaves_are_laid_where_values_are(noise: float, keys: str) -> None:
    group = " GROUP BY 1" if keys else ""
    before, after = asked(f"SELECT {keys}MEDIAN(cost) AS m FROM visit{group}", profile(SEEN, noise=noise))
    assert ends(before) == (0, 1000)
    assert after.statistics[0].granularity <= before.statistics[0].granularity / 4
    low, high = ends(after)
    kept = [low <= one <= high for one in COSTS]
    assert np.mean(kept) >= 0.97
    assert after.tree is not None
    assert after.tree.beyond[1] == 1000


def test_ends_are_as_far_as_the_outermost_quantile_needs() -> None:
    known = profile(SEEN)
    reach = [
        ends(asked(f"SELECT PERCENTILE_CONT(cost, {level}) AS q FROM visit", known)[1])[1] for level in (0.5, 0.9, 0.98)
    ]
    assert reach == sorted(reach)
    assert reach[0] < reach[2]
    both = ends(asked("SELECT MEDIAN(cost) AS m, PERCENTILE_CONT(cost, 0.98) AS q FROM visit", known)[1])
    assert both[1] == reach[2]


def test_the_end_that_a_greatest_value_is_looked_for_at_stays() -> None:
    low, high = ends(asked("SELECT MEDIAN(cost) AS m, MAX(cost) AS most FROM visit", profile(SEEN))[1])
    assert high == 1000
    assert low >= 0


@pytest.mark.parametrize("value", ["LEAST(cost, 400)", "GREATEST(cost, 2.0)", "1 + LEAST(cost, 400)", "cost * stage"])
def test_bounds_of_a_researcher_and_values_that_no_profile_has_stay(value: str) -> None:
    before, after = asked(f"SELECT MEDIAN({value}) AS m FROM visit", profile(SEEN))
    assert after.statistics[0].granularity == before.statistics[0].granularity
    assert after.tree == before.tree


def test_no_ends_are_named_where_leaves_are_as_fine_without() -> None:
    stages: Counted = {("visit", "rows", None): heavy(), ("visit", "values", "stage"): [2.0] * 900}
    made = plan("SELECT MEDIAN(stage) AS m FROM visit")
    assert all(one.ends is None for each in fit(made, profile(stages)).fits for one in each.statistics)
    wide: Counted = {**SEEN, ("visit", "values", "cost"): [float(one) for one in range(0, 1000, 5)]}
    before, after = asked("SELECT MEDIAN(cost) AS m FROM visit", profile(wide))
    assert after.statistics[0].granularity == before.statistics[0].granularity


def test_days_are_counted_by_themselves_however_few_are_seen() -> None:
    day = 17_000.0
    seen: Counted = {
        ("visit", "rows", None): heavy(),
        ("visit", "values", "start"): [day + at % 60 for at in range(900)],
    }
    before, after = asked("SELECT diagnosis, MEDIAN(start) AS m FROM visit GROUP BY 1", profile(seen))
    assert before.statistics[0].granularity > after.statistics[0].granularity >= Fraction(1)
    low, high = ends(after)
    assert low <= day - 16_436 <= high
