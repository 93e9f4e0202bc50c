"""Bounds that fit: near the best that could be chosen by who sees the data, though only profiles are read."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insitu_privacy.data_profile import DataProfile, Histogram, Measure, MeasureKind
from insitu_privacy.fits import ReleaseFit
from insitu_privacy.fitting import Fitting, Outlook, fitted
from insitu_privacy.fitting.curves import curve_of, grid
from insitu_privacy.passes.bounds import BOUND_LIMIT
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.profile_measures import questions

from tests.privacy.queries import QUERIES
from tests.testkit.care import care, parameters, plan

MEASURES = {(one.measure.table, one.measure.kind, one.measure.column): one.measure for one in questions(care())}
COUNT = "SELECT COUNT(*) AS n FROM visit"
Counted = Mapping[tuple[str, MeasureKind, str | None], list[float]]


def histogram(measure: Measure, values: list[float], noise: float = 0.0, seed: int = 1) -> Histogram:
    """The histogram of one number for each unit, with Laplace noise of a scale."""
    edges = np.array([float(edge) for edge in measure.edges])
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=measure.bins).astype(float)
    counts += np.random.default_rng(seed).laplace(0, noise, measure.bins) if noise else 0
    return Histogram(measure=measure, counts=tuple(counts.tolist()), deviation=noise * math.sqrt(2))


def profile(units: Counted, noise: float = 0.0) -> DataProfile:
    found = tuple(histogram(MEASURES[name], values, noise) for name, values in units.items())
    return DataProfile(dataset="care", dataset_digest=care().digest, histograms=found)


def heavy(persons: int = 20_000, seed: int = 3) -> list[float]:
    """Rows of each person: log-normal, some hundred at the most."""
    draw = random.Random(seed)
    return [max(1.0, round(draw.lognormvariate(1.65, 1.14))) for _ in range(persons)]


def fit(made: PrivacyPlan, known: DataProfile | None, nodes: int = 1, **asked: str | int) -> Fitting:
    return fitted(made, care(), known, parameters=parameters(**asked), accounting="zcdp", nodes=nodes)  # type: ignore[arg-type]


def only(found: Fitting) -> ReleaseFit:
    (one,) = found.fits
    return one


# ------------------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize("noise", [0.0, 12.0])
def test_a_curve_keeps_units_and_their_mean(noise: float) -> None:
    rows = heavy()
    curve = curve_of(histogram(MEASURES["visit", "rows", None], rows, noise))
    assert curve.total == pytest.approx(len(rows), rel=0.02)
    assert curve.mean == pytest.approx(sum(rows) / len(rows), rel=0.12 if noise else 0.03)


def test_noise_alone_is_nobody() -> None:
    curve = curve_of(histogram(MEASURES["visit", "rows", None], [], noise=12.0))
    assert curve.total == 0


def test_a_tail_that_is_lost_in_noise_is_drawn_out_but_not_to_the_last_bin() -> None:
    rows = heavy(100_000)
    curve = curve_of(histogram(MEASURES["visit", "rows", None], rows, noise=12.0))
    beyond = float(curve.units[curve.values > 256].sum())
    assert 0.2 * sum(one > 256 for one in rows) < beyond < 5 * sum(one > 256 for one in rows)
    assert float(curve.units[curve.values > 20_000].sum()) == 0


@pytest.mark.parametrize("seed", range(8))
def test_far_values_are_believed_beyond_a_hole(seed: int) -> None:
    """A ward that costs a hundred times as much: 7% of the persons, and few in between."""
    draw = np.random.default_rng(seed)
    sums = [*draw.lognormal(3.5, 0.8, 9_000), *draw.lognormal(3.5 + math.log(100), 0.8, 700)]
    curve = curve_of(histogram(MEASURES["visit", "sums", "cost"], sums, noise=20.0, seed=seed))
    far = [one for one in sums if one > 1_000]
    assert curve.share_between(1_000, 10**9) == pytest.approx(len(far) / len(sums), rel=0.35)
    assert curve.mean > 0.7 * sum(sums) / len(sums)


@pytest.mark.parametrize("seed", range(8))
def test_noise_beyond_a_hole_is_believed_by_nobody(seed: int) -> None:
    sums = np.random.default_rng(seed).lognormal(3.5, 0.8, 9_000).tolist()
    curve = curve_of(histogram(MEASURES["visit", "sums", "cost"], sums, noise=20.0, seed=seed))
    assert curve.share_between(20_000, 10**9) < 0.001


def test_a_grid_stands_for_all_units_once() -> None:
    levels, shares = grid()
    assert shares.sum() == pytest.approx(1)
    assert np.all(np.diff(levels) > 0)
    assert levels[-1] < 1


# -------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("epsilon", ["0.1", "1", "10"])
def test_rows_are_cut_nearly_where_who_sees_the_data_would_cut_them(epsilon: str) -> None:
    rows = np.array(heavy(50_000))
    total = float(rows.sum())

    def error(most: int) -> float:
        bias = 1 - float(np.minimum(rows, most).sum()) / total
        return math.hypot(bias, math.sqrt(2) * most / float(epsilon) / total)

    known = profile({("visit", "rows", None): rows.tolist()}, noise=12.0)
    chosen = only(fit(plan(COUNT, epsilon=epsilon), known, epsilon=epsilon)).max_rows_per_group
    assert error(chosen) <= 2 * min(error(most) for most in range(1, 1500, 7))


def test_more_noise_asks_for_tighter_bounds() -> None:
    known = profile({("visit", "rows", None): heavy()}, noise=12.0)
    found = [
        only(fit(plan(COUNT, epsilon=epsilon), known, epsilon=epsilon)).max_rows_per_group
        for epsilon in ("0.01", "0.1", "1", "10")
    ]
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize("sql", [COUNT, "SELECT SUM(cost) AS s, AVG(cost) AS a FROM visit"])
def test_without_noise_to_speak_of_nothing_is_cut(sql: str) -> None:
    rows = heavy()
    known = profile({("visit", "rows", None): rows, ("visit", "sums", "cost"): [one * 90 for one in rows]}, noise=12.0)
    made = plan(sql, epsilon="1e12")
    found = only(fitted(made, care(), known, parameters=parameters(epsilon="1e12"), accounting="pure", nodes=3))
    assert found.max_rows_per_group >= max(rows)
    for statistic, one in zip(made.releases[0].statistics, found.statistics, strict=True):
        assert one.linf is None or one.linf * statistic.granularity >= 90 * max(rows)


def test_a_sum_is_held_to_what_persons_sums_are() -> None:
    """A visit may cost 1,000, but nobody's cost more than 600 in all: no need to pay for m times 1,000."""
    rows = heavy()
    known = profile({("visit", "rows", None): rows, ("visit", "sums", "cost"): [min(600, 4 * one) for one in rows]})
    made = plan("SELECT AVG(cost) AS mean FROM visit")
    found = only(fit(made, known))
    total, _ = found.statistics
    assert total.linf is not None
    assert 60 <= total.linf * made.releases[0].statistics[0].granularity <= 1000
    assert total.center is not None
    assert 2 <= total.center <= 6


