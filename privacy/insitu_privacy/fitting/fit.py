"""The bounds and shares of a whole query: each release by itself, then the budget over all of their statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from insitu_privacy.data_profile import DataProfile
from insitu_privacy.dataset import Dataset
from insitu_privacy.fits import ReleaseFit, StatisticFit
from insitu_privacy.fitting.choice import Choice, choose, totals_of
from insitu_privacy.fitting.crowd import GUESSED_CELLS, Crowd, crowds, spreads
from insitu_privacy.fitting.curves import Curve
from insitu_privacy.fitting.ends import ends
from insitu_privacy.fitting.own import OwnRows
from insitu_privacy.fitting.passing import Terms
from insitu_privacy.fitting.values import leaf_shares
from insitu_privacy.plan import Accounting, PrivacyPlan, QueryParameters, Release

_WEIGHTS = 1000
_LEAST_WEIGHT = 20
"""Of a thousand: whatever is guessed, each statistic gets some of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected of one release: a typical group over all nodes, without bounds and with those chosen."""

    rows: float
    rows_kept: float
    totals: tuple[float, ...]
    """In integers of each statistic, but of sums before a centre is taken off."""
    kept: tuple[float, ...]
    choice: Choice
    values: Curve | None = None
    """Of a tree, where the values of its rows lie; None where no profile says."""

    def leaf_shares(self, release: Release) -> tuple[float, ...] | None:
        """Of a release that is a tree, the share of the rows at each leaf; None where no profile says."""
        if release.tree is None or self.values is None:
            return None
        (statistic,) = release.statistics
        return leaf_shares(self.values, release.tree.leaves, float(statistic.center), float(statistic.granularity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """What to ask for, empty where the plan is best as it is; and what is expected, None where no profile says."""

    fits: tuple[ReleaseFit, ...]
    outlooks: tuple[Outlook | None, ...]


def fitted(
    plan: PrivacyPlan,
    dataset: Dataset,
    profile: DataProfile | None,
    *,
    parameters: QueryParameters,
    accounting: Accounting,
    nodes: int,
    own: OwnRows | None = None,
) -> Fitting:
    """The bounds of every release of ``plan``, which was made at ``parameters`` without fits, for so many nodes.

    Bounds that the parameters name are kept. ``own`` is what a first look said of the rows that all releases read.
    """
    found = [_crowds(release, dataset, profile, own) for release in plan.releases]
    terms = terms_of(plan, parameters, accounting, nodes)
    choices = [
        choose(release, each, terms, rows=rows_named(release, parameters), groups=groups_named(release, parameters))
        if each
        else None
        for release, each in zip(plan.releases, found, strict=True)
    ]
    importance = [
        choice.importance if choice is not None else _guessed(release)
        for release, choice in zip(plan.releases, choices, strict=True)
    ]
    weights = _weights(importance)
    curves = [() if profile is None else spreads(release, dataset, profile) for release in plan.releases]
    fits = tuple(
        _with_ends(_fit(release, choice, each), release, plan, curve)
        for release, choice, each, curve in zip(plan.releases, choices, weights, curves, strict=True)
    )
    changes = profile is not None and any(choice is not None for choice in choices)
    changes |= any(one.ends is not None for each in fits for one in each.statistics)
    even = all(len(set(each)) == 1 for each in weights) and len({each[:1] for each in weights}) == 1
    outlooks = tuple(
        None if choice is None or profile is None else _outlook(release, each, choice, curve)
        for release, each, choice, curve in zip(plan.releases, found, choices, curves, strict=True)
    )
    return Fitting(fits=fits if changes or not even else (), outlooks=outlooks)


def _crowds(release: Release, dataset: Dataset, profile: DataProfile | None, own: OwnRows | None) -> tuple[Crowd, ...]:
    return () if profile is None else crowds(release, dataset, profile, own)


def rows_named(release: Release, parameters: QueryParameters) -> int | None:
    """m where it is not to be chosen: the researcher's own, or 1 where there is one row."""
    return release.bounds.max_rows_per_group if parameters.max_rows_per_group is not None else None


def groups_named(release: Release, parameters: QueryParameters) -> int | None:
    return release.bounds.max_groups if parameters.max_groups is not None else None


def terms_of(plan: PrivacyPlan, parameters: QueryParameters, accounting: Accounting, nodes: int) -> Terms:
    """An equal part of the budget for each release: how much each gets in the end depends on what is chosen."""
    count = max(1, len(plan.releases))
    epsilon = float(parameters.epsilon) / count
    delta = float(parameters.delta) / count
    selects = any(release.threshold is not None for release in plan.releases)
    delta /= 2 if selects else 1
    gaussian = accounting == "zcdp" and delta > 0 and parameters.mechanism != "laplace"
    log = -math.log(delta) if gaussian else 0.0
    rho = (math.sqrt(log + epsilon) - math.sqrt(log)) ** 2 if gaussian else 0.0
    return Terms(epsilon=epsilon, rho=rho, delta=delta if selects else 0.0, nodes=nodes, mechanism=parameters.mechanism)


