"""Pass 9: noise. Splits the release's budget over its statistics, claims exact scales, takes the better mechanism.

Statistic j moves in at most C groups by at most linf_j each for one unit, so its l1 sensitivity is C * linf_j and its
l2 sensitivity sqrt(C) * linf_j. A tree of counts counts each unit once
a level, so it counts as one statistic for each of its h levels.

* discrete Laplace, epsilon_j each: scale b_j = C * linf_j / epsilon_j. The run is epsilon-DP for their sum, and
  sum of epsilon_j^2 / 2 in zCDP (Bun and Steinke 2016, Proposition 1.4);
* discrete Gaussian, rho_j each: sigma_j = linf_j * sqrt(C / (2 * rho_j)) (Canonne, Kamath, Steinke 2020, Theorem
  14), with their sum the largest whose conversion at delta stays at epsilon.

The shares are as the weights that the request names for its statistics, and equal where it names none.

The conversion here is Bun and Steinke's Proposition 1.3, epsilon = rho + 2 sqrt(rho ln(1/delta)): looser than
OpenDP's, so the claim holds a fortiori, and it needs no OpenDP, which neither gateway nor client may import. The node
recomputes every loss with OpenDP's own maps and refuses to run what exceeds the claim (``insitu_privacy.mechanisms``).
All roundings go towards more noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.passes.bounds import Bounded, levels
from insitu_privacy.plan import (
    Accounting,
    Loss,
    Mechanism,
    QueryParameters,
    Statistic,
    StatisticKind,
    Threshold,
)

_RESOLUTION = 10**12
"""Losses and scales are whole multiples of its inverse, so that exact sums stay short."""
_LEAST_TAIL = 1.2e-16
"""OpenDP's maps step by 2^-53 per group and claim no less; nor do they take a threshold of 1: tau is at least 2."""
_Tail = Callable[[float, int], float]
_SLACK = 1 + 1e-9
"""Covers the rounding of float functions, whose results are then rounded to the safe side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How one release is made private."""

    mechanism: Mechanism
    statistics: tuple[Statistic, ...]
    threshold: Threshold | None
    loss: Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What has to be made private, and what may be spent on it."""

    measured: tuple[Bounded, ...]
    values: tuple[int | None, ...]
    """For each statistic, the index of its value expression."""
    weights: tuple[int, ...]
    """For each statistic, its part of epsilon under Laplace, in proportion to the others."""
    bounds: ContributionBounds
    selects_keys: bool
    parameters: QueryParameters
    accounting: Accounting


def mechanisms(demand: Demand) -> Noise:
    """The more accurate mechanism of those that may be used, or ParameterRefused where none may."""
    options, refusals = [], []
    for mechanism, make in (("laplace", _laplace), ("gaussian", _gaussian)):
        if demand.parameters.mechanism not in ("auto", mechanism):
            continue
        try:
            options.append(make(demand))
        except ParameterRefused as refused:
            refusals.append(refused)
    if not options:
        raise refusals[0]
    return min(options, key=lambda noise: _error(noise, demand.weights))


def _error(noise: Noise, weights: Sequence[int]) -> float:
    """The sum over statistics of the variance of their noise, each as important as its weight says it is.

    Weights w are the best shares of epsilon (the sum of a / w^2 is least) exactly where a is as w^3.
    """
    factor = 2 if noise.mechanism == "laplace" else 1
    pairs = zip(noise.statistics, weights, strict=True)
    return sum(factor * weight**3 * (float(one.scale) / one.linf) ** 2 for one, weight in pairs)


def _laplace(demand: Demand) -> Noise:
    measured, bounds, parameters = demand.measured, demand.bounds, demand.parameters
    whole = sum(demand.weights)
    shares = [
        _down(parameters.epsilon * weight / whole / levels(one))
        for one, weight in zip(measured, demand.weights, strict=True)
    ]
    if min(shares) <= 0:
        raise ParameterRefused("INSITU-PARAM-MECHANISM", value="laplace", reason="this epsilon is too small for it")
    statistics = tuple(
        _statistic(
            one,
            value,
            epsilon=share * levels(one),
            rho=_up(share * share / 2 * levels(one)),
            scale=_up(Fraction(bounds.max_groups * one.linf) / share),
        )
        for one, value, share in zip(measured, demand.values, shares, strict=True)
    )
    delta = _threshold_delta(demand.selects_keys, parameters, Fraction(1))
    threshold = _select(statistics, bounds, delta, _laplace_tail) if demand.selects_keys else None
    rho = sum((one.rho for one in statistics), Fraction(0))
    loss = Loss(epsilon=parameters.epsilon, delta=delta, rho=rho, threshold_delta=delta, pure=parameters.epsilon)
    return Noise(mechanism="laplace", statistics=statistics, threshold=threshold, loss=loss)


def _gaussian(demand: Demand) -> Noise:
    measured, bounds, parameters = demand.measured, demand.bounds, demand.parameters
    if demand.accounting == "pure":
        reason = "this grant accounts in pure epsilon"
        raise ParameterRefused("INSITU-PARAM-MECHANISM", value="gaussian", reason=reason)
    if parameters.delta <= 0:
        raise ParameterRefused("INSITU-PARAM-DELTA-NEEDED", reason="Gaussian noise")
    delta = _threshold_delta(demand.selects_keys, parameters, Fraction(1, 2))
    total = _rho_of(parameters.epsilon, parameters.delta - delta)
    shares = _gaussian_shares(total, demand)
    if min(shares) <= 0:
        raise ParameterRefused("INSITU-PARAM-MECHANISM", value="gaussian", reason="this epsilon is too small for it")
    statistics = tuple(
        _statistic(
            one,
            value,
            epsilon=Fraction(0),
            rho=share * levels(one),
            scale=_up_float(one.linf * math.sqrt(bounds.max_groups / (2 * float(share)))),
        )
        for one, value, share in zip(measured, demand.values, shares, strict=True)
    )
    threshold = _select(statistics, bounds, delta, _gaussian_tail) if demand.selects_keys else None
    rho = sum((one.rho for one in statistics), Fraction(0))
    loss = Loss(epsilon=parameters.epsilon, delta=parameters.delta, rho=rho, threshold_delta=delta, pure=None)
    return Noise(mechanism="gaussian", statistics=statistics, threshold=threshold, loss=loss)


def _gaussian_shares(total: Fraction, demand: Demand) -> list[Fraction]:
    """The zCDP loss of one level of each statistic.

    Where a / w^2 was to be least in sum under Laplace, a / r is under Gaussian: r is as the root of a, that is w^(3/2).
    """
    parts = [math.isqrt(weight**3 * _RESOLUTION) for weight in demand.weights]
    whole = sum(parts)
    return [_down(total * part / whole / levels(one)) for one, part in zip(demand.measured, parts, strict=True)]


def _statistic(one: Bounded, value: int | None, *, epsilon: Fraction, rho: Fraction, scale: Fraction) -> Statistic:
    kind: StatisticKind = one.wanted.kind
    return Statistic(
        kind=kind,
        value=value,
        granularity=one.granularity,
        center=one.center,
        most=one.most,
        linf=one.linf,
        epsilon=epsilon,
        rho=rho,
        scale=scale,
        levels=levels(one),
    )


def _down(value: Fraction) -> Fraction:
    return Fraction(math.floor(value * _RESOLUTION), _RESOLUTION)


def _up(value: Fraction) -> Fraction:
    return Fraction(math.ceil(value * _RESOLUTION), _RESOLUTION)


def _up_float(value: float) -> Fraction:
    return _up(Fraction(value * _SLACK))


def _rho_of(epsilon: Fraction, delta: Fraction) -> Fraction:
    """The largest rho with rho + 2 sqrt(rho ln(1/delta)) <= epsilon, rounded down."""
    log = -math.log(float(delta))
    root = math.sqrt(log + float(epsilon)) - math.sqrt(log)
    return _down(Fraction(root * root / _SLACK))


# -- key selection ---------------------------------------------------------------------------------------------------


def _threshold_delta(selects_keys: bool, parameters: QueryParameters, share: Fraction) -> Fraction:
    if not selects_keys:
        return Fraction(0)
    if parameters.delta <= 0:
        reason = "the group keys have no public domain, so groups are selected by thresholding"
        raise ParameterRefused("INSITU-PARAM-DELTA-NEEDED", reason=reason)
    return parameters.delta * share


def _select(
    statistics: tuple[Statistic, ...],
    bounds: ContributionBounds,
    delta: Fraction,
    tail: _Tail,
) -> Threshold:
    """The least tau at which C groups of one unit alone stay hidden but with probability delta.

    A group of one unit is released when 1 + noise > tau, that is noise >= tau: union bound over C groups.
    """
    index = next(i for i, one in enumerate(statistics) if one.kind == "units" and one.value is None)
    scale = float(statistics[index].scale)
    allowed = float(delta) / bounds.max_groups / _SLACK - 2 * _LEAST_TAIL
    if allowed < _LEAST_TAIL:
        reason = (
            f"key selection over {bounds.max_groups} groups cannot show less than {_LEAST_TAIL * bounds.max_groups}"
        )
        raise ParameterRefused("INSITU-PARAM-DELTA-NEEDED", reason=reason)
    low, high = 2, 3
    while tail(scale, high) > allowed:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tail(scale, middle) <= allowed else (middle + 1, high)
    return Threshold(statistic=index, tau=high, delta=delta)


def _laplace_tail(scale: float, tau: int) -> float:
    """P(noise >= tau) of discrete Laplace, tau >= 1."""
    return math.exp(-tau / scale) / (1 + math.exp(-1 / scale))


def _gaussian_tail(scale: float, tau: int) -> float:
    """Bounds P(noise >= tau) of discrete Gaussian by the continuous one a step lower (Canonne et al., Prop. 25).

    OpenDP's map takes the same bound.
    """
    return math.erfc((tau - 1) / scale / math.sqrt(2)) / 2
