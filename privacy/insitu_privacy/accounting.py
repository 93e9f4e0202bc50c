"""The privacy filter: what has been charged to one account, and whether it still fits the grant.

An account is one grant at one dataset of one node. Each run charges its ``Loss`` before it reads data: ``charge`` adds
losses up exactly, ``admits`` decides on the totals that would be reached, ``epsilon_of`` and ``delta_of`` tell people
what the totals amount to. Fully adaptive composition holds: each run's loss may depend on all earlier answers, because
a filter's sums are known before each run and a run that would leave the region is not made (Whitehouse, Ramdas, Rogers
and Wu 2023, theorem 1 for approximate zCDP, and Rogers, Roth, Ullman and Vadhan 2016 for the sum of epsilons).

``pure``: the sum of epsilons is at most epsilon, the sum of threshold deltas at most delta.

``zcdp``: the sum of threshold deltas is at most delta / 2, and the totals lie in the union of two regions:
Z, where OpenDP's conversion of the sum of rho at delta / 2 is at most epsilon, and P, where no run was Gaussian and
the sum of epsilons is at most epsilon. The union is a filter too. Outside events of probability at most delta / 2 (an
(epsilon, d) run is an epsilon run but for an event of probability d, and an epsilon run is epsilon^2 / 2-zCDP), let L
be the privacy loss of the whole interaction, and let T be the last run within Z. A path that leaves Z stays in P (sums
only grow, so neither region is entered again), hence |L| <= epsilon on it, surely: it adds nothing to the hockey-stick
divergence E[(1 - exp(epsilon - L))+]. On all other paths L is the loss stopped at T, an interaction that the zCDP
filter bounds, and the divergence of that stopped interaction is at most delta / 2. The two halves make delta.

What is not here: storage and locking (the node's ledger), and noise (``mechanisms``). OpenDP is imported when a
conversion is first asked for, so that whoever only reads totals never loads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from insitu_privacy.plan import Accounting, Loss

_RHO_LIMIT = Fraction(1000)
"""OpenDP 0.16's conversion overflows somewhere above 10^4 (measured); well below that it is taken as infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Running totals of one account."""

    pure: Fraction | None
    """Sum of the runs' epsilons; None once a Gaussian was charged."""
    rho: Fraction
    delta: Fraction
    """Sum of the runs' threshold deltas."""

    def __post_init__(self) -> None:
        if min(self.rho, self.delta, self.pure or 0) < 0:
            raise ValueError("totals of an account are never negative")


ZERO_SPENT = Spent(pure=Fraction(0), rho=Fraction(0), delta=Fraction(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grantable:
    """The privacy budget that a grant gives one dataset at one node, and how it is accounted."""

    epsilon: Fraction
    delta: Fraction
    accounting: Accounting

    def __post_init__(self) -> None:
        if self.epsilon < 0 or not 0 <= self.delta < 1:
            raise ValueError("a budget has epsilon >= 0 and 0 <= delta < 1")


def charge(spent: Spent, loss: Loss) -> Spent:
    """The totals after one more run. Raises ValueError on a negative loss, which would un-spend."""
    if min(loss.rho, loss.threshold_delta, loss.pure or 0) < 0:
        raise ValueError("a loss is never negative")
    pure = None if spent.pure is None or loss.pure is None else spent.pure + loss.pure
    return Spent(pure=pure, rho=spent.rho + loss.rho, delta=spent.delta + loss.threshold_delta)


def admits(budget: Grantable, spent: Spent) -> bool:
    """Whether totals may be reached under a budget: the filter's decision, on the totals after the charge."""
    if spent.delta > _delta_for_thresholds(budget):
        return False
    if spent.pure is not None and spent.pure <= budget.epsilon:
        return True
    if budget.accounting == "pure":
        return False
    converted = zcdp_epsilon(spent.rho, budget.delta / 2)
    return converted is not None and converted <= budget.epsilon


def epsilon_of(budget: Grantable, spent: Spent) -> Fraction:
    """The epsilon that totals amount to, rounded up: the smaller of the filter's two ways.

    Raises ValueError where neither gives a finite one, which no totals that ``admits`` let through do.
    """
    ways = [spent.pure, _converted(budget, spent)]
    finite = [way for way in ways if way is not None]
    if not finite:
        raise ValueError("these totals have no finite epsilon under this budget")
    return min(finite)


def delta_of(budget: Grantable, spent: Spent) -> Fraction:
    """The delta that goes with ``epsilon_of``: thresholds, and half the grant's where the conversion took it."""
    converted = _converted(budget, spent)
    by_conversion = converted is not None and (spent.pure is None or converted < spent.pure)
    return spent.delta + (budget.delta / 2 if by_conversion else 0)


def _delta_for_thresholds(budget: Grantable) -> Fraction:
    """Under zCDP the other half of delta is kept for the conversion, whether or not it has been needed yet."""
    return budget.delta / 2 if budget.accounting == "zcdp" else budget.delta


def _converted(budget: Grantable, spent: Spent) -> Fraction | None:
    return zcdp_epsilon(spent.rho, budget.delta / 2) if budget.accounting == "zcdp" else None


@lru_cache(maxsize=4096)
def zcdp_epsilon(rho: Fraction, delta: Fraction) -> Fraction | None:
    """The least epsilon for which OpenDP finds rho-zCDP to be (epsilon, delta)-DP, rounded up; None for infinite."""
    if rho == 0:
        return Fraction(0)
    if rho > _RHO_LIMIT:
        return None
    low_delta = _float_at_most(delta)
    if low_delta <= 0.0:
        return None
    epsilon: float = _approximate_dp().map(_float_at_least(rho)).epsilon(low_delta)
    return Fraction(math.nextafter(epsilon, math.inf)) if math.isfinite(epsilon) else None


@cache
def _approximate_dp() -> Any:
    """A measurement whose privacy map is OpenDP's conversion alone: it takes rho itself as its input distance."""
    import opendp.prelude as dp

    # "honest-but-curious" lets a measurement state its own map. This one is never invoked: only its map is used.
    dp.enable_features("contrib", "honest-but-curious")
    identity = dp.m.make_user_measurement(
        dp.atom_domain(T=bool),
        dp.absolute_distance(T=float),
        dp.zero_concentrated_divergence(),
        lambda _: False,
        lambda rho: rho,
    )
    return dp.c.make_zCDP_to_approxDP(identity)


def _float_at_least(value: Fraction) -> float:
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def _float_at_most(value: Fraction) -> float:
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, 0.0)
