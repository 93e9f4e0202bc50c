"""Pass 9: scales pay for losses, in exact arithmetic; thresholds hide a person alone; auto takes the better mechanism.

The claims are then put to OpenDP's own maps, for random sensitivities and budgets.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.errors import ExecutionFailed, ParameterRefused
from insitu_privacy.mechanisms import check_claims
from insitu_privacy.passes.bounds import Bounded
from insitu_privacy.passes.mechanisms import Demand, Noise, mechanisms
from insitu_privacy.passes.statistics import Wanted
from insitu_privacy.plan import Release
from sqlglot import exp

from tests.testkit.care import parameters, plan

SOME = settings(max_examples=30, deadline=None)
_NODE = exp.Count()


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    linfs = draw(st.lists(st.sampled_from([1, 3, 20, 10**6, 2**40]), min_size=1, max_size=5))
    selects = draw(st.booleans())
    measured = [
        Bounded(wanted=Wanted("sum", None, _NODE), granularity=Fraction(1), center=Fraction(0), most=linf, linf=linf)
        for linf in linfs
    ]
    if selects:
        measured.append(
            Bounded(wanted=Wanted("units", None, _NODE), granularity=Fraction(1), center=Fraction(0), most=1, linf=1)
        )
    return Demand(
        measured=tuple(measured),
        values=(None,) * len(measured),
        weights=tuple(draw(st.sampled_from([1, 2, 1000, 10**6])) for _ in measured),
        bounds=ContributionBounds(max_rows_per_group=1, max_groups=draw(st.sampled_from([1, 2, 7, 100, 5000]))),
        selects_keys=selects,
        parameters=parameters(
            epsilon=draw(st.sampled_from(["0.001", "0.1", "1/3", "1", "7", "50"])),
            delta=draw(st.sampled_from(["1e-4", "1e-6", "1e-9", "1/3000"])),
        ),
        accounting="zcdp",
    )


def option(demand: Demand, mechanism: Any) -> Noise:
    """The noise of one mechanism; budgets that it cannot work with are passed over."""
    try:
        return mechanisms(replace(demand, parameters=replace(demand.parameters, mechanism=mechanism)))
    except ParameterRefused:
        assume(False)
        raise


@SOME
@given(demand=demands())
def test_laplace_scales_pay_for_their_epsilons_and_these_add_up(demand: Demand) -> None:
    noise = option(demand, "laplace")
    for one, bounded in zip(noise.statistics, demand.measured, strict=True):
        assert one.scale * one.epsilon >= demand.bounds.max_groups * bounded.linf
        assert one.scale <= Fraction(demand.bounds.max_groups * bounded.linf) / one.epsilon + Fraction(1, 10**9)
        assert one.rho >= one.epsilon**2 / 2
    assert sum(one.epsilon for one in noise.statistics) <= demand.parameters.epsilon
    assert noise.loss.epsilon == noise.loss.pure == demand.parameters.epsilon
    assert noise.loss.rho >= sum(one.rho for one in noise.statistics)
    assert noise.loss.delta == noise.loss.threshold_delta <= demand.parameters.delta


@SOME
@given(demand=demands())
def test_gaussian_scales_pay_for_their_rho_and_the_sum_converts_to_epsilon_and_delta(demand: Demand) -> None:
    noise = option(demand, "gaussian")
    for one, bounded in zip(noise.statistics, demand.measured, strict=True):
        assert one.scale**2 * 2 * one.rho >= demand.bounds.max_groups * bounded.linf**2
        assert (
            float(one.scale) <= bounded.linf * math.sqrt(demand.bounds.max_groups / (2 * float(one.rho))) * 1.001 + 1e-9
        )
    rho = sum(one.rho for one in noise.statistics)
    assert noise.loss.rho >= rho
    left = float(demand.parameters.delta - noise.loss.threshold_delta)
    assert left > 0
    converted = float(rho) + 2 * math.sqrt(float(rho) * math.log(1 / left))
    assert converted <= float(demand.parameters.epsilon) * (1 + 1e-9)
    assert converted >= float(demand.parameters.epsilon) * 0.98, "budget is left unused"
    assert noise.loss.pure is None
    assert noise.loss.delta == demand.parameters.delta


@SOME
@given(demand=demands())
def test_auto_is_never_worse_than_either_fixed_choice(demand: Demand) -> None:
    def error(noise: Noise) -> float:
        """What the weights are the best shares for: the sum of variances, each in the importance its weight gives it."""
        factor = 2 if noise.mechanism == "laplace" else 1
        pairs = zip(noise.statistics, demand.weights, strict=True)
        return sum(factor * weight**3 * (float(one.scale) / one.linf) ** 2 for one, weight in pairs)

    auto = error(option(demand, "auto"))
    for mechanism in ("laplace", "gaussian"):
        try:
            fixed = error(mechanisms(replace(demand, parameters=replace(demand.parameters, mechanism=mechanism))))
        except ParameterRefused:
            continue
        assert auto <= fixed * (1 + 1e-6)


@SOME
@given(demand=demands())
def test_weights_are_the_best_shares_for_the_error_they_stand_for(demand: Demand) -> None:
    def error(noise: Noise) -> float:
        pairs = zip(noise.statistics, demand.weights, strict=True)
        return sum(weight**3 * (float(one.scale) / one.linf) ** 2 for one, weight in pairs)

    equal = replace(demand, weights=(1,) * len(demand.weights))
    for mechanism in ("laplace", "gaussian"):
        assert error(option(demand, mechanism)) <= error(option(equal, mechanism)) * (1 + 1e-3)


def exact_tail(mechanism: str, scale: float, tau: int) -> float:
    """P(noise >= tau), summed."""
    weight = (
        (lambda k: math.exp(-abs(k) / scale))
        if mechanism == "laplace"
        else (lambda k: math.exp(-((k / scale) ** 2) / 2))
    )
    reach = int(60 * scale) + tau + 60
    total = sum(weight(k) for k in range(-reach, reach + 1))
    return sum(weight(k) for k in range(reach, tau - 1, -1)) / total


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize(("epsilon", "delta", "groups"), [("1", "1e-6", 1), ("0.5", "1e-4", 5), ("8", "1e-9", 20)])
def test_a_group_of_one_person_is_shown_with_probability_delta_at_most_and_tau_is_the_least(
    mechanism: Any, epsilon: str, delta: str, groups: int
) -> None:
    made = plan(
        "SELECT diagnosis, COUNT(*) FROM visit GROUP BY 1",
        mechanism=mechanism,
        epsilon=epsilon,
        delta=delta,
        max_groups=groups,
    )
    (release,) = made.releases
    assert release.threshold is not None
    scale = float(release.statistics[release.threshold.statistic].scale)
    allowed = float(release.threshold.delta) / groups
    assert exact_tail(mechanism, scale, release.threshold.tau) <= allowed
    assert exact_tail(mechanism, scale, release.threshold.tau - 2) > allowed, "the threshold hides more than it must"


def release_of(demand: Demand, noise: Noise) -> Release:
    (base,) = plan("SELECT diagnosis, COUNT(*) FROM visit GROUP BY 1").releases
    return replace(
        base, bounds=demand.bounds, statistics=noise.statistics, mechanism=noise.mechanism, threshold=noise.threshold
    )


@SOME
@given(demand=demands(), mechanism=st.sampled_from(["laplace", "gaussian"]))
def test_opendp_agrees_with_every_claim(demand: Demand, mechanism: Any) -> None:
    release = release_of(demand, option(demand, mechanism))
    check_claims(release)


@SOME
@given(demand=demands(), mechanism=st.sampled_from(["laplace", "gaussian"]), data=st.data())
def test_opendp_refuses_a_scale_that_is_a_tenth_too_small(demand: Demand, mechanism: Any, data: st.DataObject) -> None:
    release = release_of(demand, option(demand, mechanism))
    place = data.draw(st.integers(0, len(release.statistics) - 1))
    smaller = replace(release.statistics[place], scale=release.statistics[place].scale * Fraction(9, 10))
    statistics = (*release.statistics[:place], smaller, *release.statistics[place + 1 :])
    with pytest.raises(ExecutionFailed) as failed:
        check_claims(replace(release, statistics=statistics))
    assert failed.value.code == "INSITU-MECHANISM-CLAIM"


@SOME
@given(demand=demands(), mechanism=st.sampled_from(["laplace", "gaussian"]))
def test_opendp_refuses_a_larger_sensitivity_and_a_lower_threshold(demand: Demand, mechanism: Any) -> None:
    release = release_of(demand, option(demand, mechanism))
    wider = replace(release, bounds=replace(release.bounds, max_groups=release.bounds.max_groups * 2))
    with pytest.raises(ExecutionFailed):
        check_claims(wider)
    if release.threshold is not None and release.threshold.tau > 20:
        lower = replace(release.threshold, tau=release.threshold.tau * 9 // 10)
        with pytest.raises(ExecutionFailed):
            check_claims(replace(release, threshold=lower))
