"""The privacy filter: exact addition, both regions of the union, and Google's dp_accounting as a second opinion."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    LaplaceDpEvent,
    NeighboringRelation,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu_privacy.accounting import (
    ZERO_SPENT,
    Grantable,
    Spent,
    admits,
    charge,
    delta_of,
    epsilon_of,
    zcdp_epsilon,
)
from insitu_privacy.plan import Loss

exact = st.fractions(min_value=0, max_value=20, max_denominator=10**6)


def laplace(epsilon: Fraction, threshold_delta: Fraction = Fraction(0)) -> Loss:
    return Loss(
        epsilon=epsilon, delta=threshold_delta, rho=epsilon**2 / 2, threshold_delta=threshold_delta, pure=epsilon
    )


def gaussian(rho: Fraction, threshold_delta: Fraction = Fraction(0)) -> Loss:
    return Loss(epsilon=Fraction(1), delta=Fraction(1, 10**7), rho=rho, threshold_delta=threshold_delta, pure=None)


def zcdp(epsilon: Fraction | int, delta: Fraction = Fraction(1, 10**6)) -> Grantable:
    return Grantable(epsilon=Fraction(epsilon), delta=delta, accounting="zcdp")


def pure(epsilon: Fraction | int, delta: Fraction = Fraction(1, 10**6)) -> Grantable:
    return Grantable(epsilon=Fraction(epsilon), delta=delta, accounting="pure")


def total(*losses: Loss) -> Spent:
    spent = ZERO_SPENT
    for loss in losses:
        spent = charge(spent, loss)
    return spent


@given(st.lists(st.tuples(exact, exact, st.booleans()), max_size=8), st.randoms())
def test_charges_add_up_exactly_in_any_order(parts: list[tuple[Fraction, Fraction, bool]], random: object) -> None:
    losses = [laplace(size, delta) if is_pure else gaussian(size, delta) for size, delta, is_pure in parts]
    forward, backward = total(*losses), total(*reversed(losses))
    assert forward == backward
    assert forward.rho == sum((loss.rho for loss in losses), Fraction(0))
    assert forward.delta == sum((loss.threshold_delta for loss in losses), Fraction(0))
    assert (forward.pure is None) == (not all(is_pure for _, _, is_pure in parts))


@settings(max_examples=30, deadline=None)
@given(exact, exact, exact, st.sampled_from(["zcdp", "pure"]))
def test_what_is_refused_stays_refused_when_more_is_charged(a: Fraction, b: Fraction, e: Fraction, way: str) -> None:
    budget = zcdp(e) if way == "zcdp" else pure(e)
    before, after = total(laplace(a)), total(laplace(a), laplace(b))
    assert admits(budget, before) or not admits(budget, after)


@settings(max_examples=30, deadline=None)
@given(exact, exact, st.sampled_from(["zcdp", "pure"]), st.booleans())
def test_what_is_admitted_amounts_to_no_more_than_the_grant(a: Fraction, e: Fraction, way: str, is_pure: bool) -> None:
    budget = zcdp(e) if way == "zcdp" else pure(e)
    spent = total(laplace(a) if is_pure else gaussian(a))
    if admits(budget, spent):
        assert epsilon_of(budget, spent) <= budget.epsilon
        assert delta_of(budget, spent) <= budget.delta


def test_pure_accounting_adds_epsilons_to_the_last_digit() -> None:
    budget = pure(1)
    tenth = laplace(Fraction(1, 10))
    assert admits(budget, total(*[tenth] * 10))
    assert not admits(budget, total(*[tenth] * 10, laplace(Fraction(1, 10**30))))


def test_pure_accounting_never_admits_a_gaussian() -> None:
    assert not admits(pure(1000), total(gaussian(Fraction(1, 10**9))))


def test_pure_accounting_spends_all_of_delta_on_thresholds() -> None:
    budget = pure(10)
    assert admits(budget, total(laplace(Fraction(1), budget.delta)))
    assert not admits(budget, total(laplace(Fraction(1), budget.delta + Fraction(1, 10**30))))


def test_zcdp_accounting_keeps_half_of_delta_for_the_conversion() -> None:
    budget = zcdp(10)
    assert admits(budget, total(laplace(Fraction(1), budget.delta / 2)))
    assert not admits(budget, total(laplace(Fraction(1), budget.delta / 2 + Fraction(1, 10**30))))


def test_zcdp_accounting_admits_many_small_runs_beyond_the_sum_of_epsilons() -> None:
    budget = zcdp(25)
    spent = total(*[laplace(Fraction(1, 10))] * 1000)  # sum of epsilons 100, sum of rho 5
    assert spent.pure == 100
    assert admits(budget, spent)
    assert delta_of(budget, spent) == budget.delta / 2


def test_zcdp_accounting_admits_one_large_laplace_by_its_epsilon() -> None:
    budget = zcdp(10**9)
    spent = total(laplace(Fraction(10**9)))
    assert admits(budget, spent)
    assert epsilon_of(budget, spent) == 10**9
    assert delta_of(budget, spent) == 0


def test_a_conversion_that_would_overflow_is_infinite() -> None:
    assert zcdp_epsilon(Fraction(1000), Fraction(1, 10**6)) is not None
    assert zcdp_epsilon(Fraction(1000) + Fraction(1, 10**9), Fraction(1, 10**6)) is None
    assert not admits(zcdp(10**12), total(gaussian(Fraction(1001))))


def test_without_delta_there_is_no_conversion() -> None:
    budget = zcdp(100, Fraction(0))
    assert not admits(budget, total(gaussian(Fraction(1, 10**6))))
    assert admits(budget, total(laplace(Fraction(1))))
    assert zcdp_epsilon(Fraction(1), Fraction(1, 10**400)) is None


def test_nothing_spent_is_nothing() -> None:
    assert epsilon_of(zcdp(1), ZERO_SPENT) == 0
    assert delta_of(zcdp(1), ZERO_SPENT) == 0


def test_totals_without_a_finite_epsilon_are_an_error() -> None:
    with pytest.raises(ValueError, match="no finite epsilon"):
        epsilon_of(pure(1), total(gaussian(Fraction(1))))


@pytest.mark.parametrize(
    "loss",
    [
        gaussian(Fraction(-1)),
        gaussian(Fraction(1), Fraction(-1)),
        Loss(
            epsilon=Fraction(1), delta=Fraction(0), rho=Fraction(1), threshold_delta=Fraction(0), pure=Fraction(-1, 9)
        ),
    ],
)
def test_a_negative_loss_is_an_error(loss: Loss) -> None:
    with pytest.raises(ValueError, match="never negative"):
        charge(ZERO_SPENT, loss)


def test_negative_totals_and_impossible_budgets_are_errors() -> None:
    with pytest.raises(ValueError, match="never negative"):
        Spent(pure=None, rho=Fraction(-1), delta=Fraction(0))
    with pytest.raises(ValueError, match="a budget has"):
        zcdp(1, Fraction(1))


@pytest.mark.parametrize("rho", ["1e-6", "0.001", "0.05", "0.5", "3", "20", "200"])
@pytest.mark.parametrize("delta", ["1e-5", "5e-7", "1e-10"])
def test_the_conversion_is_no_tighter_than_rdp_and_no_looser(rho: str, delta: str) -> None:
    """dp_accounting converts the same zCDP loss through RDP at a grid of orders; OpenDP over all orders."""
    ours = zcdp_epsilon(Fraction(rho), Fraction(delta))
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    theirs = accountant.compose(ZCDpEvent(float(rho))).get_epsilon(float(delta))
    assert ours is not None
    assert float(ours) <= theirs * 1.001 + 1e-9


@pytest.mark.parametrize("sigmas", [[2.0], [1.0, 3.0], [0.5, 0.5, 4.0, 8.0]])
def test_composed_gaussians_cost_at_least_their_exact_privacy_loss(sigmas: list[float]) -> None:
    """The exact loss distribution of composed Gaussians (dp_accounting's PLD) is a lower bound on any conversion."""
    delta = 5e-7
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    exact_epsilon = accountant.compose(ComposedDpEvent([GaussianDpEvent(sigma) for sigma in sigmas])).get_epsilon(delta)
    spent = total(*[gaussian(1 / (2 * Fraction(sigma) ** 2)) for sigma in sigmas])
    ours = zcdp_epsilon(spent.rho, Fraction(delta))
    assert ours is not None
    assert exact_epsilon * 0.999 <= float(ours) <= exact_epsilon * 1.35


@pytest.mark.parametrize(("count", "epsilon"), [(1, "1"), (40, "0.25"), (500, "0.1")])
def test_composed_laplaces_cost_at_least_their_exact_privacy_loss(count: int, epsilon: str) -> None:
    budget = zcdp(10**6)
    spent = total(*[laplace(Fraction(epsilon))] * count)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3)
    event = SelfComposedDpEvent(LaplaceDpEvent(1 / float(epsilon)), count)
    assert accountant.compose(event).get_epsilon(float(budget.delta / 2)) * 0.99 <= float(epsilon_of(budget, spent))


def test_reading_totals_does_not_load_opendp() -> None:
    code = (
        "import sys; from insitu_privacy.accounting import *; from fractions import Fraction as F;"
        "assert admits(Grantable(epsilon=F(1), delta=F(0), accounting='pure'), ZERO_SPENT);"
        "assert 'opendp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