def test_groups_are_cut_where_a_person_has_many() -> None:
    rows = heavy()
    several: Counted = {
        ("visit", "rows", None): rows,
        ("visit", "distinct", "diagnosis"): [max(1.0, one // 2) for one in rows],
    }
    sql = "SELECT diagnosis, COUNT(DISTINCT person_id) AS n FROM visit GROUP BY diagnosis"
    found = only(fit(plan(sql), profile(several)))
    assert 1 < found.max_groups < 200
    alone: Counted = {**several, ("visit", "distinct", "diagnosis"): [1.0] * len(rows)}
    assert only(fit(plan(sql), profile(alone))).max_groups == 1


def test_a_threshold_that_hides_the_groups_is_paid_for() -> None:
    """Few groups and a long list of them to cut: what fits must not hide what it measures."""
    rows = heavy(3_000)
    known = profile(
        {("visit", "rows", None): rows, ("visit", "distinct", "diagnosis"): [min(6.0, one) for one in rows]}, noise=24.0
    )
    sql = "SELECT diagnosis, COUNT(*) AS n, COUNT(DISTINCT person_id) AS p FROM visit GROUP BY diagnosis"
    made = plan(sql, delta="1e-6")
    found = fit(made, known, nodes=3, delta="1e-6")
    chosen, (outlook,) = only(found), found.outlooks
    assert outlook is not None
    assert 3 <= chosen.max_groups <= 12
    assert chosen.max_rows_per_group >= 3, "groups above the threshold are large"
    assert outlook.choice.lost < 0.2
    persons = outlook.totals[[one.kind for one in made.releases[0].statistics].index("units")]
    planned = plan(sql, delta="1e-6", fits=found.fits).releases[0].threshold
    assert planned is not None
    assert persons > 3 * planned.tau, "a typical group is one that is released"


def test_groups_that_no_threshold_lets_through_are_lost() -> None:
    from insitu_privacy.fitting.passing import passing

    all_pass, none_pass = passing(10, 1e6, 20.0), passing(10, 50.0, 1000.0)
    assert all_pass.lost < 0.01 < 0.99 < none_pass.lost
    assert passing(10, 1000.0, 50.0).lost < passing(10, 1000.0, 200.0).lost
    assert 1 / 40 < all_pass.size < 1 / 3


def test_conditions_that_keep_few_rows_ask_for_tighter_bounds() -> None:
    known = profile({("visit", "rows", None): heavy()}, noise=12.0)
    few = f"{COUNT} WHERE diagnosis LIKE 'E1%' AND kind = 'er' AND ward = 3"
    assert only(fit(plan(few), known)).max_rows_per_group < only(fit(plan(COUNT), known)).max_rows_per_group


def test_a_researchers_own_bounds_stay() -> None:
    known = profile({("visit", "rows", None): heavy()}, noise=12.0)
    sql = "SELECT kind, COUNT(*) AS n, SUM(cost) AS s FROM visit GROUP BY kind"
    asked = {"max_rows_per_group": 3, "max_groups": 2}
    found = only(fit(plan(sql, **asked), known, **asked))
    assert (found.max_rows_per_group, found.max_groups) == (3, 2)
    assert all(one.linf is None for one in found.statistics)
    half = only(fit(plan(sql, max_groups=1), known, max_groups=1))
    assert half.max_groups == 1
    assert half.max_rows_per_group > 3


# ------------------------------------------------------------------------------------------- where values are expected


def outlook(sql: str, known: DataProfile) -> Outlook:
    (found,) = fit(plan(sql), known).outlooks
    assert found is not None
    return found


COSTS = [min(1000.0, float(one)) for one in np.random.default_rng(9).lognormal(4, 0.9, 20_000)]
SEEN: Counted = {("visit", "rows", None): heavy(), ("visit", "values", "cost"): COSTS}


def middle(sql: str, known: DataProfile) -> float:
    """The value below which half of the rows are expected."""
    (release,) = plan(sql).releases
    (statistic,) = release.statistics
    leaves = outlook(sql, known).leaf_shares(release)
    assert leaves is not None
    assert sum(leaves) == pytest.approx(1)
    place = int(np.searchsorted(np.cumsum(leaves), 0.5))
    return float(statistic.center + place * statistic.granularity)


@pytest.mark.parametrize("noise", [0.0, 12.0])
def test_the_values_of_a_quantile_are_expected_where_a_profile_has_them(noise: float) -> None:
    known = profile(SEEN, noise=noise)
    exact = float(np.median(COSTS))
    assert middle("SELECT MEDIAN(cost) AS m FROM visit", known) == pytest.approx(exact, rel=0.1)
    beyond = float(np.median([one for one in COSTS if one > 100]))
    assert middle("SELECT MEDIAN(cost) AS m FROM visit WHERE cost > 100", known) == pytest.approx(beyond, rel=0.15)
    half = "SELECT MEDIAN(1000 - LEAST(cost, 500.0)) FILTER (WHERE kind = 'in') AS m FROM visit"
    assert middle(half, known) == pytest.approx(1000 - exact, rel=0.1)


def test_whole_numbers_and_days_are_expected_at_themselves() -> None:
    day = 17_000.0  # 2016-07-18
    known = profile(
        {
            ("visit", "rows", None): heavy(),
            ("visit", "values", "stage"): [3.0] * 900 + [1.0] * 100,
            ("visit", "values", "start"): [day + place % 60 for place in range(900)],
        }
    )
    sql = "SELECT MEDIAN(stage) AS m FROM visit"
    stages = outlook(sql, known).leaf_shares(plan(sql).releases[0])
    assert stages is not None
    assert stages[3] > 0.7
    days = "SELECT MEDIAN(start) AS m FROM visit"
    origin = 16_436  # 2015-01-01
    assert middle(days, known) == pytest.approx(day + 30 - origin, abs=30)


def test_of_what_no_profile_has_nothing_is_expected() -> None:
    known = profile(SEEN)
    for value in ("stage", "cost * stage", "ROUND(cost, 1)"):
        assert outlook(f"SELECT MEDIAN({value}) AS m FROM visit", known).values is None


@pytest.mark.parametrize("sums", [False, True])
def test_a_variance_is_expected_from_values_and_their_squares_alike(sums: bool) -> None:
    several: Counted = {**SEEN, ("visit", "sums", "cost"): [2 * one for one in COSTS]} if sums else SEEN
    sql = "SELECT AVG(cost) AS m, VAR_POP(cost) AS v FROM visit"
    (release,) = plan(sql).releases
    found = outlook(sql, profile(several))
    steps = [float(one.granularity) for one in release.statistics]
    total, rows, squares = (one * step / found.rows for one, step in zip(found.totals, steps, strict=True))
    assert rows == pytest.approx(1)
    assert total == pytest.approx(float(np.mean(COSTS)), rel=0.1)
    assert squares - (total - 500) ** 2 == pytest.approx(float(np.var(COSTS)), rel=0.3)


# ------------------------------------------------------------------------------------------------------------- budget


def test_without_profiles_bounds_stay_and_the_budget_follows_what_each_statistic_needs() -> None:
    made = plan("SELECT kind, COUNT(*) AS n, SUM(cost) AS total FROM visit GROUP BY kind")
    (release,) = made.releases
    found = only(fit(made, None))
    assert (found.max_rows_per_group, found.max_groups) == (3, 2)
    assert all(one.linf is None and one.center is None for one in found.statistics)
    assert len({one.weight for one in found.statistics}) > 1
    assert fit(made, None).outlooks == (None,)
    assert fit(plan(COUNT), None).fits == (), "one count: there is nothing to share"
    assert release.cells == 3


def test_releases_share_by_the_size_of_their_groups() -> None:
    sql = """SELECT g.n * 1.0 / t.n AS share FROM (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) AS g,
        (SELECT COUNT(*) AS n FROM visit) AS t"""
    first, second = fit(plan(sql), None).fits
    assert first.statistics[0].weight > second.statistics[0].weight


def test_the_same_inputs_give_the_same_bounds() -> None:
    known = profile({("visit", "rows", None): heavy()}, noise=12.0)
    for sql in (COUNT, QUERIES["sums and averages"]):
        assert fit(plan(sql), known).fits == fit(plan(sql), replace(known)).fits


SOME = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SOME
@given(data=st.data(), name=st.sampled_from(sorted(QUERIES)), epsilon=st.sampled_from(["0.001", "1", "1e6"]))
def test_whatever_a_profile_says_the_bounds_can_be_planned(data: st.DataObject, name: str, epsilon: str) -> None:
    """Negative counts, noise alone, one huge bin: bounds are within their limits, and the plan costs what was asked."""
    draw = st.one_of(st.just(0.0), st.floats(-1e6, 1e9, allow_nan=False, width=32))
    measures = data.draw(st.lists(st.sampled_from(sorted(MEASURES, key=str)), unique=True))
    found = DataProfile(
        dataset="care",
        dataset_digest=care().digest,
        histograms=tuple(
            Histogram(
                measure=MEASURES[one],
                counts=tuple(data.draw(st.lists(draw, min_size=MEASURES[one].bins, max_size=MEASURES[one].bins))),
                deviation=data.draw(st.sampled_from([0.0, 17.0, 1e6])),
            )
            for one in measures
        ),
    )
    made = plan(QUERIES[name], epsilon=epsilon)
    fits = fit(made, found, epsilon=epsilon).fits
    for one in fits:
        assert 1 <= one.max_rows_per_group <= BOUND_LIMIT
        assert 1 <= one.max_groups <= BOUND_LIMIT
    again = plan(QUERIES[name], epsilon=epsilon, fits=fits)
    assert again.loss.epsilon == Fraction(epsilon)
    assert [one.keys for one in again.releases] == [one.keys for one in made.releases]
