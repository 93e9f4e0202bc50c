"""The custodian's rules C1 to C5: pure decisions, and the file they are written in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_access.grant import Grant, GrantedDataset
from insitu_access.keys import generate_signing_key
from insitu_node.config import load_config
from insitu_node.policy import Cap, Decision, Policy, QuietHours, Rule, budget, check_now, standing
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.unit.node.test_config import GOOD, write

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
GRANT = Grant(
    id="grant-1",
    federation="demo",
    project="stays",
    purpose="Length of stay",
    reference="CEREES-1",
    researchers=(generate_signing_key().public(),),
    datasets=(GrantedDataset(name="care"),),
    nodes=("chu-lille",),
    not_before=NOW - timedelta(days=1),
    expires_at=NOW + timedelta(days=10),
    epsilon=Fraction(2),
    delta=Fraction(1, 10**6),
    accounting="zcdp",
    purpose_code="public-health",
    results=frozenset({"counts"}),
)
EVERY = Policy(rules=(Rule(every_grant=True),))


def decision(verdict: Any = "approved", **changes: Any) -> Decision:
    made = Decision(grant_id="grant-1", revision=1, verdict=verdict, cap=Cap(), reason="", by="custodian", at=NOW)
    return replace(made, **changes)


def refused(*args: Any) -> str:
    with pytest.raises(AccessRefused) as error:
        standing(*args)
    return error.value.code


def test_an_empty_policy_approves_nothing() -> None:
    assert refused(GRANT, None, Policy()) == "INSITU-NODE-APPROVAL"
    assert standing(GRANT, decision(), Policy()).approved_by == "custodian"


def test_a_rule_that_names_nothing_fits_nothing() -> None:
    assert not Rule().fits(GRANT)
    assert refused(GRANT, None, Policy(rules=(Rule(),))) == "INSITU-NODE-APPROVAL"


@pytest.mark.attacks("C2")
def test_a_denial_and_a_withdrawal_stand_above_any_rule() -> None:
    assert refused(GRANT, decision("denied"), EVERY) == "INSITU-NODE-DENIED"
    assert refused(GRANT, decision("withdrawn"), EVERY) == "INSITU-NODE-WITHDRAWN"


def test_an_approval_is_of_one_revision() -> None:
    later = replace(GRANT, revision=2)
    assert refused(later, decision(), Policy()) == "INSITU-NODE-APPROVAL"
    assert standing(later, decision(), EVERY).approved_by == "rule"
    assert standing(later, decision(revision=2), Policy()).approved_by == "custodian"


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(purposes=frozenset({"public-health", "x"})), True),
        (Rule(purposes=frozenset({"x"})), False),
        (Rule(datasets=frozenset({"care"})), True),
        (Rule(datasets=frozenset({"claims"})), False),
        (Rule(results=frozenset({"counts", "sums"})), True),
        (Rule(results=frozenset({"sums"})), False),
        (Rule(max_epsilon=Fraction(2)), True),
        (Rule(max_epsilon=Fraction(199, 100)), False),
        (Rule(max_delta=Fraction(1, 10**7)), False),
        (Rule(purposes=frozenset({"public-health"}), max_epsilon=Fraction(1)), False),
        (Rule(purposes=frozenset({"x"}), every_grant=True), False),
    ],
)
def test_a_rule_fits_when_all_that_it_names_does(rule: Rule, *, fits: bool) -> None:
    assert rule.fits(GRANT) is fits


def test_a_grant_of_all_results_fits_no_rule_on_results() -> None:
    assert not Rule(results=frozenset({"counts"})).fits(replace(GRANT, results=None))


def test_the_budget_is_the_least_of_grant_decision_and_policy() -> None:
    capped = Policy(cap=Cap(epsilon=Fraction(1)))
    found = standing(GRANT, decision(cap=Cap(epsilon=Fraction(3, 2), delta=Fraction(0))), capped)
    assert (budget(GRANT, found.cap).epsilon, budget(GRANT, found.cap).delta) == (1, 0)
    assert budget(GRANT, standing(GRANT, decision(), Policy()).cap).epsilon == GRANT.epsilon
    assert budget(GRANT, Cap(epsilon=Fraction(9))).epsilon == GRANT.epsilon


NIGHT = QuietHours(start=time(22), end=time(6), zone=ZoneInfo("Europe/Paris"))


@pytest.mark.parametrize(
    ("at", "quiet"),
    [("20:59", False), ("21:00", True), ("23:30", True), ("04:59", True), ("05:00", False), ("12:00", False)],
)
def test_quiet_hours_are_of_the_custodians_clock_and_may_pass_midnight(at: str, *, quiet: bool) -> None:
    hour, minute = map(int, at.split(":"))
    assert NIGHT.holds(datetime(2026, 1, 15, hour, minute, tzinfo=UTC)) is quiet  # Paris is an hour ahead


def test_quiet_hours_are_told_and_a_rate_is_kept() -> None:
    with pytest.raises(AccessRefused) as quiet:
        check_now(Policy(quiet=(NIGHT,)), datetime(2026, 1, 15, 23, tzinfo=UTC), ())
    assert quiet.value.code == "INSITU-NODE-QUIET"
    assert "22:00" in quiet.value.text
    limited = Policy(queries_per_hour=2)
    check_now(limited, NOW, [NOW - timedelta(minutes=70), NOW - timedelta(minutes=1)])
    with pytest.raises(AccessRefused) as rate:
        check_now(limited, NOW, [NOW - timedelta(minutes=59), NOW - timedelta(minutes=1)])
    assert rate.value.code == "INSITU-NODE-RATE"


@given(ages=st.lists(st.integers(0, 7200), max_size=20), most=st.integers(1, 10))
def test_never_more_in_any_hour_than_the_policy_takes(ages: list[int], most: int) -> None:
    recent = [NOW - timedelta(seconds=age) for age in ages]
    within = sum(age < 3600 for age in ages)
    try:
        check_now(Policy(queries_per_hour=most), NOW, recent)
    except AccessRefused:
        assert within >= most
    else:
        assert within < most


WRITTEN = """
[policy]
max_epsilon = 0.1
max_delta = "1/3"
queries_per_hour = 60
quiet_hours = ["22:00-06:00", "12:00-12:30"]
time_zone = "Europe/Paris"
manifest_max_age_hours = 72
jurisdictions = ["FR", "EU"]
[[policy.approve]]
purposes = ["public-health"]
max_epsilon = 1
[[policy.approve]]
every_grant = true
"""


def test_the_policy_is_read_exactly(tmp_path: Path) -> None:
    policy = load_config(write(tmp_path, GOOD + WRITTEN)).policy
    assert policy.cap == Cap(epsilon=Fraction(1, 10), delta=Fraction(1, 3))
    assert policy.rules == (
        Rule(purposes=frozenset({"public-health"}), max_epsilon=Fraction(1)),
        Rule(every_grant=True),
    )
    assert (policy.queries_per_hour, policy.manifest_max_age) == (60, timedelta(hours=72))
    assert policy.jurisdictions == {"FR", "EU"}
    assert [quiet.start for quiet in policy.quiet] == [time(22), time(12)]


def test_no_policy_is_the_empty_policy(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, GOOD)).policy == Policy()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_epsilon = 0.1", "max_epsilon = -1"),
        ("max_epsilon = 0.1", "max_epsilon = nan"),
        ("max_epsilon = 0.1", 'max_epsilon = "much"'),
        ("queries_per_hour = 60", "queries_per_hour = 0"),
        ("queries_per_hour = 60", "querys_per_hour = 1"),
        ('"22:00-06:00"', '"22-6"'),
        ('"22:00-06:00"', '"22:00-22:00"'),
        ("Europe/Paris", "Europe/Pariss"),
        ("manifest_max_age_hours = 72", "manifest_max_age_hours = 0"),
        ('"FR", "EU"', '"FR", "Europe"'),
        ('"FR", "EU"', '"fr"'),
        ("every_grant = true", "every_grant = false"),
        ("every_grant = true", 'every_grant = true\npurposes = ["x"]'),
        ("every_grant = true", 'results = ["everything"]'),
        ("every_grant = true", ""),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ConfigInvalid) as error:
        load_config(write(tmp_path, (GOOD + WRITTEN).replace(old, new)))
    assert "policy" in error.value.text
