"""The noise itself: OpenDP's threshold fault and the correction, the law of what is drawn, and what is never shown."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import opendp.prelude as dp
import pytest
from insitu_privacy.errors import ExecutionFailed
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.plan import Release
from scipy import stats

from tests.testkit.care import plan

PUBLIC = "SELECT birth_year, sex, region, active, COUNT(*) FROM person GROUP BY 1, 2, 3, 4"
PRIVATE = "SELECT diagnosis, COUNT(DISTINCT person_id) FROM visit GROUP BY diagnosis"
NO_ROWS = ExactCells(rows=())


def release(sql: str, **asked: Any) -> Release:
    (only,) = plan(sql, **asked).releases
    return only


# -- the fault of opendp 0.16.0 ----------------------------------------------------------------------------------------

KEYS = 25_000


def laplace_threshold(scale: float, threshold: int) -> Any:
    space = (
        dp.map_domain(dp.atom_domain(T="i64"), dp.atom_domain(T="i64")),
        dp.l01inf_distance(dp.absolute_distance(T="i64")),
    )
    return dp.m.make_laplace_threshold(*space, scale, threshold)


def tail(scale: float, tau: int) -> float:
    """P(noise >= tau) of discrete Laplace."""
    return math.exp(-tau / scale) / (1 + math.exp(-1 / scale))


def is_binomial(count: int, probability: float) -> bool:
    """Whether a count of KEYS trials is one that such a probability gives, but for one time in a million."""
    return bool(stats.binomtest(count, KEYS, probability).pvalue > 1e-6)


def test_opendp_releases_counts_at_its_threshold_and_claims_delta_for_counts_above_it() -> None:
    """If this fails, OpenDP has changed: the correction in ``mechanisms`` must be reconsidered."""
    measurement = laplace_threshold(1.0, 5)
    _, claimed = measurement.map((1, 1, 1))
    shown = len(measurement(dict.fromkeys(range(KEYS), 1)))
    assert claimed == pytest.approx(tail(1.0, 5), rel=1e-3)
    assert is_binomial(shown, tail(1.0, 4))
    assert not is_binomial(shown, tail(1.0, 5))


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_a_group_of_one_person_is_shown_no_more_often_than_the_plan_says(mechanism: Any) -> None:
    chosen = release(PRIVATE, mechanism=mechanism, epsilon="2", delta="1/50", max_groups=1)
    assert chosen.threshold is not None
    lonely = ExactCells(rows=tuple((str(place), 1) for place in range(KEYS)))
    shown = privatize(chosen, lonely).keys
    assert shown is not None
    delta = float(chosen.threshold.delta)
    assert stats.binomtest(len(shown), KEYS, delta, alternative="greater").pvalue > 1e-6
    # tau is whole: the true probability is up to three times less than delta; one step higher, this would be seen
    rare = stats.binomtest(len(shown), KEYS, delta / 4, alternative="less").pvalue <= 1e-6
    assert not rare, "the threshold is far higher than the plan says"


def test_the_correction_is_one_step_of_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """At tau itself OpenDP would show a person alone more often than claimed: the test above would see it."""
    chosen = release(PRIVATE, mechanism="laplace", epsilon="2", delta="1/50", max_groups=1)
    assert chosen.threshold is not None
    scale = float(chosen.statistics[0].scale)
    uncorrected = len(laplace_threshold(scale, chosen.threshold.tau)(dict.fromkeys(range(KEYS), 1)))
    corrected = len(laplace_threshold(scale, chosen.threshold.tau + 1)(dict.fromkeys(range(KEYS), 1)))
    delta = float(chosen.threshold.delta)
    assert stats.binomtest(uncorrected, KEYS, delta, alternative="greater").pvalue < 1e-6
    assert stats.binomtest(corrected, KEYS, delta, alternative="greater").pvalue > 1e-6


# -- the law of the noise ----------------------------------------------------------------------------------------------


def fits(sample: np.ndarray[Any, Any], mechanism: str, scale: float) -> bool:
    """Its shape (Kolmogorov-Smirnov, after spreading integers evenly over their unit) and its width, of 3,000 draws."""
    spread = sample + np.random.default_rng(1).uniform(-0.5, 0.5, len(sample))
    law = stats.laplace(scale=scale) if mechanism == "laplace" else stats.norm(scale=scale)
    width = np.abs(sample).mean() if mechanism == "laplace" else sample.std()
    return bool(stats.kstest(spread, law.cdf).pvalue > 1e-6 and abs(width / scale - 1) < 0.12)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("exact", [0, 1_000_000])
def test_noise_has_the_claimed_law_and_not_one_that_is_thirty_percent_off(mechanism: Any, exact: int) -> None:
    chosen = release(PUBLIC, mechanism=mechanism, epsilon="0.02")
    rows = tuple((*key, exact) for key in cells_of(chosen)) if exact else ()
    (values,) = privatize(chosen, ExactCells(rows=rows)).statistics
    noise = np.array(values, dtype=float) - exact
    scale = float(chosen.statistics[0].scale)
    assert len(values) == chosen.cells == 131 * 2 * 4 * 3
    assert fits(noise, mechanism, scale)
    assert not fits(noise, mechanism, scale * 1.3)
    assert not fits(noise, mechanism, scale * 0.7)


def test_noise_on_selected_groups_has_the_claimed_law_too() -> None:
    chosen = release(
        "SELECT diagnosis, COUNT(*) FROM visit GROUP BY diagnosis", mechanism="laplace", epsilon="0.05", delta="1e-6"
    )
    assert chosen.threshold is not None
    rows = tuple((f"{place:04}", 10**6, 10**5) for place in range(3000))
    released = privatize(chosen, ExactCells(rows=rows))
    assert released.keys == tuple((row[0],) for row in rows)
    for exact, values, statistic in zip((10**6, 10**5), released.statistics, chosen.statistics, strict=True):
        noise = np.array(values, dtype=float) - exact
        assert fits(noise, "laplace", float(statistic.scale))
        assert not fits(noise, "laplace", float(statistic.scale) * 1.3)
        assert not fits(noise, "laplace", float(statistic.scale) * 0.7)


def test_cells_and_statistics_have_noise_of_their_own() -> None:
    chosen = release(
        "SELECT birth_year, COUNT(*), SUM(score) FROM person GROUP BY 1", mechanism="gaussian", epsilon="0.1"
    )
    first, second = (np.array(row, dtype=float) for row in privatize(chosen, NO_ROWS).statistics)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.5
    again = privatize(chosen, NO_ROWS).statistics[0]
    assert tuple(again) != tuple(first)


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.mark.attacks("P3")
@pytest.mark.parametrize("sql", [PUBLIC, PRIVATE])
@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
def test_nothing_is_drawn_where_the_scale_is_a_tenth_too_small(sql: str, mechanism: Any) -> None:
    chosen = release(sql, mechanism=mechanism, delta="1e-4")
    privatize(chosen, NO_ROWS)
    first = chosen.statistics[0]
    weak = replace(chosen, statistics=(replace(first, scale=first.scale * Fraction(9, 10)), *chosen.statistics[1:]))
    with pytest.raises(ExecutionFailed) as failed:
        privatize(weak, NO_ROWS)
    assert failed.value.code == "INSITU-MECHANISM-CLAIM"
    assert failed.value.text == "the query failed at the node"


# -- what comes in and what comes out ----------------------------------------------------------------------------------

HUGE = "1e15"
"""An epsilon at which noise is nought, to see what is under it."""


def cells_of(chosen: Release) -> list[tuple[Any, ...]]:
    from itertools import product

    return list(product(*(key.domain or () for key in chosen.keys)))


def test_public_cells_stand_in_the_order_of_their_domains_and_absent_groups_count_zero() -> None:
    chosen = release("SELECT kind, stage > 2 AS late, COUNT(*) FROM visit GROUP BY 1, 2", epsilon=HUGE)
    rows = (("out", True, 5), ("er", None, 7), ("in", False, Decimal(3)), ("zz", True, 99), (None, False, 99))
    released = privatize(chosen, ExactCells(rows=rows))
    assert released.keys is None
    assert released.statistics == ((7, 0, 0, 0, 3, 0, 0, 0, 5),)


def test_selected_keys_come_sorted_as_json_scalars_whatever_order_rows_came_in() -> None:
    chosen = release("SELECT noted, ward, COUNT(DISTINCT person_id) FROM visit GROUP BY 1, 2", epsilon=HUGE)
    rows = [
        (date(2021, 1, 1), 2, 900),
        (None, 1, 800),
        (date(2020, 1, 1), None, 700),
        (date(2020, 1, 1), -5, 600),
        (date(2020, 6, 1), 1, 1),
    ]
    expected = ((None, 1), ("2020-01-01", None), ("2020-01-01", -5), ("2021-01-01", 2))
    for order in (rows, rows[::-1]):
        released = privatize(chosen, ExactCells(rows=tuple(order)))
        assert released.keys == expected
        assert released.statistics == ((800, 700, 600, 900),)


def test_a_negative_zero_is_never_told_from_zero() -> None:
    chosen = release("SELECT weight, COUNT(DISTINCT person_id) FROM visit GROUP BY 1", epsilon=HUGE)
    for zero in (0.0, -0.0):
        keys = privatize(chosen, ExactCells(rows=((zero, 500),))).keys
        assert str(keys) == "((0.0,),)"


def test_sums_beyond_64_bits_are_saturated_and_not_an_error() -> None:
    chosen = release("SELECT SUM(stage) FROM visit", epsilon=HUGE)
    for value in (2**70, -(2**70), Decimal(2**80)):
        ((released,),) = privatize(chosen, ExactCells(rows=((value,),))).statistics
        assert abs(released) >= 2**62 - 10**6
        assert (released > 0) == (value > 0)


def test_a_release_of_no_cells_is_empty() -> None:
    chosen = release("SELECT kind, COUNT(*) FROM visit WHERE kind = 'zz' GROUP BY kind")
    assert chosen.cells == 0
    assert privatize(chosen, ExactCells(rows=(("zz", 4),))).statistics == ((),)


def test_no_groups_at_all_release_nothing() -> None:
    released = privatize(release(PRIVATE), NO_ROWS)
    assert released.keys == ()
    assert released.statistics == ((),)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format])
def test_exact_cells_never_show_themselves(show: Any) -> None:
    cells = ExactCells(rows=(("secret", 4711),))
    text = show(cells) + show([cells]) + show({"x": cells})
    assert "secret" not in text
    assert "4711" not in text