def _guessed(release: Release) -> tuple[float, ...]:
    """Sensitivities in shares of a typical group where nothing is known of its size, up to what is common to all.

    Values are taken to be half as large as they may be, and units to have as many rows as the root of m.
    """
    cells = release.cells or GUESSED_CELLS
    rows, groups = release.bounds.max_rows_per_group, release.bounds.max_groups
    found = []
    for one in release.statistics:
        if one.kind == "units":
            share = math.sqrt(rows)
        elif one.kind == "sum":
            typical = abs(float(one.center / one.granularity)) or one.most / 2
            share = one.linf / max(typical, 1.0)
        else:
            share = one.linf / one.most
        found.append(groups * one.levels * cells * share)
    return tuple(found)


def _weights(importance: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    """Parts of epsilon: as the sensitivity in shares of a group to the power of two thirds (``choice``)."""
    most = max((one for each in importance for one in each), default=1.0)
    return [tuple(max(_LEAST_WEIGHT, round(_WEIGHTS * (one / most) ** (2 / 3))) for one in each) for each in importance]


def _fit(release: Release, choice: Choice | None, weights: Sequence[int]) -> ReleaseFit:
    bounds = release.bounds
    if choice is None:
        return ReleaseFit(
            max_rows_per_group=bounds.max_rows_per_group,
            max_groups=bounds.max_groups,
            statistics=tuple(StatisticFit(weight=weight) for weight in weights),
        )
    statistics = tuple(
        StatisticFit(
            weight=weight, linf=cap, center=None if center is None else _rounded(center, statistic.granularity)
        )
        for statistic, weight, cap, center in zip(release.statistics, weights, choice.caps, choice.centers, strict=True)
    )
    return ReleaseFit(max_rows_per_group=choice.max_rows_per_group, max_groups=choice.max_groups, statistics=statistics)


def _with_ends(fit: ReleaseFit, release: Release, plan: PrivacyPlan, curves: Sequence[Curve | None]) -> ReleaseFit:
    """With the ends of the leaves, where the release is a tree."""
    quantiles = [one for one in plan.quantiles if one.tree == release.name]
    found = ends(release, quantiles, curves[0]) if quantiles and curves else None
    return replace(fit, statistics=(replace(fit.statistics[0], ends=found),)) if found is not None else fit


def _rounded(center: float, granularity: Fraction) -> Fraction:
    return round(Fraction(center) / granularity) * granularity


def _outlook(release: Release, found: Sequence[Crowd], choice: Choice, curves: Sequence[Curve | None]) -> Outlook:
    totals = [[total * choice.typical for total in totals_of(release, crowd)] for crowd in found]
    mean = [sum(each) / len(each) for each in zip(*totals, strict=True)]
    kept = [one * (1 - bias) for one, bias in zip(mean, choice.bias, strict=True)]
    rows = sum(crowd.total for crowd in found) / len(found) * choice.typical
    rows_kept = rows * (1 - choice.rows_bias)
    for place, of_row in _means(release, curves, found[0]).items():
        cut = choice.bias[place] if _is_capped(release, place, found[0]) else choice.rows_bias
        mean[place], kept[place] = rows * of_row, rows * of_row * (1 - cut)
    return Outlook(
        rows=rows,
        rows_kept=rows_kept,
        totals=tuple(mean),
        kept=tuple(kept),
        choice=choice,
        values=_tree_values(release, curves),
    )


def _means(release: Release, curves: Sequence[Curve | None], crowd: Crowd) -> dict[int, float]:
    """What a row adds to each statistic, where values and their squares are summed: all by one measure.

    A variance is a small difference of the two. What is summed beside it would be off by more than that, taken from
    the sums of units.
    """
    sums = [(place, one) for place, one in enumerate(release.statistics) if one.kind == "sum" and one.value is not None]
    if all(one.value in crowd.sums for _, one in sums):
        return {}
    rows = [(place, one) for place, one in enumerate(release.statistics) if one.kind == "rows"]
    found = {place: float(one.most) for place, one in rows}
    for place, one in sums:
        curve = None if one.value is None else curves[one.value]
        if curve is not None:
            found[place] = curve.mean / float(one.granularity)
    return found


def _is_capped(release: Release, place: int, crowd: Crowd) -> bool:
    """Whether what units add up to is known, so that it may be cut beyond their rows."""
    return release.statistics[place].value in crowd.sums and release.statistics[place].kind == "sum"


def _tree_values(release: Release, curves: Sequence[Curve | None]) -> Curve | None:
    if release.tree is None:
        return None
    (statistic,) = release.statistics
    return None if statistic.value is None else curves[statistic.value]
